"""One run: a queen, three rustbees with cold caches, one of them slowed down, and the load under one policy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Final

from bench.reliability.hive import Hive, HiveError

from .client import MODELCELL, Answer, Clients
from .throttle import CpuShares
from .workload import Ask, Load, asks_of, system_message

CORES: Final = (0.5, 0.5, 0.14)
"""Of one core, for each engine; together they leave the queen and the clients room on two. A small share loses more at
its edges, so the last gets a bit more than a quarter of what the others get, and is a quarter as fast."""
ALONE_ROUNDS: Final = 3
ALONE_TOKENS: Final = 96
ALONE_QUESTION: Final = "Recite the song of the hive."


@dataclass(frozen=True)
class Setting:
    """What is the same in every run; ``context`` are tokens of prompt and answer per slot."""

    load: Load
    slots: int
    context: int


@dataclass(frozen=True)
class Alone:
    """What one engine does when it has nothing else to do, in tokens per second."""

    read_per_s: float
    written_per_s: float


@dataclass(frozen=True)
class Trial:
    """What was seen.

    Attributes:
        alone: Of each rustbee, measured after the load, by its place in `CORES`.
        share: Part of all tasks that each got.
    """

    policy: str
    seed: int
    answers: list[Answer]
    alone: list[Alone]
    share: list[float]

    @property
    def whole(self) -> list[Answer]:
        """Answers that came to their end."""
        return [answer for answer in self.answers if not answer.error]

    @property
    def first_ms(self) -> list[float]:
        """Times to the first token, in order of length."""
        return sorted(1_000 * answer.first_s for answer in self.whole)

    @property
    def first_ms_mean(self) -> float:
        """Mean of them."""
        return fmean(self.first_ms)

    def first_ms_at(self, share: float) -> float:
        """The time that so large a share of them stays below."""
        return self.first_ms[min(len(self.first_ms) - 1, int(share * len(self.first_ms)))]

    @property
    def cached_share(self) -> float:
        """Of all tokens of prompts, those that engines say they had in their caches."""
        return sum(answer.cached_tokens for answer in self.whole) / sum(answer.prompt_tokens for answer in self.whole)

    @property
    def slowness(self) -> tuple[float, float]:
        """How many times slower the slowed engine reads and writes than the mean of the others."""
        *others, slow = self.alone
        read, written = fmean(each.read_per_s for each in others), fmean(each.written_per_s for each in others)
        return read / slow.read_per_s, written / slow.written_per_s


def run(policy: str, setting: Setting, seed: int) -> Trial:
    """Bring a swarm up, put the load on it, measure each engine alone, and take it down.

    Raises:
        HiveError: It did not come up, a rustbee was lost, or nobody got an answer.
    """
    with CpuShares() as shares, Hive() as hive:
        asked: dict[str, Any] = {"type": "cpu", "modelcell": MODELCELL}
        asked |= {"slots": setting.slots, "context": setting.context}
        bees = sorted(hive.keep(asked, len(CORES)), key=lambda bee: bee.rustbee_id)
        for bee, cores in zip(bees, CORES, strict=True):
            shares.limit(bee.engine_pid, cores)
        hive.command("policy", "use", policy)
        names = [bee.rustbee_id for bee in bees]
        answers, alone = asyncio.run(_measured(hive, names, asks_of(setting.load, seed), setting.load))
        if all(answer.error for answer in answers):
            raise HiveError(f"{policy}, load {seed}: no answer came: {answers[0].error}")
        share = [sum(answer.rustbee_id == name for answer in answers) / len(answers) for name in names]
        return Trial(policy, seed, answers, alone, share)


async def _measured(
    hive: Hive, names: Sequence[str], asks: Sequence[Ask], load: Load
) -> tuple[list[Answer], list[Alone]]:
    clients = Clients(hive.openai_url, hive.key)
    try:
        answers = await clients.all_of(asks, load.answer_tokens)
        await asyncio.to_thread(hive.command, "policy", "use", "round-robin")
        return answers, await _alone(clients, names, load)
    finally:
        await clients.close()


async def _alone(clients: Clients, names: Sequence[str], load: Load) -> list[Alone]:
    """One chat at a time, in turns, with a prompt that no engine has seen."""
    seen: dict[str, list[Answer]] = {name: [] for name in names}
    for number in range(ALONE_ROUNDS * len(names)):
        ask = Ask(0.0, 0, system_message(f"alone-{number}", load.system_chars), ALONE_QUESTION)
        answer = await clients.one(ask, ALONE_TOKENS)
        if answer.error:
            raise HiveError(f"{answer.rustbee_id} alone: {answer.error}")
        seen[answer.rustbee_id].append(answer)
    if not all(seen.values()):
        raise HiveError(f"in {ALONE_ROUNDS} turns not every rustbee was asked: {[len(each) for each in seen.values()]}")
    return [_speeds(answers) for answers in seen.values()]


def _speeds(answers: Sequence[Answer]) -> Alone:
    read = median((answer.prompt_tokens - answer.cached_tokens) / answer.first_s for answer in answers)
    written = median((answer.written_tokens - 1) / (answer.last_s - answer.first_s) for answer in answers)
    return Alone(read, written)
