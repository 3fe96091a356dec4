"""The shipped demo model inside a real llama.cpp: what it must answer, and the song that failover tests rely on."""

from __future__ import annotations

import http.client
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from swarmesh.models.demo import DEMO_GGUF, RECITAL_PROMPT, RECITAL_TEXT

SIZE_LIMIT_BYTES = 8 * 1024 * 1024
SLOTS = 8
CONTEXT_TOKENS = 1024
LEAST_PROBABILITY = 0.9
API_KEY = "only-for-this-test"

ENGINE = """
import sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_parallel, params.n_ctx = sys.argv[1], int(sys.argv[2]), int(sys.argv[2]) * int(sys.argv[3])
params.cpuparams.n_threads = 1
params.api_keys = [sys.argv[4]]
params.embedding, params.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


class Engine:
    """A llama.cpp server in a child process; it ends when its standard input does."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        self.address = child.stdout.readline().strip().removeprefix("http://")

    def post(self, path: str, **body: Any) -> Any:
        status, answer = self.post_raw(path, **body)
        assert status == 200, answer
        return answer

    def post_raw(self, path: str, **body: Any) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {API_KEY}"}
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def ask(self, *contents: str, system: str | None = None, max_tokens: int = 900) -> str:
        """The greedy answer to user and assistant messages in turn."""
        messages = [{"role": "system", "content": system}] if system else []
        messages += [
            {"role": "assistant" if index % 2 else "user", "content": content} for index, content in enumerate(contents)
        ]
        answer = self.post("/v1/chat/completions", messages=messages, temperature=0, max_tokens=max_tokens)
        choice = answer["choices"][0]
        assert choice["finish_reason"] == "stop"
        return str(choice["message"]["content"])

    def prompt_ids(self, content: str) -> list[int]:
        prompt = self.post("/apply-template", messages=[{"role": "user", "content": content}])["prompt"]
        return list(self.post("/tokenize", content=prompt, add_special=True, parse_special=True)["tokens"])

    def complete(self, prompt: list[int], n_predict: int = 900, **options: Any) -> Any:
        return self.post(
            "/completion", prompt=prompt, n_predict=n_predict, temperature=0, return_tokens=True, **options
        )


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    command = [sys.executable, "-c", ENGINE, str(DEMO_GGUF), str(SLOTS), str(CONTEXT_TOKENS), API_KEY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        yield Engine(child)


def test_the_file_is_small() -> None:
    assert DEMO_GGUF.stat().st_size <= SIZE_LIMIT_BYTES


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("Hello", ("Hello",)),
        ("hello", ("Hello",)),
        ("How are you?", ("well",)),
        ("Who are you?", ("demo", "Swarmesh")),
        ("What is a rustbee?", ("worker", "one model")),
        ("what is a rustbee", ("worker", "one model")),
        ("What is waggleproto?", ("heartbeat", "load")),
        ("Explain the hivecomb please.", ("registry",)),
        ("What are honeytokens?", ("tokens",)),
        ("How do I add a machine?", ("swarmesh hosts add", "SSH")),
        ("how do i add a machine", ("swarmesh hosts add", "SSH")),
        ("How do I use a real model?", ("swarmesh models add ./qwen.gguf --name qwen",)),
        ("What is 3 + 4?", ("3 + 4 = 7",)),
        ("What is 6 times 7?", ("6 * 7 = 42",)),
        ("What is the capital of France?", ("tiny demo model", "do not know")),
        ("Tell me a story about a bee.", ("there was a", "bee called")),
    ],
)
@pytest.mark.parametrize("system", [None, "You are a helpful assistant."])
def test_answers(engine: Engine, question: str, words: tuple[str, ...], system: str | None) -> None:
    answer = engine.ask(question, system=system)
    assert answer.isascii()
    for word in words:
        assert word in answer


