"""Every engine goes on with an answer that another one had to leave; the real llama.cpp with the demo model too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from engine_rig import LONG_TEXT, Running, collect, running_engine, spec_of, text_of
from resume_bed import ECHO, KINDS, rest
from swarmesh.config.home import Home
from swarmesh.core.errors import ResumeDivergedError, TaskRefusedError
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.wire.flow import ExecuteRequest, Usage
from swarmesh.wire.resume import Resume


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


@pytest.fixture(params=KINDS)
async def running(request: pytest.FixtureRequest, home: Home) -> AsyncIterator[Running]:
    async with running_engine(spec_of(request.param, home)) as running:
        yield running


@pytest.fixture
async def llama(home: Home) -> AsyncIterator[Running]:
    async with running_engine(spec_of("llama_cpp", home)) as running:
        yield running


@pytest.fixture
async def fake(home: Home) -> AsyncIterator[Running]:
    async with running_engine(spec_of("fake", home, class_path="tokens=40")) as running:
        yield running


def prompt_for(running: Running) -> str:
    return ECHO if running.spec.engine == "python_class" else LONG_TEXT


def resume_after(events: list[EngineEvent], *, by_text: bool = False) -> Resume:
    tokens = [event for event in events if isinstance(event, Token)]
    ids = () if by_text else tuple(token_id for token in tokens for token_id in token.token_ids)
    return Resume(last_seq=len(tokens), text=text_of(list(tokens)), token_ids=ids)


def end_of(events: list[EngineEvent]) -> tuple[str, Usage]:
    done = events[-1]
    assert isinstance(done, Done)
    return done.finish_reason, done.usage


class TestTasks:
    """On the agent's own route."""

    async def test_from_every_token_the_rest_is_the_same(self, running: Running) -> None:
        request = ExecuteRequest(prompt=prompt_for(running), temperature=0.0, max_tokens=40)
        whole = await collect(running.engine, request)
        for cut in range(len(whole)):
            events = await rest(running, request, resume_after(whole[:cut]))
            assert events[:-1] == whole[cut:-1]
            assert end_of(events) == end_of(whole)

    async def test_the_text_alone_will_do(self, running: Running) -> None:
        request = ExecuteRequest(prompt=prompt_for(running), temperature=0.0, max_tokens=40)
        whole = await collect(running.engine, request)
        for cut in (1, 3, len(whole) - 1):
            events = await rest(running, request, resume_after(whole[:cut], by_text=True))
            assert text_of(events) == text_of(whole[cut:])
            assert end_of(events) == end_of(whole)

    async def test_a_whole_song(self, llama: Running) -> None:
        request = ExecuteRequest(prompt=LONG_TEXT, temperature=0.0)
        whole = await collect(llama.engine, request)
        assert len(whole) > 400
        for cut in (1, 99, 300, len(whole) - 2, len(whole) - 1):
            events = await rest(llama, request, resume_after(whole[:cut]))
            assert events[:-1] == whole[cut:-1]
            assert end_of(events) == end_of(whole)

    @pytest.mark.parametrize("kind", ["fake", "llama_cpp"])
    async def test_a_stop_text_within_a_token_that_was_shown_has_ended_it(self, kind: str, home: Home) -> None:
        async with running_engine(spec_of(kind, home)) as running:
            request = ExecuteRequest(prompt=LONG_TEXT, temperature=0.0, max_tokens=40)
            stop = text_of((await collect(running.engine, request))[3:6])[2:]
            request = msgspec.structs.replace(request, stop=[stop])
            whole = await collect(running.engine, request)
            for cut in range(len(whole)):
                events = await rest(running, request, resume_after(whole[:cut]))
                assert text_of(events) == text_of(whole[cut:])
                assert end_of(events) == end_of(whole)
            assert end_of(whole)[0] == "stop"

    async def test_a_context_that_is_full_ends_it_as_it_would_have(self, home: Home) -> None:
        async with running_engine(spec_of("llama_cpp", home, context_tokens=64, slots=1)) as running:
            request = ExecuteRequest(prompt=LONG_TEXT, temperature=0.0)
            whole = await collect(running.engine, request)
            assert end_of(whole)[0] == "length"
            for cut in (len(whole) - 2, len(whole) - 1):
                assert end_of(await rest(running, request, resume_after(whole[:cut]))) == end_of(whole)
            with pytest.raises(TaskRefusedError, match="context"):
                await rest(running, ExecuteRequest(prompt="bee " * 999), Resume(text=" a", token_ids=(5,), last_seq=1))

    @pytest.mark.parametrize(
        ("kind", "shown"),
        [
            ("fake", Resume(last_seq=1, text="two")),
            ("fake", Resume(last_seq=1, text="two", token_ids=(1,))),
            ("python_class", Resume(last_seq=1, text="two")),
            ("python_class", Resume(last_seq=2, text="one")),
            ("python_class", Resume(last_seq=99, text=ECHO)),
        ],
    )
    async def test_another_beginning_is_refused(self, kind: str, shown: Resume, home: Home) -> None:
        async with running_engine(spec_of(kind, home)) as running:
            with pytest.raises(ResumeDivergedError):
                await rest(running, ExecuteRequest(prompt=ECHO), shown)
