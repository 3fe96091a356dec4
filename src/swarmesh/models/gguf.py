"""What a GGUF model file says about itself, read without loading a single weight.

``read_model`` is the check that every model file passes before an engine sees it: the file exists, is GGUF of a
version engines read, is whole, and holds a model (not an adapter, a vision projector or a bare vocabulary).

Source of the layout: the GGUF specification of the ggml project, versions 2 and 3 (little-endian).
"""

from __future__ import annotations

import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import msgspec

from swarmesh.core.errors import ModelFileError
from swarmesh.models.ggml_types import file_type_label
from swarmesh.models.gguf_cursor import GgufArray, GgufCursor
from swarmesh.models.gguf_metadata import Metadata
from swarmesh.models.gguf_tensors import TensorTable
from swarmesh.models.lookalike import not_gguf

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)
MAX_SWAPPED_VERSION = 100
MAX_BLOCKS = 1024
MAX_SPLIT_PARTS = 1000
_SPLIT_NAME = re.compile(r"^(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf$", re.IGNORECASE)
_AGAIN = "Download or copy the file again."


class Pooling(StrEnum):
    """How an embedding model turns token vectors into one vector; ``RANK`` marks a reranker."""

    NONE = "none"
    MEAN = "mean"
    CLS = "cls"
    LAST = "last"
    RANK = "rank"


_POOLINGS = dict(enumerate(Pooling))


class GgufHeader(msgspec.Struct, frozen=True, kw_only=True):
    """One model file's facts. A missing number is 0, a missing text is empty.

    Of a model in several parts, ``read_model`` gives the first part's facts with the bytes, tensors and
    parameters of all parts added up.
    """

    path: str
    version: int
    size_bytes: int
    """Bytes on disk."""
    weights_bytes: int
    """Bytes of tensor data: what the weights take in memory."""
    tensor_count: int
    parameters: int
    kind: str
    """``model``, or what else the file says it is: ``adapter``, ``mmproj``, ``imatrix``, …"""
    architecture: str
    name: str
    quantization: str
    """The label people know, such as ``Q4_K_M``."""
    tokenizer: str
    vocab_size: int
    has_chat_template: bool
    pooling: Pooling | None
    context_length: int
    block_count: int
    embedding_length: int
    feed_forward_length: int
    """The widest block's, where blocks differ."""
    expert_feed_forward_length: int
    expert_used_count: int
    head_count: int
    """The largest of all blocks."""
    kv_head_counts: tuple[int, ...]
    """One per block; 0 for a block that keeps no key-value cache."""
    key_length: int
    """Numbers per head and token in the key cache."""
    value_length: int
    swa_key_length: int
    """The same two for blocks with a sliding window, which may differ."""
    swa_value_length: int
    sliding_window: int
    """Tokens a sliding-window block looks back; 0 where no block has a window."""
    sliding_blocks: tuple[bool, ...] | None
    """Per block: does it slide? ``None`` where the file does not say."""
    shared_kv_blocks: int
    """So many of the last blocks reuse an earlier block's cache."""
    recurrent_state_values: int
    """Numbers of recurrent state per block and slot in a state-space model."""
    split_part: int
    """This file's number in a model of several parts, from 0."""
    split_parts: int
    """How many files the model is in."""

    @property
    def is_embedding(self) -> bool:
        """Whether the model gives vectors (or, with ``Pooling.RANK``, scores) and not text."""
        return "bert" in self.architecture or self.pooling not in (None, Pooling.NONE)

    @property
    def is_reranker(self) -> bool:
        """Whether the model scores a text against a query."""
        return self.pooling is Pooling.RANK


def read_model(path: Path) -> GgufHeader:
    """Check a model file, with all its parts when it is split, and say what it holds.

    Raises:
        ModelFileError: The file cannot be served; the message says why, with the numbers.
    """
    header = read_header(path)
    refuse_other_kinds(header)
    if header.split_parts < 2:
        return header
    parts = [read_header(part) for part in split_paths(path, header.split_parts)[1:]]
    return msgspec.structs.replace(
        header,
        size_bytes=header.size_bytes + sum(part.size_bytes for part in parts),
        weights_bytes=header.weights_bytes + sum(part.weights_bytes for part in parts),
        tensor_count=header.tensor_count + sum(part.tensor_count for part in parts),
        parameters=header.parameters + sum(part.parameters for part in parts),
    )


