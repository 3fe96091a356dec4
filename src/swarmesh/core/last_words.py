"""What a process printed before it ended: for its owner. It may quote a prompt, and others' tasks ran there too."""

from __future__ import annotations


def with_last_words(how: str, lines: str) -> str:
    """How it ended, and what it printed."""
    return f"{how}:\n{lines}" if lines else how


def without_last_words(message: str) -> str:
    """Only how it ended; a message without last words as it is."""
    how, newline, _ = message.partition("\n")
    return how.removesuffix(":") if newline else message
