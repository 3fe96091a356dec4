"""How the queen reaches each worker: an address, pooled connections, and what has to be said to be let in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from swarmesh.core.ids import WorkerId
from swarmesh.net.address import Address, parse_address
from swarmesh.net.upstream import Sink, UpstreamCall, UpstreamPool
from swarmesh.wire.http1 import Headers, ResponseHead, request_head

LINGER_S: Final = 600
"""How long a durable task may go on in its agent while no queen listens."""
AGENT_IDLE_TTL_S: Final = 3600.0
"""Our own agents keep idle connections open; a dead agent closes them."""
FOREIGN_IDLE_TTL_S: Final = 4.0
"""Other servers close idle connections, uvicorn after 5 s."""
EXECUTE_TARGET: Final = b"/execute"
ABANDONED_MAX: Final = 1_000
"""Tasks of one worker that it could not be told to end."""


class Dialect(StrEnum):
    """What a worker understands."""

    AGENT = "agent"
    """Our agent: ``/execute`` and OpenAI's routes, numbered events, token ids."""
    OPENAI = "openai"
    """A server that was adopted: OpenAI's routes only."""


class WorkerLink:
    """The way to one worker.

    Attributes:
        remote_model: What the worker itself calls the model; empty when it goes by our name.
        epoch: Which life of the queen this is; an agent obeys none before the newest it has heard of.
    """

    def __init__(
        self,
        worker_id: WorkerId,
        location: str,
        *,
        dialect: Dialect,
        key: str = "",
        remote_model: str = "",
        epoch: int = 0,
    ) -> None:
        self.worker_id = worker_id
        self.address: Address = parse_address(location)
        self.dialect = dialect
        self.key = key
        self.remote_model = remote_model
        self.epoch = epoch
        ttl_s = AGENT_IDLE_TTL_S if dialect is Dialect.AGENT else FOREIGN_IDLE_TTL_S
        self._pool = UpstreamPool(self.address, idle_ttl_s=ttl_s)
        self._prefixes: dict[bytes, bytes] = {}
        self._abandoned: OrderedDict[str, int] = OrderedDict()
        self.id_header = worker_id.encode()

    @property
    def auth_headers(self) -> Headers:
        """What lets the queen in."""
        return [(b"authorization", b"Bearer " + self.key.encode())] if self.key else []

    def post(self, target: bytes, body: bytes, task_id: str, attempt: int, sink: Sink) -> UpstreamCall:
        """Send one task; the head was rendered once per target but for its three changing values."""
        prefix = self._prefixes.get(target) or self._render_prefix(target)
        payload = b"%sx-swarmesh-task: %s\r\nx-swarmesh-attempt: %d\r\ncontent-length: %d\r\n\r\n%s" % (
            prefix,
            task_id.encode(),
            attempt,
            len(body),
            body,
        )
        return self._pool.request(payload, sink)

    def get(self, target: bytes, sink: Sink) -> UpstreamCall:
        """Ask for something that is there."""
        return self._pool.request(self._head(b"GET", target, []), sink)

    def abandon(self, task_id: str, attempt: int) -> None:
        """Have a task ended that goes on in its agent for nobody, unless a later attempt has it by now.

        A worker out of reach is told when it is heard again, see `end_abandoned`; the oldest are forgotten first.
        """
        self._abandoned[task_id] = attempt
        while len(self._abandoned) > ABANDONED_MAX:
            self._abandoned.popitem(last=False)
        self._end(task_id, attempt)

    def end_abandoned(self) -> None:
        """The worker can be reached again: end what it was not told of."""
        for task_id, attempt in list(self._abandoned.items()):
            self._end(task_id, attempt)

    def cut(self, seconds: float) -> None:
        """For drills: break every connection to this worker, and make no new one for so long."""
        self._pool.sever(seconds)

    def close(self) -> None:
        """Close idle connections; streams that run end by themselves."""
        self._pool.close()

    def _end(self, task_id: str, attempt: int) -> None:
        target = b"%s/%s" % (EXECUTE_TARGET, task_id.encode())
        attempt_header = (b"x-swarmesh-attempt", b"%d" % attempt)
        told = _Told(lambda: self._abandoned.pop(task_id, None))
        self._pool.request(self._head(b"DELETE", target, [attempt_header]), told)

    def _render_prefix(self, target: bytes) -> bytes:
        headers: Headers = [(b"content-type", b"application/json")]
        if target == EXECUTE_TARGET:  # Only a durable task is anybody's business when no queen is there to listen.
            headers.append((b"x-swarmesh-linger-s", b"%d" % LINGER_S))
        prefix = self._head(b"POST", target, headers)[:-2]
        self._prefixes[target] = prefix
        return prefix

    def _head(self, method: bytes, target: bytes, extra: Headers) -> bytes:
        headers: Headers = [(b"host", self.address.authority), *self.auth_headers]
        if self.dialect is Dialect.AGENT:
            headers.append((b"x-swarmesh-epoch", b"%d" % self.epoch))
        return request_head(method, self.address.prefix.encode() + target, [*headers, *extra])


class _Told:
    """A `Sink` for an answer of which only matters that it came."""

    def __init__(self, done: Callable[[], object]) -> None:
        self._done = done

    def received(self, head: ResponseHead | None, data: bytes, *, ended: bool) -> None:  # noqa: ARG002 - any answer will do
        """See `swarmesh.net.upstream.Sink`."""
        if head is not None:
            self._done()

    def broken(self, reason: str) -> None:
        """See `swarmesh.net.upstream.Sink`."""


class Links:
    """The links of all known workers."""

    def __init__(self) -> None:
        self._links: dict[WorkerId, WorkerLink] = {}

    def put(self, link: WorkerLink) -> None:
        """Take a link in; the one before is dropped unless it leads to the same place."""
        known = self._links.get(link.worker_id)
        if known is not None:
            if (known.address, known.key, known.epoch) == (link.address, link.key, link.epoch):
                return
            known.close()
        self._links[link.worker_id] = link

    def get(self, worker_id: WorkerId) -> WorkerLink | None:
        """The way to a worker, if one is known."""
        return self._links.get(worker_id)

    def remove(self, worker_id: WorkerId) -> None:
        """Forget the way to a worker."""
        link = self._links.pop(worker_id, None)
        if link is not None:
            link.close()
