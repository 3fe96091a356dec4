"""Questions of people that ask all hosts: one answer for all who ask the same at once, and few of them under way.

Each costs every host an answer, over SSH most of the time, and every key may ask. What the core asks is not held up.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from swarmesh.core.errors import TooManySurveysError
from swarmesh.core.ids import ModelName
from swarmesh.models.shared_work import SharedWork

R = TypeVar("R")

SURVEYS_MAX: Final = 4
"""Under way at once, each about another model; more of them make each host, and the queen, answer more at a time."""
RETRY_AFTER_S: Final = 5


class Surveys(Generic[R]):
    """Asks by ``look``, which has to end by itself in bounded time."""

    def __init__(self, look: Callable[[ModelName], Coroutine[Any, Any, R]]) -> None:
        self._look = look
        self._shared: SharedWork[None, R] = SharedWork()
        self._under_way = 0

    async def of(self, model: ModelName) -> R:
        """What ``look`` says of a model, once for all who ask while it is under way; ended when all of them leave.

        Raises:
            TooManySurveysError: There are `SURVEYS_MAX` about others.
            Exception: What ``look`` raises.
        """
        return await self._shared.join(model, lambda _tell: self._one(model))

    async def _one(self, model: ModelName) -> R:
        if self._under_way >= SURVEYS_MAX:
            raise TooManySurveysError(
                f"the hosts are being asked about {self._under_way} modelcells already, the most at once",
                retry_after_s=RETRY_AFTER_S,
            )
        self._under_way += 1
        try:
            return await self._look(model)
        finally:
            self._under_way -= 1
