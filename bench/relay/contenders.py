"""The routers under test. Each knows how to start itself in front of the fake workers, and how to be asked."""

from __future__ import annotations

import http.client
import importlib.metadata
import os
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path

from . import answers, installs
from .driver import Target
from .installs import UnavailableError
from .process_tree import ROUTER_CORE, ProcessTree, pinned

START_TIMEOUT_S = 30.0
POLL_S = 0.1
QUEEN_SLOTS = 2_000


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody listens on at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Router(ABC):
    """One router: started before its measurements, stopped after them, alone on its core."""

    name: str
    extra = False  # measured only when asked for

    def __init__(self) -> None:
        self.port = 0
        self.headers: dict[str, str] = {}
        self.tree: ProcessTree | None = None  # what is measured
        self._launched: ProcessTree | None = None  # what is stopped
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self) -> str:
        """Installs what is missing and returns the version; raises UnavailableError."""

    @abstractmethod
    def start(self, worker_ports: list[int], home: Path) -> None:
        """Starts the router on ``self.port``, its files under ``home``, and waits until it relays."""

    @property
    def target(self) -> Target:
        """Where the driver sends its load."""
        return Target((("127.0.0.1", self.port),), self.headers)

    def launch(self, command: list[str | Path], home: Path, env: dict[str, str] | None = None) -> None:
        """Starts the router's process on the router's core, its output in ``home/output.log``."""
        self._log = home / "output.log"
        with pinned(ROUTER_CORE), self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    command, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env
                )
            except OSError as error:
                raise UnavailableError(str(error)) from error
        self._launched = ProcessTree(self._process.pid)

    def wait_until_relaying(self) -> None:
        """Asks a completion until it comes back whole; raises UnavailableError with the router's last words."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        body = answers.request_body(chunk_count=1, pace_per_s=0, stream=False, session=0)
        last = ""
        while time.monotonic() < deadline_s:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                status, answer = self.ask("POST", "/v1/chat/completions", body)
            except OSError as error:
                last = str(error)
            else:
                if (status, answer) == (200, answers.completion_body()) and self._launched is not None:
                    self.tree = self._launched.listening_on(self.port)
                    return
                last = f"{status} {answer[:200]!r}"
            time.sleep(POLL_S)
        raise UnavailableError(f"{self.name} does not relay ({last}); its output ends: {self.last_words()}")

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path, body, {"content-type": "application/json", **self.headers})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def last_words(self) -> str:
        """The last lines the router printed."""
        return " | ".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])

    def stop(self) -> None:
        """Ends the router's processes; stopping a router that does not run is no error."""
        if self._launched is not None:
            self._launched.stop()
        if self._process is not None:
            self._process.wait()
        self._process = self._launched = self.tree = None


class Direct(Router):
    """No router: the driver's own limit, and the first-token time that the others add to."""

    name = "direct"

    def prepare(self) -> str:
        """Nothing to install."""
        return ""

    def start(self, worker_ports: list[int], home: Path) -> None:  # noqa: ARG002 - it needs no files
        """Remembers the workers; there is nothing between them and the driver."""
        self._ports = worker_ports

    @property
    def target(self) -> Target:
        """All workers; the connections are dealt out in turn."""
        return Target(tuple(("127.0.0.1", port) for port in self._ports))


class Nginx(Router):
    """The yardstick: one worker process, keep-alive to the workers, every write flushed, no log."""

    name = "nginx"

    def prepare(self) -> str:
        """The system's nginx, or Debian's package unpacked."""
        self._binary = installs.nginx()
        return installs.run([self._binary, "-v"]).strip().removeprefix("nginx version: nginx/")

    def start(self, worker_ports: list[int], home: Path) -> None:
        """In the foreground, from a configuration of its own; the system's service is never touched."""
        servers = "\n".join(f"    server 127.0.0.1:{port} max_fails=0;" for port in worker_ports)
        config = (Path(__file__).parent / "nginx.conf").read_text(encoding="ascii")
        config = config.replace("@HOME@", str(home)).replace("@PORT@", str(self.port))
        (home / "nginx.conf").write_text(config.replace("@SERVERS@", servers), encoding="ascii")
        self.launch([self._binary, "-p", home, "-e", "stderr", "-c", home / "nginx.conf"], home)
        self.wait_until_relaying()


