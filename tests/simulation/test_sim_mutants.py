"""Every promise is broken once on purpose, in the core, the agents, the queen or the disk; some seed must notice."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import pytest

from swarmesh.core import candidates, model_book, preemption, refusals, roster
from swarmesh.core.commands import FailTask
from swarmesh.core.dispatch import Dispatcher
from swarmesh.core.errors import RustbeeLostError
from swarmesh.core.events import ModelScaled
from swarmesh.core.eviction import Evictions
from swarmesh.core.fairness import Turns
from swarmesh.core.hosts import Hosts
from swarmesh.core.ids import Blame, ModelName
from swarmesh.core.memory import MemoryBooks
from swarmesh.core.memory_pool import Pool
from swarmesh.core.poison import PoisonBooks
from swarmesh.core.queue import BroodQueue
from swarmesh.core.roster import Roster
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scaling import Scaler
from swarmesh.sim import world
from swarmesh.sim.bounds_watch import BoundsWatch
from swarmesh.sim.disk import Row, VirtualDisk
from swarmesh.sim.execution import Execution
from swarmesh.sim.machine import Machine
from swarmesh.sim.queen import VirtualQueen
from swarmesh.sim.runner import Runner
from swarmesh.sim.scaled_places import ScaledPlaces
from swarmesh.sim.seeds import Broken, run_seed
from swarmesh.sim.world import VirtualWorld

SEEDS_MOST = 40
Patch = pytest.MonkeyPatch


def replaced(patch: Patch, owner: Any, name: str, by: Callable[..., Any]) -> None:
    """Put ``by(original, *arguments)`` in the place of a function."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: by(original, *args, **kwargs))


def repeats_a_token(patch: Patch) -> None:
    def send(original: Any, world: Any, queen: Any, stream: Any, shown: bytes, *, rejoins: bool) -> None:
        original(world, queen, stream, shown[:-1], rejoins=rejoins)

    replaced(patch, VirtualWorld, "send", send)


def hands_on_a_wrong_beginning(patch: Patch) -> None:
    def send(original: Any, world: Any, queen: Any, stream: Any, shown: bytes, *, rejoins: bool) -> None:
        original(world, queen, stream, shown[::-1], rejoins=rejoins)

    replaced(patch, VirtualWorld, "send", send)


def reads_a_stream_it_gave_up(patch: Patch) -> None:
    given_up: dict[Runner, Any] = {}

    def detach(original: Any, runner: Runner) -> Any:
        given_up[runner] = original(runner)
        return given_up[runner]

    def pull(original: Any, runner: Runner, at_ms: int) -> None:
        original(runner, at_ms)
        old = given_up.get(runner)
        if old is not None and runner.stream is not None:
            _, tokens = old.take(at_ms)
            if tokens:
                runner.spokesmen.append(runner.task_id, old.epoch, old.attempt)

    def drop(original: Any, machine: Machine, stream: Any) -> None:
        if stream.execution is not None and stream.execution.over:
            original(machine, stream)

    replaced(patch, Runner, "detach", detach)
    replaced(patch, Runner, "pull", pull)
    replaced(patch, Machine, "drop", drop)


def counts_new_tokens_only(patch: Patch) -> None:
    patch.setattr(Execution, "usage", property(lambda execution: len(execution.tokens)))


def obeys_any_queen(patch: Patch) -> None:
    def admits(_original: Any, machine: Machine, stream: Any) -> bool:
        known = machine.logs.get(stream.request.task.task_id)
        return known is None or stream.attempt > known.attempt

    replaced(patch, Machine, "_admits", admits)


def forgets_a_task_that_moves(patch: Patch) -> None:
    def requeue(_original: Any, dispatcher: Dispatcher, task: Any, _now_ms: int, _out: Any) -> None:
        dispatcher.tasks.pop(task.task_id)

    replaced(patch, Dispatcher, "_requeue", requeue)


def never_tires_of_moving(patch: Patch) -> None:
    patch.setattr(refusals, "MOVES_MAX", 99)


def uses_silent_workers(patch: Patch) -> None:
    def unfit(original: Any, worker: Any) -> str | None:
        reason: str | None = original(worker)
        return None if reason == "silent" and worker.slots_free else reason

    replaced(patch, model_book, "unfit", unfit)


def lets_suspects_meet(patch: Patch) -> None:
    def kept(original: Any, worker: Any, task: Any) -> str | None:
        reason: str | None = original(worker, task)
        return None if reason == "probation" else reason

    for owner in (candidates, model_book):
        replaced(patch, owner, "kept", kept)


def buries_whole_fleets(patch: Patch) -> None:
    replaced(patch, Evictions, "allow", lambda *_, **__: True)


