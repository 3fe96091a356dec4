"""What is asked, on either streaming surface, and the surfaces' common shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from .sight import Sight

OnToken = Callable[[Sight], None]
"""Called by the reading thread after each piece, before it reads on."""


def ignore(_: Sight) -> None:
    """For those who only read."""


@dataclass(frozen=True)
class Question:
    """One prompt; ``options`` are fields both surfaces have (or that are meant for one of them only)."""

    modelcell: str
    prompt: str
    options: dict[str, Any] = field(default_factory=dict)


class Surface(Protocol):
    """A way to ask and to be answered piece by piece."""

    name: str

    def ask(self, question: Question, on_token: OnToken = ignore, sight: Sight | None = None) -> Sight:
        """Ask and read to the end, whatever end that is; raises nothing that a stream may end in.

        Others may look at ``sight`` while it fills; without one a new one is made.
        """
