"""An answer that is written anew, without what was shown of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from swarmesh.core.errors import ResumeDivergedError
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.engines.openai_text import shown_text
from swarmesh.engines.rerun import behind_shown
from swarmesh.wire.flow import Usage
from swarmesh.wire.resume import Resume

DONE = Done("stop", Usage(0, 4, 4))
ANSWER: list[EngineEvent] = [Token("süß"), Token(value={"n": 1}), Token(""), Token(" bee"), DONE]


async def written() -> AsyncGenerator[EngineEvent, None]:
    for event in ANSWER:
        yield event


async def rest(last_seq: int, text: str) -> list[EngineEvent]:
    resume = Resume(last_seq=last_seq, text=text)
    return [event async for event in behind_shown(written(), resume, lambda token: token.text)]


@pytest.mark.parametrize(("last_seq", "text"), [(0, ""), (1, "süß"), (2, "süß"), (3, "süß"), (4, "süß bee")])
async def test_pieces_are_counted_as_not_all_have_text(last_seq: int, text: str) -> None:
    assert await rest(last_seq, text) == ANSWER[last_seq:]


@pytest.mark.parametrize(("last_seq", "text"), [(1, "sü"), (1, "süß!"), (2, "bee"), (4, "süß"), (5, "süß bee")])
async def test_another_text_is_refused(last_seq: int, text: str) -> None:
    with pytest.raises(ResumeDivergedError, match="went on differently"):
        await rest(last_seq, text)


async def test_a_route_that_shows_values_as_text_counts_them_as_text() -> None:
    resume = Resume(last_seq=2, text='süß{"n":1}')
    assert [event async for event in behind_shown(written(), resume, shown_text)] == ANSWER[2:]
