"""Short bee stories from a small grammar: who, where, a wish, a trouble, a helper, an end."""

from __future__ import annotations

import random

from demo_model.exchange import Exchange

_NAMES = (
    "Ada",
    "Bella",
    "Clara",
    "Dora",
    "Elsa",
    "Flora",
    "Greta",
    "Hanna",
    "Ida",
    "Juno",
    "Kaja",
    "Lotte",
    "Mira",
    "Nora",
    "Olga",
    "Pia",
    "Rosa",
    "Tilda",
    "Ursa",
    "Vera",
)
_KINDS = ("young", "old", "curious", "sleepy", "brave", "tiny", "careful", "cheerful")
_PLACES = (
    "in an apple orchard",
    "in a quiet valley",
    "on a sunny roof",
    "in an old oak",
    "behind a garden wall",
    "on a green hill",
)
_WISHES = (
    ("wanted to find the sweetest flower", "the sweetest flower"),
    ("wanted to see the river", "the river"),
    ("looked for a field of clover", "the clover"),
    ("dreamed of the blue mountain", "the blue mountain"),
    ("searched for a new home", "a new home"),
    ("set out to count the roses", "the roses"),
)
_TROUBLES = (
    "But a storm came up, and the rain was heavy.",
    "But the wind was strong and blew her far away.",
    "But the fog was thick and she lost her way.",
    "But her wings grew tired before noon.",
    "But the night came early and it was dark.",
    "But a spider had closed the path with its web.",
)
_HELPERS = ("a kind ant", "an old beetle", "her sister", "a white moth", "a small frog", "a friendly wasp")
_HELP = (
    "showed her the way",
    "gave her a dry leaf to rest on",
    "sang until she was not afraid",
    "shared a drop of honey with her",
    "danced the road for her",
)
_ENDS = (
    "So {name} found {thing} and flew home happy.",
    "Together they reached {thing}, and the whole hive heard of it.",
    "In the evening {name} told the hive about {thing}, and everybody danced.",
    "And when {name} saw {thing}, she knew that no bee flies alone.",
)

OPENINGS = ("Once", "Once upon a time")
REQUESTS = (
    "Tell me a story.",
    "Tell me a short story.",
    "Tell me a story about a bee.",
    "Tell me a bee story.",
    "Tell me a short bee story.",
    "Write a story about a bee.",
    "Write a short story.",
    "Can you tell me a story?",
    "Do you know a story?",
    "I want to hear a story.",
    "A story please.",
    "Once upon a time",
)


def story(rng: random.Random, name: str = "") -> str:
    """One story, about the bee called ``name`` if one is given."""
    name = name or rng.choice(_NAMES)
    wish, thing = rng.choice(_WISHES)
    helper = rng.choice(_HELPERS)
    bee = f"{rng.choice(OPENINGS)} there was a {rng.choice(_KINDS)} bee called {name}"
    return " ".join(
        (
            f"{bee} who lived {rng.choice(_PLACES)}.",
            f"One day {name} {wish}.",
            rng.choice(_TROUBLES),
            f"Then {helper} came by and {rng.choice(_HELP)}.",
            rng.choice(_ENDS).format(name=name, thing=thing),
        )
    ).replace("a old", "an old")


def exchange(rng: random.Random) -> Exchange:
    """A request and a story; sometimes the request names the bee."""
    if rng.random() < 0.25:
        name = rng.choice(_NAMES)
        return Exchange(f"Tell me a story about a bee called {name}.", story(rng, name))
    return Exchange(rng.choice(REQUESTS), story(rng))
