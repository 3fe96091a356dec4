"""Whose doing an engine's end was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from swarmesh.engines import process_family
from swarmesh.engines.engine_exit import EndCode, read_exit

PARENT = """
import subprocess, time
child = subprocess.Popen(['sleep', '60'])
while time.process_time() < 0.05:
    continue
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize(
    ("returncode", "code"),
    [
        (0, EndCode.DIED),
        (1, EndCode.CRASHED),
        (-signal.SIGABRT, EndCode.CRASHED),
        (-signal.SIGSEGV, EndCode.CRASHED),
        (-signal.SIGKILL, EndCode.DIED),
        (-signal.SIGTERM, EndCode.DIED),
        (-signal.SIGINT, EndCode.DIED),
        (-signal.SIGHUP, EndCode.DIED),
        (128 + signal.SIGKILL, EndCode.DIED),
        (128 + signal.SIGSEGV, EndCode.CRASHED),
    ],
)
def test_what_ends_by_itself_has_crashed(returncode: int, code: EndCode) -> None:
    assert read_exit(7, returncode, "").code is code


def test_last_words_follow_how_it_ended() -> None:
    assert read_exit(7, 3, "oh no").message == "the engine (pid 7) exited with code 3:\noh no"
    assert read_exit(7, -11, "").message == "the engine (pid 7) was killed by signal 11 (SIGSEGV)"


@pytest.mark.parametrize("source", ["kernel", "psutil"])
def test_a_process_counts_with_its_children(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if source == "psutil":
        monkeypatch.setattr(process_family, "_kernel_lists_children", lambda: False)
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        members = process_family.family(parent.pid)
        assert [member.pid for member in members] == [parent.pid, child]
        assert process_family.cpu_s(parent.pid) > 0
        assert process_family.memory_mib(parent.pid) > 0
        assert not process_family.suspended(parent.pid)
        os.kill(parent.pid, signal.SIGSTOP)
        os.waitpid(parent.pid, os.WUNTRACED)
        assert process_family.suspended(parent.pid)
        os.kill(child, signal.SIGKILL)
        parent.kill()
    assert process_family.family(parent.pid) == []
    assert (process_family.memory_mib(parent.pid), process_family.cpu_s(parent.pid)) == (0, 0.0)
    assert not process_family.suspended(parent.pid)
