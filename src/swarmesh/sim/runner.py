"""One task on its way through workers, as the queen carries it: what was shown, who speaks, what is on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from swarmesh.core.ids import TaskId, WorkerId
from swarmesh.sim.checkers import demand
from swarmesh.sim.client import Client, Spokesmen
from swarmesh.sim.disk import VirtualDisk
from swarmesh.sim.execution import Stream
from swarmesh.sim.workload import Request


@dataclass(slots=True, eq=False)
class Runner:
    """Carries one task in one life of the queen.

    Attributes:
        shown: The whole answer so far; what the next attempt goes on from.
        follower: Who listens; nobody while a client has not come back.
        sent: Number of the last token the follower was sent, or said it has.
        stream: The present attempt.
        rejoins: The worker that may have gone on alone since the queen before.
        handed_on: How many tokens the disk was given, and when.
    """

    request: Request
    disk: VirtualDisk
    spokesmen: Spokesmen
    shown: bytearray = field(default_factory=bytearray)
    follower: Client | None = None
    sent: int = 0
    stream: Stream | None = None
    rejoins: WorkerId | None = None
    handed_on: int = 0
    handed_on_ms: int = 0

    @property
    def task_id(self) -> TaskId:
        """Name of its task."""
        return self.request.task.task_id

    def follow(self, client: Client, after: int, now_ms: int) -> None:
        """Let a client read from a number on."""
        self.follower, self.sent = client, after
        self._send(now_ms)

    def pull(self, at_ms: int) -> None:
        """Read what the stream has brought by then."""
        if self.stream is None:
            return
        first_seq, tokens = self.stream.take(at_ms)
        if not tokens or self.stream.execution is None:
            return
        self.spokesmen.append(self.task_id, self.stream.epoch, self.stream.attempt)
        due = len(self.shown) + 1
        demand(first_seq == due, "{} is given number {} by its worker, due is {}", self.task_id, first_seq, due)
        self.shown += tokens
        self._send(self.stream.execution.first_ms)

    def flush(self, now_ms: int) -> None:
        """Let everything shown be written."""
        if self.request.task.durable and self.handed_on < len(self.shown):
            self.disk.append(self.task_id, self.handed_on + 1, bytes(self.shown[self.handed_on :]))
            self.handed_on, self.handed_on_ms = len(self.shown), now_ms

    def flushed_by(self, flush_ms: int) -> tuple[TaskId, int, bytes] | None:
        """What a flush at that time had written beyond what `flush` was asked for."""
        stream = self.stream
        if stream is None or stream.execution is None or flush_ms < self.handed_on_ms:
            return None
        execution = stream.execution
        last_seq = execution.first_seq - 1 + min(stream.arrived(flush_ms), stream.taken)
        tokens = bytes(self.shown[self.handed_on : last_seq])
        return (self.task_id, self.handed_on + 1, tokens) if tokens else None

    def detach(self) -> Stream | None:
        """Close the stream, if there is one."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.closed = True
        return stream

    def _send(self, first_ms: float) -> None:
        if self.follower is None or self.follower.end is not None or len(self.shown) <= self.sent:
            return
        tokens = bytes(self.shown[self.sent :])
        first_seq, self.sent = self.sent + 1, len(self.shown)
        self.follower.receive(first_seq, tokens, first_ms)
