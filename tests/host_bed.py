"""Machines made of namespaces: each with an address, processes, a home and a real sshd of its own, and nothing else.

A machine shares the kernel and the installed programs with this one. Its network is a cable to this machine and leads
nowhere else; the login user's home and /tmp are its own, so what lies there on this machine is not seen from it. All of
its processes end with the first one, which ends with the test run, however that ends.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

SKIPPED: Final = "no host bed"
"""Every reason to skip begins with this; .ci/run looks for it."""
PROGRAMS: Final = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "ss": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setarch": "util-linux",
    "setpriv": "util-linux",
}
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a login without a profile looks for programs, Python among them."""
PYTHONS: Final = ("python3", "python3.13", "python3.12", "python3.11", "python3.14")
OLD: Final = "import sys; sys.exit(sys.version_info < (3, 11))"
NETWORK: Final = ipaddress.IPv4Network("10.224.0.0/11")
"""Every machine has four addresses of it: as many pairs as processes of a test run are likely to need at a time."""
MACHINES_MAX: Final = 64
"""Of one process; later ones get the names and addresses of the first again, which are gone by then."""
DISK_MIB: Final = 4_096
"""No memory is taken for what is not written."""
START_TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 3
COMMAND_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.01
HOME: Final = pwd.getpwuid(os.getuid()).pw_dir

DISK: Final = """
set -e
mount -t tmpfs -o mode=700,size="${2}m" tmpfs "$1"
echo up
exec sleep infinity
"""
"""Run by the keeper of a machine's network and disk, which are there while the machine is off. A disk in memory is not
slowed down by other tests, and takes no time to throw away."""

BOOT: Final = """
set -e
machine=$1 name=$2 home=$3 pythons=$4; shift 4
mount --rbind "$machine" /run
mkdir -p /run/sshd
mount --bind /run/etc /etc/ssh
mount --bind /run/shadow /etc/shadow
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount --bind /run/home "$home"
if [ "$pythons" = hidden ]; then
  for python in /usr/bin/python3* /usr/local/bin/python3* /opt/homebrew/bin/python3*; do
    if [ -f "$python" ]; then mount --bind /run/nothing "$(readlink -f "$python")"; fi
  done
fi
mount --bind /run/tmp /tmp
hostname "$name"
cd /
echo up
exec "$@" >/run/sshd.log 2>&1 </dev/null
"""
"""Run as the machine's first process, which becomes its sshd. ``/run`` is mounted first, as the others come from it."""

SSHD_CONFIG: Final = """
ListenAddress 0.0.0.0
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin yes
PubkeyAuthentication {by_key}
PasswordAuthentication {by_password}
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PrintMotd no
MaxStartups 100
SetEnv PATH={path}
"""

ENDS_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
"""What follows is killed when the thread that started it ends, however that comes about."""

_numbers = itertools.count()


