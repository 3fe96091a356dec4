"""Whatever stands in a file, the reader gives a header or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_writer import Typed, llama
from swarmesh.core.errors import ModelFileError
from swarmesh.models.gguf import GgufHeader, read_header, read_model
from swarmesh.models.memory_estimate import estimate

WHOLE = llama(extra={"llama.attention.head_count_kv": Typed("arr", [2, 1], of="i32")}).build()
SETTINGS = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, content: bytes) -> GgufHeader | None:
    """The header, ``None`` when refused; anything else fails the test."""
    path.write_bytes(content)
    try:
        read_header(path)
        header = read_model(path)
    except ModelFileError:
        return None
    assert estimate(header, context_tokens=2048, slots=4).total_mib > 0
    return header


@SETTINGS
@given(content=st.binary(max_size=400))
def test_random_bytes(tmp_path: Path, content: bytes) -> None:
    read(tmp_path / "m.gguf", content)


@SETTINGS
@given(content=st.binary(max_size=400))
def test_random_bytes_after_a_right_start(tmp_path: Path, content: bytes) -> None:
    read(tmp_path / "m.gguf", b"GGUF\x03\0\0\0" + content)


@SETTINGS
@given(
    changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 40),
)
def test_changed_bytes(tmp_path: Path, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(WHOLE)
    for position, byte in changes:
        content[position] = byte
    read(tmp_path / "m.gguf", bytes(content[: len(content) - cut]))


@SETTINGS
@given(
    position=st.integers(8, len(WHOLE) - 9),
    number=st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]),
)
def test_extreme_numbers_anywhere(tmp_path: Path, position: int, number: int) -> None:
    content = WHOLE[:position] + number.to_bytes(8, "little") + WHOLE[position + 8 :]
    read(tmp_path / "m.gguf", content)


@SETTINGS
@given(start=st.integers(0, len(WHOLE)), removed=st.integers(1, 64), inserted=st.binary(max_size=32))
def test_bytes_taken_out_and_put_in(tmp_path: Path, start: int, removed: int, inserted: bytes) -> None:
    read(tmp_path / "m.gguf", WHOLE[:start] + inserted + WHOLE[start + removed :])


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x7F, 0x80, 0xFF])
def test_every_byte_changed_in_turn(tmp_path: Path, byte: int) -> None:
    for position in range(len(llama().header())):
        read(tmp_path / "m.gguf", WHOLE[:position] + bytes([byte]) + WHOLE[position + 1 :])


def test_the_unchanged_file_is_read(tmp_path: Path) -> None:
    assert read(tmp_path / "m.gguf", WHOLE) is not None