class RustRouter(Router):
    """sglang-router or vllm-router with one of its policies, as installed, its log at errors only."""

    def __init__(self, package: str, policy: str, arguments: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.package = package
        self.policy = policy
        self.name = f"{package} {policy}"
        self.extra = policy == "cache_aware"
        self._arguments = arguments

    def prepare(self) -> str:
        """The pinned release from PyPI."""
        self._command = installs.from_pypi(self.package)
        return installs.VERSIONS[self.package]

    def start(self, worker_ports: list[int], home: Path) -> None:
        """One core is set before the start, so that its runtime makes one thread for it."""
        (prometheus_port,) = free_ports(1)
        urls = [f"http://127.0.0.1:{port}" for port in worker_ports]
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--policy", self.policy, "--log-level", "error"]
        metrics = ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(prometheus_port)]
        self.launch([self._command, *self._arguments, *options, *metrics, "--worker-urls", *urls], home)
        self.wait_until_relaying()


class Queen(Router):
    """The queennode as it ships: key check, routing and journal on, the workers adopted by URL."""

    name = "queen"

    def prepare(self) -> str:
        """The command that belongs to the Python this benchmark runs in."""
        self._command = Path(sys.executable).parent / "swarmesh"
        if not self._command.exists():
            raise UnavailableError(f"{self._command.name} is not installed beside {sys.executable}")
        return importlib.metadata.version("rustbee")

    def start(self, worker_ports: list[int], home: Path) -> None:
        """As a user would: start, find the key in the home, adopt each worker by its URL."""
        env = {**os.environ, "SWARMESH_HOME": str(home), "SWARMESH_URL": f"http://127.0.0.1:{self.port}"}
        env.pop("SWARMESH_API_KEY", None)
        start: list[str | Path] = [self._command, "queennode", "start", "--port", str(self.port), "--foreground"]
        self.launch(start, home, env)
        self._wait_for_key(home / "admin.key")
        for url in self.urls(worker_ports, home):
            spawn: list[str | Path] = [self._command, "spawn", "rustbee", "--type", "openai", "--url", url]
            slots = ["--modelcell", answers.MODEL, "--slots", str(QUEEN_SLOTS), "--json"]
            installs.run([*spawn, *slots], env=env)
        self.wait_until_relaying()

    def urls(self, worker_ports: list[int], home: Path) -> list[str]:  # noqa: ARG002 - ways to workers may need files
        """Where she finds the workers."""
        return [f"http://127.0.0.1:{port}" for port in worker_ports]

    def _wait_for_key(self, key: Path) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self._process and self._process.poll() is None:
            if key.exists():
                self.headers = {"authorization": f"Bearer {key.read_text(encoding='ascii').strip()}"}
                if self._healthy():
                    return
            time.sleep(POLL_S)
        raise UnavailableError(f"the queen did not start; her output ends: {self.last_words()}")

    def _healthy(self) -> bool:
        try:
            status, _ = self.ask("GET", "/v2/swarmesh/health")
        except OSError:
            return False
        return status == 200


def contenders() -> list[Router]:
    """Everyone in the order of the table."""
    return [
        Direct(),
        Nginx(),
        Queen(),
        RustRouter("sglang-router", "round_robin", ("launch",)),
        RustRouter("sglang-router", "power_of_two", ("launch",)),
        RustRouter("vllm-router", "round_robin"),
        RustRouter("vllm-router", "power_of_two"),
        RustRouter("sglang-router", "cache_aware", ("launch",)),
        RustRouter("vllm-router", "cache_aware"),
    ]
