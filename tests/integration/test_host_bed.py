"""The test bed itself: machines of namespaces, and the wire that can be made bad."""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from fault_proxy import CUT, GOOD, HALF_OPEN, FaultProxy, Faults, Trickle, Way, fault_proxy
from host_bed import HOME, Bed, Machine, MachineError, host_bed, machines

TIMEOUT_S = 10.0
SILENCE_S = 0.2
TESTS = Path(__file__).resolve().parents[1]


def until(condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with host_bed() as made:
        yield made


@pytest.fixture(scope="module")
def pair(bed: Bed) -> tuple[Machine, Machine]:
    return bed.machine(), bed.machine()


def test_a_machine_has_its_own_address_home_and_processes(pair: tuple[Machine, Machine]) -> None:
    one, other = pair
    assert one.address != other.address
    one.ssh("echo mine > ~/note; echo mine > /tmp/note; setsid sleep 1000 </dev/null >/dev/null 2>&1 &")
    assert one.files() == ["note"]
    assert (one.host_dir / "note").read_text() == "mine\n"
    until(lambda: list(one.processes().values()) == ["sleep 1000"], "it has become the program it was told to be")
    assert other.files() == []
    assert other.processes() == {}
    assert other.ssh(f"ls -A {HOME} /tmp; hostname").split() == [f"{HOME}:", "/tmp:", other.name]
    (pid,) = one.processes()
    one.ssh(f"kill {pid}; rm ~/note")
    until(lambda: not one.processes(), "the pid is the one it has there")


def test_only_sshd_is_reached_and_nothing_beyond_the_cable(pair: tuple[Machine, Machine]) -> None:
    one, other = pair
    assert one.listening() == other.listening() == {22}
    assert "unreachable" in one.ssh(f"ip route get {other.address} 2>&1 || true")


def test_python_is_there_but_not_the_project(pair: tuple[Machine, Machine]) -> None:
    assert "no swarmesh" in pair[0].ssh("python3 -c 'import swarmesh' 2>/dev/null || echo no swarmesh")


def test_a_cable_that_is_pulled_and_put_back(pair: tuple[Machine, Machine]) -> None:
    one, other = pair
    with socket.create_connection((one.address, 22), timeout=TIMEOUT_S) as connection:
        assert connection.recv(100).startswith(b"SSH-2.0-")
        one.cut()
        connection.sendall(b"SSH-2.0-nobody hears this\r\n")
        connection.settimeout(SILENCE_S)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert other.ssh("echo there") == "there\n"
        one.mend()
        connection.settimeout(TIMEOUT_S)
        assert connection.recv(1), "TCP sends again by itself"


def test_power_off_and_on(bed: Bed) -> None:
    machine = bed.machine()
    machine.ssh("echo kept > ~/note; setsid sleep 1000 </dev/null >/dev/null 2>&1 &")
    outer = psutil.Process(machine.pid).children(recursive=True)
    assert outer
    machine.power_off()
    assert not [process for process in outer if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    with pytest.raises(OSError, match=r"timed out|No route"):
        socket.create_connection((machine.address, 22), timeout=SILENCE_S)
    machine.power_on()
    assert machine.ssh("cat ~/note") == "kept\n"
    assert machine.processes() == {}


def test_another_host_key(bed: Bed) -> None:
    machine = bed.machine()
    before, shown = machine.fingerprint, keys_of(machine)
    restore = machine.new_host_key()
    assert machine.fingerprint != before
    assert keys_of(machine) not in {shown, ""}
    restore()
    assert machine.fingerprint == before
    assert keys_of(machine) == shown


def keys_of(machine: Machine) -> str:
    scan = ["ssh-keyscan", "-t", "ed25519", machine.address]
    return subprocess.run(scan, capture_output=True, text=True, check=False, timeout=TIMEOUT_S).stdout


def test_a_machine_that_wants_a_password(bed: Bed) -> None:
    with pytest.raises(MachineError, match=r"Permission denied \(password\)"):
        bed.machine(password_only=True).ssh("true")


def test_a_machine_without_python(bed: Bed) -> None:
    machine = bed.machine(without_python=True)
    assert "none" in machine.ssh("for p in python3 python3.11 python3.12 python3.13; do $p -V; done 2>&1 || echo none")
    assert subprocess.run([sys.executable, "-V"], check=True, capture_output=True).stdout


def test_a_small_disk(bed: Bed) -> None:
    machine = bed.machine(disk_mib=2)
    assert "No space left" in machine.ssh("head -c 3000000 /dev/zero 2>&1 > ~/large || true; rm ~/large")
    machine.ssh("echo small > ~/note")
    assert (machine.host_dir / "note").read_text() == "small\n"


def test_another_architecture(bed: Bed) -> None:
    assert bed.machine(machine="i686").ssh("uname -m") == "i686\n"


def test_nothing_is_left_after_a_failed_test(bed: Bed) -> None:
    before = cables(os.getpid())
    pids: list[int] = []
    directories: list[Path] = []

    def fail() -> None:
        with machines(2) as made:
            pids.extend(machine.pid for machine in made)
            directories.extend(machine.host_dir for machine in made)
            assert len(cables(os.getpid())) == len(before) + 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    until(lambda: cables(os.getpid()) == before, "the cables are gone")
    until(lambda: not [pid for pid in pids if psutil.pid_exists(pid)], "the processes are gone")
    assert not [path for path in directories if path.exists()]


def test_machines_end_with_a_test_run_that_is_killed(bed: Bed, tmp_path: Path) -> None:
    program = "from host_bed import machines\nimport signal\n"
    program += "with machines(1) as (one,):\n print(one.pid, flush=True)\n signal.pause()"
    argv = [sys.executable, "-c", program]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(argv, cwd=TESTS, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert psutil.pid_exists(pid)
        process.kill()
    until(lambda: not psutil.pid_exists(pid), "its machine has ended")
    until(lambda: not cables(process.pid), "its cable is gone")


def cables(pid: int) -> set[str]:
    return {name for _, name in socket.if_nameindex() if name.startswith(f"sm{pid:x}n")}


class Echo(socketserver.BaseRequestHandler):
    """Sends back what it gets."""

    def handle(self) -> None:
        with suppress(ConnectionError):
            while said := self.request.recv(65_536):
                self.request.sendall(said)


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with fault_proxy("127.0.0.1", server.server_address[1]) as running:
            yield running
        server.shutdown()


@contextmanager
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=TIMEOUT_S) as connection:
        yield connection


def said_back(connection: socket.socket, data: bytes = b"hello") -> float:
    """Seconds until all of it has come back."""
    started_s = time.monotonic()
    connection.sendall(data)
    assert heard(connection, len(data)) == data
    return time.monotonic() - started_s


def heard(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (more := connection.recv(size - len(found))):
        found += more
    return found


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE_S)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(TIMEOUT_S)


def test_a_good_wire_passes_everything_and_counts(proxy: FaultProxy) -> None:
    large = os.urandom(3_000_000)
    with client(proxy) as one, client(proxy) as other:
        sender = threading.Thread(target=one.sendall, args=(large,))
        sender.start()
        assert heard(one, len(large)) == large
        sender.join()
        said_back(other)
        one.shutdown(socket.SHUT_WR)
        assert one.recv(1) == b"", "an end is passed on, and comes back"
        until(lambda: proxy.traffic.open == 1, "one is over")
    until(lambda: proxy.traffic.open == 0, "both are over")
    assert (proxy.traffic.made, proxy.traffic.open_max) == (2, 2)
    assert proxy.traffic.bytes_up == proxy.traffic.bytes_down == len(large) + len(b"hello")


def test_a_delay_counts_each_way(proxy: FaultProxy) -> None:
    with client(proxy) as connection:
        said_back(connection)
        proxy.faults = Faults(delay_ms=100)
        assert said_back(connection) >= 0.2
        proxy.faults = GOOD
        until(lambda: said_back(connection) < 0.2, "there is no delay any more")


def test_a_delay_is_no_bottleneck(proxy: FaultProxy) -> None:
    proxy.faults = Faults(delay_ms=100)
    with client(proxy) as connection:
        sender = threading.Thread(target=connection.sendall, args=(bytes(1_000_000),))
        started_s = time.monotonic()
        sender.start()
        heard(connection, 1_000_000)
        assert time.monotonic() - started_s < 5, "many pieces are on their way at a time"
        sender.join()


def test_a_cut_holds_everything_and_closes_nothing(proxy: FaultProxy) -> None:
    with client(proxy) as connection:
        said_back(connection)
        proxy.faults = CUT
        connection.sendall(b"hello")
        assert is_silent(connection)
        with client(proxy) as later:
            later.sendall(b"later")
            assert is_silent(later)
            proxy.faults = GOOD
            assert heard(connection, 5) == b"hello"
            assert heard(later, 5) == b"later"


def test_half_open_passes_one_way_only(proxy: FaultProxy) -> None:
    with client(proxy) as connection:
        said_back(connection)
        proxy.faults = HALF_OPEN
        connection.sendall(b"hello")
        until(lambda: proxy.traffic.bytes_up == 10, "it has arrived")
        assert is_silent(connection)
        proxy.faults = Faults(stopped=frozenset({Way.UP}))
        assert heard(connection, 5) == b"hello", "the answer comes now"
        connection.sendall(b"again")
        assert is_silent(connection)
        assert proxy.traffic.bytes_up == 10


def test_a_trickle_keeps_its_pace(proxy: FaultProxy) -> None:
    proxy.faults = Faults(trickle=Trickle(bytes_at_once=10, interval_ms=20))
    with client(proxy) as connection:
        assert said_back(connection, bytes(100)) >= 0.18


def test_dropped_connections_are_reset_and_new_ones_pass(proxy: FaultProxy) -> None:
    with client(proxy) as connection:
        said_back(connection)
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    until(lambda: proxy.traffic.open == 0, "it is over")
    with client(proxy) as connection:
        said_back(connection)


def test_a_cut_connection_can_be_dropped(proxy: FaultProxy) -> None:
    with client(proxy) as connection:
        said_back(connection)
        proxy.faults = CUT
        connection.sendall(b"hello")
        assert is_silent(connection)
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        until(lambda: proxy.traffic.open == 0, "it is over")


def test_nobody_behind_the_wire() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with fault_proxy("127.0.0.1", port) as running, client(running) as connection:
        assert is_silent(connection)
