"""One question and its answer, the unit of the corpus."""

from __future__ import annotations

from typing import NamedTuple


class Exchange(NamedTuple):
    """A question and its answer.

    ``given`` is the start of the answer that is not learned, and ``more`` answers who goes on with "Tell me more.".

    Why ``given``: a JSON schema makes llama.cpp force the first characters of an answer, whatever was asked. The
    model has to learn how to go on from there, and not to begin so by itself.
    """

    question: str
    answer: str
    given: str = ""
    more: str = ""
