"""All clients: they ask, read, leave, and come back after the queen has died; and what may be demanded for them."""

from __future__ import annotations

from collections import deque
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from swarmesh.core.errors import PoisonTaskError
from swarmesh.core.events import TaskCancelled
from swarmesh.core.ids import TaskId
from swarmesh.core.poison import KILLS_MAX
from swarmesh.core.task import TaskStatus
from swarmesh.sim.checkers import demand
from swarmesh.sim.client import Client
from swarmesh.sim.workload import Workload

if TYPE_CHECKING:
    from swarmesh.sim.world import VirtualWorld

RETURNING_MS: Final = (0, 3_000)
"""Until a client comes back after its queen has died."""
SUSPICION_MS: Final = 300_000
"""How long before a task came an engine may have crashed under one that is still suspected."""
CRASHES_KEPT_MS: Final = 3_600_000
KILLS_MOST: Final = 4
"""Engines that a poisonous task may crash whatever the others do; `KILLS_MAX` when all others are innocent."""


class Crowd:
    """Everybody who ever asked for something.

    Attributes:
        clients: Those whose tasks have no end yet.
        outdated: Reports that came so late that they named an engine which was gone.
    """

    def __init__(self, world: VirtualWorld, workload: Workload, rng: Random) -> None:
        self.clients: dict[TaskId, Client] = {}
        self.outdated = 0
        self._everybody: dict[TaskId, Client] = {}
        self._crashes: deque[tuple[int, TaskId | None]] = deque()
        self._world = world
        self._workload = workload
        self._rng = rng

    def arrive(self) -> None:
        """Let the next ones come, until the world is calm."""
        world = self._world
        if world.calm:
            return
        if world.queen is not None:  # Nobody connects to a port that is closed.
            for request in self._workload.arrival(world.clock.now_ms):
                self._submit(Client(request))
        world.clock.after(self._workload.gap_ms(), self.arrive)

    def orphaned(self) -> None:
        """The queen is dead: plain streams end with her, others wait for the next."""
        for client in list(self.clients.values()):
            client.orphaned += 1
            if not client.request.task.durable:
                self._world.record.vanished += 1
                client.over(TaskStatus.FAILED)
                self._let_go(client)

    def come_back(self) -> None:
        """There is a queen again."""
        for client in list(self.clients.values()):
            self._world.clock.after(self._rng.randint(*RETURNING_MS), partial(self._return, client))

    def client(self, task_id: TaskId) -> Client:
        """Who asked for the task."""
        return self._everybody[task_id]

    def ended(self, client: Client, status: TaskStatus, code: str) -> None:
        """The client is told, or could be, how its task ended.

        Raises:
            InvariantBrokenError: That cannot be its end.
        """
        if client.end is not None and self._world.setting.disk_lies:
            return  # The disk has forgotten an end that the client knows.
        client.over(status)
        self._check_end(client, status, code)
        self._world.record.ended(client, status, code)
        self._let_go(client)

    def refused(self, client: Client, code: str) -> None:
        """The client is told that its task is not taken in.

        Raises:
            InvariantBrokenError: It had been accepted.
        """
        demand(not client.accepted, "{} was accepted and is refused: {}", client.task_id, code)
        client.over(TaskStatus.FAILED)
        self._world.record.failed[code] += 1
        self._let_go(client)

    def unknown(self, client: Client) -> None:
        """The client is told that nobody knows its task.

        Raises:
            InvariantBrokenError: No disk had lied.
        """
        demand(self._world.setting.disk_lies, "{} was accepted and is not known any more", client.task_id)
        client.over(TaskStatus.FAILED)
        self._world.record.lost += 1
        self._let_go(client)

    def struck(self, culprit: TaskId | None, seen: list[TaskId]) -> None:
        """An engine crashed, by a task if one is named, under all those.

        Raises:
            InvariantBrokenError: That task should have been stopped before.
        """
        for task_id in seen:
            if task_id in self.clients and task_id != culprit:
                self.clients[task_id].struck += 1
        self._crashes.append((self._world.clock.now_ms, culprit))
        client = self.clients.get(culprit) if culprit else None
        if client is not None:
            client.crashed += 1
            self._check_kills(client)

    def _submit(self, client: Client) -> None:
        self.clients[client.task_id] = self._everybody[client.task_id] = client
        self._world.record.submitted += 1
        if client.request.leaves_after_ms is not None:
            self._world.clock.after(client.request.leaves_after_ms, partial(self._leave, client))
        self._knock(client)

    def _knock(self, client: Client) -> None:
        queen = self._world.queen
        if queen is not None and client.end is None:
            queen.soon(partial(queen.submit, client))

    def _leave(self, client: Client) -> None:
        if client.end is None and not client.request.task.durable:
            self.ended(client, TaskStatus.CANCELLED, "")
        client.leaving = True
        self._cancel(client)

    def _cancel(self, client: Client) -> None:
        if self._world.queen is not None:
            self._world.queen.post(TaskCancelled(client.task_id))

    def _return(self, client: Client) -> None:
        queen = self._world.queen
        if queen is None or client.end is not None:
            return
        if client.accepted:
            queen.soon(partial(queen.follow, client))
        else:
            self._knock(client)
        if client.leaving:
            self._cancel(client)

    def _let_go(self, client: Client) -> None:
        self.clients.pop(client.task_id, None)

    def _check_end(self, client: Client, status: TaskStatus, code: str) -> None:
        request = client.request
        if status is TaskStatus.DONE:
            kept, size = self._world.disk.tokens.get(client.task_id, b""), len(request.answer)
            whole = not request.task.durable or bytes(kept) == request.answer
            demand(whole, "{} is done and {} of {} tokens are kept", client.task_id, len(kept), size)
            seen = not request.followed or client.seen == size
            demand(seen, "{} is done and its client has {} of {} tokens", client.task_id, client.seen, size)
        if code == PoisonTaskError.code and request.crashes_at is None:
            # Two engines crashed under it, each because of somebody of whom nobody knew; no other may come to this.
            self._world.record.misjudged += 1
            demand(client.struck >= KILLS_MAX, "{} is innocent and ends {}", client.task_id, code)

    def _check_kills(self, client: Client) -> None:
        # Whoever crashes an engine makes suspects of innocents, behind whom others who are guilty can hide.
        since_ms = client.request.submitted_ms - SUSPICION_MS
        while self._crashes and self._crashes[0][0] < self._world.clock.now_ms - CRASHES_KEPT_MS:
            self._crashes.popleft()
        alone = all(culprit == client.task_id for at_ms, culprit in self._crashes if at_ms >= since_ms)
        # A dying queen takes the knowledge of a crash with her, a log tells the next one of an engine long gone, and
        # so does a report that was overtaken. Who is preempted has nobody who hears how its engine ends.
        unknown = client.orphaned + client.unheard + (self._world.record.lives > 1) + self.outdated
        most = unknown + (KILLS_MAX if alone else KILLS_MOST)
        demand(client.crashed <= most, "{} crashed {} engines, {} may", client.task_id, client.crashed, most)
