"""How much of a prompt an engine had to read, as its last bytes say it.

An agent says it in a comment line before the end mark, ``: u 812,768,96``: tokens of the prompt, how many of them it
had in its cache (-1 when it does not know), tokens of the answer. Every SSE client ignores comments. Other servers,
and answers that are no stream, have OpenAI's ``usage`` or llama.cpp's ``timings`` near their end, if anything.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from swarmesh.core.events import TOKENS_TOLD_MAX
from swarmesh.core.ledger import CHARS_PER_TOKEN

LINE: Final = b": u "
TAIL_BYTES: Final = 2048
"""So much of an answer's end is looked through; what is told earlier is not found."""
UNKNOWN: Final = -1

_LINE: Final = re.compile(rb": u (\d{1,12}),(-1|\d{1,12}),(\d{1,12})")
# Within JSON's strings a quote is escaped, so that these names are found where they are meant and nowhere else.
_USAGE: Final = b'"usage"'
_TIMINGS: Final = b'"timings"'
_COUNT: Final = re.compile(rb"\s*:\s*(\d{1,12})(?![\d.])")
_ANSWER_ID: Final = re.compile(rb'"id"\s*:\s*"((?:chatcmpl|cmpl)-[A-Za-z0-9_.:-]{1,120})"')
_CONTENT: Final = re.compile(
    rb'"(?:content|text|reasoning_content|reasoning|arguments)"\s*:\s*"[^"]|"tool_calls"\s*:\s*\[\s*{'
)
_TEXT: Final = re.compile(
    rb'"(?:content|text|reasoning_content|reasoning|arguments)"\s*:\s*"((?:[^"\\]|\\.)+)"', re.DOTALL
)


class TokenCounts(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one answer.

    Attributes:
        prompt: 0 when nobody knows.
        cached: Those of the prompt that the engine did not have to read again; -1 when it does not say.
        completion: 0 when nobody knows.
    """

    prompt: int = 0
    cached: int = UNKNOWN
    completion: int = 0

    def line(self) -> bytes:
        """As an agent says it."""
        return b"%s%d,%d,%d\n" % (LINE, self.prompt, self.cached, self.completion)


NOT_TOLD: Final = TokenCounts()


def counted(prompt: int, cached: int, completion: int) -> TokenCounts:
    """What somebody tells, as far as it can be; `NOT_TOLD` when one of the numbers cannot."""
    if not (0 <= prompt <= TOKENS_TOLD_MAX and 0 <= completion <= TOKENS_TOLD_MAX):
        return NOT_TOLD
    return TokenCounts(prompt, min(cached, prompt) if cached >= 0 else UNKNOWN, completion)


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Answer(msgspec.Struct, frozen=True):
    id: str = ""
    usage: _Usage | None = None


_answer = msgspec.json.Decoder(_Answer)


def read_line(text: bytes) -> TokenCounts | None:
    """The counts in a comment line without its end; None when it has none."""
    found = _LINE.fullmatch(text)
    return counted(*map(int, found.groups())) if found is not None else None


def told_in_whole(body: bytes) -> tuple[TokenCounts, str] | None:
    """The counts and the id in the JSON of a whole answer; None when it cannot be read.

    Cheaper than `told_at_end` and `answer_id` where an answer is short.
    """
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    usage = answer.usage
    if usage is None:
        return NOT_TOLD, answer.id
    details = usage.prompt_tokens_details
    cached = details.cached_tokens if details is not None else None
    return counted(usage.prompt_tokens, UNKNOWN if cached is None else cached, usage.completion_tokens), answer.id


def told_at_end(tail: bytes) -> TokenCounts:
    """The counts in the last bytes of an answer, whatever framing is between them; `NOT_TOLD` when there are none."""
    start = tail.rfind(LINE)
    end = tail.find(b"\n", start) if start >= 0 else -1
    if end >= 0 and (told := read_line(tail[start:end])) is not None:
        return told
    start = tail.rfind(_USAGE)
    if start >= 0 and (prompt := _count(tail, b'"prompt_tokens"', start)) >= 0:
        cached = _count(tail, b'"cached_tokens"', start)
        return counted(prompt, cached, max(0, _count(tail, b'"completion_tokens"', start)))
    start = tail.rfind(_TIMINGS)
    if start >= 0 and (read := _count(tail, b'"prompt_n"', start)) >= 0:
        cached = _count(tail, b'"cache_n"', start)
        return counted(read + max(0, cached), cached, max(0, _count(tail, b'"predicted_n"', start)))
    return NOT_TOLD


def _count(tail: bytes, name: bytes, start: int) -> int:
    # Of two fields of one name the first counts: what follows it belongs to something else.
    at = tail.find(name, start)
    found = _COUNT.match(tail, at + len(name)) if at >= 0 else None
    return int(found.group(1)) if found is not None else UNKNOWN


def answer_id(data: bytes) -> str:
    """What an answer of OpenAI's text routes calls itself, empty when that is not in ``data``."""
    found = _ANSWER_ID.search(data)
    return found.group(1).decode("ascii") if found is not None else ""


def shown_tokens(data: bytes) -> int:
    """About how many tokens bytes of a stream bring: one in each event, more where their text is longer than that."""
    texts = _TEXT.findall(data)
    return max(len(texts), sum(map(len, texts)) // CHARS_PER_TOKEN)


def has_content(data: bytes) -> bool:
    """Whether bytes of a stream bring any of the answer, and not only its opening."""
    return _CONTENT.search(data) is not None
