"""What the header reader says about good files, and how it refuses bad ones."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from gguf_writer import Gguf, Typed, llama, write
from swarmesh.core.errors import ModelFileError
from swarmesh.models import gguf_cursor
from swarmesh.models.demo import DEMO_GGUF
from swarmesh.models.gguf import Pooling, read_header, read_model, split_name


def refused(path: Path) -> ModelFileError:
    with pytest.raises(ModelFileError) as caught:
        read_model(path)
    return caught.value


def test_reads_the_facts_of_a_model(tmp_path: Path) -> None:
    header = read_model(write(tmp_path / "tiny.gguf"))

    assert (header.architecture, header.name, header.kind) == ("llama", "Tiny", "model")
    assert header.parameters == 16 * 20 + 16
    assert header.weights_bytes == 16 * 20 * 2 + 16 * 4
    assert header.size_bytes == (tmp_path / "tiny.gguf").stat().st_size
    assert (header.context_length, header.block_count, header.embedding_length) == (2048, 2, 16)
    assert (header.head_count, header.kv_head_counts) == (4, (2, 2))
    assert (header.key_length, header.value_length) == (4, 4)
    assert (header.quantization, header.tokenizer, header.vocab_size) == ("F16", "gpt2", 20)
    assert header.has_chat_template
    assert header.pooling is None
    assert not header.is_embedding
    assert (header.split_part, header.split_parts) == (0, 1)


def test_reads_version_two(tmp_path: Path) -> None:
    model = llama()
    model.version = 2
    assert read_model(write(tmp_path / "two.gguf", model)).version == 2


def test_explicit_head_lengths_win_over_the_width(tmp_path: Path) -> None:
    extra = {"llama.attention.key_length": Typed("u32", 128), "llama.attention.value_length": Typed("u32", 64)}
    header = read_model(write(tmp_path / "m.gguf", llama(extra=extra)))
    assert (header.key_length, header.value_length) == (128, 64)


def test_key_value_heads_may_be_given_per_block(tmp_path: Path) -> None:
    extra = {"llama.attention.head_count_kv": Typed("arr", [2, 0, 1], of="i32")}
    assert read_model(write(tmp_path / "m.gguf", llama(extra=extra, blocks=3))).kv_head_counts == (2, 0, 1)


def test_without_key_value_heads_every_head_keeps_its_own(tmp_path: Path) -> None:
    model = llama()
    del model.keys["llama.attention.head_count_kv"]
    assert read_model(write(tmp_path / "m.gguf", model)).kv_head_counts == (4, 4)


@pytest.mark.parametrize(
    ("pooling", "is_embedding", "is_reranker"),
    [(0, False, False), (1, True, False), (2, True, False), (3, True, False), (4, True, True)],
)
def test_pooling_tells_embedding_models_apart(
    tmp_path: Path, pooling: int, *, is_embedding: bool, is_reranker: bool
) -> None:
    header = read_model(write(tmp_path / "m.gguf", llama(extra={"llama.pooling_type": Typed("u32", pooling)})))
    assert header.pooling is list(Pooling)[pooling]
    assert header.is_embedding is is_embedding
    assert header.is_reranker is is_reranker


def test_sliding_pattern_as_period_and_as_flags(tmp_path: Path) -> None:
    period = {"llama.attention.sliding_window_pattern": Typed("u32", 3)}
    flags = {"llama.attention.sliding_window_pattern": Typed("arr", [True, False], of="bool")}
    by_period = read_model(write(tmp_path / "p.gguf", llama(extra=period, blocks=4)))
    by_flags = read_model(write(tmp_path / "f.gguf", llama(extra=flags, blocks=4)))
    assert by_period.sliding_blocks == (True, True, False, True)
    assert by_flags.sliding_blocks == (True, False, True, False)


@pytest.mark.parametrize(("file_type", "label"), [(15, "Q4_K_M"), (1024 + 7, "Q8_0"), (999, "F16"), (None, "F16")])
def test_quantisation_label_falls_back_to_the_main_tensor_type(
    tmp_path: Path, file_type: int | None, label: str
) -> None:
    model = llama()
    if file_type is None:
        del model.keys["general.file_type"]
    else:
        model.keys["general.file_type"] = Typed("u32", file_type)
    assert read_model(write(tmp_path / "m.gguf", model)).quantization == label


def test_large_arrays_are_passed_over_and_counted(tmp_path: Path) -> None:
    tokens = [f"token number {index}" for index in range(100_000)]
    extra = {
        "tokenizer.ggml.tokens": Typed("arr", tokens, of="str"),
        "tokenizer.ggml.scores": Typed("arr", [0.0] * 100_000, of="f32"),
    }
    header = read_model(write(tmp_path / "m.gguf", llama(extra=extra)))
    assert header.vocab_size == 100_000
    assert header.tensor_count == 2


def test_a_long_template_is_noticed_and_not_kept(tmp_path: Path) -> None:
    extra = {"tokenizer.chat_template": Typed("str", "x" * 2_000_000), "general.name": Typed("str", "n" * 9000)}
    header = read_model(write(tmp_path / "m.gguf", llama(extra=extra)))
    assert header.has_chat_template
    assert len(header.name) == gguf_cursor.MAX_KEPT_TEXT_BYTES


def test_names_are_made_safe_to_print(tmp_path: Path) -> None:
    assert read_model(write(tmp_path / "m.gguf", llama("a\x1b[31mb\nc"))).name == "a[31mbc"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "none.gguf")
    assert error.message == f"There is no model file {tmp_path / 'none.gguf'}."
    assert "models scan" in error.hint


def test_a_directory_is_not_a_model(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert "is a directory" in error.message
    assert str(tmp_path) in error.hint


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    assert "not a regular file" in refused(pipe).message


def test_a_path_with_a_nul_is_refused() -> None:
    assert "not a path" in refused(Path("a\0b")).message


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / ("x" * 5000)).message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf")
    path.chmod(0)
    assert "Permission denied" in refused(path).message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html><body>404</body></html>", "starts with b'<htm', which looks like a web page"),
        (b'{"error": "gated"}', "a JSON answer"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"PK\x03\x04rest of a checkpoint", "a zip archive, such as a PyTorch checkpoint"),
        (struct.pack("<Q", 1000) + b'{"__metadata__":', "a safetensors file"),
        (b"tjgg" + b"\3\0\0\0" * 9, "a GGML file from before GGUF"),
        (b"\0" * 100, "zeros, such as an unfinished download"),
        (b"hello world, this is text", "starts with b'hell' (25 bytes)"),
        (b"GGU", "starts with b'GGU' (3 bytes)"),
        (b"", "is empty (0 bytes)"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    error = refused(path)
    assert says in error.message
    assert error.hint
    assert (error.code, error.status) == ("model_file_unusable", 400)


@pytest.mark.parametrize("version", [0, 1, 4, 2**31])
def test_other_versions_are_refused(tmp_path: Path, version: int) -> None:
    model = llama()
    model.version = version
    error = refused(write(tmp_path / "m.gguf", model))
    assert f"GGUF version {version}; versions 2 and 3 can be read" in error.message


def test_a_big_endian_file_is_named_as_such(tmp_path: Path) -> None:
    model = llama()
    model.order = ">"
    assert "big-endian GGUF file (version 3)" in refused(write(tmp_path / "m.gguf", model)).message


def test_cut_off_tensor_data_is_refused_with_the_bytes(tmp_path: Path) -> None:
    whole = llama().build()
    need = len(llama().header()) + 16 * 20 * 2 + 16 * 4
    path = tmp_path / "m.gguf"
    path.write_bytes(whole[: need - 100])

    message = refused(path).message

    assert f"need {need:,} bytes and it has {need - 100:,}" in message
    assert "'output_norm.weight'" in message


def test_padding_after_the_last_tensor_may_be_missing(tmp_path: Path) -> None:
    model = llama()
    model.tensors.append(("last.weight", (3,), 0))
    path = tmp_path / "m.gguf"
    path.write_bytes(model.build()[: -32 + 12])
    assert read_model(path).tensor_count == 3


@pytest.mark.parametrize("version", [2, 3])
def test_cut_off_at_any_byte_is_refused_and_nothing_worse(tmp_path: Path, version: int) -> None:
    model = llama()
    model.version = version
    whole = model.build()
    path = tmp_path / "m.gguf"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        error = refused(path)
        assert error.message
        assert error.hint


def test_a_header_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(llama().header()[:100])
    message = refused(path).message
    assert "cut off inside its header" in message
    assert "has 100." in message


def test_an_unknown_tensor_type_is_taken_on_trust(tmp_path: Path) -> None:
    model = llama()
    model.tensors.append(("odd.weight", (640,), 777))
    header = read_model(write(tmp_path / "m.gguf", model))
    assert header.tensor_count == 3
    assert header.weights_bytes == header.size_bytes - len(model.header())


def test_a_tensor_of_unknown_type_must_still_begin_inside_the_file(tmp_path: Path) -> None:
    model = Gguf(llama().keys, [("odd.weight", (640,), 777)], offset_shift=1_000_000_000)
    path = tmp_path / "m.gguf"
    path.write_bytes(model.build())
    assert "'odd.weight' is not whole" in refused(path).message


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Gguf(tensor_count=2**63), "claims 9,223,372,036,854,775,808 tensors"),
        (Gguf(key_count=2**40), "claims 1,099,511,627,776 keys"),
        (Gguf({"general.alignment": Typed("u32", 24)}), "alignment 24 is not a power of two"),
        (Gguf({"general.alignment": Typed("u32", 0)}), "alignment 0 is not a power of two"),
        (Gguf({"general.architecture": Typed("u32", 7)}), "'general.architecture' should hold a text and holds 7"),
        (llama(extra={"llama.block_count": Typed("str", "two")}), "should hold a count and holds 'two'"),
        (llama(extra={"llama.block_count": Typed("i32", -1)}), "should hold a count and holds -1"),
        (llama(extra={"llama.block_count": Typed("f32", 2.0)}), "should hold a count and holds 2.0"),
        (llama(extra={"llama.block_count": Typed("u32", 2**31)}), "should hold a count and holds 2147483648"),
        (llama(extra={"llama.block_count": Typed("u32", 5000)}), "holds 5,000, the limit is 1,024"),
        (llama(extra={"llama.block_count": Typed("arr", [1] * 2000, of="u32")}), "a longer or another array"),
        (llama(extra={"split.count": Typed("u16", 60000)}), "holds 60,000, the limit is 1,000"),
        (llama(extra={"x": Typed("arr", [], of="arr")}), "the key 'x' is an array of arrays"),
        (Gguf(llama().keys, [("t", (1, 1, 1, 1, 1), 0)]), "has 5 dimensions, the limit is 4"),
        (Gguf(llama().keys, [("t" * 2000, (1,), 0)]), "a tensor's name is 2,000 bytes long, the limit is 1,024"),
        (Gguf(llama().keys, [("t", (30,), 8)]), "rows of 30 values, not whole Q8_0 blocks of 32"),
        (Gguf(llama().keys, [("t", (32,), 0)], offset_shift=5), "starts at 5, not at a multiple of 32"),
    ],
)
def test_broken_headers_are_refused_with_the_reason(tmp_path: Path, model: Gguf, says: str) -> None:
    assert says in refused(write(tmp_path / "m.gguf", model)).message


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    model = llama()
    whole = (
        model.build().replace(b"general.name", b"general.nama").replace(b"general.file_type", b"general.nama\0\0\0\0\0")
    )
    twice = whole.replace(b"tokenizer.ggml.scores", b"tokenizer.ggml.tokens")
    path = tmp_path / "m.gguf"
    path.write_bytes(twice)
    assert "'tokenizer.ggml.tokens' stands there twice" in refused(path).message


def test_an_unknown_value_type_is_refused(tmp_path: Path) -> None:
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<I", 13)
    path = tmp_path / "m.gguf"
    path.write_bytes(header + b"\0" * 64)
    assert "the key 'k' has the value type 13" in refused(path).message


def test_a_huge_claimed_array_costs_nothing(tmp_path: Path) -> None:
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
    path = tmp_path / "m.gguf"
    for item_type in (0, 8):
        path.write_bytes(start + struct.pack("<IIQ", 9, item_type, 2**62) + b"\0" * 64)
        assert refused(path).message


def test_too_many_texts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_cursor, "MAX_STRING_ITEMS", 10)
    assert "has 20 texts, the limit is 10" in refused(write(tmp_path / "m.gguf")).message


def test_a_header_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_cursor, "MAX_HEADER_BYTES", 200)
    assert "its header does not end within" in refused(write(tmp_path / "m.gguf")).message


def test_values_across_the_edges_of_the_read_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.gguf")
    expected = read_model(path)
    for window_bytes in (1, 2, 7, 8, 9, 31, 100):
        monkeypatch.setattr(gguf_cursor, "_WINDOW_BYTES", window_bytes)
        assert read_model(path) == expected


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (llama(extra={"general.type": Typed("str", "adapter")}), "of kind adapter"),
        (llama(extra={"general.type": Typed("str", "mmproj")}), "of kind mmproj"),
        (llama(architecture="clip"), "of kind mmproj (vision projector)"),
        (Gguf({"general.name": Typed("str", "x")}, [("t", (4,), 0)]), "does not name its architecture"),
        (Gguf(llama().keys), "holds no tensors: it is a vocabulary"),
    ],
)
def test_gguf_files_that_are_not_models(tmp_path: Path, model: Gguf, says: str) -> None:
    path = write(tmp_path / "m.gguf", model)
    assert read_header(path)
    assert says in refused(path).message


def split_model(directory: Path, parts: int) -> list[Path]:
    paths = []
    for part in range(parts):
        keys = {"split.no": Typed("u16", part), "split.count": Typed("u16", parts)}
        model = llama(extra=keys) if part == 0 else Gguf(keys, [(f"blk.{part}.weight", (8, 8), 0)])
        paths.append(write(directory / f"big-{part + 1:05}-of-{parts:05}.gguf", model))
    return paths


def test_a_split_model_is_added_up(tmp_path: Path) -> None:
    paths = split_model(tmp_path, 3)
    header = read_model(paths[0])
    assert header.parameters == 16 * 20 + 16 + 2 * 64
    assert header.tensor_count == 4
    assert header.size_bytes == sum(path.stat().st_size for path in paths)
    assert header.split_parts == 3


def test_a_later_part_points_to_the_first(tmp_path: Path) -> None:
    paths = split_model(tmp_path, 3)
    error = refused(paths[1])
    assert "is part 2 of 3" in error.message
    assert str(paths[0]) in error.hint


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    paths = split_model(tmp_path, 3)
    paths[2].unlink()
    assert str(paths[2]) in refused(paths[0]).message


def test_a_cut_off_part_is_named(tmp_path: Path) -> None:
    paths = split_model(tmp_path, 2)
    paths[1].write_bytes(paths[1].read_bytes()[:-10])
    message = refused(paths[0]).message
    assert message.startswith(f"{paths[1]} is cut off")


def test_a_renamed_first_part_cannot_find_the_others(tmp_path: Path) -> None:
    renamed = split_model(tmp_path, 2)[0].rename(tmp_path / "big.gguf")
    error = refused(renamed)
    assert "the first of 2 parts" in error.message
    assert "NAME-00001-of-00002.gguf" in error.hint


def test_split_names() -> None:
    assert split_name("a-b-00002-of-00010.gguf") == ("a-b", 2, 10)
    assert split_name("a-b.gguf") is None


@pytest.mark.skipif(not DEMO_GGUF.exists(), reason="the demo model is not trained yet")
def test_the_demo_model_is_a_model() -> None:
    header = read_model(DEMO_GGUF)
    assert header.architecture == "llama"
    assert header.has_chat_template
    assert 0 < header.parameters < 3_500_000
    assert header.size_bytes <= 8_000_000
    assert header.vocab_size > 256
    assert not header.is_embedding


@pytest.mark.skipif(not DEMO_GGUF.exists(), reason="the demo model is not trained yet")
@pytest.mark.parametrize("kept_percent", [1, 50, 99])
def test_the_demo_model_cut_off(tmp_path: Path, kept_percent: int) -> None:
    whole = DEMO_GGUF.read_bytes()
    path = tmp_path / "demo.gguf"
    path.write_bytes(whole[: len(whole) * kept_percent // 100])
    message = refused(path).message
    assert "is cut off" in message
    assert f"{path.stat().st_size:,}" in message
