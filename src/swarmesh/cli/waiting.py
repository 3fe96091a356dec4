"""Waiting for workers to come or go, with a line on the terminal that says how far they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final

from swarmesh.cli.screen import duration
from swarmesh.client import Swarmesh
from swarmesh.core.errors import EngineStartError, SwarmeshError
from swarmesh.core.liveness import WorkerStatus
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.views import RustbeeView

LOAD_WAIT_S_MAX: Final = 1800.0
"""Longest wait for a model to load; a large one from a slow disk takes minutes."""
REGISTER_WAIT_S_MAX: Final = 40.0
"""Longest wait for a worker that lives to be known to the queen; a waggle at rest is 30 s."""
_POLL_S: Final = 0.2


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

    with Console(stderr=True).status("") as status:
        yield status.update


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
        WaitTimeoutError: One is neither healthy nor dead after `LOAD_WAIT_S_MAX`.
    """
    healthy: dict[str, RustbeeView] = {}
    began_s = time.monotonic()
    with progress() as show:
        while True:
            waited_s = time.monotonic() - began_s
            for rustbee_id in set(rustbee_ids) - healthy.keys():
                view = _look(swarm, rustbee_id, tolerant=waited_s < unknown_for_s)
                if view is not None and view.status == WorkerStatus.HEALTHY:
                    healthy[rustbee_id] = view
            if len(healthy) == len(rustbee_ids):
                return [healthy[rustbee_id] for rustbee_id in rustbee_ids]
            if waited_s > LOAD_WAIT_S_MAX:
                missing = ", ".join(sorted(set(rustbee_ids) - healthy.keys()))
                raise WaitTimeoutError(
                    f"still not healthy after {duration(waited_s)}: {missing}",
                    hint="'swarmesh rustbees list' shows how they are; they may still become healthy.",
                )
            each_time()
            show(f"loading {modelcell}: {len(healthy)} of {len(rustbee_ids)} rustbees healthy, {duration(waited_s)}")
            time.sleep(_POLL_S)


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
            show(f"waiting for {len(left)} rustbees to finish, {sum(view.slots_busy for view in left)} tasks left")
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
