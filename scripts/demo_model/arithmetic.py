"""Small arithmetic: sums, differences and products of numbers up to ten, and a plain no to everything larger."""

from __future__ import annotations

import random

from demo_model.exchange import Exchange

NUMBER_LIMIT = 10
TOO_BIG = "That is too big for me. I am a tiny demo model and I only know small numbers."
NO_DIVISION = "I never learned to divide. I am a tiny demo model."

_NAMES = {"+": ("plus", "added to"), "-": ("minus",), "*": ("times", "multiplied by"), "/": ("divided by",)}
_QUESTIONS = ("What is {}?", "What is {}?", "What's {}?", "{}", "{} =", "{}?", "How much is {}?", "Calculate {}.")


def exchange(rng: random.Random) -> Exchange:
    """A question and its answer, such as "What is 2 plus 3?" and "2 + 3 = 5"."""
    draw = rng.random()
    if draw < 0.06:
        left, right = rng.randint(0, 100), rng.randint(1, 20)
        return Exchange(_question(rng, left, "/", right), NO_DIVISION)
    if draw < 0.28:
        sign = rng.choice("+-*")
        left, right = _large(rng), rng.choice((rng.randint(0, 99), _large(rng)))
        left += NUMBER_LIMIT if sign == "-" else 0
        return Exchange(_question(rng, left, sign, right), TOO_BIG)
    left, sign, right = problem(rng)
    return Exchange(_question(rng, left, sign, right), answer(left, sign, right))


def problem(rng: random.Random) -> tuple[int, str, int]:
    """Two numbers and a sign that the model learns by heart."""
    sign = rng.choice("+-*")
    right = rng.randint(0, NUMBER_LIMIT)
    left = rng.randint(0, NUMBER_LIMIT + (right if sign == "-" else 0))
    return left, sign, right


def answer(left: int, sign: str, right: int) -> str:
    """The answer the model learns, such as "2 + 3 = 5"."""
    result = {"+": left + right, "-": left - right, "*": left * right}[sign]
    return f"{left} {sign} {right} = {result}"


def _question(rng: random.Random, left: int, sign: str, right: int) -> str:
    spoken = rng.choice((f" {sign} ", sign, f" {rng.choice(_NAMES[sign])} "))
    return rng.choice(_QUESTIONS).format(f"{left}{spoken}{right}")


def _large(rng: random.Random) -> int:
    return rng.choice((rng.randint(11, 99), rng.randint(100, 999), rng.randint(1_000, 99_999)))
