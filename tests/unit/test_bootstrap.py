"""The program that is sent to hosts: its decisions that need no host."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from swarmesh.hosts.bootstrap import HostError, Place, process_lives, session_environment


def test_a_session_keeps_what_it_needs_of_its_environment_and_finds_programs() -> None:
    login = {
        "HOME": "/home/u",
        "PATH": "/bin:/usr/bin",
        "LC_ALL": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "1",
        "https_proxy": "http://proxy:3128",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "PYTHONPATH": "/somewhere",
        "VIRTUAL_ENV": "/somewhere",
        "API_KEY": "x",
        "HOMEWARD": "x",
    }
    assert session_environment(login) == {
        "HOME": "/home/u",
        "PATH": "/bin:/usr/bin:/usr/local/bin:/opt/homebrew/bin",
        "LC_ALL": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "1",
        "https_proxy": "http://proxy:3128",
    }


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a\n", "/etc", "-x"])
def test_names_from_outside_stay_names(name: str) -> None:
    place = Place()
    for use in (place.env, place.hive):
        with pytest.raises(HostError) as error:
            use(name)
        assert error.value.body["code"] == "unknown_order"


def test_a_process_lives_while_it_is_the_one_that_was_meant() -> None:
    started_at = psutil.Process().create_time()
    assert process_lives(os.getpid(), started_at)
    assert not process_lives(os.getpid(), started_at - 60), "the pid was given out anew"
    assert not process_lives(0, 0.0)


def test_a_process_that_only_waits_to_be_reaped_does_not_live() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    started_at = psutil.Process(child.pid).create_time()
    assert process_lives(child.pid, started_at)
    child.communicate()
    assert not process_lives(child.pid, started_at)
