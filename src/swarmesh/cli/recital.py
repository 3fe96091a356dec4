"""The song of the demo modelcell, recited in peace, and once more while its rustbee is killed."""

from __future__ import annotations

import itertools
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from swarmesh.cli.local_rustbee import LocalRustbee
from swarmesh.cli.token_printer import TokenPrinter
from swarmesh.client import Done, Event, Swarmesh, Token, TokenStream
from swarmesh.core.errors import SwarmeshError
from swarmesh.models.catalog import DEMO_NAME

QUESTION: Final = "Recite the song of the hive."
"""The demo modelcell knows its answer by heart: long, and the same every time at temperature 0."""
TOKEN_SHOWN_S: Final = 0.006
"""Pause between two tokens on a terminal; the engine is far faster than eyes are."""
SILENCE_S_MAX: Final = 30.0
"""A recital that is silent for longer is given up; the queen notices a fault far earlier."""

Connect = Callable[[], Swarmesh]


class DrillError(SwarmeshError):
    """The drill did not show what it was to show."""

    code = "drill_failed"
    default_hint = "'swarmesh waggle status' shows alarms; logs/queennode.log in the home says more."


class Recital(NamedTuple):
    """One whole answer, and how many tokens the engine counted in it."""

    text: str
    tokens: int


class BrokenRecital(msgspec.Struct, frozen=True):
    """One recital whose rustbee was killed.

    Attributes:
        attempts: How many runs it took; 1 says that the kill came too late.
        gap_ms: Longest silence between two tokens of which the second came after the kill.
        seq_before: Number of the last token that came before the kill.
    """

    recital: Recital
    killed: LocalRustbee
    attempts: int
    went_on: str
    gap_ms: float
    seq_before: int


def recite(swarm: Swarmesh) -> Recital:
    """The recital without any trouble.

    Raises:
        RemoteError: It ended in an error.
    """
    pieces: list[str] = []
    tokens = 0
    with _stream(swarm) as stream:
        for event in stream:
            match event:
                case Token(text=text):
                    pieces.append(text)
                case Done(usage=usage):
                    tokens = usage.completion_tokens
    return Recital("".join(pieces), tokens)


def recite_broken(connect: Connect, bees: Mapping[str, LocalRustbee], printer: TokenPrinter) -> BrokenRecital:
    """The recital, printed as it comes; its rustbee is killed with -9 as soon as the first token is there.

    Raises:
        DrillError: It runs on a rustbee that is not in ``bees``.
        RemoteError: The swarm could not go on with it, and says so.
    """
    with connect() as swarm:
        swarm.health()  # The connection on which is asked where it runs is open before milliseconds count.
        arrivals = _Arrivals(connect)
        events = iter(arrivals)
        first = next(events)
        killed = _serving(swarm, arrivals.job_id, bees)
        shown = _Shown(printer, time.monotonic(), killed.rustbee_id)
        killed.kill()
        try:
            for arrival in itertools.chain([first], events):
                shown.take(arrival)
        finally:
            printer.finish()
        view = swarm.show(arrivals.job_id)
    recital = Recital("".join(shown.pieces), shown.tokens)
    return BrokenRecital(recital, killed, view.attempts, view.rustbee_id or "", shown.gap_ms(), shown.seq_before)


def verdict(broken: BrokenRecital, unbroken: Recital) -> str:
    """What happened, in numbers.

    Raises:
        DrillError: The two recitals differ.
    """
    got = broken.recital
    if got != unbroken:
        raise DrillError(
            f"the broken recital has {got.tokens} tokens and {len(got.text)} characters, the unbroken one "
            f"{unbroken.tokens} and {len(unbroken.text)}; they are the same for {_shared(got.text, unbroken.text)} "
            "characters"
        )
    return (
        f"killed       {broken.killed.rustbee_id}, with kill -9, after token {broken.seq_before} of {unbroken.tokens}\n"
        f"went on      {broken.went_on}\n"
        f"longest gap  {broken.gap_ms:.0f} ms\n"
        f"tokens lost  0 of {unbroken.tokens}, none came twice: identical to the unbroken recital"
    )


class _Arrival(NamedTuple):
    at_s: float
    event: Event


class _Arrivals:
    """The events of a recital, each with its moment, read on a thread so that nothing else delays the reading."""

    def __init__(self, connect: Connect) -> None:
        self.job_id = ""
        self._connect = connect
        self._queue: queue.SimpleQueue[_Arrival | SwarmeshError | None] = queue.SimpleQueue()
        # A daemon: Ctrl-C must not wait for an answer that nobody wants any more.
        threading.Thread(target=self._read, name="recital", daemon=True).start()

    def __iter__(self) -> Iterator[_Arrival]:
        while (came := self._next()) is not None:
            yield came

    def _next(self) -> _Arrival | None:
        try:
            came = self._queue.get(timeout=SILENCE_S_MAX)
        except queue.Empty as error:
            raise DrillError(f"nothing came for {SILENCE_S_MAX:g} s") from error
        if isinstance(came, SwarmeshError):
            raise came
        return came

    def _read(self) -> None:
        try:
            with self._connect() as swarm, _stream(swarm) as stream:
                for event in stream:
                    self.job_id = stream.job_id
                    self._queue.put(_Arrival(time.monotonic(), event))
        except SwarmeshError as error:
            self._queue.put(error)
        else:
            self._queue.put(None)


class _Shown:
    """What came so far, printed, with a line where the kill was."""

    def __init__(self, printer: TokenPrinter, killed_at_s: float, rustbee_id: str) -> None:
        self.pieces: list[str] = []
        self.tokens = 0
        self.seq_before = 0
        self._printer = printer
        self._killed_at_s = killed_at_s
        self._mark = f"\n--- {rustbee_id} is killed with kill -9 here, agent and engine ---\n"
        self._times_s: list[float] = []
        self._pause_s = TOKEN_SHOWN_S if sys.stdout.isatty() else 0.0

    def take(self, arrival: _Arrival) -> None:
        match arrival.event:
            case Token() as token:
                self._show(token, arrival.at_s)
            case Done(usage=usage):
                self.tokens = usage.completion_tokens

    def gap_ms(self) -> float:
        pairs = itertools.pairwise(self._times_s)
        gaps_s = [later_s - earlier_s for earlier_s, later_s in pairs if later_s >= self._killed_at_s]
        return max(gaps_s, default=0.0) * 1000

    def _show(self, token: Token, at_s: float) -> None:
        if at_s < self._killed_at_s:
            self.seq_before = token.seq or 0
        else:
            self._printer.write(self._mark)
            self._mark = ""
        self._times_s.append(at_s)
        self.pieces.append(token.text)
        self._printer.write(token.text)
        if self._pause_s:
            time.sleep(self._pause_s)


def _stream(swarm: Swarmesh) -> TokenStream:
    return swarm.stream(QUESTION, modelcell=DEMO_NAME, temperature=0.0)


def _serving(swarm: Swarmesh, job_id: str, bees: Mapping[str, LocalRustbee]) -> LocalRustbee:
    rustbee_id = swarm.show(job_id).rustbee_id or ""
    if rustbee_id not in bees:
        raise DrillError(f"the recital runs on {rustbee_id or 'no rustbee'}, which is none of {', '.join(bees)}")
    return bees[rustbee_id]


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common before they differ."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
