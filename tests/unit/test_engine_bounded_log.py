"""A log that cannot fill a disk."""

from __future__ import annotations

from pathlib import Path

from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.engine_exit import describe_exit


def test_it_appends_and_knows_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"of an earlier life\n")
    log = BoundedLog(path)
    log.write(b"one\ntw")
    log.write(b"o\n\nthree\n")
    assert path.read_bytes() == b"of an earlier life\none\ntwo\n\nthree\n"
    assert log.last_lines(2) == ["two", "three"]
    log.forget()
    assert log.last_lines(2) == []


def test_two_files_are_all_there_ever_is(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "x.log", bytes_max=100)
    for number in range(50):
        log.write(b"line %03d\n" % number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    assert (tmp_path / "x.log").read_bytes().endswith(b"line 049\n")


def test_one_write_beyond_all_measure_is_cut(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "x.log", bytes_max=100)
    log.write(b"a" * 1000 + b"end")
    assert (tmp_path / "x.log").read_bytes() == b"a" * 97 + b"end"


def test_a_disk_that_is_gone_loses_lines_not_the_worker(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "gone" / "x.log")
    log.write(b"still here\n")
    assert log.last_lines(1) == ["still here"]


def test_exits_are_described() -> None:
    assert describe_exit(5, 3) == "the engine (pid 5) exited with code 3"
    assert describe_exit(5, -11) == "the engine (pid 5) was killed by signal 11 (SIGSEGV)"
    assert describe_exit(5, -200) == "the engine (pid 5) was killed by signal 200 (unknown)"
