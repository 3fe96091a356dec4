"""References to files of Hugging Face repositories, and what happens without the optional package."""

from __future__ import annotations

import sys

import pytest

from swarmesh.core.errors import InvalidValueError
from swarmesh.models.hub import HubFile, MissingExtraError, _ProgressBar, download, parse_reference


@pytest.mark.parametrize(
    ("text", "repository", "file"),
    [
        (
            "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-q8_0.gguf",
            "Qwen/Qwen2.5-0.5B-Instruct-GGUF",
            "qwen2.5-q8_0.gguf",
        ),
        ("hf:org/repo/sub/dir/m-00001-of-00002.gguf", "org/repo", "sub/dir/m-00001-of-00002.gguf"),
    ],
)
def test_references(text: str, repository: str, file: str) -> None:
    assert parse_reference(text) == HubFile(repository, file)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf:",
        "org/repo/m.gguf",
        "hf:org/m.gguf",
        "hf:org/repo/m.bin",
        "hf:org/repo/../../m.gguf",
        "hf:/org/repo/m.gguf",
        "hf:org/repo/m.gguf?x=1",
        "hf:org/re po/m.gguf",
        "hf:https://huggingface.co/org/repo/m.gguf",
    ],
)
def test_other_texts_are_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_reference(text)
    assert "hf:ORG/REPOSITORY/FILE.gguf" in caught.value.hint


def test_without_the_package_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError) as caught:
        download(HubFile("org/repo", "m.gguf"), on_progress=lambda _done, _total: None)
    assert caught.value.hint == "pip install 'rustbee[hub]'"


def test_the_progress_bar_counts_from_where_a_download_resumes() -> None:
    seen: list[tuple[int, int]] = []

    class Bar(_ProgressBar):
        def report(self, done_bytes: int, total_bytes: int) -> None:
            seen.append((done_bytes, total_bytes))

    with Bar(desc="m.gguf", total=100, initial=40, unit="B", disable=True) as bar:
        bar.update(10)
        bar.set_postfix_str("1 MB/s", refresh=False)
        bar.update(50)
    assert seen == [(50, 100), (100, 100)]
