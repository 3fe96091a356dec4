"""What would have changed a decision, computed from its candidates as they stood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from swarmesh.core.decision import MEASURED, POLICY_PREEMPT, POLICY_RETURN, SENIOR, Candidate, Decision
from swarmesh.core.figures import figure
from swarmesh.core.policies import PolicyName

RUNNERS_UP_MAX: Final = 3
"""Others that are spoken of."""
NEST_WEIGHTS: Final = {"load": 0.4, "proximity": 0.3, "match": 0.3}
"""Of the votes in R-15's score."""

VETO_WORDS: Final = {
    "busy": "a free slot",
    "tried": "not having failed this task before",
    "probation": "no other task on probation there",
    "silent": "an answer on the queennode's connection",
    "starting": "having started",
    "draining": "not being drained",
    "dead": "being alive",
    "policy": "the policy script's consent",
}
"""What a worker lacked that was left out for this reason."""


def would_change(decision: Decision) -> tuple[str, ...]:
    """One sentence for each thing that would have changed it."""
    if decision.policy == POLICY_RETURN:
        return ("nothing, while that rustbee lives: it has had this task under the queennode before",)
    chosen = next((each for each in decision.candidates if each.worker_id == decision.chosen), None)
    sentences: list[str] = []
    if decision.policy == POLICY_PREEMPT:
        sentences.append("a free slot anywhere, and nobody had been preempted")
    if chosen is not None:
        others = [each for each in decision.candidates if each is not chosen][:RUNNERS_UP_MAX]
        sentences += [_for_runner_up(decision, chosen, other) for other in others]
    sentences += [_for_veto(reason, count) for reason, count in decision.vetoes]
    if not sentences:
        there = "one to choose from" if decision.considered else "none"
        sentences.append(f"only another rustbee with this modelcell: there was {there}")
    return tuple(sentences)


def _for_runner_up(decision: Decision, chosen: Candidate, other: Candidate) -> str:
    gap = other.score - chosen.score if decision.better == "lower" else chosen.score - other.score
    who = str(other.worker_id)
    if gap < 0:
        why = "only taken to be measured again" if decision.reason == MEASURED else "taken all the same"
        return f"{who} had the better score by {figure(-gap)}; {chosen.worker_id} was {why}"
    if gap == 0:
        return f"{who} had the same score{' and less uptime' if decision.reason == SENIOR else '; equals take turns'}"
    lever = _LEVERS.get(decision.policy)
    if lever is not None and (words := lever(chosen, other, gap)):
        return f"{who} {words}"
    return f"{who} would have been chosen with a score {decision.better} by {figure(gap)}"


def _for_veto(reason: str, count: int) -> str:
    lack = VETO_WORDS.get(reason, f"not being {reason}")
    who = "one rustbee" if count == 1 else f"{count} rustbees"
    return f"{who} would have been considered with {lack}"


def _less_work(chosen: Candidate, other: Candidate, gap: float) -> str:
    parts = dict(other.parts)
    backlog_s, prefill_s = parts.get("backlog_s", 0.0), parts.get("prefill_s", 0.0)
    busy_s = backlog_s + parts.get("decode_s", 0.0)
    ways = []
    if gap <= backlog_s:
        ways.append(f"with {figure(gap)} s less backlog (it had {figure(backlog_s)} s)")
    elif gap <= busy_s:
        ways.append("with nothing else to do")
    if gap <= prefill_s:
        ways.append(f"with {figure(gap)} s less of the prompt to read (it had {figure(prefill_s)} s)")
    elif busy_s < gap <= busy_s + prefill_s:
        ways.append(f"with nothing else to do and {figure(gap - busy_s)} s less of the prompt to read")
    if chosen.score > 0 and parts.get("speed", 0.0) > 0:
        needed = parts["speed"] * other.score / chosen.score
        ways.append(f"at a speed of about {figure(needed)} in place of {figure(parts['speed'])}")
    return _would_be_chosen(ways, gap)


def _less_load(_chosen: Candidate, other: Candidate, gap: float) -> str:
    load = dict(other.parts).get("load", 0.0)
    return _would_be_chosen([_lower_load(gap, load)] if gap <= load else [], gap)


def _more_votes(_chosen: Candidate, other: Candidate, gap: float) -> str:
    parts = dict(other.parts)
    lacks = {name: gap / weight for name, weight in NEST_WEIGHTS.items()}
    load, proximity, match = parts.get("load", 0.0), parts.get("proximity", 1.0), parts.get("match", 1.0)
    ways = [_lower_load(lacks["load"], load)] if lacks["load"] <= load else []
    if proximity + lacks["proximity"] <= 1:
        ways.append(f"with a proximity of {proximity + lacks['proximity']:.2f} in place of {proximity:.2f}")
    if match + lacks["match"] <= 1:
        ways.append(f"with a match of {match + lacks['match']:.2f} in place of {match:.2f}")
    return _would_be_chosen(ways, gap)


def _another_age(chosen: Candidate, other: Candidate, gap: float) -> str:
    mine, its = dict(chosen.parts), dict(other.parts)
    age_s = its.get("uptime_s", 0.0)
    if abs(other.score) == age_s:  # High and low go by age alone.
        return f"would have been chosen with {figure(gap)} s {'more' if other.score >= 0 else 'less'} uptime"
    ways = ["with calm and uptime enough to be stable"] if its.get("stable", 0.0) < mine.get("stable", 0.0) else []
    load = its.get("load", 0.0)
    return _would_be_chosen([*ways, *([_lower_load(gap, load)] if gap <= load else [])], gap)


def _fewer_tokens(_chosen: Candidate, _other: Candidate, gap: float) -> str:
    return f"would have been chosen with {figure(gap)} token-equivalents less per slot in its books"


def _its_turn(_chosen: Candidate, _other: Candidate, _gap: float) -> str:
    return "has its turn later"


def _lower_load(gap: float, load: float) -> str:
    return f"with a load lower by {gap:.2f} (it was {load:.2f})"


def _would_be_chosen(ways: list[str], gap: float) -> str:
    if not ways:
        return f"would not have been chosen even idle: its score lacked {figure(gap)}"
    return f"would have been chosen {', or '.join(ways)}"


_LEVERS: Final[dict[str, Callable[[Candidate, Candidate, float], str]]] = {
    PolicyName.SWARM.value: _less_work,
    PolicyName.FORAGING.value: _less_load,
    PolicyName.NEST_SITE.value: _more_votes,
    PolicyName.DIVISION_OF_LABOUR.value: _another_age,
    PolicyName.LEAST_WORK.value: _fewer_tokens,
    PolicyName.ROUND_ROBIN.value: _its_turn,
}
