"""What one API key may have at once and in a minute, and what it has had.

An interactive task over a limit is refused at once, with the time after which it may come again; a durable one waits
until it may run, and nobody waits behind it. An interactive task takes its place and its tokens when it is let in, so
that nothing holds it later; a durable one when it starts. Tokens are taken by prediction and put right by what the
engine counted. Where it did not count, or the client left before it did, what the client was shown is taken at least:
hanging up just before the end saves nothing. A bucket holds one minute's worth; what may be more than that in one task
starts from a full bucket.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from swarmesh.core import refusals
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.events import KeyLimited, KeyRevoked, StreamEnded, TaskCancelled
from swarmesh.core.ids import KeyId, TaskId
from swarmesh.core.ledger import CHARS_PER_TOKEN, DEFAULT_OUTPUT_TOKENS
from swarmesh.core.task import Task

MINUTE_MS: Final = 60_000
RUN_MS_DEFAULT: Final = 5_000
"""How long a task of a key is thought to run before one has ended."""
RUN_MS_WEIGHT: Final = 0.2
"""Share of the newest task in the mean time that tasks of its key run."""
RETRY_AFTER_S_MAX: Final = 600
REVOKED_KEPT_MS: Final = 60_000
"""How long the book of a revoked key is kept at least: what was at the door by then is still held to its limits."""
_WAITS: Final = -1


def expected_tokens(task: Task) -> int:
    """Tokens read and written that a task is let in with."""
    output_tokens = min(task.max_tokens or DEFAULT_OUTPUT_TOKENS, DEFAULT_OUTPUT_TOKENS)
    return task.prompt_chars // CHARS_PER_TOKEN + output_tokens


@dataclass(slots=True)
class KeyBook:
    """One key: its limits (0 for none), what it has now and what it has had.

    Attributes:
        taken: Places: interactive tasks that wait or run, and durable ones that run.
        running: Tasks on slots.
        tokens: Those read and written in tasks that ended, as the engines counted them; about, where they did not.
        left_parts: Tokens it may use now, in parts of which a token has `MINUTE_MS`, so that nothing is rounded; below
            0 after a task that used more than was foreseen.
        run_ms: Mean time from a start to an end.
        is_limited: Whether it has any limit.
    """

    concurrency: int = 0
    tokens_per_minute: int = 0
    taken: int = 0
    running: int = 0
    tokens: int = 0
    left_parts: int = 0
    filled_at_ms: int = 0
    run_ms: float = RUN_MS_DEFAULT
    is_limited: bool = False

    @property
    def left(self) -> float:
        """Tokens it may use now."""
        return self.left_parts / MINUTE_MS

    def left_parts_at(self, now_ms: int) -> int:
        """What is left at that time."""
        gained = (now_ms - self.filled_at_ms) * self.tokens_per_minute
        return min(self.tokens_per_minute * MINUTE_MS, self.left_parts + gained)

    def fill(self, now_ms: int) -> None:
        """Bring the bucket up to date."""
        self.left_parts = self.left_parts_at(now_ms)
        self.filled_at_ms = now_ms

    def add(self, tokens: int) -> None:
        """Give tokens back, or take them when the number is negative."""
        self.left_parts += tokens * MINUTE_MS

    def parts_needed(self, task: Task) -> int:
        """What has to be left for a task to be let in."""
        return min(expected_tokens(task), self.tokens_per_minute) * MINUTE_MS


class Limits:
    """The books of all keys that were limited or have asked for anything.

    Attributes:
        on_change: Told of a key with limits whenever its tasks may be held, or not, by other reasons than before.
        waiting: How many tasks of a key wait.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[KeyId], None] = lambda _key_id: None
        self.waiting: Callable[[KeyId], int] = lambda _key_id: 0
        self._books: dict[KeyId, KeyBook] = defaultdict(KeyBook)
        self._places: dict[TaskId, int] = {}
        """When each task that has a place was started; `_WAITS` for those that were not."""
        self._paid: dict[TaskId, int] = {}
        self._revoked: dict[KeyId, int] = {}
        """When keys were revoked whose books may still be needed."""

    def of(self, key_id: KeyId) -> KeyBook:
        """The book of a key, for reading; an empty one when it has asked for nothing yet."""
        return self._books.get(key_id) or KeyBook()  # Looking makes no book.

    def limited(self, event: KeyLimited, now_ms: int) -> None:
        """Limit a key from now on; what it has by then stays."""
        book = self._books[event.key_id]
        if event.tokens_per_minute != book.tokens_per_minute:
            book.tokens_per_minute = event.tokens_per_minute
            book.left_parts, book.filled_at_ms = event.tokens_per_minute * MINUTE_MS, now_ms
        book.concurrency = event.concurrency
        book.is_limited = event.concurrency > 0 or event.tokens_per_minute > 0
        self.on_change(event.key_id)

    def revoked(self, event: KeyRevoked, now_ms: int) -> None:
        """A key will not come back: `look` forgets its book, after `REVOKED_KEPT_MS` and when nothing of it is left."""
        self._revoked[event.key_id] = now_ms

    def refusal(self, task: Task, now_ms: int) -> SwarmeshError | None:
        """Why this task is over a limit of its key now; None when it is not, or can wait until it is not."""
        book = self._books.get(task.key_id)
        if book is None or task.durable or not book.is_limited:
            return None
        if book.concurrency and book.taken >= book.concurrency:
            return refusals.key_concurrency(book.taken, book.concurrency, _seconds(book.run_ms / book.taken))
        left, needed = book.left_parts_at(now_ms), book.parts_needed(task)
        if book.tokens_per_minute and left < needed:
            wait_s = _seconds((needed - left) / book.tokens_per_minute)
            return refusals.key_tokens(expected_tokens(task), left // MINUTE_MS, book.tokens_per_minute, wait_s)
        return None

    def holds(self, task: Task) -> bool:
        """Whether a task may not run now, however many slots are free."""
        book = self._books.get(task.key_id)
        if book is None or not book.is_limited or not task.durable:
            return False
        if book.concurrency and book.taken >= book.concurrency:
            return True
        dry = bool(book.tokens_per_minute) and book.left_parts < book.parts_needed(task)
        return dry and task.task_id not in self._paid

    def entered(self, task: Task, now_ms: int) -> None:
        """A task was let in."""
        if not task.durable:
            self._take(self._books[task.key_id], task, now_ms)

    def started(self, task: Task, now_ms: int) -> None:
        """A task has a slot."""
        book = self._books[task.key_id]
        book.running += 1
        if book.is_limited or task.task_id not in self._places:
            self._take(book, task, now_ms)
        self._places[task.task_id] = now_ms

    def stopped(self, task: Task) -> None:
        """A task has lost its slot, and waits again."""
        book = self._books[task.key_id]
        self._leave(book, task, gives_back=task.durable)

    def used(self, task: Task, event: StreamEnded, now_ms: int) -> None:
        """A task has come to its end, and this is what it took; call before `over`."""
        book = self._books[task.key_id]
        started_ms = self._places.get(task.task_id, _WAITS)
        run_ms = now_ms - started_ms if started_ms >= 0 else 0
        book.run_ms += (run_ms - book.run_ms) * RUN_MS_WEIGHT
        if event.shown_tokens and not event.completion_tokens:
            self._charge_shown(book, task, event.shown_tokens)
            return
        used = event.prompt_tokens + event.completion_tokens
        book.tokens += used
        if self._paid and used and task.task_id in self._paid:
            book.add(self._paid[task.task_id] - used)

    def cancelled(self, task: Task, event: TaskCancelled) -> None:
        """A client has left, or wanted an end; call before `over`."""
        if event.shown_tokens > 0:
            self._charge_shown(self._books[task.key_id], task, event.shown_tokens)

    def over(self, task: Task) -> None:
        """A task is over, however it ended; harmless for one that was never let in."""
        book = self._books[task.key_id]
        paid = self._paid.pop(task.task_id, 0) if self._paid else 0
        if paid and not task.attempt:  # It never ran.
            book.add(paid)
        self._leave(book, task, gives_back=True)

    def look(self, now_ms: int) -> None:
        """Time has passed: buckets are a little fuller."""
        for key_id, book in self._books.items():
            if book.left < book.tokens_per_minute:
                book.fill(now_ms)
                self.on_change(key_id)
        if self._revoked:
            self._forget_revoked(now_ms)

    def _forget_revoked(self, now_ms: int) -> None:
        kept_since_ms = now_ms - REVOKED_KEPT_MS
        for key_id in [key_id for key_id, at_ms in self._revoked.items() if at_ms <= kept_since_ms]:
            if not self.of(key_id).taken and not self.waiting(key_id):
                self._books.pop(key_id, None)
                del self._revoked[key_id]

    def _take(self, book: KeyBook, task: Task, now_ms: int) -> None:
        if task.task_id not in self._places:
            self._places[task.task_id] = _WAITS
            book.taken += 1
        if not book.is_limited:
            return
        if book.tokens_per_minute and task.task_id not in self._paid:
            book.fill(now_ms)
            self._paid[task.task_id] = expected_tokens(task)
            book.add(-self._paid[task.task_id])
        self.on_change(task.key_id)

    def _charge_shown(self, book: KeyBook, task: Task, shown_tokens: int) -> None:
        # At least: what more there was, or how long the prompt really is, nobody has said.
        used = task.prompt_chars // CHARS_PER_TOKEN + shown_tokens
        book.tokens += used
        paid = self._paid.get(task.task_id, used)
        book.add(min(0, paid - used))

    def _leave(self, book: KeyBook, task: Task, *, gives_back: bool) -> None:
        started_ms = self._places.pop(task.task_id, None)
        if started_ms is not None and started_ms >= 0:
            book.running -= 1
        if not gives_back:
            self._places[task.task_id] = _WAITS
            return
        if started_ms is not None:
            book.taken -= 1
        if book.is_limited:
            self.on_change(task.key_id)


def _seconds(wait_ms: float) -> int:
    return min(RETRY_AFTER_S_MAX, max(1, -int(-wait_ms // 1000)))
