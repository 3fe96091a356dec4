"""Finding models where people and other programs keep them."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from gguf_writer import Gguf, Typed, llama, write
from swarmesh.core.errors import NotFoundError
from swarmesh.models import scan as scan_module
from swarmesh.models.catalog import Catalog
from swarmesh.models.modelcell import Modelcell, ModelKind, ModelSource
from swarmesh.models.proposed_name import propose_names
from swarmesh.models.scan import Origin, ScanReport, ScanRoot, default_roots, directory_root, scan


def scan_directory(path: Path, catalog: tuple[Modelcell, ...] = ()) -> ScanReport:
    return scan([directory_root(path)], catalog)


def names(report: ScanReport) -> list[str]:
    return [model.name for model in report.found]


def reasons(report: ScanReport) -> dict[str, str]:
    return {skipped.path.name: skipped.reason for skipped in report.skipped}


def gguf_cell(name: str, path: Path) -> Modelcell:
    return Modelcell(name=name, kind=ModelKind.GGUF, target=str(path), source=ModelSource.FILE, added_at=0)


def test_finds_models_in_subdirectories(tmp_path: Path) -> None:
    write(tmp_path / "b" / "Deep" / "Mistral-7B-Instruct-v0.3.Q4_K_M.gguf")
    write(tmp_path / "qwen2.5-0.5b-instruct-q8_0.GGUF")
    (tmp_path / "readme.txt").write_text("nothing")

    report = scan_directory(tmp_path)

    assert names(report) == ["mistral-7b-instruct-v0.3", "qwen2.5-0.5b-instruct"]
    assert report.found[0].path == tmp_path / "b" / "Deep" / "Mistral-7B-Instruct-v0.3.Q4_K_M.gguf"
    assert report.found[0].origin is Origin.DIRECTORY
    assert report.found[0].header.architecture == "llama"
    assert report.skipped == ()
    assert report.limit_reached is None


def test_unusable_files_are_reported_and_stop_nothing(tmp_path: Path) -> None:
    write(tmp_path / "good.gguf")
    (tmp_path / "cut.gguf").write_bytes(llama().build()[:-100])
    (tmp_path / "page.gguf").write_bytes(b"<html>")
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere")
    write(tmp_path / "mmproj-model-f16.gguf")
    write(tmp_path / "lora.gguf", llama(extra={"general.type": Typed("str", "adapter")}))
    write(tmp_path / "vocab.gguf", Gguf(llama().keys))
    os.mkfifo(tmp_path / "pipe.gguf")

    report = scan_directory(tmp_path)

    assert names(report) == ["good"]
    assert {
        name: word in reason
        for (name, reason), word in zip(
            sorted(reasons(report).items()),
            ["is cut off", "no model file", "adapter", "vision projector", "web page", "regular file", "vocabulary"],
            strict=True,
        )
    } == dict.fromkeys(
        ["cut.gguf", "gone.gguf", "lora.gguf", "mmproj-model-f16.gguf", "page.gguf", "pipe.gguf", "vocab.gguf"], True
    )


def test_a_split_model_is_one_model(tmp_path: Path) -> None:
    for part in range(3):
        keys = {"split.no": Typed("u16", part), "split.count": Typed("u16", 3)}
        model = llama(extra=keys) if part == 0 else Gguf(keys, [("x", (4,), 0)])
        write(tmp_path / f"Big-Q4_K_M-{part + 1:05}-of-00003.gguf", model)

    report = scan_directory(tmp_path)

    assert names(report) == ["big"]
    assert report.found[0].header.tensor_count == 4
    assert list(reasons(report).values()) == ["part 2 of 3 of a model", "part 3 of 3 of a model"]


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    write(tmp_path / "a" / "model.gguf")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    report = scan_directory(tmp_path)
    assert names(report) == ["model"]


def test_one_file_under_two_names_is_one_model(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").hardlink_to(tmp_path / "a.gguf")
    (tmp_path / "c.gguf").symlink_to(tmp_path / "a.gguf")
    assert names(scan_directory(tmp_path)) == ["a"]


def test_hidden_directories_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / ".cache" / "model.gguf")
    assert scan_directory(tmp_path).found == ()


def test_depth_entries_and_models_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.gguf")
    write(tmp_path / "x" / "y" / "deep.gguf")

    monkeypatch.setattr(scan_module, "MAX_DEPTH", 1)
    assert scan_directory(tmp_path).limit_reached == "1 levels of directories"
    assert "deep" not in names(scan_directory(tmp_path))
    monkeypatch.setattr(scan_module, "MAX_MODELS", 2)
    assert scan_directory(tmp_path).limit_reached == "2 models"
    assert len(scan_directory(tmp_path).found) == 2
    monkeypatch.setattr(scan_module, "MAX_ENTRIES", 1)
    assert scan_directory(tmp_path).limit_reached == "1 directory entries"


def hugging_face_file(hub: Path, repository: str, revision: str, name: str, blob: str, model: Gguf) -> None:
    base = hub / f"models--{repository.replace('/', '--')}"
    write(base / "blobs" / blob, model)
    link = base / "snapshots" / revision / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(base / "blobs" / blob, link.parent))


def test_the_hugging_face_cache(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hugging_face_file(hub, "Qwen/Qwen3-GGUF", "r1", "Qwen3-0.6B-Q8_0.gguf", "aa", llama())
    hugging_face_file(hub, "Qwen/Qwen3-GGUF", "r2", "Qwen3-0.6B-Q8_0.gguf", "aa", llama())
    hugging_face_file(hub, "org/other", "r1", "sub/Other-F16.gguf", "bb", llama())
    (hub / "models--org--other" / "snapshots" / "r1" / "config.json").write_text("{}")

    report = scan([ScanRoot(Origin.HUGGING_FACE, hub)], ())

    assert names(report) == ["qwen3-0.6b", "other"]
    assert report.found[0].path == hub / "models--Qwen--Qwen3-GGUF/snapshots/r1/Qwen3-0.6B-Q8_0.gguf"
    assert {model.origin for model in report.found} == {Origin.HUGGING_FACE}
    assert report.skipped == ()


def ollama_model(models: Path, tag: str, digest: str, *, content: bytes | None = None, layers: object = None) -> None:
    manifest = models / "manifests" / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    weights = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": 5}
    template = {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "f" * 64}
    manifest.write_bytes(
        msgspec.json.encode({"schemaVersion": 2, "layers": [template, weights] if layers is None else layers})
    )
    blob = models / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content or llama().build())


def test_ollama(tmp_path: Path) -> None:
    models = tmp_path / "models"
    ollama_model(models, "registry.ollama.ai/library/llama3.2/3b", "1" * 64)
    ollama_model(models, "registry.ollama.ai/library/nomic-embed-text/latest", "2" * 64)
    ollama_model(models, "registry.ollama.ai/library/same-as-llama/latest", "1" * 64)
    ollama_model(models, "hf.co/bartowski/Qwen-GGUF/Q4_K_M", "3" * 64)

    report = scan([ScanRoot(Origin.OLLAMA, models)], ())

    assert names(report) == ["bartowski/qwen-gguf", "llama3.2:3b", "nomic-embed-text"]
    assert report.found[1].path == models / "blobs" / ("sha256-" + "1" * 64)
    assert report.found[1].sha256 == "1" * 64
    assert {model.origin for model in report.found} == {Origin.OLLAMA}


def test_an_ollama_directory_is_recognised_when_the_user_names_it(tmp_path: Path) -> None:
    ollama_model(tmp_path, "registry.ollama.ai/library/llama3.2/3b", "1" * 64)
    assert names(scan_directory(tmp_path)) == ["llama3.2:3b"]


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (b"{", "cannot be understood"),
        (b"\xff\xfe", "cannot be understood"),
        (b"[]", "cannot be understood"),
        (b"{}", "names no model file"),
        (
            b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../etc/passwd"}]}',
            "names no model",
        ),
        (b'{"layers": ' + b"[" * 50_000, "cannot be understood"),
    ],
)
def test_broken_manifests_are_reported(tmp_path: Path, manifest: bytes, says: str) -> None:
    ollama_model(tmp_path, "registry.ollama.ai/library/good/latest", "1" * 64)
    bad = tmp_path / "manifests/registry.ollama.ai/library/bad/latest"
    bad.parent.mkdir()
    bad.write_bytes(manifest)
    report = scan_directory(tmp_path)
    assert names(report) == ["good"]
    assert says in reasons(report)["latest"]


def test_a_missing_or_foreign_blob_is_reported(tmp_path: Path) -> None:
    ollama_model(tmp_path, "registry.ollama.ai/library/gone/latest", "1" * 64)
    ollama_model(tmp_path, "registry.ollama.ai/library/foreign/latest", "2" * 64, content=b"PK\x03\x04....")
    (tmp_path / "blobs" / ("sha256-" + "1" * 64)).unlink()
    report = scan_directory(tmp_path)
    assert report.found == ()
    assert sorted("zip archive" in reason for reason in reasons(report).values()) == [False, True]


def test_lm_studio(tmp_path: Path) -> None:
    write(tmp_path / "lmstudio-community" / "Phi-4-GGUF" / "phi-4-Q4_K_M.gguf")
    write(tmp_path / "lmstudio-community" / "Phi-4-GGUF" / "mmproj-phi.gguf")
    report = scan([ScanRoot(Origin.LM_STUDIO, tmp_path)], ())
    assert names(report) == ["phi-4"]
    assert report.found[0].origin is Origin.LM_STUDIO


def test_a_directory_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a" / "closed.gguf")
    write(tmp_path / "b" / "open.gguf")
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = scan_directory(tmp_path)
    assert names(report) == ["open"]
    assert reasons(report) == {"a": "the directory: Permission denied"}


def test_default_places_that_do_not_exist_are_no_trouble(tmp_path: Path) -> None:
    report = scan(default_roots({}, tmp_path), ())
    assert report.skipped == ()


def test_the_default_places() -> None:
    home = Path("/home/bee")
    assert [str(root.path) for root in default_roots({}, home)] == [
        "/home/bee/.cache/huggingface/hub",
        "/home/bee/.ollama/models",
        "/usr/share/ollama/.ollama/models",
        "/home/bee/.lmstudio/models",
        "/home/bee/.cache/lm-studio/models",
    ]


@pytest.mark.parametrize(
    ("environ", "hub"),
    [
        ({"HF_HUB_CACHE": "/data/hub", "HF_HOME": "/data/hf"}, "/data/hub"),
        ({"HF_HOME": "/data/hf", "XDG_CACHE_HOME": "/x"}, "/data/hf/hub"),
        ({"HF_HOME": "~/hf"}, "/home/bee/hf/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HF_HUB_CACHE": ""}, "/home/bee/.cache/huggingface/hub"),
    ],
)
def test_hugging_face_variables(environ: dict[str, str], hub: str) -> None:
    assert str(default_roots(environ, Path("/home/bee"))[0].path) == hub


def test_the_ollama_variable() -> None:
    assert default_roots({"OLLAMA_MODELS": "/o"}, Path("/h"))[1] == ScanRoot(Origin.OLLAMA, Path("/o"))


def test_a_directory_the_user_names_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no directory"):
        directory_root(tmp_path / "none")
    file = write(tmp_path / "m.gguf")
    with pytest.raises(NotFoundError) as caught:
        directory_root(file)
    assert f"swarmesh models add {file}" in caught.value.hint


def test_known_files_keep_their_name_and_taken_names_are_avoided(tmp_path: Path) -> None:
    known = write(tmp_path / "Known-Q8_0.gguf")
    write(tmp_path / "new-q8_0.gguf")
    catalog = (gguf_cell("mine", known), gguf_cell("new", tmp_path / "elsewhere.gguf"))

    report = scan_directory(tmp_path, catalog)

    assert [(model.name, model.known_as) for model in report.found] == [("mine", "mine"), ("new-q8_0", None)]


def test_every_proposed_name_can_be_added(tmp_path: Path) -> None:
    for stem in ("Ünï cödé (1)", "...", "UPPER_lower", "x" * 200, "q4_0", "a-Q4_0", "a.Q8_0", "a-f16"):
        write(tmp_path / "models" / f"{stem}.gguf")
    catalog = Catalog(tmp_path / "home")
    report = scan_directory(tmp_path / "models", catalog.list())
    for model in report.found:
        catalog.add_file(model.name, model.path, added_at=0, source=ModelSource.SCAN)
    assert len(report.found) == 8
    assert {cell.name for cell in catalog.list()} == {"demo", *names(report)}
    assert all(model.known_as == model.name for model in scan_directory(tmp_path / "models", catalog.list()).found)


def test_each_file_is_announced(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf")
    heard: list[Path] = []
    scan([directory_root(tmp_path)], (), on_file=heard.append)
    assert heard == [path]


@pytest.mark.parametrize(
    ("labels", "taken", "expected"),
    [
        (["Qwen2.5-0.5B-Instruct-Q4_K_M"], [], ["qwen2.5-0.5b-instruct"]),
        (["m-Q4_K_M", "m.Q8_0", "m"], [], ["m-q4_k_m", "m-q8_0", "m"]),
        (["m-Q4_K_M", "m-Q4_K_M"], [], ["m-q4_k_m", "m-q4_k_m-2"]),
        (["m-IQ3_XXS"], ["m"], ["m-iq3_xxs"]),
        (["m-IQ3_XXS"], ["m", "m-iq3_xxs"], ["m-iq3_xxs-2"]),
        (["Qwen3-8B-UD-Q4_K_XL"], [], ["qwen3-8b"]),
        (["gpt-oss-20b-mxfp4_moe"], [], ["gpt-oss-20b"]),
        (["big-Q4_K_M-00001-of-00003"], [], ["big"]),
        (["demo"], ["demo"], ["demo-2"]),
        (["---"], [], ["model"]),
        (["Q4_K_M"], [], ["q4_k_m"]),
    ],
)
def test_proposed_names(labels: list[str], taken: list[str], expected: list[str]) -> None:
    assert propose_names(labels, taken=taken) == expected
