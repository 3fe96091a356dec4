"""Tells an engine that works from one that is wedged. That its process lives, or its socket accepts, proves nothing."""

from __future__ import annotations

import asyncio

import msgspec

from swarmesh.engines.engine import Engine
from swarmesh.worker.meter import Meter


class WatchdogPolicy(msgspec.Struct, frozen=True):
    """How long a silent engine is believed in. Shorter finds a wedge sooner and kills a slow engine by mistake.

    Attributes:
        look_interval_s: Between two looks at the process and at its tokens.
        stopped_looks: Looks in a row, after the first, that find the process stopped by a signal until it is killed.
        quiet_looks: Looks in a row, after the first, at work without a token until a canary is sent.
        canary_timeout_s: What does not answer the canary within this, and rests meanwhile, is wedged.
        resting_cores: An engine that uses a greater share of one core does something: it reads a long prompt, say.
        ask_interval_s: How often the engine is asked whether its main loop turns, whether it has work or not.
        ask_timeout_s: How long one such answer may take.
        stuck_after_s: Without any such answer for so long it is killed, however busy its processor. One batch of a
            large model on a slow CPU keeps the loop from answering, so this is minutes, not seconds.
        held_up_s: A look that comes so much too late says that the agent itself was held up (stopped, or starved);
            what it saw until then counts for nothing.
    """

    look_interval_s: float = 1.0
    stopped_looks: int = 3
    quiet_looks: int = 5
    canary_timeout_s: float = 10.0
    resting_cores: float = 0.05
    ask_interval_s: float = 5.0
    ask_timeout_s: float = 10.0
    stuck_after_s: float = 120.0
    held_up_s: float = 2.0


class Watchdog:
    """Watches one engine from when it serves."""

    def __init__(self, engine: Engine, meter: Meter, policy: WatchdogPolicy) -> None:
        self._engine = engine
        self._meter = meter
        self._policy = policy
        self._loop = asyncio.get_running_loop()

    async def wait_wedged(self) -> str:
        """Return when the engine is wedged, with what shows it."""
        rungs = [self._loop.create_task(rung) for rung in (self._stopped(), self._quiet(), self._unanswering())]
        try:
            done, _ = await asyncio.wait(rungs, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for rung in rungs:
                rung.cancel()

    async def _stopped(self) -> str:
        looks = 0
        while looks <= self._policy.stopped_looks:
            attentive = await self._next_look()
            looks = looks + 1 if attentive and self._engine.suspended() else 0
        return f"a signal had stopped it for {self._policy.stopped_looks * self._policy.look_interval_s:g} s"

    async def _quiet(self) -> str:
        progress, looks, owing = self._meter.progress, 0, False
        while True:
            attentive = await self._next_look()
            if not attentive or self._meter.progress != progress:
                progress, looks, owing = self._meter.progress, 0, False
            # Work that was given up before its first token is still owed: impatient clients must not hide a wedge.
            owing = owing or self._meter.busy > 0
            looks += owing
            if looks > self._policy.quiet_looks:
                if (evidence := await self._doubt()) is not None:
                    return evidence
                looks, owing = 0, False

    async def _doubt(self) -> str | None:
        policy, progress = self._policy, self._meter.progress
        began_s, cpu_s = self._loop.time(), self._engine.cpu_s()
        if await self._canary_returns():
            return None
        # One that was turned away at once leaves time to see what the processor does.
        await asyncio.sleep(began_s + policy.canary_timeout_s - self._loop.time())
        took_s, used_s = self._loop.time() - began_s, self._engine.cpu_s() - cpu_s
        held_up = took_s > policy.canary_timeout_s + policy.held_up_s
        if held_up or self._meter.progress != progress or used_s > policy.resting_cores * took_s:
            return None
        return (
            f"it gave no token for {policy.quiet_looks * policy.look_interval_s:g} s, no answer to a question for "
            f"{took_s:.1f} s, and used {used_s:.2f} s of a processor meanwhile"
        )

    async def _canary_returns(self) -> bool:
        try:
            async with asyncio.timeout(self._policy.canary_timeout_s):
                return await self._engine.canary()
        except TimeoutError:
            return False

    async def _unanswering(self) -> str:
        policy, silent_s = self._policy, 0.0
        while silent_s <= policy.stuck_after_s:
            began_s = self._loop.time()
            await asyncio.sleep(policy.ask_interval_s)
            answered = await self._answers()
            round_s = min(self._loop.time() - began_s, policy.ask_interval_s + policy.ask_timeout_s)
            silent_s = 0.0 if answered else silent_s + round_s
        return f"it did not answer for {silent_s:.0f} s"

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(self._policy.ask_timeout_s):
                return await self._engine.healthy()
        except TimeoutError:
            return False

    async def _next_look(self) -> bool:
        began_s = self._loop.time()
        await asyncio.sleep(self._policy.look_interval_s)
        return self._loop.time() - began_s <= self._policy.look_interval_s + self._policy.held_up_s
