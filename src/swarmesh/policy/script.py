"""A user's script, asked in a process of its own. Nothing it does holds the queen up for longer than `ANSWER_S_MAX`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from swarmesh.core.script import Facts, Hook, Script, ScriptAwayError, ScriptFailedError, ScriptLateError
from swarmesh.policy.answers import oddness, words
from swarmesh.policy.frames import Answer, Ask, Failure, Load, Loaded, Refused, Report
from swarmesh.policy.mistake import Mistake, ScriptEndedError, ScriptInvalidError, ScriptMistakeError
from swarmesh.policy.moment import Moment, moment
from swarmesh.policy.process import ProcessEndedError, ScriptProcess, demand_language

ANSWER_S_MAX: Final = 0.025
"""How long the queen waits for one answer. The script may compute for 5 ms of that; the rest is for a machine on which
processes wait for their turn. More makes fewer answers late there, and lets one that hangs stop the queen longer."""
LATE_S_MAX: Final = 0.25
"""An answer that is later ends the process, and is a failure. Until it comes, nothing is asked: the queen does not wait
twice for one."""
START_S_MAX: Final = 10.0
RESTART_S_MIN: Final = 1.0
"""Between two starts of a process, so that a script that crashes it each time costs no more than this."""
SOURCE_BYTES_MAX: Final = 256 * 1024
NAME_CHARS_MAX: Final = 128
ERRORS_KEPT: Final = 20
_GONE_S_MAX: Final = 1.0

_Said = Callable[[tuple[str, ...]], None]


class Tally(msgspec.Struct):
    """What asking a script came to so far.

    Attributes:
        asked: Questions that reached it, answered or not.
        failed: Of those.
        answered: Of those, with anything in time, be it a failure.
        late: Of those, with no answer in time.
        away: Times it could not be asked, because its process was being started or late.
        round_trip_us_sum: Wall time of the answers, as the queen waited for them.
    """

    asked: int = 0
    failed: int = 0
    answered: int = 0
    late: int = 0
    away: int = 0
    round_trip_us_sum: int = 0
    round_trip_us_max: int = 0
    cpu_us_sum: int = 0
    cpu_us_max: int = 0
    starts: int = 0


class _Late(NamedTuple):
    """A question whose answer has not come in time; monotonic seconds."""

    hook: Hook
    since_s: float


class SandboxedScript(Script):
    """See `swarmesh.core.script.Script`. One thread asks; `open` may run in another, since it waits.

    Attributes:
        tally: What asking it came to.
        errors: Its last failures: Unix seconds, and what was wrong.
        warnings: What looks wrong in it and does no harm.
    """

    def __init__(
        self,
        load: Load,
        loaded: Loaded,
        process: ScriptProcess,
        *,
        said: _Said,
        clock: Callable[[], float],
        answer_s: float,
    ) -> None:
        self.name = load.name
        self.hooks = frozenset(Hook(hook) for hook in loaded.hooks)
        self.warnings = loaded.warnings
        self.tally = Tally(starts=1)
        self.errors: deque[tuple[float, str]] = deque(maxlen=ERRORS_KEPT)
        self._load = load
        self._said = said
        self._clock = clock
        self._answer_s = answer_s
        self._process: ScriptProcess | None = process
        self._is_loading = False
        self._late: _Late | None = None
        self._started_s = process.started_s
        self._serial = 0
        self._dying: deque[ScriptProcess] = deque()
        said(loaded.said)

    @classmethod
    def open(
        cls,
        name: str,
        source: str,
        *,
        said: _Said = lambda _lines: None,
        clock: Callable[[], float] = time.time,
        answer_s: float | None = None,
    ) -> SandboxedScript:
        """Start its process and wait until the script is loaded there.

        Args:
            name: For people: that of its file.
            source: Its text.
            said: Told what it prints.
            clock: Unix seconds, for what the script is told of the time.
            answer_s: How long one answer is waited for; `ANSWER_S_MAX` unless given.

        Raises:
            ScriptInvalidError: It has mistakes.
            ScriptEndedError: Its process ended while it was loaded.
            ScriptFailedError: Its process cannot be started, or did not load it in time, or there is no Starlark here.
        """
        demand_language()
        load = Load(_name(name), _source(name, source))
        process = _process(load)
        try:
            process.send(load, START_S_MAX)
            report = process.receive(START_S_MAX)
        except ProcessEndedError as error:
            process.wait_gone(_GONE_S_MAX)
            raise ScriptEndedError([Mistake(f"cannot be loaded: {error}", load.name)]) from error
        if isinstance(report, Loaded):
            return cls(load, report, process, said=said, clock=clock, answer_s=answer_s or ANSWER_S_MAX)
        process.kill()
        process.wait_gone(_GONE_S_MAX)
        if isinstance(report, Refused):
            raise ScriptInvalidError(report.mistakes)
        raise ScriptFailedError(f"{load.name} was not loaded within {START_S_MAX:g} s")

    @property
    def pid(self) -> int:
        """Of its process; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    @property
    def is_away(self) -> bool:
        """Whether it could not be asked now, because its process is being started or late."""
        return self._process is None or self._is_loading or self._late is not None

    @property
    def source(self) -> str:
        """Its text."""
        return self._load.source

    def admit(self, task: Facts) -> str | None:
        """See `Script.admit`."""
        answer: str | None = self._ask(Hook.ADMIT, [task], 0)
        return answer

    def score(self, task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
        """See `Script.score`."""
        answer: list[float | None] = self._ask(Hook.SCORE, [task, workers], len(workers))
        return answer

    def place(self, model: Facts, hosts: Sequence[Facts]) -> Sequence[float | None]:
        """See `Script.place`."""
        answer: list[float | None] = self._ask(Hook.PLACE, [model, hosts], len(hosts))
        return answer

    def scale(self, model: Facts, stats: Facts) -> int | None:
        """See `Script.scale`."""
        answer: int | None = self._ask(Hook.SCALE, [model, stats], 0)
        return answer

    def close(self) -> None:
        """End its process; it can be asked no more. Takes no longer than `_GONE_S_MAX`, whatever keeps processes."""
        self._drop()
        until_s = time.monotonic() + _GONE_S_MAX
        while self._dying:
            self._dying.popleft().wait_gone(max(0.0, until_s - time.monotonic()))

    def _ask(self, hook: Hook, arguments: list[Facts | Sequence[Facts]], expected: int) -> Any:
        process = self._ready()
        self._serial += 1
        self.tally.asked += 1
        line = msgspec.json.encode(arguments, enc_hook=_plain).decode()
        began_s = time.monotonic()
        report = self._answer(process, hook, Ask(self._serial, hook, line, self._moment(), expected), began_s)
        self._count(report, time.monotonic() - began_s)
        self._said(report.said)
        if isinstance(report, Failure):
            raise self._failed(hook, report.mistake)
        odd = oddness(hook, report.value, expected)
        if odd is not None:
            raise self._failed(hook, Mistake(words(hook, odd, expected), self.name))
        return report.value

    def _answer(self, process: ScriptProcess, hook: Hook, ask: Ask, began_s: float) -> Answer | Failure:
        until_s = began_s + self._answer_s
        try:
            process.send(ask, self._answer_s)
            while (left_s := until_s - time.monotonic()) > 0 and (report := process.receive(left_s)) is not None:
                if isinstance(report, Answer | Failure) and report.serial == ask.serial:
                    return report
        except ProcessEndedError as error:
            self._drop()
            raise self._failed(hook, Mistake(f"{hook}: {error}", self.name)) from error
        # Whose fault it is will be known when it comes: the script's, or that of a machine with no time for it.
        self._late = _Late(hook, began_s)
        self.tally.late += 1
        raise ScriptLateError(f"{self.name}: {hook} gave no answer within {self._answer_s * 1_000:g} ms")

    def _ready(self) -> ScriptProcess:
        """The process, if it can be asked now.

        Raises:
            ScriptAwayError: It is being started, or still at what it was asked before.
            ScriptFailedError: It could not be loaded again, or what it was asked before turned out to have failed.
        """
        self._clear()
        if self._process is None:
            self._start()
        elif self._is_loading:
            self._look_loaded(self._process)
        elif self._late is not None:
            self._look_late(self._process, self._late)
        if self._process is None or self.is_away:
            self.tally.away += 1
            raise ScriptAwayError(f"{self.name} cannot be asked just now: its process is starting, or late")
        return self._process

    def _start(self) -> None:
        now_s = time.monotonic()
        if now_s - self._started_s < RESTART_S_MIN:
            return
        self._started_s = now_s
        self.tally.starts += 1
        try:
            self._process = ScriptProcess()
            self._process.send(self._load, ANSWER_S_MAX)
        except ProcessEndedError:
            self._drop()  # That the machine has no process or file for it is no fault of the script.
        else:
            self._is_loading = True

    def _look_loaded(self, process: ScriptProcess) -> None:
        report = self._received(process)
        match report:
            case Loaded():
                self._is_loading = False
            case Refused():
                self._drop()
                raise ScriptFailedError(f"{self.name} cannot be loaded again: {report.mistakes[0].words}")
            case _ if time.monotonic() - self._started_s > START_S_MAX:
                self._drop()

    def _look_late(self, process: ScriptProcess, late: _Late) -> None:
        try:
            report = process.receive(0.0)
        except ProcessEndedError as error:
            self._drop()
            raise self._failed(late.hook, Mistake(f"{late.hook}: {error}", self.name)) from error
        if report is None:
            self._give_up(late)
            return
        self._late = None
        if isinstance(report, Failure):
            raise self._failed(late.hook, report.mistake)

    def _give_up(self, late: _Late) -> None:
        if time.monotonic() - late.since_s > LATE_S_MAX:
            self._drop()
            mistake = Mistake(f"{late.hook} gave no answer within {LATE_S_MAX * 1_000:g} ms", self.name)
            raise self._failed(late.hook, mistake)

    def _received(self, process: ScriptProcess) -> Report | None:
        try:
            return process.receive(0.0)
        except ProcessEndedError as error:
            self._drop()
            raise ScriptFailedError(f"{self.name} cannot be loaded again: {error}") from error

    def _drop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._dying.append(self._process)
        self._process, self._is_loading, self._late = None, False, None

    def _clear(self) -> None:
        while self._dying and self._dying[0].is_gone():
            self._dying.popleft()

    def _failed(self, hook: Hook, mistake: Mistake) -> ScriptMistakeError:
        self.tally.failed += 1
        self.errors.append((time.time(), mistake.words))
        return ScriptMistakeError(mistake, hook)

    def _count(self, report: Answer | Failure, round_trip_s: float) -> None:
        tally, micros = self.tally, round(round_trip_s * 1_000_000)
        tally.answered += 1
        tally.round_trip_us_sum += micros
        tally.round_trip_us_max = max(tally.round_trip_us_max, micros)
        tally.cpu_us_sum += report.cpu_us
        tally.cpu_us_max = max(tally.cpu_us_max, report.cpu_us)

    def _moment(self) -> Moment:
        return moment(self._clock())


def _process(load: Load) -> ScriptProcess:
    try:
        return ScriptProcess()
    except ProcessEndedError as error:
        raise ScriptFailedError(f"{load.name} cannot be loaded: {error}") from error


def _name(name: str) -> str:
    printable = "".join(char for char in name if char.isprintable())
    return printable[:NAME_CHARS_MAX] or "script"


def _source(name: str, source: str) -> str:
    size = len(source.encode("utf-8", "surrogatepass"))
    if size > SOURCE_BYTES_MAX:
        message = f"the script has {size:,} bytes, more than {SOURCE_BYTES_MAX:,}"
        raise ScriptInvalidError([Mistake(message, _name(name))])
    return source


def _plain(value: object) -> object:
    """Facts may be any mapping."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no fact")
