"""Steps that count bytes."""

from __future__ import annotations

from swarmesh.queen.paced_steps import PacedSteps
from swarmesh.wire.hosts import Step, StepState


def test_the_first_and_the_last_are_told_and_few_between() -> None:
    told: list[Step] = []
    now = [0.0]
    steps = PacedSteps("copy", "q to mac", told.append, clock=lambda: now[0])
    for done_bytes in range(101):
        steps.bytes(done_bytes, 100)
        now[0] += 0.011
    steps.done(100)

    assert [step.done_bytes for step in told] == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100]
    assert {(step.step, step.text, step.total_bytes) for step in told} == {("copy", "q to mac", 100)}
    assert [step.state for step in told] == [StepState.RUNNING] * 11 + [StepState.DONE]
