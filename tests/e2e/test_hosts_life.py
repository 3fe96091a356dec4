"""Machines from nothing to work and back to nothing: each in namespaces of its own, reached by SSH and nothing else."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bench.reliability.chat import Chat
from bench.reliability.question import Question
from bench.reliability.sight import Sight, difference

from host_swarm import SWARMESH_DIR, Trio
from swarmesh.models.demo import DEMO_GGUF

REQUESTS = 100
SERVED_MIN = 25
"""Of each machine, when they are asked in turn."""
SPREADS_MAX = 5
CONNECTIONS_MAX = 4
PACED = ("--type", "python", "--modelcell", "paced", "--class", "fake:tokens=600,tokens_per_s=60", "--slots", "4")
STORY = Question("paced", "What did the bees do all day?")


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def whole(trio: Trio) -> None:
    trio.whole()


def test_three_machines_from_nothing(trio: Trio) -> None:
    print({name: f"{seconds:.1f} s" for name, seconds in trio.added_s.items()})  # Shown with pytest -s.
    rows = {row["name"]: row for row in trio.swarm.json("hosts", "list") if row["status"] != "local"}
    assert set(rows) == set(trio.machines)
    for name, machine in trio.machines.items():
        row = rows[name]
        assert row["status"] == "connected"
        assert row["fingerprint"] == machine.fingerprint
        assert row["python"].startswith("3.")
        assert row["version"]
        assert row["total_mib"] > 0
        assert len(row["rustbees"]) == 1
        assert machine.listening() == {22}, "no port but sshd's"
    listed = {row["rustbee_id"]: row["host"] for row in trio.swarm.json("rustbees", "list")}
    assert sorted(listed.values()) == sorted(trio.machines)
    for rustbee_id, host in listed.items():
        assert rustbee_id in rows[host]["rustbees"]
    # Counted before other tests made the wire a bad one, on which what she gave up stays for a while.
    assert 0 < trio.held_max <= CONNECTIONS_MAX


def test_a_hundred_requests_are_spread(trio: Trio) -> None:
    host_of = {name: host for name, (host, _) in trio.swarm.engines().items()}
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}

    def ask(_: int) -> str:
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return host_of[answer.headers["x-swarmesh-rustbee"]]

    def spread() -> Counter[str]:
        with ThreadPoolExecutor(6) as threads:
            served = Counter(threads.map(ask, range(REQUESTS)))
        print(dict(served))  # Shown with pytest -s.
        assert sum(served.values()) == REQUESTS
        return served

    with trio.swarm.http() as client:
        # Who answers sooner gets more, and the way to one of them leads through this very process.
        served = spread()
        for _ in range(SPREADS_MAX - 1):
            if set(served) != set(trio.machines):
                served += spread()
        assert set(served) == set(trio.machines)
        trio.swarm.run("policy", "use", "round-robin", "--modelcell", "demo")
        try:
            served = spread()
        finally:
            trio.swarm.run("policy", "use", "swarm", "--modelcell", "demo")
    assert set(served) == set(trio.machines)
    assert min(served.values()) >= SERVED_MIN


def test_adding_again_changes_nothing(trio: Trio) -> None:
    machine = trio.machines["bee-1"]
    before = (trio.swarm.hosts()["bee-1"]["fingerprint"], trio.swarm.engines(), environments(machine.host_dir))
    started_s = time.monotonic()
    trio.swarm.add(machine.address, "bee-1")
    took_s = time.monotonic() - started_s
    print(f"added again in {took_s:.1f} s")  # Shown with pytest -s.
    assert before == (trio.swarm.hosts()["bee-1"]["fingerprint"], trio.swarm.engines(), environments(machine.host_dir))
    assert took_s < trio.added_s["bee-1"] / 2, "nothing is installed anew"


def environments(home: Path) -> dict[str, int]:
    """Every installed file's time, by path."""
    root = home / SWARMESH_DIR / "envs"
    found = {str(path): path.lstat().st_mtime_ns for path in root.rglob("*.py")}
    assert found, "Swarmesh is installed there"
    return found


def test_show_doctor_and_fit(trio: Trio) -> None:
    shown = trio.swarm.json("hosts", "show", "bee-1")
    assert shown["name"] == "bee-1"
    assert shown["cpu_cores"] > 0
    assert shown["fingerprint"] in trio.swarm.run("hosts", "show", "bee-1").stdout
    for name in trio.machines:
        checks = trio.swarm.json("hosts", "doctor", name)
        assert checks
        assert not [check for check in checks if check["verdict"] == "fail"]
    fit = trio.swarm.json("models", "fit", "demo")
    assert fit["need_mib"] > 0
    rows = {row["host"]: row for row in fit["hosts"] if row["memory"] == "ram"}
    assert set(trio.machines) < set(rows)
    for name in trio.machines:
        assert rows[name]["fits"]
        assert rows[name]["file_there"]


