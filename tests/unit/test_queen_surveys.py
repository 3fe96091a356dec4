"""Questions that ask all hosts: shared while they are under way, and never too many of them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from swarmesh.core.errors import ModelNotFoundError, TooManySurveysError
from swarmesh.core.ids import ModelName
from swarmesh.queen.surveys import RETRY_AFTER_S, SURVEYS_MAX, Surveys

QWEN = ModelName("qwen")


class Hosts:
    """Answer when they are told to."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.go = asyncio.Event()

    async def look(self, model: ModelName) -> str:
        self.asked[model] += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.left[model] += 1
            raise
        if model == "nosuch":
            raise ModelNotFoundError("no modelcell is called 'nosuch'")
        return f"{model} {self.asked[model]}"


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


@pytest.fixture
def surveys(hosts: Hosts) -> Surveys[str]:
    return Surveys(hosts.look)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_all_who_ask_the_same_at_once_get_one_answer(hosts: Hosts, surveys: Surveys[str]) -> None:
    asking = [asyncio.create_task(surveys.of(QWEN)) for _ in range(50)]
    await settled()
    hosts.go.set()
    assert await asyncio.gather(*asking) == ["qwen 1"] * 50
    assert await surveys.of(QWEN) == "qwen 2", "who asks later gets a new one"


async def test_of_others_so_many_are_under_way_at_once(hosts: Hosts, surveys: Surveys[str]) -> None:
    models = [ModelName(f"m{number}") for number in range(SURVEYS_MAX)]
    asking = [asyncio.create_task(surveys.of(model)) for model in models]
    await settled()
    outcomes = await asyncio.gather(*(surveys.of(QWEN) for _ in range(2)), return_exceptions=True)
    for error in outcomes:
        assert isinstance(error, TooManySurveysError)
        assert (error.code, error.status, error.retry_after_s) == ("too_many_surveys", 503, RETRY_AFTER_S)
        assert f"{SURVEYS_MAX} " in error.message
    assert hosts.asked[QWEN] == 0
    shared = asyncio.create_task(surveys.of(models[0]))
    await settled()
    hosts.go.set()
    assert await shared == "m0 1", "what is under way already is no other one"
    await asyncio.gather(*asking)
    assert await surveys.of(QWEN) == "qwen 1"


async def test_one_that_failed_or_that_nobody_waits_for_makes_room(hosts: Hosts, surveys: Surveys[str]) -> None:
    models = [ModelName(f"m{number}") for number in range(SURVEYS_MAX)]
    asking = [asyncio.create_task(surveys.of(model)) for model in models]
    await settled()
    asking[0].cancel()
    await settled()
    assert hosts.left == Counter({"m0": 1})
    hosts.go.set()
    for _ in range(SURVEYS_MAX + 1):
        with pytest.raises(ModelNotFoundError):
            await surveys.of(ModelName("nosuch"))
    assert await asyncio.gather(*asking[1:]) == [f"{model} 1" for model in models[1:]]
    assert await asyncio.gather(*(surveys.of(model) for model in models)) == [f"{model} 2" for model in models]


async def test_an_asker_that_leaves_takes_nobodys_answer_along(hosts: Hosts, surveys: Surveys[str]) -> None:
    first, second = (asyncio.create_task(surveys.of(QWEN)) for _ in range(2))
    await settled()
    first.cancel()
    await settled()
    hosts.go.set()
    assert await second == "qwen 1"
