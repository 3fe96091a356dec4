"""One answer made of several: what the relay writes for each choice, and what the client gets of it."""

from __future__ import annotations

import json

import msgspec
import pytest

from choices_bed import STREAM_HEAD, Client, answer, begun, chunk, completion, end, request_of
from swarmesh.core.errors import QueueFullError, SwarmeshError
from swarmesh.net.exchange import Exchange
from swarmesh.queen import choices as choices_module
from swarmesh.queen.choices import merged_usage, single_requests
from swarmesh.wire.openai import ChatRequest, CompletionRequest

# Not streamed


async def test_whole_answers_become_one_in_the_order_of_the_choices() -> None:
    client = begun(3, stream=False)
    a, b, c = client.parts
    answer(c, completion("c", usage=(3, 4)), headers=b"connection: close\r\nx-engine: c\r\n")
    answer(a, completion("a", usage=(3, 2)))
    assert client.sent == b""
    answer(b, completion("b", usage=(3, 1)))
    body = json.loads(client.body)
    told = [(entry["index"], entry["message"]["content"]) for entry in body["choices"]]
    assert told == [(0, "a"), (1, "b"), (2, "c")]
    assert (body["id"], body["created"], body["model"]) == ("c-a", 7, "m")
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}
    assert client.head.header(b"x-swarmesh-rustbee") == b"rustbee-2"
    assert (client.head.header(b"x-engine"), client.head.header(b"connection")) == (b"c", None)
    assert (client.head.length, client.kept_alive) == (len(client.body), True)


async def test_half_a_usage_is_not_told() -> None:
    client = begun(2, stream=False)
    answer(client.parts[0], completion("a"))
    answer(client.parts[1], completion("b", usage=None))
    assert "usage" not in json.loads(client.body)


async def test_several_prompts_have_their_choices_one_after_another() -> None:
    client = begun(2, stream=False)
    for part, name in zip(client.parts, "ab", strict=True):
        both = completion(f"{name}0")
        both["choices"] += completion(f"{name}1", index=1)["choices"]
        answer(part, both)
    told = [(entry["index"], entry["message"]["content"]) for entry in json.loads(client.body)["choices"]]
    assert told == [(0, "a0"), (1, "b0"), (2, "a1"), (3, "b1")]


async def test_the_refusal_of_one_choice_is_the_answer() -> None:
    client = begun(3, stream=False)
    answer(client.parts[0], completion("a"))
    said = {"error": {"code": "task_refused", "message": "no"}}
    answer(client.parts[1], said, status=b"422 Unprocessable", headers=b"retry-after: 5\r\n")
    assert (client.head.status, json.loads(client.body)) == (422, said)
    assert client.head.header(b"retry-after") == b"5"
    assert client.head.header(b"x-swarmesh-rustbee") == b"rustbee-1"
    assert client.aborted == [2]
    assert client.kept_alive is True


async def test_a_whole_answer_that_is_cut_is_an_error() -> None:
    client = begun(2, stream=False)
    client.parts[0].write(b"HTTP/1.1 200 OK\r\nx-swarmesh-rustbee: r\r\ncontent-length: 9\r\n\r\n{}")
    client.parts[0].finish(keep_alive=False)
    assert (client.head.status, json.loads(client.body)["error"]["code"]) == (502, "rustbee_lost")
    assert client.head.header(b"x-swarmesh-rustbee") == b"r"


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"\xff", b'{"choices": [1]}', b'{"choices": [], "usage": 1}'])
async def test_a_whole_answer_that_is_none_is_an_error(body: bytes) -> None:
    client = begun(2, stream=False)
    answer(client.parts[0], completion("a"))
    answer(client.parts[1], body)
    assert (client.head.status, json.loads(client.body)["error"]["code"]) == (502, "engine_error")


async def test_what_is_collected_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices_module, "COLLECTED_BYTES_MAX", 250)
    client = begun(2, stream=False)
    answer(client.parts[0], completion("a"))
    answer(client.parts[1], completion("b"))
    assert (client.head.status, json.loads(client.body)["error"]["code"]) == (502, "engine_error")


# The client, and the beginning


async def test_a_client_that_leaves_ends_all() -> None:
    client = begun(3)
    end(client.parts[0], STREAM_HEAD % 0 + chunk("a"))
    sent = client.sent
    client.exchange.aborted()
    assert client.aborted == [1, 2]
    client.parts[1].write(STREAM_HEAD % 1 + chunk("b"))
    client.parts[2].finish(keep_alive=False)
    assert client.sent == sent


async def test_a_slow_client_holds_all_up_also_who_begins_later() -> None:
    client = begun(2)
    a, b = client.parts
    client.exchange.writing_paused(True)
    assert client.paused == [(0, True), (1, True)]
    b.write(STREAM_HEAD % 1)
    assert client.paused[2:] == [(1, True)]
    client.exchange.writing_paused(False)
    a.write(STREAM_HEAD % 0)
    assert client.paused[3:] == [(0, False), (1, False)]


async def test_after_one_is_refused_no_other_begins() -> None:
    client = Client(3)

    def full_at_the_second(part: Exchange, request: ChatRequest) -> None:
        client.run(part, request)
        if len(client.parts) == 2:
            part.fail(QueueFullError("full", retry_after_s=4))

    client.choices.begin(full_at_the_second)
    assert (client.head.status, client.head.header(b"retry-after")) == (429, b"4")
    assert (len(client.parts), client.aborted) == (2, [0])


async def test_a_beginning_that_fails_is_an_answer() -> None:
    client = Client(2)

    def refuses(part: Exchange, request: ChatRequest) -> None:
        raise SwarmeshError("not today")

    client.choices.begin(refuses)
    assert (client.head.status, json.loads(client.body)["error"]["message"]) == (500, "not today")


# Requests and usage


def test_each_choice_is_asked_for_with_a_seed_of_its_own() -> None:
    asked = request_of(ChatRequest, {"messages": [], "n": 3, "seed": 2**63 - 2, "model": "m", "stop": "x"})
    singles = single_requests(asked)
    assert [one.seed for one in singles] == [2**63 - 2, 2**63 - 1, -(2**63)]
    assert [one.choices() for one in singles] == [1, 1, 1]
    assert b'"n"' not in msgspec.json.encode(singles[0])
    assert all((one.model, one.stop) == ("m", "x") for one in singles)
    singles[0].model = "other"
    assert (singles[1].model, asked.model, asked.n) == ("m", "m", 3)


@pytest.mark.parametrize("seed", [{}, {"seed": None}])
def test_who_gives_no_seed_gets_fresh_ones(seed: dict[str, None]) -> None:
    asked = request_of(CompletionRequest, {"prompt": "x", "n": 16, **seed})
    seeds = [one.seed for one in single_requests(asked)]
    assert len(set(seeds)) == 16
    assert all(isinstance(one, int) and 0 <= one < 2**31 for one in seeds)


def test_usage_keeps_what_is_shared() -> None:
    told = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    first = {
        **told,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    assert merged_usage([first, told]) == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
