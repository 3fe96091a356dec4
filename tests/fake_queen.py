"""A queennode made of the standard library: real sockets, real HTTP, scripted answers."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psutil

KEY = "sk-fake-queen"
WAIT_S = 20.0


class Drop:
    """A step of a stream: the connection breaks."""


DROP = Drop()
Step = bytes | threading.Event | Drop


def token(seq: int, text: str, **more: Any) -> bytes:
    return b"id: %d\nevent: token\ndata: %s\n\n" % (seq, json.dumps({"text": text, **more}).encode())


def accepted(job_id: str = "job-1") -> bytes:
    return b"event: accepted\ndata: %s\n\n" % json.dumps({"job_id": job_id, "status": "queued"}).encode()


def progress(phase: str, *, since_s: float = 0.5, expected_s: float | None = None) -> bytes:
    told = {"job_id": "job-1", "status": "queued", "modelcell": "demo", "phase": phase, "since_s": since_s}
    data = {**told, "expected_s": expected_s, "message": f"demo is {phase}"}
    return b"event: progress\ndata: %s\n\n" % json.dumps(data).encode()


def done(job_id: str = "job-1", tokens: int = 2) -> bytes:
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}
    data = {"job_id": job_id, "finish_reason": "stop", "usage": usage}
    return b"event: done\ndata: %s\n\n" % json.dumps(data).encode()


def failed(code: str = "rustbee_lost", message: str = "it is gone", hint: str = "send it again") -> bytes:
    return b"event: error\ndata: %s\n\n" % json.dumps(error(code, message, hint)).encode()


def error(code: str, message: str, hint: str = "") -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "hint": hint, "type": "server_error", "param": None}}


def rustbee(rustbee_id: str, **more: Any) -> dict[str, Any]:
    return {
        "rustbee_id": rustbee_id,
        "modelcell": "demo",
        "backend": "cpu",
        "host": "local",
        "location": f"unix:/run/{rustbee_id}.sock",
        "status": "healthy",
        "load": 0.25,
        "slots": 4,
        "slots_busy": 1,
        "vram_used": 99,
        "quality": 0.95,
        "uptime_s": 65.0,
        "pid": 101,
        "engine_pid": 102,
        "next_waggle": 30.0,
        **more,
    }


def host(name: str, **more: Any) -> dict[str, Any]:
    gpu = {"index": 0, "name": "Apple M4", "backend": "metal", "total_mib": 16384, "free_mib": 9000}
    return {
        "name": name,
        "address": f"{name}.home.arpa",
        "user": "",
        "port": 0,
        "status": "connected",
        "draining": False,
        "proximity": 0.5,
        "fingerprint": "SHA256:abc",
        "version": "0.1.0",
        "system": "Darwin",
        "machine": "arm64",
        "python": "3.12.4",
        "cpu_cores": 8,
        "total_mib": 16384,
        "available_mib": 9000,
        "free_mib": 8500,
        "disk_free_mib": 200_000,
        "gpus": [gpu],
        "rustbees": [],
        "since_s": 65.0,
        "error": None,
        **more,
    }


def step(name: str, text: str = "", *, state: str = "done", done_bytes: int = 0, total_bytes: int = 0) -> bytes:
    said = {"step": name, "state": state, "text": text, "done_bytes": done_bytes, "total_bytes": total_bytes}
    return b"event: step\ndata: %s\n\n" % json.dumps(said).encode()


def finished(result: Any) -> bytes:
    return b"event: done\ndata: %s\n\n" % json.dumps(result).encode()


def flow(job_id: str = "job-1", **more: Any) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "status": "done",
        "modelcell": "demo",
        "priority": "medium",
        "attempts": 1,
        "rustbee_id": "rustbee-1",
        "created_at": 1_700_000_000.0,
        "finished_at": 1_700_000_002.5,
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        "error": None,
        "decision": "least-work chose rustbee-1 of 1 (none vetoed)",
        "waiting_because": None,
        **more,
    }


def fit(modelcell: str, hosts: Sequence[str]) -> dict[str, Any]:
    return {
        "modelcell": modelcell,
        "slots": 4,
        "context": 2048,
        "need_mib": 5000,
        "weights_mib": 4000,
        "kv_cache_mib": 600,
        "compute_mib": 300,
        "process_mib": 100,
        "hosts": [
            {
                "host": name,
                "memory": "ram",
                "fits": name == "local",
                "need_mib": 5000,
                "free_mib": 8500,
                "total_mib": 16384,
                "file_there": name == "local",
                "would_help": "" if name == "local" else "stop rustbee-1",
            }
            for name in hosts
        ],
    }


def copied(modelcell: str, to: str, **more: Any) -> dict[str, Any]:
    place = {"modelcell": modelcell, "host": to, "path": "/m/qwen.gguf", "sha256": "0" * 64, "source": "local"}
    return {**place, "size_bytes": 8 * 1048576, "sent_bytes": 8 * 1048576, **more}


def _no_host(name: str) -> tuple[int, Any]:
    return 404, error("not_found", f"no host is called {name!r}", "'swarmesh hosts list' shows them")


@dataclass
class Seen:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeQueen:
    """State that tests set and look at. ``streams`` holds one script per stream that will be asked for.

    Attributes:
        answers: Overrides: (method, path) to (status, body), or to the script of a stream.
        hosts: By name; the first one is her own machine.
        progress: What a rustbee that is loading waits for, one after the other.
        loading: How often a new rustbee is shown as starting before it is healthy.
        whence: What she knows about the key of a host that is added.
        spawn_error: What a new rustbee dies of.
        refused_as: What an error calls the task that it refuses.
    """

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    rustbees: dict[str, dict[str, Any]] = field(default_factory=dict)
    flows: dict[str, dict[str, Any]] = field(default_factory=lambda: {"job-1": flow()})
    tokens: dict[str, Any] = field(
        default_factory=lambda: {"job_id": "job-1", "status": "done", "text": "Hello.", "last_seq": 2, "usage": None}
    )
    streams: list[Sequence[Step]] = field(default_factory=list)
    answers: dict[tuple[str, str], tuple[int, Any] | Sequence[Step]] = field(default_factory=dict)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    hosts: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"local": host("local", address="localhost", status="local")}
    )
    progress: list[dict[str, Any]] = field(default_factory=list)
    loading: int = 1
    whence: str = "compare it with the host's own, if you can"
    spawn_error: dict[str, Any] | None = None
    refused_as: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def requests(self, method: str, path: str) -> list[Seen]:
        return [seen for seen in self.seen if (seen.method, seen.path) == (method, path)]

    def answer(self, seen: Seen) -> tuple[int, Any] | Sequence[Step]:
        with self.lock:
            self.seen.append(seen)
            if seen.headers.get("authorization") != f"Bearer {KEY}":
                return 401, error("invalid_api_key", "no valid API key came with the request", "send one")
            if (override := self.answers.get((seen.method, seen.path))) is not None:
                return override
            noun, _, name = seen.path.removeprefix("/v2/swarmesh/").partition("/")
            handler: Callable[[Seen, str], Any] | None = getattr(self, f"_{seen.method.lower()}_{noun}", None)
            if handler is None:
                return 404, error("not_found", f"there is no {seen.path}")
            return handler(seen, unquote(name))

    def _get_health(self, _seen: Seen, _name: str) -> Any:
        counts: dict[str, int] = {}
        for bee in self.rustbees.values():
            counts[bee["status"]] = counts.get(bee["status"], 0) + 1
        return 200, {
            "status": "healthy" if self.rustbees else "no_rustbees",
            "version": "0.1.0",
            "pid": 1,
            "uptime_s": 12.0,
            "url": self.url,
            "rustbees": counts,
            "modelcells": sorted({bee["modelcell"] for bee in self.rustbees.values()}),
            "queue_depth": 0,
            "streams": 0,
        }

    def _get_rustbees(self, _seen: Seen, name: str) -> Any:
        if not name:
            return 200, {"rustbees": list(self.rustbees.values())}
        if name not in self.rustbees:
            return 404, error("not_found", f"no rustbee is called {name!r}", "'swarmesh rustbees list' shows them")
        bee = dict(self.rustbees[name])
        if bee["status"] == "starting":
            self._load(name)
        return 200, bee

    def _load(self, name: str) -> None:
        bee = self.rustbees[name]
        bee["polls"] = bee.get("polls", 0) + 1
        bee["progress"] = self.progress.pop(0) if self.progress else None
        if bee["polls"] >= self.loading:
            bee["status"] = "dead" if self.spawn_error else "healthy"
            bee["error"] = self.spawn_error

    def _post_rustbees(self, seen: Seen, name: str) -> Any:
        if name:
            rustbee_id, _, verb = name.partition("/")
            if rustbee_id not in self.rustbees or verb != "cut":
                return 404, error("not_found", f"no rustbee is called {rustbee_id!r}", "look at the list")
            return 202, {"rustbee_id": rustbee_id, "seconds": seen.body["seconds"]}
        rustbee_id = f"rustbee-{len(self.rustbees) + 1}"
        made = rustbee(rustbee_id, modelcell=seen.body["modelcell"], status="starting")
        made["host"] = seen.body.get("host", "localhost")
        self.rustbees[rustbee_id] = made
        return 202, {"rustbee_id": rustbee_id, "status": "starting"}

    def _delete_rustbees(self, _seen: Seen, name: str) -> Any:
        if self.rustbees.pop(name, None) is None:
            return 404, error("not_found", f"no rustbee is called {name!r}", "'swarmesh rustbees list' shows them")
        return 202, {"rustbee_id": name, "status": "draining"}

    def _get_hosts(self, _seen: Seen, name: str) -> Any:
        if not name:
            return 200, {"hosts": list(self.hosts.values())}
        name, _, what = name.partition("/")
        if name not in self.hosts:
            return _no_host(name)
        return (200, {"checks": []}) if what == "checks" else (200, self.hosts[name])

    def _post_hosts(self, seen: Seen, name: str) -> Any:
        name, _, verb = name.partition("/")
        if verb:
            if name not in self.hosts:
                return _no_host(name)
            self.hosts[name]["draining"] = verb == "drain"
            return (202 if verb == "drain" else 200), self.hosts[name]
        name = seen.body["name"] or seen.body["address"].partition(".")[0]
        self.hosts[name] = host(name, address=seen.body["address"])
        key = step("key", f"host key SHA256:abc (ED25519); {self.whence}")
        return [key, step("connect", f"{name} is connected"), finished(self.hosts[name])]

    def _delete_hosts(self, _seen: Seen, name: str) -> Any:
        if self.hosts.pop(name, None) is None:
            return _no_host(name)
        return [step("uninstall", f"nothing of this hive is left on {name}"), finished({})]

    def _post_models(self, seen: Seen, name: str) -> Any:
        match name:
            case "fit":
                return 200, fit(seen.body["modelcell"], list(self.hosts))
            case "scan":
                return 200, {"found": [], "errors": {}}
            case _:
                return [step("copy", "copied", done_bytes=8, total_bytes=8), finished(copied(**seen.body))]

    def _get_waggles(self, _seen: Seen, _name: str) -> Any:
        keys = ("rustbee_id", "modelcell", "status", "load", "vram_used", "quality", "next_waggle")
        extra = {"tokens_per_s": 12.5, "waggle_age_s": 0.4, "waggle_rtt_ms": 1.5}
        return 200, {"waggles": [{key: bee[key] for key in keys} | extra for bee in self.rustbees.values()]}

    def _get_alarms(self, _seen: Seen, _name: str) -> Any:
        return 200, {"alarms": self.alarms}

    def _post_nectarflow(self, seen: Seen, _name: str) -> Any:
        return self.streams.pop(0) if seen.body.get("stream") else (202, {"job_id": "job-1", "status": "queued"})

    def _get_nectarflow(self, _seen: Seen, name: str) -> Any:
        if name not in self.flows:
            return 404, error("not_found", f"no nectarflow is called {name!r}", "'swarmesh nectarflow list' shows them")
        return 200, self.flows[name]

    def _delete_nectarflow(self, _seen: Seen, name: str) -> Any:
        self.flows[name] = flow(name, status="cancelled")
        return 200, self.flows[name]

    def _get_nectarflows(self, seen: Seen, _name: str) -> Any:
        wanted = seen.query.get("status")
        return 200, {"nectarflows": [f for f in self.flows.values() if wanted in (None, f["status"])]}

    def _get_honeytokens(self, seen: Seen, _name: str) -> Any:
        return self.streams.pop(0) if "event-stream" in seen.headers.get("accept", "") else (200, self.tokens)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    queen: FakeQueen

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.queen.answer(Seen(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body))
        if isinstance(answer, tuple):
            self._send_json(*answer)
        else:
            self._send_stream(answer)

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - names that http.server calls

    def _send_json(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if status >= 400 and self.queen.refused_as:
            self.send_header("x-swarmesh-task", self.queen.refused_as)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_stream(self, steps: Sequence[Step]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for step in steps:
            match step:
                case threading.Event():
                    step.wait(WAIT_S)
                case Drop():
                    self.close_connection = True
                    return
                case bytes():
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(step), step))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name http.server calls it by
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_port = True  # A test may keep a port for her next life.

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left in the middle is part of the tests."""


