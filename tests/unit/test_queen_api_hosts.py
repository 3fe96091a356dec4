"""The routes about hosts and model files, over keepers that only note what they were asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from served_api import ServedApi, serving_api
from swarmesh.core.errors import InvalidValueError, ModelNotFoundError, NotFoundError
from swarmesh.queen.api.hosts import host_routes
from swarmesh.queen.api.models import model_routes
from swarmesh.queen.api.openapi import document
from swarmesh.queen.api.route import Route
from swarmesh.queen.api.steps import OnStep, StepAnswers
from swarmesh.queen.keys import Role
from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.hosts import (
    CheckView,
    Copied,
    FitList,
    FitRequest,
    FitView,
    FoundList,
    HostAddRequest,
    HostStatus,
    HostView,
    Step,
    StepState,
)

LOCAL = HostView(name="local", address="localhost", status=HostStatus.LOCAL)
MAC = HostView(name="mac", address="mac.home.arpa", status=HostStatus.CONNECTED, rustbees=("rustbee-1",))
FIT = FitView(host="mac", memory="ram", fits=True, need_mib=9, free_mib=10, total_mib=20, file_there=False)


class Keeper:
    """Both keepers in one."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def views(self) -> list[HostView]:
        return [LOCAL, MAC]

    async def view(self, name: str) -> HostView:
        return self._known(name)

    async def add(self, request: HostAddRequest, on_step: OnStep) -> HostView:
        self.asked.append(("add", request))
        if request.address.startswith("-"):
            raise InvalidValueError(f"{request.address!r} is no host name", param="address")
        on_step(Step(step="connect", state=StepState.DONE, text="connected"))
        return MAC

    async def remove(
        self, name: str, on_step: OnStep, *, keep_models: bool, grace_s: float, forget: bool = False
    ) -> None:
        self._known(name)
        self.asked.append(("remove", name, keep_models, grace_s, forget))
        on_step(Step(step="stop", state=StepState.DONE))

    async def drain(self, name: str, grace_s: float) -> HostView:
        self.asked.append(("drain", name, grace_s))
        return self._known(name)

    async def resume(self, name: str) -> HostView:
        self.asked.append(("resume", name))
        return self._known(name)

    async def checks(self, name: str) -> list[CheckView]:
        self._known(name)
        return [CheckView(what="python", verdict="ok", found="3.12.1")]

    async def fit(self, request: FitRequest) -> FitList:
        if request.modelcell != "qwen":
            raise ModelNotFoundError(f"no modelcell is called {request.modelcell!r}")
        self.asked.append(("fit", request))
        return FitList(
            modelcell="qwen",
            slots=request.slots or 4,
            context=request.context or 2048,
            need_mib=9,
            weights_mib=5,
            kv_cache_mib=2,
            compute_mib=1,
            process_mib=1,
            hosts=[FIT],
        )

    async def copy(self, modelcell: str, to: str, on_step: OnStep) -> Copied:
        self.asked.append(("copy", modelcell, to))
        on_step(Step(step="copy", state=StepState.RUNNING, done_bytes=1, total_bytes=2))
        on_step(Step(step="copy", state=StepState.DONE, done_bytes=2, total_bytes=2))
        return Copied(
            modelcell=modelcell, host=to, path="/m.gguf", sha256="0" * 64, size_bytes=2, sent_bytes=2, source="local"
        )

    async def scan(self, host: str) -> FoundList:
        self.asked.append(("scan", host))
        return FoundList(found=[], errors={"mac": ErrorBody("host_unreachable", "it is off")})

    def _known(self, name: str) -> HostView:
        if name != "mac":
            raise NotFoundError(f"no host is called {name!r}")
        return MAC


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


def routes_of(keeper: Keeper) -> list[Route]:
    answers = StepAnswers()
    return [*host_routes(keeper, answers), *model_routes(keeper, answers)]


@pytest.fixture
async def api(keeper: Keeper) -> AsyncIterator[ServedApi]:
    async with serving_api(routes_of(keeper)) as served:
        yield served


async def test_hosts_are_listed_and_shown(api: ServedApi) -> None:
    status, listed = await api.ask("GET", "/v2/swarmesh/hosts")
    assert status == 200
    assert [(host["name"], host["status"]) for host in listed["hosts"]] == [("local", "local"), ("mac", "connected")]
    assert (await api.ask("GET", "/v2/swarmesh/hosts/mac"))[1]["rustbees"] == ["rustbee-1"]
    status, answer = await api.ask("GET", "/v2/swarmesh/hosts/nobody")
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert (await api.ask("GET", "/v2/swarmesh/hosts/mac/checks"))[1]["checks"][0]["what"] == "python"


