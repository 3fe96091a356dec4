"""The client for asyncio programs; the same requests as `swarmesh.client.blocking`, awaited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from swarmesh.client import decision_routes, host_routes, key_routes, routes, scale_routes, script_routes
from swarmesh.client.call import TASK_HEADER, Call, StepsCall, StreamCall
from swarmesh.client.cursor import Reconnects, StreamCursor
from swarmesh.client.endpoint import Endpoint, find_endpoint
from swarmesh.client.events import Event, Progress
from swarmesh.client.steps import StepsReader, steps_cut
from swarmesh.client.transport import (
    STREAM_TIMEOUT,
    document,
    explained,
    patience,
    point_again,
    request,
    settings,
    stream_cut,
    stream_refused,
)
from swarmesh.core.errors import QueenUnreachableError
from swarmesh.wire.errors import remote_error

P = ParamSpec("P")
T = TypeVar("T")


class AsyncTokenStream:
    """Iterates over `Token` and, last, `Done`. Leaving it early closes the connection; the task goes on."""

    def __init__(self, http: httpx.AsyncClient, find: Callable[[], Endpoint], cursor: StreamCursor) -> None:
        self._cursor = cursor
        self._events = _events(http, find, cursor)

    @property
    def job_id(self) -> str:
        """The task's id; empty until the queen has said it, which she does before the first token."""
        return self._cursor.job_id

    def tell_progress(self, on_progress: Callable[[Progress], None]) -> Self:
        """Call back while the task waits, with what for; iterating gives tokens only."""
        self._cursor.on_progress = on_progress
        return self

    async def aclose(self) -> None:
        """Close the connection."""
        await self._events.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _events(
    http: httpx.AsyncClient, find: Callable[[], Endpoint], cursor: StreamCursor
) -> AsyncGenerator[Event, None]:
    while not cursor.ended:
        connection = _events_of_connection(http, cursor)
        try:
            async for event in connection:
                yield event
        except QueenUnreachableError as why:
            await asyncio.sleep(cursor.dropped(why))
            point_again(http, find)
        finally:
            await connection.aclose()


async def _events_of_connection(http: httpx.AsyncClient, cursor: StreamCursor) -> AsyncGenerator[Event, None]:
    url, call = str(http.base_url), cursor.connect()
    with explained(url):
        async with http.stream(**request(call, STREAM_TIMEOUT)) as response:
            if response.status_code != 200:
                task_id = response.headers.get(TASK_HEADER, "")
                body = await response.aread()
                raise stream_refused(url, response.status_code, body, retrying=cursor.retrying, task_id=task_id)
            async for data in response.aiter_raw():
                for event in cursor.feed(data):
                    yield event
                if cursor.ended:
                    return
    raise stream_cut(url)


def _method(describe: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncSwarmesh, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncSwarmesh, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(describe(*args, **kwargs))

    document(method, describe)
    return method


def _stream_method(describe: Callable[P, StreamCall]) -> Callable[Concatenate[AsyncSwarmesh, P], AsyncTokenStream]:
    def method(self: AsyncSwarmesh, /, *args: P.args, **kwargs: P.kwargs) -> AsyncTokenStream:
        return self.open(describe(*args, **kwargs))

    document(method, describe)
    return method


def _steps_method(
    describe: Callable[P, StepsCall[T]],
) -> Callable[Concatenate[AsyncSwarmesh, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncSwarmesh, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.watch(describe(*args, **kwargs))

    document(method, describe)
    return method


class AsyncSwarmesh:
    """A swarm, through its queen; arguments and errors as of `swarmesh.client.blocking.Swarmesh`.

    Every method is awaited, but `stream` and `follow`, which are iterated over with ``async for``.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 30.0,
        reconnects: Reconnects = Reconnects(),  # noqa: B008 - an immutable value
    ) -> None:
        self._find = partial(find_endpoint, url, key, dict(os.environ))
        self._http = httpx.AsyncClient(**settings(self._find(), timeout_s))
        self._timeout_s = timeout_s
        self._reconnects = reconnects

    submit = _method(routes.submit)
    stream = _stream_method(routes.stream)
    follow = _stream_method(routes.follow)
    collect = _method(routes.collect)
    show = _method(routes.show)
    list = _method(routes.list_flows)
    cancel = _method(routes.cancel)
    rustbees = _method(routes.rustbees)
    rustbee = _method(routes.rustbee)
    spawn = _method(routes.spawn)
    stop_rustbee = _method(routes.stop_rustbee)
    cut = _method(routes.cut)
    waggles = _method(routes.waggles)
    alarms = _method(routes.alarms)
    health = _method(routes.health)
    hosts = _method(host_routes.hosts)
    host = _method(host_routes.host)
    add_host = _steps_method(host_routes.add_host)
    remove_host = _steps_method(host_routes.remove_host)
    drain_host = _method(host_routes.drain_host)
    resume_host = _method(host_routes.resume_host)
    host_checks = _method(host_routes.host_checks)
    fit = _method(host_routes.fit)
    copy_model = _steps_method(host_routes.copy_model)
    scan_models = _method(host_routes.scan_models)
    policies = _method(decision_routes.policies)
    use_policy = _method(decision_routes.use_policy)
    unset_policy = _method(decision_routes.unset_policy)
    policy_script = _method(script_routes.policy_script)
    activate_script = _method(script_routes.activate_script)
    deactivate_script = _method(script_routes.deactivate_script)
    replay_script = _method(script_routes.replay_script)
    explain_task = _method(decision_routes.explain_task)
    explain_refusal = _method(decision_routes.explain_refusal)
    explain_placement = _method(decision_routes.explain_placement)
    explain_scale = _method(decision_routes.explain_scale)
    swarmscale = _method(scale_routes.swarmscale)
    swarmscale_of = _method(scale_routes.swarmscale_of)
    scale = _method(scale_routes.scale)
    unscale = _method(scale_routes.unscale)
    pause_scaling = _method(scale_routes.pause_scaling)
    resume_scaling = _method(scale_routes.resume_scaling)
    keys = _method(key_routes.keys)
    make_key = _method(key_routes.make_key)
    revoke_key = _method(key_routes.revoke_key)

    async def send(self, call: Call[T]) -> T:
        """Send one request and read its answer; errors as of the blocking client's ``send``."""
        with explained(str(self._http.base_url)):
            response = await self._http.request(**request(call, patience(call, self._timeout_s)))
        return call.result(response.status_code, response.content, response.headers.get(TASK_HEADER, ""))

    def open(self, call: StreamCall) -> AsyncTokenStream:
        """The stream of a request; it is sent when the first event is asked for."""
        return AsyncTokenStream(self._http, self._find, StreamCursor(call, self._reconnects))

    async def watch(self, steps: StepsCall[T]) -> T:
        """Send one request, hand on its steps, and return its result; errors as of `send`."""
        url, reader = str(self._http.base_url), StepsReader(steps)
        with explained(url):
            async with self._http.stream(**request(steps.call, STREAM_TIMEOUT)) as response:
                if response.status_code != 200:
                    raise remote_error(response.status_code, await response.aread())
                async for data in response.aiter_raw():
                    reader.feed(data)
                    for result in reader.results:
                        return result
        raise steps_cut(url)

    async def aclose(self) -> None:
        """Close kept connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
