"""OpenAI's requests as the relay reads them: an allow-list with ranges, the rest dropped at the door.

What is only passed on (messages, tools, schemas) stays raw bytes; it is checked to be JSON and no more. Structs are
mutable on purpose: the relay takes our own fields out before it encodes what the engine gets.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from swarmesh.core.ids import Priority
from swarmesh.wire.flow import MaxTokens, StopList, StopText, Temperature
from swarmesh.wire.prefix import BLOCK_BYTES, prefix_of
from swarmesh.wire.resume import FIELD as RESUME_FIELD
from swarmesh.wire.resume import Resume

ModelText = Annotated[str, msgspec.Meta(max_length=128)]
Penalty = Annotated[float, msgspec.Meta(ge=-2.0, le=2.0)]
Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Choices = Annotated[int, msgspec.Meta(ge=1, le=16)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

MaxTokensSet = MaxTokens | None | UnsetType
JsonSet = msgspec.Raw | UnsetType


class StreamOptions(msgspec.Struct):
    """Whether the last chunk of a stream tells the usage."""

    include_usage: bool = False


class Sampling(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What chat and plain completions have in common. UNSET and null both mean: not said."""

    model: ModelText = ""
    stream: bool | UnsetType | None = UNSET
    stream_options: StreamOptions | UnsetType | None = UNSET
    max_tokens: MaxTokensSet = UNSET
    temperature: Temperature | UnsetType | None = UNSET
    top_p: Probability | UnsetType | None = UNSET
    n: Choices | UnsetType | None = UNSET
    stop: StopText | StopList | UnsetType | None = UNSET
    seed: Seed | UnsetType | None = UNSET
    presence_penalty: Penalty | UnsetType | None = UNSET
    frequency_penalty: Penalty | UnsetType | None = UNSET
    logit_bias: JsonSet = UNSET
    user: Annotated[str, msgspec.Meta(max_length=512)] | UnsetType | None = UNSET
    # llama.cpp's and vLLM's own, which many clients send.
    top_k: Annotated[int, msgspec.Meta(ge=-1, le=1000000)] | UnsetType | None = UNSET
    min_p: Probability | UnsetType | None = UNSET
    repeat_penalty: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] | UnsetType | None = UNSET
    # Ours: what a client may say, and what the queen says to a worker. See `Sampling.entered`.
    priority: Priority | UnsetType = UNSET
    background: bool | UnsetType = UNSET
    resume: Resume | UnsetType = msgspec.field(name=RESUME_FIELD, default=UNSET)

    def streams(self) -> bool:
        """Whether the answer is wanted token by token."""
        return self.stream is True

    def wants_usage(self) -> bool:
        """Whether the stream is to end with its usage."""
        return isinstance(self.stream_options, StreamOptions) and self.stream_options.include_usage

    def continues_by_tokens(self) -> bool:
        """Whether a begun answer is all said by its tokens, so that a worker can go on after them."""
        return self.choices() == 1

    def fingerprint(self) -> int:
        """Equal for requests that ask the same of a model."""
        return 0

    def prefix(self) -> tuple[int, ...]:
        """How its prompt begins, see `swarmesh.wire.prefix`: a chat's next turn begins as the one before."""
        return ()

    def bound_tokens(self) -> int:
        """The most tokens this request may write, 0 when it sets no bound."""
        return self.max_tokens or 0

    def choices(self) -> int:
        """How many answers are asked for."""
        return self.n or 1

    def prompt_chars(self) -> int:
        """Size of the prompt for the ledger's prediction; JSON's own characters count too, that close it need be."""
        return 0


