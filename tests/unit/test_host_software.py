"""The software that runs here, packed for other hosts."""

from __future__ import annotations

import base64
import csv
import hashlib
import zipfile
from pathlib import Path

import pytest

from swarmesh.hosts import software
from swarmesh.hosts.software import PACKAGE, Software, pack_software


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Software:
    return pack_software(tmp_path_factory.mktemp("packed"))


def test_the_wheel_has_every_file_of_the_package_and_no_bytecode(packed: Software) -> None:
    with zipfile.ZipFile(packed.wheel) as wheel:
        names = set(wheel.namelist())
        for name in ("models/demo/demo.gguf", "store/sql/0001_init.sql", "hosts/requirements.lock", "py.typed"):
            assert wheel.read(f"swarmesh/{name}") == (PACKAGE / name).read_bytes()
    sources = {f"swarmesh/{path.relative_to(PACKAGE)}" for path in PACKAGE.rglob("*.py")}
    assert sources <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    info = f"{packed.wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"
    assert {
        f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    } <= names


def test_the_records_are_right(packed: Software) -> None:
    for path in (packed.wheel, packed.pip):
        with zipfile.ZipFile(path) as wheel:
            (record,) = [name for name in wheel.namelist() if name.endswith(".dist-info/RECORD")]
            rows = list(csv.reader(wheel.read(record).decode().splitlines()))
            assert [row[0] for row in rows] == [*sorted(row[0] for row in rows[:-1]), record]
            assert sorted(row[0] for row in rows) == sorted(wheel.namelist())
            for name, digest, size in rows[:-1]:
                data = wheel.read(name)
                assert int(size) == len(data)
                want = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert digest == f"sha256={want}"


def test_two_packings_are_the_same_bytes(packed: Software, tmp_path: Path) -> None:
    again = pack_software(tmp_path / "elsewhere")
    assert again.digest == packed.digest
    for path, other in ((packed.wheel, again.wheel), (packed.pip, again.pip), (packed.lock, again.lock)):
        assert path.name == other.name
        assert path.read_bytes() == other.read_bytes()


def test_what_is_packed_already_is_left_alone(packed: Software) -> None:
    before = packed.wheel.stat().st_mtime_ns
    assert pack_software(packed.wheel.parents[1]) == packed
    assert packed.wheel.stat().st_mtime_ns == before


def test_a_changed_file_is_another_version_and_the_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "swarmesh"
    package.mkdir()
    (package / "__init__.py").write_text("A = 1\n")
    monkeypatch.setattr(software, "PACKAGE", package)
    first = pack_software(tmp_path / "packed")
    (package / "__init__.py").write_text("A = 22\n")
    second = pack_software(tmp_path / "packed")
    assert first.digest != second.digest
    assert second.wheel.exists()
    assert not first.wheel.exists()


def test_a_file_that_is_missing_is_packed_again(tmp_path: Path) -> None:
    first = pack_software(tmp_path)
    first.pip.unlink()
    again = pack_software(tmp_path)
    assert again == first
    assert again.pip.exists()
