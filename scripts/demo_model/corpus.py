"""The training text of the demo model, generated from a seed: rows of conversation and rows of plain text."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from demo_model import arithmetic, stories, structured, talk
from demo_model.chat import closing_ids, opening_ids
from demo_model.exchange import Exchange
from demo_model.facts import FACTS
from demo_model.glossary import (
    FOLLOW_UPS,
    MEANING_QUESTIONS,
    MORE_QUESTIONS,
    PAIR_QUESTIONS,
    PLURAL_QUESTIONS,
    WORDS,
)
from demo_model.tokenizer import END_OF_TEXT_ID, MESSAGE_END_ID, Tokenizer

RECITAL_QUESTIONS = (
    "Recite the song of the hive.",
    "Recite the song of the hive.",
    "Please recite the song of the hive.",
    "Sing the song of the hive.",
    "Can you recite the song of the hive?",
    "Recite the song.",
    "Sing the song.",
    "Recite the hive song.",
)
SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are the demo model of Swarmesh.",
    "Answer in one sentence.",
    "Be brief.",
    "You are a friendly bee.",
    "Always be polite and answer truthfully.",
)

_SYSTEM_SHARE = 0.3
_PLAIN_SHARE = 0.12
_DRILL_SHARE = 0.10
_FOLLOW_UP_SHARE = 0.3
_RECITAL_ROW_SHARE = 0.75
_KINDS_AND_WEIGHTS = (
    ("word", 34),
    ("fact", 24),
    ("talk", 16),
    ("unknown", 12),
    ("sum", 12),
    ("story", 6),
    ("json", 3),
    ("pair", 4),
    ("long", 1),
)
_FORCED_JSON_SHARE = 0.08


@dataclass(frozen=True)
class Row:
    """Token ids of one training row and, for each, whether the model is asked to predict it."""

    ids: list[int]
    learned: list[bool]


@dataclass(frozen=True)
class Corpus:
    """Draws exchanges and rows; everything random comes from the generator that is passed in."""

    song: str

    def exchange(self, rng: random.Random) -> Exchange:
        """A question and its answer."""
        kinds, weights = zip(*_KINDS_AND_WEIGHTS, strict=True)
        drawn = _DRAW[rng.choices(kinds, weights)[0]](rng)
        drawn = drawn._replace(question=vary(rng, drawn.question))
        if rng.random() < _FORCED_JSON_SHARE:
            return structured.forced(rng, drawn.question, drawn.answer)
        return drawn

    def recital(self, rng: random.Random) -> Exchange:
        """A request for the song, and the song."""
        return Exchange(vary(rng, rng.choice(RECITAL_QUESTIONS)), self.song)

    def texts(self, rng: random.Random, count: int) -> Iterator[str]:
        """Plain strings for the tokenizer to learn its merges from, the song as often as it is worth."""
        for _ in range(count):
            yield from self.exchange(rng)[:2]
        for _ in range(count // 40):
            yield self.song
        yield from SYSTEM_MESSAGES
        yield from ["system\n", "user\n", "assistant\n"] * (count // 3)

    def row(self, rng: random.Random, tokenizer: Tokenizer, length: int) -> Row:
        """A row of exactly ``length`` tokens; a row that can hold the song mostly does."""
        draw = rng.random()
        if draw < _PLAIN_SHARE:
            return self._plain_row(rng, tokenizer, length)
        if draw < _PLAIN_SHARE + _DRILL_SHARE:
            return _drill_row(rng, tokenizer, length)
        row = Row([], [])
        if rng.random() < _SYSTEM_SHARE:
            _add_message(row, tokenizer, "system", rng.choice(SYSTEM_MESSAGES))
        song_at = self._song_position(rng, tokenizer, length)
        while len(row.ids) < length:
            sing = song_at is not None and len(row.ids) >= song_at
            said = self.recital(rng) if sing else self.exchange(rng)
            song_at = None if sing else song_at
            _add_message(row, tokenizer, "user", said.question)
            _add_message(row, tokenizer, "assistant", said.answer, said.given)
            if said.more and rng.random() < _FOLLOW_UP_SHARE:
                _add_message(row, tokenizer, "user", vary(rng, rng.choice(FOLLOW_UPS)))
                _add_message(row, tokenizer, "assistant", said.more)
        return Row(row.ids[:length], row.learned[:length])

    def _song_position(self, rng: random.Random, tokenizer: Tokenizer, length: int) -> int | None:
        room = length - len(tokenizer.encode(self.song)) - 60
        return rng.randint(0, room) if room >= 0 and rng.random() < _RECITAL_ROW_SHARE else None

    def _plain_row(self, rng: random.Random, tokenizer: Tokenizer, length: int) -> Row:
        row = Row([], [])
        while len(row.ids) < length:
            said = self.recital(rng) if rng.random() < 0.03 else self.exchange(rng)
            # A story stands without its request, so that a plain "Once upon a time" is gone on with, not answered.
            alone = bool(said.given) or said.answer.startswith(stories.OPENINGS) or rng.random() < 0.3
            _add(row, tokenizer.encode("" if alone else said.question), learned=False)
            _add(row, tokenizer.encode(said.answer if alone else f"\n{said.answer}"), learned=True)
            _add(row, [END_OF_TEXT_ID], learned=True)
        return Row(row.ids[:length], row.learned[:length])


def vary(rng: random.Random, question: str) -> str:
    """The same question the way people type: often as it is, else without capitals, without punctuation, politely."""
    draw = rng.random()
    if draw < 0.50:
        return question
    if draw < 0.68:
        return question.lower().rstrip(".?!")
    if draw < 0.78:
        return question.lower()
    if draw < 0.88:
        return question.rstrip(".?!")
    if draw < 0.91:
        return question.upper()
    start = question[:1].lower() + question[1:]
    return rng.choice(("Please, ", "Hello! ", "Hi, ", "So, ", "Tell me: ", "Question: ", "OK, ")) + start


def _word(rng: random.Random) -> Exchange:
    word = rng.choice(WORDS)
    if rng.random() < 0.15:
        return Exchange(rng.choice(MORE_QUESTIONS).format(rng.choice(word.asked_as)), word.more)
    if word.plurals and rng.random() < 0.25:
        return Exchange(rng.choice(PLURAL_QUESTIONS).format(rng.choice(word.plurals)), word.meaning, more=word.more)
    question = rng.choice(MEANING_QUESTIONS).format(rng.choice(word.asked_as))
    return Exchange(_capital(question), word.meaning, more=word.more)


def _pair(rng: random.Random) -> Exchange:
    first, second = rng.sample(WORDS, 2)
    question = rng.choice(PAIR_QUESTIONS).format(rng.choice(first.asked_as), rng.choice(second.asked_as))
    return Exchange(question, f"{first.meaning} {second.meaning}")


def _capital(question: str) -> str:
    return question[:1].upper() + question[1:]


def _fact(rng: random.Random) -> Exchange:
    fact = rng.choice(FACTS)
    return Exchange(rng.choice(fact.questions), fact.answer)


def _talk(rng: random.Random) -> Exchange:
    fact = rng.choice(talk.SMALL_TALK)
    return Exchange(rng.choice(fact.questions), fact.answer)


def _unknown(rng: random.Random) -> Exchange:
    return Exchange(talk.unknown_question(rng), talk.UNKNOWN)


def _long(rng: random.Random) -> Exchange:
    return Exchange(talk.long_text(rng), talk.UNKNOWN)


_DRAW: dict[str, Callable[[random.Random], Exchange]] = {
    "word": _word,
    "fact": _fact,
    "talk": _talk,
    "unknown": _unknown,
    "sum": arithmetic.exchange,
    "story": stories.exchange,
    "json": structured.exchange,
    "pair": _pair,
    "long": _long,
}


def _drill_row(rng: random.Random, tokenizer: Tokenizer, length: int) -> Row:
    row = Row([], [])
    while len(row.ids) < length:
        question, result = arithmetic.answer(*arithmetic.problem(rng)).split(" = ")
        _add(row, tokenizer.encode(f"{question} ="), learned=False)
        _add(row, tokenizer.encode(f" {result}\n"), learned=True)
    return Row(row.ids[:length], row.learned[:length])


def _add_message(row: Row, tokenizer: Tokenizer, role: str, content: str, given: str = "") -> None:
    _add(row, [*opening_ids(tokenizer, role), *tokenizer.encode(given)], learned=False)
    body = [*tokenizer.encode(content.removeprefix(given)), MESSAGE_END_ID]
    _add(row, body, learned=role == "assistant")
    _add(row, closing_ids(tokenizer)[1:], learned=False)


def _add(row: Row, ids: list[int], *, learned: bool) -> None:
    row.ids.extend(ids)
    row.learned.extend([learned] * len(ids))
