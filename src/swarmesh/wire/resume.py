"""What a worker is told that shall go on with an answer another one has begun."""

from __future__ import annotations

import msgspec

FIELD = "swarmesh_resume"
"""Name of the resume point in the body of OpenAI's routes, between queen and worker only."""


class Resume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an answer stands: what its client has seen, as events, as text and as token ids.

    Attributes:
        last_seq: Number of the last event that was shown; the next one is ``last_seq + 1``.
        text: All text that was shown.
        token_ids: The engine's own ids behind all of ``text``; empty when not every one of them is known.
        id: Of OpenAI's chunks, as are the next three: those to come repeat what those before said.
        created: Unix seconds.
    """

    last_seq: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    id: str = ""
    created: int = 0
    model: str = ""
    system_fingerprint: str | None = None
