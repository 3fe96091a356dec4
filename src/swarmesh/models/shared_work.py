"""One piece of work that several callers wait for, such as a download: done once, heard by all, ended by the last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

P = TypeVar("P")
R = TypeVar("R")


class SharedWork(Generic[P, R]):
    """Work in progress, by key. One event loop's."""

    def __init__(self) -> None:
        self._running: dict[str, _Work[P, R]] = {}

    async def join(
        self,
        key: str,
        start: Callable[[Callable[[P], None]], Coroutine[Any, Any, R]],
        on_progress: Callable[[P], None] | None = None,
    ) -> R:
        """Wait for the work of this key, and start it when nobody does it yet.

        Whoever comes later hears the last progress at once. A caller that is cancelled leaves; when the last one
        leaves, the work is cancelled.

        Raises:
            Exception: What the work raises; every caller gets it.
        """
        while (work := self._running.get(key)) is not None and work.left_alone:
            await asyncio.wait([work.task])
        if work is None:
            work = _Work(start)
            self._running[key] = work
            work.task.add_done_callback(lambda _: self._running.pop(key))
        return await work.wait(on_progress or _unheard)


class _Work(Generic[P, R]):
    def __init__(self, start: Callable[[Callable[[P], None]], Coroutine[Any, Any, R]]) -> None:
        self._listeners: list[Callable[[P], None]] = []
        self._last: P | None = None
        self.left_alone = False
        self.task = asyncio.create_task(start(self._tell))

    async def wait(self, on_progress: Callable[[P], None]) -> R:
        self._listeners.append(on_progress)
        if self._last is not None:
            on_progress(self._last)
        try:
            return await asyncio.shield(self.task)
        finally:
            self._listeners.remove(on_progress)
            if not self._listeners and not self.task.done():
                self.left_alone = True
                self.task.cancel()
                await asyncio.wait([self.task])

    def _tell(self, progress: P) -> None:
        self._last = progress
        for listener in list(self._listeners):
            listener(progress)


def _unheard(_progress: object) -> None:
    """Takes the progress of a caller that does not want it."""
