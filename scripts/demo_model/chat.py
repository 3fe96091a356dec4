"""How a conversation becomes tokens: the same for training, for the examination and in llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from demo_model.tokenizer import MESSAGE_END_ID, MESSAGE_START_ID, Tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Message = tuple[str, str]
"""Who speaks (``system``, ``user`` or ``assistant``), and what."""


def opening_ids(tokenizer: Tokenizer, role: str) -> list[int]:
    """What stands before the content of a message."""
    return [MESSAGE_START_ID, *tokenizer.encode(f"{role}\n")]


def closing_ids(tokenizer: Tokenizer) -> list[int]:
    """What stands after the content of a message; the model itself says the first of these."""
    return [MESSAGE_END_ID, *tokenizer.encode("\n")]


def prompt_ids(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids that the template and llama.cpp make of a conversation that waits for an answer."""
    ids: list[int] = []
    for role, content in messages:
        ids += [MESSAGE_START_ID, *tokenizer.encode(f"{role}\n{content}"), *closing_ids(tokenizer)]
    return [*ids, *opening_ids(tokenizer, "assistant")]
