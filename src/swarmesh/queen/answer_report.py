"""What one attempt at an answer tells of its engine's work, for the swarm to learn from."""

from __future__ import annotations

from typing import Final

from swarmesh.core.events import StreamEnded
from swarmesh.core.ids import TaskId
from swarmesh.queen.driver import now_ms
from swarmesh.queen.journal import Journal
from swarmesh.wire.token_counts import (
    NOT_TOLD,
    TAIL_BYTES,
    TokenCounts,
    answer_id,
    has_content,
    told_at_end,
    told_in_whole,
)

OPENING_BYTES: Final = 512
"""Of an answer, to find in them what it calls itself."""
READ_WHOLE_BYTES_MAX: Final = 4096
"""Of a longer answer only the end is looked at."""


class AnswerReport:
    """Made when the attempt is sent to its worker; bytes are looked at up to the first token, and at the end.

    Attributes:
        counts: As the engine told them.
        first_token_ms: From the sending on; -1 before there is one.
        name: What the answer calls itself; empty when it is not known.
    """

    __slots__ = ("_sent_at_ms", "counts", "first_token_ms", "name")

    def __init__(self) -> None:
        self._sent_at_ms = now_ms()
        self.counts: TokenCounts = NOT_TOLD
        self.first_token_ms = -1
        self.name = ""

    def passed(self, data: bytes) -> bool:
        """Bytes of a stream came; whether they are the first that say anything."""
        return self.first_token_ms < 0 and has_content(data) and self.produced()

    def produced(self) -> bool:
        """A token came; whether it is the first."""
        is_first = self.first_token_ms < 0
        if is_first:
            self.first_token_ms = now_ms() - self._sent_at_ms
        return is_first

    def whole(self, opening: bytes, before: bytes, data: bytes, *, is_stream: bool) -> None:
        """The answer is whole.

        Args:
            opening: The first bytes that its client was shown.
            before: What came before the last bytes.
            data: The last bytes.
            is_stream: It came as events.
        """
        if not is_stream and not before and len(data) <= READ_WHOLE_BYTES_MAX:
            told = told_in_whole(data)
            if told is not None:
                self.counts, self.name = told
                return
        if before and len(data) < TAIL_BYTES:
            data = before[-TAIL_BYTES:] + data
        data = data[-TAIL_BYTES:]
        self.counts = told_at_end(data)
        self.name = answer_id(opening) or answer_id(data)

    def ended(self, task_id: TaskId, attempt: int, journal: Journal | None = None) -> StreamEnded:
        """The fact for the core; what passed is looked at where the engine did not count."""
        counts = self.counts
        shown = journal.shown_tokens() if journal is not None and not counts.completion else 0
        return StreamEnded(
            task_id, attempt, counts.completion, counts.prompt, counts.cached, self.first_token_ms, shown
        )
