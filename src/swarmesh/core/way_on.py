"""What helps against what an engine says of a task: its own words end where our commands would begin."""

from __future__ import annotations

from typing import Final

CONTEXT_EXCEEDED: Final = "exceeds the available context size"
"""llama.cpp's words for a prompt that is longer than the context of a slot."""
MORE_CONTEXT: Final = (
    "Send less, or start rustbees with more context: 'swarmesh spawn rustbee --modelcell NAME --context N'; "
    "'swarmesh swarmscale set NAME --context N' for those that are started by themselves."
)


def way_on(said: str) -> str:
    """A hint for an engine's words; empty where we know no more than it says."""
    return MORE_CONTEXT if CONTEXT_EXCEEDED in said else ""
