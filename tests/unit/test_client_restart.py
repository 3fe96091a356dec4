"""Streams that outlive their queen: she ends in the middle and comes back, here or on another port."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fake_queen import DROP, KEY, FakeQueen, Step, accepted, done, running_queen, token, write_note
from swarmesh.client import AsyncSwarmesh, Swarmesh, Token
from swarmesh.client.call import Call, ConnectionBrokenError, StreamCall
from swarmesh.client.cursor import RECONNECT_WAIT_S_MAX, Reconnects, StreamCursor
from swarmesh.client.routes import follow, stream
from swarmesh.core.errors import QueenUnreachableError

REST = (token(1, "one "), token(2, "two "), token(3, "three"), done(tokens=3))


class Life:
    """A queen who ends, and comes back when a client has waited ``absent`` times."""

    def __init__(self, home: Path, stack: ExitStack, absent: int) -> None:
        self.home = home
        self.first = ExitStack()
        self.before = self.first.enter_context(running_queen())
        self.after: FakeQueen | None = None
        self.waits_s: list[float] = []
        self.same_port = False
        kept = stack.enter_context(socket.socket())  # So that nobody else takes her port between her lives.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(("127.0.0.1", int(self.before.url.rpartition(":")[2])))
        self._stack = stack
        self._absent = absent
        stack.callback(self.first.close)

    def waited(self, seconds: float) -> None:
        """Stands for a sleep: no time passes, but the queen goes and comes."""
        self.waits_s.append(seconds)
        self.first.close()
        if len(self.waits_s) == self._absent:
            port = int(self.before.url.rpartition(":")[2]) if self.same_port else 0
            self.after = self._stack.enter_context(running_queen(port))
            self.after.streams = [list(REST)]
            write_note(self.home, self.after.url)


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    with ExitStack() as stack:
        life = Life(tmp_path, stack, absent=4)
        life.before.streams = [[accepted(), token(1, "one "), DROP]]
        write_note(tmp_path, life.before.url)
        monkeypatch.setenv("SWARMESH_HOME", str(tmp_path))
        monkeypatch.delenv("SWARMESH_URL", raising=False)
        monkeypatch.delenv("SWARMESH_API_KEY", raising=False)
        monkeypatch.setattr(time, "sleep", life.waited)
        yield life


def read_blocking(life: Life, **named: Any) -> tuple[list[Any], str]:
    with Swarmesh(**named) as swarm, swarm.stream("Count.") as stream:
        events = list(stream)
        return events, swarm.health().url


def read_async(life: Life, **named: Any) -> tuple[list[Any], str]:
    async def run() -> tuple[list[Any], str]:
        async with AsyncSwarmesh(**named) as swarm, swarm.stream("Count.") as stream:
            events = [event async for event in stream]
            return events, (await swarm.health()).url

    async def waited(seconds: float) -> None:
        life.waited(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swarmesh.client.asynchronous.asyncio.sleep", waited)
        return asyncio.run(run())


Read = Callable[..., tuple[list[Any], str]]


@pytest.mark.parametrize("read", [read_blocking, read_async])
@pytest.mark.parametrize("port", ["the same port", "another port"])
def test_a_stream_outlives_its_queen(life: Life, read: Read, port: str) -> None:
    life.same_port = port == "the same port"
    events, url = read(life)
    assert [(event.text, event.seq) for event in events if isinstance(event, Token)] == [
        ("one ", 1),
        ("two ", 2),
        ("three", 3),
    ]
    assert life.waits_s == [0.1, 0.2, 0.4, 0.8]
    assert life.after is not None
    assert life.after.requests("GET", "/v2/swarmesh/honeytokens/job-1")[0].headers["last-event-id"] == "1"
    assert url == life.after.url, "what is asked next goes to the new queen, too"


@pytest.mark.parametrize("read", [read_blocking, read_async])
def test_a_client_that_was_given_a_url_stays_with_it(life: Life, read: Read) -> None:
    with pytest.raises(QueenUnreachableError, match="16 reconnects did not help"):
        read(life, url=life.before.url, key=KEY)
    assert life.after is not None
    assert life.after.seen == [], "nobody said that the queen of this home is the one that was meant"


def test_a_home_without_a_queen_is_one_more_wait(life: Life) -> None:
    life.before.streams = [[accepted(), token(1, "one "), DROP], [DROP], [*REST]]
    waited = life.waited

    def forget(seconds: float) -> None:
        waited(seconds)
        if life.after is None:
            (life.home / "queen.json").unlink(missing_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", forget)
        events, _ = read_blocking(life)
    assert "".join(event.text for event in events if isinstance(event, Token)) == "one two three"


def test_the_defaults_outlast_a_restart_of_ten_seconds() -> None:
    cursor = StreamCursor(follow("job-1", after=5), Reconnects())
    gone = QueenUnreachableError("nobody answers")
    waits_s = [cursor.dropped(gone) for _ in range(Reconnects().times)]
    with pytest.raises(QueenUnreachableError, match=r"broke after token 5, 16 reconnects"):
        cursor.dropped(gone)
    assert 10 < sum(waits_s) < 15
    assert max(waits_s) == RECONNECT_WAIT_S_MAX


def test_what_never_went_out_is_not_repeated() -> None:
    cursor = StreamCursor(stream("Hello"), Reconnects())
    with pytest.raises(QueenUnreachableError, match="nobody answers"):
        cursor.dropped(QueenUnreachableError("nobody answers"))


def test_what_has_no_key_is_never_sent_twice() -> None:
    cursor = StreamCursor(StreamCall(Call("POST", "/v2/tasks", lambda _body: None)), Reconnects())
    with pytest.raises(ConnectionBrokenError, match="cut off"):
        cursor.dropped(ConnectionBrokenError("cut off"))


def test_a_token_seen_twice_is_given_once() -> None:
    cursor = StreamCursor(follow("job-1"), Reconnects())
    script: Sequence[Step] = [token(1, "a"), token(1, "a"), token(2, "b"), token(1, "a")]
    given = [event for step in script if isinstance(step, bytes) for event in cursor.feed(step)]
    assert given == [Token("a", 1), Token("b", 2)]
