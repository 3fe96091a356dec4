"""A real queen on a port of her own, in the test's own process, so that a test can also look inside."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from raw_client import Answer, RawConnection, ask_once, open_connection
from scripted_worker import Behaviour, ScriptedAgent, ScriptedWorker
from swarmesh.config.home import Home
from swarmesh.config.settings import QueenSettings, Settings
from swarmesh.config.worker_key import worker_key, worker_secret
from swarmesh.core.swarm import Swarm
from swarmesh.queen.control_links import ControlLink
from swarmesh.queen.process import Queen

CHAT = "/v1/chat/completions"
FLOW = "/v2/swarmesh/nectarflow"
TOKENS = "/v2/swarmesh/honeytokens"
RUSTBEES = "/v2/swarmesh/rustbees"

NewWorker = Callable[..., Awaitable[ScriptedWorker]]


def chat(**more: Any) -> dict[str, Any]:
    """A chat request's body."""
    return {"model": "fake", "messages": [{"role": "user", "content": "hi"}], **more}


class Rig:
    """A queen, her key, and connections to her."""

    def __init__(self, home: Home, queen: Queen) -> None:
        self.home = home
        self.queen = queen
        self.key = home.admin_key_file.read_text().strip()
        self.auth = {"authorization": f"Bearer {self.key}"}
        self._opened: list[RawConnection] = []

    @property
    def url(self) -> str:
        return self.queen.url

    @property
    def swarm(self) -> Swarm:
        return self.queen._swarm

    @property
    def relayed(self) -> int:
        """How many answers of the relay are queued or running."""
        return self.queen._relay.active

    @property
    def busy_slots(self) -> int:
        return sum(len(worker.running) for worker in self.swarm.fleet)

    def is_idle(self) -> bool:
        """No task anywhere: not in the relay, the queue, on a slot, in anybody's books, nor one yet to be saved."""
        books = (self.relayed, self.busy_slots, len(self.swarm.dispatcher.queue), len(self.swarm.dispatcher.tasks))
        watched = [watch for watch in self.queen._vigil._watched if not isinstance(watch, ControlLink)]
        return not any((*books, len(self.queen._flows), self.queen._driver._runners, watched))

    def worker_auth(self, worker_id: str) -> dict[str, str]:
        """The key of one worker, as a header."""
        return {"authorization": f"Bearer {worker_key(worker_secret(self.home), worker_id)}"}

    async def connect(self) -> RawConnection:
        """A connection that the rig closes at its end."""
        connection = await open_connection(self.url)
        self._opened.append(connection)
        return connection

    async def ask(self, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request with the admin key, on a connection of its own."""
        return await ask_once(self.url, method, target, body, {**self.auth, **(headers or {})})

    async def json(self, method: str, target: str, body: Any = None) -> Any:
        """The JSON of a request that succeeds."""
        answer = await self.ask(method, target, body)
        assert answer.status < 300, answer
        return answer.json()

    async def adopt(self, worker: ScriptedWorker, *, slots: int = 4, model: str = "fake") -> str:
        """Take a scripted worker in; its id."""
        asked = {"type": "openai", "modelcell": model, "url": f"{worker.url}/v1", "slots": slots}
        answer = await self.ask("POST", RUSTBEES, asked)
        assert answer.status == 202, answer
        return str(answer.json()["rustbee_id"])

    async def register(self, agent: ScriptedAgent, *, slots: int = 4, **fields: Any) -> str:
        """Let an agent introduce itself; its id."""
        known = {"rustbee_id": agent.worker_id, "modelcell": "fake", "location": agent.url, "status": "healthy"}
        await self.report("/v2/swarmesh/rustbee", agent, **{**known, "slots": slots, **fields})
        return agent.worker_id

    async def report(self, path: str, agent: ScriptedAgent, **fields: Any) -> Answer:
        """Something an agent says with its own key."""
        body = {"rustbee_id": agent.worker_id, **fields}
        answer = await ask_once(self.url, "POST", path, body, self.worker_auth(agent.worker_id))
        assert answer.status == 200, answer
        return answer

    async def rustbee(self, worker_id: str) -> dict[str, Any]:
        """What the list shows of one worker."""
        shown: dict[str, Any] = await self.json("GET", f"{RUSTBEES}/{worker_id}")
        return shown

    async def start_chat(self, **more: Any) -> RawConnection:
        """Send a chat request on a new connection; its answer is read by the test."""
        connection = await self.connect()
        connection.send(self.chat_bytes(**more))
        return connection

    def chat_bytes(self, **more: Any) -> bytes:
        """A chat request, head and all."""
        body = json.dumps(chat(**more)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {self.key}\r\ncontent-length: {len(body)}"
        return head.encode() + b"\r\n\r\n" + body

    async def close(self) -> None:
        for connection in self._opened:
            await connection.close()


@asynccontextmanager
async def running_queen(root: Path, **settings: Any) -> AsyncIterator[Rig]:
    """A queen on the home at ``root``; ``settings`` are those of ``[queennode]``."""
    home = Home(root)
    queennode = msgspec.convert({"port": 0, **settings}, QueenSettings)
    queen = await Queen.start(home, Settings(queennode=queennode))
    rig = Rig(home, queen)
    try:
        yield rig
    finally:
        await rig.close()
        await queen.close()


async def one_bad_one_good(rig: Rig, new_worker: NewWorker, bad: Behaviour) -> tuple[ScriptedWorker, ScriptedWorker]:
    """Two workers; the bad one is asked first."""
    first, second = await new_worker(), await new_worker()
    first.behaviour = bad
    for worker in (first, second):
        await rig.adopt(worker)
    return first, second