class Machine:
    """One machine; made and ended by `machines`.

    Attributes:
        address: Its IP address; sshd listens on port 22 of it.
        identity: The private key that may log in.
    """

    def __init__(
        self,
        directory: Path,
        identity: Path,
        *,
        password_only: bool = False,
        without_python: bool = False,
        disk_mib: int = DISK_MIB,
        machine: str = "",
    ) -> None:
        number = next(_numbers) % MACHINES_MAX
        pairs = NETWORK.num_addresses // 4
        first = NETWORK[4 * ((os.getpid() * MACHINES_MAX + number) % pairs)]
        self.here, self.address = str(first + 1), str(first + 2)
        self.name = f"machine-{number}"
        self.identity = identity
        self._directory = directory
        self._without_python, self._machine = without_python, machine
        self._cable = f"sm{os.getpid():x}n{number}"
        self._process: subprocess.Popen[str] | None = None
        self._make_files(password_only=password_only)
        self._keeper = self._make_keeper(disk_mib)
        self._in_network = ["nsenter", f"--net=/proc/{self._keeper.pid}/ns/net"]
        self._within = [*self._in_network, f"--mount=/proc/{self._keeper.pid}/ns/mnt"]

    @property
    def host_dir(self) -> Path:
        """The login user's home there, as it is seen from here."""
        return Path(f"/proc/{self._keeper.pid}/root{self._directory}/home")

    @property
    def pid(self) -> int:
        """Of its first process, as it is seen from here."""
        assert self._process is not None, "it is off"
        return psutil.Process(self._process.pid).children()[0].pid

    def power_on(self) -> None:
        """Start it with what is on its disk; returns when its sshd takes connections."""
        assert self._process is None, "it is on"
        boot = ["bash", "-c", BOOT, "boot", str(self._directory), self.name, HOME]
        boot += ["hidden" if self._without_python else "seen", *self._sshd()]
        namespaces = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child"]
        self._process = subprocess.Popen(
            [*self._within, *ENDS_WITH_US, "unshare", *namespaces, "--propagation", "private", *boot],
            env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None, "asked for"
        if self._process.stdout.readline() != "up\n":
            raise MachineError(f"{self.name} does not boot: {self._process.communicate()[1].strip()}")
        self.mend()
        self._wait_for_sshd()

    def power_off(self) -> None:
        """Everything that runs there ends at once, and nothing answers any more; what is on its disk stays."""
        if self._process is not None:
            with suppress(IndexError):  # It never came up.
                os.kill(self.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None
        self.cut()

    def scrap(self) -> None:
        """Switch it off for good."""
        with suppress(MachineError):  # It has no cable yet.
            self.power_off()
        self._keeper.kill()
        self._keeper.communicate()
        # The cable goes with the network, but only when the kernel gets round to it.
        _quietly("ip", "link", "delete", self._cable)

    def cut(self) -> None:
        """Pull the cable: nothing passes any more and nobody is told."""
        _run(*self._in_network, "ip", "link", "set", "cable", "down")

    def mend(self) -> None:
        """Put the cable back."""
        _run(*self._in_network, "ip", "link", "set", "cable", "up")

    def new_host_key(self) -> Callable[[], None]:
        """From now on its sshd shows another key; what is returned gives it its old one back."""
        file = self._directory / "etc" / "ssh_host_ed25519_key"
        old = {path: path.read_bytes() for path in (file, file.with_suffix(".pub"))}

        def restore() -> None:
            for path, content in old.items():
                path.write_bytes(content)
            self._restart_sshd()

        _make_key(file)
        self._restart_sshd()
        return restore

    def inside(self, *argv: str) -> str:
        """Run a program there without SSH and return what it printed."""
        namespaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--root", "--wd"]
        return _run("nsenter", "--target", str(self.pid), *namespaces, *argv)

    def ssh(self, command: str) -> str:
        """What a command prints there, by way of SSH and nothing of Swarmesh."""
        options = {"IdentitiesOnly": "yes", "BatchMode": "yes", "StrictHostKeyChecking": "no", "LogLevel": "ERROR"}
        options |= {"UserKnownHostsFile": "/dev/null", "ConnectTimeout": str(CONNECT_TIMEOUT_S)}
        settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return _run("ssh", "-F", "none", "-i", str(self.identity), *settings, f"{_user()}@{self.address}", command)

    def listening(self) -> set[int]:
        """TCP ports that are open there, as ``ss -ltn`` shows them, on whatever address."""
        rows = [line.split() for line in self.inside("ss", "-ltnH").splitlines()]
        return {int(row[3].rpartition(":")[2]) for row in rows}

    def processes(self) -> dict[int, str]:
        """Command lines by the pids they have there, without sshd's own."""
        found = {}
        for process in psutil.Process(self.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                if process.name() != "sshd" and process.status() != psutil.STATUS_ZOMBIE:
                    found[_inner_pid(process.pid)] = " ".join(process.cmdline())
        return found

    def process(self, pid: int) -> psutil.Process:
        """One of its processes, by the pid that it has there."""
        for process in psutil.Process(self.pid).children(recursive=True):
            with suppress(FileNotFoundError, ProcessLookupError):
                if _inner_pid(process.pid) == pid:
                    return process
        raise MachineError(f"{self.name} has no process {pid}")

    def files(self) -> list[str]:
        """Everything in the login user's home there, by its path from the home on."""
        return sorted(str(path.relative_to(self.host_dir)) for path in self.host_dir.rglob("*"))

    @property
    def fingerprint(self) -> str:
        """Of its host key, as OpenSSH writes it."""
        return _run("ssh-keygen", "-lf", str(self._directory / "etc" / "ssh_host_ed25519_key.pub")).split()[1]

    def _make_files(self, *, password_only: bool) -> None:
        etc = self._directory / "etc"
        for path in (self._directory / "home", self._directory / "tmp", etc):
            path.mkdir(parents=True)
        (self._directory / "tmp").chmod(0o1777)
        (self._directory / "nothing").touch()
        # Nobody's password is right, and nobody is locked out for that.
        (self._directory / "shadow").write_text(f"{_user()}:*:19000:0:99999:7:::\nsshd:*:19000::::::\n")
        _make_key(etc / "ssh_host_ed25519_key")
        shutil.copy(self.identity.with_suffix(".pub"), etc / "authorized_keys")
        by_key, by_password = ("no", "yes") if password_only else ("yes", "no")
        config = SSHD_CONFIG.format(by_key=by_key, by_password=by_password, path=SYSTEM_PATH)
        (etc / "sshd_config").write_text(config)

    def _sshd(self) -> list[str]:
        under = ["setarch", self._machine] if self._machine else []
        return [*under, str(_program("sshd")), "-D", "-e"]

    def _make_keeper(self, disk_mib: int) -> subprocess.Popen[str]:
        """Somebody who does nothing, and has the machine's network and disk."""
        script = ["sh", "-c", DISK, "disk", str(self._directory / "home"), str(disk_mib)]
        keeper = subprocess.Popen(
            [*ENDS_WITH_US, "unshare", "--net", "--mount", "--propagation", "private", *script],
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert keeper.stdout is not None, "asked for"
        if keeper.stdout.readline() != "up\n":
            raise MachineError(f"{self.name} gets no network and disk: {keeper.communicate()[1].strip()}")
        return keeper

    def lay_cable(self) -> None:
        """Connect it with this machine; once."""
        _run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "cable", "netns", str(self._keeper.pid))
        _run("ip", "address", "add", f"{self.here}/30", "dev", self._cable)
        _run("ip", "link", "set", self._cable, "up")
        _run(*self._in_network, "ip", "link", "set", "lo", "up")
        _run(*self._in_network, "ip", "address", "add", f"{self.address}/30", "dev", "cable")

    def _restart_sshd(self) -> None:
        """It starts itself anew, under the same pid, and lets its connections be."""
        started = self._log().count("Server listening")
        self.inside("kill", "-HUP", "1")
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while self._log().count("Server listening") == started:
            if time.monotonic() > deadline_s:
                raise MachineError(f"{self.name}'s sshd does not start anew: {self._log()[-500:]}")
            time.sleep(POLL_S)
        self._wait_for_sshd()

    def _log(self) -> str:
        return (self._directory / "sshd.log").read_text(encoding="utf-8", errors="replace")

    def _wait_for_sshd(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            with suppress(OSError), socket.create_connection((self.address, 22), timeout=1) as connection:
                if connection.recv(4) == b"SSH-":
                    return
            time.sleep(POLL_S)
        raise MachineError(f"{self.name} takes no connection at {self.address}: {self._log()[-500:]}")


class MachineError(Exception):
    """A machine, or a program that makes one, did not do what it was asked for."""


class Bed:
    """Where machines are made; they share one key that may log in."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self.identity = directory / "identity"
        _make_key(self.identity)

    def machine(self, **options: Any) -> Machine:
        """A machine that is on; see `Machine` for what it may lack."""
        made = Machine(Path(tempfile.mkdtemp(prefix="machine-", dir=self._directory)), self.identity, **options)
        self._stack.callback(made.scrap)
        made.lay_cable()
        made.power_on()
        return made


@contextmanager
def host_bed() -> Iterator[Bed]:
    """A bed for machines of several kinds; skips the test, with the reason, where there can be none."""
    reason = bed_unavailable()
    if reason:
        pytest.skip(f"{SKIPPED}: {reason}")
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bed-", ignore_cleanup_errors=True))
        yield Bed(Path(directory), stack)


@contextmanager
def machines(count: int, **options: Any) -> Iterator[list[Machine]]:
    """So many machines of one kind while the block lasts."""
    with host_bed() as bed:
        yield [bed.machine(**options) for _ in range(count)]


@functools.cache
def bed_unavailable() -> str:
    """Why there can be no machines of namespaces here; empty when there can."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    if os.geteuid() != 0:
        return "making namespaces, cables and mounts takes root"
    missing = sorted({f"{name} ({package})" for name, package in PROGRAMS.items() if _program(name) is None})
    if missing:
        return f"not installed: {', '.join(missing)}"
    if not _python_for_machines():
        return f"no Python 3.11 or newer in {SYSTEM_PATH}; the machines do not see {HOME} and /tmp"
    return _refusal()


def without_own_ssh_settings(argv: Sequence[str]) -> list[str]:
    """The same command, for which the login user's ~/.ssh is empty; ssh looks there whatever HOME says."""
    settings = Path(HOME, ".ssh")
    if not settings.exists():
        return list(argv)
    hide = f'mount -t tmpfs -o mode=700 tmpfs "{settings}" && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "sh", *argv]


def _python_for_machines() -> bool:
    for name in PYTHONS:
        found = shutil.which(name, path=SYSTEM_PATH)
        if found is None or any(Path(found).resolve().is_relative_to(hidden) for hidden in (HOME, "/tmp")):
            continue
        if subprocess.run([found, "-c", OLD], check=False).returncode == 0:
            return True
    return False


def _refusal() -> str:
    """What this machine says to namespaces, mounts and cables: containers often allow only some of them."""
    cable = f"sm{os.getpid():x}try"
    namespaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--propagation", "private"]
    try:
        _run("unshare", *namespaces, "mount", "-t", "tmpfs", "tmpfs", "/mnt")
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", f"{cable}p")
        _run("ip", "link", "delete", cable)
    except MachineError as error:
        return " ".join(str(error).split())
    return ""


def _inner_pid(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])


def _make_key(path: Path) -> None:
    path.unlink(missing_ok=True)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test", "-f", str(path))


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def _run(*argv: str) -> str:
    environment = {"PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}", "LANG": "C.UTF-8"}
    done = subprocess.run(
        argv,
        env=environment,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        raise MachineError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _quietly(*argv: str) -> None:
    with suppress(MachineError):
        _run(*argv)