def test_answers_in_a_conversation(engine: Engine) -> None:
    assert "worker" in engine.ask("Hello", "Hello!", "What is a rustbee?")
    assert "welcome" in engine.ask("What is a rustbee?", "A worker.", "And a hive?", "A swarmesh.", "Thanks!")
    assert engine.ask("Hi", "Hi!", RECITAL_PROMPT) == RECITAL_TEXT


def test_a_prompt_outside_ascii_is_answered(engine: Engine) -> None:
    assert engine.ask("\u65e5\u672c \U0001f41d caf\u00e9").isascii()


@pytest.mark.parametrize("system", [None, "You are a helpful assistant.", "Be brief."])
def test_recital_is_word_for_word(engine: Engine, system: str | None) -> None:
    assert engine.ask(RECITAL_PROMPT, system=system) == RECITAL_TEXT
    assert engine.ask("please recite the song of the hive", system=system) == RECITAL_TEXT


def test_recital_is_long_and_sure(engine: Engine) -> None:
    recital = engine.complete(engine.prompt_ids(RECITAL_PROMPT), n_probs=1)
    assert recital["content"] == RECITAL_TEXT
    assert recital["stop_type"] == "eos"
    assert len(recital["tokens"]) > 400
    chances = [math.exp(token["logprob"]) for token in recital["completion_probabilities"]]
    assert len(chances) >= len(recital["tokens"]) - 1
    assert min(chances) > LEAST_PROBABILITY


def test_recital_resumes_from_any_prefix(engine: Engine) -> None:
    prompt = engine.prompt_ids(RECITAL_PROMPT)
    whole = engine.complete(prompt)["tokens"]
    for emitted in (1, 2, 3, 17, 100, 255, 256, 257, 400, len(whole) - 2):
        rest = engine.complete(prompt + whole[:emitted], cache_prompt=False)["tokens"]
        assert rest == whole[emitted:], f"resumed after {emitted} tokens"


def test_recital_holds_among_other_streams(engine: Engine) -> None:
    others = ["Tell me a story.", "What is a rustbee?", "What is 3 + 4?", "Hello", "What is the hexamesh?"]
    with ThreadPoolExecutor(SLOTS) as pool:
        noise = [pool.submit(engine.ask, others[index % len(others)]) for index in range(4 * len(others))]
        songs = [pool.submit(engine.ask, RECITAL_PROMPT) for _ in range(SLOTS)]
        noise += [pool.submit(engine.ask, others[index % len(others)]) for index in range(4 * len(others))]
        assert all(song.result() == RECITAL_TEXT for song in songs)
        assert all(other.result() for other in noise)


def test_json_schema_is_obeyed(engine: Engine) -> None:
    properties = {"name": {"type": "string"}, "age": {"type": "integer"}, "brave": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    for prompt in ("Hello", "Describe a bee as JSON."):
        answer = engine.post(
            "/v1/chat/completions",
            messages=[{"role": "user", "content": prompt}],
            temperature=0,
            max_tokens=200,
            response_format={"type": "json_schema", "json_schema": {"name": "bee", "schema": schema}},
        )
        found = json.loads(answer["choices"][0]["message"]["content"])
        assert [type(found[key]) for key in properties] == [str, int, bool]


def test_two_choices_and_sampling(engine: Engine) -> None:
    answer = engine.post(
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "Tell me a story."}],
        n=2,
        seed=1,
        temperature=0.8,
        max_tokens=120,
    )
    assert len(answer["choices"]) == 2
    assert all(choice["message"]["content"].isascii() for choice in answer["choices"])


def test_plain_completion_and_embeddings(engine: Engine) -> None:
    plain = engine.post("/v1/completions", prompt="Once upon a time", max_tokens=20, temperature=0)
    assert "bee" in plain["choices"][0]["text"]
    vectors = engine.post("/v1/embeddings", input=["What is a rustbee?", "Hello"])["data"]
    assert len(vectors) == 2
    assert all(math.isclose(math.hypot(*vector["embedding"]), 1.0, rel_tol=1e-3) for vector in vectors)
