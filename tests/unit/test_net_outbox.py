"""What goes out together, and what does not wait for that."""

from __future__ import annotations

import asyncio

from swarmesh.net.outbox import HELD_BYTES_MAX, Outbox


class Wire(asyncio.Transport):
    def __init__(self, log: list[tuple[str, bytes]], name: str) -> None:
        super().__init__()
        self.closing = False
        self._log = log
        self._name = name

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._log.append((self._name, bytes(data)))

    def is_closing(self) -> bool:
        return self.closing


async def test_what_is_written_goes_out_in_order_at_the_end_of_the_turn() -> None:
    log: list[tuple[str, bytes]] = []
    outbox, one, other = Outbox(), Wire(log, "one"), Wire(log, "other")
    outbox.write(one, b"1")
    outbox.write(other, b"2")
    outbox.write(one, b"3")
    assert log == []
    await asyncio.sleep(0)
    assert log == [("one", b"1"), ("other", b"2"), ("one", b"3")]
    outbox.write(one, b"4")
    await asyncio.sleep(0)
    assert log[3:] == [("one", b"4")]


async def test_a_flush_is_at_once_and_nothing_goes_out_twice() -> None:
    log: list[tuple[str, bytes]] = []
    outbox = Outbox()
    outbox.write(Wire(log, "one"), b"1")
    outbox.flush()
    assert log == [("one", b"1")]
    await asyncio.sleep(0)
    assert log == [("one", b"1")]


async def test_a_writer_that_never_waits_is_not_held_back_beyond_the_bound() -> None:
    log: list[tuple[str, bytes]] = []
    outbox, wire = Outbox(), Wire(log, "one")
    outbox.write(wire, bytes(HELD_BYTES_MAX))
    assert log == []
    outbox.write(wire, b"1")
    assert [len(data) for _, data in log] == [HELD_BYTES_MAX, 1]


async def test_one_that_does_not_gather_writes_at_once() -> None:
    log: list[tuple[str, bytes]] = []
    outbox = Outbox(gathers=False)
    outbox.write(Wire(log, "one"), b"1")
    assert log == [("one", b"1")]


async def test_nothing_is_written_to_what_was_closed_meanwhile() -> None:
    log: list[tuple[str, bytes]] = []
    outbox, gone, there = Outbox(), Wire(log, "gone"), Wire(log, "there")
    outbox.write(gone, b"1")
    outbox.write(there, b"2")
    gone.closing = True
    await asyncio.sleep(0)
    assert log == [("there", b"2")]
