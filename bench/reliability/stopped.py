"""SIGSTOP in the middle of a stream: a process that lives, holds its connections and does nothing."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Final

from . import processes
from .case import Case
from .chat import Chat
from .faults import Cutter, Fault
from .hive import Hive
from .nectarflow import Nectarflow
from .plan import Plan
from .question import Surface
from .recital import LATEST, SONG, SPEC, spread
from .result import Outcome, Row, row_of
from .sight import Sight

RUNS: Final = 10
RECOVERED_MS_MAX: Final = 30_000
GOAL: Final = "identical, usage equal, finished on another rustbee, next token within 30 s"


class Stopped:
    """Of the engine, and of the agent."""

    name = "stopped"
    about = "llama.cpp, demo modelcell, the song of the hive, a process stopped with SIGSTOP in the middle of it"

    def run(self, plan: Plan) -> Outcome:
        """See `Scenario`."""
        outcome = Outcome()
        with Hive() as hive, closing(Chat(hive.openai_url, hive.key)) as chat:
            surfaces: list[Surface] = [Nectarflow(hive.queen), chat]
            for fault in (Fault.ENGINE_STOPPED, Fault.AGENT_STOPPED):
                for surface in surfaces:
                    outcome.rows.append(plan.saw(_row(plan, hive, surface, fault)))
        return outcome


def _row(plan: Plan, hive: Hive, surface: Surface, fault: Fault) -> Row:
    hive.keep(SPEC, 2)
    unbroken = surface.ask(SONG)
    case = _Ended("stopped", f"{fault.value}, {surface.name}", hive, SPEC, surface, SONG, unbroken, fault)
    count = plan.count(RUNS)
    runs = [plan.journal.write(case.run(indexes)) for indexes in spread(count, 1, int(unbroken.count * LATEST))]
    row = row_of(runs, GOAL, wanted=count)
    slow = row.recovered is not None and row.recovered.p99 > RECOVERED_MS_MAX
    return replace(row, held=row.held and not slow)


class _Ended(Case):
    """A case that ends what it stopped, so that nothing stopped is left for the next one."""

    def _ask(self, indexes: tuple[int, ...]) -> tuple[Sight, Cutter]:
        seen, cutter = super()._ask(indexes)
        for blow in cutter.blows:
            self.hive.give_up(blow.rustbee.rustbee_id)
            processes.kill(blow.rustbee.pid, blow.rustbee.engine_pid)
        return seen, cutter
