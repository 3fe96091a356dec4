"""What a queen and the process of a script say to each other: messages, each with its length before it."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from swarmesh.policy.mistake import Mistake
from swarmesh.policy.moment import Moment

HEAD: Final = struct.Struct(">I")
FRAME_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one message. Facts of 64 workers are about 20 KiB, a source has 256 KiB at most."""


class Load(msgspec.Struct, frozen=True, tag=True):
    """The first message: what to run."""

    name: str
    source: str


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The script can be asked.

    Attributes:
        warnings: What looks wrong and does no harm.
    """

    hooks: tuple[str, ...]
    warnings: tuple[Mistake, ...] = ()
    said: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The script cannot be used, and why."""

    mistakes: tuple[Mistake, ...]
    warnings: tuple[Mistake, ...] = ()
    said: tuple[str, ...] = ()


class Ask(msgspec.Struct, frozen=True, tag=True):
    """One question.

    Attributes:
        serial: Comes back with the answer, so that a late one is not taken for that of the next question.
        arguments: JSON: a list of what the hook is given.
        expected: How many numbers the answer has to have; 0 for hooks that answer one value.
    """

    serial: int
    hook: str
    arguments: str
    moment: Moment
    expected: int = 0


class Answer(msgspec.Struct, frozen=True, tag=True):
    """An opinion.

    Attributes:
        said: What the script printed.
        cpu_us: Processor time it took.
    """

    serial: int
    value: str | int | float | list[int | float | None] | None
    said: tuple[str, ...] = ()
    cpu_us: int = 0


class Failure(msgspec.Struct, frozen=True, tag=True):
    """No opinion, and why."""

    serial: int
    mistake: Mistake
    said: tuple[str, ...] = ()
    cpu_us: int = 0


Order = Load | Ask
Report = Loaded | Refused | Answer | Failure

_encoder: Final = msgspec.msgpack.Encoder()
read_order: Final = msgspec.msgpack.Decoder(Order).decode
read_report: Final = msgspec.msgpack.Decoder(Report).decode


def frame(message: Order | Report) -> bytes:
    """A message with its length before it."""
    body = _encoder.encode(message)
    return HEAD.pack(len(body)) + body
