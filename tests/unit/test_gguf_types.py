"""Sizes of tensor types, held against the bits per weight that each is known for."""

from __future__ import annotations

import pytest

from swarmesh.models.ggml_types import TENSOR_TYPES, file_type_label

BITS_PER_WEIGHT = {
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "Q4_0": 4.5,
    "Q4_1": 5,
    "Q5_0": 5.5,
    "Q5_1": 6,
    "Q8_0": 8.5,
    "Q2_K": 2.625,
    "Q3_K": 3.4375,
    "Q4_K": 4.5,
    "Q5_K": 5.5,
    "Q6_K": 6.5625,
    "IQ4_XS": 4.25,
    "IQ4_NL": 4.5,
    "IQ3_XXS": 3.0625,
    "IQ2_XXS": 2.0625,
    "IQ1_S": 1.5625,
    "MXFP4": 4.25,
}


@pytest.mark.parametrize(("name", "bits"), BITS_PER_WEIGHT.items())
def test_bits_per_weight(name: str, bits: float) -> None:
    kind = next(kind for kind in TENSOR_TYPES.values() if kind.name == name)
    assert kind.size_bytes(256 * 100) * 8 / (256 * 100) == bits


def test_a_begun_block_counts_whole() -> None:
    assert TENSOR_TYPES[8].size_bytes(1) == 34
    assert TENSOR_TYPES[8].size_bytes(33) == 68
    assert TENSOR_TYPES[8].size_bytes(0) == 0


def test_labels() -> None:
    assert file_type_label(15) == "Q4_K_M"
    assert file_type_label(15 | 1024) == "Q4_K_M"
    assert file_type_label(500) is None
