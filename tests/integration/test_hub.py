"""Downloads with the real huggingface_hub, from a server here that speaks the hub's protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gguf_writer import Typed, llama
from hub_server import COMMIT, TOKEN, HubServer
from swarmesh.models.catalog import Catalog

pytest.importorskip("huggingface_hub", reason="the extra 'hub' is not installed")

CONTENT = llama().build() + os.urandom(23_000_000)
"""More than two of the pieces that huggingface_hub reads at once, of which it keeps whole ones."""
CUT = 22_000_000
REFERENCE = "hf:org/repo/Tiny-Q8_0.gguf"
RUNNER = Path(__file__).parents[1] / "model_wanter.py"
Want = Callable[..., list[Any]]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer({"Tiny-Q8_0.gguf": CONTENT}) as server:
        yield server


@pytest.fixture
def want(tmp_path: Path, hub: HubServer) -> Want:
    def ask(*references: str, **environment: str) -> list[Any]:
        done = subprocess.run(
            [sys.executable, str(RUNNER), str(tmp_path), *references],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "PYTHONPATH": str(RUNNER.parent),
                "HF_ENDPOINT": hub.url,
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return msgspec.json.decode(done.stdout, type=list[Any])

    return ask


def test_a_file_is_downloaded_into_the_shared_cache_and_named(want: Want, hub: HubServer, tmp_path: Path) -> None:
    (got,) = want(REFERENCE)
    snapshots = tmp_path / ".cache" / "huggingface" / "hub" / "models--org--repo" / "snapshots"
    assert Path(got["path"]) == snapshots / COMMIT / "Tiny-Q8_0.gguf"
    assert Path(got["path"]).read_bytes() == CONTENT
    assert got["name"] == "tiny"
    downloading = [step for step in got["steps"] if step["step"] == "download"]
    assert downloading[-1] == {
        "step": "download",
        "state": "done",
        "text": "org/repo/Tiny-Q8_0.gguf",
        "done_bytes": len(CONTENT),
        "total_bytes": len(CONTENT),
    }
    assert Catalog(tmp_path / "home").get("tiny").hub == REFERENCE


def test_two_spawns_at_once_download_once(want: Want, hub: HubServer, tmp_path: Path) -> None:
    here, there = want(REFERENCE, REFERENCE)
    assert hub.ranges == [0]
    assert Path(there["path"]).is_relative_to(tmp_path / "other" / "home" / "models")
    assert Path(here["path"]).read_bytes() == Path(there["path"]).read_bytes() == CONTENT

    want(REFERENCE)
    assert hub.ranges == [0], "what is there is not asked for again"


def test_a_download_goes_on_after_a_cut(want: Want, hub: HubServer) -> None:
    hub.cuts = [CUT]
    (got,) = want(REFERENCE)
    assert Path(got["path"]).read_bytes() == CONTENT
    assert len(hub.ranges) == 2
    assert 0 < hub.ranges[1] <= CUT


def test_the_next_try_goes_on_from_what_has_arrived(want: Want, hub: HubServer) -> None:
    hub.cuts = [CUT, -1]
    (failed,) = want(REFERENCE)
    assert failed["code"] == "download_failed"
    assert "what has arrived is kept" in failed["hint"]

    (got,) = want(REFERENCE)
    assert Path(got["path"]).read_bytes() == CONTENT
    assert 0 < hub.ranges[-1] <= CUT


def test_what_was_cut_off_is_not_believed(want: Want, hub: HubServer, tmp_path: Path) -> None:
    hub.cuts = [CUT, -1]
    want(REFERENCE)
    (partial,) = (tmp_path / ".cache").rglob("*.swarmesh.incomplete")
    with partial.open("r+b") as stream:
        stream.seek(1_000)
        stream.write(b"another")
    (failed,) = want(REFERENCE)
    assert failed["code"] == "download_failed"
    assert "SHA-256" in failed["message"]
    assert not partial.exists()

    (got,) = want(REFERENCE)
    assert Path(got["path"]).read_bytes() == CONTENT


def test_a_gated_repository_needs_a_token(want: Want, hub: HubServer) -> None:
    hub.gated = True
    for environment in ({}, {"HF_TOKEN": "hf_wrong"}):
        (refused,) = want(REFERENCE, **environment)
        assert refused["code"] == "not_found"
        assert "HF_TOKEN" in refused["hint"]
        assert "hf_wrong" not in str(refused)
    (got,) = want(REFERENCE, HF_TOKEN=TOKEN)
    assert Path(got["path"]).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("hf:org/repo/none.gguf", "has no file none.gguf"),
        ("hf:org/other/m.gguf", "org/other does not exist"),
        ("hf:nobody/repo/m.gguf", "nobody/repo does not exist"),
    ],
)
def test_what_is_not_there_is_told(want: Want, reference: str, says: str) -> None:
    (refused,) = want(reference)
    assert refused["code"] == "not_found"
    assert says in refused["message"]


def test_every_part_of_a_split_model_is_downloaded(want: Want, hub: HubServer, tmp_path: Path) -> None:
    for number in range(3):
        extra = {"split.no": Typed("u16", number), "split.count": Typed("u16", 3)}
        hub.files[f"big/M-Q8_0-{number + 1:05}-of-00003.gguf"] = llama("Big", extra).build() + bytes([number])
    here, there = want(*["hf:org/repo/big/M-Q8_0-00001-of-00003.gguf"] * 2)
    assert here["name"] == "m"
    assert len(list(Path(here["path"]).parent.iterdir())) == 3
    assert len(list(Path(there["path"]).parent.glob("*.gguf"))) == 3


def test_nothing_is_told_about_the_user(want: Want, hub: HubServer) -> None:
    want(REFERENCE)
    assert hub.agents
    assert not [agent for agent in hub.agents if "session" in agent.lower()]
