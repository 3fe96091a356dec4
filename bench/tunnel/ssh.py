"""A real SSH server of its own on the loopback address, and one connection to it that carries forwarded sockets.

The server runs as whoever runs the benchmark, from a configuration, a host key and a port of its own; the system's
server, keys and configuration are neither read nor touched. Each end runs on the core of its machine: ``ssh`` beside
the queen, ``sshd`` beside the workers.
"""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.relay.contenders import free_ports
from bench.relay.installs import UnavailableError, run
from bench.relay.process_tree import LOAD_CORE, ROUTER_CORE, ProcessTree, pinned

START_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.02
ADDRESS: Final = "127.0.0.1"
SESSION: Final = "cat"
"""A command that lasts as long as its input: what makes the connection one with a session."""
SERVER_PATH: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"

SERVER_CONFIG: Final = """
ListenAddress {address}:{port}
HostKey {home}/host_key
AuthorizedKeysFile {home}/user_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
LogLevel ERROR
"""


class Tunnel:
    """One SSH connection to this machine. Start it with `open`, end it with `close`.

    Args:
        home: A directory of its own for keys, configuration and the control socket; short, for it holds sockets.
        session: Whether a command runs on the connection beside the forwards, as Swarmesh has it; otherwise ``-N``.
    """

    def __init__(self, home: Path, *, session: bool) -> None:
        self._home = home
        self._session = session
        self._control = home / "control"
        self._running: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def version() -> str:
        """What the client calls itself; raises UnavailableError where there is none."""
        return run(["ssh", "-V"]).strip()

    def open(self) -> None:
        """Starts the server, then the connection; raises UnavailableError with their last words."""
        server = shutil.which("sshd") or shutil.which("sshd", path=SERVER_PATH)
        if server is None:
            raise UnavailableError("no sshd on this machine (Debian: openssh-server)")
        (port,) = free_ports(1)
        for name in ("host_key", "user_key"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._home / name])
        config = self._home / "sshd_config"
        config.write_text(SERVER_CONFIG.format(address=ADDRESS, port=port, home=self._home), encoding="utf-8")
        host_key = (self._home / "host_key.pub").read_text(encoding="ascii")
        (self._home / "known_hosts").write_text(f"[{ADDRESS}]:{port} {host_key}", encoding="ascii")
        self.sshd = self._start([server, "-D", "-e", "-f", config], LOAD_CORE, "sshd.log")
        self._until(lambda: _accepts(port), "sshd.log")
        last: list[str | Path] = ["--", ADDRESS, SESSION] if self._session else ["-N", "--", ADDRESS]
        self.ssh = self._start([*self._client(port), *last], ROUTER_CORE, "ssh.log")
        self._until(self._control.exists, "ssh.log")

    def forward(self, remote: Path, local: Path) -> None:
        """Makes the socket ``remote``, at the far end, appear as ``local``."""
        run(["ssh", "-F", "none", "-S", self._control, "-O", "forward", "-L", f"{local}:{remote}", "--", ADDRESS])

    def close(self) -> None:
        """Ends the connection, then the server; harmless when neither runs."""
        for process in reversed(self._running):
            ProcessTree(process.pid).stop()
            process.wait()
            assert process.stdin is not None, "made with a pipe"
            process.stdin.close()
        self._running.clear()

    def _client(self, port: int) -> list[str | Path]:
        options = {
            "UserKnownHostsFile": self._home / "known_hosts",
            "IdentityFile": self._home / "user_key",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ForwardAgent": "no",
            "User": getpass.getuser(),
        }
        shown = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", "-M", "-S", self._control, "-T", "-p", str(port), *shown]

    def _start(self, command: list[str | Path], core: int, log_name: str) -> ProcessTree:
        with pinned(core), (self._home / log_name).open("wb") as log:
            try:
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
            except OSError as error:
                raise UnavailableError(str(error)) from error
        self._running.append(process)
        return ProcessTree(process.pid)

    def _until(self, there: Callable[[], bool], log_name: str) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self._running[-1].poll() is None:
            if there():
                return
            time.sleep(POLL_S)
        words = (self._home / log_name).read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
        raise UnavailableError(f"{log_name.partition('.')[0]} did not start: {' | '.join(words)}")


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((ADDRESS, port), timeout=1.0).close()
    except OSError:
        return False
    return True