def test_a_rustbee_started_by_hand_on_its_host(trio: Trio) -> None:
    machine = trio.machines["bee-2"]
    before = set(trio.swarm.healthy())
    machine.ssh("~/.swarmesh/bin/llorch-pool rustbee spawn cpu --modelcell demo")
    new = trio.swarm.until(lambda: set(trio.swarm.healthy()) - before, what="the queen knows it")
    (rustbee_id,) = new
    assert trio.swarm.healthy()[rustbee_id]["host"] == "bee-2"
    machine.ssh(f"~/.swarmesh/bin/llorch-pool rustbee stop {rustbee_id}")
    trio.swarm.until(lambda: rustbee_id not in trio.swarm.healthy(), what="it has ended")


def test_any_host_is_the_queens_choice(trio: Trio) -> None:
    row = trio.swarm.spawn("any", "--type", "python", "--modelcell", "chosen", "--class", "fake:tokens=2")
    assert row["status"] == "healthy"
    trio.swarm.run("rustbees", "stop", row["rustbee_id"])


def test_a_file_that_only_the_queen_has(trio: Trio, tmp_path: Path) -> None:
    content = DEMO_GGUF.read_bytes() + b"\0"  # Another digest than the demo's.
    file = tmp_path / "only-here.gguf"
    file.write_bytes(content)
    trio.swarm.run("models", "add", str(file), "--name", "only-here")
    row = trio.swarm.spawn("bee-1", "--type", "cpu", "--modelcell", "only-here")
    copies = [path for path in copied(trio.machines["bee-1"].host_dir) if path.stat().st_size == len(content)]
    assert len(copies) == 1
    assert hashlib.sha256(copies[0].read_bytes()).digest() == hashlib.sha256(content).digest()
    body = {"model": "only-here", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    with trio.swarm.http() as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.headers["x-swarmesh-rustbee"] == row["rustbee_id"]
    again = trio.swarm.json("models", "copy", "only-here", "--to", "bee-1")
    assert again["sent_bytes"] == 0, "it is there already"
    trio.swarm.run("rustbees", "stop", row["rustbee_id"])


def copied(home: Path) -> Iterator[Path]:
    return home.glob(f"{SWARMESH_DIR}/hives/*/models/**/*.gguf")


@pytest.fixture
def story(trio: Trio) -> Iterator[tuple[Chat, Sight, dict[str, str]]]:
    """A slow model on the first two hosts, a way to ask it, and what it answers while nobody breaks anything."""
    bees = {trio.swarm.spawn(host, *PACED)["rustbee_id"]: host for host in ("bee-1", "bee-2")}
    with closing(Chat(f"{trio.swarm.url}/v1", trio.swarm.key)) as chat:
        unbroken = chat.ask(STORY)
        assert unbroken.whole, unbroken.error
        yield chat, unbroken, bees
    for rustbee_id in bees:
        trio.swarm.run("rustbees", "stop", rustbee_id, check=False)


def test_draining_a_host_loses_no_stream(trio: Trio, story: tuple[Chat, Sight, dict[str, str]]) -> None:
    chat, unbroken, bees = story
    sight = Sight()
    reader = threading.Thread(target=chat.ask, args=(STORY,), kwargs={"sight": sight})
    reader.start()
    trio.swarm.until(lambda: sight.count > 20, what="a stream under way")
    host = bees[sight.rustbee_id]
    trio.swarm.run("hosts", "drain", host)
    drained_at = sight.count
    assert not rustbees_on(trio, host), "it returns when the host is empty"
    assert drained_at < unbroken.count, "it moved while it ran"
    reader.join()
    print(f"{host} empty after {drained_at} of {sight.count} tokens")  # Shown with pytest -s.
    differs = difference(sight, unbroken)
    assert differs.identical, (sight.error, differs)
    assert differs.usage_equal
    assert trio.swarm.hosts()[host]["draining"]
    refused = trio.swarm.run("spawn", "rustbee", "--host", host, "--modelcell", "demo", check=False)
    assert refused.returncode == 1
    assert "draining" in refused.stderr
    trio.swarm.run("hosts", "drain", host, "--resume")
    assert not trio.swarm.hosts()[host]["draining"]


def rustbees_on(trio: Trio, host: str) -> list[dict[str, Any]]:
    return [row for row in trio.swarm.rustbees() if row["host"] == host and row["status"] != "dead"]
