"""Nectarflows from outside: submitted, followed, waited for."""

from __future__ import annotations

import json
from typing import Any

from queen_rig import FLOW, TOKENS, Rig
from raw_client import RawConnection
from scripted_worker import Call
from swarmesh.wire.sse import SseEvent


async def follow(rig: Rig, job_id: str, after: str = "", headers: dict[str, str] | None = None) -> RawConnection:
    """A connection that follows a task; its head is read."""
    connection = await rig.connect()
    lines = {**rig.auth, "accept": "text/event-stream", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    connection.send(f"GET {TOKENS}/{job_id}{after} HTTP/1.1\r\nhost: t\r\n{head}\r\n".encode())
    answer = await connection.read_head()
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return connection


async def events_of(connection: RawConnection) -> list[SseEvent]:
    return [event async for event in connection.events()]


def texts(events: list[SseEvent]) -> list[tuple[int | None, str]]:
    return [(event.seq, json.loads(event.data)["text"]) for event in events if event.name == "token"]


async def submitted(rig: Rig, **fields: Any) -> str:
    answer = await rig.ask("POST", FLOW, {"prompt": "hi", **fields})
    assert answer.status == 202, answer
    assert set(answer.json()) == {"job_id", "status"}
    return str(answer.json()["job_id"])


async def done(rig: Rig, job_id: str) -> dict[str, Any]:
    """What the task is in the end."""
    await events_of(await follow(rig, job_id))
    shown: dict[str, Any] = await rig.json("GET", f"{FLOW}/{job_id}")
    return shown


def streams(call: Call, *pieces: str) -> None:
    call.tokens(*pieces)
    call.end()
