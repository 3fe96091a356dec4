"""Token ids that llama.cpp's server holds back, drops or makes up."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from swarmesh.core.errors import EngineError
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.engines.llama_answer import LlamaAnswer


class Vocabulary:
    """Answers as the tokenizer would."""

    def __init__(self, *ids: int) -> None:
        self.ids = ids
        self.asked: list[tuple[str, int, int]] = []

    async def ids_of(self, text: str, count: int, last: int) -> tuple[int, ...]:
        self.asked.append((text, count, last))
        return self.ids


async def answer(chunks: list[dict[str, Any]], vocabulary: Vocabulary | None = None) -> list[EngineEvent]:
    reader = LlamaAnswer(vocabulary or Vocabulary())
    return [event for chunk in chunks for event in await reader.take(msgspec.json.encode(chunk))]


def chunk(text: str, ids: list[int], predicted: int) -> dict[str, Any]:
    return {"content": text, "tokens": ids, "stop": False, "tokens_predicted": predicted, "tokens_evaluated": 4}


def last(predicted: int, stop_type: str = "eos") -> dict[str, Any]:
    return {**chunk("", [], predicted), "stop": True, "stop_type": stop_type}


async def test_each_text_comes_with_its_id() -> None:
    events = await answer([chunk("a", [7], 1), chunk("b", [8], 2), last(3)])
    assert events[:2] == [Token("a", (7,)), Token("b", (8,))]
    assert isinstance(events[2], Done)
    assert events[2].usage.total_tokens == 7


async def test_progress_carries_a_token_that_is_none() -> None:
    progress = {**chunk("", [0], 0), "prompt_progress": {"total": 4, "processed": 2}}
    assert (await answer([progress, chunk("a", [7], 1)])) == [Token("a", (7,))]


async def test_ids_wait_for_text_that_could_have_been_a_stop() -> None:
    assert (await answer([chunk("", [7], 1), chunk("", [8], 2), chunk("cde", [9], 3)])) == [Token("cde", (7, 8, 9))]


async def test_ids_of_text_that_was_never_shown_are_not_shown() -> None:
    events = await answer([chunk("a", [7], 1), chunk("", [8], 2), last(2)])
    assert events[0] == Token("a", (7,))
    assert isinstance(events[1], Done)


async def test_ids_of_a_character_in_pieces_are_looked_up() -> None:
    vocabulary = Vocabulary(1, 2, 3, 160)
    assert (await answer([chunk("🐝", [160], 4), chunk("x", [5], 5)], vocabulary)) == [
        Token("🐝", (1, 2, 3, 160)),
        Token("x", (5,)),
    ]
    assert vocabulary.asked == [("🐝", 4, 160)]


async def test_ids_that_cannot_be_told_are_left_out_rather_than_guessed() -> None:
    assert (await answer([chunk("", [6], 1), chunk("🐝", [160], 5)])) == [Token("🐝", ())]


@pytest.mark.parametrize(("stop_type", "reason"), [("limit", "length"), ("eos", "stop"), ("word", "stop")])
async def test_why_it_ended(stop_type: str, reason: str) -> None:
    (done,) = await answer([last(3, stop_type)])
    assert isinstance(done, Done)
    assert done.finish_reason == reason


@pytest.mark.parametrize("data", [b"{", b'{"error":{"message":"out of memory"}}'])
async def test_an_event_that_is_an_error_ends_the_answer(data: bytes) -> None:
    with pytest.raises(EngineError):
        await LlamaAnswer(Vocabulary()).take(data)
