"""What the fake engine says where words alone will not do: calls of tools, and JSON that keeps to a schema.

All of it is a pure function of the conversation, like its words.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from swarmesh.engines.engine import Token
from swarmesh.engines.openai_text import ToolDelta

WORDS: Final = tuple(
    """amber apiary bee bloom brood buzz cell clover comb dance drone field flower forage gold hive honey larva meadow
    mead nectar nest pollen propolis queen scent sky smoke sting sun swarm thyme wax wing worker
    Bl\u00fcte s\u00fc\u00df Bienenst\u00f6cke \u8702 \u871c \u82b1 \U0001f41d \U0001f36f""".split()  # noqa: SIM905 - one word per line would be forty lines
)
PIECE_CHARS: Final = 5
"""Of JSON text and of a call's arguments in one chunk: short, so that most ends of chunks lie inside of a value."""
STRING_WORDS: Final = 4
ITEMS: Final = 2
DEPTH_MAX: Final = 16
"""Schemas nested more deeply have null there."""


def draw(text: str) -> int:
    """A large number that only ``text`` decides."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def sample(schema: Any, conversation: str, depth: int = 0) -> Any:
    """A value that keeps to a JSON schema's types, properties, items and enumerations; other rules are passed over."""
    if not isinstance(schema, dict) or depth > DEPTH_MAX:
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][draw(conversation) % len(schema["enum"])]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: sample(part, f"{conversation}\0{name}", depth + 1) for name, part in properties.items()}
    if kind == "array":
        return [sample(schema.get("items"), f"{conversation}\0{index}", depth + 1) for index in range(ITEMS)]
    return _scalar(kind, conversation)


def _scalar(kind: Any, conversation: str) -> Any:
    number = draw(conversation)
    match kind:
        case "string":
            return " ".join(WORDS[draw(f"{conversation}\0{n}") % len(WORDS)] for n in range(STRING_WORDS))
        case "integer":
            return number % 1000
        case "number":
            return number % 1000 / 8
        case "boolean":
            return number % 2 == 0
        case _:
            return None


def json_pieces(schema: Any, conversation: str) -> list[Token]:
    """A JSON text that keeps to a schema, in pieces without token ids."""
    return [Token(piece) for piece in _pieces(sample(schema, conversation))]


def call_pieces(tool: dict[str, Any], conversation: str) -> list[ToolDelta]:
    """One call of a tool, its arguments in several pieces."""
    function = tool.get("function") or {}
    arguments = sample({"type": "object", **(function.get("parameters") or {})}, conversation)
    call_id = f"call_{draw(conversation):016x}"
    head = {"id": call_id, "type": "function", "function": {"name": function.get("name", ""), "arguments": ""}}
    return [
        ToolDelta({"index": 0, **head}),
        *(ToolDelta({"index": 0, "function": {"arguments": piece}}) for piece in _pieces(arguments)),
    ]


def _pieces(value: Any) -> list[str]:
    text = msgspec.json.encode(value).decode()
    return [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]
