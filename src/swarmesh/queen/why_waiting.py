"""Why a task waits, and what would let it run: the first of all reasons that holds.

Cheap enough for every task that somebody waits with: a script is asked only while a rustbee is free that could take
the task, and a long queue is not counted to its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from typing import Final

import msgspec

from swarmesh.core.candidates import BUSY
from swarmesh.core.decision import POLICY_VETO, Decision
from swarmesh.core.ids import ModelName
from swarmesh.core.limits import MINUTE_MS, KeyBook, expected_tokens
from swarmesh.core.scale_action import Phase
from swarmesh.core.scale_sites import BARRED
from swarmesh.core.scale_view import ScaleState
from swarmesh.core.scale_words import bounds_for
from swarmesh.core.swarm import Swarm
from swarmesh.core.task import Task

WAITING: Final = "waiting"
"""Phase of a task for which no rustbee is being started."""
AHEAD_COUNTED_MAX: Final = 64
"""Tasks before one that waits; more are not counted."""

_OF_TASK: Final = frozenset({BUSY, "tried", "probation", POLICY_VETO})
"""What keeps a task from a rustbee that serves; any other reason says that it does not serve now."""


class WhyWaiting(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task waits.

    Attributes:
        words: In one sentence.
        would_help: One sentence each: what would let it run.
        phase: `WAITING`, or how far the start is that it waits for.
        since_ms: How long it has waited, or how long the start has been going on.
        expected_ms: How long the start took before; None where there is none, or nobody knows.
    """

    words: str
    would_help: tuple[str, ...]
    phase: str
    since_ms: int
    expected_ms: int | None = None


def why_waiting(
    swarm: Swarm, task: Task, at_ms: int, decision: Decision | None = None, *, has_model: Callable[[ModelName], bool]
) -> WhyWaiting:
    """Why a task that waits does so.

    Args:
        swarm: Whose task it is.
        task: One that waits.
        at_ms: Now.
        decision: What the router says of it now, where that is known already.
        has_model: Whether there is anything to start a worker of a model from; asked only where nobody serves it.
    """
    limits = swarm.dispatcher.limits
    if limits.holds(task):
        return _because(task, at_ms, *_held(limits.of(task.key_id), task, at_ms))
    now = swarm.router.choose(task, at_ms) if decision is None else decision
    vetoes = dict(now.vetoes)
    if now.chosen is None and POLICY_VETO in vetoes:
        return _because(task, at_ms, *_kept(swarm, task, vetoes, now.considered))
    action = swarm.scaler.under_way(task.model, at_ms)
    if action is not None and action.phase != Phase.STOPPING.value:
        return WhyWaiting(
            words=action.words,
            would_help=("nothing: it runs as soon as a rustbee of its modelcell is ready",),
            phase=action.phase,
            since_ms=action.since_ms,
            expected_ms=action.load_ms or None,
        )
    away = {reason: count for reason, count in vetoes.items() if reason not in _OF_TASK}
    if sum(away.values()) >= now.considered:
        return _because(task, at_ms, *_nobody(swarm, task, away, at_ms, has_model))
    return _because(task, at_ms, *_in_the_queue(swarm, task, now, vetoes))


def _because(task: Task, at_ms: int, words: str, *would_help: str) -> WhyWaiting:
    line = " ".join(words.split())  # What an engine died of has lines of its own.
    return WhyWaiting(words=line, would_help=would_help, phase=WAITING, since_ms=at_ms - task.queued_at_ms)


def _held(book: KeyBook, task: Task, at_ms: int) -> tuple[str, ...]:
    if book.concurrency and book.taken >= book.concurrency:
        each_s = max(1, round(book.run_ms / book.taken / 1_000))
        under_way = "1 task of its key is" if book.taken == 1 else f"{book.taken} tasks of its key are"
        words = f"{under_way} under way, and the key may have {book.concurrency} at once; one ends in about {each_s} s"
        return words, "fewer tasks of this key under way, or a key that may have more at once"
    left, needed = book.left_parts_at(at_ms), book.parts_needed(task)
    wait_s = max(1, math.ceil((needed - left) / book.tokens_per_minute / 1_000))
    has = f"has {left // MINUTE_MS:,} left" if left >= 0 else f"has used {-left // MINUTE_MS:,} more than that"
    words = (
        f"its key may use {book.tokens_per_minute:,} tokens per minute and {has}; this task may take "
        f"{expected_tokens(task):,} and is let go when {needed // MINUTE_MS:,} are left, in {wait_s} s if no other "
        "task of the key starts before"
    )
    return words, "fewer tokens: a smaller --max-tokens or a shorter prompt", "a key with more tokens per minute"


