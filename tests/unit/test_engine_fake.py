"""The fake engine: exact to the token, whatever is asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
import pytest

from swarmesh.core.errors import EngineStartError, ResumeDivergedError, TaskRefusedError
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.engines.fake import FakeRunner, FakeSettings, fake_tokens, read_settings
from swarmesh.engines.fake_shapes import WORDS
from swarmesh.wire.flow import ExecuteRequest, Message
from swarmesh.wire.resume import Resume


async def run(request: ExecuteRequest, settings: FakeSettings | None = None) -> tuple[list[Token], Done]:
    runner = FakeRunner(settings or FakeSettings(), slots=1, context_tokens=1000)
    events: list[EngineEvent] = [event async for event in runner.execute(request)]
    done = events.pop()
    assert isinstance(done, Done)
    return [event for event in events if isinstance(event, Token)], done


def text_of(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)


def chat(*turns: str) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(roles[n % 2], msgspec.Raw(msgspec.json.encode(turn))) for n, turn in enumerate(turns)]


async def test_the_text_is_a_function_of_the_prompt() -> None:
    first, done = await run(ExecuteRequest(prompt="a"))
    again, _ = await run(ExecuteRequest(messages=chat("a")))
    other, _ = await run(ExecuteRequest(prompt="b"))
    assert first == again != other
    assert done.finish_reason == "stop"
    assert done.usage.completion_tokens == len(first) >= 20
    assert all(WORDS[token.token_ids[0] - 1] == token.text.strip() for token in first)


async def test_it_speaks_in_more_than_ascii() -> None:
    text = text_of((await run(ExecuteRequest(prompt="x"), FakeSettings(tokens=200)))[0])
    assert not text.isascii()


async def test_a_seed_matters_only_with_a_temperature() -> None:
    cold = [(await run(ExecuteRequest(prompt="a", seed=seed, temperature=0.0)))[0] for seed in (1, 2)]
    warm = [(await run(ExecuteRequest(prompt="a", seed=seed, temperature=1.0)))[0] for seed in (1, 2, 1)]
    assert cold[0] == cold[1]
    assert warm[0] == warm[2] != warm[1]


@pytest.mark.parametrize("shown", [1, 2, 7, 39])
async def test_an_answer_that_was_begun_is_continued_token_for_token(shown: int) -> None:
    settings = FakeSettings(tokens=40)
    whole, _ = await run(ExecuteRequest(messages=chat("tell me")), settings)
    rest, done = await run(ExecuteRequest(messages=chat("tell me", text_of(whole[:shown]))), settings)
    assert whole[:shown] + rest == whole
    assert done.finish_reason == "stop"


async def test_a_whole_answer_is_continued_by_nothing() -> None:
    whole, _ = await run(ExecuteRequest(messages=chat("tell me")))
    rest, done = await run(ExecuteRequest(messages=chat("tell me", text_of(whole))))
    assert (rest, done.finish_reason) == ([], "stop")


async def test_max_tokens_cuts_and_says_so() -> None:
    tokens, done = await run(ExecuteRequest(prompt="a", max_tokens=5))
    assert tokens == (await run(ExecuteRequest(prompt="a")))[0][:5]
    assert done.finish_reason == "length"
    assert done.usage.completion_tokens == 5


async def test_a_stop_text_may_lie_across_tokens() -> None:
    whole, _ = await run(ExecuteRequest(prompt="a"))
    text = text_of(whole)
    stop = text[len(whole[0].text) - 1 : len(whole[0].text) + 2]
    tokens, done = await run(ExecuteRequest(prompt="a", stop=["never said", stop]))
    assert text_of(tokens) == text[: text.index(stop)]
    assert done.finish_reason == "stop"


async def test_a_prompt_without_end_is_refused() -> None:
    with pytest.raises(TaskRefusedError, match="1001 tokens, the context 1000"):
        await run(ExecuteRequest(prompt="bee " * 1000))


async def test_input_is_a_conversation_too() -> None:
    first, _ = await run(ExecuteRequest(input=msgspec.Raw(b'{"n": 1}')))
    second, _ = await run(ExecuteRequest(input=msgspec.Raw(b'{"n": 2}')))
    assert first != second


async def test_leaving_it_in_the_middle_is_fine() -> None:
    events: AsyncGenerator[EngineEvent, None] = FakeRunner(FakeSettings(), slots=1, context_tokens=100).execute(
        ExecuteRequest(prompt="a")
    )
    assert isinstance(await anext(events), Token)
    await events.aclose()


def test_settings_are_read_from_text() -> None:
    assert read_settings("") == FakeSettings()
    assert read_settings("tokens=200,tokens_per_s=50.5") == FakeSettings(tokens=200, tokens_per_s=50.5)


@pytest.mark.parametrize("text", ["speed=3", "tokens=many", "tokens"])
def test_settings_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(EngineStartError, match=text):
        read_settings(text)


def test_only_the_first_token_has_no_blank_before_it() -> None:
    tokens = fake_tokens("a", 3)
    assert [token.text[0] == " " for token in tokens] == [False, True, True]


def resume_of(tokens: list[Token], *, by_text: bool = False) -> Resume:
    ids = () if by_text else tuple(token_id for token in tokens for token_id in token.token_ids)
    return Resume(last_seq=len(tokens), text=text_of(tokens), token_ids=ids)


@pytest.mark.parametrize("by_text", [True, False])
async def test_an_answer_begun_elsewhere_is_continued_from_every_token(by_text: bool) -> None:  # noqa: FBT001 - a case
    settings = FakeSettings(tokens=40)
    first = text_of((await run(ExecuteRequest(prompt="a"), settings))[0])
    for request in (
        ExecuteRequest(prompt="a"),
        ExecuteRequest(prompt="a", max_tokens=7),
        ExecuteRequest(prompt="a", stop=[first[60:66]]),
    ):
        whole, done = await run(request, settings)
        for cut in range(len(whole) + 1):
            resume = resume_of(whole[:cut], by_text=by_text)
            assert await run(msgspec.structs.replace(request, resume=resume), settings) == (whole[cut:], done)


@pytest.mark.parametrize("resume", [Resume(text="nonsense"), Resume(token_ids=(1, 2, 3)), Resume(text=" ")])
async def test_what_it_would_not_have_begun_is_not_continued(resume: Resume) -> None:
    with pytest.raises(ResumeDivergedError):
        await run(ExecuteRequest(prompt="a", resume=resume))


@pytest.mark.parametrize(("shown", "written"), [(0, 3), (2, 1), (3, 0), (4, None)])
async def test_poison_crashes_it_at_the_same_token_wherever_it_began(shown: int, written: int | None) -> None:
    whole, _ = await run(ExecuteRequest(prompt="much poison"))

    def crash() -> None:
        raise SystemExit

    runner = FakeRunner(FakeSettings(crash_at=3), slots=1, context_tokens=1000, crash=crash)
    events = runner.execute(ExecuteRequest(prompt="much poison", resume=resume_of(whole[:shown])))
    seen = 0
    try:
        async for _ in events:
            seen += 1
    except SystemExit:
        assert seen == written
    else:
        assert written is None
