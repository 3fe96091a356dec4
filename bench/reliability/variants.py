"""The shapes of answer a cut has to be tried in, and the tokens after which each is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .plan import Plan
from .question import Question
from .sight import ANSWER

INDEXES: Final = 257
"""0 to 256."""
SOME: Final = 48
STOP_AT: Final = 40
MAX_TOKENS: Final = 60
PROMPTS: Final = tuple(f"What did bee number {number} see?" for number in range(8))
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "dance",
        "description": "Tell the others the way",
        "parameters": {"type": "object", "properties": {"way": {"type": "string"}}, "required": ["way"]},
    },
}


@dataclass(frozen=True)
class Variant:
    """One shape of answer.

    Attributes:
        targets: The tokens after which it has to be cut, each at least once.
        prompts: Every stream asks one of them.
        channel: What the unbroken answer must have for the variant to mean anything.
    """

    words: str
    targets: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    prompts: tuple[str, ...] = PROMPTS
    channel: str = ANSWER

    def questions(self) -> list[Question]:
        """One for each prompt."""
        return [Question("fake", prompt, self.options) for prompt in self.prompts]


def for_both(plan: Plan, pieces: Sequence[str]) -> list[Variant]:
    """Shapes that both surfaces have; ``pieces`` are the tokens of the first prompt's answer."""
    step = max(1, INDEXES // plan.count(INDEXES))
    # The stop string begins inside one token and ends inside the next but one, so that a cut falls into it.
    stop = "".join(pieces[STOP_AT : STOP_AT + 3])[2:-1]
    stops_at = "".join(pieces).index(stop)
    shown = sum(1 for turn in range(len(pieces)) if len("".join(pieces[: turn + 1])) <= stops_at)
    return [
        Variant("plain", tuple(range(0, INDEXES, step))),
        Variant("a stop string across the cut", _up_to(shown, plan), {"stop": [stop]}, PROMPTS[:1]),
        Variant("max_tokens across the cut", _up_to(MAX_TOKENS - 1, plan), {"max_tokens": MAX_TOKENS}),
    ]


def for_chat(plan: Plan) -> list[Variant]:
    """Shapes only OpenAI's chat has."""
    some = tuple(range(0, INDEXES, max(1, INDEXES // plan.count(SOME))))
    return [
        Variant("n=3", some, {"n": 3, "max_tokens": INDEXES}, channel="2"),
        Variant("tool calls", tuple(range(INDEXES)), {"tools": [TOOL], "tool_choice": "required"}, channel="0/tool/0"),
    ]


def _up_to(index: int, plan: Plan) -> tuple[int, ...]:
    return tuple(max(0, index - turn) for turn in range(max(2, plan.count(SOME) // 4)))
