"""An inference engine with continuous batching, as rates that are constant between two events.

Each step writes one token of every stream that writes, and takes ``step_ms + stream_ms * streams``. While a prompt is
being read, each step also carries ``chunk_tokens`` of it and takes so much longer: so a long prompt slows all streams,
and streams slow its reading. Prompts are read one after the other, in the order in which they got their slots. The
step that reads the end of a prompt writes the first token of its answer. A worker of speed 2 does all of it in half
the time. Left out: that attention grows with the length, and that blocks in use cannot be dropped.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec

from swarmesh.sim.routing.cache import PrefixCache
from swarmesh.sim.routing.request import BLOCK_TOKENS

_ROUNDING: Final = 1e-6
"""Tokens and steps that float arithmetic may leave over."""


class EngineModel(msgspec.Struct, frozen=True):
    """What an engine of speed 1 can do; the defaults are near an 8B model, 4 bits, on one consumer GPU.

    Attributes:
        step_ms: A decoding step, however many streams share it.
        stream_ms: What each stream adds to it.
        chunk_tokens: Of a prompt, read along with each decoding step.
        cache_blocks: Bound of the prefix cache.
    """

    slots: int = 8
    prefill_tokens_per_s: float = 4_000.0
    step_ms: float = 18.0
    stream_ms: float = 2.0
    chunk_tokens: int = 512
    cache_blocks: int = 1_024

    @property
    def chunk_ms(self) -> float:
        """What a chunk of a prompt adds to a step."""
        return 1_000 * self.chunk_tokens / self.prefill_tokens_per_s

    def work_ms(self, prompt_tokens: int, output_tokens: int) -> float:
        """Time an engine spends on a request of which it knows nothing, while all its slots write."""
        reading_ms = 1_000 * prompt_tokens / self.prefill_tokens_per_s
        return reading_ms + (output_tokens - 1) * (self.step_ms / self.slots + self.stream_ms)


@dataclass(slots=True, eq=False)
class Job:
    """A request at one engine.

    Attributes:
        number: Of the request.
        prompt_tokens: To be read; what another engine wrote of the answer before is part of it.
        output_tokens: To be written here, 1 at least.
        blocks: Names of the blocks of the prompt.
        answered: Names of the blocks of prompt and answer.
        sent_ms: When the engine was given it.
        cached_tokens: Of the prompt, not read because they were known; -1 until reading begins.
        first_token_ms: When its first token came; -1 before.
    """

    number: int
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]
    answered: tuple[int, ...]
    sent_ms: float
    cached_tokens: int = -1
    first_token_ms: float = -1.0
    unread: float = 0.0
    last_step: float = 0.0


class Engine:
    """One worker's engine. Whoever drives it calls `advance` when `next_ms` has come, and never goes back in time.

    Attributes:
        busy_ms: How long it had anything to read or to write.
        read_tokens: Of prompts, those it had to compute.
        cached_tokens: Of prompts, those it knew.
        written_tokens: Of answers that came to their end.
    """

    def __init__(self, model: EngineModel, speed: float = 1.0) -> None:
        self.model = model
        self.speed = speed
        self.cache = PrefixCache(model.cache_blocks)
        self.busy_ms = 0.0
        self.read_tokens = 0
        self.cached_tokens = 0
        self.written_tokens = 0
        self._waiting: deque[Job] = deque()
        self._reading: deque[Job] = deque()
        self._writing: dict[int, Job] = {}
        self._steps = 0.0
        self._at_ms = 0.0

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._reading) + len(self._writing)

    @property
    def waiting(self) -> int:
        """Jobs without a slot."""
        return len(self._waiting)

    def submit(self, job: Job, now_ms: float) -> None:
        """Take a job in; it waits when no slot is free."""
        self._pass(now_ms)
        self._waiting.append(job)
        self._admit()

    def stop(self, number: int, now_ms: float) -> int:
        """Give a job up, wherever it stands; how many tokens of its answer were written."""
        self._pass(now_ms)
        job = self._writing.pop(number, None)
        if job is not None:
            self._admit()
            return min(job.output_tokens - 1, max(1, job.output_tokens - math.ceil(job.last_step - self._steps)))
        for queue in (self._waiting, self._reading):
            for waiting in queue:
                if waiting.number == number:
                    queue.remove(waiting)
                    break
        self._admit()
        return 0

    def next_ms(self) -> float:
        """When the next thing happens if nothing is submitted or stopped before; infinite when nothing will."""
        steps = math.inf
        if self._reading:
            steps = self._reading[0].unread / self.model.chunk_tokens
        if self._writing:
            steps = min(steps, min(job.last_step for job in self._writing.values()) - self._steps)
        return self._at_ms + max(0.0, steps) * self._step_ms() if steps < math.inf else math.inf

    def advance(self, now_ms: float) -> list[tuple[Job, bool]]:
        """What has happened by now: jobs whose first token came, and, with True, those that ended."""
        self._pass(now_ms)
        facts: list[tuple[Job, bool]] = []
        while self._reading and self._reading[0].unread <= _ROUNDING:
            facts.append((self._read(self._reading.popleft()), False))
        for job in [job for job in self._writing.values() if job.last_step - self._steps <= _ROUNDING]:
            del self._writing[job.number]
            self.written_tokens += job.output_tokens
            self.cache.insert(job.answered)
            facts.append((job, True))
        self._admit()
        return facts

    def _read(self, job: Job) -> Job:
        self.read_tokens += job.prompt_tokens - job.cached_tokens
        self.cached_tokens += job.cached_tokens
        self.cache.insert(job.blocks)
        job.first_token_ms = self._at_ms
        job.last_step = self._steps + job.output_tokens - 1
        self._writing[job.number] = job
        self._open()
        return job

    def _admit(self) -> None:
        while self._waiting and self.running < self.model.slots:
            self._reading.append(self._waiting.popleft())
        self._open()

    def _open(self) -> None:
        """Look up what is known of the prompt whose turn it is: one token at least is always computed."""
        if self._reading and self._reading[0].cached_tokens < 0:
            job = self._reading[0]
            job.cached_tokens = min(self.cache.match(job.blocks) * BLOCK_TOKENS, job.prompt_tokens - 1)
            job.unread = float(job.prompt_tokens - job.cached_tokens)

    def _step_ms(self) -> float:
        model, streams = self.model, len(self._writing)
        step_ms = model.step_ms + model.stream_ms * streams if streams else 0.0
        return (step_ms + (model.chunk_ms if self._reading else 0.0)) / self.speed

    def _pass(self, now_ms: float) -> None:
        passed_ms, self._at_ms = now_ms - self._at_ms, now_ms
        if not self._reading and not self._writing:
            return
        steps = passed_ms / self._step_ms()
        self.busy_ms += passed_ms
        self._steps += steps
        if self._reading:
            self._reading[0].unread -= steps * self.model.chunk_tokens
