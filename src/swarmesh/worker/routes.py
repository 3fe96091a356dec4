"""The agent's HTTP surface on its unix socket. Every request shows the worker's key, here too."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

import msgspec

from swarmesh.core.errors import (
    BadInputError,
    InvalidValueError,
    MethodNotAllowedError,
    NotFoundError,
    SwarmeshError,
    UnauthorizedError,
)
from swarmesh.core.liveness import WorkerStatus
from swarmesh.engines.engine import Engine, EngineDoor
from swarmesh.engines.task import read_task
from swarmesh.net.exchange import Exchange
from swarmesh.net.upstream import UpstreamPool
from swarmesh.worker.errors import NotReadyError, OverloadedError, StaleAttemptError, StaleEpochError
from swarmesh.worker.execution import Execution
from swarmesh.worker.listener import Listener
from swarmesh.worker.meter import Meter
from swarmesh.worker.passthrough import Passthrough
from swarmesh.worker.self_report import SelfReport
from swarmesh.worker.supervisor import Supervisor
from swarmesh.worker.token_log import TaskRecord, TokenLog
from swarmesh.worker.watch import Watches

REQUESTS_OVER_SLOTS_MAX: Final = 16
"""Requests beyond the slots that may wait in the engine: a slot just freed may be asked for before its news is out."""
TASK_ID_CHARS_MAX: Final = 128
EPOCH_HEADER: Final = b"x-swarmesh-epoch"
ATTEMPT_HEADER: Final = b"x-swarmesh-attempt"
TASK_HEADER: Final = b"x-swarmesh-task"
LINGER_HEADER: Final = b"x-swarmesh-linger-s"


class Routes:
    """The application of the agent's `swarmesh.net.server.HttpServer`.

    Args:
        stop: Called when the agent is asked to end.
        deserted: Called when somebody has left who would not do so without a cause: the queen may be gone.
    """

    def __init__(
        self,
        key: str,
        supervisor: Supervisor,
        meter: Meter,
        report: SelfReport,
        stop: Callable[[], None],
        deserted: Callable[[], None],
    ) -> None:
        self._bearer = f"Bearer {key}".encode()
        self._supervisor = supervisor
        self._meter = meter
        self._report = report
        self._stop = stop
        self._deserted = deserted
        self._log = TokenLog()
        self._executions: dict[str, Execution] = {}
        self._passing: set[Passthrough] = set()
        self._watches = Watches(deserted)
        self._pool: UpstreamPool | None = None

    def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        try:
            self._route(exchange)
        except SwarmeshError as error:
            exchange.fail(error)

    def cancel_all(self) -> None:
        """End everything that runs."""
        for execution in list(self._executions.values()):
            execution.cancel()
        for passing in list(self._passing):
            passing.cancel()

    def end_watches(self) -> None:
        """Tell everybody who watches that this agent ends."""
        self._watches.end()

    def _route(self, exchange: Exchange) -> None:
        request = exchange.request
        if not hmac.compare_digest(request.header(b"authorization") or b"", self._bearer):
            raise UnauthorizedError("no valid key came with the request", hint="A rustbee answers only its queennode.")
        if request.http_1_0:
            raise BadInputError("a rustbee speaks HTTP/1.1")
        self._check_epoch(request.header(EPOCH_HEADER))
        path = request.path
        if path == b"/health":
            _allow(exchange, "GET", "POST")
            self._health(exchange)
        elif path == b"/watch":
            _allow(exchange, "GET")
            self._watches.open(exchange)
        elif path == b"/stop":
            _allow(exchange, "POST")
            exchange.respond_json(202, b'{"status":"draining"}')
            self._stop()
        elif path == b"/execute":
            _allow(exchange, "POST")
            self._execute(exchange)
        elif path.startswith(b"/execute/"):
            _allow(exchange, "GET", "DELETE")
            self._task(exchange, path.removeprefix(b"/execute/").decode("latin-1"))
        elif path.startswith(b"/v1/"):
            _allow(exchange, "GET", "POST")
            self._pass(exchange)
        else:
            raise NotFoundError(f"a rustbee has no route {path.decode('latin-1')!r}")

    def _health(self, exchange: Exchange) -> None:
        status = 200 if self._supervisor.status is WorkerStatus.HEALTHY else 503
        now_s = asyncio.get_running_loop().time()
        exchange.respond_json(status, msgspec.json.encode(self._report.health(now_s)))

    def _execute(self, exchange: Exchange) -> None:
        engine = self._admit()
        request = exchange.request
        task = read_task(request.body)
        task_id = (request.header(TASK_HEADER) or b"").decode("latin-1") or f"task-{secrets.token_hex(8)}"
        if len(task_id) > TASK_ID_CHARS_MAX or not task_id.isprintable() or not task_id.isascii():
            raise InvalidValueError(f"{TASK_HEADER.decode()} is longer than {TASK_ID_CHARS_MAX} or not printable")
        begun_after = 0 if task.resume is None else task.resume.last_seq
        if begun_after < 0:
            raise InvalidValueError(f"no event has the number {begun_after}", param="resume.last_seq")
        linger_s = _number(request.header(LINGER_HEADER), LINGER_HEADER)
        attempt = _attempt(exchange)
        record = self._log.begin(task_id, attempt=attempt, epoch=self._report.epoch, begun_after=begun_after)
        self._cancel(task_id)  # An earlier attempt; it adds to a record that is nobody's by now.
        why = self._supervisor.end_reason
        execution = Execution(record, self._meter, linger_s, why, self._deserted, self._ended)
        self._executions[task_id] = execution
        execution.start(engine.execute(task))
        execution.attach(exchange, begun_after)

    def _cancel(self, task_id: str) -> None:
        if (execution := self._executions.get(task_id)) is not None:
            execution.cancel()

    def _ended(self, execution: Execution) -> None:
        # A later attempt may have taken its place.
        if self._executions.get(execution.record.task_id) is execution:
            del self._executions[execution.record.task_id]

    def _task(self, exchange: Exchange, task_id: str) -> None:
        record = self._log.get(task_id)
        if record is None:
            raise NotFoundError(f"no task {task_id!r} ran here lately")
        execution = self._executions.get(task_id)
        if exchange.request.method == "DELETE":
            _check_attempt(exchange, record)
            self._cancel(task_id)
            exchange.respond_json(202, b'{"status":"cancelled"}')
            return
        wanted = parse_qs(exchange.request.query).get(b"after", [b"0"])[0]
        after = int(_number(wanted, b"after"))
        record.after(after)
        if execution is not None:
            execution.attach(exchange, after)
        else:
            Listener(exchange, record, after).pump()

    def _pass(self, exchange: Exchange) -> None:
        engine = self._admit()
        door = engine.door
        if door is None:
            raise NotFoundError("this rustbee's engine has none of OpenAI's routes")
        passing = Passthrough(exchange, self._meter, self._passing.discard, self._supervisor.end_reason)
        self._passing.add(passing)
        passing.start(self._pool_to(door), door)

    def _pool_to(self, door: EngineDoor) -> UpstreamPool:
        # An engine that was restarted listens on the same socket; connections to the one before are closed by now.
        if self._pool is None or self._pool.address != door.address:
            self._pool = UpstreamPool(door.address, idle_ttl_s=4.0)
        return self._pool

    def _admit(self) -> Engine:
        engine = self._supervisor.serving
        if engine is None:
            raise NotReadyError(f"this rustbee is {self._supervisor.status}", retry_after_s=1)
        room = self._report.slots + REQUESTS_OVER_SLOTS_MAX
        if self._meter.busy >= room:
            raise OverloadedError(
                f"{self._meter.busy} requests run here, on {self._report.slots} slots", retry_after_s=1
            )
        return engine

    def _check_epoch(self, header: bytes | None) -> None:
        if header is None:
            return
        epoch = int(_number(header, EPOCH_HEADER))
        if epoch < self._report.epoch:
            raise StaleEpochError(f"epoch {epoch} is over; this rustbee follows epoch {self._report.epoch}")
        self._report.epoch = epoch


def _allow(exchange: Exchange, *methods: str) -> None:
    if exchange.request.method not in methods:
        raise MethodNotAllowedError(f"{exchange.request.path.decode('latin-1')} takes {' or '.join(methods)}")


def _attempt(exchange: Exchange) -> int:
    return int(_number(exchange.request.header(ATTEMPT_HEADER), ATTEMPT_HEADER))


def _check_attempt(exchange: Exchange, record: TaskRecord) -> None:
    if exchange.request.header(ATTEMPT_HEADER) is not None and _attempt(exchange) < record.attempt:
        raise StaleAttemptError(f"attempt {record.attempt} of task {record.task_id} is the one that runs here")


def _number(text: bytes | None, name: bytes) -> float:
    if text is None:
        return 0.0
    if not text.isdigit() or len(text) > 15:
        raise InvalidValueError(f"{name.decode()} is no number: {text[:32]!r}", param=name.decode())
    return float(text)
