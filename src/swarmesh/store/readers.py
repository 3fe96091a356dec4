"""A few reading connections, each used by one thread at a time, so that the event loop never waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeVar

import apsw

from swarmesh.core.errors import InvalidValueError
from swarmesh.store.connection import failure, open_reader
from swarmesh.store.errors import StoreClosedError

READERS: Final = 2
"""Reads that run at once; further ones wait in the order of their calls."""

T = TypeVar("T")


class Readers:
    """Runs queries on connections that cannot write."""

    def __init__(self, connections: list[apsw.Connection], path: Path) -> None:
        self._path = path
        self._idle: SimpleQueue[apsw.Connection] = SimpleQueue()
        for connection in connections:
            self._idle.put(connection)
        self._pool = ThreadPoolExecutor(len(connections), thread_name_prefix="hivecomb-reader")
        self._closed = False

    @classmethod
    def open(cls, path: Path, *, vfs: str | None) -> Readers:
        """Connections to a file whose schema is in place."""
        return cls([open_reader(path, vfs=vfs) for _ in range(READERS)], path)

    async def run(self, query: Callable[[apsw.Connection], T]) -> T:
        """The query's result as of the last commit before it began.

        Raises:
            StoreError: The file cannot be read.
            InvalidValueError: A bound value is no UTF-8 or above 64 bits.
        """
        if self._closed:
            raise StoreClosedError
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._query, query)

    async def close(self) -> None:
        """Finish the queries that were called, then close the connections."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _query(self, query: Callable[[apsw.Connection], T]) -> T:
        connection = self._idle.get()
        try:
            return query(connection)
        except apsw.Error as exc:
            raise failure(exc, connection, self._path) from exc
        except (ValueError, OverflowError) as exc:
            raise InvalidValueError(f"the hivecomb cannot look for this value: {exc}") from exc
        finally:
            self._idle.put(connection)

    def _close(self) -> None:
        self._pool.shutdown()
        while not self._idle.empty():
            self._idle.get().close()
