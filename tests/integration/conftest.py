"""A host behind an sshd of this machine, for the tests that break its connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ssh_host_bed import Seen, make_host
from sshd_rig import SshdRig, running_sshd
from swarmesh.config.home import Home
from swarmesh.hosts.ssh_host import SshHost


@pytest.fixture
async def sshd(home: Home, tmp_path: Path) -> AsyncIterator[SshdRig]:
    async with running_sshd(tmp_path / "far", home) as rig:
        rig.install_this()
        yield rig


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def host(sshd: SshdRig, home: Home, seen: Seen) -> AsyncIterator[SshHost]:
    host = make_host(sshd, home, seen)
    host.open()
    await host.connected(within_s=30.0)
    yield host
    await host.close()
