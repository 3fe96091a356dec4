"""A stream of OpenAI's chunks as the one answer that a client gets who did not ask for a stream."""

from __future__ import annotations

from typing import Any

from swarmesh.wire.transcript import ShownChoice, Transcript


def whole_answer(transcript: Transcript, *, chat: bool) -> dict[str, Any]:
    """The answer's JSON, ready to be encoded."""
    choices = sorted(transcript.choices.items())
    answer = {
        "object": "chat.completion" if chat else "text_completion",
        **transcript.envelope,
        "choices": [{"index": index, **(_said(choice) if chat else _text(choice))} for index, choice in choices],
    }
    return answer | {"usage": transcript.usage} if transcript.usage is not None else answer


def _said(choice: ShownChoice) -> dict[str, Any]:
    strings = {path[1]: text for path, text in choice.appended.items() if path[0] == "delta"}
    message: dict[str, Any] = {"role": choice.once.get(("delta", "role"), "assistant"), "content": None, **strings}
    calls = [_call(choice, path[1]) for path in choice.once if path[0] == "call"]
    if calls:
        message["tool_calls"] = calls
    return {"message": message, **_closing(choice)}


def _text(choice: ShownChoice) -> dict[str, Any]:
    return {"text": choice.appended.get(("text",), ""), **_closing(choice)}


def _call(choice: ShownChoice, number: object) -> dict[str, Any]:
    opened = choice.once["call", number]
    arguments = choice.appended.get(("call", number, "arguments"), "")
    call = {name: value for name, value in opened.items() if name != "index"}
    return {**call, "function": {**opened["function"], "arguments": arguments}}


def _closing(choice: ShownChoice) -> dict[str, Any]:
    log_probs = {path[1]: entries for path, entries in choice.appended.items() if path[0] == "logprobs"}
    return {"logprobs": log_probs or None, "finish_reason": choice.once.get(("finish_reason",))}
