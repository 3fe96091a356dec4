"""Keys of workers: derived, never stored, good for one worker only."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from swarmesh.config.home import Home
from swarmesh.config.worker_key import worker_key, worker_of_key, worker_secret

SECRET = bytes(range(32))


@pytest.mark.parametrize("worker_id", ["rustbee-1", "a", "with.dots.in", "A_b-9"])
def test_a_key_speaks_for_its_worker(worker_id: str) -> None:
    assert worker_of_key(SECRET, worker_key(SECRET, worker_id)) == worker_id


def test_keys_differ_by_worker_and_by_home() -> None:
    keys = {worker_key(secret, worker_id) for secret in (SECRET, bytes(32)) for worker_id in ("a", "b")}
    assert len(keys) == 4


@pytest.mark.parametrize(
    "key",
    [
        "",
        "rustbee",
        "rustbee.",
        "rustbee..",
        "rustbee.a",
        "rustbee.a.",
        "rustbee.a.00",
        "bee" + worker_key(SECRET, "a"),
        worker_key(SECRET, "a") + "0",
        worker_key(SECRET, "a")[:-1],
        worker_key(SECRET, "a").upper(),
        worker_key(bytes(32), "a"),
        worker_key(SECRET, "a").replace(".a.", ".b."),
        "rustbee.\u00e4.\u00f6",
        "rustbee.a.\u00ff",
        "sk-swarmesh-x",
    ],
)
def test_what_was_not_made_here_speaks_for_nobody(key: str) -> None:
    assert worker_of_key(SECRET, key) is None


def test_the_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    home = Home(tmp_path)
    secret = worker_secret(home)
    assert len(secret) == 32
    assert worker_secret(home) == secret
    assert home.worker_secret_file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [home.worker_secret_file]


def test_whoever_asks_first_all_get_the_same_secret(tmp_path: Path) -> None:
    home, found = Home(tmp_path), []
    begin = threading.Barrier(8)

    def ask() -> None:
        begin.wait()
        found.append(worker_secret(home))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found[0]) == 32
