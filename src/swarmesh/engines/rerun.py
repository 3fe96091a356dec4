"""Going on with an answer by writing all of it again, for code that cannot begin in the middle."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from swarmesh.core.errors import ResumeDivergedError
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.wire.resume import Resume


async def behind_shown(
    events: AsyncGenerator[EngineEvent, None], resume: Resume, text_of: Callable[[Token], str]
) -> AsyncGenerator[EngineEvent, None]:
    """What comes after the first ``resume.last_seq`` pieces of an answer that is written from its beginning.

    ``text_of`` gives a piece's text as it was shown.

    Raises:
        ResumeDivergedError: Those pieces are not what was shown, so what follows would not fit it.
    """
    left, text = resume.last_seq, ""
    async with aclosing(events):
        async for event in events:
            if left and isinstance(event, Token):
                left, text = left - 1, text + text_of(event)
                if not resume.text.startswith(text) or (not left and text != resume.text):
                    raise ResumeDivergedError
                continue
            if left and isinstance(event, Done):
                raise ResumeDivergedError
            yield event