class ChatRequest(Sampling, kw_only=True, omit_defaults=True):
    """``POST /v1/chat/completions``."""

    target: ClassVar[bytes] = b"/v1/chat/completions"

    messages: msgspec.Raw
    max_completion_tokens: MaxTokensSet = UNSET
    logprobs: bool | UnsetType | None = UNSET
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | UnsetType | None = UNSET
    response_format: JsonSet = UNSET
    tools: JsonSet = UNSET
    tool_choice: JsonSet = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | UnsetType | None = UNSET
    chat_template_kwargs: JsonSet = UNSET

    def continues_by_tokens(self) -> bool:
        """See `Sampling.continues_by_tokens`: calls and schemas are parsed or enforced from the first token on."""
        return super().continues_by_tokens() and not (
            _said(self.tools) or _said(self.response_format) or _said(self.logprobs)
        )

    def fingerprint(self) -> int:
        """See `Sampling.fingerprint`."""
        return hash((self.model, bytes(self.messages)))

    def prefix(self) -> tuple[int, ...]:
        """See `Sampling.prefix`; templates put tools, and what else shapes them, before the first message."""
        messages = bytes(self.messages)
        if len(messages) < BLOCK_BYTES:
            return ()
        tools, template, effort = self.tools, self.chat_template_kwargs, self.reasoning_effort
        if tools is UNSET and template is UNSET and effort is UNSET:  # As in most requests, which are many.
            return prefix_of(messages)
        shapes = (tools, template, effort)
        return prefix_of(messages, hash(tuple(map(_hashable, shapes))) if any(map(_said, shapes)) else 0)

    def bound_tokens(self) -> int:
        """See `Sampling.bound_tokens`; the newer name wins."""
        return self.max_completion_tokens or self.max_tokens or 0

    def prompt_chars(self) -> int:
        """See `Sampling.prompt_chars`."""
        return len(bytes(self.messages))


class CompletionRequest(Sampling, kw_only=True, omit_defaults=True):
    """``POST /v1/completions``."""

    target: ClassVar[bytes] = b"/v1/completions"

    prompt: msgspec.Raw
    suffix: str | UnsetType | None = UNSET
    echo: bool | UnsetType | None = UNSET
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | UnsetType | None = UNSET

    def continues_by_tokens(self) -> bool:
        """See `Sampling.continues_by_tokens`; a list of prompts has an answer for each."""
        is_one = bytes(self.prompt)[:1] == b'"'
        return super().continues_by_tokens() and is_one and not (self.echo or self.suffix or _said(self.logprobs))

    def fingerprint(self) -> int:
        """See `Sampling.fingerprint`."""
        return hash((self.model, bytes(self.prompt)))

    def prefix(self) -> tuple[int, ...]:
        """See `Sampling.prefix`."""
        return prefix_of(bytes(self.prompt))

    def prompt_chars(self) -> int:
        """See `Sampling.prompt_chars`."""
        return len(bytes(self.prompt))


class EmbeddingRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``POST /v1/embeddings``."""

    target: ClassVar[bytes] = b"/v1/embeddings"

    input: msgspec.Raw
    model: ModelText = ""
    encoding_format: Literal["float", "base64"] | UnsetType | None = UNSET
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=65536)] | UnsetType | None = UNSET
    user: Annotated[str, msgspec.Meta(max_length=512)] | UnsetType | None = UNSET
    priority: Priority | UnsetType = UNSET

    def streams(self) -> bool:
        """An embedding comes whole."""
        return False

    def fingerprint(self) -> int:
        """See `Sampling.fingerprint`."""
        return hash((self.model, bytes(self.input)))

    def prefix(self) -> tuple[int, ...]:
        """Nothing that was read for one embedding is kept for another."""
        return ()

    def bound_tokens(self) -> int:
        """An embedding costs about one written token however long its input is."""
        return 1

    def choices(self) -> int:
        """An embedding request is one task."""
        return 1

    def prompt_chars(self) -> int:
        """See `Sampling.prompt_chars`."""
        return len(bytes(self.input))


def _said(value: object) -> bool:
    return value is not UNSET and value is not None and value is not False and value != b"null"


def _hashable(value: object) -> object:
    return bytes(value) if isinstance(value, msgspec.Raw) else value if _said(value) else None


OpenAiRequest = ChatRequest | CompletionRequest | EmbeddingRequest


class ModelEntry(msgspec.Struct, frozen=True):
    """One model of ``GET /v1/models``."""

    id: str
    created: int
    object: str = "model"
    owned_by: str = "swarmesh"


class ModelList(msgspec.Struct, frozen=True):
    """``GET /v1/models``."""

    data: list[ModelEntry]
    object: str = "list"
