"""Swarms for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from host_swarm import Trio, three_machines
from swarm_rig import Swarm


def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    swarm = Swarm(tmp_path_factory.mktemp("home"))
    swarm.run("queennode", "start", "--port", "0")
    try:
        yield swarm
    finally:
        swarm.run("down", "--all", check=False)


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """A queen without rustbees, for tests that break things."""
    yield from _started(tmp_path_factory)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """A queen without rustbees, shared by tests that end as they began: with none."""
    yield from _started(tmp_path_factory)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """A queen with two rustbees on the demo model, shared by tests that leave it whole."""
    for swarm in _started(tmp_path_factory):
        for _ in range(2):
            swarm.run("spawn", "rustbee", "--type", "cpu", "--modelcell", "demo")
        yield swarm


@pytest.fixture(scope="session")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """Three machines from nothing, a demo rustbee on each; test_hosts_removal.py, which comes last, takes them down."""
    with three_machines(tmp_path_factory.mktemp("home")) as made:
        yield made
