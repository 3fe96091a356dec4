"""The queen's end of a session, against a line that says what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from swarmesh.core.errors import ConflictError, SwarmeshError
from swarmesh.hosts import session_client
from swarmesh.hosts.host import HostFacts
from swarmesh.hosts.session_client import SessionClient
from swarmesh.hosts.ssh_errors import HostLostError, HostSetupError, HostSlowError
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.session import PROTOCOL, Call, Hello, Opening, Purpose

OPENING = Opening(purpose=Purpose.SESSION, hive="0123456789ab", host="mac", secret="00")


class Line:
    """Stands for a `RemoteProcess`: what is sent is taken down, what is said is read."""

    def __init__(self, protocol: int = PROTOCOL, queen_socket: str = "/q.sock") -> None:
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self.opening = b""
        self.killed = False
        self._said: asyncio.Queue[bytes | SwarmeshError] = asyncio.Queue()
        hello = Hello(protocol=protocol, version="1", pid=1, boot_id="b", queen_socket=queen_socket)
        self._said.put_nowait(msgspec.json.encode(hello))

    def say(self, **reply: Any) -> None:
        self._said.put_nowait(msgspec.json.encode(reply))

    def end(self, error: SwarmeshError) -> None:
        self._said.put_nowait(error)

    async def send(self, data: bytes) -> None:
        assert data.endswith(b"\n")
        if not self.opening:
            self.opening = data
        else:
            call = msgspec.json.decode(data, type=Call)
            if call.call != "ping":
                self.calls.put_nowait(call)

    async def read(self, type: Any) -> Any:  # noqa: A002 - as `RemoteProcess` has it
        said = await self._said.get()
        if isinstance(said, SwarmeshError):
            raise said
        return msgspec.json.decode(said, type=type)

    def kill(self) -> None:
        self.killed = True
        self.end(HostLostError("it was killed"))


@asynccontextmanager
async def opened(line: Line) -> AsyncIterator[tuple[SessionClient, asyncio.Task[SwarmeshError]]]:
    client = await SessionClient.open(line, OPENING)
    running = asyncio.create_task(client.run())
    yield client, running
    line.end(HostLostError("the test is over"))
    await running


async def test_it_begins_with_what_the_connection_is_for() -> None:
    line = Line()
    async with opened(line) as (client, _):
        assert msgspec.json.decode(line.opening, type=Opening) == OPENING
        assert client.hello.queen_socket == "/q.sock"


async def test_another_protocol_is_refused() -> None:
    with pytest.raises(HostSetupError, match=f"protocol {PROTOCOL + 1}"):
        await SessionClient.open(Line(PROTOCOL + 1), OPENING)


async def test_calls_are_answered_in_any_order() -> None:
    line = Line()
    async with opened(line) as (client, _):
        first = asyncio.create_task(client.call("wait_exit", {"worker_id": "rustbee-1"}, object))
        second = asyncio.create_task(client.call("find", {"n": 2}, int))
        calls = [await line.calls.get(), await line.calls.get()]
        assert [call.call for call in calls] == ["wait_exit", "find"]
        assert msgspec.json.decode(calls[0].args) == {"worker_id": "rustbee-1"}
        line.say(id=calls[1].id, result=7)
        assert await second == 7
        assert not first.done()
        line.say(id=calls[0].id, result=None)
        assert await first is None


async def test_notes_of_progress_come_before_the_result() -> None:
    line, notes = Line(), []
    async with opened(line) as (client, _):
        calling = asyncio.create_task(client.call("identify", {}, str, notes.append))
        call = await line.calls.get()
        line.say(id=call.id, progress={"done_bytes": 1})
        line.say(id=call.id, progress={"done_bytes": 2})
        line.say(id=call.id, result="done")
        assert await calling == "done"
        assert notes == [b'{"done_bytes":1}', b'{"done_bytes":2}']


async def test_errors_keep_their_code_and_where_it_matters_their_type() -> None:
    line = Line()
    async with opened(line) as (client, _):
        for code, kind in (("conflict", ConflictError), ("host_disk_full", RemoteError)):
            calling = asyncio.create_task(client.call("spawn", {}, object))
            call = await line.calls.get()
            line.say(id=call.id, status=507, error={"code": code, "message": "no", "hint": "do", "param": "p"})
            with pytest.raises(kind) as caught:
                await calling
            error = caught.value
            assert (error.code, error.message, error.hint, error.param) == (code, "no", "do", "p")
        assert error.status == 507


async def test_an_answer_that_is_something_else_is_an_error() -> None:
    line = Line()
    async with opened(line) as (client, _):
        calling = asyncio.create_task(client.call("find", {}, int))
        line.say(id=(await line.calls.get()).id, result="seven")
        with pytest.raises(HostSetupError, match="find"):
            await calling


async def test_answers_that_nobody_waits_for_are_passed_over() -> None:
    line = Line()
    async with opened(line) as (client, _):
        calling = asyncio.create_task(client.call("find", {}, int))
        call = await line.calls.get()
        calling.cancel()
        line.say(id=call.id, result=1)
        line.say(id=999, result=1)
        line.say(id=0, error={"code": "c", "message": "m"})
        again = asyncio.create_task(client.call("find", {}, int))
        line.say(id=(await line.calls.get()).id, result=2)
        assert await again == 2


async def test_all_calls_fail_when_the_line_ends() -> None:
    line = Line()
    async with opened(line) as (client, running):
        calls = [asyncio.create_task(client.call("wait_exit", {}, object)) for _ in range(3)]
        for _ in calls:
            await line.calls.get()
        line.end(SwarmeshError("the network is gone"))
        assert (await running).code == "host_lost"
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [HostLostError] * 3
        assert len({id(error) for error in errors}) == 3
        with pytest.raises(HostLostError, match="the network is gone"):
            await client.call("probe", {}, object)


async def test_a_session_that_answers_no_ping_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_client, "PING_INTERVAL_S", 0.001)
    monkeypatch.setattr(session_client, "PING_WAIT_S", 0.01)
    line = Line()
    async with opened(line) as (client, running):
        waiting = asyncio.create_task(client.call("wait_exit", {}, object))
        lost = await running
        assert line.killed
        assert "no ping" in lost.message
        with pytest.raises(HostLostError, match="no ping"):
            await waiting


async def test_a_host_that_does_not_begin_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_client, "HELLO_WAIT_S", 0.01)
    line = Line()
    await line.read(Hello)
    with pytest.raises(HostLostError, match="did not begin"):
        await SessionClient.open(line, OPENING)


async def test_calls_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_client, "CALLS_MAX", 1)
    line = Line()
    async with opened(line) as (client, _):
        waiting = asyncio.create_task(client.call("wait_exit", {}, object))
        await line.calls.get()
        with pytest.raises(ConflictError, match="1 calls to mac"):
            await client.call("probe", {}, object)
        waiting.cancel()


@pytest.mark.parametrize("place", ["", "q.sock", "/q\0.sock", "/q\n", "/q\x1b[2J", "unix:/q"])
async def test_a_host_whose_socket_has_no_place_is_refused(place: str) -> None:
    with pytest.raises(HostSetupError, match="as the queen's socket") as caught:
        await SessionClient.open(Line(queen_socket=place), OPENING)
    assert "\x1b" not in caught.value.message


async def test_an_answer_that_is_late_is_an_error_and_the_session_goes_on() -> None:
    line = Line()
    async with opened(line) as (client, running):
        calling = asyncio.create_task(client.call("probe", {}, int, limit_s=0.01))
        late = await line.calls.get()
        with pytest.raises(HostSlowError, match=r"mac did not answer probe within 0\.01 s") as caught:
            await calling
        assert caught.value.passing
        line.say(id=late.id, result=1)
        again = asyncio.create_task(client.call("find", {}, int))
        line.say(id=(await line.calls.get()).id, result=2)
        assert await again == 2
        assert not running.done()


@pytest.mark.parametrize("name", ["probe", "workers", "tail", "spawn", "linked", "find", "header", "path_of"])
async def test_each_call_has_its_limit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_client, "CALL_LIMIT_S", 0.01)
    async with opened(Line()) as (client, _):
        with pytest.raises(HostSlowError, match=name):
            await client.call(name, {}, object)


async def test_what_takes_its_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name for name, limit_s in session_client.LIMITS_S.items() if limit_s is None} == {
        "wait_exit",
        "identify",
        "keep",
    }
    monkeypatch.setattr(session_client, "CALL_LIMIT_S", 0.001)
    line = Line()
    async with opened(line) as (client, _):
        waiting = asyncio.create_task(client.call("wait_exit", {}, object))
        asked = await line.calls.get()
        with pytest.raises(HostSlowError):
            await client.call("find", {}, object)
        assert not waiting.done()
        line.say(id=asked.id, result=None)
        await waiting


@pytest.mark.parametrize("wrong", [ValueError("no"), TypeError("no"), IndexError("no"), msgspec.ValidationError("no")])
async def test_a_note_that_cannot_be_understood_ends_its_call_and_no_other(wrong: Exception) -> None:
    def take(_note: bytes) -> None:
        raise wrong

    line = Line()
    async with opened(line) as (client, running):
        calling = asyncio.create_task(client.call("identify", {}, object, take))
        call = await line.calls.get()
        line.say(id=call.id, progress={"percent": 7})
        with pytest.raises(HostSetupError, match="progress"):
            await calling
        line.say(id=call.id, progress={"percent": 8})
        again = asyncio.create_task(client.call("find", {}, int))
        line.say(id=(await line.calls.get()).id, result=2)
        assert await again == 2
        assert not running.done()


async def test_texts_for_people_steer_no_terminal_and_paths_stay_paths() -> None:
    layout = {"root": "/r", "workers_dir": "/w", "sockets_dir": "/s", "queen_file": "/q"}
    facts = {"name": "a\x1b[2J", "total_mib": 1, "available_mib": 1, "cpu_cores": 1, "layout": layout}
    line = Line()
    async with opened(line) as (client, _):
        probing = asyncio.create_task(client.call("probe", {}, HostFacts))
        line.say(id=(await line.calls.get()).id, result=facts)
        assert (await probing).name == "a [2J"
        finding = asyncio.create_task(client.call("find", {}, str))
        line.say(id=(await line.calls.get()).id, result="/a\tb")
        assert await finding == "/a\tb"
        spawning = asyncio.create_task(client.call("spawn", {}, object))
        error = {"code": "Not A Word", "message": "m\x1b", "hint": "h\x07" * 5_000, "param": "p"}
        line.say(id=(await line.calls.get()).id, status=200, error=error)
        with pytest.raises(RemoteError) as caught:
            await spawning
        assert (caught.value.code, caught.value.message, caught.value.status) == ("unexpected_answer", "m", 502)
        assert len(caught.value.hint) < 1_100
