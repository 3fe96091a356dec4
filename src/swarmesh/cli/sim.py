"""`swarmesh sim`: who would get which request, and how many rustbees a load would bring; nothing of it is real."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from swarmesh.cli.failure import UsageError
from swarmesh.cli.screen import AsJson, counted, note, print_facts, print_json, print_table
from swarmesh.sim.routing.outcome import Outcome, Waits, WorkerShare
from swarmesh.sim.routing.request import CONTEXT_TOKENS, Request
from swarmesh.sim.routing.run import ROUTERS, simulate
from swarmesh.sim.routing.trace import read_trace, rescale
from swarmesh.sim.routing.workloads import WORKLOADS, generate
from swarmesh.sim.scaling.outcome import Outcome as ScaleOutcome
from swarmesh.sim.scaling.outcome import live
from swarmesh.sim.scaling.traces import TRACES, plan_of

SPEEDS: Final = "2,2,1,1,.5,.5,.25,.25"
WORKERS_MAX: Final = 1_000
SHOWN_CHARS_MAX: Final = 60
SPEED_MIN, SPEED_MAX = 0.01, 100.0
LOAD_MIN: Final = 0.001
"""With less, most of a run is seconds in which nothing happens, and each of them is simulated."""
SPAN_DAYS_MAX: Final = 60
REQUESTS_MAX: Final = 1_000_000
HEADINGS: Final = ("rustbee", "speed", "requests", "busy", "cached", "mean first token")

app = typer.Typer(no_args_is_help=True, help="Routing and scaling on virtual time: policies, workloads, traces.")


@app.callback()
def sim() -> None:
    """Routing and scaling on virtual time: policies, workloads, traces."""


@app.command()
def run(
    workload: Annotated[str | None, typer.Option(help=f"One of {', '.join(WORKLOADS)}.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="A recorded load instead: Mooncake's JSON lines, or Azure's CSV columns.")
    ] = None,
    policy: Annotated[str, typer.Option(help=f"One of {', '.join(ROUTERS)}.")] = "swarm",
    speeds: Annotated[str, typer.Option(help="Of each rustbee, relative to a consumer GPU.")] = SPEEDS,
    seed: Annotated[int, typer.Option(help="The same seed, the same run.")] = 1,
    load: Annotated[
        float,
        typer.Option(
            min=0,
            max=10,
            help=f"Work asked for over what the rustbees can do, {LOAD_MIN:g} at least; 0: a trace's pace.",
        ),
    ] = 0.7,
    requests: Annotated[int, typer.Option(min=0, max=REQUESTS_MAX, help="How many; 0 for all there are.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Run a workload or a trace under a policy; example: swarmesh sim run --workload agent --policy swarm."""
    if policy not in ROUTERS:
        raise UsageError(f"no policy is called {policy!r}", hint=f"One of {', '.join(ROUTERS)}.")
    if 0 < load < LOAD_MIN:
        raise UsageError(f"--load {load:g} is less than {LOAD_MIN:g}", hint="--load 0.7, or 0 for a trace's own pace.")
    fleet = _speeds(speeds)
    load_of = _requests(workload, trace, fleet, seed, load, requests)
    _demand_short(load_of)
    outcome = simulate(load_of, policy, fleet, seed=seed)
    name = workload or str(trace)
    if as_json:
        print_json({"workload": name, "load": load, **_fields(outcome)})
    else:
        _print(name, outcome)
        _note_cut(load_of if trace is not None else [])