def _kept(swarm: Swarm, task: Task, vetoes: dict[str, int], considered: int) -> tuple[str, ...]:
    script = swarm.scripted.name
    which = "every rustbee" if vetoes[POLICY_VETO] == considered else "every free rustbee"
    return (
        f"policy script {script!r} keeps it from {which} of {task.model!r}",
        "the policy script's consent, or no script: 'swarmesh policy deactivate' takes it out of use",
    )


def _nobody(
    swarm: Swarm, task: Task, away: dict[str, int], at_ms: int, has_model: Callable[[ModelName], bool]
) -> tuple[str, ...]:
    """No rustbee serves the modelcell, and none is being started by the scaler."""
    model = task.model
    there = ", ".join(f"{count} {reason}" for reason, count in away.items())
    nobody = f"no rustbee of {model!r} serves now" + (f" ({there})" if there else "")
    spawn = f"'swarmesh spawn rustbee --modelcell {model}' starts one"
    if starting := away.get("starting"):
        who = "a rustbee" if starting == 1 else f"{starting} rustbees"
        return (
            f"{who} of {model!r} {'is' if starting == 1 else 'are'} starting",
            "nothing: it runs as soon as one is ready",
        )
    state = _state(swarm, task, at_ms)
    if state is None or state.bounds is None:
        present = state.stats.serving + state.stats.starting if state is not None else 0
        return _unscaled(model, present, nobody, spawn) if has_model(model) else _unknown(task, nobody)
    if state.breaker_ms:
        left_s = max(1, round(state.breaker_ms / 1_000))
        return (
            f"{nobody}, and none could be started: {state.breaker_reason}; tried again in {left_s} s",
            f"what kept it from being started: 'swarmesh explain placement {model}' looks at each host",
            "bounds that are set anew: 'swarmesh swarmscale set' tries at once",
            *([_deactivate(swarm)] if BARRED in state.breaker_reason else []),
        )
    if state.blocked == "paused":
        whose = f" {model}" if state.bounds.paused else ""
        return f"{nobody}, and scaling is paused", f"'swarmesh swarmscale resume{whose}' goes on", spawn
    if not state.target and swarm.scripted.name:
        return f"{nobody}, and policy script {swarm.scripted.name!r} wants none now", spawn, _deactivate(swarm)
    return f"{nobody}: {state.blocked or 'one is started soon'}", spawn


def _deactivate(swarm: Swarm) -> str:
    return f"no script: 'swarmesh policy deactivate' takes {swarm.scripted.name!r} out of use"


def _unscaled(model: ModelName, present: int, nobody: str, spawn: str) -> tuple[str, ...]:
    return (
        f"{nobody}, and none is started by itself",
        spawn,
        f"bounds: with {bounds_for(model, present)} rustbees come and go by themselves",
    )


def _unknown(task: Task, nobody: str) -> tuple[str, ...]:
    """Known it was when it came, else it would not have been taken in."""
    model, spawn = task.model, "swarmesh spawn rustbee"
    return (
        f"{nobody}, and the queennode's catalog has no modelcell of that name",
        f"the modelcell: 'swarmesh models add FILE --name {model}', then '{spawn} --modelcell {model}'",
        f"a server that has it: '{spawn} --type openai --url URL --modelcell {model}'",
        f"no longer wanted: 'swarmesh nectarflow cancel {task.task_id}'",
    )


def _in_the_queue(swarm: Swarm, task: Task, now: Decision, vetoes: dict[str, int]) -> tuple[str, ...]:
    """A rustbee serves the modelcell, and has others to serve, or will not have this task."""
    model = task.model
    if now.chosen is not None:
        return f"it waits for its turn{_ahead(swarm, task)}", "nothing: its turn comes"
    if BUSY not in vetoes:
        return (
            f"every rustbee that serves {model!r} now has failed this task, or has another one on probation",
            f"another rustbee: 'swarmesh spawn rustbee --modelcell {model}' starts one",
        )
    slots = "the one rustbee" if vetoes[BUSY] == 1 else f"{vetoes[BUSY]} rustbees"
    return (
        f"all slots of {slots} with {model!r} are in use{_ahead(swarm, task)}",
        "a free slot: a task that runs now has to end, or one more rustbee to start",
    )


def _state(swarm: Swarm, task: Task, at_ms: int) -> ScaleState | None:
    try:
        return swarm.scaler.state_of(task.model, at_ms)
    except KeyError:
        return None


def _ahead(swarm: Swarm, task: Task) -> str:
    ahead = 0
    for other in islice(swarm.dispatcher.queue.ready(task.model), AHEAD_COUNTED_MAX + 1):
        if other is task:
            break
        ahead += 1
    if not ahead:
        return ", and it is next"
    if ahead > AHEAD_COUNTED_MAX:
        return f", and more than {AHEAD_COUNTED_MAX} tasks wait before it"
    return f", and {ahead} {'task waits' if ahead == 1 else 'tasks wait'} before it"
