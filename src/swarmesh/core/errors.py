"""The one root of every error a user can meet, each with a stable code.

Scripts match on ``code``; people read ``message`` (what was wrong, and where) and ``hint`` (what to do next).
Codes are added, never renamed. ``status`` is the HTTP status the error has on the wire.
"""

from __future__ import annotations


class SwarmeshError(Exception):
    """Something went wrong that has a name."""

    code: str = "swarmesh_error"
    status: int = 500
    type: str = "server_error"
    default_hint: str = ""

    def __init__(
        self, message: str = "", *, hint: str = "", param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.hint = hint or self.default_hint
        self.param = param
        self.retry_after_s = retry_after_s
        super().__init__(self.message)


class InternalError(SwarmeshError):
    """Something went wrong inside the queennode."""

    code = "internal_error"
    default_hint = "Its log has the details: logs/queennode.log in SWARMESH_HOME."


class BadInputError(SwarmeshError):
    """The request cannot be understood; sending it again unchanged will not help."""

    code = "bad_input"
    status = 400
    type = "invalid_request_error"


class MalformedJsonError(BadInputError):
    """The body is not JSON."""

    code = "malformed_json"
    default_hint = "Send one JSON object; the position counts bytes from 0."


class InvalidValueError(BadInputError):
    """A field has a value outside its range."""

    code = "invalid_value"


class BodyTooLargeError(BadInputError):
    """The body is larger than this queennode accepts."""

    code = "body_too_large"
    status = 413


class HeadTooLargeError(BadInputError):
    """The request line and headers are larger than this queennode accepts."""

    code = "head_too_large"
    status = 431


class RequestTimeoutError(BadInputError):
    """The request did not arrive in time."""

    code = "request_timeout"
    status = 408


class UnauthorizedError(SwarmeshError):
    """No valid API key came with the request."""

    code = "invalid_api_key"
    status = 401
    type = "authentication_error"
    default_hint = "Send 'Authorization: Bearer KEY'; 'swarmesh env' prints the key of this machine's swarmesh."


class ForbiddenError(SwarmeshError):
    """This key may not do that."""

    code = "forbidden"
    status = 403
    type = "permission_error"


class PolicyRefusedError(ForbiddenError):
    """The policy script of this swarm does not let the task in."""

    code = "policy_refused"
    default_hint = "Ask whoever runs the swarm: they can change the policy script or deactivate it."


class NotFoundError(SwarmeshError):
    """There is nothing by that name."""

    code = "not_found"
    status = 404
    type = "invalid_request_error"


class ModelNotFoundError(NotFoundError):
    """No modelcell has that name."""

    code = "model_not_found"
    default_hint = "'swarmesh models list' shows the modelcells; 'swarmesh models add FILE --name NAME' adds one."


class MethodNotAllowedError(SwarmeshError):
    """The route exists, the method does not."""

    code = "method_not_allowed"
    status = 405
    type = "invalid_request_error"


class ConflictError(SwarmeshError):
    """The request contradicts the present state."""

    code = "conflict"
    status = 409
    type = "invalid_request_error"


class QueueFullError(SwarmeshError):
    """The broodqueue of this key is full."""

    code = "queue_full"
    status = 429
    type = "rate_limit_error"
    default_hint = "Try again after the seconds in Retry-After, or add a rustbee."


class KeyConcurrencyError(SwarmeshError):
    """This key has as many tasks at once as it may."""

    code = "key_concurrency"
    status = 429
    type = "rate_limit_error"
    default_hint = "Try again after the seconds in Retry-After, or submit a nectarflow, which waits for its turn."


class KeyTokensError(SwarmeshError):
    """This key has used as many tokens as it may for now."""

    code = "key_tokens"
    status = 429
    type = "rate_limit_error"
    default_hint = "Try again after the seconds in Retry-After, or submit a nectarflow, which waits for its turn."


class NoRustbeesAvailableError(SwarmeshError):
    """No rustbee can take this task."""

    code = "no_rustbees_available"
    status = 503
    default_hint = "'swarmesh rustbees list' shows them; 'swarmesh spawn rustbee --modelcell NAME' starts one."


class NoStableRustbeesError(NoRustbeesAvailableError):
    """No stable rustbee can take this task."""

    code = "no_stable_rustbees"


class NoExperiencedRustbeesError(NoRustbeesAvailableError):
    """No experienced rustbee can take this task of high priority."""

    code = "no_experienced_rustbees"


class ModelCannotBePlacedError(NoRustbeesAvailableError):
    """No rustbee of this modelcell could be started anywhere."""

    code = "model_cannot_be_placed"
    default_hint = "'swarmesh explain placement NAME' shows why not, by host; 'swarmesh models fit NAME' what it needs."


class TooManyStreamsError(SwarmeshError):
    """This queennode relays as many streams as it may."""

    code = "too_many_streams"
    status = 503
    default_hint = "Try again after the seconds in Retry-After."


class TooManySurveysError(SwarmeshError):
    """This queennode asks its hosts about as many modelcells at once as it may."""

    code = "too_many_surveys"
    status = 503
    default_hint = "Try again after the seconds in Retry-After."


class RustbeeLostError(SwarmeshError):
    """The rustbee that served this task was lost, and no other could go on with it."""

    code = "rustbee_lost"
    status = 502
    default_hint = "Send the task again; 'swarmesh rustbees list' shows what is left."


class ResumeDivergedError(SwarmeshError):
    """Another rustbee went on differently from what was shown already."""

    code = "resume_diverged"
    status = 502
    default_hint = "Send the task again; with a temperature of 0 or a seed its answer can be repeated."


class PoisonTaskError(SwarmeshError):
    """This task crashed the engines that ran it."""

    code = "failed_poison"
    status = 422
    type = "invalid_request_error"
    default_hint = "The rustbees' engine.log says how they ended; sending the same again will be refused for a while."


class QuarantinedError(SwarmeshError):
    """The same request crashed engines a short while ago."""

    code = "quarantined"
    status = 422
    type = "invalid_request_error"
    default_hint = "Change the request, or wait."


class TaskRefusedError(SwarmeshError):
    """The engine refused the task itself; no other rustbee would take it."""

    code = "task_refused"
    status = 400
    type = "invalid_request_error"


class EngineError(SwarmeshError):
    """The engine could not do what was asked."""

    code = "engine_error"
    status = 502


class EngineStartError(EngineError):
    """The engine did not start."""

    code = "engine_start_failed"


class ModelFileError(SwarmeshError):
    """The model file cannot be used."""

    code = "model_file_unusable"
    status = 400
    type = "invalid_request_error"


class NotEnoughMemoryError(SwarmeshError):
    """The modelcell does not fit into this host's memory."""

    code = "not_enough_memory"
    status = 409
    type = "invalid_request_error"


class StoreError(SwarmeshError):
    """The hivecomb could not be read or written."""

    code = "hivecomb_error"


class HivecombLockedError(StoreError):
    """Another queennode uses this hivecomb."""

    code = "hivecomb_locked"
    status = 409


class PortTakenError(SwarmeshError):
    """Another process listens on that port."""

    code = "port_taken"


class QueenUnreachableError(SwarmeshError):
    """No queennode answers."""

    code = "queen_unreachable"
    status = 503
    default_hint = "'swarmesh up' starts one here; SWARMESH_URL points at one elsewhere."


class ConfigError(SwarmeshError):
    """The configuration cannot be used."""

    code = "bad_config"
    status = 400
    type = "invalid_request_error"
