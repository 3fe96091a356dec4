"""The processes of one rustbee on this machine, proved to be its own before anything is done to them."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Final

import msgspec

from swarmesh.config.home import Home
from swarmesh.core.errors import ConflictError, NotFoundError
from swarmesh.core.liveness import WorkerStatus
from swarmesh.hosts.agent_file import AgentFile, read_agent_file
from swarmesh.hosts.local import WORKER_ID
from swarmesh.hosts.process_identity import ProcessIdentity
from swarmesh.wire.spec import Backend
from swarmesh.wire.views import RustbeeView

START_HINT: Final = "'swarmesh rustbees list' shows them; 'swarmesh spawn rustbee --modelcell NAME' starts one."


class RustbeeElsewhereError(ConflictError):
    """The rustbee's processes are not on this machine, or belong to another home."""

    code = "rustbee_elsewhere"
    default_hint = (
        "Run the drill on that machine, with the home the rustbee was started with; 'cut' works from anywhere."
    )


class RustbeeNotOursError(ConflictError):
    """The rustbee is a server that somebody else started and that was only adopted."""

    code = "rustbee_not_ours"
    default_hint = "Swarmesh never ends what it did not start; 'swarmesh chaos cut' only keeps the queen from it."


class ProcessGoneError(ConflictError):
    """The process is not there, or may not be signalled."""

    code = "process_gone"
    default_hint = "'swarmesh rustbees list' shows how the rustbees are now."


class LocalRustbee(msgspec.Struct, frozen=True):
    """An agent and its engine; ``engine`` is None while it has none."""

    rustbee_id: str
    agent: ProcessIdentity
    engine: ProcessIdentity | None

    def must_have_engine(self) -> ProcessIdentity:
        """The engine's process.

        Raises:
            ProcessGoneError: There is none at the moment.
        """
        if self.engine is None:
            raise ProcessGoneError(f"{self.rustbee_id} has no engine at the moment; it is starting one")
        return self.engine

    def kill(self) -> None:
        """End agent and engine with SIGKILL, the agent first, so that it cannot tell the queen.

        Raises:
            ProcessGoneError: The agent had ended already.
        """
        send(self.agent, signal.SIGKILL, f"the agent of {self.rustbee_id}")
        if self.engine is not None:
            self.engine.send(signal.SIGKILL)  # It may have died of its agent's death first.


def local_rustbee(home: Home, view: RustbeeView) -> LocalRustbee:
    """The processes of a worker that runs on this machine with this home.

    Raises:
        RustbeeNotOursError: It is an adopted server.
        RustbeeElsewhereError: Its processes are not this home's.
        ProcessGoneError: Its agent has ended, and its pid may be somebody else's by now.
    """
    if view.status == WorkerStatus.DEAD:
        raise ProcessGoneError(f"{view.rustbee_id} is dead already")
    if view.backend == Backend.OPENAI:
        raise RustbeeNotOursError(f"{view.rustbee_id} is the adopted server at {view.location}")
    file = _agent_file(home, view.rustbee_id)
    if file is None or file.pid != view.pid:
        raise RustbeeElsewhereError(
            f"{view.rustbee_id} (host {view.host}, pid {view.pid}) is no process of the home {home.root}"
        )
    agent = ProcessIdentity(file.pid, file.started_at, file.boot_id)
    if not agent.alive:
        raise ProcessGoneError(f"the agent of {view.rustbee_id}, pid {file.pid}, has ended")
    engine = ProcessIdentity(file.engine_pid, file.engine_started_at, file.boot_id) if file.engine_pid else None
    return LocalRustbee(view.rustbee_id, agent, engine)


def pick_view(views: Iterable[RustbeeView]) -> RustbeeView:
    """A healthy worker, the busiest one if any has work.

    Raises:
        NotFoundError: There is none.
    """
    healthy = [view for view in views if view.status == WorkerStatus.HEALTHY]
    if not healthy:
        raise NotFoundError("no healthy rustbee is there for this drill", hint=START_HINT)
    return max(healthy, key=lambda view: view.slots_busy)


def is_local(home: Home, view: RustbeeView) -> bool:
    """Whether `local_rustbee` finds its processes."""
    try:
        local_rustbee(home, view)
    except ConflictError:
        return False
    return True


def send(process: ProcessIdentity, signum: signal.Signals, name: str) -> None:
    """Signal a process, and no other that got its pid.

    Raises:
        ProcessGoneError: It has ended, or belongs to another user.
    """
    if not process.send(signum):
        why = "may not be signalled by this user" if process.alive else "has ended"
        raise ProcessGoneError(f"{name}, pid {process.pid}, {why}")


def _agent_file(home: Home, rustbee_id: str) -> AgentFile | None:
    # The id is the queen's word, and she may be another machine's: it must not lead out of this home.
    if not WORKER_ID.fullmatch(rustbee_id):
        return None
    file = read_agent_file(home.worker_dir(rustbee_id))
    return file if file is not None and file.rustbee_id == rustbee_id else None
