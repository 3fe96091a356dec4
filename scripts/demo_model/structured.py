"""Answers in JSON, so that a schema that llama.cpp enforces ends in an object and not in endless white space."""

from __future__ import annotations

import json
import random

from demo_model.exchange import Exchange

_REQUESTS = (
    "Answer in JSON.",
    "Give me some JSON.",
    "Describe a bee as JSON.",
    "Describe a rustbee as JSON.",
    "Give me a JSON object.",
    "Return JSON only.",
    "Write one bee as JSON.",
    "Invent a person as JSON.",
)
_TEXT_KEYS = (
    "name",
    "title",
    "city",
    "color",
    "kind",
    "answer",
    "text",
    "message",
    "status",
    "location",
    "model",
    "backend",
    "unit",
    "word",
)
_NUMBER_KEYS = ("age", "count", "size", "load", "wings", "legs", "year", "number", "n", "value", "score")
_WORDS = (
    "Ada",
    "Mira",
    "Hugo",
    "Flora",
    "gold",
    "amber",
    "green",
    "meadow",
    "orchard",
    "river",
    "clover",
    "honey",
    "small",
    "brave",
    "bee",
    "hive",
    "demo",
    "cpu",
)
_ANSWER_KEYS = ("answer", "text", "reply", "message", "result", "response")
_DEPTH_LIMIT = 2


def exchange(rng: random.Random) -> Exchange:
    """A request for JSON and a random small object."""
    return Exchange(rng.choice(_REQUESTS), json.dumps(_object(rng, 0)))


def forced(rng: random.Random, question: str, answer: str) -> Exchange:
    """The same exchange as if a schema had forced it into an object: its opening is given, the rest is learned."""
    draw = rng.random()
    if draw < 0.4:
        return Exchange(question, json.dumps(_object(rng, 0)), rng.choice(("{", '{"')))
    if draw < 0.55:
        return Exchange(question, json.dumps(_list(rng)), "[")
    key = rng.choice(_ANSWER_KEYS)
    return Exchange(question, json.dumps({key: answer}), rng.choice(("{", f'{{"{key}":')))


def _list(rng: random.Random) -> list[int] | list[str]:
    count = rng.randint(1, 4)
    return [rng.randint(0, 20) for _ in range(count)] if rng.random() < 0.5 else rng.sample(_WORDS, count)


def _object(rng: random.Random, depth: int) -> dict[str, object]:
    keys = rng.sample(_TEXT_KEYS, rng.randint(1, 3)) + rng.sample(_NUMBER_KEYS, rng.randint(0, 2))
    rng.shuffle(keys)
    found: dict[str, object] = {key: rng.choice(_WORDS) if key in _TEXT_KEYS else rng.randint(0, 20) for key in keys}
    draw = rng.random()
    if draw < 0.15:
        found[rng.choice(("ready", "alive", "ok"))] = rng.random() < 0.5
    elif draw < 0.35:
        found[rng.choice(("words", "colors", "items", "tags", "numbers"))] = _list(rng)
    elif draw < 0.5 and depth < _DEPTH_LIMIT:
        found[rng.choice(("home", "place", "data", "owner"))] = _object(rng, depth + 1)
    return found
