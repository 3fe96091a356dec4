"""What a stream gives: tokens, and its end."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from swarmesh.client.call import UnexpectedAnswerError
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.flow import Accepted, DoneData, ErrorData, ProgressData, TokenData
from swarmesh.wire.sse import SseEvent

Done = DoneData
"""The whole answer was sent: ``job_id``, ``finish_reason``, ``usage``."""


class Token(msgspec.Struct, frozen=True):
    """The next piece of an answer.

    Attributes:
        text: Text to append; often not one token of the model, since half a character is never sent.
        seq: Its number in the task; `follow` can go on after it.
        media_type: Of a piece that is not text, such as ``image/png``; then ``content`` holds its bytes.
        value: A JSON value, from a rustbee of the user's own class.
    """

    text: str
    seq: int | None = None
    media_type: str = ""
    content: bytes = b""
    value: Any = None


Progress = ProgressData
"""What the task waits for: ``phase``, ``since_s``, ``expected_s``, ``message``."""

Event = Token | Done


def read_event(event: SseEvent) -> Token | Done | Accepted | Progress | None:
    """Read one event; None for a kind that this version does not know.

    Raises:
        RemoteError: It is the event that says why the answer ends here.
        UnexpectedAnswerError: Its data is not what its name says.
    """
    try:
        match event.name:
            case "token":
                return read_token(msgspec.json.decode(event.data, type=TokenData), event.seq)
            case "done":
                return msgspec.json.decode(event.data, type=DoneData)
            case "accepted":
                return msgspec.json.decode(event.data, type=Accepted)
            case "progress":
                return msgspec.json.decode(event.data, type=ProgressData)
            case "error":
                raise RemoteError(msgspec.json.decode(event.data, type=ErrorData).error, status=502)
            case _:
                return None
    except (msgspec.DecodeError, binascii.Error) as error:
        raise UnexpectedAnswerError(f"event {event.name!r}: {error}") from error


def read_token(data: TokenData, seq: int | None = None) -> Token:
    """A token with its bytes decoded; raises ``binascii.Error`` where they are not base64."""
    content = base64.b64decode(data.base64, validate=True)
    return Token(data.text, seq, data.media_type, content, data.value)
