"""Which machine has which model, where it fits, and how it comes to where it is wanted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shelf_rigs import HIVE, FakeCaller, local_shelf, model_bytes, put, read
from swarmesh.config.home import Home
from swarmesh.core.errors import InvalidValueError, ModelNotFoundError, NotFoundError
from swarmesh.hosts.ssh_errors import HostLostError
from swarmesh.models import hub
from swarmesh.models.catalog import Catalog
from swarmesh.models.modelcell import ModelSource
from swarmesh.models.shelf import Shelf
from swarmesh.queen import model_files
from swarmesh.queen.model_download import DownloadLeftError
from swarmesh.queen.model_files import ModelFilesService
from swarmesh.queen.remote_shelf import RemoteShelf
from swarmesh.wire.hosts import FitRequest, Step

REFERENCE = "hf:org/repo/Tiny-Q8_0.gguf"


def take_away(path: Path) -> None:
    path.unlink()


def unheard(_step: Step) -> None:
    pass


@dataclass
class Directory:
    """This machine with 1,000 MiB and a GPU, and three hosts, of which ``lost`` cannot be reached."""

    root: Path
    near: dict[str, float] = field(default_factory=lambda: {"localhost": 1.0, "far": 0.1, "near": 0.9, "lost": 1.0})

    def __post_init__(self) -> None:
        self.local = local_shelf(self.root / "localhost")
        self.callers = {name: FakeCaller(local_shelf(self.root / name)) for name in ("far", "near", "lost")}
        self.memory: dict[str, list[tuple[str, int, int]]] = {
            "localhost": [("ram", 1_000, 2_000), ("gpu 0", 10, 20)],
            "far": [("ram", 10, 16), ("gpu 0", 300, 400), ("gpu 1", 500, 600)],
        }

    def names(self) -> list[str]:
        return list(self.near)

    def reachable(self) -> list[str]:
        return ["localhost", "far", "near"]

    def taking_workers(self) -> list[str]:
        return self.reachable()

    def shelf(self, name: str) -> Shelf:
        return self.local if name == "localhost" else RemoteShelf(self.callers[name], hive=HIVE)

    def proximity(self, name: str) -> float:
        return self.near[name]

    def free(self, name: str) -> Sequence[tuple[str, int, int]]:
        return self.memory.get(name, [])

    def catalog(self, name: str) -> Catalog:
        return Catalog(self.root / name / "home")


@pytest.fixture
def hosts(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


@pytest.fixture
def service(hosts: Directory) -> ModelFilesService:
    return ModelFilesService(Home(hosts.root / "localhost" / "home"), hosts)


@pytest.fixture
def qwen(hosts: Directory) -> Path:
    file = put(hosts.root / "Qwen.gguf", model_bytes(padding=100_000))
    hosts.catalog("localhost").add_file("qwen", file, added_at=0)
    return file


async def test_a_spawn_on_a_host_without_the_file_copies_it_once(
    service: ModelFilesService, hosts: Directory, qwen: Path
) -> None:
    steps: list[Step] = []
    path = await service.ensure("qwen", "near", steps.append)
    assert read(path) == read(str(qwen))
    assert path.startswith(str(hosts.root / "near" / "home" / "models"))
    assert [step.step for step in steps if step.state == "done"] == ["hash", "copy", "check"]

    assert await service.ensure("qwen", "near", unheard) == path
    assert len(hosts.callers["near"].openings) == 1


async def test_on_the_queens_machine_the_file_itself_is_taken(service: ModelFilesService, qwen: Path) -> None:
    assert await service.ensure("qwen", "localhost", unheard) == str(qwen)


async def test_a_class_needs_no_file(service: ModelFilesService, hosts: Directory) -> None:
    hosts.catalog("localhost").add_python_class("upper", "tasks:Upper", added_at=0)
    assert await service.ensure("upper", "near", unheard) == ""
    assert await service.holders("upper", ["near", "far"]) == {"near", "far"}
    for ask in (
        service.header("upper"),
        service.copy("upper", "near", unheard),
        service.fit(FitRequest(modelcell="upper")),
    ):
        with pytest.raises(InvalidValueError, match="it has no model file"):
            await ask


async def test_nobody_knows_it(service: ModelFilesService) -> None:
    for ask in (service.header("none"), service.ensure("none", "near", unheard), service.cell("none", unheard)):
        with pytest.raises(ModelNotFoundError):
            await ask


async def test_what_a_copy_did_is_told(service: ModelFilesService, qwen: Path) -> None:
    first = await service.copy("qwen", "near", unheard)
    assert (first.host, first.source, first.sent_bytes) == ("near", "localhost", len(read(str(qwen))))
    again = await service.copy("qwen", "near", unheard)
    assert (again.path, again.source, again.sent_bytes) == (first.path, "near", 0)
    assert again.sha256 == first.sha256


async def test_a_modelcell_that_only_a_host_knows_is_served_from_there(
    service: ModelFilesService, hosts: Directory
) -> None:
    file = put(hosts.root / "theirs.gguf", model_bytes("Theirs"))
    hosts.catalog("far").add_file("theirs", file, added_at=0)

    assert (await service.header("theirs")).name == "Theirs"
    assert (await service.cell("theirs", unheard)).target == str(file)
    assert await service.ensure("theirs", "far", unheard) == str(file)
    copied = await service.copy("theirs", "localhost", unheard)
    assert (copied.source, read(copied.path)) == ("far", read(str(file)))
    assert hosts.catalog("localhost").get("theirs").source is ModelSource.COPY


async def test_the_nearest_host_that_has_it_is_the_source(service: ModelFilesService, hosts: Directory) -> None:
    content = model_bytes()
    hosts.near["third"] = 0.5
    hosts.callers["third"] = FakeCaller(local_shelf(hosts.root / "third"))
    hosts.catalog("far").add_file("m", put(hosts.root / "far.gguf", content), added_at=0)
    hosts.catalog("near").add_file("other-name", put(hosts.root / "near.gguf", content), added_at=0)
    copied = await service.copy("m", "third", unheard)
    assert copied.source == "near"
    assert await service.holders("m", ["localhost", "far", "near", "third"]) == {"far", "near", "third"}


async def test_a_file_that_is_gone_from_here_comes_from_a_host(
    service: ModelFilesService, hosts: Directory, qwen: Path
) -> None:
    await service.copy("qwen", "far", unheard)
    take_away(qwen)
    copied = await service.copy("qwen", "near", unheard)
    assert copied.source == "far"
    assert await service.ensure("qwen", "localhost", unheard) != str(qwen)


async def test_a_host_that_fails_to_say_counts_as_one_without(
    service: ModelFilesService, hosts: Directory, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: object) -> str:
        raise HostLostError

    monkeypatch.setattr(hosts.callers["far"], "call", lost)
    assert await service.holders("qwen", ["far", "near"]) == set()


async def test_so_does_one_that_takes_too_long(
    service: ModelFilesService, hosts: Directory, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object) -> str:
        await asyncio.Event().wait()
        raise AssertionError("nobody wakes it")

    monkeypatch.setattr(model_files, "FIND_WAIT_S", 0.001)
    monkeypatch.setattr(hosts.callers["far"], "call", silent)
    assert await service.holders("qwen", ["localhost", "far"]) == {"localhost"}


async def test_where_it_fits(service: ModelFilesService, hosts: Directory, qwen: Path) -> None:
    await service.copy("qwen", "far", unheard)
    fit = await service.fit(FitRequest(modelcell="qwen", slots=4, context=1_024))

    assert (fit.modelcell, fit.slots, fit.context) == ("qwen", 4, 1_024)
    assert fit.need_mib == fit.weights_mib + fit.kv_cache_mib + fit.compute_mib + fit.process_mib
    seen = [(view.host, view.memory, view.fits, view.free_mib, view.total_mib, view.file_there) for view in fit.hosts]
    assert seen == [
        ("localhost", "ram", True, 1_000, 2_000, True),
        ("localhost", "gpu 0", False, 10, 20, True),
        ("far", "ram", False, 10, 16, True),
        ("far", "gpu 0", True, 300, 400, True),
        ("far", "gpu 1", True, 500, 600, True),
        ("far", "all gpus", True, 800, 1_000, True),
    ]
    helps = [view.would_help for view in fit.hosts]
    assert helps[0] == ""
    assert "a smaller quantisation or model" in helps[1]


async def test_without_numbers_the_defaults_count(service: ModelFilesService, hosts: Directory, qwen: Path) -> None:
    (hosts.root / "localhost" / "home" / "swarmesh.toml").write_text("[rustbee]\nslots = 3\ncontext_tokens = 512\n")
    fit = await service.fit(FitRequest(modelcell="qwen"))
    assert (fit.slots, fit.context) == (3, 512)


async def test_scans_of_every_host(
    service: ModelFilesService, hosts: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: object) -> str:
        raise HostLostError("gone")

    monkeypatch.setattr(hosts.callers["lost"], "call", lost)
    put(hosts.root / "localhost" / "hub" / "here.gguf", model_bytes())
    put(hosts.root / "near" / "hub" / "there.gguf", model_bytes())

    seen = await service.scan("")
    assert [(view.host, view.known_as) for view in seen.found] == [("localhost", "here"), ("near", "there")]
    assert {name: body.code for name, body in seen.errors.items()} == {"lost": "host_lost"}

    one = await service.scan("near")
    assert [view.host for view in one.found] == ["near"]
    assert await service.ensure("there", "near", unheard) == one.found[0].path


class Hub:
    """Downloads that put a file where a cache would."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.asked: list[str] = []
        monkeypatch.setattr(hub, "download", self.download)

    def download(self, wanted: hub.HubFile, *, on_progress: hub.OnProgress) -> Path:
        self.asked.append(wanted.file)
        on_progress(10, 20)
        on_progress(20, 20)
        if wanted.file == "none.gguf":
            raise NotFoundError
        return put(self.root / "cache" / wanted.file, model_bytes())


