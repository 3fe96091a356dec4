"""What a client has seen of a stream, at every cut, and the same stream said again without it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmesh.core.errors import EngineError, ResumeDivergedError
from swarmesh.wire.resume import Resume
from swarmesh.wire.sse import DONE_MARK, SseEvent, SseReader, render
from swarmesh.wire.transcript import Replay, ShownChoice, Transcript

Chunk = dict[str, Any]

FIRST = {"id": "c-1", "object": "chat.completion.chunk", "created": 5, "model": "m", "system_fingerprint": "fp"}
SECOND = {**FIRST, "id": "c-2", "created": 9, "system_fingerprint": None}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}


def choice(index: int = 0, finish: str | None = None, **parts: Any) -> Chunk:
    return {"choices": [{"index": index, "finish_reason": finish, **parts}]}


def delta(index: int = 0, **parts: Any) -> Chunk:
    return choice(index, delta=parts)


def tool(number: int, arguments: str, **opening: Any) -> Chunk:
    name = opening.pop("name", None)
    function = {**({"name": name} if name else {}), "arguments": arguments}
    return delta(tool_calls=[{"index": number, **opening, "function": function}])


def text(part: str, finish: str | None = None, index: int = 0, **more: Any) -> Chunk:
    return choice(index, finish, text=part, **more)


def entries(*tokens: str) -> dict[str, Any]:
    return {"content": [{"token": token, "logprob": -0.5} for token in tokens], "refusal": None}


def written(chunks: list[Chunk], envelope: Chunk = FIRST, *, ids: bool = False) -> bytes:
    """A stream of these chunks, numbered, with its end mark."""
    events = [
        SseEvent(json.dumps({**envelope, **chunk}).encode(), seq=number, token_ids=(number,) if ids else ())
        for number, chunk in enumerate(chunks, start=1)
    ]
    return b"".join(map(render, [*events, SseEvent(DONE_MARK, seq=len(chunks) + 1)]))


def unended(chunks: list[Chunk], envelope: Chunk = FIRST, *, ids: bool = False) -> bytes:
    """The same without the end mark."""
    stream = written(chunks, envelope, ids=ids)
    return stream[: stream.rindex(b"id: ")]


def meaning(payload: bytes) -> tuple[dict[int, Any], Any, bool]:
    """What a client makes of a stream: everything that is appended joined, everything else as it was said first."""
    shown = Transcript.read(payload)
    for one in shown.choices.values():
        for path, value in one.once.items():
            if path[0] == "call":
                value["id"] = "any"  # Which one it is depends on who came so far; that there is one does not.
    return {index: (one.appended, one.once) for index, one in shown.choices.items()}, shown.usage, shown.done


def whole_events(payload: bytes) -> bytes:
    """What is let through of a stream that breaks here."""
    return payload[: payload.rfind(b"\n\n") + 2] if b"\n\n" in payload else b""


def gone_on(shown: bytes, again: bytes, step: int = 1000) -> bytes:
    """What the client has in the end, when after ``shown`` the stream begins anew as ``again``."""
    replay, reader, out = Replay(Transcript.read(shown)), SseReader(), shown
    for place in range(0, len(again), step):
        out += b"".join(map(replay.take, reader.feed(again[place : place + step])))
    return out


CHAT = [
    delta(role="assistant", content=""),
    delta(content="On"),
    delta(content="e twö"),
    choice(finish="stop", delta={}),
]
STREAMS: dict[str, tuple[list[Chunk], list[Chunk]]] = {
    "content": (
        CHAT,
        [delta(role="assistant"), *[delta(content=part) for part in "One twö"], choice(finish="stop", delta={})],
    ),
    "content and finish in one": (
        [delta(role="assistant", content="One"), choice(finish="stop", delta={"content": "!"})],
        [choice(finish="stop", delta={"role": "assistant", "content": "One!"})],
    ),
    "usage": ([*CHAT, USAGE], [delta(role="assistant", content="One twö"), choice(finish="stop", delta={}), USAGE]),
    "usage with the finish": (
        [CHAT[0], CHAT[1], CHAT[2], {**CHAT[3], "usage": USAGE["usage"]}],
        [delta(role="assistant", content="One twö"), {**CHAT[3], "usage": USAGE["usage"]}],
    ),
    "thoughts": (
        [delta(role="assistant", reasoning_content="Hm"), delta(reasoning_content="m"), *CHAT[1:]],
        [delta(role="assistant", reasoning_content="H"), delta(reasoning_content="mm", content="One twö"), CHAT[3]],
    ),
    "a tool call": (
        [
            delta(role="assistant", content=None),
            tool(0, "", id="call-a", type="function", name="f"),
            tool(0, '{"ci'),
            tool(0, 'ty": "Rome"}'),
            choice(finish="tool_calls", delta={}),
        ],
        [
            delta(role="assistant"),
            tool(0, '{"city', id="call-b", type="function", name="f"),
            tool(0, '": "Rome"}'),
            choice(finish="tool_calls", delta={}),
        ],
    ),
    "two tool calls": (
        [
            tool(0, "{}", id="call-a", type="function", name="f"),
            tool(1, '{"a":', id="call-b", type="function", name="g"),
            tool(1, " 1}"),
            choice(finish="tool_calls", delta={}),
        ],
        [
            tool(0, "", id="call-x", type="function", name="f"),
            tool(0, "{}"),
            tool(1, "", id="call-y", type="function", name="g"),
            tool(1, '{"a": 1}'),
            choice(finish="tool_calls", delta={}),
        ],
    ),
    "log-probabilities": (
        [
            choice(delta={"content": "ab"}, logprobs=entries("a", "b")),
            choice(delta={"content": "c"}, logprobs=entries("c")),
            choice(finish="stop", delta={}, logprobs=None),
        ],
        [
            choice(delta={"content": "a"}, logprobs=entries("a")),
            choice(delta={"content": "bc"}, logprobs=entries("b", "c")),
            choice(finish="stop", delta={}),
        ],
    ),
    "text": (
        [text("On"), text("e", logprobs={"tokens": ["e"], "text_offset": [2]}), text("", "length")],
        [text("O"), text("ne", logprobs={"tokens": ["e"], "text_offset": [2]}), text("", "length")],
    ),
    "several texts": (
        [text("a", index=0), text("b", index=1), text("A", "stop", 0), text("B", "stop", 1)],
        [text("bB", "stop", 1), text("aA", "stop", 0)],
    ),
}


@pytest.mark.parametrize(("first", "again"), STREAMS.values(), ids=STREAMS.keys())
def test_cut_anywhere_a_stream_comes_to_the_same(first: list[Chunk], again: list[Chunk]) -> None:
    stream = written(first)
    for cut in range(len(stream) + 1):
        shown = whole_events(stream[:cut])
        for another in (written(again, SECOND), written(first, SECOND)):
            read = gone_on(shown, another)
            assert meaning(read) == meaning(stream), f"cut at {cut}"
            events = SseReader().feed(read)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert sum(event.data == DONE_MARK for event in events) == 1
            if shown:
                told = [json.loads(event.data) for event in events if event.data != DONE_MARK]
                assert {(one["id"], one["created"], one["system_fingerprint"]) for one in told} == {("c-1", 5, "fp")}


@pytest.mark.parametrize(("first", "again"), STREAMS.values(), ids=STREAMS.keys())
def test_nothing_is_said_twice_however_often_it_breaks(first: list[Chunk], again: list[Chunk]) -> None:
    one, two = written(first), written(again, SECOND)
    for cut in range(0, len(two), 7):
        shown = whole_events(one[: len(one) // 2])
        shown = whole_events(gone_on(shown, two[:cut]))
        assert meaning(gone_on(shown, one)) == meaning(one)


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_any_text_in_any_pieces(data: st.DataObject) -> None:
    said = data.draw(st.text(max_size=30))

    def stream(envelope: Chunk) -> bytes:
        places = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=8)))
        pieces = [said[start:end] for start, end in zip([0, *places], [*places, len(said)], strict=True)]
        chunks = [delta(role="assistant"), *[delta(content=piece) for piece in pieces], choice(finish="stop", delta={})]
        return written(chunks, envelope)

    one = stream(FIRST)
    shown = whole_events(one[: data.draw(st.integers(0, len(one)))])
    step = data.draw(st.integers(1, 60))
    for _ in range(data.draw(st.integers(0, 2))):
        two = stream(SECOND)
        shown = whole_events(gone_on(shown, two[: data.draw(st.integers(0, len(two)))], step))
    assert meaning(gone_on(shown, stream(SECOND), step)) == meaning(one)


@pytest.mark.parametrize(
    "again",
    [
        [delta(content="Two")],
        [delta(content="On"), delta(content="ly")],
        [delta(content="On"), choice(finish="stop", delta={})],
        [choice(finish="stop", delta={})],
        [delta(content="On")],
    ],
    ids=["other", "other later", "less", "nothing", "less, and only its mark says so"],
)
def test_another_text_is_not_joined_to_what_was_shown(again: list[Chunk]) -> None:
    shown = unended([delta(content="One")])
    assert meaning(shown)[0][0][0] == {("delta", "content"): "One"}
    with pytest.raises(ResumeDivergedError):
        gone_on(shown, written(again, SECOND))


def test_other_arguments_are_another_call() -> None:
    opening = {"id": "call-a", "type": "function", "name": "f"}
    shown = unended([tool(0, '{"a"', **opening)])
    with pytest.raises(ResumeDivergedError, match="0 characters of arguments"):
        gone_on(shown, written([tool(0, '{"b"', **opening)]))


def test_log_probabilities_may_differ_in_their_last_digits() -> None:
    def stream(value: float) -> bytes:
        log_probs = {"content": [{"token": "a", "logprob": value}]}
        return written([choice(delta={"content": "a"}, logprobs=log_probs), choice(finish="stop", delta={})])

    shown = whole_events(stream(-0.1)[: stream(-0.1).index(b"\n\n") + 2])
    assert b"-0.2" not in gone_on(shown, stream(-0.2))


def test_beyond_what_was_shown_nothing_is_touched() -> None:
    shown = unended([delta(content="One")])
    strange = {"choices": [{"index": 0, "delta": {"content": "!", "audio": {"x": 1}}, "stop_reason": 7}], "more": [1]}
    (event,) = SseReader().feed(gone_on(shown, written([delta(content="One"), strange]))[len(shown) :])[:1]
    assert json.loads(event.data) == {**FIRST, **strange}


def test_an_error_is_passed_on() -> None:
    shown = unended([delta(content="One")])
    rest = gone_on(shown, written([delta(content="One"), {"error": {"message": "I am not well"}}]))[len(shown) :]
    assert b"I am not well" in rest
    assert Transcript.read(shown + rest).failed
    assert not Transcript.read(shown).failed


def test_usage_with_every_chunk_is_that_of_the_last() -> None:
    def so_far(tokens: int) -> Chunk:
        return {"usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}}

    stream = written([{**delta(content="a"), **so_far(1)}, {**choice(finish="stop", delta={}), **so_far(2)}])
    assert Transcript.read(stream[: stream.index(b"\n\n") + 2]).usage is None
    usage = Transcript.read(stream).usage
    assert usage is not None
    assert usage["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("chunks", "is_plain", "is_finished"),
    [
        ([], True, False),
        ([delta(role="assistant")], True, False),
        (CHAT[:3], True, False),
        (CHAT, True, True),
        ([*CHAT, USAGE], True, True),
        ([text("a"), text("", "stop")], True, True),
        ([delta(reasoning_content="a")], False, False),
        ([delta(refusal="no")], False, False),
        ([tool(0, "", id="a", name="f")], False, False),
        ([tool(0, "{")], False, False),
        ([choice(delta={"content": "a"}, logprobs=entries("a"))], False, False),
        ([delta(content="a"), delta(1, content="b")], False, False),
        ([choice(0, "stop", delta={}), delta(1, content="b")], False, False),
    ],
)
def test_what_can_be_gone_on_with_by_its_tokens(chunks: list[Chunk], is_plain: bool, is_finished: bool) -> None:  # noqa: FBT001 - columns of a table
    shown = Transcript.read(unended(chunks))
    assert (shown.is_plain, shown.is_finished) == (is_plain, is_finished)


def test_a_resume_point() -> None:
    shown = Transcript.read(written(CHAT[:3], ids=True))
    assert shown.resume() == Resume(
        last_seq=4,
        text="One twö",
        token_ids=(1, 2, 3),
        id="c-1",
        created=5,
        model="m",
        system_fingerprint="fp",
    )
    assert Transcript().resume() == Resume()


def test_ids_count_only_while_every_text_has_them() -> None:
    known, unknown = written(CHAT[:2], ids=True), written([delta(content="x")])
    assert Transcript.read(known + unknown).resume().token_ids == ()
    assert Transcript.read(unknown + known).resume().token_ids == ()
    without_text = written([delta(role="assistant")])
    assert Transcript.read(without_text + written([delta(content="x")], ids=True)).resume().token_ids == (1,)


def test_events_without_numbers_are_counted() -> None:
    payload = b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in CHAT)
    assert Transcript.read(payload).last_seq == len(CHAT)
    assert Transcript.read(written(CHAT) + payload).last_seq == 2 * len(CHAT) + 1


@pytest.mark.parametrize("data", [b"{", b"[]", b"7", b'"x"', b"\xff", b"[" * 100_000])
def test_what_is_no_chunk(data: bytes) -> None:
    event = SseEvent(data)
    with pytest.raises(EngineError):
        Transcript().add(event)
    with pytest.raises(EngineError):
        Replay(Transcript()).take(event)


NAMES = ["choices", "index", "delta", "tool_calls", "function", "name", "arguments", "id"]
NAMES += ["logprobs", "content", "text", "role", "finish_reason"]
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(chunks=st.lists(st.dictionaries(st.sampled_from(["choices", "usage", "id", "created"]), ODD), max_size=4))
@settings(deadline=None, max_examples=300)
def test_any_json_can_be_read(chunks: list[Chunk]) -> None:
    shown = Transcript.read(written(chunks, {}))
    assert isinstance(shown.is_plain, bool)
    assert isinstance(shown.is_finished, bool)
    assert isinstance(shown.resume(), Resume)
    replay = Replay(Transcript.read(written(chunks[:2], {})))
    # An answer that goes on after its end is none: to call it another one than before is all that can be asked.
    with contextlib.suppress(ResumeDivergedError):
        for event in SseReader().feed(written(chunks, {})):
            replay.take(event)


def test_how_far_one_reaches() -> None:
    shown, again = ShownChoice(), ShownChoice()
    assert again.reaches(shown)
    shown.add({"delta": {"content": "ab"}})
    assert not again.reaches(shown)
    again.add({"delta": {"content": "a"}})
    assert not again.reaches(shown)
    again.add({"delta": {"content": "bc"}})
    assert again.reaches(shown)
