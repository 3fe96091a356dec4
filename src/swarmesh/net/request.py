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
        keep_alive: The client can use the connection again.
        http_1_0: The client does not know chunked bodies.
    """

    __slots__ = ("body", "headers", "http_1_0", "keep_alive", "method", "target")

    def __init__(self, method: str, target: bytes, headers: Headers) -> None:
        self.method = method
        self.target = target
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

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        """What follows the question mark."""
        return self.target.partition(b"?")[2]
