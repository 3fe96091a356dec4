"""The runs as Markdown: a table for each workload and fleet, and below them who is best and where the swarm is not."""

from __future__ import annotations

from bench.relay.report import as_table, facts
from swarmesh.sim.routing.outcome import Outcome

from .field import SWARM, Field, Figure, Spread, failures, mean_ms, p50_ms, p99_ms, prompt_share

HEAD = [
    "router",
    "mean TTFT, ms",
    "p50",
    "p99",
    "within 2 s",
    "of prompts cached",
    "Jain, busy time",
    "failed",
]
P99_LIMIT = 1.10
"""How much worse than the best p99 the swarm's may be where all workers are equal."""
LEADS_WANTED = 5


def markdown(field: Field, machine: dict[str, str]) -> str:
    """Verdicts first, then every table, then the machine."""
    sections = ["\n".join(_verdicts(field))]
    for fleet in field.fleets:
        sections += [
            f"**{workload}, {fleet} workers**\n\n{_table(field, fleet, workload)}" for workload in field.workloads
        ]
    sections.append("\n".join(facts(machine)))
    return "\n\n".join(sections)


def losses(field: Field) -> list[str]:
    """Every figure in which another router is better than the swarm's default policy, one line each."""
    lines = []
    for fleet in field.fleets:
        for workload in field.workloads:
            lines += _losses(field, fleet, workload)
    return lines


def _verdicts(field: Field) -> list[str]:
    lines = []
    for fleet in field.fleets:
        leads = [workload for workload in field.workloads if field.swarm_leads(fleet, workload)]
        words = f"swarm best mean and best share in {len(leads)} of {len(field.workloads)} ({fleet})"
        wanted = f", wanted {LEADS_WANTED}" if fleet == "unequal" else ""
        lines.append(f"- {words}{wanted}: {', '.join(leads) or 'none'}")
    if "equal" in field.fleets:
        farthest = max(field.workloads, key=lambda workload: _above_best_p99(field, workload))
        above = _above_best_p99(field, farthest)
        lines.append(
            f"- p99 within {above:.1%} of the best (equal), farthest in {farthest}, wanted {P99_LIMIT - 1:.0%}"
        )
        lines += [_p99(field, workload) for workload in field.workloads]
    lost = losses(field)
    lines += ["", "Where another router is better than the swarm:", "", *(lost or ["- nowhere"])]
    return lines


def _above_best_p99(field: Field, workload: str) -> float:
    best = field.best("equal", workload, p99_ms)
    own, least = (field.spread("equal", workload, name, p99_ms).mean for name in (SWARM, best))
    return own / least - 1 if least else 0.0


def _p99(field: Field, workload: str) -> str:
    above, best = _above_best_p99(field, workload), field.best("equal", workload, p99_ms)
    verdict = "holds" if above <= P99_LIMIT - 1 else "missed"
    return f"- {workload}: p99 within {above:.1%} of the best ({best}): {verdict}"


def _losses(field: Field, fleet: str, workload: str) -> list[str]:
    lines = []
    figures: list[tuple[str, Figure, bool]] = [
        ("mean", mean_ms, False),
        ("p99", p99_ms, False),
        ("share within 2 s", prompt_share, True),
    ]
    for name, figure, highest in figures:
        best = field.best(fleet, workload, figure, highest=highest)
        own, other = field.spread(fleet, workload, SWARM, figure), field.spread(fleet, workload, best, figure)
        if own.mean != other.mean:
            show = _share if highest else _ms
            lines.append(f"- {workload}, {fleet}, {name}: {best} {show(other)}, swarm {show(own)}")
    return lines


def _table(field: Field, fleet: str, workload: str) -> str:
    rows = [_row(field, fleet, workload, router) for router in field.routers]
    bands = _bands(field, fleet, workload)
    head = HEAD + [f"{band}: mean" for band in bands]
    return as_table(head, [[*row, *_by_band(field, fleet, workload, row[0], bands)] for row in rows])


def _row(field: Field, fleet: str, workload: str, router: str) -> list[str]:
    def spread(figure: Figure) -> Spread:
        return field.spread(fleet, workload, router, figure)

    return [
        router,
        _ms(spread(mean_ms)),
        f"{spread(p50_ms).mean:,.0f}",
        _ms(spread(p99_ms)),
        _share(spread(prompt_share)),
        f"{spread(lambda outcome: outcome.cached_share).mean:.1%}",
        f"{spread(lambda outcome: outcome.jain_busy).mean:.3f}",
        f"{spread(failures).mean:.0f}",
    ]


def _bands(field: Field, fleet: str, workload: str) -> list[str]:
    return list(field.outcomes[fleet, workload, field.routers[0]][0].by_priority)


def _by_band(field: Field, fleet: str, workload: str, router: str, bands: list[str]) -> list[str]:
    def mean(band: str) -> Figure:
        def of(outcome: Outcome) -> float:
            return outcome.by_priority[band].ttft_ms_mean

        return of

    return [_ms(field.spread(fleet, workload, router, mean(band))) for band in bands]


def _ms(spread: Spread) -> str:
    return f"{spread.mean:,.0f} ({spread.low:,.0f} to {spread.high:,.0f})"


def _share(spread: Spread) -> str:
    return f"{spread.mean:.1%} ({spread.low:.1%} to {spread.high:.1%})"
