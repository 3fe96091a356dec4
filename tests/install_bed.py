"""What is left on a host."""

from __future__ import annotations

from pathlib import Path

HIVE = "0123456789ab"


def left_in(directory: Path) -> list[str]:
    """What is there, but for what a Rust compiler that pip asks for its version may leave."""
    return sorted({path.name for path in directory.iterdir()} - {".rustup"})
