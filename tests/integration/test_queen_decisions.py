"""Decisions over HTTP: what engines report of a task reaches them, each can be explained, policies can be changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from queen_rig import CHAT, FLOW, RUSTBEES, Rig, chat
from raw_client import ask_once
from scripted_worker import (
    Call,
    ScriptedAgent,
    ScriptedWorker,
    chat_chunk,
    completion,
    delta,
    done,
    end_mark,
    holds,
    token,
    usage_chunk,
)
from swarmesh.config.home import Home
from swarmesh.config.settings import QueenSettings, RoutingSettings, Settings
from swarmesh.core.policies import PolicyName
from swarmesh.policy import script as policy_script
from swarmesh.queen.driver import now_ms
from swarmesh.queen.process import Queen
from swarmesh.wire.sse import PING, SseReader

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]

EXPLAIN = "/v2/swarmesh/explain/task"
POLICIES = "/v2/swarmesh/policies"
LONG = "Tell me about the hive. " * 60


async def explained(rig: Rig, name: str) -> dict[str, Any]:
    told: dict[str, Any] = await rig.json("GET", f"{EXPLAIN}/{name}")
    return told


async def held_agent(rig: Rig, new_agent: NewAgent, worker_id: str = "rustbee-1", **fields: Any) -> ScriptedAgent:
    """An agent that answers nothing by itself."""
    agent = await new_agent(worker_id)
    agent.behaviour = holds
    await rig.register(agent, **fields)
    return agent


def counted_end(seq: int, line: bytes) -> bytes:
    """The end mark as an agent sends it."""
    return end_mark(seq).replace(b"data", line + b"data")


# what engines report


async def test_a_streams_counts_and_first_token(rig: Rig, new_agent: NewAgent) -> None:
    agent = await held_agent(rig, new_agent)
    client = await rig.start_chat(stream=True)
    call = await agent.call()
    call.events(chat_chunk(1, "", first=True))
    call.events(chat_chunk(2, "hello", 7))
    call.last(chat_chunk(3, "", finish="stop"), counted_end(4, b": u 812,768,96\n"))
    answer = await client.read_answer()
    events = SseReader().feed(answer.body)
    assert [event.seq for event in events] == [1, 2, 3, 4]
    assert answer.body.count(b"\n: u ") == 1
    told = await explained(rig, answer.headers["x-swarmesh-task"])
    (attempt,) = told["attempts"]
    report = attempt["report"]
    assert (report["prompt_tokens"], report["cached_tokens"], report["completion_tokens"]) == (812, 768, 96)
    assert 0 <= report["first_token_ms"] < 10_000
    assert (attempt["outcome"], attempt["attempt"], attempt["chosen"]) == ("ended", 1, "rustbee-1")


@pytest.mark.parametrize("what", ["stream", "nectarflow"])
async def test_the_first_token_of_a_long_prompt_is_told_at_once(
    rig: Rig, new_agent: NewAgent, until: Until, what: str
) -> None:
    agent, prompt = await held_agent(rig, new_agent), LONG * 100
    [worker] = rig.swarm.fleet
    if what == "stream":
        await rig.start_chat(messages=[{"role": "user", "content": prompt}], stream=True)
        opening, first = chat_chunk(1, "", first=True), chat_chunk(2, "hello", 7)
    else:
        await rig.ask("POST", FLOW, {"modelcell": "fake", "prompt": prompt})
        opening, first = PING, token(1, "hello", 7)
    call = await agent.call()
    call.events(opening)
    assert worker.read_until_ms - now_ms() > 30_000, "as it was predicted"
    call.events(first)
    await until(lambda: worker.read_until_ms <= now_ms(), "nothing is left to be read")
    assert worker.running


async def test_an_opening_is_no_first_token(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await held_agent(rig, new_agent)
    client = await rig.start_chat(stream=True)
    call = await agent.call()
    call.last(chat_chunk(1, "", first=True), chat_chunk(2, "", finish="stop"), end_mark(3))
    answer = await client.read_answer()
    await until(rig.is_idle)
    (attempt,) = (await explained(rig, answer.headers["x-swarmesh-task"]))["attempts"]
    assert attempt["report"] == dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens", "first_token_ms"))


async def test_a_whole_answers_usage(rig: Rig, new_agent: NewAgent) -> None:
    agent = await held_agent(rig, new_agent)
    client = await rig.start_chat()
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    (await agent.call()).json(200, {**completion("x" * 5000), "usage": usage})
    answer = await client.read_answer()
    (attempt,) = (await explained(rig, answer.headers["x-swarmesh-task"]))["attempts"]
    assert attempt["report"] == {
        "prompt_tokens": 9,
        "cached_tokens": 4,
        "completion_tokens": 5,
        "first_token_ms": None,
    }


async def test_an_adopted_servers_usage_counts_where_it_is_told(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    await rig.adopt(worker)

    def tells(call: Call) -> None:
        call.tokens("hel", "lo")
        call.last(delta("", "stop"), usage_chunk(1, 9, 2).partition(b"\n")[2], b"data: [DONE]\n\n")

    for behaviour, counts in ((worker.behaviour, (None, None)), (tells, (9, 2))):
        worker.behaviour = behaviour
        answer = await rig.ask("POST", CHAT, chat(stream=True))
        report = (await explained(rig, answer.headers["x-swarmesh-task"]))["attempts"][0]["report"]
        assert (report["prompt_tokens"], report["completion_tokens"]) == counts
        assert report["cached_tokens"] is None
        assert report["first_token_ms"] >= 0


@pytest.mark.parametrize("resumes", [True, False])
async def test_a_moved_stream_is_counted_once_and_by_who_ended_it(
    rig: Rig, new_agent: NewAgent, *, resumes: bool
) -> None:
    first = await held_agent(rig, new_agent)
    second = await held_agent(rig, new_agent, "rustbee-2")
    logprobs = {} if resumes else {"logprobs": True}  # What is more than text is said again from the beginning.
    client = await rig.start_chat(stream=True, **logprobs)
    call = await first.call()
    call.events(chat_chunk(1, "one", 11, first=True))
    await client.read_head()
    read = await client.read_chunk()
    call.crash()
    again = await second.call()
    assert (again.resume is not None) is resumes
    if not resumes:
        again.events(chat_chunk(1, "one", 11, first=True))
    again.last(chat_chunk(2, " two", 12), chat_chunk(3, "", finish="stop"), counted_end(4, b": u 20,12,4\n"))
    while part := await client.read_chunk():
        read += part
    assert read.count(b"[DONE]") == 1
    assert read.count(b": u ") == int(resumes)
    told = await explained(rig, call.headers["x-swarmesh-task"])
    broke, ended = told["attempts"]
    assert (broke["outcome"], broke["chosen"], broke["report"]) == ("broke", "rustbee-1", None)
    assert broke["why"].startswith("engine_crashed: ")
    assert (ended["outcome"], ended["chosen"], ended["attempt"]) == ("ended", "rustbee-2", 2)
    assert (ended["report"]["prompt_tokens"], ended["report"]["cached_tokens"]) == (20, 12)
    assert (told["chosen"], told["vetoes"]) == ("rustbee-2", {"tried": 1})
    assert any("not having failed this task before" in sentence for sentence in told["would_change"])


async def test_a_nectarflows_counts(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await held_agent(rig, new_agent)
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi", "modelcell": "fake"}))["job_id"]
    call = await agent.call()
    call.last(token(1, "hello", 7), done(2, job_id, 9, 1).replace(b"event", b": u 9,8,1\nevent"))
    await until(rig.is_idle)
    told = await explained(rig, job_id)
    report = told["attempts"][0]["report"]
    assert (report["prompt_tokens"], report["cached_tokens"], report["completion_tokens"]) == (9, 8, 1)
    assert report["first_token_ms"] >= 0
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert shown["usage"] == {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    assert "rustbee-1" in shown["decision"]


# explain


async def test_a_relayed_answer_is_found_by_its_own_id(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    await rig.adopt(worker)
    worker.behaviour = lambda call: call.json(200, {**completion(), "id": "chatcmpl-abc"})
    answer = await rig.ask("POST", CHAT, chat())
    told = await explained(rig, "chatcmpl-abc")
    assert told["task"] == answer.headers["x-swarmesh-task"]
    assert (told["modelcell"], told["considered"], told["vetoes"]) == ("fake", 1, {})
    assert told["chosen"] == answer.headers["x-swarmesh-rustbee"]
    assert told["would_change"]
    assert told["attempts"][0]["at"] > 1_700_000_000


async def test_who_waits_is_told_what_for(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await held_agent(rig, new_agent, slots=1)
    await rig.start_chat()
    await agent.call()
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi", "modelcell": "fake"}))["job_id"]
    told = await explained(rig, job_id)
    assert (told["chosen"], told["vetoes"], told["considered"]) == (None, {"busy": 1}, 1)
    assert [attempt["outcome"] for attempt in told["attempts"]] == ["waiting"]
    assert told["words"] == "all slots of the one rustbee with 'fake' are in use, and it is next"
    assert told["would_change"] == ["a free slot: a task that runs now has to end, or one more rustbee to start"]
    (await agent.call(0)).json(200, completion())
    call = await agent.call(1)
    assert [attempt["outcome"] for attempt in (await explained(rig, job_id))["attempts"]] == ["running"]
    call.last(token(1, "x"), done(2, job_id, 1, 1))
    await until(rig.is_idle)


async def test_what_a_policy_script_had_no_say_in_is_said(
    rig: Rig, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_script, "ANSWER_S_MAX", 10.0)  # On a machine with much to do it might be late instead.
    worker = await new_worker()
    worker.behaviour = lambda call: call.json(200, completion())
    await rig.adopt(worker)
    made = await rig.json("POST", "/v2/swarmesh/keys", {"name": "ada"})
    ada = {"authorization": f"Bearer {made['key']}"}
    # Right when it is checked and wrong when it decides: the samples are of another model.
    source = "def score(task, workers):\n    return [task.nope if task.model == 'fake' else 1 for _ in workers]\n"
    await rig.json("PUT", "/v2/swarmesh/policies/script", {"name": "x.star", "source": source})
    tasks = [(await rig.ask("POST", CHAT, chat(), ada)).headers["x-swarmesh-task"] for _ in range(4)]
    told = [await explained(rig, name) for name in tasks]
    assert {(each["policy"], each["reason"]) for each in told} == {("swarm", "only")}
    failed = "policy script 'x.star' failed: score: x.star:2:13: Object of type `struct` has no attribute `nope`"
    assert told[0]["without_script"] == told[0]["attempts"][0]["without_script"]
    assert told[0]["without_script"] == f"{failed}; the built-in rule decided"
    off = "policy script 'x.star' is off after 3 failures in a row"
    assert told[3]["without_script"].startswith(f"{off}: score: x.star:2:13: ")
    hers = (await rig.ask("GET", f"{EXPLAIN}/{tasks[3]}", headers=ada)).json()
    assert hers["without_script"] == f"{off}; the built-in rule decided", "what it did wrong may tell of others' tasks"
    await rig.ask("DELETE", "/v2/swarmesh/policies/script")
    name = (await rig.ask("POST", CHAT, chat(), ada)).headers["x-swarmesh-task"]
    assert (await explained(rig, name))["without_script"] == ""


async def test_what_is_not_known_says_how_much_is_kept(rig: Rig) -> None:
    answer = await rig.ask("GET", f"{EXPLAIN}/flow-none")
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert "'flow-none'" in answer.error["message"]
    assert "5000 decisions" in answer.error["hint"]


async def test_a_refused_answer_names_its_task_too(rig: Rig) -> None:
    answer = await rig.ask("POST", CHAT, chat())
    assert answer.status >= 400
    assert answer.headers["x-swarmesh-task"]


async def test_every_task_of_a_thousand_can_be_explained(rig: Rig, new_worker: NewWorker) -> None:
    workers = [await new_worker(), await new_worker()]
    for worker in workers:
        worker.behaviour = lambda call: call.json(200, completion())
        await rig.adopt(worker)
    connection = await rig.connect()
    tasks = []
    for _ in range(1000):
        answer = await connection.ask("POST", CHAT, chat(), rig.auth)
        tasks.append((answer.headers["x-swarmesh-task"], answer.headers["x-swarmesh-rustbee"]))
    for task, worker_id in tasks:
        told = (await connection.ask("GET", f"{EXPLAIN}/{task}", None, rig.auth)).json()
        assert (told["task"], told["chosen"], len(told["attempts"])) == (task, worker_id, 1)


# policies


async def test_policies_are_listed_and_changed(rig: Rig, new_worker: NewWorker) -> None:
    listed = (await rig.json("GET", POLICIES))["policies"]
    assert [entry["name"] for entry in listed] == list(PolicyName)
    assert [entry["name"] for entry in listed if entry["active"]] == ["swarm"]
    assert all(entry["description"] for entry in listed)
    await rig.json("PUT", POLICIES, {"policy": "foraging"})
    await rig.adopt(await new_worker())
    changed = (await rig.json("PUT", POLICIES, {"policy": "least-work", "modelcell": "fake"}))["policies"]
    assert [entry["name"] for entry in changed if entry["active"]] == ["foraging"]
    assert {entry["name"]: entry["modelcells"] for entry in changed if entry["modelcells"]} == {"least-work": ["fake"]}
    answer = await rig.ask("POST", CHAT, chat())
    assert (await explained(rig, answer.headers["x-swarmesh-task"]))["policy"] == "least-work"
    changed = (await rig.json("PUT", POLICIES, {"policy": None, "modelcell": "fake"}))["policies"]
    assert [entry["name"] for entry in changed if entry["modelcells"]] == []
    answer = await rig.ask("POST", CHAT, chat())
    assert (await explained(rig, answer.headers["x-swarmesh-task"]))["policy"] == "foraging"
    refused = await rig.ask("PUT", POLICIES, {"policy": None, "modelcell": "fake"})
    assert (refused.status, refused.error["message"]) == (409, "'fake' has no policy of its own")


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"policy": "foragin"}, 400, "'foraging'"),
        ({"policy": "swarm", "modelcell": "nobodys"}, 404, "models list"),
        ({"modelcell": "fake"}, 400, ""),
        ({"policy": None}, 400, "swarmesh policy use NAME"),
        ({"policy": None, "modelcell": "nobodys"}, 404, "models list"),
        ({"policy": "swarm", "model": "fake"}, 400, ""),
    ],
)
async def test_what_cannot_be_chosen(rig: Rig, asked: dict[str, Any], status: int, words: str) -> None:
    answer = await rig.ask("PUT", POLICIES, asked)
    assert answer.status == status
    assert words in answer.error["hint"]
    assert [e["name"] for e in (await rig.json("GET", POLICIES))["policies"] if e["active"]] == ["swarm"]


@pytest.fixture
async def set_rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A queen whose settings choose the policies."""
    home = Home(tmp_path / "home")
    routing = RoutingSettings(PolicyName.ROUND_ROBIN, {"fake": PolicyName.NEST_SITE})
    queen = await Queen.start(home, Settings(queennode=QueenSettings(port=0), routing=routing))
    rig = Rig(home, queen)
    yield rig
    await rig.close()
    await queen.close()


