"""The files of another machine, as far as it tells of them otherwise than expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from swarmesh.queen.remote_shelf import RemoteShelf
from swarmesh.wire.hosts import FoundView


class Telling:
    """A machine that tells these notes on the way and answers this."""

    def __init__(self, answer: Any, *notes: bytes) -> None:
        self._answer = answer
        self._notes = notes

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        type: Any,  # noqa: A002 - as `SessionCaller` has it
        on_progress: Callable[[bytes], None] | None = None,
    ) -> Any:
        for note in self._notes:
            assert on_progress is not None
            on_progress(note)
        return self._answer

    async def open_transfer(self, opening: Any) -> Any:
        pytest.fail("nothing is copied")


async def test_a_note_of_another_shape_is_passed_over() -> None:
    other = [b'{"percent": 7}', b"[]", b"", b"\xff", b'{"done_bytes": "1", "total_bytes": 2}', b"[" * 100_000]
    other += [b'{"done_bytes": -1, "total_bytes": 2}']
    seen: list[tuple[int, int]] = []
    shelf = RemoteShelf(Telling("kept", *other, b'{"done_bytes": 1, "total_bytes": 2}'), hive="a")
    answer: Any = await shelf.identify("m", "/m.gguf", lambda done, total: seen.append((done, total)))
    assert answer == "kept"
    assert seen == [(1, 2)]


async def test_a_file_whose_name_steers_a_terminal_is_not_offered() -> None:
    def found(path: str, name: str = "m") -> FoundView:
        return FoundView(
            host="mac", name=name, path=path, origin="hub", architecture="llama", parameters=1, size_bytes=1
        )

    shelf = RemoteShelf(Telling([found("/a\x1b[2J.gguf"), found("/b.gguf", "n\x1b")]), hive="a")
    assert [(file.path, file.name) for file in await shelf.scan()] == [("/b.gguf", "n")]
