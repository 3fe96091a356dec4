"""The client for ordinary programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from functools import partial
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

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


class TokenStream:
    """Iterates over `Token` and, last, `Done`. Leaving it early closes the connection; the task goes on."""

    def __init__(self, http: httpx.Client, find: Callable[[], Endpoint], cursor: StreamCursor) -> None:
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

    def close(self) -> None:
        """Close the connection."""
        self._events.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _events(http: httpx.Client, find: Callable[[], Endpoint], cursor: StreamCursor) -> Generator[Event, None, None]:
    while not cursor.ended:
        try:
            yield from _events_of_connection(http, cursor)
        except QueenUnreachableError as why:
            time.sleep(cursor.dropped(why))
            point_again(http, find)


def _events_of_connection(http: httpx.Client, cursor: StreamCursor) -> Generator[Event, None, None]:
    url, call = str(http.base_url), cursor.connect()
    with explained(url), http.stream(**request(call, STREAM_TIMEOUT)) as response:
        if response.status_code != 200:
            task_id = response.headers.get(TASK_HEADER, "")
            body = response.read()
            raise stream_refused(url, response.status_code, body, retrying=cursor.retrying, task_id=task_id)
        for data in response.iter_raw():
            yield from cursor.feed(data)
            if cursor.ended:
                return
    raise stream_cut(url)


def _method(describe: Callable[P, Call[T]]) -> Callable[Concatenate[Swarmesh, P], T]:
    def method(self: Swarmesh, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(describe(*args, **kwargs))

    document(method, describe)
    return method


def _stream_method(describe: Callable[P, StreamCall]) -> Callable[Concatenate[Swarmesh, P], TokenStream]:
    def method(self: Swarmesh, /, *args: P.args, **kwargs: P.kwargs) -> TokenStream:
        return self.open(describe(*args, **kwargs))

    document(method, describe)
    return method


def _steps_method(describe: Callable[P, StepsCall[T]]) -> Callable[Concatenate[Swarmesh, P], T]:
    def method(self: Swarmesh, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.watch(describe(*args, **kwargs))

    document(method, describe)
    return method


class Swarmesh:
    """A swarm, through its queen.

    Args:
        url: The queen; without it ``SWARMESH_URL``, else the queen of this user's home directory.
        key: The API key; without it ``SWARMESH_API_KEY``, else the home's own key.
        timeout_s: Longest wait for an answer that is no stream; such a request is never sent twice.
        reconnects: How patiently a dropped stream is taken up again. A client that took its queen from the home looks
            there again each time, so that it finds her on another port, too.

    Raises:
        QueenUnreachableError: No queen is named and none runs here. Every method may raise it, too.
        UnauthorizedError: There is no key for that queen.
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
        self._http = httpx.Client(**settings(self._find(), timeout_s))
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

    def send(self, call: Call[T]) -> T:
        """Send one request and read its answer.

        Raises:
            RemoteError: The queen reported an error.
            QueenUnreachableError: She did not answer.
        """
        with explained(str(self._http.base_url)):
            response = self._http.request(**request(call, patience(call, self._timeout_s)))
        return call.result(response.status_code, response.content, response.headers.get(TASK_HEADER, ""))

    def open(self, call: StreamCall) -> TokenStream:
        """The stream of a request; it is sent when the first event is asked for."""
        return TokenStream(self._http, self._find, StreamCursor(call, self._reconnects))

    def watch(self, steps: StepsCall[T]) -> T:
        """Send one request, hand on its steps, and return its result; errors as of `send`."""
        url, reader = str(self._http.base_url), StepsReader(steps)
        with explained(url), self._http.stream(**request(steps.call, STREAM_TIMEOUT)) as response:
            if response.status_code != 200:
                raise remote_error(response.status_code, response.read())
            for data in response.iter_raw():
                reader.feed(data)
                for result in reader.results:
                    return result
        raise steps_cut(url)

    def close(self) -> None:
        """Close kept connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
