"""Traces as they are published, and with lines that are wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from swarmesh.sim.routing import trace
from swarmesh.sim.routing.engine import EngineModel
from swarmesh.sim.routing.request import CONTEXT_TOKENS
from swarmesh.sim.routing.trace import TraceError, read_trace, rescale

MOONCAKE = """\
{"timestamp": 3000, "input_length": 1100, "output_length": 52, "hash_ids": [0, 1, 2]}
{"timestamp": 1000, "input_length": 1024, "output_length": 0, "hash_ids": [0, 1]}

{"timestamp": 9000, "input_length": 900000, "output_length": 500, "hash_ids": [5]}
"""
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,374,44
2023-11-16 18:17:05.4799600,4808,10
"""


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_mooncake_lines_share_the_blocks_they_name(tmp_path: Path) -> None:
    one, two, three = read_trace(written(tmp_path, "trace.jsonl", MOONCAKE))
    assert [request.number for request in (one, two, three)] == [0, 1, 2]
    assert [request.at_ms for request in (one, two, three)] == [0, 2_000, 8_000], "in order, from the first on"
    assert (one.prompt_tokens, one.output_tokens) == (1_024, 1)
    assert len(one.blocks) == 8, "two of 512 tokens are eight of 128"
    assert len(two.blocks) == 1_100 // 128, "of the third only what is there"
    assert two.blocks == one.blocks, "the whole block beyond 1,024 tokens has 76 of 128"
    assert (three.prompt_tokens, three.output_tokens) == (CONTEXT_TOKENS - 1, 1)
    assert not set(three.blocks) & set(one.blocks)


def test_azure_columns_are_found_by_name(tmp_path: Path) -> None:
    one, two = read_trace(written(tmp_path, "trace.CSV", AZURE))
    assert (one.prompt_tokens, one.output_tokens, one.at_ms) == (374, 44, 0)
    assert (two.prompt_tokens, two.output_tokens, two.at_ms) == (4_808, 10, pytest.approx(1_500))
    assert len(two.blocks) == 4_808 // 128
    assert not set(one.blocks) & set(two.blocks)
    swapped = "GeneratedTokens,x,ContextTokens,TIMESTAMP\n44,?,374,2024-05-10 00:00:00.009930+00:00\n"
    (other,) = read_trace(written(tmp_path, "other.csv", swapped))
    assert (other.prompt_tokens, other.output_tokens) == (374, 44)


def test_the_first_lines_only(tmp_path: Path) -> None:
    assert len(read_trace(written(tmp_path, "trace.jsonl", MOONCAKE), requests=2)) == 2


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", MOONCAKE + "{not json\n", "line 5"),
        ("a.jsonl", '{"timestamp": 1, "input_length": 5}\n', "line 1: Object missing required field `output_length`"),
        ("a.jsonl", '{"timestamp": 1, "input_length": 0, "output_length": 5}\n', "line 1: a prompt of 0 tokens"),
        (
            "a.jsonl",
            '{"timestamp": 1, "input_length": 5, "output_length": -5}\n',
            "line 1: a prompt of 5 tokens and an answer of -5",
        ),
        ("a.jsonl", "", "no requests"),
        ("a.csv", "", "line 1: the columns are none"),
        ("a.csv", "time,tokens\n1,2\n", "line 1: the columns are time, tokens"),
        ("a.csv", AZURE + "2023-11-16 18:17:05,many,3\n", "line 4: '2023-11-16 18:17:05, many, 3' is not a time"),
        ("a.csv", AZURE + "yesterday,5,3\n", "line 4: 'yesterday, 5, 3' is not a time and two whole numbers"),
        ("a.csv", AZURE + f"2023-11-16 18:17:05,{'9' * 5_000},3\n", f"{'9' * 40}, 3' is not a time"),
        ("a.csv", AZURE + "2023-11-16 18:17:05,7\n", "line 4: 2 of 3 columns are there"),
        ("a.csv", AZURE + "2023-11-16 18:17:05,-7,3\n", "line 4: a prompt of -7 tokens"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(TraceError) as caught:
        read_trace(written(tmp_path, name, text))
    assert said in caught.value.message
    assert name in caught.value.message


def test_what_is_no_text_or_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read_trace(tmp_path / "missing.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match="binary"):
        read_trace(tmp_path / "binary.jsonl")
    with pytest.raises(TraceError, match="Is a directory"):
        read_trace(tmp_path)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(MOONCAKE.encode()))
    with pytest.raises(TraceError, match="is no UTF-8 text") as caught:
        read_trace(tmp_path / "packed.jsonl.gz")
    assert caught.value.hint == "It is compressed: unpack it first, as with gunzip."


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", MOONCAKE), ("a.csv", AZURE)])
def test_a_trace_as_windows_saves_it_is_the_same(tmp_path: Path, name: str, text: str) -> None:
    known = read_trace(written(tmp_path, name, text))
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_trace(tmp_path / name) == known


def test_lines_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "trace.jsonl", MOONCAKE)
    monkeypatch.setattr(trace, "LINES_MAX", 3)
    with pytest.raises(TraceError, match="more than 3 lines"):
        read_trace(path)
    assert len(read_trace(path, requests=2)) == 2
    monkeypatch.setattr(trace, "LINE_CHARS_MAX", 20)
    with pytest.raises(TraceError, match="line 1: longer than 20"):
        read_trace(path)


def test_rescaling_keeps_the_order_and_sets_the_load(tmp_path: Path) -> None:
    recorded = read_trace(written(tmp_path, "trace.jsonl", MOONCAKE))
    scaled, model = rescale(recorded, speeds=(1.0, 0.5), load_ratio=0.5), EngineModel()
    work_ms = sum(model.work_ms(request.prompt_tokens, request.output_tokens) for request in recorded)
    assert work_ms / (scaled[-1].at_ms * 1.5) == pytest.approx(0.5)
    assert scaled[1].at_ms / scaled[2].at_ms == pytest.approx(0.25)