@pytest.fixture
def huggingface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path, monkeypatch)


async def test_a_reference_is_downloaded_once_and_spread(
    service: ModelFilesService, hosts: Directory, huggingface: Hub
) -> None:
    heard: tuple[list[Step], list[Step]] = ([], [])
    paths = await asyncio.gather(
        service.ensure(REFERENCE, "near", heard[0].append), service.ensure(REFERENCE, "far", heard[1].append)
    )
    assert huggingface.asked == ["Tiny-Q8_0.gguf"]
    assert [Path(path).name for path in paths] == ["Tiny-Q8_0.gguf"] * 2
    for steps in heard:
        assert [step.step for step in steps if step.state == "done"] == ["download", "hash", "copy", "check"]
    cell = hosts.catalog("localhost").get("tiny")
    assert (cell.source, cell.hub) == (ModelSource.HUB, REFERENCE)
    assert (await service.cell(REFERENCE, unheard)).name == "tiny"
    assert (await service.header(REFERENCE)).name == "Tiny"
    assert huggingface.asked == ["Tiny-Q8_0.gguf"]


async def test_a_modelcell_whose_download_was_cleaned_away_is_downloaded_again(
    service: ModelFilesService, hosts: Directory, huggingface: Hub
) -> None:
    path = await service.ensure(REFERENCE, "localhost", unheard)
    take_away(Path(path))
    assert await service.ensure("tiny", "localhost", unheard) == path
    assert len(huggingface.asked) == 2
    assert [cell.name for cell in hosts.catalog("localhost").list()] == ["demo", "tiny"]


