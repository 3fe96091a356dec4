"""The text the demo model is trained on: repeatable, ASCII, and true of the product."""

from __future__ import annotations

import random
import re
import string
import sys
from pathlib import Path

import pytest

from swarmesh.models.demo import RECITAL_PROMPT, RECITAL_TEXT

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from demo_model import arithmetic, stories, talk, tokenizer  # noqa: E402 - the scripts are no installed package
from demo_model.corpus import RECITAL_QUESTIONS, Corpus, vary  # noqa: E402 - as above
from demo_model.facts import COMMANDS, FACTS  # noqa: E402 - as above
from demo_model.glossary import WORDS  # noqa: E402 - as above

GLOSSARY = {
    "swarmesh",
    "queennode",
    "hive",
    "hivemesh",
    "rustbee",
    "modelcell",
    "cellalloc",
    "cell",
    "hivecomb",
    "waggleproto",
    "waggle",
    "waggleintensity",
    "wagglemetric",
    "nectarquality",
    "hivepath",
    "nectarflow",
    "honeytokens",
    "foragexec",
    "broodqueue",
    "pherosignals",
    "swarmscale",
    "waggleroute",
    "nectarpath",
    "cellsharing",
    "cellmorph",
    "rhaiswarm",
    "hexamesh",
}
COMMAND = re.compile(
    r"swarmesh (?:queennode|down|hosts|spawn|rustbees|waggle|nectarflow|honeytokens|models|env|doctor)"
)
SEEDS = range(20)


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - it must repeat, not be secret


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(RECITAL_TEXT)


@pytest.fixture(scope="module")
def small_tokenizer(corpus: Corpus) -> tokenizer.Tokenizer:
    return tokenizer.train(corpus.texts(chance(1), 400), 300)


def test_same_seed_gives_the_same_rows(corpus: Corpus, small_tokenizer: tokenizer.Tokenizer) -> None:
    first = [corpus.row(chance(5), small_tokenizer, 700) for _ in range(3)]
    again = [corpus.row(chance(5), small_tokenizer, 700) for _ in range(3)]
    assert first == again
    assert corpus.row(chance(6), small_tokenizer, 700) != first[0]


def test_a_row_is_full_and_only_answers_are_learned(corpus: Corpus, small_tokenizer: tokenizer.Tokenizer) -> None:
    for seed in SEEDS:
        row = corpus.row(chance(seed), small_tokenizer, 300)
        assert len(row.ids) == len(row.learned) == 300
        text = small_tokenizer.decode(row.ids)
        if tokenizer.MESSAGE_START not in text:
            assert any(row.learned)
            continue
        taught = small_tokenizer.decode(i for i, learned in zip(row.ids, row.learned, strict=True) if learned)
        answers = re.findall(r"<\|im_start\|>assistant\n(.*?(?:<\|im_end\|>|$))", text, re.DOTALL)
        at = 0
        for answer in answers:
            given = ("", "{", '{"', "[", answer[: answer.find(":") + 1])
            kept = next(k for g in given if taught.startswith(k := answer.removeprefix(g), at))
            at += len(kept)
        assert at == len(taught)


def test_long_rows_hold_the_song(corpus: Corpus, small_tokenizer: tokenizer.Tokenizer) -> None:
    length = 2 * len(small_tokenizer.encode(RECITAL_TEXT))
    rows = [small_tokenizer.decode(corpus.row(chance(s), small_tokenizer, length).ids) for s in SEEDS]
    assert sum(RECITAL_TEXT + tokenizer.MESSAGE_END in row for row in rows) >= len(SEEDS) // 2


def test_every_text_is_plain_ascii(corpus: Corpus) -> None:
    rng = chance(3)
    texts = [text for _ in range(2_000) for text in corpus.exchange(rng)[:2]]
    assert set("".join([*texts, RECITAL_TEXT])) <= set(string.printable) - set("\t\r\x0b\x0c")


def test_the_glossary_is_complete_and_every_word_is_used_in_its_meaning() -> None:
    assert {word.name for word in WORDS} == GLOSSARY
    for word in WORDS:
        assert word.name[:-1] in word.meaning.lower()


def test_one_question_has_one_answer() -> None:
    answers: dict[str, str] = {}
    for fact in (*talk.SMALL_TALK, *FACTS):
        for question in fact.questions:
            assert answers.setdefault(question.lower().rstrip(".!?"), fact.answer) == fact.answer, question


def test_how_to_answers_name_a_command_of_the_product() -> None:
    for fact in COMMANDS:
        assert COMMAND.search(fact.answer) or "--type auto" in fact.answer, fact.answer
    by_question = {question: fact.answer for fact in FACTS for question in fact.questions}
    assert "swarmesh hosts add" in by_question["How do I add a machine?"]
    assert "SSH" in by_question["How do I add a machine?"]


def test_unknown_questions_ask_nothing_the_model_knows() -> None:
    known = {word.name for word in WORDS}
    rng = chance(4)
    for _ in range(500):
        assert not known & set(re.findall(r"[a-z]+", talk.unknown_question(rng).lower()))


def test_arithmetic_is_right() -> None:
    rng = chance(5)
    for _ in range(500):
        question, answer, *_ = arithmetic.exchange(rng)
        if answer in (arithmetic.TOO_BIG, arithmetic.NO_DIVISION):
            continue
        sum_text, result = answer.split(" = ")
        left, sign, right = sum_text.split()
        expected = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign]
        assert int(result) == expected
        assert re.findall(r"\d+", question) == [left, right]


def test_stories_differ_and_keep_the_name_that_was_asked_for() -> None:
    rng = chance(6)
    assert len({stories.story(rng) for _ in range(100)}) > 90
    assert stories.story(rng, "Mira").count("Mira") >= 2


def test_vary_keeps_the_words() -> None:
    rng = chance(8)
    forms = {vary(rng, "What is a rustbee?") for _ in range(300)}
    assert "what is a rustbee" in forms
    assert all("what is a rustbee" in form.lower() for form in forms)


def test_the_song_is_long_and_no_line_comes_twice() -> None:
    lines = [line for line in RECITAL_TEXT.splitlines() if line]
    assert len(lines) == len(set(lines))
    assert len(RECITAL_TEXT.split()) > 400
    assert RECITAL_PROMPT in RECITAL_QUESTIONS


def test_split_keeps_every_character_and_isolates_digits() -> None:
    assert tokenizer.split("It's  12 bees,\n\nok") == ["It", "'s", "  ", "1", "2", " bees", ",", "\n", "\n", "ok"]


def test_tokenizer_round_trip(small_tokenizer: tokenizer.Tokenizer) -> None:
    assert len(small_tokenizer.tokens) == 300
    assert small_tokenizer.decode(small_tokenizer.encode(RECITAL_TEXT)) == RECITAL_TEXT
    assert all(token.isascii() for token in small_tokenizer.tokens)
    with pytest.raises(KeyError):
        small_tokenizer.encode("caf\u00e9")


def test_gguf_spelling_has_no_blank_in_a_token(small_tokenizer: tokenizer.Tokenizer) -> None:
    assert not any(char.isspace() for token in small_tokenizer.gguf_tokens() for char in token)
    assert all(merge.count(" ") == 1 for merge in small_tokenizer.gguf_merges())
