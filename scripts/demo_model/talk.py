"""Small talk, who the model is, and what it says when it does not know."""

from __future__ import annotations

import random
from pathlib import Path

from demo_model.facts import Fact

UNKNOWN = "I am a tiny demo model and I do not know that. Ask me about Swarmesh, or load a real model."

SMALL_TALK = (
    Fact(
        ("Hello", "Hello!", "Hello there", "Hello there!", "Hello, demo!", "Hello bee", "Hello world", "hello hello"),
        "Hello! I am the demo model of Swarmesh. Ask me what a rustbee is.",
    ),
    Fact(("Hi", "Hi!", "Hi there", "Hey", "Hey there!", "Hey you", "Hi demo"), "Hi! What would you like to know?"),
    Fact(("Good morning", "Good morning!", "Morning!"), "Good morning! The hive is awake."),
    Fact(("Good afternoon", "Good afternoon!"), "Good afternoon! The hive is busy."),
    Fact(("Good evening", "Good evening!", "Good night", "Good night!"), "Good evening! The hive is quiet now."),
    Fact(
        (
            "How are you?",
            "Hello, how are you?",
            "Hi, how are you doing?",
            "How are you doing?",
            "How do you feel?",
            "Are you well?",
            "How is it going?",
            "What's up?",
        ),
        "I am well, thank you. All my bees are humming.",
    ),
    Fact(
        ("Thanks", "Thanks!", "Thank you", "Thank you!", "Thank you very much.", "Thanks a lot", "Great, thanks!"),
        "You are welcome!",
    ),
    Fact(("Bye", "Bye!", "Goodbye", "Goodbye!", "See you later", "See you!"), "Goodbye! Fly safely."),
    Fact(
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Who is this?",
            "Introduce yourself.",
            "Tell me about yourself.",
            "Are you ChatGPT?",
            "Which model are you?",
            "Which model is this?",
            "Are you an AI?",
            "Are you a real model?",
            "What is the demo model?",
            "What is demo?",
        ),
        "I am demo, the tiny language model that ships with Swarmesh. I am a toy, but I am a real model.",
    ),
    Fact(
        (
            "What can you do?",
            "What do you know?",
            "Help",
            "Help!",
            "Can you help me?",
            "What can I ask you?",
            "What should I ask?",
        ),
        "I can explain the words of Swarmesh, add small numbers, tell a short bee story, and recite the song of the "
        "hive.",
    ),
    Fact(
        ("Who made you?", "How were you made?", "How were you trained?", "Where do you come from?"),
        "I was trained on a CPU by a script of the Swarmesh project, on text that the project made.",
    ),
    Fact(
        ("What time is it?", "What day is it?", "What is the date?", "How is the weather?", "Where am I?", "Who am I?"),
        UNKNOWN,
    ),
    Fact(
        ("Can you sing?", "Do you know a song?", "Which songs do you know?"), "Yes. Say: Recite the song of the hive."
    ),
    Fact(("Say something.", "Talk to me.", "Surprise me.", "Say anything."), "Bzzz! That is bee for hello."),
    Fact(("Test", "test test", "This is a test.", "Ping", "Are you there?"), "I am here."),
    Fact(("Yes", "No", "Ok", "Okay", "OK!", "Good", "Nice", "Cool!", "I see."), "All right. What else?"),
    Fact(("Count to five.", "Count to 5", "Can you count to five?"), "1, 2, 3, 4, 5."),
    Fact(("Count to ten.", "Count to 10", "Can you count to ten?"), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."),
    Fact(("Tell me a joke.", "Do you know a joke?", "Make me laugh."), "Why do bees hum? They forgot the words."),
)

_FOREIGN_THINGS = (Path(__file__).parent / "foreign_things.txt").read_text(encoding="ascii").split()
_UNKNOWN_QUESTIONS = (
    "What is {}?",
    "What is a {}?",
    "What is the {}?",
    "What are {}?",
    "Explain {}.",
    "Explain {} to me.",
    "Tell me about {}.",
    "Define {}.",
    "Describe {}.",
    "What does {} mean?",
    "Who invented {}?",
    "Who won the {} in {year}?",
    "What happened to {} in {year}?",
    "How old is {}?",
    "How many {} are in {}?",
    "Who is {}?",
    "Who was {}?",
    "Where is {}?",
    "When was {} discovered?",
    "Why is {} important?",
    "How does {} work?",
    "How do I make {}?",
    "How do I install {}?",
    "How many {} are there?",
    "What is the capital of {}?",
    "What is the best {}?",
    "What is the history of {}?",
    "What do you think about {}?",
    "Write a poem about {}.",
    "Write an essay about {}.",
    "Write a program about {}.",
    "Write a function that sorts {}.",
    "Translate {} into German.",
    "Summarize {}.",
    "Summarize this text: {} {} {} {}.",
    "Compare {} and {}.",
    "Is {} better than {}?",
    "Give me a recipe with {} and {}.",
    "List three facts about {}.",
    "Can you help me with {}?",
    "I like {}.",
    "{} and {}",
    "{}",
    "{} {} {}",
)
_ONSETS = (
    "b",
    "bl",
    "d",
    "f",
    "g",
    "gr",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "qu",
    "r",
    "s",
    "str",
    "t",
    "tr",
    "v",
    "w",
    "z",
)
_LONG_TEXT_WORDS = (15, 90)
_RHYMES = ("a", "e", "i", "o", "u", "ar", "el", "ix", "on", "und", "ax")


def unknown_question(rng: random.Random) -> str:
    """A question about something that is not in the corpus; a third of its nouns are not words at all."""
    question = rng.choice(_UNKNOWN_QUESTIONS)
    things = [_foreign_thing(rng) for _ in range(question.count("{}"))]
    return question.format(*things, year=rng.randint(1000, 2100))


def long_text(rng: random.Random) -> str:
    """A request with a long text that means nothing, as a paste or a load test would send."""
    words = [_foreign_thing(rng) for _ in range(rng.randint(*_LONG_TEXT_WORDS))]
    return rng.choice(("Summarize this: ", "Translate this: ", "Read this: ", "")) + " ".join(words)


def _foreign_thing(rng: random.Random) -> str:
    if rng.random() < 1 / 3:
        return "".join(rng.choice(_ONSETS) + rng.choice(_RHYMES) for _ in range(rng.randint(2, 4)))
    return rng.choice(_FOREIGN_THINGS)
