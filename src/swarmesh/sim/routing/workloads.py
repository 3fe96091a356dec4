"""Six kinds of load, drawn from a seed; sizes in tokens are lognormal, given as the mean and deviation of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from random import Random
from typing import Final

from swarmesh.core.ids import KeyId, Priority
from swarmesh.sim.routing import arrivals
from swarmesh.sim.routing.engine import EngineModel
from swarmesh.sim.routing.request import BLOCK_TOKENS, CONTEXT_TOKENS, Request, Text

GROUPS, GROUP_SIZE = 64, 16
SYSTEM_TOKENS, QUESTION_TOKENS, GROUP_OUTPUT_TOKENS = 2_048, 128, 256

CONVERSATION_OUTPUT: Final = (5.34, 1.36)
DELTA: Final = (7.79, 1.29)
"""What each turn adds to its history, so that prompts in all come near lognormal(8.74, 1.20)."""
TURNS_MIN, TURNS_MAX, NEXT_TURN = 2, 4, 0.5
TURN_PAUSE_MS: Final = 30_000

AGENT_OUTPUT: Final = (3.92, 1.77)
AGENT_FIRST: Final = (7.25, 2.65)
"""Prompts that begin a run, so that those of all `AGENT_STEPS` come near lognormal(7.98, 2.70)."""
AGENT_SEEN: Final = (0.64, 0.86)
AGENT_STEPS: Final = 6
AGENT_KINDS: Final = 8
"""Kinds of agents; those of one kind begin alike."""
AGENT_PAUSE_MS: Final = 3_000

CODE: Final = ((7.0, 1.36), (2.79, 0.85), 13.0)
CHAT: Final = ((6.63, 0.99), (5.02, 0.86), 1.1)
INTERACTIVE_SHARE: Final = 0.1


@dataclass(slots=True)
class Draft:
    """A request without its time; ``follows`` is an index among the drafts, ``key`` the session or group it is of."""

    prompt_tokens: int
    output_tokens: int
    text: Text
    follows: int | None = None
    priority: Priority = Priority.MEDIUM
    key: int = 0


Sizes = Callable[[Random, int], Iterator[Draft]]
Times = Callable[[Random, list[Draft], float], list[float]]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked, and when.

    Attributes:
        sizes: Draws drafts without end, for a context of so many tokens.
        times: Spreads drafts over a time in ms.
        requests: How many there are unless somebody says.
    """

    sizes: Sizes
    times: Times
    requests: int = 2_000


def generate(
    name: str,
    *,
    seed: int,
    speeds: tuple[float, ...],
    load_ratio: float,
    requests: int = 0,
    model: EngineModel | None = None,
    context_tokens: int = CONTEXT_TOKENS,
    keys: int = 1,
) -> list[Request]:
    """A workload's requests in order of their time; ``requests`` is 0 for the workload's own number.

    ``load_ratio`` is the work of them all, if nothing were ever cached, over what the fleet can do while they come.
    With more than one of ``keys``, the swarm also holds them fair to each other, which other routers do not.
    """
    workload = WORKLOADS[name]
    rng = Random(f"{name}/{seed}")
    drafts = list(islice(workload.sizes(rng, context_tokens), requests or workload.requests))
    engine = model or EngineModel()
    work_ms = sum(engine.work_ms(draft.prompt_tokens, draft.output_tokens) for draft in drafts)
    at_ms = workload.times(rng, drafts, work_ms / (load_ratio * sum(speeds)))
    order = sorted(range(len(drafts)), key=at_ms.__getitem__)
    numbers = {index: number for number, index in enumerate(order)}
    return [_request(drafts[index], at_ms[index], numbers, number, keys) for number, index in enumerate(order)]


def _request(draft: Draft, at_ms: float, numbers: dict[int, int], number: int, keys: int) -> Request:
    return Request(
        number=number,
        at_ms=at_ms,
        prompt_tokens=draft.prompt_tokens,
        output_tokens=draft.output_tokens,
        blocks=draft.text.blocks(draft.prompt_tokens),
        answered=draft.text.blocks(draft.prompt_tokens + draft.output_tokens),
        follows=None if draft.follows is None else numbers[draft.follows],
        priority=draft.priority,
        key_id=KeyId(f"key-{draft.key % keys}"),
    )


def _shared_prefix(rng: Random, _context_tokens: int) -> Iterator[Draft]:
    """64 groups of 16 prompts: a system prompt of each group's own, then a question of each prompt's own."""
    systems = [Text(rng).blocks(SYSTEM_TOKENS) for _ in range(GROUPS)]
    while True:
        groups = [group for group in range(GROUPS) for _ in range(GROUP_SIZE)]
        rng.shuffle(groups)
        for group in groups:
            text = Text(rng, systems[group])
            yield Draft(SYSTEM_TOKENS + QUESTION_TOKENS, GROUP_OUTPUT_TOKENS, text, key=group)


