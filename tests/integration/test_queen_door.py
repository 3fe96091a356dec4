"""Who gets in, and how a no sounds: every route, one envelope, one connection for everything."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queen_rig import CHAT, FLOW, RUSTBEES, TOKENS, Rig, chat
from raw_client import ask_once
from scripted_worker import ScriptedWorker

NewWorker = Callable[..., Awaitable[ScriptedWorker]]

HOT = [CHAT, "/v1/completions", "/v1/embeddings"]
SOME_PATHS = [
    ("GET", "/v2/swarmesh/health"),
    ("GET", "/openapi.json"),
    ("GET", "/"),
    ("GET", "/no/such/path"),
    ("POST", CHAT),
    ("GET", CHAT),
    ("POST", FLOW),
    ("GET", f"{TOKENS}/x"),
    ("HEAD", f"{TOKENS}/x"),
    ("OPTIONS", "*"),
    ("PATCH", "/pot"),
]


async def every_route(rig: Rig) -> list[tuple[str, str]]:
    """What the document names, with something in place of the parameters."""
    paths = (await rig.json("GET", "/openapi.json"))["paths"]
    named = {"{job_id}": "job-1", "{rustbee_id}": "rustbee-1", "{name}": "mac", "{task_id}": "t-1", "{key_id}": "k-1"}
    named |= {"{modelcell}": "demo"}
    routes = []
    for path, operations in paths.items():
        for method in operations:
            filled = path
            for name, value in named.items():
                filled = filled.replace(name, value)
            assert "{" not in filled
            routes.append((method.upper(), filled))
    return routes


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Basic {key}",
        "{key}",
        "Bearer {key}x",
        "Bearer rustbee.rustbee-1.00",
        "Bearer \xff",
        "Bearer rustbee.\xe4.\xff",
    ],
)
async def test_nothing_is_open_without_a_key(rig: Rig, authorization: str | None) -> None:
    headers = {"authorization": authorization.replace("{key}", rig.key)} if authorization is not None else {}
    connection = await rig.connect()
    for method, path in [*SOME_PATHS, *await every_route(rig)]:
        answer = await connection.ask(method, path, None if method in {"GET", "HEAD"} else {}, headers)
        assert answer.status == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            assert (answer.error["code"], answer.error["type"]) == ("invalid_api_key", "authentication_error")
            assert rig.key not in answer.body.decode()


async def test_a_workers_key_opens_only_what_a_worker_says_about_itself(rig: Rig) -> None:
    mine = rig.worker_auth("rustbee-1")
    reports = {"/v2/swarmesh/rustbee", "/v2/nodes/register", "/v2/swarmesh/waggleproto", "/waggle", "/callback/error"}
    whole = {"rustbee_id": "rustbee-1", "modelcell": "m", "location": "unix:/x", "code": "c", "message": "m"}
    connection = await rig.connect()
    for method, path in await every_route(rig):
        answer = await connection.ask(method, path, whole if method == "POST" else None, mine)
        own = path in reports or (method, path) == ("DELETE", "/v2/swarmesh/rustbee/rustbee-1")
        assert (answer.status < 300) is own, (method, path, answer)
        if not own:
            assert answer.error["code"] == "forbidden"


@pytest.mark.parametrize("path", ["/v2/swarmesh/rustbee", "/v2/swarmesh/waggleproto", "/waggle", "/callback/error"])
async def test_a_worker_does_not_speak_for_another(rig: Rig, path: str) -> None:
    whole = {"rustbee_id": "rustbee-2", "modelcell": "m", "location": "unix:/x", "code": "c", "message": "m"}
    answer = await ask_once(rig.url, "POST", path, whole, rig.worker_auth("rustbee-1"))
    assert (answer.status, answer.error["code"]) == (403, "forbidden")
    assert "rustbee-1 does not speak for rustbee-2" in answer.error["message"]
    gone = await ask_once(rig.url, "DELETE", "/v2/swarmesh/rustbee/rustbee-2", None, rig.worker_auth("rustbee-1"))
    assert gone.status == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "param"),
    [
        ("POST", CHAT, b"{", 400, "malformed_json", None),
        ("POST", CHAT, b"\xff", 400, "malformed_json", None),
        ("POST", CHAT, b"", 400, "malformed_json", None),
        ("POST", CHAT, {"model": "fake"}, 400, "invalid_value", "messages"),
        ("POST", CHAT, chat(temperature=9), 400, "invalid_value", "temperature"),
        ("POST", CHAT, chat(model="none"), 404, "model_not_found", "model"),
        ("POST", "/v1/embeddings", {"model": "none", "input": "x"}, 404, "model_not_found", "model"),
        ("POST", CHAT, b'{"messages": ' + b"[" * 100 + b"]" * 100 + b"}", 400, "invalid_value", None),
        ("POST", FLOW, b"nonsense", 400, "malformed_json", None),
        ("POST", FLOW, {}, 400, "invalid_value", None),
        ("POST", FLOW, {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, 400, "invalid_value", None),
        ("POST", FLOW, {"prompt": "a", "max_token": 5}, 400, "invalid_value", "max_token"),
        ("POST", FLOW, {"prompt": "a", "modelcell": "none"}, 404, "model_not_found", "modelcell"),
        ("GET", f"{FLOW}/none", None, 404, "not_found", None),
        ("DELETE", f"{FLOW}/none", None, 404, "not_found", None),
        ("GET", f"{TOKENS}/none", None, 404, "not_found", None),
        ("GET", f"{TOKENS}/none?after=x", None, 404, "not_found", None),
        ("GET", "/v2/swarmesh/nectarflows?status=odd", None, 400, "invalid_value", "status"),
        ("GET", "/v2/swarmesh/nectarflows?limit=0", None, 400, "invalid_value", "limit"),
        ("GET", "/v2/swarmesh/nectarflows?limit=-1", None, 400, "invalid_value", "limit"),
        ("GET", "/v2/swarmesh/nectarflows?limit=0000000001", None, 400, "invalid_value", "limit"),
        ("GET", f"/v2/swarmesh/nectarflows?limit={'9' * 5_000}", None, 400, "invalid_value", "limit"),
        ("GET", f"{RUSTBEES}/none", None, 404, "not_found", None),
        ("DELETE", f"{RUSTBEES}/none", None, 404, "not_found", None),
        ("DELETE", f"{RUSTBEES}/none?grace_s=nan", None, 400, "invalid_value", "grace_s"),
        ("POST", RUSTBEES, {"modelcell": "m", "gpus": 1}, 400, "invalid_value", "gpus"),
        ("POST", RUSTBEES, {"type": "openai", "modelcell": "m"}, 400, "invalid_value", "url"),
        ("POST", RUSTBEES, {"type": "openai", "modelcell": "m", "url": "https://x"}, 400, "invalid_value", "url"),
        (
            "POST",
            RUSTBEES,
            {"type": "openai", "modelcell": "m", "url": "http://127.0.0.1:1"},
            502,
            "upstream_failed",
            None,
        ),
        ("POST", RUSTBEES, {"type": "cpu", "modelcell": "none"}, 404, "model_not_found", "model"),
        ("POST", "/waggle", {"rustbee_id": "a", "load": 2}, 400, "invalid_value", "load"),
        ("POST", "/waggle", {"rustbee_id": "a\nb"}, 400, "invalid_value", "rustbee_id"),
        ("GET", "/no/such", None, 404, "not_found", None),
        ("GET", f"{RUSTBEES}/", None, 404, "not_found", None),
        ("GET", "/v2/swarmesh/%ff%00", None, 404, "not_found", None),
        ("GET", CHAT, None, 405, "method_not_allowed", None),
        ("DELETE", FLOW, None, 405, "method_not_allowed", None),
        ("POST", f"{TOKENS}/x", {}, 405, "method_not_allowed", None),
        ("PUT", "/v2/swarmesh/health", {}, 405, "method_not_allowed", None),
        ("PATCH", "/v1/models", None, 405, "method_not_allowed", None),
    ],
)
async def test_every_mistake_has_the_one_envelope(
    rig: Rig, method: str, path: str, body: Any, status: int, code: str, param: str | None
) -> None:
    answer = await rig.ask(method, path, body)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param), answer
    assert answer.error["message"]
    types = {400: "invalid_request_error", 404: "invalid_request_error", 405: "invalid_request_error"}
    assert answer.error["type"] == types.get(status, "server_error")
    if status == 405:
        assert method not in answer.headers["allow"]


@pytest.mark.parametrize("path", [CHAT, FLOW, RUSTBEES])
async def test_a_body_that_is_too_large(rig: Rig, path: str) -> None:
    connection = await rig.connect()
    connection.send(f"POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: {11 * 2**20}\r\n\r\n".encode())
    answer = await connection.read_answer()
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")


async def test_malformed_json_is_told_with_its_position(rig: Rig) -> None:
    answer = await rig.ask("POST", CHAT, b'{"model": "x", "messages": [}')
    assert "byte 2" in answer.error["message"]


async def test_no_worker_at_all_is_told_with_what_to_do(rig: Rig) -> None:
    for path, body in [(CHAT, {"messages": []}), (FLOW, {"prompt": "hi"})]:
        answer = await rig.ask("POST", path, body)
        assert (answer.status, answer.error["code"]) == (503, "no_rustbees_available")
        assert "swarmesh spawn rustbee" in answer.error["hint"]


async def test_the_document_describes_every_route(rig: Rig) -> None:
    document = await rig.json("GET", "/openapi.json")
    assert document["openapi"].startswith("3.1")
    assert document["security"] == [{"key": []}]
    expected = {
        *((path, "post") for path in [*HOT, FLOW, "/v2/tasks", "/v2/swarmesh/rustbee", "/v2/nodes/register"]),
        *((path, "post") for path in ["/v2/swarmesh/waggleproto", "/waggle", "/callback/error", RUSTBEES]),
        *((path, "get") for path in ["/v1/models", "/v2/swarmesh/health", RUSTBEES, RUSTBEES + "/{rustbee_id}"]),
        *((path, "get") for path in [FLOW + "/{job_id}", TOKENS + "/{job_id}", "/v2/swarmesh/nectarflows"]),
        *((path, "get") for path in ["/v2/swarmesh/waggles", "/v2/swarmesh/alarms"]),
        *((path, "delete") for path in [FLOW + "/{job_id}", RUSTBEES + "/{rustbee_id}"]),
        ("/v2/swarmesh/rustbee/{rustbee_id}", "delete"),
    }
    described = {(path, method) for path, operations in document["paths"].items() for method in operations}
    assert expected <= described
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    for path, methods in document["paths"].items():
        for operation in methods.values():
            names = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
            assert names == {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert operation["summary"]
            assert "default" in operation["responses"]


async def test_every_reference_in_the_document_leads_somewhere(rig: Rig) -> None:
    answer = await rig.ask("GET", "/openapi.json")
    document = answer.json()
    references = {part.split('"')[0] for part in answer.body.decode().split('"$ref":"')[1:]}
    assert references
    for reference in references:
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert isinstance(place, dict)


async def test_one_connection_for_relay_and_control_a_thousand_times(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker_id = await rig.adopt(worker)
    connection = await rig.connect()
    for number in range(500):
        streamed = number % 2 == 0
        relayed = await connection.ask("POST", CHAT, chat(stream=streamed), rig.auth)
        assert relayed.status == 200
        assert relayed.headers["x-swarmesh-rustbee"] == worker_id
        assert (b"[DONE]" in relayed.body) is streamed
        controlled = await connection.ask("GET", "/v1/models", None, rig.auth)
        assert [model["id"] for model in controlled.json()["data"]] == ["fake"]
    assert len(worker.calls) == 500
    assert rig.is_idle()


async def test_models_are_listed_as_openai_does(rig: Rig, new_worker: NewWorker) -> None:
    assert (await rig.json("GET", "/v1/models")) == {"object": "list", "data": []}
    for model in ("one", "two"):
        await rig.adopt(await new_worker([model]), model=model)
    listed = await rig.json("GET", "/v1/models")
    assert [model["id"] for model in listed["data"]] == ["one", "two"]
    assert all(model["object"] == "model" and isinstance(model["created"], int) for model in listed["data"])


async def test_health_counts_what_is_there(rig: Rig, new_worker: NewWorker) -> None:
    health = await rig.json("GET", "/v2/swarmesh/health")
    assert (health["status"], health["modelcells"], health["url"]) == ("no_rustbees", [], rig.url)
    await rig.adopt(await new_worker())
    health = await rig.json("GET", "/v2/swarmesh/health")
    assert (health["status"], health["rustbees"], health["modelcells"]) == ("healthy", {"healthy": 1}, ["fake"])
    assert (health["queue_depth"], health["streams"]) == (0, 0)


async def test_a_chunked_submission_is_as_good(rig: Rig, new_worker: NewWorker) -> None:
    await rig.adopt(await new_worker())
    connection = await rig.connect()
    body = json.dumps(chat()).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {rig.key}\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [body[place : place + 10] for place in range(0, len(body), 10)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    connection.send(head.encode() + framed + b"0\r\n\r\n")
    assert (await connection.read_answer()).status == 200


async def test_a_fault_of_our_own_cuts_one_request_and_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(rig.queen._flows, "tokens", fails)
    monkeypatch.setattr(rig.queen._flows, "recent", fails)
    monkeypatch.setattr(rig.queen._models, "resolve", fails)
    connection = await rig.connect()
    shown = await connection.ask("GET", "/v2/swarmesh/nectarflows", None, rig.auth)
    assert (shown.status, shown.error["code"]) == (500, "internal_error")
    relayed = await connection.ask("POST", CHAT, chat(), rig.auth)
    assert (relayed.status, relayed.error["code"]) == (500, "internal_error")
    assert "ZeroDivisionError" not in relayed.body.decode()
    connection = await rig.connect()
    connection.send(f"GET {TOKENS}/x HTTP/1.1\r\nauthorization: Bearer {rig.key}\r\n\r\n".encode())
    assert await connection.read_to_end() == b""
    assert (await rig.ask("GET", "/v2/swarmesh/health")).status == 200