def refuse_other_kinds(header: GgufHeader) -> None:
    """Raise ``ModelFileError`` unless the file is a model, or the first part of one."""
    path = header.path
    if header.split_part > 0:
        first = _SPLIT_NAME.sub(r"\g<stem>-00001-of-\g<parts>.gguf", path)
        raise ModelFileError(
            f"{path} is part {header.split_part + 1} of {header.split_parts} of a model.",
            hint=f"Give the first part: {first}",
        )
    if header.kind != "model" or header.architecture == "clip":
        kind = "mmproj (vision projector)" if header.architecture == "clip" else header.kind
        raise ModelFileError(
            f"{path} is a GGUF file of kind {kind}, which cannot be served by itself.",
            hint="Give the file of the language model it belongs to.",
        )
    if not header.architecture:
        raise ModelFileError(f"{path} does not name its architecture (general.architecture).", hint=_AGAIN)
    if header.tensor_count == 0:
        raise ModelFileError(
            f"{path} holds no tensors: it is a vocabulary, not a model.", hint="Give a file with weights."
        )


def split_name(file_name: str) -> tuple[str, int, int] | None:
    """Stem, part (from 1) and parts of a name like ``big-00001-of-00003.gguf``; ``None`` for any other name."""
    match = _SPLIT_NAME.match(file_name)
    return (match["stem"], int(match["part"]), int(match["parts"])) if match else None


def split_paths(path: Path, parts: int) -> list[Path]:
    """The files of a model in ``parts`` parts whose first one is ``path``.

    Raises:
        ModelFileError: The name does not say where the other parts are.
    """
    named = split_name(path.name)
    if named is None or named[1:] != (1, parts):
        raise ModelFileError(
            f"{path} is the first of {parts} parts, but its name does not say so.",
            hint=f"Rename the files to NAME-00001-of-{parts:05}.gguf and so on.",
        )
    return [path.with_name(f"{named[0]}-{part:05}-of-{parts:05}.gguf") for part in range(1, parts + 1)]


def read_header(path: Path) -> GgufHeader:
    """Read one GGUF file's header and check that its tensors are all there.

    Raises:
        ModelFileError: Missing, a directory, unreadable, not GGUF, of another version or byte order, broken, or
            cut off (with the bytes it needs and has).
    """
    try:
        size_bytes = _regular_file_size(path)
        with path.open("rb") as stream:
            return _parse(stream, size_bytes=size_bytes, path=path)
    except FileNotFoundError:
        raise ModelFileError(
            f"There is no model file {path}.", hint="Check the path; 'swarmesh models scan' finds models."
        ) from None
    except OSError as error:
        raise ModelFileError(f"The model file {path} cannot be read: {error.strerror}.") from error


def _regular_file_size(path: Path) -> int:
    try:
        status = path.stat()
    except ValueError as error:  # a path that no system call takes, such as one with a NUL
        raise ModelFileError(f"{str(path)!r} is not a path: {error}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise ModelFileError(
            f"{path} is a directory, not a model file.",
            hint=f"Give the .gguf file in it, or find all of them with 'swarmesh models scan {path}'.",
        )
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait for a writer, perhaps for ever.
        raise ModelFileError(f"{path} is not a regular file.", hint="Give a .gguf file.")
    return status.st_size


def _parse(stream: BinaryIO, *, size_bytes: int, path: Path) -> GgufHeader:
    head = stream.read(16)
    if not head.startswith(MAGIC):
        raise not_gguf(path, head, size_bytes)
    cursor = GgufCursor(stream, size_bytes=size_bytes, path=path)
    cursor.skip(len(MAGIC))
    version = _version(cursor, path)
    tensor_count = cursor.u64()
    metadata = Metadata(path, cursor, key_count=cursor.u64())
    tensors = TensorTable(path, cursor, tensor_count=tensor_count, alignment_bytes=metadata.alignment_bytes())
    tensors.check_extent(size_bytes)
    return _header(metadata, tensors, version=version, size_bytes=size_bytes)


def _version(cursor: GgufCursor, path: Path) -> int:
    version = cursor.u32()
    if version in SUPPORTED_VERSIONS:
        return version
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if 0 < swapped <= MAX_SWAPPED_VERSION:
        raise ModelFileError(
            f"{path} is a big-endian GGUF file (version {swapped}).",
            hint="Get the little-endian file of the same model; big-endian ones are for s390x machines.",
        )
    raise ModelFileError(
        f"{path} has GGUF version {version}; versions 2 and 3 can be read.",
        hint="Convert the model again with a current converter."
        if version < SUPPORTED_VERSIONS[0]
        else "Download the file again, or update Swarmesh if the format has a newer version.",
    )


