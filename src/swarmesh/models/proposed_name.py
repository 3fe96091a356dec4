"""Short, unique catalog names for files that have long ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from swarmesh.models.ggml_types import KNOWN_LABELS
from swarmesh.models.gguf import split_name
from swarmesh.models.modelcell import MAX_NAME_CHARACTERS

_QUANTIZATION = re.compile(
    r"[-._:](?P<label>(?:ud-|i1-)?(?:" + "|".join(sorted(map(re.escape, KNOWN_LABELS), reverse=True)) + r"|q\d_k_xl))$",
    re.IGNORECASE,
)
_NOT_IN_NAMES = re.compile(r"[^a-z0-9._:/-]+")
_FALLBACK = "model"
_SUFFIX_CHARACTERS = 32


def propose_names(labels: Sequence[str], *, taken: Collection[str]) -> list[str]:
    """One catalog name per label (a file's stem), in the same order, unlike each other and all that are ``taken``.

    A quantisation at the end is left off where the rest is enough to tell the models apart.
    """
    split = [_split(label) for label in labels]
    bases = Counter(base for base, _ in split)
    used = set(taken)
    names = []
    for base, quantization in split:
        with_suffix = f"{base}-{quantization}" if quantization else base
        wanted = with_suffix if bases[base] > 1 or base in taken else base
        name = _numbered(wanted, used)
        used.add(name)
        names.append(name)
    return names


def _split(label: str) -> tuple[str, str]:
    """A clean base name, and the quantisation or an empty text."""
    part = split_name(f"{label}.gguf")
    stem = part[0] if part else label
    match = _QUANTIZATION.search(stem)
    if match:
        return _clean(stem[: match.start()]), _clean(match["label"])
    return _clean(stem), ""


def _clean(text: str) -> str:
    name = _NOT_IN_NAMES.sub("-", text.lower()).strip("._:/-")
    return name[: MAX_NAME_CHARACTERS - _SUFFIX_CHARACTERS] or _FALLBACK


def _numbered(wanted: str, used: Collection[str]) -> str:
    name, number = wanted, 2
    while name in used:
        name = f"{wanted}-{number}"
        number += 1
    return name