def buries_during_the_amnesty(patch: Patch) -> None:
    def init(original: Any, *args: Any, **_kwargs: Any) -> None:
        original(*args, amnesty_until_ms=0)

    replaced(patch, Roster, "__init__", init)


def believes_its_own_sleep(patch: Patch) -> None:
    patch.setattr(roster, "LOOK_STEP_MS_MAX", 10_000_000)
    buries_whole_fleets(patch)


def never_preempts(patch: Patch) -> None:
    replaced(patch, Dispatcher, "_preempt", lambda *_: None)


def preempts_without_end(patch: Patch) -> None:
    patch.setattr(preemption, "PREEMPTIONS_MAX", 99)


def never_promotes_the_overdue(patch: Patch) -> None:
    replaced(patch, Dispatcher, "_promote_overdue", lambda *_: None)


def sends_the_preempted_to_the_end(patch: Patch) -> None:
    replaced(patch, BroodQueue, "push_front", lambda _original, queue, task: queue.push(task))


def blames_nobody(patch: Patch) -> None:
    replaced(patch, PoisonBooks, "blame", lambda *_: None)


def blames_everybody(patch: Patch) -> None:
    def blame(_original: Any, _books: Any, task: Any, *_: Any) -> None:
        task.kills += 2

    replaced(patch, PoisonBooks, "blame", blame)


def tells_an_end_before_it_is_safe(patch: Patch) -> None:
    def record(original: Any, queen: VirtualQueen, command: Any) -> None:
        runner = queen.runners[command.task_id]
        original(queen, command)
        if command.status.is_final:
            queen._over(runner, command.status)

    replaced(patch, VirtualQueen, "_record", record)


def acknowledges_before_it_is_safe(patch: Patch) -> None:
    def insert(original: Any, disk: VirtualDisk, request: Any, done: Callable[[], None]) -> bool:
        taken: bool = original(disk, request, lambda: None)
        if taken:
            disk._clock.after(0, done)
        return taken

    replaced(patch, VirtualDisk, "insert", insert)


def turns_the_queue_round(patch: Patch) -> None:
    def turn(original: Any, queen: VirtualQueen, row: Row) -> tuple[int, int]:
        rank, serial = original(queen, row)
        return rank, -serial

    replaced(patch, VirtualQueen, "_turn", turn)


def leaves_a_task_behind(patch: Patch) -> None:
    def unfinished(original: Any, disk: VirtualDisk) -> list[Row]:
        rows: list[Row] = original(disk)
        return rows[1:]

    replaced(patch, VirtualDisk, "unfinished", unfinished)


def loses_stored_tokens(patch: Patch) -> None:
    def add(original: Any, disk: VirtualDisk, task_id: Any, first_seq: int, tokens: bytes) -> None:
        original(disk, task_id, first_seq, tokens)
        if first_seq > 1:
            del disk.tokens[task_id][-1:]

    replaced(patch, VirtualDisk, "_add", add)


def ends_a_task_twice(patch: Patch) -> None:
    def cancelled(original: Any, dispatcher: Dispatcher, event: Any, now_ms: int, out: Any) -> None:
        task = dispatcher.tasks.get(event.task_id)
        original(dispatcher, event, now_ms, out)
        if task is not None:
            out.append(FailTask(task.task_id, RustbeeLostError()))

    replaced(patch, Dispatcher, "cancelled", cancelled)


def overhears_that_a_host_is_lost(patch: Patch) -> None:
    replaced(patch, Hosts, "lost", lambda *_: None)


def breaks_off_what_could_have_ended(patch: Patch) -> None:
    def move_streams(_original: Any, hosts: Hosts, worker: Any, out: Any) -> None:
        hosts._dispatcher.give_up_on(worker, "rustbee_stopped", "drained", out, Blame.SWARM)

    replaced(patch, Hosts, "_move_streams", move_streams)


def leaves_workers_on_a_drained_host(patch: Patch) -> None:
    replaced(patch, Hosts, "drain_requested", lambda *_: None)


def promises_memory_twice(patch: Patch) -> None:
    replaced(patch, Pool, "free_without", lambda _original, pool, _gone: pool.usable_mib)


def forgets_who_lives(patch: Patch) -> None:
    replaced(patch, MemoryBooks, "restore", lambda *_: None)


def keeps_memory_of_the_gone(patch: Patch) -> None:
    replaced(patch, MemoryBooks, "release", lambda *_: None)


def lets_the_first_key_go_on(patch: Patch) -> None:
    replaced(patch, Turns, "pay", lambda *_: None)


def never_asks_what_it_cost(patch: Patch) -> None:
    replaced(patch, BroodQueue, "settle", lambda *_: None)