async def test_what_is_not_downloaded_is_not_measured(service: ModelFilesService, huggingface: Hub) -> None:
    for ask in (service.header(REFERENCE), service.fit(FitRequest(modelcell=REFERENCE))):
        with pytest.raises(ModelNotFoundError, match="not been downloaded"):
            await ask
    with pytest.raises(InvalidValueError):
        await service.ensure("hf:nonsense", "near", unheard)
    assert huggingface.asked == []


async def test_a_download_that_fails_is_tried_again_by_the_next(service: ModelFilesService, huggingface: Hub) -> None:
    for _ in range(2):
        with pytest.raises(NotFoundError):
            await service.ensure("hf:org/repo/none.gguf", "near", unheard)
    assert huggingface.asked == ["none.gguf"] * 2


async def test_a_download_that_nobody_waits_for_ends(
    service: ModelFilesService, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, left, ended = threading.Event(), threading.Event(), threading.Event()

    def download(_wanted: hub.HubFile, *, on_progress: hub.OnProgress) -> Path:
        began.set()
        assert left.wait(10)
        try:
            on_progress(1, 2)
        except DownloadLeftError:
            ended.set()
            raise
        raise AssertionError("it goes on")

    monkeypatch.setattr(hub, "download", download)
    wanting = asyncio.create_task(service.ensure(REFERENCE, "near", unheard))
    assert await asyncio.to_thread(began.wait, 10)
    wanting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wanting
    left.set()
    assert await asyncio.to_thread(ended.wait, 10)


async def test_a_file_somebody_added_by_hand_keeps_its_name(
    service: ModelFilesService, hosts: Directory, huggingface: Hub
) -> None:
    file = huggingface.download(hub.HubFile("org/repo", "Tiny-Q8_0.gguf"), on_progress=lambda _done, _total: None)
    hosts.catalog("localhost").add_file("mine", file, added_at=0)
    assert (await service.cell(REFERENCE, unheard)).name == "mine"
    assert hosts.catalog("localhost").get("mine").hub == REFERENCE
