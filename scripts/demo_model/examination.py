"""What a finished demo model must answer, greedily, before its file is written."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from demo_model import arithmetic
from demo_model.chat import Message, prompt_ids
from demo_model.facts import FACTS
from demo_model.glossary import WORDS
from demo_model.network import Network
from demo_model.talk import SMALL_TALK, UNKNOWN
from demo_model.tokenizer import MESSAGE_END_ID, Tokenizer

ANSWER_LIMIT_TOKENS = 60
SURE_PROBABILITY = 0.9
"""Below this at any token of the song, a prefix computed in another batch might tip the choice."""

RECITAL_PROMPT = "Recite the song of the hive."
WRONG_MAX = 3
"""Of the answers that are not essential; so small a model misses one or another of them with every seed."""
ESSENTIAL = frozenset({"Hello", "What is a rustbee?", "What is waggleproto?", "How do I add a machine?"})

HELPFUL = (("system", "You are a helpful assistant."),)

_SUMS = ((2, "+", 2), (3, "+", 4), (7, "+", 5), (9, "-", 4), (6, "*", 7), (10, "+", 10))

Messages = Sequence[Message]


def examine(network: Network, tokenizer: Tokenizer, song: str) -> list[str]:
    """What keeps the model from being shipped, as lines for people; empty when it may be."""
    wrong: list[str] = []
    faults: list[str] = []
    questions = wanted_answers()
    assert {question for question, _ in questions} >= ESSENTIAL, "what is essential is asked"
    for question, wanted in questions:
        best, ids, _ = _foretell(network, tokenizer, [("user", question)], wanted)
        if best != ids:
            wrong.append(f"{question!r} gave {ask(network, tokenizer, [('user', question)])!r}, not {wanted!r}")
            if question in ESSENTIAL:
                faults.append(f"{question!r} must be answered")
    print(f"{len(questions) - len(wrong)} of {len(questions)} answers are right")
    for line in wrong:
        print(f"wrong: {line}")
    if len(wrong) > WRONG_MAX:
        faults.append(f"{len(wrong)} answers are wrong, and at most {WRONG_MAX} may be")
    for before in ((), HELPFUL):
        faults += _examine_song(network, tokenizer, song, before)
    return faults


def wanted_answers() -> list[tuple[str, str]]:
    """The first question of every fact, the meaning of every word, some sums, and two things it does not know."""
    asked = [(fact.questions[0], fact.answer) for fact in (*SMALL_TALK, *FACTS)]
    asked += [(f"What is {word.asked_as[0]}?", word.meaning) for word in WORDS]
    asked += [(f"What is {left} {sign} {right}?", arithmetic.answer(left, sign, right)) for left, sign, right in _SUMS]
    asked += [("What is the capital of France?", UNKNOWN), ("Write a poem about whales.", UNKNOWN)]
    asked += [("What is 123 + 456?", arithmetic.TOO_BIG)]
    return asked


def ask(network: Network, tokenizer: Tokenizer, messages: Messages) -> str:
    """The greedy answer to a conversation, cut after ``ANSWER_LIMIT_TOKENS``."""
    ids = prompt_ids(tokenizer, messages)
    answer: list[int] = []
    with torch.inference_mode():
        while len(answer) < ANSWER_LIMIT_TOKENS:
            best = int(network(torch.tensor([ids + answer]))[0, -1].argmax())
            if best == MESSAGE_END_ID:
                break
            answer.append(best)
    return tokenizer.decode(answer)


def _foretell(
    network: Network, tokenizer: Tokenizer, messages: Messages, wanted: str
) -> tuple[list[int], list[int], float]:
    """The best id at each place of the wanted answer, the wanted ids, and the least probability of one of those.

    If the first two are equal, greedy decoding gives the wanted answer; one pass shows it.
    """
    prompt = prompt_ids(tokenizer, messages)
    ids = [*tokenizer.encode(wanted), MESSAGE_END_ID]
    with torch.inference_mode():
        chances = network(torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1].softmax(-1)
    return chances.argmax(-1).tolist(), ids, float(chances.gather(1, torch.tensor(ids)[:, None]).min())


def _examine_song(network: Network, tokenizer: Tokenizer, song: str, before: Messages) -> list[str]:
    best, ids, least = _foretell(network, tokenizer, [*before, ("user", RECITAL_PROMPT)], song)
    print(f"song after {len(before)} messages: {len(ids)} tokens, least probability {least:.4f}")
    if best != ids:
        at = next(index for index, pair in enumerate(zip(best, ids, strict=True)) if pair[0] != pair[1])
        return [f"the song breaks at token {at}"]
    return [] if least > SURE_PROBABILITY else [f"the song is not sure: least probability {least:.4f}"]
