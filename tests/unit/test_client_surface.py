"""Both clients, blocking and asynchronous, pass this one suite."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_queen import (
    DROP,
    KEY,
    FakeQueen,
    accepted,
    done,
    error,
    failed,
    flow,
    progress,
    running_queen,
    rustbee,
    token,
)
from swarmesh.client import AsyncSwarmesh, Done, Progress, QueenUnreachableError, RemoteError, Swarmesh, Token
from swarmesh.client.call import UnexpectedAnswerError
from swarmesh.client.cursor import Reconnects
from swarmesh.core.errors import SwarmeshError

AT_ONCE = Reconnects(times=3, first_wait_s=0.0)
Ask = Callable[..., Any]


class Blocking:
    """Calls the blocking client."""

    def __init__(self, url: str, **more: Any) -> None:
        self.arguments = {"url": url, "key": KEY, "reconnects": AT_ONCE, **more}

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        with Swarmesh(**self.arguments) as swarm:
            return getattr(swarm, name)(*args, **kwargs)

    def events(
        self, name: str, *args: Any, on_progress: Callable[[Progress], None] | None = None, **kwargs: Any
    ) -> tuple[list[Any], str, SwarmeshError | None]:
        got: list[Any] = []
        with Swarmesh(**self.arguments) as swarm, getattr(swarm, name)(*args, **kwargs) as stream:
            if on_progress is not None:
                stream.tell_progress(on_progress)
            try:
                got.extend(stream)
            except SwarmeshError as raised:
                return got, stream.job_id, raised
            return got, stream.job_id, None


class Asynchronous(Blocking):
    """Calls the asynchronous client in the same words."""

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            async with AsyncSwarmesh(**self.arguments) as swarm:
                return await getattr(swarm, name)(*args, **kwargs)

        return asyncio.run(run())

    def events(
        self, name: str, *args: Any, on_progress: Callable[[Progress], None] | None = None, **kwargs: Any
    ) -> tuple[list[Any], str, SwarmeshError | None]:
        async def run() -> tuple[list[Any], str, SwarmeshError | None]:
            got: list[Any] = []
            async with AsyncSwarmesh(**self.arguments) as swarm, getattr(swarm, name)(*args, **kwargs) as stream:
                if on_progress is not None:
                    stream.tell_progress(on_progress)
                try:
                    async for event in stream:
                        got.append(event)  # noqa: PERF401 - what came before an error is looked at, too
                except SwarmeshError as raised:
                    return got, stream.job_id, raised
                return got, stream.job_id, None

        return asyncio.run(run())


@pytest.fixture
def queen() -> Iterator[FakeQueen]:
    with running_queen() as queen:
        yield queen


@pytest.fixture(params=[Blocking, Asynchronous])
def client(request: pytest.FixtureRequest, queen: FakeQueen) -> Blocking:
    return request.param(queen.url)


def text_of(events: list[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def test_submit_sends_what_was_said_and_nothing_else(client: Blocking, queen: FakeQueen) -> None:
    assert client.call("submit", "Hello", modelcell="demo", max_tokens=5, seed=None, priority="high") == "job-1"
    assert queen.seen[0].body == {
        "prompt": "Hello",
        "modelcell": "demo",
        "max_tokens": 5,
        "priority": "high",
        "stream": False,
    }


def test_submit_takes_messages_and_any_input(client: Blocking, queen: FakeQueen) -> None:
    client.call("submit", messages=[{"role": "user", "content": "Hi"}], stop=["\n"])
    client.call("submit", input=None, modelcell="mine")
    assert queen.seen[0].body == {"messages": [{"role": "user", "content": "Hi"}], "stop": ["\n"], "stream": False}
    assert queen.seen[1].body == {"input": None, "modelcell": "mine", "stream": False}


def test_stream_gives_tokens_then_done(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [[accepted(), b": ping\n\n", token(1, "Hel"), token(2, "lo"), done()]]
    events, job_id, raised = client.events("stream", "Hello")
    assert raised is None
    assert events[:2] == [Token("Hel", 1), Token("lo", 2)]
    assert isinstance(events[2], Done)
    assert events[2].usage.completion_tokens == 2
    assert job_id == "job-1"
    assert queen.seen[0].headers["accept"] == "text/event-stream"


def test_a_stream_that_waits_gives_tokens_only_and_tells_its_progress(client: Blocking, queen: FakeQueen) -> None:
    waiting = progress("loading", since_s=1.5, expected_s=9.0), progress("loading", since_s=3.5)
    queen.streams = [[accepted(), waiting[0], b"event: news\ndata: {}\n\n", waiting[1], token(1, "Hi"), done()]]
    told: list[Progress] = []
    events, _, raised = client.events("stream", "Hello", on_progress=told.append)
    assert raised is None
    assert [type(event) for event in events] == [Token, Done]
    assert [(each.since_s, each.expected_s) for each in told] == [(1.5, 9.0), (3.5, None)]
    assert (told[0].phase, told[0].message) == ("loading", "demo is loading")
    queen.streams = [[accepted(), *waiting, token(1, "Hi"), done()]]
    assert text_of(client.events("stream", "Hello")[0]) == "Hi", "nobody has to listen"


def test_a_stream_that_waits_comes_back_to_the_last_token(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [
        [accepted(), token(1, "one "), progress("seeking"), DROP],
        [progress("loading"), token(2, "two"), done()],
    ]
    events, _, raised = client.events("stream", "Count.")
    assert raised is None
    assert text_of(events) == "one two"
    (resumed,) = queen.requests("GET", "/v2/swarmesh/honeytokens/job-1")
    assert resumed.headers["last-event-id"] == "1"


def test_stream_reads_bytes_and_values(client: Blocking, queen: FakeQueen) -> None:
    image = token(1, "", media_type="image/png", base64="iVBORw==")
    queen.streams = [[accepted(), image, token(2, "", value={"words": 3}), done()]]
    events, _, raised = client.events("stream", input={"size": 8})
    assert raised is None
    assert events[0] == Token("", 1, "image/png", b"\x89PNG")
    assert events[1].value == {"words": 3}


def test_a_dropped_stream_goes_on_after_the_last_token(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [
        [accepted(), token(1, "one "), DROP],
        [token(1, "one "), token(2, "two "), DROP],
        [token(3, "three"), done(tokens=3)],
    ]
    events, _, raised = client.events("stream", "Count.")
    assert raised is None
    assert text_of(events) == "one two three"
    resumed = queen.requests("GET", "/v2/swarmesh/honeytokens/job-1")
    assert [seen.headers["last-event-id"] for seen in resumed] == ["1", "2"]
    assert len(queen.requests("POST", "/v2/swarmesh/nectarflow")) == 1


def test_a_stream_that_ends_without_done_is_not_taken_for_whole(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [[accepted(), token(1, "one ")], [token(2, "two"), done()]]
    events, _, raised = client.events("stream", "Count.")
    assert raised is None
    assert text_of(events) == "one two"


def test_reconnects_are_limited(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [[accepted(), token(1, "one"), DROP], [DROP], [DROP], [DROP], [done()]]
    events, _, raised = client.events("stream", "Count.")
    assert text_of(events) == "one"
    assert isinstance(raised, QueenUnreachableError)
    assert "job-1 broke after token 1, 3 reconnects" in raised.message
    assert "job-1" in raised.hint
    assert queen.streams == [[done()]]


def test_progress_renews_the_reconnects(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [[accepted(), token(1, "a"), DROP], *([token(n, "a"), DROP] for n in range(2, 8)), [done()]]
    events, _, raised = client.events("stream", "Count.")
    assert raised is None
    assert text_of(events) == "a" * 7


def test_a_submission_that_broke_before_its_id_is_sent_again_under_its_key(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [[DROP], [DROP], [accepted(), token(1, "one"), done()]]
    events, job_id, raised = client.events("stream", "Hello")
    assert raised is None
    assert (text_of(events), job_id) == ("one", "job-1")
    keys = {seen.headers["idempotency-key"] for seen in queen.requests("POST", "/v2/swarmesh/nectarflow")}
    assert (len(queen.seen), len(keys)) == (3, 1)
    queen.streams = [[accepted(), done()]]
    client.events("stream", "Hello")
    assert queen.seen[-1].headers["idempotency-key"] not in keys


def test_a_submission_whose_fate_stays_unknown(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [[DROP]] * 4
    events, job_id, raised = client.events("stream", "Hello")
    assert (events, job_id) == ([], "")
    assert isinstance(raised, QueenUnreachableError)
    assert "before the task's id was known, 3 reconnects" in raised.message
    assert "nectarflow list" in raised.hint


def test_the_callers_own_idempotency_key(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [[accepted(), done()]]
    client.events("stream", "Hello", idempotency_key="mine")
    client.call("submit", "Hello", idempotency_key="mine")
    client.call("submit", "Hello")
    assert [seen.headers.get("idempotency-key") for seen in queen.seen] == ["mine", "mine", None]
    assert all("idempotency_key" not in seen.body for seen in queen.seen)


def test_a_queen_that_is_busy_right_after_her_return_is_asked_again(client: Blocking, queen: FakeQueen) -> None:
    path = "/v2/swarmesh/honeytokens/job-1"
    queen.answers["GET", path] = 503, error("too_many_streams", "as many as she may")
    queen.streams = [[accepted(), token(1, "one"), DROP]]
    _, _, raised = client.events("stream", "Count.")
    assert isinstance(raised, QueenUnreachableError)
    assert "is not ready: as many as she may" in raised.message
    assert len(queen.requests("GET", path)) == 3
    _, _, raised = client.events("follow", "job-1")
    assert isinstance(raised, RemoteError)
    assert raised.code == "too_many_streams", "nothing was broken there, so it is the answer"


def test_an_error_event_is_raised_with_its_code(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [[accepted(), token(1, "Hel"), failed()]]
    events, _, raised = client.events("stream", "Hello")
    assert text_of(events) == "Hel"
    assert isinstance(raised, RemoteError)
    assert (raised.code, raised.message, raised.hint) == ("rustbee_lost", "it is gone", "send it again")


def test_a_refused_stream_is_raised_with_its_code(client: Blocking, queen: FakeQueen) -> None:
    queen.answers["POST", "/v2/swarmesh/nectarflow"] = 404, error("model_not_found", "no modelcell is called 'x'")
    _, _, raised = client.events("stream", "Hello", modelcell="x")
    assert isinstance(raised, RemoteError)
    assert (raised.code, raised.status) == ("model_not_found", 404)


def test_an_event_nobody_can_read_is_an_error(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [[accepted(), b"event: novelty\ndata: {}\n\n", b'event: token\nid: 1\ndata: {"text": 3}\n\n']]
    _, _, raised = client.events("stream", "Hello")
    assert isinstance(raised, UnexpectedAnswerError)
    assert "token" in raised.message


def test_follow_starts_after_a_token(client: Blocking, queen: FakeQueen) -> None:
    queen.streams = [[token(5, "five"), done()]]
    events, job_id, raised = client.events("follow", "job 1/x", after=4)
    assert raised is None
    assert (text_of(events), job_id) == ("five", "job-1")
    assert queen.seen[0].path == "/v2/swarmesh/honeytokens/job%201%2Fx"
    assert queen.seen[0].query == {"after": "4"}


def test_collect_show_list_and_cancel(client: Blocking, queen: FakeQueen) -> None:
    queen.flows["job-2"] = flow("job-2", status="running", finished_at=None, usage=None)
    assert client.call("collect", "job-1").text == "Hello."
    assert client.call("show", "job-2").status == "running"
    assert [view.job_id for view in client.call("list")] == ["job-1", "job-2"]
    assert [view.job_id for view in client.call("list", status="running", limit=7)] == ["job-2"]
    assert queen.seen[-1].query == {"status": "running", "limit": "7"}
    assert client.call("cancel", "job-2").status == "cancelled"


def test_workers(client: Blocking, queen: FakeQueen) -> None:
    spawned = client.call("spawn", "demo", type="cpu", gpu=0, slots=2)
    assert spawned.rustbee_id == "rustbee-1"
    assert queen.seen[0].body == {"type": "cpu", "modelcell": "demo", "gpu": 0, "slots": 2}
    assert client.call("rustbee", "rustbee-1").status == "starting"
    assert [view.status for view in client.call("rustbees")] == ["healthy"]
    assert client.call("waggles")[0].waggle_rtt_ms == 1.5
    assert client.call("health").modelcells == ["demo"]
    assert client.call("stop_rustbee", "rustbee-1", grace_s=5) is None
    assert queen.seen[-1].query == {"grace_s": "5"}
    assert client.call("rustbees") == []
    queen.alarms = [{"rustbee_id": "rustbee-1", "code": "engine_died", "message": "signal 9", "at": 1.0}]
    assert client.call("alarms")[0].code == "engine_died"


def test_a_dead_worker_says_why(client: Blocking, queen: FakeQueen) -> None:
    why = error("engine_start_failed", "no GPU")["error"]
    queen.rustbees["rustbee-1"] = rustbee("rustbee-1", status="dead", error=why)
    view = client.call("rustbee", "rustbee-1")
    assert view.error is not None
    assert view.error.code == "engine_start_failed"


def test_a_wrong_key_is_a_remote_error(client: Blocking, queen: FakeQueen) -> None:
    client.arguments["key"] = "wrong"
    with pytest.raises(RemoteError) as caught:
        client.call("health")
    assert (caught.value.code, caught.value.status) == ("invalid_api_key", 401)


def test_an_answer_that_is_no_json(client: Blocking, queen: FakeQueen) -> None:
    queen.answers["GET", "/v2/swarmesh/health"] = 200, b"<html>a router's login page</html>"
    with pytest.raises(UnexpectedAnswerError):
        client.call("health")


def test_nobody_listens(client: Blocking, unused_port: int) -> None:
    client.arguments["url"] = f"http://127.0.0.1:{unused_port}"
    with pytest.raises(QueenUnreachableError, match="no queennode answers at"):
        client.call("health")
    _, _, raised = client.events("stream", "Hello")
    assert isinstance(raised, QueenUnreachableError)


def test_the_twins_have_the_same_methods_with_the_same_parameters() -> None:
    def surface(of: type) -> dict[str, list[str]]:
        public = {name: value for name, value in vars(of).items() if not name.startswith("_") and callable(value)}
        return {name: list(inspect.signature(value).parameters) for name, value in public.items()}

    ours, theirs = surface(Swarmesh), surface(AsyncSwarmesh)
    theirs["close"] = theirs.pop("aclose")
    assert ours == theirs
    assert Swarmesh.spawn.__doc__ == AsyncSwarmesh.spawn.__doc__


@pytest.fixture
def unused_port() -> Iterator[int]:
    """Nobody listens there, and nobody can meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SWARMESH_URL", "SWARMESH_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SWARMESH_HOME", str(tmp_path))