def _conversation(rng: Random, context_tokens: int) -> Iterator[Draft]:
    """Sessions of 2 to 4 turns, each its history and something new; all begin with one block that they share."""
    root = Text(rng).blocks(BLOCK_TOKENS)
    made = 0
    for session in count():
        text, history, previous = Text(rng, root), BLOCK_TOKENS, None
        for _ in range(_turns(rng)):
            prompt = history + _tokens(rng, DELTA)
            if previous is not None and prompt >= context_tokens:
                break
            prompt, output = _fit(prompt, _tokens(rng, CONVERSATION_OUTPUT), context_tokens)
            yield Draft(prompt, output, text, previous, key=session)
            history, previous, made = prompt + output, made, made + 1


def _agent(rng: Random, context_tokens: int) -> Iterator[Draft]:
    """Runs of steps that each see 64 to 86% of their prompt again: of the step before, the first of its kind's."""
    kinds = [Text(rng) for _ in range(AGENT_KINDS)]
    made = 0
    for run in count():
        prompt, output = _fit(_tokens(rng, AGENT_FIRST), 1, context_tokens)
        seen = kinds[run % AGENT_KINDS].blocks(round(rng.uniform(*AGENT_SEEN) * prompt))
        text, previous = Text(rng, seen), None
        for _ in range(AGENT_STEPS):
            prompt, output = _fit(prompt, _tokens(rng, AGENT_OUTPUT), context_tokens)
            yield Draft(prompt, output, text, previous, key=run)
            previous, made = made, made + 1
            prompt = round(prompt / rng.uniform(*AGENT_SEEN))
            if prompt >= context_tokens:
                break


def _plain(
    rng: Random, context_tokens: int, *, prompt: tuple[float, float], output: tuple[float, float], urgent: float = 0.0
) -> Iterator[Draft]:
    """Prompts that have nothing in common; with ``urgent``, so large a share is interactive and the rest can wait."""
    for made in count():
        band = Priority.MEDIUM
        if urgent:
            band = Priority.HIGH if rng.random() < urgent else Priority.LOW
        sizes = _fit(_tokens(rng, prompt), _tokens(rng, output), context_tokens)
        yield Draft(*sizes, Text(rng), priority=band, key=made)


def _times(spread: Callable[[Random, int, float], list[float]]) -> Times:
    return lambda rng, drafts, span_ms: spread(rng, len(drafts), span_ms)


def _sessions(pause_ms: float, *, ticks: bool = False) -> Times:
    def times(rng: Random, drafts: list[Draft], span_ms: float) -> list[float]:
        at_ms = arrivals.sessions(rng, [draft.follows for draft in drafts], span_ms, pause_ms)
        return arrivals.in_ticks(at_ms, span_ms) if ticks else at_ms

    return times


def _turns(rng: Random) -> int:
    turns = TURNS_MIN
    while turns < TURNS_MAX and rng.random() < NEXT_TURN:
        turns += 1
    return turns


def _tokens(rng: Random, lognormal: tuple[float, float]) -> int:
    return max(1, round(rng.lognormvariate(*lognormal)))


def _fit(prompt: int, output: int, context_tokens: int) -> tuple[int, int]:
    """Both cut so that they fit into the context together; the answer keeps a token."""
    prompt = min(prompt, context_tokens - 1)
    return prompt, min(output, context_tokens - prompt)


WORKLOADS: Final[Mapping[str, Workload]] = {
    "shared-prefix": Workload(_shared_prefix, _times(arrivals.poisson), requests=GROUPS * GROUP_SIZE),
    "conversation": Workload(_conversation, _sessions(TURN_PAUSE_MS, ticks=True)),
    "agent": Workload(_agent, _sessions(AGENT_PAUSE_MS)),
    "code-bursts": Workload(
        partial(_plain, prompt=CODE[0], output=CODE[1]), _times(partial(arrivals.on_off, cv=CODE[2]))
    ),
    "chat-poisson": Workload(
        partial(_plain, prompt=CHAT[0], output=CHAT[1]), _times(partial(arrivals.gamma, cv=CHAT[2]))
    ),
    "mixed-priority": Workload(
        partial(_plain, prompt=CHAT[0], output=CHAT[1], urgent=INTERACTIVE_SHARE), _times(arrivals.poisson)
    ),
}
