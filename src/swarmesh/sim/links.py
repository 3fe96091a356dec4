"""The queen's own connections to workers: silence on them, in streams first, and the doubt she owes her own pauses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from swarmesh.core.events import WorkerFellSilent, WorkerHeard
from swarmesh.core.ids import WorkerId
from swarmesh.sim.machine import Machine

if TYPE_CHECKING:
    from swarmesh.sim.queen import VirtualQueen

STALLED_MS: Final = 3_000
"""A stream without a byte for so long is broken."""
SILENT_MS: Final = 5_000
"""A worker without a byte for so long is silent."""


class VirtualLinks:
    """Watches, for one queen, which machines can be heard."""

    def __init__(self, queen: VirtualQueen) -> None:
        self._queen = queen
        self._silent: set[WorkerId] = set()

    def lost(self, machine: Machine) -> None:
        """Nothing gets through from this machine any more."""
        for runner in self._queen.runners_on(machine.worker_id):
            if runner.stream is not None and runner.stream.deaf_ms is None:
                runner.stream.deaf_ms = self._queen.now_ms
        self.expect(machine)

    def expect(self, machine: Machine) -> None:
        """Notice in due time if the machine stays silent."""
        self._patiently(machine, STALLED_MS, self._break_streams)
        self._patiently(machine, SILENT_MS, self._report)

    def cut(self, machine: Machine) -> None:
        """The way to this machine is gone, and with it all streams; whoever lost its host has said so."""
        self._silent.add(machine.worker_id)
        for runner in self._queen.runners_on(machine.worker_id):
            if runner.stream is not None:
                self._queen.broke(runner.stream, "stream_cut")

    def found(self, machine: Machine) -> None:
        """Everything gets through again, what was on its way too."""
        for runner in self._queen.runners_on(machine.worker_id):
            if runner.stream is not None:
                runner.stream.deaf_ms = None
        if machine.worker_id in self._silent:
            self._silent.discard(machine.worker_id)
            self._queen.post(WorkerHeard(machine.worker_id))

    def _patiently(self, machine: Machine, limit_ms: int, act: Callable[[Machine], None]) -> None:
        outage, queen = machine.outage, self._queen

        def look() -> None:
            if not queen.alive or machine.outage != outage:
                return
            if queen.paused or queen.now_ms < queen.woke_ms + limit_ms:
                queen.clock.after(limit_ms, look)  # She has not listened for so long herself.
            else:
                act(machine)

        queen.clock.after(limit_ms, look)

    def _break_streams(self, machine: Machine) -> None:
        for runner in self._queen.runners_on(machine.worker_id):
            if runner.stream is not None and runner.stream.deaf_ms is not None:
                self._queen.broke(runner.stream, "stream_stalled")

    def _report(self, machine: Machine) -> None:
        if machine.worker_id in self._silent:
            return
        self._silent.add(machine.worker_id)
        self._queen.tell(WorkerFellSilent(machine.worker_id, "nothing for 5 s"))
