"""Servers that run already (Ollama, LM Studio, vLLM, llama-server): adopted by URL, probed, relayed to directly."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any, Final

import msgspec
import structlog

from swarmesh.core.errors import ConflictError, InvalidValueError, ModelNotFoundError, SwarmeshError
from swarmesh.core.events import WorkerAlarmed, WorkerRegistered, WorkerWaggled
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.net.address import parse_address
from swarmesh.net.client import HttpClient, UpstreamError
from swarmesh.queen.driver import Driver
from swarmesh.queen.links import Dialect, WorkerLink
from swarmesh.store.records import WorkerRecord
from swarmesh.store.store import Store
from swarmesh.wire.http1 import Headers
from swarmesh.wire.views import SpawnRequest

DEFAULT_SLOTS: Final = 16
PROBE_INTERVAL_S: Final = 5.0
PROBE_TIMEOUT_S: Final = 5.0
FAILED_PROBES_MAX: Final = 2
"""Probes in a row that may fail before the server counts as dead; it comes back with the first that goes well."""

log = structlog.get_logger("foreign")


class Adoption(msgspec.Struct, frozen=True):
    """What has to be known to reach a server again after a restart; the file it lies in has mode 0600."""

    modelcell: str
    url: str
    api_key: str
    slots: int
    remote_model: str


class ForeignServers:
    """Adopts servers and keeps an eye on them: their probes stand in for waggles."""

    def __init__(self, driver: Driver, store: Store) -> None:
        self._driver = driver
        self._store = store
        self._probes: dict[WorkerId, asyncio.Task[None]] = {}

    async def adopt(self, request: SpawnRequest) -> WorkerId:
        """Take a running server in.

        Raises:
            InvalidValueError: The URL is none.
            ModelNotFoundError: The server has several models and none of that name.
            UpstreamError: It does not answer.
        """
        if not request.url:
            raise InvalidValueError("type openai needs the url of a running server", param="url")
        address = parse_address(request.url.removesuffix("/").removesuffix("/v1"))
        for worker in self._driver.swarm.fleet:
            if worker.direct and worker.location == str(address) and worker.model == request.modelcell:
                raise ConflictError(
                    f"{worker.worker_id} is this server already", hint="Stop it first to adopt it anew."
                )
        client = HttpClient(address, headers=_auth(request.api_key))
        try:
            remote_model = await _remote_model(client, request.modelcell)
            slots = request.slots or await _slots(client) or DEFAULT_SLOTS
        finally:
            client.close()
        worker_id = WorkerId(f"rustbee-{secrets.token_hex(2)}")
        adoption = Adoption(request.modelcell, str(address), request.api_key, slots, remote_model)
        await self._store.put_worker(_record(worker_id, adoption))
        self._take_in(worker_id, adoption, ready=True)
        return worker_id

    async def resume(self) -> None:
        """After a restart: take in every server that was adopted before; its first probe says whether it lives."""
        for record in await self._store.workers():
            if record.direct:
                self._take_in(record.worker_id, msgspec.json.decode(record.spec, type=Adoption), ready=False)

    async def close(self) -> None:
        """Stop probing."""
        for probe in self._probes.values():
            probe.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)

    def _take_in(self, worker_id: WorkerId, adoption: Adoption, *, ready: bool) -> None:
        link = WorkerLink(
            worker_id,
            adoption.url,
            dialect=Dialect.OPENAI,
            key=adoption.api_key,
            remote_model=adoption.remote_model,
        )
        self._driver.links.put(link)
        self._driver.post(
            WorkerRegistered(
                worker_id=worker_id,
                model=ModelName(adoption.modelcell),
                backend="openai",
                host=HostName(link.address.host or "localhost"),
                location=adoption.url,
                slots=adoption.slots,
                ready=ready,
                direct=True,
            )
        )
        self._probes[worker_id] = asyncio.get_running_loop().create_task(self._probe(link, adoption, ready=ready))

    async def _probe(self, link: WorkerLink, adoption: Adoption, *, ready: bool) -> None:
        client = HttpClient(link.address, headers=link.auth_headers)
        failures = 0 if ready else FAILED_PROBES_MAX
        if ready:
            await asyncio.sleep(PROBE_INTERVAL_S)
        try:
            while link.worker_id in self._driver.swarm.fleet:
                problem = await _problem(client)
                failures = failures + 1 if problem else 0
                self._report(link.worker_id, adoption, problem, failures)
                await asyncio.sleep(PROBE_INTERVAL_S)
        finally:
            client.close()
            self._probes.pop(link.worker_id, None)

    def _report(self, worker_id: WorkerId, adoption: Adoption, problem: str, failures: int) -> None:
        worker = self._driver.swarm.fleet.get(worker_id)
        if worker is None:
            return
        if not problem:
            load = min(1.0, len(worker.running) / adoption.slots)
            self._driver.post(WorkerWaggled(worker_id, True, load, 0, worker.quality, 0, adoption.slots))
        elif failures == FAILED_PROBES_MAX + 1:  # Once, not at every probe that follows.
            self._driver.post(WorkerAlarmed(worker_id, "server_unreachable", problem))


def _auth(api_key: str) -> Headers:
    return [(b"authorization", b"Bearer " + api_key.encode())] if api_key else []


async def _problem(client: HttpClient) -> str:
    try:
        status, _ = await client.request("GET", "/v1/models", timeout_s=PROBE_TIMEOUT_S)
    except SwarmeshError as error:
        return error.message
    return "" if status == 200 else f"{client.address} answered {status} to GET /v1/models"


async def _remote_model(client: HttpClient, wanted: str) -> str:
    """What the server calls the model; empty when it goes by the wanted name."""
    status, body = await client.request("GET", "/v1/models", timeout_s=PROBE_TIMEOUT_S)
    if status != 200:
        raise UpstreamError(f"{client.address} answered {status} to GET /v1/models", hint="Does it need --api-key-env?")
    try:
        served = [str(entry["id"]) for entry in _object(body)["data"]]
    except (KeyError, TypeError) as error:
        raise UpstreamError(f"{client.address} does not list its models as OpenAI does") from error
    if wanted in served or not served:
        return ""
    if len(served) == 1:
        return served[0]
    raise ModelNotFoundError(
        f"{client.address} serves {', '.join(served[:20])}, but not {wanted!r}", hint="Use one of these names."
    )


async def _slots(client: HttpClient) -> int:
    """How many tasks llama-server runs at once; 0 for servers that do not say."""
    try:
        status, body = await client.request("GET", "/props", timeout_s=PROBE_TIMEOUT_S)
    except UpstreamError:
        return 0
    slots = _object(body).get("total_slots", 0) if status == 200 else 0
    return slots if isinstance(slots, int) else 0


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _record(worker_id: WorkerId, adoption: Adoption) -> WorkerRecord:
    return WorkerRecord(
        worker_id=worker_id,
        modelcell=ModelName(adoption.modelcell),
        backend="openai",
        host="",
        location=adoption.url,
        slots=adoption.slots,
        status="healthy",
        pid=None,
        engine_pid=None,
        boot_id="",
        nonce="",
        key_sha256=b"",
        direct=True,
        spec=msgspec.json.encode(adoption),
        registered_at_ms=time.time_ns() // 1_000_000,
    )
