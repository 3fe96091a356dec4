"""A script that is asked by somebody who has time: a person's test of it, not a queen's decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, assert_never

from swarmesh.core.script import Facts, Hook, Script, ScriptAwayError
from swarmesh.policy.mistake import Mistake, ScriptMistakeError
from swarmesh.policy.script import SandboxedScript

PATIENT_ANSWER_S: Final = 2.0
"""More than its process lives when it computes without end, so that the reason is known."""

Arguments = Sequence[Facts | Sequence[Facts]]
Opinion = str | int | Sequence[float | None] | None


class PatientScript:
    """Bounded in processor time and memory as ever; a process that ends is replaced before the next question.

    Args:
        clock: Unix seconds, for what the script is told of the time.
        said: Told what it prints.

    Raises:
        ScriptFailedError: It cannot be loaded.
    """

    def __init__(
        self, name: str, source: str, *, clock: Callable[[], float], said: Callable[[tuple[str, ...]], None]
    ) -> None:
        self._name, self._source = name, source
        self._clock, self._said = clock, said
        self.script = self._open()

    def ask(self, hook: Hook, arguments: Arguments) -> Opinion:
        """The script's answer.

        Raises:
            ScriptMistakeError: It gives none.
        """
        try:
            return ask(self.script, hook, arguments)
        except ScriptMistakeError:
            self._replace()
            raise
        except ScriptAwayError as error:
            self._replace()
            raise ScriptMistakeError(Mistake(error.message)) from error

    def _replace(self) -> None:
        if self.script.is_away:
            self.script.close()
            self.script = self._open()

    def _open(self) -> SandboxedScript:
        return SandboxedScript.open(
            self._name, self._source, said=self._said, clock=self._clock, answer_s=PATIENT_ANSWER_S
        )

    def close(self) -> None:
        """End its process."""
        self.script.close()


def ask(script: Script, hook: Hook, arguments: Any) -> Opinion:
    """One hook of any script, with its arguments in order.

    Raises:
        ScriptFailedError: It gives no answer.
    """
    match hook:
        case Hook.ADMIT:
            return script.admit(*arguments)
        case Hook.SCORE:
            return script.score(*arguments)
        case Hook.PLACE:
            return script.place(*arguments)
        case Hook.SCALE:
            return script.scale(*arguments)
        case _:
            assert_never(hook)
