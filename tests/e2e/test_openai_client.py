"""The unmodified openai package against a real swarm."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
RECITAL: list[Any] = [{"role": "user", "content": "Recite the song of the hive."}]

BURST = 32
BURSTS_MAX = 3
"""What else the machine does at a moment may slow one rustbee down."""
UNEVEN_MAX = 1.2


@pytest.fixture
def client(pair: Any) -> Any:
    with pair.openai() as client:
        yield client


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]


def test_chat(client: Any) -> None:
    answer = client.chat.completions.create(model="demo", messages=HELLO, temperature=0)
    assert answer.choices[0].message.content.startswith("Hello!")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "demo"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def test_chat_stream_equals_the_whole_answer_and_tells_usage(client: Any) -> None:
    whole = client.chat.completions.create(model="demo", messages=HELLO, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model="demo", messages=HELLO, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert sum(1 for c in chunks if c.choices and c.choices[0].finish_reason) == 1


def test_completions_both_ways(client: Any) -> None:
    prompt = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    whole = client.completions.create(model="demo", prompt=prompt, max_tokens=40, temperature=0)
    chunks = client.completions.create(model="demo", prompt=prompt, max_tokens=40, temperature=0, stream=True)
    assert whole.choices[0].text
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text


def test_max_tokens_ends_with_length(client: Any) -> None:
    answer = client.chat.completions.create(model="demo", messages=RECITAL, max_tokens=5, temperature=0)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5


def test_stop_is_respected(client: Any) -> None:
    answer = client.chat.completions.create(model="demo", messages=HELLO, temperature=0, stop=["demo"])
    assert "demo" not in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_a_seed_makes_sampling_repeatable(client: Any) -> None:
    story: list[Any] = [{"role": "user", "content": "Tell me a story about a bee."}]
    texts = {
        client.chat.completions.create(model="demo", messages=story, temperature=1.0, seed=seed, max_tokens=60)
        .choices[0]
        .message.content
        for seed in (7, 7, 8, 9, 10)
    }
    assert 1 < len(texts) <= 4


def test_n_two(client: Any) -> None:
    answer = client.chat.completions.create(model="demo", messages=HELLO, n=2, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1]


def test_json_schema(client: Any) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    answer = client.chat.completions.create(
        model="demo",
        messages=HELLO,
        max_tokens=200,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )
    assert isinstance(json.loads(answer.choices[0].message.content)["sum"], int)


def test_embeddings(client: Any) -> None:
    answer = client.embeddings.create(model="demo", input=["bees make honey", "bees make honey", "tax law"])
    first, same, other = (row.embedding for row in answer.data)
    assert len(first) > 10
    assert _cosine(first, same) > 0.999 > _cosine(first, other)


def test_wrong_key(pair: Any) -> None:
    with pair.openai(api_key="sk-wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"


def test_unknown_model(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert caught.value.code == "model_not_found"


def test_malformed_json_tells_the_position(pair: Any) -> None:
    with pair.http() as client:
        answer = client.post("/v1/chat/completions", content=b'{"model": "demo",}')
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "malformed_json"
    assert "byte 17" in error["message"]


def test_what_the_engine_refuses_comes_in_our_envelope(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "bee " * 6000}])
    assert caught.value.code == "task_refused"
    assert "context" in caught.value.message


def test_a_burst_is_shared_evenly(pair: Any) -> None:
    uneven = [1.0 * BURST]
    while uneven[-1] > UNEVEN_MAX and len(uneven) <= BURSTS_MAX:
        counts = burst(pair)
        print(f"a burst of {BURST} went {counts}")  # Shown with pytest -s.
        assert len(counts) == 2
        uneven.append(max(counts) / (sum(counts) / 2))
    assert min(uneven) <= UNEVEN_MAX


def burst(pair: Any) -> list[int]:
    """Ask all at once; how many each rustbee served."""
    together = threading.Barrier(BURST)

    def ask(_: int) -> str:
        with pair.http() as client:
            client.get("/v2/swarmesh/health")  # The connection is there before the burst begins.
            together.wait(timeout=30)
            body = {"model": "demo", "messages": RECITAL, "max_tokens": 100, "temperature": 0}
            answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200
        return str(answer.headers["x-swarmesh-rustbee"])

    with ThreadPoolExecutor(BURST) as pool:
        served = list(pool.map(ask, range(BURST)))
    return [served.count(name) for name in set(served)]


def _cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return float(dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5)