async def test_the_settings_choose_policies_and_only_an_admin_changes_them(set_rig: Rig, new_agent: NewAgent) -> None:
    listed = (await set_rig.json("GET", POLICIES))["policies"]
    assert [entry["name"] for entry in listed if entry["active"]] == ["round-robin"]
    assert [entry["modelcells"] for entry in listed if entry["name"] == "nest-site"] == [["fake"]]
    agent = await new_agent("rustbee-1")
    await set_rig.register(agent)
    answer = await set_rig.ask("POST", CHAT, chat())
    assert (await explained(set_rig, answer.headers["x-swarmesh-task"]))["policy"] == "nest-site"
    (worker,) = set_rig.swarm.fleet
    assert worker.proximity == 1.0, "it is on the queen's own machine"
    refused = await ask_once(set_rig.url, "PUT", POLICIES, {"policy": "swarm"}, set_rig.worker_auth("rustbee-1"))
    assert refused.status == 403


# real agents


@pytest.fixture
async def spawned(rig: Rig, until: Until) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Starts real agents, which end with the test."""

    async def spawn(**asked: Any) -> str:
        worker_id: str = (await rig.json("POST", RUSTBEES, asked))["rustbee_id"]

        async def healthy() -> bool:
            shown = await rig.rustbee(worker_id)
            assert shown["status"] != "dead", shown
            return bool(shown["status"] == "healthy")

        await until(healthy, "a rustbee", timeout_s=60)
        return worker_id

    yield spawn
    for worker in list(rig.swarm.fleet):
        await rig.ask("DELETE", f"{RUSTBEES}/{worker.worker_id}?grace_s=0")
    await until(lambda: not len(rig.swarm.fleet), "no rustbee", timeout_s=60)


@pytest.mark.parametrize(
    "asked",
    [{"type": "python", "class_path": "fake:tokens=6", "modelcell": "fake"}, {"type": "cpu", "modelcell": "demo"}],
    ids=["fake", "llama.cpp"],
)
async def test_a_real_engine_tells_what_it_had_in_its_cache(
    rig: Rig, spawned: Callable[..., Awaitable[str]], until: Until, asked: dict[str, Any]
) -> None:
    await spawned(**asked, slots=1)
    model = asked["modelcell"]
    messages: list[Any] = [{"role": "user", "content": LONG}]

    async def report(name: str) -> dict[str, Any]:
        told: dict[str, Any] = (await explained(rig, name))["attempts"][0]["report"]
        return told

    async with openai.AsyncOpenAI(base_url=f"{rig.url}/v1", api_key=rig.key, max_retries=0) as client:
        stream = await client.chat.completions.create(model=model, messages=messages, max_tokens=6, stream=True)
        chunks = [chunk async for chunk in stream]
        streamed = await report(chunks[0].id)
        whole = await client.chat.completions.create(model=model, messages=messages, max_tokens=6)
    assert whole.usage is not None
    told = await report(whole.id)
    assert (told["prompt_tokens"], told["completion_tokens"]) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )
    assert streamed["prompt_tokens"] == told["prompt_tokens"] > 100
    assert streamed["cached_tokens"] < told["prompt_tokens"] / 2
    assert streamed["first_token_ms"] is not None
    assert told["cached_tokens"] > told["prompt_tokens"] / 2
    flow = {"messages": messages, "modelcell": model, "max_tokens": 6}
    job_id = (await rig.json("POST", FLOW, flow))["job_id"]
    await until(rig.is_idle)
    ran = await report(job_id)
    assert ran["prompt_tokens"] == told["prompt_tokens"]
    assert ran["cached_tokens"] > ran["prompt_tokens"] / 2
    assert ran["first_token_ms"] is not None
