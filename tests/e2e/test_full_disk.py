"""A disk without room: what was taken in goes on, nothing durable is taken in, and room is all that is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from small_disk import fill, small_disk
from swarm_rig import Swarm

FLOW = "/v2/swarmesh/nectarflow"
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
TASK = {"prompt": "hi", "modelcell": "fake"}


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[tuple[Swarm, Path]]:
    """A swarm whose home has 16 MiB, and a file in it that can take all the room."""
    with small_disk(tmp_path / "home", "16m") as home:
        swarm = Swarm(home)
        swarm.run("queennode", "start", "--port", "0")
        try:
            yield swarm, home / "filler"
        finally:
            (home / "filler").unlink(missing_ok=True)
            swarm.run("down", "--all", check=False)


def test_a_full_disk_and_room_again(cramped: tuple[Swarm, Path]) -> None:
    swarm, filler = cramped
    slow = "fake:tokens=200,tokens_per_s=100"
    swarm.run("spawn", "rustbee", "--type", "python", "--modelcell", "fake", "--class", slow, "--slots", "4")
    with swarm.http() as client:
        running = client.post(FLOW, json=TASK).json()["job_id"]
        swarm.until(lambda: status(client, running) == "running", what="a task runs")
        fill(filler)
        refused = swarm.until(lambda: full(client.post(FLOW, json=TASK)), what="the hivecomb is full")
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"]
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200, "interactive traffic goes on"
        swarm.until(lambda: status(client, running) == "done", what="what ran has come to its end")
        filler.unlink()
        again = client.post(FLOW, json=TASK)
        assert again.status_code == 202, again.text
        swarm.until(lambda: status(client, again.json()["job_id"]) == "done", what="without a restart")
        text = tokens(client, running)
        swarm.run("down")
        swarm.run("queennode", "start", "--port", "0")
    with swarm.http() as client:
        assert tokens(client, running) == text, "it was saved when there was room again"
        assert status(client, running) == "done"


def status(client: Any, job_id: str) -> str:
    return str(client.get(f"{FLOW}/{job_id}").json()["status"])


def tokens(client: Any, job_id: str) -> str:
    return str(client.get(f"/v2/swarmesh/honeytokens/{job_id}").json()["text"])


def full(answer: Any) -> Any:
    """The answer, once it is a refusal for want of room."""
    assert answer.status_code in {202, 507}, answer.text
    return answer if answer.status_code == 507 else None
