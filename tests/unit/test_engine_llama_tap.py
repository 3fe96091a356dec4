"""Token ids out of chunks as llama.cpp's server sent them, recorded; what was added for them is taken out again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from swarmesh.core.errors import BadInputError
from swarmesh.engines.llama_tap import LlamaTap, asking_for_ids
from swarmesh.engines.openai_dialect import Lookup, OpenAiAsk, Tapped, read_ask

AROUND = b'"created":1,"id":"chatcmpl-x","model":"demo","system_fingerprint":"b0","object":"chat.completion.chunk"'
TEXT_AROUND = b'"created":1,"model":"demo","system_fingerprint":"b0","object":"text_completion","id":"chatcmpl-x"'


class NoIds:
    async def ids_of(self, text: str, count: int, last: int) -> tuple[int, ...]:
        return (count, last)


def said(token_id: int, text: str) -> bytes:
    one = {"id": token_id, "token": text, "bytes": list(text.encode()), "prob": 1.0}
    return b',"logprobs":' + msgspec.json.encode({"content": [{**one, "top_probs": [one]}]})


def timed(count: int) -> bytes:
    timings = {"cache_n": 8, "prompt_ms": 0.2, "predicted_n": count, "predicted_per_second": 6042.29}
    return b',"timings":' + msgspec.json.encode(timings)


def chat(delta: dict[str, Any], added: tuple[int, str, int] | None = None) -> bytes:
    """A chunk of the chat route; ``added`` (id, its text, count) is what the client is not to see."""
    logprobs = said(added[0], added[1]) if added else b""
    timings = timed(added[2]) if added else b""
    head = b'data: {"choices":[{"finish_reason":null,"index":0,"delta":'
    return head + msgspec.json.encode(delta) + logprobs + b"}]," + AROUND + timings + b"}"


def completion(text: str, added: tuple[int, str, int] | None = None) -> bytes:
    logprobs = said(added[0], added[1])[1:] if added else b'"logprobs":null'
    timings = timed(added[2]) if added else b""
    head = b'data: {"choices":[{"text":' + msgspec.json.encode(text) + b',"index":0,'
    return head + logprobs + b',"finish_reason":null}],' + TEXT_AROUND + timings + b"}"


def test_a_chats_pieces_have_their_ids_and_nothing_that_was_not_asked_for() -> None:
    tap = LlamaTap(NoIds())
    role = chat({"role": "assistant", "content": None})
    assert tap.take(role) == Tapped(role)
    for count, (text, token_id) in enumerate([("Hello", 683), (' "quoted",\n', 7)], 1):
        assert tap.take(chat({"content": text}, (token_id, text, count))) == Tapped(
            chat({"content": text}), (token_id,)
        )


def test_an_answer_was_created_once_however_long_it_takes() -> None:
    tap = LlamaTap(NoIds())
    later = chat({"content": "x"}, (5, "x", 1)).replace(b'"created":1,', b'"created":23,')
    assert tap.take(chat({"role": "assistant", "content": None})).block.count(b'"created":1,') == 1
    assert tap.take(later).block == chat({"content": "x"})


def test_a_text_that_looks_like_what_is_taken_out_stays() -> None:
    text = ',"logprobs":null,"timings":{"predicted_n":3}'
    assert LlamaTap(NoIds()).take(chat({"content": text}, (5, text, 1))) == Tapped(chat({"content": text}), (5,))


def test_a_completions_pieces_too() -> None:
    tap = LlamaTap(NoIds())
    assert tap.take(completion("!", (7, "!", 1))) == Tapped(completion("!"), (7,))
    assert tap.take(completion(" I", (162, " I", 2))) == Tapped(completion(" I"), (162,))


def test_ids_of_a_completion_wait_for_text_that_could_have_been_a_stop() -> None:
    tap = LlamaTap(NoIds())
    assert tap.take(completion("", (100, "", 1))) == Tapped(completion(""))
    assert tap.take(completion("", (101, "", 2))) == Tapped(completion(""))
    assert tap.take(completion("abc", (102, "abc", 3))) == Tapped(completion("abc"), (100, 101, 102))


def test_ids_that_the_chat_route_did_not_tell_are_looked_up() -> None:
    tap = LlamaTap(NoIds())
    first = tap.take(chat({"role": "assistant", "content": None}, (100, "", 1)))
    assert first == Tapped(chat({"role": "assistant", "content": None}))
    assert tap.take(chat({"content": "a🐝"}, (160, "a🐝", 5))).lookup == Lookup("a🐝", 5, 160)
    assert tap.take(chat({"content": "s"}, (118, "s", 6))) == Tapped(chat({"content": "s"}), (118,))
    assert tap.take(chat({"content": "abcd"}, (103, "abcd", 10))).lookup == Lookup("abcd", 4, 103)


async def test_a_lookup_asks_the_server() -> None:
    assert await LlamaTap(NoIds()).look_up(Lookup("x", 3, 9)) == (3, 9)


def test_thoughts_have_no_ids_and_do_not_count_for_what_follows() -> None:
    tap = LlamaTap(NoIds())
    assert tap.take(chat({"reasoning_content": "hm"}, (4, "hm", 3))) == Tapped(chat({"reasoning_content": "hm"}))
    assert tap.take(chat({"content": "so"}, (5, "so", 4))) == Tapped(chat({"content": "so"}), (5,))


def test_a_text_without_ids_says_that_they_are_not_known() -> None:
    block = chat({"content": "x"}).removesuffix(b"}") + timed(1) + b"}"
    assert LlamaTap(NoIds()).take(block) == Tapped(chat({"content": "x"}))


@pytest.mark.parametrize(
    "block",
    [
        b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],' + AROUND + timed(4) + b"}",
        b'data: {"choices":[],' + AROUND + b',"usage":{"completion_tokens":8}' + timed(8) + b"}",
        b'data: {"error":{"code":500,"message":"got exception","type":"server_error"}}',
        b"data: [DONE]",
        b": ping",
        b'data: {"choices":[{"logprobs":{"content":[{"id":"seven"}]}}],"timings":{}}',
    ],
)
def test_all_else_is_left_as_it_is(block: bytes) -> None:
    assert LlamaTap(NoIds()).take(block) == Tapped(block)


def test_the_fields_are_put_behind_the_clients() -> None:
    body = msgspec.json.decode(asking_for_ids(b'{"stream":true, "n_probs":0 }\n'))
    assert body == {"stream": True, "n_probs": 1, "post_sampling_probs": True, "timings_per_token": True}


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        (b'{"stream":true}', True),
        (b'{"n":1,"tools":null,"response_format":{"type":"text"},"logprobs":false}', True),
        (b'{"n":2}', False),
        (b'{"tools":[{"type":"function"}]}', False),
        (b'{"response_format":{"type":"json_object"}}', False),
        (b'{"logprobs":true}', False),
        (b'{"grammar":"root ::= \\"a\\""}', False),
    ],
)
def test_only_a_plain_request_is_changed(body: bytes, plain: bool) -> None:  # noqa: FBT001 - a test's case
    assert read_ask(body).plain is plain


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"n":"two"}', b'{"stream":"\xff"}'])
def test_a_body_that_makes_no_sense_is_for_the_engine_to_refuse(body: bytes) -> None:
    assert read_ask(body) == OpenAiAsk()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"stream":true,"swarmesh_resume":{"last_seq":"x"}}', "cannot be read"),
        (b'{"swarmesh_resume":{"last_seq":1}}', "only a stream"),
        (b'{"stream":true,"n":2,"swarmesh_resume":{"last_seq":1}}', "only a stream"),
    ],
)
def test_a_resume_point_that_cannot_be_followed_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        read_ask(body)
