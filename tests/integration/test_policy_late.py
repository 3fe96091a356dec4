"""Scripts that answer late or cannot be started at all: who is blamed, and that nothing else breaks."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from swarmesh.core.script import Hook, ScriptAwayError, ScriptFailedError
from swarmesh.core.script_guard import FAILURES_MAX, Scripted
from swarmesh.policy.mistake import ScriptEndedError
from swarmesh.policy.process import ProcessEndedError, ScriptProcess
from swarmesh.policy.samples import samples
from swarmesh.policy.script import RESTART_S_MIN, SandboxedScript

TASK, WORKERS = samples(Hook.SCORE)[0].arguments
ADMIT_AND_SLOW_SCORE = (
    "def admit(task):\n    return None\n\n"
    "def score(task, workers):\n"
    "    sorted([each * 7919 % 100003 for each in range(10)] * 120000)\n"
    "    return [1 for _ in workers]\n"
)


@contextmanager
def no_more_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def opened(source: str) -> Iterator[SandboxedScript]:
    script = SandboxedScript.open("x.star", source, answer_s=0.001)
    try:
        yield script
    finally:
        script.close()


def test_a_late_failure_is_blamed_on_what_was_late() -> None:
    with opened(ADMIT_AND_SLOW_SCORE) as script:
        guard = Scripted(script)
        deadline_s = time.monotonic() + 60
        while not guard.is_off and time.monotonic() < deadline_s:
            script._answer_s = 10.0
            for _ in range(2):  # As each nectarflow does, and each time it may be answered.
                guard.admit(TASK)  # type: ignore[arg-type]
            script._answer_s = 0.001  # Only this one is late, however slow the machine is.
            guard.score(TASK, list(WORKERS))  # type: ignore[arg-type]
            time.sleep(0.05)
        alarm = guard.take_alarm() or ""
        assert f"score failed {FAILURES_MAX} times in a row" in alarm


def test_without_files_there_is_no_process_and_that_is_said() -> None:
    with no_more_files():
        with pytest.raises(ProcessEndedError) as raised:
            ScriptProcess()
        with pytest.raises(ScriptFailedError) as failed:
            SandboxedScript.open("x.star", "def admit(task):\n    return None\n")
    assert "Too many open files" in str(raised.value)
    assert "Too many open files" in failed.value.message


def test_a_script_that_cannot_be_started_again_for_want_of_files_is_away() -> None:
    with opened("def admit(task):\n    return None\n") as script:
        os.kill(script.pid, signal.SIGKILL)
        deadline_s = time.monotonic() + 10
        while script.pid and time.monotonic() < deadline_s:
            with pytest.raises(ScriptFailedError):
                script.admit(TASK)  # type: ignore[arg-type]
            time.sleep(0.01)
        time.sleep(RESTART_S_MIN)
        with no_more_files(), pytest.raises(ScriptAwayError):
            script.admit(TASK)  # type: ignore[arg-type]
        assert script.tally.starts == 2


def test_that_the_process_ended_while_it_was_loaded_may_be_no_mistake_of_the_text() -> None:
    with pytest.raises(ScriptEndedError, match=r"cannot be loaded: took more than \d+ MiB of memory"):
        SandboxedScript.open("x.star", "everything = [0] * 1000000000\n")
