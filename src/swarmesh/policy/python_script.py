"""Python functions in place of a user's script: for tests and simulations, judged by the same rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swarmesh.core.script import Facts, Hook, Script
from swarmesh.policy.answers import oddness, words
from swarmesh.policy.mistake import Mistake, ScriptMistakeError


class PythonScript(Script):
    """Trusted code in this process: no bounds of time or memory.

    Args:
        functions: By hook; each is given the facts as mappings.
    """

    def __init__(self, name: str, functions: Mapping[Hook, Callable[..., Any]]) -> None:
        self.name = name
        self.hooks = frozenset(functions)
        self._functions = dict(functions)

    def admit(self, task: Facts) -> str | None:
        """See `Script.admit`."""
        answer: str | None = self._ask(Hook.ADMIT, 0, task)
        return answer

    def score(self, task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
        """See `Script.score`."""
        ranked = [{**worker, "rank": rank} for rank, worker in enumerate(workers)]
        answer: Sequence[float | None] = self._ask(Hook.SCORE, len(workers), task, ranked)
        return answer

    def place(self, model: Facts, hosts: Sequence[Facts]) -> Sequence[float | None]:
        """See `Script.place`."""
        answer: Sequence[float | None] = self._ask(Hook.PLACE, len(hosts), model, hosts)
        return answer

    def scale(self, model: Facts, stats: Facts) -> int | None:
        """See `Script.scale`."""
        answer: int | None = self._ask(Hook.SCALE, 0, model, stats)
        return answer

    def _ask(self, hook: Hook, expected: int, *arguments: Facts | Sequence[Facts]) -> Any:
        try:
            answer = self._functions[hook](*arguments)
        except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, MemoryError) as error:
            raise ScriptMistakeError(Mistake(f"{hook}: {error}", self.name)) from error
        odd = oddness(hook, answer, expected)
        if odd is not None:
            raise ScriptMistakeError(Mistake(words(hook, odd, expected), self.name))
        return answer
