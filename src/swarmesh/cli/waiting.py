"""Waiting for workers and for what takes long, with a line on the terminal that says how far they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final

from swarmesh.cli.screen import counted, duration, harmless, mebibytes, note
from swarmesh.client import Swarmesh
from swarmesh.core.errors import EngineStartError, SwarmeshError
from swarmesh.core.liveness import WorkerStatus
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.hosts import HostStatus, Step, StepState
from swarmesh.wire.views import RustbeeView

LOAD_WAIT_S_MAX: Final = 1800.0
"""Longest wait for a model to load; a large one from a slow disk takes minutes. A copy that moves on starts it anew."""
REGISTER_WAIT_S_MAX: Final = 40.0
"""Longest wait for a worker that lives to be known to the queen; a waggle at rest is 30 s."""
WITHIN_REACH: Final = frozenset({HostStatus.LOCAL, HostStatus.CONNECTED})
"""How a host stands on which a worker can be waited for."""
_POLL_S: Final = 0.2
_BAR_CHARS: Final = 20


class WaitTimeoutError(SwarmeshError):
    """What was waited for did not happen in time."""

    code = "wait_timeout"
    status = 504


Show = Callable[[str], None]


@contextmanager
def progress() -> Iterator[Show]:
    """A line on the terminal that moves and disappears; nothing where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console  # noqa: PLC0415 - rich is slow to import, and only terminals need it
    from rich.text import Text  # noqa: PLC0415 - as above

    with Console(stderr=True).status("") as status:
        # Text, not markup: what stands in brackets is meant so.
        yield lambda text: status.update(Text(text))


@contextmanager
def step_lines() -> Iterator[Callable[[Step], None]]:
    """Show steps: a line for each that is done, and on a terminal one that moves while a step goes on."""
    with progress() as show:

        def take(step: Step) -> None:
            if step.state is StepState.RUNNING:
                show(moving(step))
            else:
                show("")
                note(f"  {_words(step)}")

        yield take


def moving(step: Step) -> str:
    """How far a step is, in one line: with a bar where bytes count."""
    if not step.total_bytes:
        return _words(step)
    share = min(1.0, step.done_bytes / step.total_bytes)
    bar = ("#" * round(share * _BAR_CHARS)).ljust(_BAR_CHARS, ".")
    done = mebibytes(step.done_bytes) or "0 MiB"
    return f"{_words(step)} [{bar}] {share:.0%}, {done} of {mebibytes(step.total_bytes)}"


def _words(step: Step) -> str:
    return harmless(step.text) or step.step


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, told of bytes done and bytes in all (0 while not known)."""
    if not sys.stderr.isatty():
        yield lambda _done_bytes, _total_bytes: None
        return
    from rich.console import Console  # noqa: PLC0415 - rich is slow to import, and only terminals need it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - as above

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done_bytes, total_bytes: bar.update(task, completed=done_bytes, total=total_bytes or None)


def wait_healthy(
    swarm: Swarmesh,
    rustbee_ids: Collection[str],
    modelcell: str,
    *,
    unknown_for_s: float = 0.0,
    each_time: Callable[[], None] = lambda: None,
) -> list[RustbeeView]:
    """Wait until workers are healthy, and return them as they are then.

    ``unknown_for_s`` is how long the queen may not know a worker that has yet to introduce itself; ``each_time`` is
    called between looks and may raise to end the waiting.

    Raises:
        RemoteError: The queen does not know one of them.
        EngineStartError: One is dead; says why when the queen does.
        WaitTimeoutError: One is neither healthy nor dead `LOAD_WAIT_S_MAX` after it last got further.
    """
    loading = _Loading(swarm, rustbee_ids, modelcell)
    with progress() as show:
        while True:
            waited_s = time.monotonic() - loading.began_s
            loading.look(tolerant=waited_s < unknown_for_s)
            if not loading.missing:
                return loading.views()
            if time.monotonic() - loading.moved_s > LOAD_WAIT_S_MAX:
                raise WaitTimeoutError(
                    f"still not healthy after {duration(waited_s)}: {', '.join(sorted(loading.missing))}",
                    hint="'swarmesh rustbees list' shows how they are; they may still become healthy.",
                )
            each_time()
            show(loading.line())
            time.sleep(_POLL_S)


class _Loading:
    """Workers on their way to be healthy, and when one of them last got further with what it waits for."""

    def __init__(self, swarm: Swarmesh, rustbee_ids: Collection[str], modelcell: str) -> None:
        self._swarm = swarm
        self._ids = list(rustbee_ids)
        self._modelcell = modelcell
        self._healthy: dict[str, RustbeeView] = {}
        self._progress: dict[str, Step] = {}
        self.began_s = self.moved_s = time.monotonic()

    @property
    def missing(self) -> set[str]:
        return set(self._ids) - self._healthy.keys()

    def views(self) -> list[RustbeeView]:
        return [self._healthy[rustbee_id] for rustbee_id in self._ids]

    def look(self, *, tolerant: bool) -> None:
        for rustbee_id in self.missing:
            view = _look(self._swarm, rustbee_id, tolerant=tolerant)
            if view is not None and view.status == WorkerStatus.HEALTHY:
                self._healthy[rustbee_id] = view
            elif view is not None:
                self._follow(view)

    def line(self) -> str:
        for rustbee_id in sorted(self.missing & self._progress.keys()):
            return moving(self._progress[rustbee_id])
        waited = duration(time.monotonic() - self.began_s)
        return (
            f"loading {self._modelcell}: {len(self._healthy)} of {counted(len(self._ids), 'rustbee')} healthy, {waited}"
        )

    def _follow(self, view: RustbeeView) -> None:
        before = self._progress.get(view.rustbee_id)
        if view.progress is None:
            self._progress.pop(view.rustbee_id, None)
        elif view.progress != before:
            self._progress[view.rustbee_id] = view.progress
            if before is None or before.step != view.progress.step:
                note(_words(view.progress))
        if view.progress != before:
            self.moved_s = time.monotonic()


def wait_gone(swarm: Swarmesh, rustbee_ids: Collection[str], within_s: float) -> None:
    """Wait until the queen has no such workers any more.

    Raises:
        WaitTimeoutError: One is still there.
    """
    give_up_at = time.monotonic() + within_s
    with progress() as show:
        while True:
            left = [view for view in swarm.rustbees() if view.rustbee_id in rustbee_ids and _is_alive(view)]
            if not left:
                return
            if time.monotonic() > give_up_at:
                names = ", ".join(f"{view.rustbee_id} (pid {view.pid})" for view in left)
                raise WaitTimeoutError(
                    f"still there after {within_s:g} s: {names}",
                    hint="'swarmesh rustbee stop ID' on their host ends one.",
                )
            busy = sum(view.slots_busy for view in left)
            show(f"waiting for {counted(len(left), 'rustbee')} to finish, {counted(busy, 'task')} left")
            time.sleep(_POLL_S)


def _is_alive(view: RustbeeView) -> bool:
    return view.status != WorkerStatus.DEAD


def _look(swarm: Swarmesh, rustbee_id: str, *, tolerant: bool) -> RustbeeView | None:
    try:
        view = swarm.rustbee(rustbee_id)
    except RemoteError as error:
        if tolerant and error.status == 404:
            return None
        raise
    if view.status == WorkerStatus.DEAD:
        if view.error is not None:
            raise RemoteError(view.error, status=502)
        raise EngineStartError(f"{rustbee_id} died and did not say why", hint="'swarmesh waggle status' shows alarms.")
    return view
