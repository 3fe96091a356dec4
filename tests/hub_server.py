"""A server that speaks the Hugging Face hub's protocol for downloads, and counts what it is asked for."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

COMMIT = "c" * 40
TOKEN = "hf_letmein"


@dataclass
class HubServer:
    """Serves ``files`` of repository ``org/repo`` from one port, their content from another, as a CDN does.

    Attributes:
        cuts: After so many bytes of each next answer with content the connection is closed; -1 for an HTTP 503.
        ranges: First byte of each answer with content.
        gated: Only who shows `TOKEN` sees the repository.
    """

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)
    ranges: list[int] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    gated: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            server_state = hub

        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        self._threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in self._servers]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def cdn_url(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def next_cut(self, first_byte: int) -> int | None:
        with self._lock:
            self.ranges.append(first_byte)
            return self.cuts.pop(0) if self.cuts else None


class _Handler(BaseHTTPRequestHandler):
    server_state: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it has there
        pass

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, *, with_content: bool) -> None:
        self.server_state.agents.append(self.headers.get("User-Agent", ""))
        kind, _, name = self.path.lstrip("/").partition("/")
        if kind == "cdn":
            assert "Authorization" not in self.headers, "a token is for the hub alone"
            self._content(self._by_digest(name), with_content=with_content)
            return
        prefix = "org/repo/resolve/main/"
        path = self.path.lstrip("/").replace(f"/{COMMIT}/", "/main/")
        if not path.startswith(prefix):
            self._error(404 if "nobody" not in path else 401, "RepoNotFound")
        elif self.server_state.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._error(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        elif path.removeprefix(prefix) not in self.server_state.files:
            self._error(404, "EntryNotFound")
        else:
            self._redirect(self.server_state.files[path.removeprefix(prefix)])

    def _redirect(self, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self.send_response(302)
        self.send_header("Location", f"{self.server_state.cdn_url}/cdn/{digest}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("ETag", '"of-the-pointer"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _content(self, content: bytes, *, with_content: bool) -> None:
        asked = self.headers.get("Range", "")
        first = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        cut = self.server_state.next_cut(first) if with_content else None
        if cut == -1:
            self._error(503, "")
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if with_content:
            self.wfile.write(content[first:] if cut is None else content[first : first + cut])
            self.close_connection = cut is not None

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _by_digest(self, digest: str) -> bytes:
        contents = self.server_state.files.values()
        return next(content for content in contents if hashlib.sha256(content).hexdigest() == digest)
