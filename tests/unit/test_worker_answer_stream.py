"""An engine's stream through an agent: ids that have to be asked for, and an end that is sent only when it is one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from swarmesh.core.errors import EngineError, SwarmeshError
from swarmesh.engines.errors import EngineDiedError
from swarmesh.engines.openai_dialect import Lookup, Tapped
from swarmesh.net.exchange import Exchange
from swarmesh.net.request import Request
from swarmesh.net.server import ServerConnection
from swarmesh.wire.http1 import ChunkedFramer
from swarmesh.wire.sse import SseEvent
from swarmesh.wire.token_counts import TokenCounts
from swarmesh.worker import answer_stream
from swarmesh.worker.answer_stream import AnswerStream

FINISH = b'data: {"choices":[{"finish_reason":"stop","index":0}]}'
DONE = b"data: [DONE]"


class Wire:
    """In place of a connection."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.finished: list[bool] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def exchange_finished(self, *, keep_alive: bool) -> None:
        self.finished.append(keep_alive)


class SlowTap:
    """Asks for the ids of every block whose text is ``?``; the test answers."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[tuple[int, ...]]] = []

    def take(self, block: bytes) -> Tapped:
        return Tapped(block, lookup=Lookup("?", 2, 9)) if block == b"data: ?" else Tapped(block)

    async def look_up(self, lookup: Lookup) -> tuple[int, ...]:
        assert lookup == Lookup("?", 2, 9)
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


class Answer:
    def __init__(self, choices: int = 1, last_seq: int = 0) -> None:
        self.wire = Wire()
        self.over: list[SwarmeshError | None] = []
        self.passed = 0
        request = Request("POST", b"/v1/chat/completions", [])
        self.stream = AnswerStream(
            Exchange(request, cast("ServerConnection", self.wire)),
            last_seq=last_seq,
            choices=choices,
            passed=self._count,
            over=self.over.append,
        )

    def feed(self, *blocks: bytes) -> None:
        self.stream.feed(b"".join(block + b"\n\n" for block in blocks))

    @property
    def sent(self) -> list[bytes]:
        """The payload of each chunk of each write."""
        body = b"".join(self.wire.writes).partition(b"\r\n\r\n")[2]
        payload: list[bytes] = []
        ChunkedFramer().feed(body, payload)
        return payload

    def _count(self, events: int) -> None:
        self.passed += events


async def test_the_end_leaves_in_one_write_with_the_end_of_the_body() -> None:
    answer = Answer()
    answer.feed(b"data: a", FINISH)
    assert answer.sent == [b"id: 1\ndata: a\n\n"]
    answer.feed(b"data: usage", DONE)
    assert len(answer.wire.writes) == 1
    answer.stream.end()
    assert len(answer.wire.writes) == 2
    assert answer.sent[1] == b"id: 2\n" + FINISH + b"\n\nid: 3\ndata: usage\n\nid: 4\n" + DONE + b"\n\n"
    assert answer.wire.writes[1].endswith(b"0\r\n\r\n")
    assert (answer.wire.finished, answer.over, answer.passed) == ([True], [None], 4)


async def test_a_stream_that_ends_without_its_mark_has_no_end() -> None:
    answer = Answer()
    answer.feed(b"data: a", FINISH)
    answer.stream.end()
    assert answer.sent == [b"id: 1\ndata: a\n\n"]
    assert isinstance(answer.over[0], EngineDiedError)
    assert answer.wire.finished == []
    answer.stream.stop()


async def test_an_error_is_an_end_mark_too() -> None:
    answer = Answer()
    answer.feed(b"data: a", b'data: {"error":{"message":"out of memory"}}')
    answer.stream.end()
    assert answer.over == [None]


async def test_of_several_choices_the_last_finish_reason_counts() -> None:
    answer = Answer(choices=2)
    answer.feed(FINISH, b"data: b")
    assert answer.passed == 2
    answer.feed(FINISH, DONE)
    assert answer.passed == 2
    answer.stream.end()
    assert answer.passed == 4


async def test_a_stream_of_another_kind_is_not_looked_into() -> None:
    answer = Answer(choices=0)
    answer.feed(FINISH, b"event: response.completed\ndata: {}")
    assert answer.passed == 2
    answer.stream.end()
    assert answer.over == [None]


async def test_what_comes_while_ids_are_asked_for_waits_in_its_order(until: Any) -> None:
    answer, tap = Answer(last_seq=7), SlowTap()
    answer.stream.tap = tap
    changes: list[bool] = []
    answer.stream.on_lookup = lambda: changes.append(answer.stream.looking_up)
    answer.feed(b"data: a", b"data: ?", b"data: b", b"data: ?", b"data: c")
    answer.feed(FINISH, DONE)
    answer.stream.end()
    assert answer.sent == [b"id: 8\ndata: a\n\n"]
    await until(lambda: len(tap.answers) == 1)
    tap.answers[0].set_result((4, 9))
    await until(lambda: len(tap.answers) == 2)
    assert answer.sent[1:] == [b"id: 9\n: t 4,9\ndata: ?\n\n", b"id: 10\ndata: b\n\n"]
    assert answer.over == []
    tap.answers[1].set_result(())
    await until(lambda: answer.over == [None])
    assert answer.sent[3:5] == [b"id: 11\ndata: ?\n\n", b"id: 12\ndata: c\n\n"]
    assert changes[0] is True
    assert changes[-1] is False


async def test_what_was_stopped_sends_nothing_more(until: Any) -> None:
    answer, tap = Answer(), SlowTap()
    answer.stream.tap = tap
    answer.feed(b"data: ?", b"data: b")
    await until(lambda: tap.answers)
    answer.stream.stop()
    await until(tap.answers[0].cancelled)
    assert answer.wire.writes == []


async def test_too_much_behind_the_finish_reason_is_refused(monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    monkeypatch.setattr(answer_stream, "HELD_BYTES_MAX", 100)
    answer = Answer()
    with pytest.raises(EngineError, match="more than 100 bytes"):
        answer.feed(FINISH, b"data: " + b"x" * 60)
    answer.stream.stop()
    late, tap = Answer(), SlowTap()
    late.stream.tap = tap
    late.feed(b"data: ?", FINISH, b"data: " + b"x" * 60)
    await until(lambda: tap.answers)
    tap.answers[0].set_result(())
    await until(lambda: late.over)
    assert isinstance(late.over[0], EngineError)
    late.stream.stop()


async def test_events_that_are_made_here_are_numbered_and_held_alike() -> None:
    answer = Answer(last_seq=3)
    answer.stream.put(SseEvent(b"x", token_ids=(5, 6)))
    answer.stream.put(SseEvent(FINISH.removeprefix(b"data: ")))
    answer.stream.put(SseEvent(b"[DONE]"))
    assert answer.sent == [b"id: 4\n: t 5,6\ndata: x\n\n"]
    answer.stream.end()
    assert answer.over == [None]


@pytest.mark.parametrize(
    ("blocks", "line"),
    [
        ([FINISH, b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5}}'], b": u 9,-1,5\n"),
        (
            [b'data: {"choices":[{"finish_reason":"stop"}],"timings":{"cache_n":3,"prompt_n":6,"predicted_n":5}}'],
            b": u 9,3,5\n",
        ),
        ([FINISH], b""),
    ],
)
async def test_the_end_mark_tells_the_tokens_of_the_answer(blocks: list[bytes], line: bytes) -> None:
    answer = Answer()
    answer.feed(*blocks, DONE)
    answer.stream.end()
    assert answer.over == [None]
    assert answer.sent[-1].endswith(b"\n\nid: %d\n%s%s\n\n" % (len(blocks) + 1, line, DONE))


async def test_an_engine_that_tells_its_tokens_itself_is_believed() -> None:
    answer = Answer()
    answer.feed(FINISH, b'data: {"usage":{"prompt_tokens":1}}', b": u 9,3,5\n" + DONE)
    answer.stream.end()
    assert answer.over == [None]
    assert answer.sent[-1].endswith(b"id: 3\n: u 9,3,5\n" + DONE + b"\n\n")
    made = Answer()
    made.stream.put(SseEvent(FINISH.removeprefix(b"data: ")))
    made.stream.put(SseEvent(b"[DONE]", counts=TokenCounts(9, 3, 5)))
    made.stream.end()
    assert made.sent[-1].endswith(b"id: 2\n: u 9,3,5\n" + DONE + b"\n\n")
