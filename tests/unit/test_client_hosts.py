"""Hosts and model files through both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from fake_queen import DROP, KEY, FakeQueen, copied, error, failed, finished, host, running_queen, step
from swarmesh.client import AsyncSwarmesh, HostView, QueenUnreachableError, RemoteError, Step, Swarmesh
from swarmesh.client.call import SLOW_TIMEOUT_S, Call, UnexpectedAnswerError
from swarmesh.client.transport import patience

HOSTS = "/v2/swarmesh/hosts"


def blocking(url: str, name: str, *args: Any, **kwargs: Any) -> Any:
    with Swarmesh(url, KEY) as swarm:
        return getattr(swarm, name)(*args, **kwargs)


def awaited(url: str, name: str, *args: Any, **kwargs: Any) -> Any:
    async def run() -> Any:
        async with AsyncSwarmesh(url, KEY) as swarm:
            return await getattr(swarm, name)(*args, **kwargs)

    return asyncio.run(run())


class Client:
    """One of the two clients, and the steps it told of."""

    def __init__(self, queen: FakeQueen, how: Any) -> None:
        self._queen = queen
        self._how = how
        self.steps: list[Step] = []

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._how(self._queen.url, name, *args, **kwargs)

    def steps_of(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.call(name, *args, on_step=self.steps.append, **kwargs)


@pytest.fixture
def queen() -> Iterator[FakeQueen]:
    with running_queen() as queen:
        yield queen


@pytest.fixture(params=[blocking, awaited])
def client(request: pytest.FixtureRequest, queen: FakeQueen) -> Client:
    return Client(queen, request.param)


def test_a_host_is_added_step_by_step(client: Client, queen: FakeQueen) -> None:
    view = client.steps_of("add_host", "mac.home.arpa", user="bee", fingerprint="SHA256:abc")
    assert isinstance(view, HostView)
    assert (view.name, view.gpus[0].name) == ("mac", "Apple M4")
    assert [step.step for step in client.steps] == ["key", "connect"]
    assert queen.seen[0].headers["accept"] == "text/event-stream"
    assert queen.seen[0].body == {
        "address": "mac.home.arpa",
        "name": "",
        "user": "bee",
        "port": 0,
        "identity": "",
        "fingerprint": "SHA256:abc",
    }
    assert client.call("add_host", "box").name == "box", "nobody has to look at the steps"
    client.call("add_host", "box", proximity=0.0)
    assert queen.seen[-1].body["proximity"] == 0.0


def test_hosts_are_listed_shown_drained_resumed_and_removed(client: Client, queen: FakeQueen) -> None:
    queen.hosts["mac"] = host("mac")
    assert [view.name for view in client.call("hosts")] == ["local", "mac"]
    assert client.call("host", "mac").total_mib == 16384
    assert client.call("drain_host", "mac", grace_s=5).draining
    assert queen.seen[-1].query == {"grace_s": "5"}
    assert not client.call("resume_host", "mac").draining
    assert client.steps_of("remove_host", "mac", keep_models=True, grace_s=0) is None
    assert queen.seen[-1].query == {"grace_s": "0", "keep_models": "true"}
    queen.hosts["box"] = host("box")
    client.call("remove_host", "box", forget=True)
    assert queen.seen[-1].query == {"forget": "true"}
    assert [step.step for step in client.steps] == ["uninstall"]
    with pytest.raises(RemoteError) as caught:
        client.call("remove_host", "mac")
    assert (caught.value.code, caught.value.status) == ("not_found", 404)


def test_names_do_not_lead_to_other_routes(client: Client, queen: FakeQueen) -> None:
    with pytest.raises(RemoteError):
        client.call("host", "../rustbees")
    assert queen.seen[0].path == f"{HOSTS}/..%2Frustbees"


def test_checks(client: Client, queen: FakeQueen) -> None:
    found = {"what": "python", "verdict": "ok", "found": "3.12.4", "hint": ""}
    queen.answers["GET", f"{HOSTS}/local/checks"] = 200, {"checks": [found]}
    (check,) = client.call("host_checks", "local")
    assert (check.what, check.verdict) == ("python", "ok")


def test_models(client: Client, queen: FakeQueen) -> None:
    assert client.call("fit", "qwen", slots=2).hosts[0].fits
    assert queen.seen[-1].body == {"modelcell": "qwen", "slots": 2, "context": None}
    assert client.steps_of("copy_model", "qwen", "mac").path == "/m/qwen.gguf"
    assert (queen.seen[-1].body, client.steps[0].done_bytes) == ({"modelcell": "qwen", "to": "mac"}, 8)
    assert client.call("scan_models").found == []
    assert client.call("scan_models", "mac").errors == {}
    assert [seen.body for seen in queen.seen[-2:]] == [{"host": ""}, {"host": "mac"}]


def test_an_error_at_the_end_is_raised_with_its_code(client: Client, queen: FakeQueen) -> None:
    queen.answers["POST", HOSTS] = [step("key"), failed("host_unreachable", "it is off", "switch it on")]
    with pytest.raises(RemoteError) as caught:
        client.steps_of("add_host", "mac")
    assert (caught.value.code, caught.value.hint) == ("host_unreachable", "switch it on")
    assert len(client.steps) == 1


def test_an_error_at_once_has_its_status(client: Client, queen: FakeQueen) -> None:
    queen.answers["POST", HOSTS] = 400, error("invalid_value", "'a b' is no host name")
    with pytest.raises(RemoteError) as caught:
        client.call("add_host", "a b")
    assert (caught.value.code, caught.value.status) == ("invalid_value", 400)


@pytest.mark.parametrize("script", [[step("key"), DROP], [step("key")]])
def test_a_stream_without_its_end_is_no_success_and_is_not_sent_again(
    client: Client, queen: FakeQueen, script: Any
) -> None:
    queen.answers["POST", "/v2/swarmesh/models/copy"] = script
    with pytest.raises(QueenUnreachableError):
        client.call("copy_model", "qwen", "mac")
    assert len(queen.seen) == 1


def test_pings_and_kinds_of_tomorrow_are_passed_over(client: Client, queen: FakeQueen) -> None:
    script = [b": ping\n", b": ping\n", step("key"), b"event: novelty\ndata: {}\n\n", b": ping\n"]
    queen.answers["POST", "/v2/swarmesh/models/copy"] = [*script, finished(copied("qwen", "mac"))]
    assert client.steps_of("copy_model", "qwen", "mac").host == "mac"
    assert len(client.steps) == 1


@pytest.mark.parametrize("event", [b"event: step\ndata: {}\n\n", b"event: done\ndata: []\n\n"])
def test_what_nobody_can_read_is_an_error(client: Client, queen: FakeQueen, event: bytes) -> None:
    queen.answers["POST", HOSTS] = [event]
    with pytest.raises(UnexpectedAnswerError):
        client.call("add_host", "mac")


def test_requests_that_ask_other_machines_get_more_time() -> None:
    def call(*, slow: bool) -> Call[bytes]:
        return Call("GET", "/", bytes, slow=slow)

    assert patience(call(slow=False), 30.0).read == 30.0
    assert patience(call(slow=True), 30.0).read == SLOW_TIMEOUT_S
    assert patience(call(slow=True), 600.0).read == 600.0
    assert patience(call(slow=True), 600.0).connect == 5.0
