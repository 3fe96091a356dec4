"""What both transports share: how httpx is set up, and what its failures mean."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import httpx

from swarmesh import __version__
from swarmesh.client.call import SLOW_TIMEOUT_S, Call, ConnectionBrokenError
from swarmesh.client.endpoint import Endpoint
from swarmesh.core.errors import QueenUnreachableError, SwarmeshError
from swarmesh.wire.errors import remote_error

CONNECT_TIMEOUT_S: Final = 5.0
STREAM_SILENCE_S: Final = 60.0
"""A stream on which not even a ping came for so long is taken for broken."""
_IDLE_TTL_S: Final = 30.0
"""Idle connections older than this are not used again; the queen closes hers later than that."""


def settings(endpoint: Endpoint, timeout_s: float) -> dict[str, Any]:
    """Arguments of ``httpx.Client`` and ``httpx.AsyncClient``.

    Proxies and netrc of the environment are not used: a queen is reached directly, or as its URL says.
    """
    # Plain HTTP needs no certificates, and loading them takes longer than most commands; this context trusts none.
    plain = endpoint.url.startswith("http://")
    return {
        "base_url": endpoint.url,
        "headers": {"authorization": _bearer(endpoint), "user-agent": f"swarmesh/{__version__}"},
        "timeout": httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
        "limits": httpx.Limits(keepalive_expiry=_IDLE_TTL_S),
        "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
        "trust_env": False,
    }


def request(call: Call[Any], timeout: httpx.Timeout) -> dict[str, Any]:
    """Arguments of ``request`` and ``stream`` of either client."""
    return {
        "method": call.method,
        "url": call.path,
        "params": call.query,
        "headers": call.all_headers(),
        "content": call.body,
        "timeout": timeout,
    }


def patience(call: Call[Any], timeout_s: float) -> httpx.Timeout:
    """How long to wait for the answer to one request."""
    return httpx.Timeout(max(timeout_s, SLOW_TIMEOUT_S) if call.slow else timeout_s, connect=CONNECT_TIMEOUT_S)


def point_again(http: httpx.Client | httpx.AsyncClient, find: Callable[[], Endpoint]) -> None:
    """Look up where the queen is now: one that was restarted may listen elsewhere, and her home says where.

    While nothing says so, the place where she was last is as good as any.
    """
    with suppress(SwarmeshError):
        endpoint = find()
        http.base_url = endpoint.url
        http.headers["authorization"] = _bearer(endpoint)


STREAM_TIMEOUT: Final = httpx.Timeout(STREAM_SILENCE_S, connect=CONNECT_TIMEOUT_S)


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn httpx's failures into the error that says no queen answers, or that she stopped answering."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise QueenUnreachableError(f"no queennode answers at {url}: {error}") from error
    except httpx.TimeoutException as error:
        raise ConnectionBrokenError(
            f"the queennode at {url} took too long ({type(error).__name__})",
            hint="She runs, and the request may still be going on: look at how things stand before you send it again.",
        ) from error
    except httpx.TransportError as error:
        raise ConnectionBrokenError(f"the connection to {url} broke: {error}") from error


def stream_cut(url: str) -> ConnectionBrokenError:
    """A stream ended without saying that it is done, which is never taken for its end."""
    return ConnectionBrokenError(f"the stream from {url} was cut off")


def stream_refused(url: str, status: int, body: bytes, *, retrying: bool, task_id: str = "") -> SwarmeshError:
    """What the answer to a request for a stream means when it is none.

    A queen who has just come back may be too busy for a moment, which is one more drop to a stream taken up again.
    """
    error = remote_error(status, body, task_id)
    if retrying and status == 503:
        return ConnectionBrokenError(f"the queennode at {url} is not ready: {error.message}")
    return error


def document(method: Callable[..., Any], describe: Callable[..., Any]) -> None:
    """Give a client's method the name, the contract and the parameters of the request it sends."""
    signature = inspect.signature(describe)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__name__ = describe.__name__
    method.__doc__ = describe.__doc__
    # inspect and help() read this attribute; a function type does not declare it.
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[itself, *signature.parameters.values()], return_annotation=inspect.Signature.empty
    )


def _bearer(endpoint: Endpoint) -> str:
    return f"Bearer {endpoint.key}"
