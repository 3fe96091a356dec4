"""``/v1/chat/completions`` by OpenAI's own client, which must not notice anything."""

from __future__ import annotations

import json
from typing import Any, Final

import httpx
import openai
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import Choice

from .question import OnToken, Question, ignore
from .sight import Sight

TIMEOUT_S: Final = 60.0


class Chat:
    """`Question`s as streamed chats with usage.

    Args:
        base_url: Ends in ``/v1``.
    """

    name = "openai chat"

    def __init__(self, base_url: str, key: str) -> None:
        self._client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=TIMEOUT_S)

    def ask(self, question: Question, on_token: OnToken = ignore, sight: Sight | None = None) -> Sight:
        """See `Surface`."""
        sight = sight or Sight()
        observer = _Observer(sight)
        create: Any = self._client.chat.completions.with_raw_response.create
        messages = [{"role": "user", "content": question.prompt}]
        options = {"stream": True, "stream_options": {"include_usage": True}, **question.options}
        extra = {"priority": options.pop("priority")} if "priority" in options else None
        try:
            raw = create(model=question.modelcell, messages=messages, extra_body=extra, **options)
            sight.rustbee_id = raw.headers.get("x-swarmesh-rustbee", "")
            with raw.parse() as stream:
                for chunk in stream:
                    if observer.take(chunk):
                        on_token(sight)
        except openai.APIStatusError as error:
            return sight.end(str(error.code))
        except openai.APIConnectionError:
            return sight.end("cut")
        except openai.APIError as error:
            return sight.end(str(error.code))
        except httpx.TransportError:
            return sight.end("cut")
        except json.JSONDecodeError as error:
            sight.odd.append(f"the client could not read a chunk: {error}")
            return sight.end("unreadable")
        return observer.over()

    def close(self) -> None:
        """Close its connections."""
        self._client.close()


class _Observer:
    """Holds a stream of chunks to what an unbroken one looks like."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight
        self._heads: set[tuple[str, int, str, str | None]] = set()
        self._roles: dict[int, int] = {}
        self._tool_ids: dict[str, set[str]] = {}

    def take(self, chunk: ChatCompletionChunk) -> bool:
        """Note a chunk; whether it brought a piece of the answer."""
        self._heads.add((chunk.id, chunk.created, chunk.model, chunk.system_fingerprint))
        if chunk.usage is not None:
            self._sight.take_usage(chunk.usage.model_dump())
        came = False
        for choice in chunk.choices:
            came = self._choice(choice) or came
        return came

    def over(self) -> Sight:
        """Say what was odd about the whole; a stream without a finish reason was cut."""
        sight, odd = self._sight, self._sight.odd
        if len(self._heads) > 1:
            odd.append(f"id, created, model or fingerprint changed: {len(self._heads)} kinds")
        odd += [f"choice {index}: {count} role chunks" for index, count in self._roles.items() if count > 1]
        odd += [f"tool call {place} has {len(ids)} ids" for place, ids in self._tool_ids.items() if len(ids) > 1]
        return sight.end("" if sight.finish_reasons else "cut")

    def _choice(self, choice: Choice) -> bool:
        channel, sight = str(choice.index), self._sight
        if choice.delta.role is not None:
            self._roles[choice.index] = self._roles.get(choice.index, 0) + 1
        if choice.finish_reason is not None:
            if channel in sight.finish_reasons:
                sight.odd.append(f"choice {channel}: two finish reasons")
            sight.finish_reasons[channel] = choice.finish_reason
        came = bool(choice.delta.content)
        if choice.delta.content:
            sight.add(choice.delta.content, channel)
        for call in choice.delta.tool_calls or []:
            place = f"{channel}/tool/{call.index}"
            if call.id:
                self._tool_ids.setdefault(place, set()).add(call.id)
            function = call.function
            text = "" if function is None else (function.name or "") + (function.arguments or "")
            if text:
                sight.add(text, place)
                came = True
        return came