async def test_adding_tells_its_steps(api: ServedApi, keeper: Keeper) -> None:
    asked = {"address": "mac.home.arpa", "user": "bee", "port": 2222, "proximity": 0.9}
    status, events = await api.ask("POST", "/v2/swarmesh/hosts", asked)
    assert status == 200
    assert [(name, data.get("name") or data["text"]) for name, data in events] == [
        ("step", "connected"),
        ("done", "mac"),
    ]
    assert keeper.asked == [("add", HostAddRequest(address="mac.home.arpa", user="bee", port=2222, proximity=0.9))]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"address": ""},
        {"address": "x" * 256},
        {"address": "mac", "port": 65536},
        {"address": "mac", "proximity": 1.5},
        {"address": "mac", "name": "x" * 33},
        {"address": "mac", "command": "rm"},
        {"address": "-oProxyCommand=true"},
    ],
    ids=str,
)
async def test_what_is_no_host(api: ServedApi, body: Any) -> None:
    status, answer = await api.ask("POST", "/v2/swarmesh/hosts", body)
    assert (status, answer["error"]["code"]) == (400, "invalid_value")


async def test_removing(api: ServedApi, keeper: Keeper) -> None:
    status, events = await api.ask("DELETE", "/v2/swarmesh/hosts/mac?keep_models=true&grace_s=5")
    assert (status, [name for name, _ in events], events[-1][1]) == (200, ["step", "done"], {})
    await api.ask("DELETE", "/v2/swarmesh/hosts/mac?forget=true")
    assert keeper.asked == [("remove", "mac", True, 5.0, False), ("remove", "mac", False, 30.0, True)]
    assert (await api.ask("DELETE", "/v2/swarmesh/hosts/nobody"))[0] == 404


@pytest.mark.parametrize("query", ["keep_models=perhaps", "grace_s=-1", "grace_s=nan", "grace_s=x", "grace_s=3601"])
async def test_what_a_removal_does_not_take(api: ServedApi, keeper: Keeper, query: str) -> None:
    status, answer = await api.ask("DELETE", f"/v2/swarmesh/hosts/mac?{query}")
    assert (status, answer["error"]["code"]) == (400, "invalid_value")
    assert answer["error"]["param"] == query.partition("=")[0]
    assert keeper.asked == []


async def test_draining_and_resuming(api: ServedApi, keeper: Keeper) -> None:
    assert (await api.ask("POST", "/v2/swarmesh/hosts/mac/drain?grace_s=0"))[0] == 202
    assert (await api.ask("POST", "/v2/swarmesh/hosts/mac/resume"))[1]["name"] == "mac"
    assert keeper.asked == [("drain", "mac", 0.0), ("resume", "mac")]


async def test_fit_copy_and_scan(api: ServedApi, keeper: Keeper) -> None:
    status, fit = await api.ask("POST", "/v2/swarmesh/models/fit", {"modelcell": "qwen", "slots": 2})
    assert (status, fit["slots"], fit["hosts"][0]["fits"]) == (200, 2, True)
    status, events = await api.ask("POST", "/v2/swarmesh/models/copy", {"modelcell": "qwen", "to": "mac"})
    assert (status, events[0][1]["done_bytes"], events[-1][1]["path"]) == (200, 2, "/m.gguf")
    status, found = await api.ask("POST", "/v2/swarmesh/models/scan", {"host": "mac"})
    assert (status, found["errors"]["mac"]["code"]) == (200, "host_unreachable")
    await api.ask("POST", "/v2/swarmesh/models/scan", {})
    assert keeper.asked[1:] == [("copy", "qwen", "mac"), ("scan", "mac"), ("scan", "")]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("fit", {"modelcell": ""}, "invalid_value"),
        ("fit", {"modelcell": "qwen", "slots": 0}, "invalid_value"),
        ("fit", {"modelcell": "other"}, "model_not_found"),
        ("copy", {"modelcell": "qwen", "to": "../mac"}, "invalid_value"),
        ("copy", {"modelcell": "qwen"}, "invalid_value"),
        ("scan", {"hosts": "mac"}, "invalid_value"),
    ],
    ids=str,
)
async def test_what_models_do_not_take(api: ServedApi, path: str, body: Any, code: str) -> None:
    _, answer = await api.ask("POST", f"/v2/swarmesh/models/{path}", body)
    assert answer["error"]["code"] == code


@pytest.mark.parametrize("role", [Role.CLIENT, Role.WORKER])
async def test_only_an_admin_changes_anything(api: ServedApi, keeper: Keeper, role: Role) -> None:
    api.role = role
    for route in routes_of(keeper):
        status, answer = await api.ask(route.method, route.path.replace("{name}", "mac"), {})
        looks = role is Role.CLIENT and route.method == "GET" and not route.path.endswith("checks")
        assert (status == 200) if looks else (status, answer["error"]["code"]) == (403, "forbidden"), route
    assert keeper.asked == []


def test_the_document_knows_them(keeper: Keeper) -> None:
    described = document(routes_of(keeper))
    added = described["paths"]["/v2/swarmesh/hosts"]["post"]["responses"]["200"]["content"]
    kinds = [kind["$ref"].rpartition("/")[2] for kind in added["text/event-stream"]["schema"]["anyOf"]]
    assert kinds == ["Step", "HostView", "ErrorEnvelope"]
    assert set(kinds) <= described["components"]["schemas"].keys()
    shown = described["paths"]["/v2/swarmesh/hosts/{name}"]["get"]
    assert [parameter["name"] for parameter in shown["parameters"]] == ["name"]
    assert "application/json" in shown["responses"]["200"]["content"]
