"""What one client key sees of another's tasks (nothing), and what it pays for its own however they end."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queen_rig import CHAT, FLOW, Rig, chat
from raw_client import Answer, ask_once
from scripted_worker import Call, ScriptedWorker, answers_at_once, completion

KEYS = "/v2/swarmesh/keys"
EXPLAIN = "/v2/swarmesh/explain"
SECRET = "what only ada knows"

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]


async def make_key(rig: Rig, name: str, **more: Any) -> dict[str, str]:
    """The header of a new key."""
    made = await rig.json("POST", KEYS, {"name": name, **more})
    return {"authorization": f"Bearer {made['key']}"}


async def book(rig: Rig, name: str) -> dict[str, Any]:
    """What the list shows of a key."""
    keys: list[dict[str, Any]] = (await rig.json("GET", KEYS))["keys"]
    return next(view for view in keys if view["name"] == name)


async def one_worker(rig: Rig, new_worker: NewWorker, **fields: Any) -> ScriptedWorker:
    worker = await new_worker()
    await rig.adopt(worker, **fields)
    return worker


def unnamed(answer: Answer, name: str) -> tuple[int, str]:
    """An answer without the name of what was asked for."""
    return answer.status, json.dumps(answer.json()).replace(name, "NAME")


@pytest.mark.parametrize("kind", ["task", "refusal"])
async def test_tasks_of_another_key_are_as_unknown_as_those_that_never_were(
    rig: Rig, new_worker: NewWorker, kind: str
) -> None:
    worker = await one_worker(rig, new_worker)
    ada, eve = await make_key(rig, "ada"), await make_key(rig, "eve")

    def refuses(call: Call) -> None:
        call.json(400, {"error": {"message": f"cannot read {call.body['messages'][0]['content']!r}"}})

    worker.behaviour = refuses if kind == "refusal" else answers_at_once
    asked = chat(messages=[{"role": "user", "content": SECRET}])
    task_id = (await ask_once(rig.url, "POST", CHAT, asked, ada)).headers["x-swarmesh-task"]
    flow = (await ask_once(rig.url, "POST", FLOW, {"prompt": SECRET, "modelcell": "nobody"}, ada)).headers

    async def explained(what: str, name: str, auth: dict[str, str]) -> Answer:
        return await ask_once(rig.url, "GET", f"{EXPLAIN}/{what}/{name}", None, auth)

    told = await explained(kind, task_id, ada)
    assert told.status == 200
    assert (SECRET in told.json().get("words", "")) is (kind == "refusal")
    assert (await explained(kind, task_id, rig.auth)).status == 200
    assert (await explained("refusal", flow["x-swarmesh-task"], ada)).status == 200
    for what in ("task", "refusal"):
        for name in (task_id, f"chatcmpl-{task_id}", flow["x-swarmesh-task"]):
            unknown = unnamed(await explained(what, "never-1", eve), "never-1")
            assert unnamed(await explained(what, name, eve), name) == unknown
            assert unknown[0] == 404


async def test_a_task_that_waits_is_its_owners_business(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await one_worker(rig, new_worker, slots=1)
    worker.behaviour = lambda _call: None
    ada, eve = await make_key(rig, "ada"), await make_key(rig, "eve")
    for _ in range(2):
        connection = await rig.connect()
        body = json.dumps(chat()).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: t\r\nauthorization: {ada['authorization']}\r\n"
        connection.send(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    await until(lambda: len(rig.swarm.dispatcher.tasks) == 2)
    for task_id in rig.swarm.dispatcher.tasks:
        for auth, status in ((ada, 200), (rig.auth, 200), (eve, 404)):
            assert (await ask_once(rig.url, "GET", f"{EXPLAIN}/task/{task_id}", None, auth)).status == status


async def test_a_key_lists_its_own_nectarflows_and_the_admin_all(rig: Rig, new_worker: NewWorker) -> None:
    await one_worker(rig, new_worker)
    auths = {name: await make_key(rig, name) for name in ("ada", "eve")}
    flows = {}
    for name, auth in auths.items():
        answer = await ask_once(rig.url, "POST", FLOW, {"prompt": SECRET, "modelcell": "fake"}, auth)
        flows[name] = answer.json()["job_id"]

    async def listed(auth: dict[str, str]) -> list[str]:
        told = await ask_once(rig.url, "GET", "/v2/swarmesh/nectarflows", None, auth)
        return [view["job_id"] for view in told.json()["nectarflows"]]

    assert {name: await listed(auth) for name, auth in auths.items()} == {n: [i] for n, i in flows.items()}
    assert sorted(await listed(rig.auth)) == sorted(flows.values())


async def test_a_nectarflow_that_is_cancelled_is_paid_for(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await one_worker(rig, new_worker)
    worker.behaviour = lambda call: call.tokens(*["tok "] * 500)
    auth = await make_key(rig, "ada")
    answer = await ask_once(rig.url, "POST", FLOW, {"prompt": "hi", "modelcell": "fake"}, auth)
    path = f"{FLOW}/{answer.json()['job_id']}"
    await until(lambda: any(len(flow.rows) >= 500 for flow in rig.queen._flows._flows.values()))
    assert (await ask_once(rig.url, "DELETE", path, None, auth)).json()["status"] == "cancelled"
    assert (await book(rig, "ada"))["honeytokens"] >= 500


async def test_a_stream_that_its_client_hangs_up_on_is_paid_for(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await one_worker(rig, new_worker)
    worker.behaviour = lambda call: call.tokens(*["tok "] * 3_000)
    auth = await make_key(rig, "ada", tokens_per_minute=1_000)
    connection = await rig.connect()
    body = json.dumps(chat(stream=True)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: t\r\nauthorization: {auth['authorization']}\r\n"
    connection.send(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    await connection.read_head()
    events = connection.events()
    for _ in range(2_000):
        await anext(events)
    await connection.close()
    await until(rig.is_idle)
    assert (await book(rig, "ada"))["honeytokens"] >= 2_000
    refused = await ask_once(rig.url, "POST", CHAT, chat(), auth)
    assert (refused.status, refused.error["code"]) == (429, "key_tokens")


async def test_a_stream_whose_server_does_not_count_is_paid_for(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await one_worker(rig, new_worker)

    def whole(call: Call) -> None:
        call.tokens(*["tok "] * 3_000)
        call.end()

    worker.behaviour = whole
    auth = await make_key(rig, "ada")
    assert (await ask_once(rig.url, "POST", CHAT, chat(stream=True), auth)).status == 200
    await until(rig.is_idle)
    assert (await book(rig, "ada"))["honeytokens"] == pytest.approx(3_000, rel=0.02)


@pytest.mark.parametrize("count", ["1" + "0" * 400, "9" * 12, "-5"])
async def test_absurd_usage_keeps_no_slot(rig: Rig, new_worker: NewWorker, until: Until, count: str) -> None:
    worker = await one_worker(rig, new_worker, slots=1)

    def huge(call: Call) -> None:
        said = {**completion(), "usage": {"prompt_tokens": 5, "completion_tokens": 77, "total_tokens": 82}}
        body = json.dumps(said).replace("77", count).encode()
        call.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        call.exchange.finish()

    worker.behaviour = huge
    for _ in range(3):
        assert (await rig.ask("POST", CHAT, chat())).status == 200
    await until(rig.is_idle)


async def test_more_answers_at_once_than_the_key_may_ever_have_are_refused_for_good(
    rig: Rig, new_worker: NewWorker
) -> None:
    worker = await one_worker(rig, new_worker)
    worker.behaviour = answers_at_once
    auth = await make_key(rig, "small", concurrency=2, tokens_per_minute=2_000)
    for _ in range(12):
        refused = await ask_once(rig.url, "POST", CHAT, chat(n=3), auth)
        assert (refused.status, refused.error["param"], "retry-after" in refused.headers) == (400, "n", False)
        assert refused.error["message"] == "n is 3, and this key may have 2 answers under way at once"
    assert not worker.calls
    assert (await ask_once(rig.url, "POST", CHAT, chat(n=2), auth)).status == 200
