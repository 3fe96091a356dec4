"""One clock for everything that must not be silent for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from swarmesh.queen import vigil as vigil_module
from swarmesh.queen.vigil import Vigil

Until = Callable[..., Awaitable[Any]]
Turn = Callable[[], Awaitable[None]]


class Counter:
    """Counts its ticks."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.ticks = 0
        self._then = then

    def tick(self) -> None:
        self.ticks += 1
        self._then()


@pytest.fixture
async def vigil(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Vigil]:
    monkeypatch.setattr(vigil_module, "TICK_S", 0.001)
    made = Vigil()
    yield made
    made.close()


async def test_everything_under_watch_is_ticked_again_and_again(vigil: Vigil, until: Until) -> None:
    counters = [Counter(), Counter()]
    for counter in counters:
        vigil.add(counter)
    await until(lambda: min(counter.ticks for counter in counters) >= 3)
    vigil.remove(counters[0])
    vigil.remove(counters[0])
    seen = counters[0].ticks
    going = counters[1].ticks
    await until(lambda: counters[1].ticks >= going + 3)
    assert counters[0].ticks == seen


async def test_who_is_added_twice_is_ticked_once(vigil: Vigil, until: Until) -> None:
    twice, once = Counter(), Counter()
    for counter in (twice, once, twice):
        vigil.add(counter)
    await until(lambda: once.ticks >= 3)
    assert abs(twice.ticks - once.ticks) <= 1


async def test_a_tick_may_change_who_is_watched(vigil: Vigil, until: Until) -> None:
    born = Counter()
    dying: list[Counter] = []

    def die() -> None:
        vigil.remove(dying[0])
        vigil.add(born)

    dying.append(Counter(die))
    vigil.add(dying[0])
    await until(lambda: born.ticks >= 2)
    assert dying[0].ticks == 1


async def test_the_clock_outlives_a_tick_that_fails(vigil: Vigil, until: Until) -> None:
    def fails() -> None:
        raise ValueError("a defect")

    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    bad = Counter(fails)
    vigil.add(bad)
    await until(lambda: bad.ticks >= 3)
    assert isinstance(told[0], ValueError)


async def test_a_closed_one_is_still(vigil: Vigil, turn: Turn, until: Until) -> None:
    counter = Counter()
    vigil.add(counter)
    await until(lambda: counter.ticks)
    vigil.close()
    seen = counter.ticks
    for _ in range(20):
        await turn()
    assert counter.ticks == seen