@app.command()
def scale(
    trace: Annotated[str, typer.Option(help=f"One of {', '.join(TRACES)}.")],
    seed: Annotated[int, typer.Option(help="The same seed, the same run.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run a load and see how many rustbees come and go; example: swarmesh sim scale --trace step --seed 3."""
    if trace not in TRACES:
        raise UsageError(f"no trace is called {trace!r}", hint=f"One of {', '.join(TRACES)}.")
    outcome = live(plan_of(trace, seed)).outcome
    if as_json:
        print_json(_fields(outcome))
    else:
        _print_scale(outcome)


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="sim")


def _requests(
    workload: str | None, trace: Path | None, speeds: tuple[float, ...], seed: int, load: float, requests: int
) -> list[Request]:
    if workload is not None and trace is not None:
        raise UsageError("--workload and --trace both say what is asked: give one of them, not both")
    if workload is None and trace is None:
        raise UsageError("either --workload or --trace says what is asked", hint=f"--workload {next(iter(WORKLOADS))}")
    if trace is not None:
        if not trace.exists():
            raise UsageError(
                f"{trace} does not exist", hint="--trace takes a file: Mooncake's JSON lines, or Azure's CSV columns."
            )
        recorded = read_trace(trace, requests=requests)
        return rescale(recorded, speeds=speeds, load_ratio=load) if load else recorded
    if workload is None or workload not in WORKLOADS:
        raise UsageError(f"no workload is called {workload!r}", hint=f"One of {', '.join(WORKLOADS)}.")
    if not load:
        raise UsageError("a workload has no pace of its own", hint="--load 0.7")
    return generate(workload, seed=seed, speeds=speeds, load_ratio=load, requests=requests)


def _demand_short(load_of: list[Request]) -> None:
    """Every second of a run is simulated, also those in which nobody asks."""
    days = max((request.at_ms for request in load_of), default=0.0) / 86_400_000
    if days > SPAN_DAYS_MAX:
        words = (
            f"from the first request to the last there are {days:,.0f} days, and at most {SPAN_DAYS_MAX} are simulated"
        )
        raise UsageError(words, hint="--requests N takes the first lines of a trace; --load 0.7 gives it another pace.")


def _note_cut(load_of: list[Request]) -> None:
    cut = sum(1 for request in load_of if request.prompt_tokens + request.output_tokens >= CONTEXT_TOKENS)
    if cut:
        note(f"{counted(cut, 'request')} cut to {CONTEXT_TOKENS:,} tokens, prompt and answer")


def _speeds(text: str) -> tuple[float, ...]:
    try:
        speeds = tuple(float(speed) for speed in text.split(","))
    except ValueError:
        speeds = ()
    if not 1 <= len(speeds) <= WORKERS_MAX or not all(SPEED_MIN <= speed <= SPEED_MAX for speed in speeds):
        shown = text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}..."
        words = f"--speeds {shown!r} is not a list of up to {WORKERS_MAX} numbers from {SPEED_MIN} to {SPEED_MAX:g}"
        raise UsageError(words, hint=f"--speeds {SPEEDS}")
    return speeds


def _fields(outcome: Outcome | ScaleOutcome) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in outcome.__struct_fields__}


def _print(name: str, outcome: Outcome) -> None:
    waits = outcome.waits
    print_facts(
        [
            ("workload", f"{name}, {counted(outcome.requests, 'request')}, seed {outcome.seed}"),
            ("policy", outcome.policy),
            ("first token", _first_token(waits)),
            *((f"  {band}", _first_token(of_band)) for band, of_band in outcome.by_priority.items()),
            ("within 2 s", f"{waits.within_2s_share:.1%}"),
            ("whole answer", f"mean {outcome.end_ms_mean:,.0f} ms, p99 {outcome.end_ms_p99:,.0f} ms"),
            ("cached", f"{outcome.cached_share:.1%} of prompt tokens"),
            ("busy, Jain", f"{outcome.jain_busy:.3f}"),
            ("failed", ", ".join(f"{count} {code}" for code, count in outcome.failed.items()) or "none"),
        ]
    )
    print()
    print_table(HEADINGS, (_row(number, worker) for number, worker in enumerate(outcome.workers)))
    note(f"{outcome.virtual_s:,.0f} s of virtual time; nothing was sent anywhere")


def _first_token(waits: Waits) -> str:
    p50, p99 = f"{waits.ttft_ms_p50:,.0f} ms", f"{waits.ttft_ms_p99:,.0f} ms"
    return f"mean {waits.ttft_ms_mean:,.0f} ms, p50 {p50}, p99 {p99}"


def _print_scale(outcome: ScaleOutcome) -> None:
    waited_s, loaded_s = outcome.wake_wait_ms_p50 / 1_000, outcome.wake_start_ms_p50 / 1_000
    print_facts(
        [
            ("trace", f"{outcome.trace}, {counted(outcome.requests, 'request')}, seed {outcome.seed}"),
            ("wait", f"p50 {outcome.wait_ms_p50 / 1_000:,.1f} s, p99 {outcome.wait_ms_p99 / 1_000:,.1f} s"),
            (
                "from zero",
                f"{outcome.wakes} starts; first request waits p50 {waited_s:,.1f} s, loading {loaded_s:,.1f} s",
            ),
            ("for load", f"{outcome.ups} started, {outcome.downs} stopped, {outcome.reversals} changes of direction"),
            ("in 10 min", f"{outcome.reversals_10_min_max} changes of direction at most"),
            (
                "otherwise",
                f"{outcome.sleeps} to zero, {outcome.swaps} for another modelcell, {outcome.given_up} too slow",
            ),
            ("rustbees", f"mean {outcome.replicas_mean:.2f}; {outcome.replicas_least:.2f} would have done"),
            ("failed", ", ".join(f"{count} {code}" for code, count in outcome.failed.items()) or "none"),
            ("broken", "; ".join(f"{check}: {words}" for check, words in outcome.broken_first.items()) or "nothing"),
        ]
    )
    note("virtual time; nothing was started anywhere")


def _row(number: int, worker: WorkerShare) -> tuple[str, ...]:
    shares = (f"{worker.busy_share:.1%}", f"{worker.cached_share:.1%}")
    first = f"{worker.ttft_ms_mean:,.0f} ms" if worker.requests else ""
    return (f"rustbee-{number}", f"{worker.speed:g}", f"{worker.requests:,}", *shares, first)
