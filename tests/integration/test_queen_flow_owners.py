"""A nectarflow is its key's own: to every other key it is as unknown as one that never was, also by its id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from queen_rig import CHAT, FLOW, TOKENS, Rig, chat, running_queen
from raw_client import Answer, ask_once
from scripted_worker import Call, ScriptedWorker, holds
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.store.records import TaskRecord

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]
Auth = dict[str, str]

UNKNOWN = "flow-0123456789ab"
FOLLOWS = {"accept": "text/event-stream", "last-event-id": "1"}
BY_ID: list[tuple[str, str, Auth]] = [
    ("GET", FLOW + "/{id}", {}),
    ("DELETE", FLOW + "/{id}", {}),
    ("GET", TOKENS + "/{id}", {}),
    ("GET", TOKENS + "/{id}", FOLLOWS),
    ("GET", TOKENS + "/{id}?after=0", FOLLOWS),
    ("GET", CHAT + "/{id}", FOLLOWS),
    ("GET", CHAT + "/chatcmpl-{id}?include_usage=true", {}),
]
"""Every way to ask for a task by its id."""


async def make_key(rig: Rig, name: str) -> Auth:
    """The header of a new client key."""
    made = await rig.json("POST", "/v2/swarmesh/keys", {"name": name})
    return {"authorization": f"Bearer {made['key']}"}


async def submitted(rig: Rig, auth: Auth, **headers: str) -> str:
    answer = await ask_once(rig.url, "POST", FLOW, {"prompt": "hi", "modelcell": "fake"}, {**auth, **headers})
    assert answer.status == 202, answer
    return str(answer.json()["job_id"])


async def ask_for(rig: Rig, way: tuple[str, str, Auth], job_id: str, auth: Auth) -> Answer:
    method, path, headers = way
    return await ask_once(rig.url, method, path.format(id=job_id), None, {**auth, **headers})


async def is_unknown(rig: Rig, job_id: str, auth: Auth) -> None:
    """Whoever has this key cannot tell the task from one that never was."""
    for way in BY_ID:
        told, of_none = [await ask_for(rig, way, name, auth) for name in (job_id, UNKNOWN)]
        assert (told.status, told.body.replace(job_id.encode(), UNKNOWN.encode())) == (404, of_none.body), way
        assert told.headers.keys() == of_none.headers.keys(), way
        assert told.error["code"] == "not_found"


async def is_shown(rig: Rig, job_id: str, auth: Auth, text: str) -> None:
    """Whoever has this key reads the task, which is over, in every way."""
    for way in BY_ID:
        assert (await ask_for(rig, way, job_id, auth)).status == 200, way
    assert (await ask_once(rig.url, "GET", f"{TOKENS}/{job_id}", None, auth)).json()["text"] == text


def streams(call: Call) -> None:
    call.tokens("hel", "lo")
    call.end()


async def test_another_key_can_neither_read_nor_follow_nor_cancel_what_runs(
    rig: Rig, new_worker: NewWorker, until: Until
) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker, slots=1)
    ada, eve = await make_key(rig, "ada"), await make_key(rig, "eve")
    running, waiting = await submitted(rig, ada), await submitted(rig, ada)
    (await worker.call()).tokens("x")
    await until(lambda: rig.queen._flows._flows[TaskId(running)].rows)
    for job_id, status in ((running, "running"), (waiting, "queued")):
        await is_unknown(rig, job_id, eve)
        for auth in (ada, rig.auth):
            shown = await ask_once(rig.url, "GET", f"{FLOW}/{job_id}", None, auth)
            assert shown.json()["status"] == status, "eve's DELETE did nothing"
    for job_id, auth in ((running, ada), (waiting, rig.auth)):
        gone = await ask_once(rig.url, "DELETE", f"{FLOW}/{job_id}", None, auth)
        assert gone.json()["status"] == "cancelled"


async def test_a_restart_changes_nothing_about_whose_it_is(tmp_path: Path, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = streams
    async with running_queen(tmp_path / "home") as rig:
        await rig.adopt(worker)
        ada, eve = await make_key(rig, "ada"), await make_key(rig, "eve")
        finished = await submitted(rig, ada)
        await until(rig.is_idle)
        await is_unknown(rig, finished, eve)
        await is_shown(rig, finished, ada, "hello")
        worker.behaviour = holds
        halfway = await submitted(rig, ada)
        await worker.call(1)
    async with running_queen(tmp_path / "home") as rig:
        for job_id in (finished, halfway):
            await is_unknown(rig, job_id, eve)
        for auth in (ada, rig.auth):
            await is_shown(rig, finished, auth, "hello")
        assert (await ask_once(rig.url, "GET", f"{FLOW}/{halfway}", None, ada)).status == 200


async def test_a_chat_in_the_background_is_its_keys_own(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = streams
    await rig.adopt(worker)
    ada, eve = await make_key(rig, "ada"), await make_key(rig, "eve")
    job_id = (await ask_once(rig.url, "POST", CHAT, chat(background=True), ada)).json()["job_id"]
    await until(rig.is_idle)
    await is_unknown(rig, job_id, eve)
    await is_shown(rig, job_id, ada, "hello")


@pytest.mark.parametrize("chats", [False, True])
async def test_an_idempotency_key_finds_only_tasks_of_the_same_api_key(
    rig: Rig, new_worker: NewWorker, until: Until, *, chats: bool
) -> None:
    worker = await new_worker()
    worker.behaviour = streams
    await rig.adopt(worker)
    path, body = (CHAT, chat(background=True)) if chats else (FLOW, {"prompt": "hi", "modelcell": "fake"})
    jobs: dict[str, set[str]] = {}
    for name, auth in {name: await make_key(rig, name) for name in ("ada", "eve")}.items():
        for _ in range(2):
            answer = await ask_once(rig.url, "POST", path, body, {**auth, "idempotency-key": "k"})
            jobs.setdefault(name, set()).add(answer.json()["job_id"])
        await until(rig.is_idle)
    assert [len(found) for found in jobs.values()] == [1, 1]
    assert not jobs["ada"] & jobs["eve"]
    assert len(worker.calls) == 2


async def test_a_task_of_nobody_is_everybodys(rig: Rig) -> None:
    record = TaskRecord(
        task_id=TaskId("flow-old"),
        status="done",
        modelcell=ModelName("fake"),
        priority="medium",
        key_id=KeyId(""),
        request=b'{"prompt": "hi"}',
        created_at_ms=1,
    )
    await rig.queen._store.insert_task(record)
    for auth in (await make_key(rig, "ada"), await make_key(rig, "eve"), rig.auth):
        await is_shown(rig, "flow-old", auth, "")


async def test_what_an_engine_printed_last_is_for_its_owner_only(rig: Rig, new_worker: NewWorker) -> None:
    worker, bob = await new_worker(), await make_key(rig, "bob")
    known = {"rustbee_id": "rustbee-1", "modelcell": "m", "location": worker.url, "slots": 1, "status": "healthy"}
    words = "it exited with code 1:\ncannot parse 'secret'"
    cry = {"rustbee_id": "rustbee-1", "code": "engine_crashed", "message": words}
    for path, body in (("/v2/swarmesh/rustbee", known), ("/callback/error", cry)):
        told = await ask_once(rig.url, "POST", path, body, rig.worker_auth("rustbee-1"))
        assert told.status == 200, told
    assert (await rig.rustbee("rustbee-1"))["error"]["message"] == words
    shown = await ask_once(rig.url, "GET", "/v2/swarmesh/rustbees", None, bob)
    assert shown.json()["rustbees"][0]["error"]["message"] == "it exited with code 1"
    shown = await ask_once(rig.url, "GET", "/v2/swarmesh/rustbees/rustbee-1", None, bob)
    assert shown.json()["error"]["message"] == "it exited with code 1"
    assert (await ask_once(rig.url, "GET", "/v2/swarmesh/alarms", None, bob)).status == 403
