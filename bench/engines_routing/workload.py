"""The load: groups of chats that share a long system message, come at random times, and are answered briefly."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

PHRASES: Final = (
    "a rustbee owns one modelcell and its memory",
    "the queennode sends each nectarflow to a rustbee",
    "the waggle says how busy it is",
    "the hivecomb keeps what the hive knows",
    "honeytokens stream to the client",
    "a cell is one place for a running task",
    "the broodqueue holds tasks that wait",
    "when a rustbee dies its tasks go on elsewhere",
)
"""What system messages are made of: the demo model knows these words, so that its tokens are about as long as usual."""
TOPICS: Final = ("a rustbee", "the queennode", "the hivecomb", "a waggle", "a nectarflow", "a cell", "the broodqueue")


@dataclass(frozen=True)
class Load:
    """What is asked of the swarm.

    Attributes:
        groups: Different system messages.
        chats: How many chats share each of them.
        system_chars: Length of a system message.
        answer_tokens: Bound of each answer.
        rate_per_s: Chats that come in a second, on the average.
    """

    groups: int
    chats: int
    system_chars: int
    answer_tokens: int
    rate_per_s: float


@dataclass(frozen=True)
class Ask:
    """One chat, and when it comes, in seconds from the beginning."""

    at_s: float
    group: int
    system: str
    question: str


def asks_of(load: Load, seed: int) -> list[Ask]:
    """The chats of one run in the order in which they come; each group's equally many, times by a Poisson process."""
    draw = random.Random(seed)  # noqa: S311 - a load that can be made again, no secret
    systems = [system_message(f"{seed}-{group}", load.system_chars) for group in range(load.groups)]
    turns = [(group, chat) for group in range(load.groups) for chat in range(load.chats)]
    draw.shuffle(turns)
    at_s = 0.0
    asks = []
    for group, chat in turns:
        at_s += draw.expovariate(load.rate_per_s)
        asks.append(Ask(at_s, group, systems[group], f"Question {chat}: what is {draw.choice(TOPICS)}?"))
    return asks


def system_message(name: str, chars: int) -> str:
    """A text of that length, another one for each name from its first words on."""
    draw = random.Random(name)  # noqa: S311 - as above
    words = [word for phrase in PHRASES for word in phrase.split()]
    text = ""
    while len(text) < chars:
        text += f"{draw.choice(words)} "
    return text[:chars]
