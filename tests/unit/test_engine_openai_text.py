"""OpenAI's text routes on top of tasks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from swarmesh.core.errors import BadInputError
from swarmesh.engines.engine import Done, Token
from swarmesh.engines.openai_text import TextFormat, models_answer, read_request, shown_text
from swarmesh.wire.flow import Usage

DONE = Done("length", Usage(2, 3, 5))


def shape(body: dict[str, Any], *, chat: bool) -> TextFormat:
    request = read_request(msgspec.json.encode(body), chat=chat)
    return TextFormat(request, chat=chat, model="stats", answer_id="id-1", created_s=7)


def test_a_chat_request_becomes_a_task() -> None:
    body = {
        "model": "stats",
        "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": 9,
        "stop": "x",
        "seed": 3,
        "user": "a field that means nothing here",
    }
    task = read_request(msgspec.json.encode(body), chat=True).task()
    assert task.messages is not None
    assert bytes(task.messages[0].content) == b'"hi"'
    assert (task.max_tokens, task.stop, task.seed, task.prompt) == (9, "x", 3, None)


@pytest.mark.parametrize(
    ("body", "chat", "said"),
    [
        (b"{", True, "cannot be read"),
        (b'{"prompt":"x"}', True, "'messages' is missing"),
        (b'{"messages":[{"role":"user","content":"x"}]}', False, "'prompt' is missing"),
        (b'{"messages":[]}', True, "length >= 1"),
        (b'{"prompt":"x","n":0}', False, r"\$\.n"),
        (b'{"prompt":"x","temperature":9}', False, r"\$\.temperature"),
    ],
)
def test_what_cannot_be_done_is_refused(body: bytes, chat: bool, said: str) -> None:  # noqa: FBT001 - a test's case
    with pytest.raises(BadInputError, match=said):
        read_request(body, chat=chat)


def test_a_chat_answer_and_its_chunks_say_the_same() -> None:
    chat = shape({"messages": [{"role": "user", "content": "hi"}]}, chat=True)
    answer = chat.answer([[Token("a"), Token("b"), DONE]])
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "ab"}
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    chunks = [*chat.opening(), chat.piece(0, Token("a")), chat.piece(0, Token("b")), chat.finish(0, DONE)]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "ab"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "length"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"


def test_a_completion_has_text_and_no_opening() -> None:
    completion = shape({"prompt": "hi"}, chat=False)
    assert completion.opening() == []
    assert completion.piece(0, Token("a"))["choices"][0]["text"] == "a"
    assert completion.answer([[Token("a"), Token("b"), DONE]])["choices"][0]["text"] == "ab"


def test_usage_is_streamed_only_when_asked_for() -> None:
    body: dict[str, Any] = {"prompt": "hi", "stream": True}
    assert shape(body, chat=False).closing(DONE.counts) == []
    last = shape({**body, "stream_options": {"include_usage": True}}, chat=False).closing(DONE.counts)[-1]
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 5


def test_pieces_that_are_no_text_are_shown_as_text() -> None:
    assert shown_text(Token(media_type="image/png", base64="aGk=")) == "data:image/png;base64,aGk="
    assert shown_text(Token(value={"n": 1})) == '{"n":1}'
    assert shown_text(Token("x")) == "x"


def test_the_models_route_names_the_modelcell() -> None:
    assert models_answer("stats", 7)["data"][0]["id"] == "stats"
