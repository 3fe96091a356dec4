"""Whatever dies, what a client sees is one answer: the quick part of ``python -m bench.reliability``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from bench.reliability import processes
from bench.reliability.case import Case
from bench.reliability.chat import Chat
from bench.reliability.faults import Fault
from bench.reliability.hive import Hive
from bench.reliability.nectarflow import Nectarflow
from bench.reliability.promises import Promises
from bench.reliability.queen_lives import PROBE, engine_pids, kill_and_start
from bench.reliability.question import Question, Surface
from bench.reliability.recital import SONG, SPEC
from bench.reliability.result import Run
from bench.reliability.sight import Sight, difference
from bench.reliability.sse import events_of
from bench.reliability.together import Together, answers_to

FAKE = {"modelcell": "fake", "class_path": "fake:tokens=120,tokens_per_s=100", "slots": 4}
LONG = {**FAKE, "class_path": "fake:tokens=300,tokens_per_s=100"}
CRASHING = {"modelcell": "fake", "class_path": "fake:tokens=120,tokens_per_s=100,crash_at=20", "slots": 8}


@pytest.fixture(scope="module")
def demo() -> Iterator[Hive]:
    """A swarm on the demo model; tests break its rustbees and the next one has them replaced."""
    with Hive() as hive:
        hive.keep(SPEC, 2)
        yield hive


@pytest.fixture(scope="module", params=["nectarflow", "openai chat"])
def surface(demo: Hive, request: pytest.FixtureRequest) -> Iterator[Surface]:
    with closing(Chat(demo.openai_url, demo.key)) as chat:
        yield chat if request.param == chat.name else Nectarflow(demo.queen)


@pytest.fixture(scope="module")
def unbroken(surface: Surface) -> Sight:
    seen = surface.ask(SONG)
    assert seen.whole
    assert seen.count > 400
    return seen


@pytest.fixture
def fresh_hive() -> Iterator[Hive]:
    with Hive() as hive:
        yield hive


def assert_equal(run: Run) -> None:
    print(run)  # Shown with pytest -s, and where it fails.
    assert run.mid_stream, "the fault came too late"
    assert not run.problems
    assert run.identical
    assert run.usage_equal
    assert run.lost == run.doubled == 0


def broken(hive: Hive, surface: Surface, unbroken: Sight, fault: Fault, *indexes: int) -> Run:
    """Break an answer; where the engine was done before that, every time, break the next one much earlier."""
    case = Case("test", fault.value, hive, SPEC, surface, SONG, unbroken, fault)
    run = case.run(indexes)
    return run if run.mid_stream else case.run(tuple(1 + index // 4 for index in indexes))


@pytest.mark.parametrize("index", [1, 200, 450])
def test_kill_9_of_the_engine(demo: Hive, surface: Surface, unbroken: Sight, index: int) -> None:
    assert_equal(broken(demo, surface, unbroken, Fault.ENGINE_KILLED, index))


def test_kill_9_of_the_whole_rustbee(demo: Hive, surface: Surface, unbroken: Sight) -> None:
    assert_equal(broken(demo, surface, unbroken, Fault.RUSTBEE_KILLED, 250))


def test_two_kills_in_one_stream(demo: Hive, surface: Surface, unbroken: Sight) -> None:
    assert_equal(broken(demo, surface, unbroken, Fault.ENGINE_KILLED, 100, 350))


def test_sigstop_of_the_engine(demo: Hive, surface: Surface, unbroken: Sight) -> None:
    stopped = demo.keep(SPEC, 2)
    try:
        run = broken(demo, surface, unbroken, Fault.ENGINE_STOPPED, 150)
    finally:
        for row in stopped:
            processes.go_on(row.engine_pid)
    assert_equal(run)
    assert run.recovered_ms is not None
    assert run.recovered_ms < 30_000


def test_kill_9_of_the_queen(fresh_hive: Hive) -> None:
    hive = fresh_hive
    hive.keep(FAKE, 1)
    hive.keep(PROBE, 1)
    flow = Nectarflow(hive.queen)
    questions = [Question("fake", f"What did bee number {number} see?") for number in range(8)]
    expected = answers_to(flow, questions)
    engines = engine_pids(hive, 2)
    promises = Promises(flow)
    for number, question in enumerate(questions):  # Four of them run, four wait.
        assert promises.make(question, f"key-{number}")
    followed = Sight()
    follower = threading.Thread(target=flow.follow, args=(promises.made[0].job_id,), kwargs={"sight": followed})
    follower.start()
    hive.until(lambda: followed.count > 20, 10, "a stream under way")
    death = kill_and_start(hive)
    up_s = flow.health()["uptime_s"]
    print(f"routed after {death.routed_ms:.0f} ms")  # Shown with pytest -s.
    follower.join()
    assert engine_pids(hive, 2) == engines, "no engine was restarted"
    differs = difference(followed, expected[questions[0].prompt])
    assert differs.identical, (followed.error, differs)
    assert differs.usage_equal
    kept = promises.kept(expected)
    assert kept.all, kept
    assert up_s < 5, "of her own life, however long the machine takes to start programs"


def test_a_poisoned_request_takes_two_engines_and_nobody_elses_answer(fresh_hive: Hive) -> None:
    hive = fresh_hive
    before = {row.rustbee_id: row.engine_pid for row in hive.keep(CRASHING, 3)}
    flow = Nectarflow(hive.queen)
    questions = [Question("fake", f"What did bee number {number} drink?") for number in range(6)]
    expected = answers_to(flow, questions)
    bystanders = Together(flow, questions)
    poison = Question("fake", "What is poison?")
    assert flow.ask(poison).error == "failed_poison"
    assert flow.ask(poison).error in {"failed_poison", "quarantined"}
    for question, seen in zip(questions, bystanders.join(), strict=True):
        differs = difference(seen, expected[question.prompt])
        assert differs.identical, (seen.error, differs)
        assert differs.usage_equal
    after = {row.rustbee_id: row.engine_pid for row in hive.rustbees()}
    assert sum(after.get(name) != pid for name, pid in before.items()) <= 2


class LeftError(Exception):
    """The client has gone away."""


@pytest.mark.parametrize("by_header", [True, False], ids=["Last-Event-ID", "after"])
def test_a_client_that_comes_back_gets_exactly_the_rest(fresh_hive: Hive, *, by_header: bool) -> None:
    fresh_hive.keep(LONG, 1)
    flow = Nectarflow(fresh_hive.queen)
    question = Question("fake", "What did the client miss?")
    expected = flow.ask(question)
    job_id = flow.submit(question)
    seen = Sight()

    def leave(sight: Sight) -> None:
        if sight.count == 30:
            raise LeftError

    with pytest.raises(LeftError):
        flow.follow(job_id, leave, seen)
    assert flow.view(job_id)["status"] == "running"
    assert rest_of(fresh_hive, job_id, 30, by_header=by_header) == list(range(31, expected.count + 1))  # While it runs.
    fresh_hive.until(lambda: flow.view(job_id)["status"] == "done", 10, "it is done")
    assert rest_of(fresh_hive, job_id, 30, by_header=by_header) == list(range(31, expected.count + 1))  # Afterwards.
    flow.follow(job_id, sight=seen)
    differs = difference(seen, expected)
    assert differs.identical, differs
    assert differs.usage_equal


def rest_of(hive: Hive, job_id: str, after: int, *, by_header: bool) -> list[Any]:
    """Numbers of the token events of a stream that begins after one; it has to end as an answer does."""
    query = "" if by_header else f"?after={after}"
    headers = {"accept": "text/event-stream", **({"last-event-id": str(after)} if by_header else {})}
    connection, response = hive.queen.open("GET", f"/v2/swarmesh/honeytokens/{job_id}{query}", headers=headers)
    events = list(events_of(response))
    connection.close()
    assert events[-1].name == "done"
    return [event.seq for event in events[:-1]]
