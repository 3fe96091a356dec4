"""The worker's side of waggleproto: introduces itself, reports, cries for help, and finds the queen again."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from swarmesh.config.home import read_queen_file
from swarmesh.core.errors import QueenUnreachableError, SwarmeshError
from swarmesh.net.address import parse_address
from swarmesh.net.client import HttpClient
from swarmesh.wire.errors import remote_error
from swarmesh.wire.spec import WorkerSpec
from swarmesh.wire.waggle import Alarm, Registration, Waggle, WaggleAnswer
from swarmesh.worker.journal import Journal

REGISTER_TARGET: Final = "/v2/swarmesh/rustbee"
WAGGLE_TARGET: Final = "/v2/swarmesh/waggleproto"
ALARM_TARGET: Final = "/callback/error"
TIMEOUT_S: Final = 5.0
GOODBYE_TIMEOUT_S: Final = 1.0
FIRST_WAIT_S: Final = 0.1
"""Before the second try; it doubles up to the longest one, and each is drawn evenly from a half to all of it, so that
the rustbees of a queen that came back do not all come at once."""
LONGEST_FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 5.0
"""From `LOST_FRESHLY_S` on; before, at most the one above: a queen that restarts takes up running tasks again."""
LOST_FRESHLY_S: Final = 60.0
ALARMS_MAX: Final = 16
UNKNOWN: Final = "unknown"


class Reporter(Protocol):
    """Who knows what is to be said."""

    def registration(self) -> Registration:
        """How the worker introduces itself now."""

    def waggle(self, now_s: float, last_rtt_ms: float) -> Waggle:
        """How it is now."""


class QueenLink:
    """One loop says everything, so that an alarm never overtakes the waggle that takes it back.

    Args:
        orphaned: Called once when no queen has answered for ``spec.orphan_ttl_s``.
    """

    def __init__(self, spec: WorkerSpec, reporter: Reporter, journal: Journal, orphaned: Callable[[], None]) -> None:
        self._spec = spec
        self._reporter = reporter
        self._journal = journal
        self._orphaned = orphaned
        self._loop = asyncio.get_running_loop()
        self._client: HttpClient | None = None
        self._url = ""
        self._registered = False
        self._interval_s = FIRST_WAIT_S
        self._rtt_ms = 0.0
        self._answered_at_s = self._loop.time()
        self._lost_at_s = self._answered_at_s
        self._alarms: deque[Alarm] = deque(maxlen=ALARMS_MAX)
        self._nudged = asyncio.Event()
        self._flushed = asyncio.Event()

    def nudge(self) -> None:
        """Something changed: report now, not at the next turn."""
        self._nudged.set()

    def alarm(self, code: str, message: str, *, returning: bool) -> None:
        """Tell the queen of an emergency, before anything else is told."""
        self._alarms.append(Alarm(rustbee_id=self._spec.rustbee_id, code=code, message=message, returning=returning))
        self._flushed.clear()
        self.nudge()

    async def flushed(self) -> None:
        """Wait until every alarm was heard."""
        if self._alarms:
            await self._flushed.wait()

    async def run(self) -> None:
        """Report until the worker is an orphan."""
        failures = 0
        while True:
            self._nudged.clear()
            try:
                await self._report()
            except SwarmeshError as error:
                failures += 1
                self._forget_queen(error, first=failures == 1)
            else:
                failures = 0
                self._answered_at_s = self._loop.time()
            if self._loop.time() - self._answered_at_s > self._spec.orphan_ttl_s:
                self._journal.write("orphaned", orphan_ttl_s=self._spec.orphan_ttl_s)
                self._orphaned()
                return
            await self._pause(failures)

    async def goodbye(self) -> None:
        """Tell the queen, if she is there, that this worker is gone for good."""
        try:
            await self._send("DELETE", f"{REGISTER_TARGET}/{self._spec.rustbee_id}", None, GOODBYE_TIMEOUT_S)
        except SwarmeshError as error:
            self._journal.write("goodbye_unheard", message=error.message)

    async def _report(self) -> None:
        if not self._registered:
            await self._say(REGISTER_TARGET, self._reporter.registration())
            self._registered = True
            self._journal.write("registered", queen=self._url)
        while self._alarms:
            await self._send("POST", ALARM_TARGET, msgspec.json.encode(self._alarms[0]), TIMEOUT_S)
            self._alarms.popleft()
        self._flushed.set()
        # uvloop's clock ticks in milliseconds, and an answer on one machine takes less than one.
        asked_at_s = time.perf_counter()
        answer = await self._say(WAGGLE_TARGET, self._reporter.waggle(self._loop.time(), self._rtt_ms))
        self._rtt_ms = (time.perf_counter() - asked_at_s) * 1000
        if answer.status == UNKNOWN:
            raise QueenUnreachableError("the queennode does not know this rustbee; it introduces itself again")

    async def _say(self, target: str, what: Registration | Waggle) -> WaggleAnswer:
        body = await self._send("POST", target, msgspec.json.encode(what), TIMEOUT_S)
        try:
            answer = msgspec.json.decode(body, type=WaggleAnswer)
        except msgspec.DecodeError as error:
            raise QueenUnreachableError(f"{self._url}{target} gave an answer that cannot be read: {error}") from error
        # However rarely she wants to hear of it, an orphan has to notice in time that it is one.
        self._interval_s = max(FIRST_WAIT_S, min(answer.next_waggle, self._spec.orphan_ttl_s / 3))
        return answer

    async def _send(self, method: str, target: str, body: bytes | None, timeout_s: float) -> bytes:
        client = self._find_queen()
        status, answer = await client.request(method, target, body, timeout_s=timeout_s)
        if status >= 300:
            raise remote_error(status, answer)
        return answer

    def _find_queen(self) -> HttpClient:
        if self._client is None:
            queen = read_queen_file(Path(self._spec.queen_file))
            if queen is None:
                raise QueenUnreachableError(f"{self._spec.queen_file} names no queennode")
            bearer = f"Bearer {self._spec.key}".encode()
            self._url = queen.url
            self._client = HttpClient(parse_address(queen.url), headers=[(b"authorization", bearer)])
        return self._client

    def _forget_queen(self, error: SwarmeshError, *, first: bool) -> None:
        # Another queen may listen elsewhere by now; she is looked up again, and told everything from the beginning.
        if first:
            self._lost_at_s = self._loop.time()
            self._journal.write("queen_lost", code=error.code, message=error.message)
        if self._client is not None:
            self._client.close()
            self._client = None
        self._registered = False

    async def _pause(self, failures: int) -> None:
        wait_s = self._interval_s
        if failures:
            lost_for_s = self._loop.time() - self._lost_at_s
            longest_s = min(longest_wait_s(failures, lost_for_s), self._spec.orphan_ttl_s / 3)
            wait_s = longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        if failures and not self._alarms:
            await asyncio.sleep(wait_s)
            return
        try:
            async with asyncio.timeout(wait_s):
                await self._nudged.wait()
        except TimeoutError:
            return


def longest_wait_s(failures: int, lost_for_s: float) -> float:
    """The longest wait before the next try, after so many failures in a row and so long after the first."""
    longest_s = LONGEST_FIRST_WAIT_S if lost_for_s < LOST_FRESHLY_S else LONGEST_WAIT_S
    return min(longest_s, math.ldexp(FIRST_WAIT_S, min(failures, 16)))
