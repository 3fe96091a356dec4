"""How llama.cpp is asked to go on, where the demo model would never come to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import msgspec
import pytest

from swarmesh.core.errors import BadInputError, EngineError, TaskRefusedError
from swarmesh.engines.engine import Done, EngineEvent
from swarmesh.engines.errors import EngineDiedError
from swarmesh.engines.llama_answer import LlamaDone
from swarmesh.engines.llama_completion import Completion, complete
from swarmesh.engines.llama_http import LlamaHttp
from swarmesh.engines.llama_openai import LlamaDialect
from swarmesh.wire.flow import Usage
from swarmesh.wire.resume import Resume

LAST = {"content": "", "stop": True, "stop_type": "eos", "tokens_predicted": 2, "tokens_evaluated": 9}


class Server:
    """Answers as llama.cpp would, whose tokens here are characters and whose prompts begin with one of their own."""

    context_tokens = 12

    def __init__(self, *events: dict[str, Any], refuses: bool = False, spells: bool = True) -> None:
        self.events = events
        self.refuses = refuses
        self.spells = spells
        self.asked: list[dict[str, Any]] = []

    async def completion(self, asked: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        self.asked.append(asked)
        if self.refuses:
            raise TaskRefusedError("too long for the context")
        for event in self.events:
            yield msgspec.json.encode(event)

    async def spell(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text)) if self.spells else ()

    async def text_of(self, ids: tuple[int, ...]) -> str:
        return "".join(map(chr, ids))

    async def count(self, prompt: str | list[Any], *, begins: bool = True) -> int:
        return begins + sum(len(part) if isinstance(part, str) else 1 for part in [prompt])

    async def templated(self, body: bytes) -> str:
        return body.decode()


async def events_of(server: Server, resume: Resume | None, **asked: Any) -> list[EngineEvent]:
    completion = Completion(**{"prompt": "ask", "sampling": {"seed": 4}, **asked})
    return [event async for event in complete(cast("LlamaHttp", server), completion, resume)]


async def test_ids_follow_the_prompt_and_count_for_the_bound() -> None:
    server = Server(LAST)
    (done,) = await events_of(server, Resume(text="xy", token_ids=(120, 121)), tokens_max=5)
    assert server.asked[0]["prompt"] == ["ask", 120, 121]
    assert (server.asked[0]["n_predict"], server.asked[0]["seed"]) == (3, 4)
    assert isinstance(done, Done)
    assert done.usage == Usage(7, 4, 11)


async def test_a_text_whose_ids_are_not_known_is_spelled_anew_or_follows_as_text() -> None:
    for spells, following in ((True, [120, 121]), (False, ["xy"])):
        server = Server(LAST, spells=spells)
        (done,) = await events_of(server, Resume(text="xy"), prompt=[1, 2])
        assert server.asked[0]["prompt"] == [1, 2, *following]
        assert isinstance(done, Done)
        assert done.usage == Usage(7, 4, 11)


async def test_nothing_is_asked_when_nothing_is_left() -> None:
    server = Server()
    assert await events_of(server, Resume(token_ids=(120, 121)), tokens_max=2) == [LlamaDone("length", Usage(4, 2, 6))]
    assert await events_of(server, Resume(text="x", token_ids=(120, 121)), stop=["q", "y"]) == [
        LlamaDone("stop", Usage(4, 2, 6))
    ]
    assert server.asked == []


async def test_a_prompt_that_filled_the_context_with_what_was_shown_is_no_refusal() -> None:
    ids = tuple(range(97, 105))
    assert await events_of(Server(refuses=True), Resume(token_ids=ids)) == [LlamaDone("length", Usage(4, 8, 12))]
    with pytest.raises(TaskRefusedError):
        await events_of(Server(refuses=True), Resume(token_ids=ids[:-1]))
    with pytest.raises(TaskRefusedError):
        await events_of(Server(refuses=True), None)


async def test_an_answer_without_its_end_is_broken() -> None:
    with pytest.raises(EngineDiedError):
        await events_of(Server({"content": "a", "tokens": [97], "tokens_predicted": 1}), None)
    with pytest.raises(EngineError, match="out of memory"):
        await events_of(Server({"error": {"message": "out of memory"}}), None)


async def chunks_of(server: Server, target: bytes, body: dict[str, Any]) -> list[Any]:
    resume = Resume(last_seq=2, text="x", token_ids=(120,), id="i", created=7, model="m")
    dialect = LlamaDialect(cast("LlamaHttp", server))
    data = msgspec.json.encode({**body, "swarmesh_resume": {}})
    return [event async for event in dialect.resume(target, data, resume)]


async def test_a_chat_is_asked_as_the_template_wants_it() -> None:
    server = Server({"content": "y", "tokens": [121], "tokens_predicted": 1}, LAST)
    body = {"messages": [], "chat_template_kwargs": {"a": 1}, "max_tokens": 9, "max_completion_tokens": 4, "stop": "z"}
    events = await chunks_of(server, b"/v1/chat/completions", {**body, "min_p": 0.1, "logit_bias": {"5": -1}})
    asked = server.asked[0]
    template, token = asked["prompt"]
    assert (msgspec.json.decode(template)["chat_template_kwargs"], token) == ({"a": 1}, 120)
    assert "swarmesh_resume" not in template
    assert {name: asked[name] for name in ("n_predict", "stop", "min_p", "logit_bias")} == {
        "n_predict": 3,
        "stop": ["z"],
        "min_p": 0.1,
        "logit_bias": {"5": -1},
    }
    assert not {"messages", "max_tokens", "max_completion_tokens", "chat_template_kwargs"} & set(asked)
    assert events[0].token_ids == (121,)
    assert events[0].data == (
        b'{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"y"}}],"created":7,"id":"i","model":"m",'
        b'"object":"chat.completion.chunk"}'
    )
    assert events[-1].data == b"[DONE]"


@pytest.mark.parametrize(
    "body", [{"prompt": ["a", "b"]}, {"prompt": None}, {"prompt": "a", "max_tokens": "5"}, {"prompt": "a", "stop": 5}]
)
async def test_what_makes_no_single_answer_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        await chunks_of(Server(LAST), b"/v1/completions", body)


@pytest.mark.parametrize("prompt", [["a"], [[97]], [97], "a"])
async def test_one_text_is_one_text_however_it_is_wrapped(prompt: Any) -> None:
    server = Server(LAST)
    await chunks_of(server, b"/v1/completions", {"prompt": prompt})
    assert server.asked[0]["prompt"] in (["a", 120], [97, 120])
