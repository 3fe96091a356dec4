"""The end of a swarm on several machines: nothing of it is left on any of them. The last file that uses them."""

from __future__ import annotations

import pytest

from host_swarm import SWARMESH_DIR, Trio

pytestmark = pytest.mark.timeout(300)


def left_by_swarmesh(trio: Trio, name: str) -> tuple[dict[int, str], list[str]]:
    """Processes and files there."""
    machine = trio.machines[name]
    # What told that all is gone may itself need a moment to end.
    trio.swarm.until(lambda: not machine.processes(), what=f"no process on {name}")
    return machine.processes(), [path for path in machine.files() if path.startswith(SWARMESH_DIR)]


def test_remove_and_down_leave_nothing(trio: Trio) -> None:
    trio.whole()
    swarm = trio.swarm
    swarm.run("hosts", "remove", "bee-3", "--grace", "1")
    assert left_by_swarmesh(trio, "bee-3") == ({}, [])
    assert set(swarm.hosts()) == {"bee-1", "bee-2"}
    swarm.run("down", "--all")
    # An sshd may need a moment to see that its session is over.
    machines = trio.machines.values()
    swarm.until(lambda: not any(machine.processes() for machine in machines), timeout_s=60, what="no process anywhere")
    swarm.start()
    for name in ("bee-1", "bee-2"):
        swarm.host_until(name, "connected")
        swarm.run("hosts", "remove", name)
        assert left_by_swarmesh(trio, name) == ({}, [])
    assert swarm.hosts() == {}
    assert "swarmesh-bee" not in swarm.known_hosts()
