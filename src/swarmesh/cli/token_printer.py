"""Honeytokens on standard output as they come, and pieces that are no text in files."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from swarmesh.cli.screen import harmless, mebibytes, note
from swarmesh.client import Done, Event, Token
from swarmesh.core.errors import SwarmeshError

Output = Annotated[Path | None, typer.Option(help="File for pieces that are no text, such as a PNG image.")]


class OutputFileError(SwarmeshError):
    """The output file cannot be written."""

    code = "output_file"


class TokenPrinter:
    """Prints one answer.

    Args:
        output: Where pieces that are no text go; the second one gets ``-2`` before its suffix, and so on.
    """

    def __init__(self, output: Path | None) -> None:
        self._output = output
        self._in_line = False
        self._pieces = 0
        self._unsaved: list[str] = []

    def print_all(self, events: Iterable[Event]) -> None:
        """Print events until they end."""
        try:
            for event in events:
                match event:
                    case Token():
                        self.take(event)
                    case Done():
                        break
        finally:
            self.finish()

    def take(self, token: Token) -> None:
        """Print one token at once, or save it."""
        self.write(token.text)
        self.take_piece(token)

    def take_piece(self, token: Token) -> None:
        """Print or save what of a token is no text."""
        if token.value is not None:
            self.write("\n" if self._in_line else "")
            self.write(msgspec.json.encode(token.value).decode() + "\n")
        if token.media_type and token.content:
            self._save(token)

    def write(self, text: str) -> None:
        """Print text at once."""
        if text:
            # Known before it is written: an interrupt may come as soon as somebody has read it.
            self._in_line = not text.endswith("\n")
            sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
            sys.stdout.flush()

    def finish(self) -> None:
        """End the last line, and say what was not saved."""
        if self._in_line:
            self.write("\n")
        if self._unsaved:
            note(f"not shown: {', '.join(self._unsaved)}\n  next: add --output FILE to save it")
            self._unsaved = []

    def _save(self, token: Token) -> None:
        self._pieces += 1
        if self._output is None:
            self._unsaved.append(f"{token.media_type}, {mebibytes(len(token.content))}")
            return
        path = self._output
        if self._pieces > 1:
            path = path.with_stem(f"{path.stem}-{self._pieces}")
        try:
            path.write_bytes(token.content)
        except OSError as error:
            raise OutputFileError(f"{path} cannot be written: {error.strerror}") from error
        note(f"saved {token.media_type} to {path}")