@pytest.mark.parametrize("how", [Blocking, Asynchronous])
def test_a_queen_who_takes_too_long_is_not_said_to_be_down(queen: FakeQueen, how: type[Blocking]) -> None:
    queen.answers["GET", "/v2/swarmesh/health"] = [threading.Event()]
    with pytest.raises(QueenUnreachableError) as caught:
        how(queen.url, timeout_s=0.2).call("health")
    assert "took too long (ReadTimeout)" in caught.value.message
    assert "swarmesh up" not in caught.value.hint
    assert "may still be going on" in caught.value.hint


def test_policies_and_explanations(client: Blocking, queen: FakeQueen) -> None:
    view = {"name": "swarm", "description": "soonest done", "active": True, "modelcells": ["demo"]}
    path = "/v2/swarmesh/policies"
    queen.answers["GET", path] = queen.answers["PUT", path] = (200, {"policies": [view]})
    (listed,) = client.call("policies")
    assert (listed.name, listed.active, listed.modelcells) == ("swarm", True, ("demo",))
    assert client.call("use_policy", "swarm", modelcell="demo") == [listed]
    assert client.call("unset_policy", "demo") == [listed]
    assert queen.requests("PUT", path)[0].body == {"policy": "swarm", "modelcell": "demo"}
    with pytest.raises(RemoteError) as raised:
        client.call("explain_task", "a/b")
    assert raised.value.code == "not_found"
    assert queen.seen[-1].path == "/v2/swarmesh/explain/task/a%2Fb"