@contextmanager
def running_queen(port: int = 0) -> Iterator[FakeQueen]:
    queen = FakeQueen()
    handler = type("Handler", (_Handler,), {"queen": queen})
    with _Server(("127.0.0.1", port), handler) as server:
        queen.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield queen
        finally:
            server.shutdown()
            thread.join()


def write_note(home: Path, url: str) -> None:
    """What a queen leaves in her home, played by this process."""
    me = psutil.Process()
    note = {"url": url, "pid": me.pid, "started_at": me.create_time(), "version": "0.1.0"}
    (home / "admin.key").write_text(KEY)
    (home / "queen.json.new").write_text(json.dumps(note))
    (home / "queen.json.new").rename(home / "queen.json")


def main() -> None:
    """Stand in for ``python -m swarmesh.queen``: leave a note in the home, serve, end at SIGTERM.

    With FAKE_QUEEN_HALF she says half of her answer and waits; the next queen of the home says the rest.
    """
    home = Path(os.environ["SWARMESH_HOME"])
    if os.environ.get("FAKE_QUEEN_FAILS"):
        sys.stderr.write(f"a line of the log\n{os.environ['FAKE_QUEEN_FAILS']}\n")
        sys.exit(1)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    with running_queen() as queen:
        queen.streams = [[accepted(), token(1, "A worker."), done()]]
        if os.environ.get("FAKE_QUEEN_HALF"):
            half: Sequence[Step] = [accepted(), token(1, "A "), threading.Event()]
            rest: Sequence[Step] = [token(1, "A "), token(2, "worker."), done()]
            queen.streams = [rest if (home / "queen.json").exists() else half]
        write_note(home, queen.url)
        stop.wait()
    (home / "queen.json").unlink()


if __name__ == "__main__":
    main()
