"""Looking at a script before it decides anything: is it right, and does it answer?"""

from __future__ import annotations

import time

import msgspec

from swarmesh.core.script import Hook, ScriptFailedError
from swarmesh.policy.mistake import Mistake, ScriptInvalidError, ScriptMistakeError
from swarmesh.policy.patient import Opinion, PatientScript
from swarmesh.policy.samples import Sample, samples


class Trial(msgspec.Struct, frozen=True):
    """One sample and what came of it.

    Attributes:
        answer: What the script said; None also where it failed.
        mistake: What it did wrong, if anything.
        took_us: Until the answer was there.
    """

    sample: Sample
    answer: Opinion
    mistake: Mistake | None
    took_us: int


class Findings(msgspec.Struct, frozen=True):
    """All that is known of a script without using it.

    Attributes:
        mistakes: Why it cannot be used; empty if it can.
        warnings: What looks wrong and does no harm.
        said: What it printed.
    """

    name: str
    hooks: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[Mistake, ...] = ()
    trials: tuple[Trial, ...] = ()
    said: tuple[str, ...] = ()

    def demand_none(self) -> None:
        """Let nobody use a script that has mistakes.

        Raises:
            ScriptInvalidError: There are some.
        """
        if self.mistakes:
            raise ScriptInvalidError(self.mistakes)


def check(name: str, source: str) -> Findings:
    """Parse a script, check its types, load it, and try every function it has. Waits for a process of its own."""
    said: list[str] = []
    try:
        patient = PatientScript(name, source, clock=time.time, said=said.extend)
    except ScriptInvalidError as error:
        return Findings(name, mistakes=error.mistakes)
    except ScriptFailedError as error:
        return Findings(name, mistakes=(Mistake(error.message),))
    script = patient.script
    try:
        trials = tuple(_try(patient, sample) for hook in Hook if hook in script.hooks for sample in samples(hook))
    finally:
        patient.close()
    # The same mistake may show with every sample; it is told once.
    mistakes = tuple(dict.fromkeys(trial.mistake for trial in trials if trial.mistake is not None))
    hooks = tuple(hook.value for hook in Hook if hook in script.hooks)
    return Findings(script.name, hooks, mistakes, script.warnings, trials, tuple(said))


def _try(patient: PatientScript, sample: Sample) -> Trial:
    began_ns = time.monotonic_ns()
    answer, mistake = None, None
    try:
        answer = patient.ask(sample.hook, sample.arguments)
    except ScriptMistakeError as error:
        mistake = error.mistake
    return Trial(sample, answer, mistake, (time.monotonic_ns() - began_ns) // 1_000)
