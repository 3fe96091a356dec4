"""The catalog: names, the file on disk, and several processes at once."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from pathlib import Path

import msgspec
import pytest

from gguf_writer import llama, write
from swarmesh.core.errors import (
    ConfigError,
    ConflictError,
    InvalidValueError,
    ModelFileError,
    ModelNotFoundError,
    SwarmeshError,
)
from swarmesh.models import catalog as catalog_module
from swarmesh.models.catalog import Catalog
from swarmesh.models.modelcell import ModelKind, ModelSource


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def catalog(home: Path, tmp_path: Path) -> Catalog:
    return Catalog(home, demo_gguf=write(tmp_path / "demo.gguf", llama("Demo")))


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    return write(tmp_path / "models" / "Qwen.gguf", llama("Qwen"))


def test_a_new_catalog_has_the_demo_and_makes_no_file(catalog: Catalog, home: Path) -> None:
    (demo,) = catalog.list()
    assert (demo.name, demo.source, demo.architecture) == ("demo", ModelSource.BUILTIN, "llama")
    assert demo.parameters == 336
    assert not home.exists()


def test_a_missing_demo_file_does_not_break_the_list(home: Path, tmp_path: Path) -> None:
    (demo,) = Catalog(home, demo_gguf=tmp_path / "none.gguf").list()
    assert demo.path == tmp_path / "none.gguf"
    assert demo.size_bytes == 0


def test_an_added_file_is_there_for_the_next_process(catalog: Catalog, home: Path, qwen: Path) -> None:
    added = catalog.add_file("qwen-0.5b", qwen, added_at=1000.5)

    assert Catalog(home).get("qwen-0.5b") == added
    assert (added.kind, added.path, added.source) == (ModelKind.GGUF, qwen, ModelSource.FILE)
    assert (added.added_at, added.size_bytes) == (1000.5, qwen.stat().st_size)
    assert (added.quantization, added.context_length) == ("F16", 2048)
    assert added.sha256 is None


def test_a_relative_path_becomes_absolute(catalog: Catalog, qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(qwen.parent)
    assert catalog.add_file("q", Path("../models/Qwen.gguf"), added_at=0).path == qwen


def test_a_link_stays_a_link(catalog: Catalog, qwen: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(qwen)
    assert catalog.add_file("q", link, added_at=0).path == link


def test_the_list_is_in_order_of_name_after_the_demo(catalog: Catalog, qwen: Path) -> None:
    for name in ("zeta", "alpha"):
        catalog.add_file(name, qwen, added_at=0)
    assert [cell.name for cell in catalog.list()] == ["demo", "alpha", "zeta"]


@pytest.mark.parametrize("name", ["q", "qwen2.5:0.5b", "org/model-a_b.c", "0", "a" * 128])
def test_good_names(catalog: Catalog, qwen: Path, name: str) -> None:
    assert catalog.add_file(name, qwen, added_at=0).name == name


@pytest.mark.parametrize(
    "name", ["", "Qwen", "-q", ".q", "a b", "a\n", "a" * 129, "ü", "a?b", "a%2e", "$(x)", "a;b", "'", "٣"]
)
def test_bad_names(catalog: Catalog, qwen: Path, name: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        catalog.add_file(name, qwen, added_at=0)
    assert caught.value.param == "name"
    assert not catalog.path.exists()


def test_a_file_that_cannot_be_served_is_not_added(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        catalog.add_file("q", tmp_path / "none.gguf", added_at=0)
    assert [cell.name for cell in catalog.list()] == ["demo"]


def test_a_taken_name_is_a_conflict_unless_replaced(catalog: Catalog, qwen: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.gguf")
    catalog.add_file("q", qwen, added_at=1)

    with pytest.raises(ConflictError) as caught:
        catalog.add_file("q", other, added_at=2)

    assert str(qwen) in caught.value.message
    assert "--replace" in caught.value.hint
    assert catalog.get("q").path == qwen
    assert catalog.add_file("q", other, added_at=3, replace=True).path == other
    assert catalog.get("q").path == other


def test_adding_the_same_file_again_refreshes_it(catalog: Catalog, qwen: Path) -> None:
    catalog.add_file("q", qwen, added_at=1)
    write(qwen, llama("Qwen", blocks=3))
    catalog.add_file("q", qwen, added_at=2, sha256="0" * 64)
    assert (catalog.get("q").added_at, catalog.get("q").sha256) == (2, "0" * 64)


def test_the_demo_cannot_be_replaced_or_removed(catalog: Catalog, qwen: Path) -> None:
    with pytest.raises(ConflictError):
        catalog.add_file("demo", qwen, added_at=0, replace=True)
    with pytest.raises(ConflictError, match="ships with Swarmesh"):
        catalog.remove("demo")


def test_removing_forgets_the_name_and_keeps_the_file(catalog: Catalog, qwen: Path) -> None:
    catalog.add_file("q", qwen, added_at=0)

    removal = catalog.remove("q")

    assert removal.message == f"'q' is no longer in the catalog. The file {qwen} is still there."
    assert qwen.exists()
    assert [cell.name for cell in catalog.list()] == ["demo"]
    with pytest.raises(ModelNotFoundError):
        catalog.remove("q")


@pytest.mark.parametrize(
    ("asked", "near"),
    [("qwem-0.5b", "'qwen-0.5b'"), ("QWEN", "'qwen-0.5b'"), ("dem", "'demo'"), ("zzzzzz", None), ("", None)],
)
def test_an_unknown_name_suggests_near_ones(catalog: Catalog, qwen: Path, asked: str, near: str | None) -> None:
    catalog.add_file("qwen-0.5b", qwen, added_at=0)
    with pytest.raises(ModelNotFoundError) as caught:
        catalog.get(asked)
    assert caught.value.message == f"no modelcell is called '{asked}'."
    assert (f"Did you mean {near}" in caught.value.hint) if near else ("Did you mean" not in caught.value.hint)
    assert "swarmesh models list" in caught.value.hint


def test_a_python_class(catalog: Catalog) -> None:
    added = catalog.add_python_class("stats", "my_tasks.text:Statistics", added_at=5)
    assert (added.kind, added.target, added.path) == (ModelKind.PYTHON_CLASS, "my_tasks.text:Statistics", None)
    assert catalog.get("stats") == added
    assert catalog.remove("stats").message == "'stats' is no longer in the catalog."


@pytest.mark.parametrize(
    "target", ["", "module", ":Class", "module:", "a b:C", "a:C:D", "../x:C", "a:C()", "a.:C", "1a:C"]
)
def test_bad_class_paths(catalog: Catalog, target: str) -> None:
    with pytest.raises(InvalidValueError):
        catalog.add_python_class("stats", target, added_at=0)


def test_a_remote_server(catalog: Catalog) -> None:
    added = catalog.add_remote("llama3", "http://127.0.0.1:11434/", added_at=5)
    assert (added.kind, added.target) == (ModelKind.REMOTE, "http://127.0.0.1:11434")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:11434",
        "ftp://host",
        "file:///etc/passwd",
        "http://",
        "http://h:99999",
        "http://[",
        "http://u:secret@h",
    ],
)
def test_bad_urls(catalog: Catalog, url: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        catalog.add_remote("r", url, added_at=0)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"version": 1, "models": [}', "byte 26"),
        (b'{"version": 1, "models": [{"name": 5}]}', "$.models[0].name"),
        (b'{"version": 1, "models": ', "truncated"),
        (b"", "truncated"),
        (b"[]", "got `array`"),
        (b'{"version": 2, "models": []}', "version 2"),
        (b'{"version": 1, "models": [{"name": "\xff"}]}', "utf-8"),
        (b'{"version": 1, "x": ' + b"[" * 100_000, "recursion"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named_and_left_alone(
    catalog: Catalog, qwen: Path, content: bytes, says: str
) -> None:
    catalog.path.parent.mkdir()
    catalog.path.write_bytes(content)
    for action in (
        catalog.list,
        lambda: catalog.get("q"),
        lambda: catalog.add_file("q", qwen, added_at=0),
        lambda: catalog.remove("q"),
    ):
        with pytest.raises(ConfigError) as caught:
            action()
        assert str(catalog.path) in caught.value.message
        assert says in caught.value.message
        assert catalog.path.read_bytes() == content
    assert sorted(path.name for path in catalog.path.parent.iterdir()) == ["models.json", "models.json.lock"]


def test_a_file_that_is_too_large_is_refused(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "MAX_FILE_BYTES", 10)
    catalog.path.parent.mkdir()
    catalog.path.write_bytes(b'{"version": 1, "models": []}')
    with pytest.raises(ConfigError, match="larger than 10 bytes"):
        catalog.list()


def test_a_home_that_is_a_file_is_refused(tmp_path: Path, qwen: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError, match=r"Not a directory|File exists"):
        Catalog(blocked).add_file("q", qwen, added_at=0)


def test_a_crash_while_writing_leaves_the_old_file(
    catalog: Catalog, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.add_file("first", qwen, added_at=0)
    before = catalog.path.read_bytes()

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(ConfigError, match="No space left on device"):
        catalog.add_file("second", qwen, added_at=0)
    assert catalog.path.read_bytes() == before
    assert sorted(path.name for path in catalog.path.parent.iterdir()) == ["models.json", "models.json.lock"]


def test_a_lock_that_is_held_too_long_is_reported(
    catalog: Catalog, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "LOCK_WAIT_S", 0.0)
    catalog.path.parent.mkdir()
    lock = catalog.path.with_name("models.json.lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another process has held"):
            catalog.add_file("q", qwen, added_at=0)
    catalog.add_file("q", qwen, added_at=0)


def _add_many(home: Path, model: Path, prefix: str, count: int) -> None:
    for number in range(count):
        Catalog(home).add_file(f"{prefix}{number}", model, added_at=0)


def test_processes_that_add_at_the_same_time_lose_nothing(home: Path, qwen: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_many, args=(home, qwen, prefix, 10)) for prefix in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    names = {cell.name for cell in Catalog(home).list()}
    assert names == {"demo"} | {f"{prefix}{number}" for prefix in "abc" for number in range(10)}


def test_the_file_is_json_that_people_can_read(catalog: Catalog, qwen: Path) -> None:
    catalog.add_file("q", qwen, added_at=7)
    content = catalog.path.read_text()
    assert '\n      "name": "q"' in content
    assert msgspec.json.decode(content)["models"][0]["target"] == str(qwen)
    assert catalog.path.stat().st_mode & 0o077 == 0


def test_every_error_of_the_catalog_has_a_code(catalog: Catalog) -> None:
    with pytest.raises(SwarmeshError) as caught:
        catalog.get("nothing")
    assert (caught.value.code, caught.value.status) == ("model_not_found", 404)
