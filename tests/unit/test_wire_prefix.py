"""How prompts begin: a conversation's next turn shares the blocks of the one before, as real clients send it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmesh.wire.flow import Submission
from swarmesh.wire.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from swarmesh.wire.prefix import BLOCK_BYTES, BLOCKS_MAX, prefix_of

SYSTEM = {"role": "system", "content": "You know all about bees. ä \n" * 60}

Said = Callable[..., bytes]


@pytest.fixture(scope="module")
def said() -> Said:
    """The body that the real client sends for a chat."""
    bodies: list[bytes] = []

    def take(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(400, json={"error": {"message": "seen"}})

    client = openai.OpenAI(
        base_url="http://queen/v1",
        api_key="k",
        max_retries=0,
        http_client=httpx.Client(transport=httpx.MockTransport(take)),
    )

    def chat(messages: Any, **more: Any) -> bytes:
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="m", messages=messages, **more)
        return bodies[-1]

    return chat


def chat_of(body: bytes) -> ChatRequest:
    return msgspec.json.decode(body, type=ChatRequest)


def test_the_next_turn_of_a_chat_begins_as_the_one_before(said: Said) -> None:
    messages = [SYSTEM, {"role": "user", "content": "What is a rustbee? " * 20}]
    first = chat_of(said(messages))
    messages += [{"role": "assistant", "content": "A worker. " * 80}, {"role": "user", "content": "And a hive?"}]
    second = chat_of(said(messages, temperature=0.5))
    known = first.prefix()
    # Up to the bracket that ended the list.
    assert len(known) == len(bytes(first.messages)) // BLOCK_BYTES > 3
    same = (len(bytes(first.messages)) - 1) // BLOCK_BYTES
    assert second.prefix()[:same] == known[:same]
    assert len(second.prefix()) > len(known)
    assert len(set(second.prefix())) == len(second.prefix())


def test_another_question_after_the_same_system_prompt_shares_its_blocks(said: Said) -> None:
    first = chat_of(said([SYSTEM, {"role": "user", "content": "one " * 300}])).prefix()
    second = chat_of(said([SYSTEM, {"role": "user", "content": "two " * 300}])).prefix()
    shared = len(json.dumps(SYSTEM, ensure_ascii=False).encode()) // BLOCK_BYTES
    assert first[:shared] == second[:shared]
    assert not set(first[shared + 1 :]) & set(second[shared + 1 :]), "what follows a difference is different"


def test_what_a_template_puts_before_the_messages_counts(said: Said) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    messages = [SYSTEM, {"role": "user", "content": "hi"}]
    plain, tooled = chat_of(said(messages)).prefix(), chat_of(said(messages, tools=[tool])).prefix()
    assert plain
    assert not set(plain) & set(tooled)
    assert tooled == chat_of(said(messages, tools=[tool], temperature=1.0)).prefix()
    assert chat_of(said(messages, tools=[])).prefix() != tooled


def test_a_nectarflow_begins_as_the_chat_that_says_the_same(said: Said) -> None:
    messages = [SYSTEM, {"role": "user", "content": "What is a rustbee?"}]
    chat = chat_of(said(messages))
    flow = msgspec.json.decode(json.dumps({"messages": messages}, ensure_ascii=False).encode(), type=Submission)
    prompt = Submission(prompt="What is a rustbee? " * 100)
    asked = chat_of(said([{"role": "user", "content": prompt.prompt}]))
    assert len(chat.prefix()) > 2
    assert flow.prefix() == chat.prefix()
    assert prompt.prefix() == asked.prefix() != ()
    assert Submission(input=msgspec.Raw(b'"' + b"x" * 600 + b'"')).prefix() != ()


def test_short_prompts_and_other_requests_have_none(said: Said) -> None:
    assert chat_of(said([{"role": "user", "content": "hi"}])).prefix() == ()
    assert EmbeddingRequest(input=msgspec.Raw(b'"' + b"x" * 2000 + b'"')).prefix() == ()
    completion = CompletionRequest(prompt=msgspec.Raw(b'"' + b"x" * 2000 + b'"'))
    assert len(completion.prefix()) == 3


@given(st.binary(max_size=5000), st.binary(max_size=5000), st.binary(max_size=3000))
def test_equal_beginnings_have_equal_blocks_and_only_they(common: bytes, one: bytes, other: bytes) -> None:
    first, second = prefix_of(common + one), prefix_of(common + other)
    same = len(common) // BLOCK_BYTES
    assert first[:same] == second[:same]
    for number, (mine, its) in enumerate(zip(first, second, strict=False), start=1):
        assert (mine == its) == ((common + one)[: number * BLOCK_BYTES] == (common + other)[: number * BLOCK_BYTES])


def test_a_long_prompt_is_bounded() -> None:
    assert len(prefix_of(bytes(BLOCK_BYTES * BLOCKS_MAX * 2))) == BLOCKS_MAX
