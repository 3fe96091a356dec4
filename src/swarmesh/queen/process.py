"""The queennode process: put together, started, and stopped without losing what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import os
import secrets
import signal
import time
from typing import Final

import msgspec
import psutil
import structlog

from swarmesh import __version__
from swarmesh.config.home import Home, QueenFile, write_private
from swarmesh.config.settings import QueenSettings, Settings
from swarmesh.config.worker_key import worker_secret
from swarmesh.core.errors import ConfigError, PortTakenError, SwarmeshError
from swarmesh.core.events import Ticked
from swarmesh.core.ids import LOCAL_HOST, ModelName
from swarmesh.core.swarm import Swarm
from swarmesh.hosts.process_identity import boot_id
from swarmesh.net.asgi import AsgiBridge
from swarmesh.net.server import HttpServer, Limits
from swarmesh.queen.admin_key import load_keys
from swarmesh.queen.api.app import control_app
from swarmesh.queen.api.chaos import chaos_routes
from swarmesh.queen.api.explain import explain_routes
from swarmesh.queen.api.flows import flow_routes
from swarmesh.queen.api.hosts import host_routes
from swarmesh.queen.api.keys import key_routes
from swarmesh.queen.api.models import model_routes
from swarmesh.queen.api.policies import policy_routes
from swarmesh.queen.api.route import Route
from swarmesh.queen.api.rustbees import report_routes, rustbee_routes
from swarmesh.queen.api.scripts import script_routes
from swarmesh.queen.api.steps import StepAnswers
from swarmesh.queen.api.swarm import swarm_routes
from swarmesh.queen.api.swarmscale import scale_routes
from swarmesh.queen.background import BackgroundChats
from swarmesh.queen.control_links import ControlLinks
from swarmesh.queen.decision_record import DecisionRecorder
from swarmesh.queen.driver import Driver, now_ms
from swarmesh.queen.effects import QueenEffects
from swarmesh.queen.explain import Explainer
from swarmesh.queen.flow_routes import FlowRoutes
from swarmesh.queen.flows import Flows
from swarmesh.queen.foreign import ForeignServers
from swarmesh.queen.front import Front
from swarmesh.queen.host_keeper import HostKeeper
from swarmesh.queen.hosts import Hosts
from swarmesh.queen.key_keeper import KeyKeeper
from swarmesh.queen.keys import KeyRing
from swarmesh.queen.known_models import KnownModels
from swarmesh.queen.links import Links
from swarmesh.queen.model_files import ModelFilesService
from swarmesh.queen.policies import Policies
from swarmesh.queen.relay import Relay
from swarmesh.queen.scripts import Scripts
from swarmesh.queen.starts import Starts
from swarmesh.queen.swarmscale import Swarmscale
from swarmesh.queen.vigil import Vigil
from swarmesh.queen.workers import Workers
from swarmesh.store.sqlite import SqliteStore
from swarmesh.store.store import Store

TICK_INTERVAL_S: Final = 1.0
AMNESTY_MS: Final = 60_000
"""After a start: workers may take so long to be heard before silence is held against any."""
SEED_BITS: Final = 31
TICKS_BETWEEN_CLEARINGS: Final = 3600
ADOPTION_WAIT_S: Final = 2.0
"""How long a start waits for hosts on which tasks were running; what ran there goes on elsewhere after that."""

log = structlog.get_logger("queen")


class Queen:
    """One running queennode; made by `Queen.start`."""

    def __init__(self, home: Home, settings: Settings, store: Store, keys: KeyRing, *, epoch: int) -> None:
        self._home = home
        self._settings = settings
        self._store = store
        self._started_at = time.time()
        self._swarm = Swarm(
            queue_max_per_key=settings.queennode.queue_max_per_key,
            amnesty_until_ms=now_ms() + AMNESTY_MS,
            preemption=settings.queennode.preemption,
            policy=settings.routing.policy,
            policies={ModelName(name): policy for name, policy in settings.routing.modelcells.items()},
            seed=secrets.randbits(SEED_BITS),
        )
        self._recorder = self._swarm.dispatcher.witness = DecisionRecorder(self._swarm.router, store)
        self._driver = Driver(self._swarm, Links())
        self._keys = KeyKeeper(self._driver, store, keys)
        self._models = KnownModels(self._swarm.fleet, home.root)
        self._driver.has_model = self._models.has
        self._policies = Policies(self._swarm, self._models, settings.routing)
        self._vigil = Vigil()
        self._control = ControlLinks(self._driver, self._vigil)
        self._flows = Flows(self._driver, store, self._vigil, epoch=epoch)
        self._hosts = Hosts(home, self._driver, store, keys, lambda: self._address)
        self._model_files = ModelFilesService(home, self._hosts)
        self._starts = Starts(settings, self._driver, self._hosts, self._model_files, keys)
        self._workers = Workers(self._driver, store, self._hosts, self._starts, self._control, keys, epoch=epoch)
        self._hosts.follower = self._starts.watcher = self._workers
        self._scripts = Scripts(home, self._swarm, store, self._workers.raise_alarm)
        self._keeper = HostKeeper(home, self._driver, store, self._hosts, self._workers)
        self._step_answers = StepAnswers()
        self._foreign = ForeignServers(self._driver, store)
        self._swarmscale = Swarmscale(self._driver, store, self._models, self._starts)
        self._driver.effects = QueenEffects(self._flows, self._workers, self._starts, self._swarmscale)
        background = BackgroundChats(self._flows, self._models)
        streams_max = settings.queennode.streams_max
        self._relay = Relay(self._driver, self._models, self._vigil, background, streams_max=streams_max)
        control = AsgiBridge(control_app(self._routes()), _escaped)
        front = Front(keys, self._relay, background, FlowRoutes(self._flows, self._models), control)
        limits = Limits(body_bytes_max=settings.queennode.body_bytes_max)
        self._server = HttpServer(front, limits, gathers_writes=True)
        self._ticker: asyncio.Task[None] | None = None
        self.url = ""
        self._address = ""
        """Where the queen is reached on her own machine: what sessions to other hosts lead back to."""

    @classmethod
    async def start(cls, home: Home, settings: Settings) -> Queen:
        """Open the hivecomb, listen, take over what the queen before left.

        Raises:
            HivecombLockedError: Another queen uses this home.
            PortTakenError: Somebody else listens there.
            SwarmeshError: The hivecomb or the home cannot be used.
        """
        home.make()
        store = await SqliteStore.open(home.hivecomb, boot_id=boot_id())
        try:
            keys = KeyRing(await load_keys(home, store), worker_secret(home))
            queen = cls(home, settings, store, keys, epoch=await store.next_epoch())
            await queen._bind(settings.queennode)
            await queen._take_over()
            await queen._open()
        except BaseException:
            await store.close()
            raise
        gc.freeze()  # What was imported lives as long as the process; the collector need not look at it again.
        return queen

    async def close(self) -> None:
        """Stop in order: no new connections, streams cut, tokens saved, hivecomb closed. Workers stay."""
        if self._ticker is not None:
            self._ticker.cancel()
        await self._scripts.close()
        self._home.queen_file.unlink(missing_ok=True)
        await self._server.close()
        self._vigil.close()
        self._control.close()
        await self._foreign.close()
        await self._step_answers.close()
        await self._starts.close()
        await self._workers.close()
        await self._swarmscale.close()
        await self._hosts.close()
        await self._flows.close()
        await self._recorder.close()
        await self._store.close()
        log.info("stopped")

    async def _bind(self, settings: QueenSettings) -> None:
        try:
            await self._server.bind(settings.host, settings.port)
        except OSError as error:
            raise _cannot_listen(settings, error) from error
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"http://{host}:{self._server.port}"
        own = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, host)  # noqa: S104 - read, not bound
        self._address = f"{own}:{self._server.port}"

    def _routes(self) -> list[Route]:
        return [
            *swarm_routes(
                self._swarm,
                on_offer=self._models.on_offer,
                url=lambda: self.url,
                started_at=self._started_at,
                streams=lambda: self._relay.active + len(self._flows),
            ),
            *rustbee_routes(self._workers, self._foreign, self._store),
            *report_routes(self._workers),
            *host_routes(self._keeper, self._step_answers),
            *model_routes(self._model_files, self._step_answers),
            *chaos_routes(self._workers),
            *key_routes(self._keys),
            *policy_routes(self._policies),
            *script_routes(self._scripts),
            *scale_routes(self._swarmscale),
            *explain_routes(Explainer(self._driver)),
            *flow_routes(self._flows),
        ]

    async def _take_over(self) -> None:
        self._keys.open()
        # Workers first: what ran goes on where it ran, if that is known by then.
        await self._workers.recall()
        await self._swarmscale.open()
        await self._hosts.open()
        await self._foreign.resume()
        await self._workers.adopt(LOCAL_HOST)
        await self._hosts.wait_adopted(await self._hosts_of_running_tasks(), ADOPTION_WAIT_S)
        if not self._hosts.others():
            self._swarm.scaler.settle_ms = 0  # Everybody who is there has been found.
        await self._scripts.open()
        await self._flows.resume()

    async def _hosts_of_running_tasks(self) -> set[str]:
        running = {task.worker_id for task in await self._store.unfinished_tasks() if task.attempts}
        return {worker.host for worker in await self._store.workers() if worker.worker_id in running}

    async def _open(self) -> None:
        # Nobody is answered before everything that was accepted is known again.
        await self._server.listen()
        note = QueenFile(self.url, os.getpid(), psutil.Process().create_time(), __version__)
        write_private(self._home.queen_file, msgspec.json.encode(note))
        self._ticker = asyncio.get_running_loop().create_task(self._tick())
        log.info("started", url=self.url, version=__version__)

    async def _tick(self) -> None:
        for tick in itertools.count():
            try:
                if tick % TICKS_BETWEEN_CLEARINGS == 0:
                    await self._clear()
                await asyncio.sleep(TICK_INTERVAL_S)
                self._driver.post(Ticked())
            except Exception:  # The outer edge of time: were it to end here, nobody would ever be found dead again.
                log.exception("tick_failed")

    async def _clear(self) -> None:
        try:
            await self._flows.forget_old(self._settings.queennode.keep_days)
        except SwarmeshError as error:
            log.warning("clearing_failed", error=error.message)


async def serve(home: Home, settings: Settings) -> None:
    """Run a queen until SIGTERM or SIGINT.

    Raises:
        SwarmeshError: She cannot start.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stopped.set)
    queen = await Queen.start(home, settings)
    try:
        await stopped.wait()
    finally:
        await queen.close()


def _escaped(error: BaseException) -> None:
    log.error("request_failed", exc_info=error)


def _cannot_listen(settings: QueenSettings, error: OSError) -> SwarmeshError:
    where = f"{settings.host}:{settings.port}"
    if error.errno != errno.EADDRINUSE:
        return ConfigError(f"cannot listen on {where}: {error.strerror}", hint="Choose another host or port.")
    holder = _holder(settings.port)
    return PortTakenError(
        f"port {settings.port} is taken" + (f" by {holder}" if holder else ""),
        hint="Stop that process, or choose another port: swarmesh queennode start --port N.",
    )


def _holder(port: int) -> str:
    """Who listens on a port, in words; empty when the system does not tell."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            bound: tuple[object, ...] = tuple(connection.laddr)  # (address, port)
            if connection.status == psutil.CONN_LISTEN and port in bound and connection.pid:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
