"""Byte-pair encoding in the form llama.cpp reads: its ``gpt2`` tokenizer with the ``smollm`` pre-tokenizer.

The alphabet is printable ASCII with tab, line feed and carriage return, and nothing else. So whatever the model
samples is ASCII by construction, and llama.cpp skips any other byte of a prompt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

END_OF_TEXT = "<|endoftext|>"
MESSAGE_START = "<|im_start|>"
MESSAGE_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, MESSAGE_START, MESSAGE_END)
END_OF_TEXT_ID, MESSAGE_START_ID, MESSAGE_END_ID = range(3)

PRE_TOKENIZER = "smollm"
"""llama.cpp's name of the split below: every digit alone, then the split of GPT-2 (here for ASCII only)."""

_DIGIT = re.compile(r"([0-9])")
_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
_ALPHABET = ("\t", "\n", "\r", *map(chr, range(0x20, 0x7F)))
_CONTROL_SHIFT = 0x100
"""GGUF writes a byte that does not print (here: control characters and the space) as the letter 256 above it."""

Pair = tuple[str, str]


def split(text: str) -> list[str]:
    """The pieces that merges never cross, in order; joined they are the text."""
    return [
        piece for part in _DIGIT.split(text) if part for piece in ([part] if part.isdigit() else _WORD.findall(part))
    ]


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary and its merges, in order of rank."""

    merges: tuple[Pair, ...]
    tokens: tuple[str, ...] = field(init=False)
    _rank: dict[Pair, int] = field(init=False, repr=False)
    _id: dict[str, int] = field(init=False, repr=False)
    _seen: dict[str, tuple[int, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        merged = dict.fromkeys(left + right for left, right in self.merges)
        tokens = (*SPECIAL_TOKENS, *_ALPHABET, *merged)
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "_rank", {pair: rank for rank, pair in enumerate(self.merges)})
        object.__setattr__(self, "_id", {token: index for index, token in enumerate(tokens)})
        object.__setattr__(self, "_seen", {})

    def encode(self, text: str) -> list[int]:
        """Token ids of plain ASCII text; special tokens in it are not recognised.

        Raises:
            KeyError: the text holds a character outside the alphabet.
        """
        ids: list[int] = []
        for piece in split(text):
            found = self._seen.get(piece)
            if found is None:
                found = self._seen[piece] = tuple(self._id[part] for part in self._merge(piece))
            ids.extend(found)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, special tokens by their names."""
        return "".join(self.tokens[index] for index in ids)

    def gguf_tokens(self) -> list[str]:
        """The vocabulary as GGUF spells it."""
        return [token if token in SPECIAL_TOKENS else _printable(token) for token in self.tokens]

    def gguf_merges(self) -> list[str]:
        """The merges as GGUF spells them: two tokens with a space between."""
        return [f"{_printable(left)} {_printable(right)}" for left, right in self.merges]

    def _merge(self, piece: str) -> list[str]:
        parts = list(piece)
        while len(parts) > 1:
            ranked = [self._rank.get(pair, len(self._rank)) for pair in pairwise(parts)]
            best = min(ranked)
            if best == len(self._rank):
                break
            at = ranked.index(best)
            parts[at : at + 2] = ["".join(parts[at : at + 2])]
        return parts


def train(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """Merge the most frequent pair again and again until the vocabulary is full; ties go to the first in order."""
    counts = Counter(piece for text in texts for piece in split(text))
    words = [(list(piece), count) for piece, count in sorted(counts.items())]
    merges: list[Pair] = []
    room = vocabulary_size - len(SPECIAL_TOKENS) - len(_ALPHABET)
    while len(merges) < room:
        pairs: Counter[Pair] = Counter()
        for parts, count in words:
            for pair in pairwise(parts):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts, _ in words:
            _replace(parts, best)
    return Tokenizer(tuple(merges))


def _replace(parts: list[str], pair: Sequence[str]) -> None:
    at = 0
    while at < len(parts) - 1:
        if parts[at] == pair[0] and parts[at + 1] == pair[1]:
            parts[at : at + 2] = [pair[0] + pair[1]]
        at += 1


def _printable(token: str) -> str:
    return "".join(chr(ord(char) + _CONTROL_SHIFT) if ord(char) <= 0x20 else char for char in token)