def serves_who_came_first(patch: Patch) -> None:
    def in_turn(_original: Any, turns: Turns) -> Any:
        lines = [line for account in turns._round.values() for line in (account.interactive, account.durable)]
        entries = sorted((entry for line in lines for entry in line.values()), key=itemgetter(0))
        return iter([task for _, task in entries if not turns._holds(task)])

    replaced(patch, Turns, "_in_turn", in_turn)


def starts_more_than_it_may(patch: Patch) -> None:
    def scaled(original: Any, scaler: Scaler, event: ModelScaled, now_ms: int, out: Any) -> None:
        more = Bounds(event.bounds.max_workers + 1, event.bounds.max_workers + 1) if event.bounds else None
        original(scaler, ModelScaled(event.model, more), now_ms, out)

    replaced(patch, Scaler, "scaled", scaled)


def scales_what_nobody_asked_for(patch: Patch) -> None:
    def known(original: Any, places: ScaledPlaces) -> Any:
        yield from original(places)
        yield ModelScaled(places.model(0), Bounds(0, 4))

    def follow(original: Any, watch: BoundsWatch, event: Any) -> None:
        original(watch, event)
        watch._bounds.pop(ModelName("model-0"), None)

    replaced(patch, ScaledPlaces, "_known", known)
    replaced(patch, BoundsWatch, "follow", follow)


def forgets_the_bounds_with_the_queen(patch: Patch) -> None:
    def crown(original: Any, places: ScaledPlaces, queen: VirtualQueen) -> None:
        if queen.epoch == 1:
            original(places, queen)

    replaced(patch, ScaledPlaces, "crown", crown)
    patch.setattr(world, "CALM_MS_MAX", 900_000)


@pytest.mark.parametrize(
    ("mutate", "setting", "words"),
    [
        (repeats_a_token, "small", "is given number"),
        (hands_on_a_wrong_beginning, "small", "is not its final text"),
        (reads_a_stream_it_gave_up, "small", "adds to"),
        (counts_new_tokens_only, "small", "has usage"),
        (obeys_any_queen, "chaos", "obeys epoch"),
        (forgets_a_task_that_moves, "small", "is open by history: True"),
        (never_tires_of_moving, "chaos", "more than 3 times"),
        (uses_silent_workers, "small", "goes to a silent worker"),
        (lets_suspects_meet, "small", "suspects: "),
        (buries_whole_fleets, "chaos", "declared dead within"),
        (buries_during_the_amnesty, "chaos", "during the amnesty"),
        (believes_its_own_sleep, "chaos", "which had no trouble|declared dead within"),
        (never_preempts, "batch", "waits while"),
        (preempts_without_end, "batch", "preempts more than 3 times"),
        (never_promotes_the_overdue, "batch", "preempted too long ago"),
        (sends_the_preempted_to_the_end, "batch", "is preempted and stands behind"),
        (blames_nobody, "small", "crashed 3 engines, 2 may"),
        (blames_everybody, "small", "is innocent and ends failed_poison"),
        (tells_an_end_before_it_is_safe, "chaos", "comes to a second end|tokens are kept"),
        (acknowledges_before_it_is_safe, "chaos", "is not known any more|KeyError"),
        (turns_the_queue_round, "chaos", "wait in the order"),
        (leaves_a_task_behind, "chaos", "is not known any more"),
        (loses_stored_tokens, "chaos", "tokens are kept|and is given number"),
        (ends_a_task_twice, "small", "ends a task that runs or is over"),
        (overhears_that_a_host_is_lost, "small", "goes to a silent worker"),
        (breaks_off_what_could_have_ended, "small", "which could have ended"),
        (leaves_workers_on_a_drained_host, "small", "does not end with its host"),
        (promises_memory_twice, "batch", "MiB promised"),
        (forgets_who_lives, "chaos", "has promised"),
        (keeps_memory_of_the_gone, "small", "and booked"),
        (lets_the_first_key_go_on, "batch", "which has had"),
        (never_asks_what_it_cost, "batch", "which has had"),
        (serves_who_came_first, "small", "which has had"),
        (promises_memory_twice, "scaled", "MiB promised"),
        (starts_more_than_it_may, "scaled", "may be"),
        (scales_what_nobody_asked_for, "scaled", "0 may be"),
        (forgets_the_bounds_with_the_queen, "scaled", "tasks never ended"),
    ],
)
def test_a_broken_promise_is_noticed(
    mutate: Callable[[Patch], None], setting: str, words: str, monkeypatch: Patch
) -> None:
    mutate(monkeypatch)
    outcomes = (run_seed(setting, seed, check=True) for seed in range(1, SEEDS_MOST + 1))
    broken = next((outcome for outcome in outcomes if isinstance(outcome, Broken)), None)
    assert broken is not None, "nobody noticed"
    assert any(part in broken.words for part in words.split("|")), broken.words
    assert broken.replay == f"python -m swarmesh.sim --setting {setting} --seeds {broken.seed} --check"