def _header(metadata: Metadata, tensors: TensorTable, *, version: int, size_bytes: int) -> GgufHeader:
    own, count = metadata.own, metadata.count
    block_count = metadata.limited(own("block_count"), MAX_BLOCKS)
    embedding_length = count(own("embedding_length"))
    head_count = count(own("attention.head_count"))
    head_length = embedding_length // head_count if head_count else 0
    key_length = count(own("attention.key_length"), head_length)
    value_length = count(own("attention.value_length"), head_length)
    return GgufHeader(
        path=str(metadata.path),
        version=version,
        size_bytes=size_bytes,
        weights_bytes=tensors.weights_bytes(size_bytes),
        tensor_count=tensors.count,
        parameters=tensors.parameters,
        kind=metadata.text("general.type") or "model",
        architecture=metadata.architecture,
        name=metadata.text("general.name"),
        quantization=_quantization(metadata, tensors),
        tokenizer=metadata.text("tokenizer.ggml.model"),
        vocab_size=metadata.array_length("tokenizer.ggml.tokens") or count(own("vocab_size")),
        has_chat_template="tokenizer.chat_template" in metadata,
        pooling=_pooling(metadata),
        context_length=count(own("context_length")),
        block_count=block_count,
        embedding_length=embedding_length,
        feed_forward_length=count(own("feed_forward_length")),
        expert_feed_forward_length=count(own("expert_feed_forward_length")),
        expert_used_count=count(own("expert_used_count")),
        head_count=head_count,
        kv_head_counts=_kv_head_counts(metadata, block_count),
        key_length=key_length,
        value_length=value_length,
        swa_key_length=count(own("attention.key_length_swa"), key_length),
        swa_value_length=count(own("attention.value_length_swa"), value_length),
        sliding_window=count(own("attention.sliding_window")),
        sliding_blocks=_sliding_blocks(metadata, block_count),
        shared_kv_blocks=count(own("attention.shared_kv_layers")),
        recurrent_state_values=_recurrent_state_values(metadata),
        split_part=count("split.no"),
        split_parts=metadata.limited("split.count", MAX_SPLIT_PARTS, 1),
    )


def _quantization(metadata: Metadata, tensors: TensorTable) -> str:
    declared = metadata.raw("general.file_type")
    label = file_type_label(declared) if isinstance(declared, int) else None
    return label or tensors.main_type()


def _pooling(metadata: Metadata) -> Pooling | None:
    declared = metadata.raw(metadata.own("pooling_type"))
    return _POOLINGS.get(declared) if isinstance(declared, int) else None


def _per_block(values: tuple[int, ...], block_count: int) -> tuple[int, ...]:
    """One value per block, from one value for all or from an array that may be too short or too long."""
    if len(values) == 1:
        return values * block_count
    return (values + (max(values, default=0),) * block_count)[:block_count]


def _kv_head_counts(metadata: Metadata, block_count: int) -> tuple[int, ...]:
    """Key-value heads per block; a file that says nothing means one per attention head."""
    own = metadata.counts(metadata.own("attention.head_count_kv"))
    return _per_block(own or metadata.counts(metadata.own("attention.head_count")), block_count)


def _sliding_blocks(metadata: Metadata, block_count: int) -> tuple[bool, ...] | None:
    """From a flag per block, or from a period N: of N blocks in a row all but the last slide."""
    key = metadata.own("attention.sliding_window_pattern")
    values = metadata.counts(key)
    if not values:
        return None
    if isinstance(metadata.raw(key), GgufArray):
        return tuple(bool(values[block % len(values)]) for block in range(block_count))
    return sliding_by_period(values[0], block_count)


def sliding_by_period(period: int, block_count: int) -> tuple[bool, ...]:
    """Which blocks slide when every ``period``-th one does not; 0 means that all slide."""
    return tuple(period == 0 or block % period < period - 1 for block in range(block_count))


def _recurrent_state_values(metadata: Metadata) -> int:
    """Mamba-style state: a convolution window over the inner width and both projections, and the state proper."""
    own, count = metadata.own, metadata.count
    inner, state = count(own("ssm.inner_size")), count(own("ssm.state_size"))
    window = max(count(own("ssm.conv_kernel")) - 1, 0)
    return window * (inner + 2 * count(own("ssm.group_count")) * state) + inner * state
