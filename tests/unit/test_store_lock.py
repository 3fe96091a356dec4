import os
import stat
from pathlib import Path

import pytest

from swarmesh.core.errors import HivecombLockedError, StoreError
from swarmesh.store.lock import FileLock


def test_the_second_opener_hears_who_holds_it_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    held = FileLock.acquire(path)
    with pytest.raises(HivecombLockedError, match=f"process {os.getpid()} has this hivecomb open") as raised:
        FileLock.acquire(path)
    assert raised.value.code == "hivecomb_locked"
    assert "swarmesh queennode stop" in raised.value.hint
    held.release()


def test_after_release_the_next_may_come(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    FileLock.acquire(path).release()
    assert path.read_text() == ""
    held = FileLock.acquire(path)
    assert path.read_text() == f"{os.getpid()}\n"
    held.release()


def test_a_stale_pid_of_a_dead_holder_does_not_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text("1234567890123\n")
    held = FileLock.acquire(path)
    assert path.read_text() == f"{os.getpid()}\n"
    held.release()


def test_a_holder_that_has_not_signed_yet_is_still_a_holder(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    held = FileLock.acquire(path)
    path.write_text("")
    with pytest.raises(HivecombLockedError, match="another process has this hivecomb open"):
        FileLock.acquire(path)
    held.release()


def test_the_lock_is_private_and_not_for_children(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    held = FileLock.acquire(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not os.get_inheritable(held._fd)
    held.release()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/x\.lock: No such file or directory"):
        FileLock.acquire(tmp_path / "nowhere" / "x.lock")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot make the lock file"):
        FileLock.acquire(path)
