"""What the core says about scaling and placement, in the words of the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

import msgspec

from swarmesh.core.clause import clause
from swarmesh.core.placement import HYSTERESIS, WEIGHTS, ChosenBy, HostCandidate, HostVerdict, Placement
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_rule import rustbees
from swarmesh.core.scale_view import ActionView, ScaleDecision, ScaleKind, ScaleState
from swarmesh.wire.swarmscale import (
    BoundsView,
    PlacementExplained,
    RustbeeWish,
    ScaleActionView,
    ScaleDecisionView,
    ScaleView,
    SiteView,
)


class ScriptWish(msgspec.Struct, frozen=True):
    """How many workers of a model a policy script wants, whatever its bounds are."""

    name: str
    count: int


def bounds_view(bounds: Bounds, *, own: bool, wish: RustbeeWish | None) -> BoundsView:
    """Bounds as they hold."""
    return BoundsView(min=bounds.min_workers, max=bounds.max_workers, own=own, paused=bounds.paused, rustbee=wish)


def scale_view(
    state: ScaleState, now_ms: int, *, own: bool, wish: RustbeeWish | None = None, adopted: int = 0
) -> ScaleView:
    """One modelcell; ``adopted`` of its workers are servers without an agent."""
    stats, bounds = state.stats, state.bounds
    return ScaleView(
        modelcell=state.model,
        bounds=bounds_view(bounds, own=own, wish=wish) if bounds is not None else None,
        target=state.target,
        rustbees=stats.serving,
        adopted=adopted,
        starting=stats.starting,
        slots=stats.slots,
        slots_busy=stats.busy,
        load=round(stats.load, 3),
        waiting=stats.waiting,
        wait_s=_s(stats.wait_ms),
        latency_s=_s(stats.latency_ms),
        idle_s=_s(stats.idle_ms),
        blocked=state.blocked,
        breaker_s=_s(state.breaker_ms),
        breaker_reason=state.breaker_reason,
        up_in_s=_s(state.up_in_ms),
        down_in_s=_s(state.down_in_ms),
        action=_action_view(state.action) if state.action is not None else None,
        last=decision_view(state.last, now_ms) if state.last is not None else None,
    )


def decision_view(decision: ScaleDecision, now_ms: int) -> ScaleDecisionView:
    """One decision."""
    return ScaleDecisionView(
        ago_s=_s(now_ms - decision.at_ms),
        kind=decision.kind.value,
        count=decision.count,
        target=decision.target,
        rule=decision.rule,
        reason=decision.reason,
        rustbees=decision.workers,
    )


def scale_words(state: ScaleState, *, paused: bool = False, script: ScriptWish | None = None) -> str:
    """In a sentence: what is done, else what is wanted and what keeps it from being done, else why nothing is.

    Args:
        state: Of the modelcell.
        paused: Nothing is started or stopped by itself, of no modelcell.
        script: What a script says, which then is the reason in place of the load.
    """
    if state.action is not None:
        return state.action.words
    if state.bounds is None:
        return f"{state.model} has no bounds: nothing is started or stopped by itself"
    wanted = state.last
    because = _of_script(script, state, state.bounds) if script is not None else wanted.reason if wanted else ""
    if wanted is None or wanted.kind is ScaleKind.HOLD:
        steady = f"{state.model} has {rustbees(state.stats.serving)} and wants {state.target}: nothing to do"
        said = (because or steady, _pause(state, paused=paused) or _breaker(state))
        return "; ".join(filter(None, said))
    held = _pause(state, paused=paused) or (wanted.kind is ScaleKind.UP and _breaker(state)) or clause(state.blocked)
    what = f"{wanted.kind} {wanted.count}"
    return f"{what} is held back: {held}; wanted because {because}" if held else f"{what}: {because}"


def _of_script(script: ScriptWish, state: ScaleState, bounds: Bounds) -> str:
    wants = f"policy script {script.name!r} wants {script.count}"
    if script.count > bounds.max_workers:
        return f"{wants}, at most {bounds.max_workers} {_is(bounds.max_workers)} allowed"
    if script.count < bounds.min_workers:
        return f"{wants}, at least {bounds.min_workers} {_is(bounds.min_workers)} kept"
    present = state.stats.serving + state.stats.starting
    return f"{wants}, and {present} {_is(present)} there"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _pause(state: ScaleState, *, paused: bool) -> str:
    own = state.bounds is not None and state.bounds.paused
    if not (own or paused):
        return ""
    whose = "of every modelcell" if not own else "of every modelcell and of this one" if paused else "of this modelcell"
    return f"scaling {whose} is paused"


def _breaker(state: ScaleState) -> str:
    if not state.breaker_ms:
        return ""
    return f"no start is tried for another {state.breaker_ms / 1000:.0f} s, because {clause(state.breaker_reason)}"


def placement_view(
    model: str,
    placement: Placement,
    *,
    live: bool,
    candidates: Iterable[HostCandidate] = (),
    failures: Mapping[str, str] | None = None,
) -> PlacementExplained:
    """A choice of a host, with what would have changed it."""
    known = {candidate.host: candidate for candidate in candidates}
    verdicts = sorted(placement.reasons, key=lambda verdict: (bool(verdict.veto), -verdict.score, verdict.host))
    hosts = [_site_view(verdict, known.get(verdict.host)) for verdict in verdicts]
    hosts += [SiteView(host=host, veto=why) for host, why in (failures or {}).items()]
    return PlacementExplained(
        modelcell=model,
        live=live,
        choice=placement.choice,
        by=placement.by.value,
        words=_placement_words(model, placement, hosts, live=live),
        weights=dict(WEIGHTS),
        hosts=tuple(hosts),
        would_change=tuple(_would_change(placement, verdicts, hosts)),
    )


def _action_view(action: ActionView) -> ScaleActionView:
    return ScaleActionView(
        kind=action.kind.value,
        phase=action.phase,
        since_s=_s(action.since_ms),
        host=action.host,
        load_s=_s(action.load_ms) if action.load_ms else None,
        words=action.words,
    )


def _site_view(verdict: HostVerdict, candidate: HostCandidate | None) -> SiteView:
    view = SiteView(host=verdict.host, veto=verdict.veto, votes=dict(verdict.votes), score=round(verdict.score, 3))
    if candidate is None:
        return view
    free_mib = sum(pool.free_mib for pool in candidate.pools)
    return msgspec.structs.replace(
        view, need_mib=candidate.need_mib, free_mib=free_mib, file_there=candidate.file_there
    )


def _placement_words(model: str, placement: Placement, hosts: list[SiteView], *, live: bool) -> str:
    if placement.choice is None:
        nobody = f"no host takes a rustbee of {model!r} now" if live else f"no host took a rustbee of {model!r}"
        said = "; ".join(f"{site.host or 'everywhere'}: {site.veto}" for site in hosts) or "no host is connected"
        return f"{nobody}: {said}"
    others = [site for site in hosts if not site.veto and site.host != placement.choice]
    if not others:
        only = f"takes a rustbee of {model!r} now" if live else f"could take a rustbee of {model!r} then"
        return f"{placement.choice} {'is' if live else 'was'} the only host that {only}"
    best = next(site for site in hosts if site.host == placement.choice)
    scores, next_one = f"{best.host} with {best.score:.3f}", f"{others[0].host} with {others[0].score:.3f}"
    match placement.by:
        case ChosenBy.VOTES:
            return f"{scores}; next is {next_one}"
        case ChosenBy.SCRIPT:
            return f"the policy script chose {scores}; next is {next_one}"
        case ChosenBy.LAST:
            return f"{scores} stays: {next_one} is no better than {HYSTERESIS:g} times that"
        case _:
            assert_never(placement.by)


def _would_change(placement: Placement, verdicts: list[HostVerdict], hosts: list[SiteView]) -> Iterable[str]:
    chosen = next((verdict for verdict in verdicts if verdict.host == placement.choice), None)
    rival = next((verdict for verdict in verdicts if not verdict.veto and verdict.host != placement.choice), None)
    if chosen is not None and rival is not None:
        match placement.by:
            case ChosenBy.VOTES:
                gap = chosen.score - rival.score
                yield f"{rival.host} needs {gap:.3f} more{_nearest_vote(chosen, rival, gap)}"
            case ChosenBy.LAST:
                gap = HYSTERESIS * chosen.score - rival.score
                yield f"{rival.host} needs {gap:.3f} more{_nearest_vote(chosen, rival, gap)}"
            case ChosenBy.SCRIPT:
                yield "the policy script decides by its own numbers: 'swarmesh policy deactivate' leaves it to votes"
            case _:
                assert_never(placement.by)
    for site in hosts:
        if site.veto and site.need_mib > site.free_mib:
            yield f"{site.host} needs {site.need_mib - site.free_mib} MiB more free"


def _nearest_vote(chosen: HostVerdict, rival: HostVerdict, gap: float) -> str:
    """The vote that could close the gap alone, if there is one."""
    winning = dict(chosen.votes)
    for name, vote in rival.votes:
        needed = vote + gap / WEIGHTS[name]
        if winning.get(name, 0.0) > vote and needed <= 1.0:
            return f", such as {name} {needed:.2f} instead of {vote:.2f}"
    return ""


def _s(ms: int) -> float:
    return round(ms / 1000, 3)
