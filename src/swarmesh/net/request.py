"""A request as it was received: whole, bounded, and not yet believed."""

from __future__ import annotations

from swarmesh.wire.http1 import Headers


class Request:
    """One request.

    Attributes:
        method: In upper case.
        target: As sent: path and query.
        headers: Names in lower case, in order.
        body: Whole; its size was checked while it came in.
        path: The target without its query.
        query: What follows the question mark.
        keep_alive: The client can use the connection again.
        http_1_0: The client does not know chunked bodies.
    """

    __slots__ = ("body", "headers", "http_1_0", "keep_alive", "method", "path", "query", "target")

    def __init__(self, method: str, target: bytes, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition(b"?")
        self.headers = headers
        self.body = b""
        self.keep_alive = True
        self.http_1_0 = False

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, by its name in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
