"""What every hivecomb promises, whatever it is made of."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from swarmesh.core.errors import ConflictError, InvalidValueError, NotFoundError
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.task import TaskStatus
from swarmesh.store.errors import StoreClosedError
from swarmesh.store.memory import MemoryStore
from swarmesh.store.records import (
    UNFINISHED,
    AlarmRecord,
    DecisionRecord,
    HostRecord,
    KeyRecord,
    LaunchRecord,
    LoadTimeRecord,
    ScaleRecord,
    TaskPatch,
    TaskRecord,
    TokenRow,
    WorkerRecord,
)
from swarmesh.store.sqlite import SqliteStore
from swarmesh.store.store import (
    ALARMS_KEPT,
    DECISIONS_KEPT,
    DECISIONS_KEPT_MS,
    LOAD_TIMES_KEPT,
    READ_BYTES,
    READ_LIMIT,
    Store,
)

FULL_TASK = TaskRecord(
    task_id=TaskId("task-full"),
    status="failed",
    modelcell=ModelName("demo"),
    priority="low",
    key_id=KeyId("key-1"),
    request=b'{"prompt":"\xff not even UTF-8\\u0000"}',
    created_at_ms=1,
    idempotency_key="once",
    attempts=2,
    kills=1,
    epoch=3,
    worker_id=WorkerId("rustbee-4"),
    started_at_ms=5,
    finished_at_ms=6,
    prompt_tokens=7,
    completion_tokens=8,
    finish_reason="stop",
    error_code="engine_error",
    error_message="it broke",
    error_hint="try again",
)
WORKER = WorkerRecord(
    worker_id=WorkerId("rustbee-1"),
    modelcell=ModelName("demo"),
    backend="cpu",
    host="local",
    location="http://127.0.0.1:9",
    slots=4,
    status="healthy",
    pid=10,
    engine_pid=None,
    boot_id="boot",
    nonce="nonce",
    key_sha256=b"\x00\xff" * 16,
    direct=True,
    spec=b'{"modelcell":"demo"}',
    registered_at_ms=11,
)
HOST = HostRecord(
    name=HostName("mac"),
    address="mac.home.arpa",
    user="bee",
    port=2222,
    identity="/home/bee/.ssh/id \u00e9",
    proximity=0.1,
    fingerprint="SHA256:abc",
    added_at_ms=3,
    draining=True,
)
KEY = KeyRecord(key_id=KeyId("key-1"), name="laptop", role="client", sha256=b"\x01" * 32, created_at_ms=2)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else await SqliteStore.open(tmp_path / "hivecomb.db")
    yield opened
    await opened.close()


def a_task(name: str, **changes: object) -> TaskRecord:
    task = TaskRecord(
        task_id=TaskId(name),
        status=TaskStatus.QUEUED,
        modelcell=ModelName("demo"),
        priority=Priority.MEDIUM,
        key_id=KeyId("key-1"),
        request=b'{"prompt":"Hello"}',
        created_at_ms=100,
    )
    return replace(task, **changes)


def ids(tasks: list[TaskRecord]) -> list[str]:
    return [task.task_id for task in tasks]


async def test_every_field_of_a_task_comes_back(store: Store) -> None:
    assert await store.insert_task(FULL_TASK) == FULL_TASK
    assert await store.task(FULL_TASK.task_id) == FULL_TASK


async def test_an_unknown_task_is_none(store: Store) -> None:
    assert await store.task(TaskId("nobody")) is None


@pytest.mark.parametrize("status", list(TaskStatus))
async def test_every_status_of_the_core_can_be_kept(store: Store, status: TaskStatus) -> None:
    await store.insert_task(a_task("t", status=status))
    [kept] = await store.tasks(statuses=[status])
    assert TaskStatus(kept.status) is status
    assert len(await store.unfinished_tasks()) == (status in UNFINISHED)


async def test_the_same_idempotency_key_gives_the_first_task(store: Store) -> None:
    first = await store.insert_task(a_task("a", idempotency_key="k"))
    again = await store.insert_task(a_task("b", idempotency_key="k", request=b"{}"))
    assert again == first
    assert await store.task(TaskId("b")) is None


async def test_an_idempotency_key_belongs_to_its_api_key(store: Store) -> None:
    await store.insert_task(a_task("a", idempotency_key="k"))
    other = a_task("b", idempotency_key="k", key_id=KeyId("key-2"))
    assert await store.insert_task(other) == other


async def test_a_task_is_found_by_its_idempotency_key(store: Store) -> None:
    kept = await store.insert_task(a_task("a", idempotency_key="k"))
    assert await store.task_by_idempotency_key(KeyId("key-1"), "k") == kept
    assert await store.task_by_idempotency_key(KeyId("key-2"), "k") is None
    assert await store.task_by_idempotency_key(KeyId("key-1"), "other") is None
    await store.update_task(TaskId("a"), TaskPatch(status="done", finished_at_ms=1))
    assert await store.task_by_idempotency_key(KeyId("key-1"), "k") == replace(kept, status="done", finished_at_ms=1)
    await store.prune(2)
    assert await store.task_by_idempotency_key(KeyId("key-1"), "k") is None


async def test_a_resubmission_shows_the_present_state_of_the_first(store: Store) -> None:
    await store.insert_task(a_task("a", idempotency_key="k"))
    await store.update_task(TaskId("a"), TaskPatch(status="running"))
    assert (await store.insert_task(a_task("b", idempotency_key="k"))).status == "running"


async def test_two_at_once_with_one_idempotency_key_are_one_task(store: Store) -> None:
    tasks = [a_task(f"t{n}", idempotency_key="k") for n in range(20)]
    kept = await asyncio.gather(*(store.insert_task(task) for task in tasks))
    assert {task.task_id for task in kept} == {"t0"}
    assert len(await store.tasks()) == 1


async def test_a_task_id_is_used_once(store: Store) -> None:
    await store.insert_task(a_task("a"))
    with pytest.raises(ConflictError, match="task a exists"):
        await store.insert_task(a_task("a", request=b"{}"))
    with pytest.raises(ConflictError):
        await store.insert_task(a_task("a", idempotency_key="new"))
    assert await store.task(TaskId("a")) == a_task("a")


async def test_a_patch_changes_what_it_names_and_none_clears(store: Store) -> None:
    await store.insert_task(FULL_TASK)
    await store.update_task(FULL_TASK.task_id, TaskPatch(status="queued", worker_id=None, attempts=3))
    expected = replace(FULL_TASK, status="queued", worker_id=None, attempts=3)
    assert await store.task(FULL_TASK.task_id) == expected


async def test_a_patch_can_change_every_field_it_has(store: Store) -> None:
    await store.insert_task(a_task("a"))
    patch = TaskPatch("done", 1, 9, 2, WorkerId("w"), 3, 4, 5, 6, "stop", "code", "message", "hint")
    await store.update_task(TaskId("a"), patch)
    assert await store.task(TaskId("a")) == replace(a_task("a"), **patch.changes())


@pytest.mark.parametrize("patch", [TaskPatch(), TaskPatch(attempts=1)])
async def test_a_patch_of_an_unknown_task_is_an_error(store: Store, patch: TaskPatch) -> None:
    with pytest.raises(NotFoundError, match="no task nobody"):
        await store.update_task(TaskId("nobody"), patch)


async def test_an_empty_patch_changes_nothing(store: Store) -> None:
    await store.insert_task(FULL_TASK)
    await store.update_task(FULL_TASK.task_id, TaskPatch())
    assert await store.task(FULL_TASK.task_id) == FULL_TASK


async def test_tasks_are_listed_newest_first_without_their_requests(store: Store) -> None:
    for name, created_at_ms in [("a", 100), ("c", 300), ("b1", 200), ("b2", 200)]:
        await store.insert_task(a_task(name, created_at_ms=created_at_ms))
    listed = await store.tasks()
    assert ids(listed) == ["c", "b2", "b1", "a"]
    assert {task.request for task in listed} == {b""}
    assert ids(await store.tasks(limit=2)) == ["c", "b2"]
    assert ids(await store.tasks(before_ms=200)) == ["a"]


async def test_tasks_are_listed_by_status(store: Store) -> None:
    for status in TaskStatus:
        await store.insert_task(a_task(f"{status}", status=status))
    assert ids(await store.tasks(statuses=("done", "failed"))) == ["failed", "done"]
    assert ids(await store.tasks(statuses=("cancelled",))) == ["cancelled"]


async def test_tasks_of_one_key_are_listed_alone(store: Store) -> None:
    for number, key in enumerate(("ada", "bob", "ada", "bob")):
        await store.insert_task(a_task(f"{key}{number}", key_id=KeyId(key), created_at_ms=number, status="done"))
    assert ids(await store.tasks(key_id=KeyId("ada"))) == ["ada2", "ada0"]
    assert ids(await store.tasks(key_id=KeyId("ada"), limit=1, statuses=("done",))) == ["ada2"]
    assert ids(await store.tasks(key_id=KeyId("ada"), before_ms=2)) == ["ada0"]
    assert ids(await store.tasks(key_id=KeyId("eve"))) == []


async def test_unfinished_tasks_come_in_the_order_of_submission_with_their_requests(store: Store) -> None:
    for name, created_at_ms in [("late", 300), ("early", 100), ("over", 50), ("middle", 200)]:
        await store.insert_task(a_task(name, created_at_ms=created_at_ms))
    await store.update_task(TaskId("over"), TaskPatch(status="done"))
    await store.update_task(TaskId("late"), TaskPatch(status="preempted"))
    unfinished = await store.unfinished_tasks()
    assert ids(unfinished) == ["late", "early", "middle"]
    assert unfinished[0].request == b'{"prompt":"Hello"}'


async def test_tokens_come_back_as_they_were(store: Store) -> None:
    await store.insert_task(a_task("a"))
    rows = [
        TokenRow(1, "Hel", (101, 2**31)),
        TokenRow(2, "lo \U0001f41d \x00 \u2028 é"),
        TokenRow(3, "", (7,), b"\x89PNG\x00\xff", "image/png"),
        TokenRow(4, "", (), b"", "image/png"),
    ]
    await store.append_tokens(TaskId("a"), rows)
    assert await store.tokens(TaskId("a")) == rows


async def test_a_token_is_never_doubled_and_the_first_stays(store: Store) -> None:
    await store.insert_task(a_task("a"))
    await store.append_tokens(TaskId("a"), [TokenRow(1, "one"), TokenRow(3, "three")])
    await store.append_tokens(TaskId("a"), [TokenRow(1, "ONE"), TokenRow(2, "two"), TokenRow(2, "TWO")])
    assert [row.text for row in await store.tokens(TaskId("a"))] == ["one", "two", "three"]


async def test_tokens_are_read_from_a_place_on(store: Store) -> None:
    await store.insert_task(a_task("a"))
    await store.insert_task(a_task("b"))
    await store.append_tokens(TaskId("a"), [TokenRow(seq, str(seq)) for seq in range(1, 101)])
    await store.append_tokens(TaskId("b"), [TokenRow(1, "other")])
    assert [row.seq for row in await store.tokens(TaskId("a"), after_seq=97)] == [98, 99, 100]
    assert [row.seq for row in await store.tokens(TaskId("a"), after_seq=10, limit=2)] == [11, 12]
    assert await store.tokens(TaskId("a"), after_seq=100) == []
    assert await store.tokens(TaskId("nobody")) == []


async def test_a_read_of_large_outputs_is_bounded_in_bytes(store: Store) -> None:
    await store.insert_task(a_task("a"))
    piece = bytes(READ_BYTES // 2)
    for seq in range(1, 4):
        await store.append_tokens(TaskId("a"), [TokenRow(seq, "", (), piece, "image/png")])
    assert [row.seq for row in await store.tokens(TaskId("a"))] == [1, 2]
    assert [row.seq for row in await store.tokens(TaskId("a"), after_seq=2)] == [3]


@pytest.mark.parametrize("rows", [[], [TokenRow(1, "x")]])
async def test_tokens_need_their_task(store: Store, rows: list[TokenRow]) -> None:
    with pytest.raises(NotFoundError, match="no task nobody"):
        await store.append_tokens(TaskId("nobody"), rows)


async def test_kills_are_counted_from_zero(store: Store) -> None:
    kept = await store.insert_task(a_task("a"))
    assert kept.kills == 0
    await store.update_task(TaskId("a"), TaskPatch(kills=2))
    [found] = await store.unfinished_tasks()
    assert found == a_task("a", kills=2)


async def test_the_end_of_a_task_is_one_write(store: Store) -> None:
    await store.insert_task(a_task("a"))
    await store.append_tokens(TaskId("a"), [TokenRow(1, "one")])
    patch = TaskPatch(status="done", finished_at_ms=9, completion_tokens=3, finish_reason="stop")
    await store.finish_task(TaskId("a"), [TokenRow(1, "ONE"), TokenRow(2, "two"), TokenRow(3, "three")], patch)
    assert await store.task(TaskId("a")) == replace(a_task("a"), **patch.changes())
    assert [row.text for row in await store.tokens(TaskId("a"))] == ["one", "two", "three"]
    assert await store.unfinished_tasks() == []


async def test_a_task_may_end_without_further_tokens(store: Store) -> None:
    await store.insert_task(a_task("a"))
    await store.finish_task(TaskId("a"), [], TaskPatch(status="cancelled"))
    assert await store.task(TaskId("a")) == a_task("a", status="cancelled")
    assert await store.tokens(TaskId("a")) == []


@pytest.mark.parametrize("rows", [[], [TokenRow(1, "x")]])
async def test_an_unknown_task_does_not_end(store: Store, rows: list[TokenRow]) -> None:
    with pytest.raises(NotFoundError, match="no task nobody"):
        await store.finish_task(TaskId("nobody"), rows, TaskPatch(status="done"))
    assert await store.tokens(TaskId("nobody")) == []


async def test_whoever_sees_the_end_of_a_task_sees_all_its_tokens(store: Store) -> None:
    rows = [TokenRow(seq, f"{seq}") for seq in range(1, 21)]

    async def watch(task_id: TaskId) -> int:
        while True:
            task = await store.task(task_id)
            if task is not None and task.status == "done":
                return len(await store.tokens(task_id))
            await asyncio.sleep(0)

    async def live(task_id: TaskId) -> int:
        await store.insert_task(a_task(task_id))
        watching = asyncio.create_task(watch(task_id))
        await store.finish_task(task_id, rows, TaskPatch(status="done"))
        return await watching

    assert await asyncio.gather(*(live(TaskId(f"t{n}")) for n in range(10))) == [20] * 10


async def test_epochs_start_at_one_and_rise_by_one(store: Store) -> None:
    assert [await store.next_epoch() for _ in range(3)] == [1, 2, 3]
    assert sorted(await asyncio.gather(*(store.next_epoch() for _ in range(20)))) == list(range(4, 24))


async def test_an_epoch_is_above_what_workers_have_seen(store: Store) -> None:
    assert await store.next_epoch(above=41) == 42
    assert await store.next_epoch(above=7) == 43
    assert await store.next_epoch() == 44


async def test_writes_of_one_caller_happen_in_order(store: Store) -> None:
    await store.insert_task(a_task("a"))
    await asyncio.gather(
        *(store.update_task(TaskId("a"), TaskPatch(attempts=n)) for n in range(200)),
    )
    task = await store.task(TaskId("a"))
    assert task is not None
    assert task.attempts == 199


async def test_workers_are_put_replaced_and_deleted(store: Store) -> None:
    second = replace(WORKER, worker_id=WorkerId("rustbee-0"), direct=False, engine_pid=12)
    await store.put_worker(WORKER)
    await store.put_worker(second)
    assert await store.workers() == [second, WORKER]
    assert [worker.direct for worker in await store.workers()] == [False, True]
    assert type((await store.workers())[0].direct) is bool
    draining = replace(WORKER, status="draining")
    await store.put_worker(draining)
    await store.delete_worker(second.worker_id)
    await store.delete_worker(second.worker_id)
    assert await store.workers() == [draining]


async def test_hosts_are_put_replaced_and_deleted(store: Store) -> None:
    assert await store.hosts() == []
    second = replace(HOST, name=HostName("box"), draining=False, proximity=1.0, port=0, user="", identity="")
    await store.put_host(HOST)
    await store.put_host(second)
    assert await store.hosts() == [second, HOST]
    assert [type(host.draining) for host in await store.hosts()] == [bool, bool]
    assert type((await store.hosts())[0].proximity) is float
    resumed = replace(HOST, draining=False, fingerprint="SHA256:other")
    await store.put_host(resumed)
    await store.delete_host(second.name)
    await store.delete_host(second.name)
    assert await store.hosts() == [resumed]


async def test_bounds_are_put_replaced_and_deleted(store: Store) -> None:
    demo, every = ModelName("demo"), ModelName("")
    own, for_all = ScaleRecord(demo, 0, 3, paused=True, wish=b'{"slots":2}'), ScaleRecord(every, 1, 2)
    await store.put_scale(own)
    await store.put_scale(for_all)
    assert await store.scales() == [for_all, own]
    assert [type(record.paused) for record in await store.scales()] == [bool, bool]
    only_paused = ScaleRecord(demo, None, None, paused=True)
    await store.put_scale(only_paused)
    await store.delete_scale(every)
    await store.delete_scale(every)
    assert await store.scales() == [only_paused]
    for low, high in ((2, 1), (0, None), (-1, 1)):
        with pytest.raises(InvalidValueError):
            ScaleRecord(demo, low, high)


async def test_load_times_make_room_for_newer_ones(store: Store) -> None:
    demo = ModelName("demo")
    for number in range(LOAD_TIMES_KEPT):
        await store.put_load_time(LoadTimeRecord(demo, HostName(f"h{number:04d}"), number, number))
    again = LoadTimeRecord(demo, HostName("h0000"), 7, LOAD_TIMES_KEPT)
    await store.put_load_time(again)
    assert len(known := await store.load_times()) == LOAD_TIMES_KEPT
    assert known[0] == again
    await store.put_load_time(LoadTimeRecord(ModelName("a"), HostName("h"), 1, LOAD_TIMES_KEPT + 1))
    hosts = [record.host for record in await store.load_times()]
    assert hosts[:2] == ["h", "h0000"]
    assert "h0001" not in hosts
    assert len(hosts) == LOAD_TIMES_KEPT


async def test_launches_are_put_and_replaced(store: Store) -> None:
    second = LaunchRecord(ModelName("a"), b'{"modelcell":"a"}')
    await store.put_launch(LaunchRecord(ModelName("demo"), b"{}"))
    await store.put_launch(second)
    newer = LaunchRecord(ModelName("demo"), b'{"slots":2}')
    await store.put_launch(newer)
    assert await store.launches() == [second, newer]


async def test_keys_are_put_replaced_and_deleted(store: Store) -> None:
    second = replace(KEY, key_id=KeyId("key-0"), role="admin", concurrency=4, tokens_per_minute=20_000)
    await store.put_key(KEY)
    await store.put_key(second)
    assert await store.keys() == [second, KEY]
    await store.put_key(replace(KEY, name="desk"))
    await store.delete_key(second.key_id)
    await store.delete_key(second.key_id)
    assert await store.keys() == [replace(KEY, name="desk")]


async def test_alarms_are_numbered_and_listed_newest_first(store: Store) -> None:
    first = await store.append_alarm(AlarmRecord(WorkerId("w"), "engine_died", "signal 9", 1, alarm_id=77))
    second = await store.append_alarm(AlarmRecord(None, "disk", "slow", 2))
    assert second.alarm_id > first.alarm_id
    assert await store.alarms() == [second, first]
    assert await store.alarms(limit=1) == [second]


async def test_old_alarms_make_room(store: Store) -> None:
    alarm = AlarmRecord(None, "storm", "again", 1)
    kept = await asyncio.gather(*(store.append_alarm(alarm) for _ in range(ALARMS_KEPT + 5)))
    listed = await store.alarms(limit=READ_LIMIT)
    assert listed == sorted(kept, key=lambda one: -one.alarm_id)[:ALARMS_KEPT]


async def test_decisions_come_back_by_age_and_place(store: Store) -> None:
    kinds = ("admit", "score", "place", "scale")
    made = [DecisionRecord(at_ms, kind, b'{"n":%d}' % at_ms) for at_ms, kind in enumerate(kinds, start=10)]
    await store.append_decisions(made[:1])
    await store.append_decisions([])
    await store.append_decisions(made[1:])
    first, *others = kept = await store.decisions(0)
    assert [replace(each, decision_id=0) for each in kept] == made
    assert [each.decision_id for each in kept] == sorted({each.decision_id for each in kept})
    assert await store.decisions(11) == others
    assert await store.decisions(0, after_id=first.decision_id, limit=2) == others[:2]
    assert await store.decisions(0, after_id=others[-1].decision_id) == []


async def test_old_decisions_make_room(store: Store) -> None:
    await store.append_decisions([DecisionRecord(1, "score", b"{}"), DecisionRecord(2, "score", b"{}")])
    await store.append_decisions([DecisionRecord(1 + DECISIONS_KEPT_MS, "score", b"{}")])
    assert [each.at_ms for each in await store.decisions(0)] == [1, 2, 1 + DECISIONS_KEPT_MS]
    await store.append_decisions([DecisionRecord(2 + DECISIONS_KEPT_MS, "score", b"{}")])
    assert [each.at_ms for each in await store.decisions(3)] == [1 + DECISIONS_KEPT_MS, 2 + DECISIONS_KEPT_MS]
    assert [each.at_ms for each in await store.decisions(0, limit=1)] == [2]
    batch = [DecisionRecord(3 + DECISIONS_KEPT_MS, "score", b"{}")] * (DECISIONS_KEPT - 1)
    await store.append_decisions(batch)
    first_page = await store.decisions(0)
    rest = [await store.decisions(0, after_id=first_page[-1].decision_id)]
    while page := await store.decisions(0, after_id=rest[-1][-1].decision_id):
        rest.append(page)
    assert len(first_page) + sum(map(len, rest)) == DECISIONS_KEPT
    assert first_page[0].at_ms == 2 + DECISIONS_KEPT_MS


async def test_a_read_of_large_decisions_is_bounded_in_bytes(store: Store) -> None:
    large = DecisionRecord(1, "score", b"x" * (READ_BYTES // 2))
    await store.append_decisions([large] * 3)
    page = await store.decisions(0)
    assert len(page) == 2
    assert len(await store.decisions(0, after_id=page[-1].decision_id)) == 1


def test_a_decision_has_a_known_kind() -> None:
    with pytest.raises(InvalidValueError, match="decision kind is 'guess'"):
        DecisionRecord(1, "guess", b"{}")


async def test_prune_forgets_finished_tasks_with_their_tokens_and_idempotency_keys(store: Store) -> None:
    old = a_task("old", idempotency_key="k")
    await store.insert_task(old)
    await store.insert_task(a_task("running", status="running"))
    await store.insert_task(a_task("recent"))
    await store.append_tokens(TaskId("old"), [TokenRow(1, "x")])
    await store.append_tokens(TaskId("recent"), [TokenRow(1, "y")])
    await store.update_task(TaskId("old"), TaskPatch(status="done", finished_at_ms=500))
    await store.update_task(TaskId("recent"), TaskPatch(status="cancelled", finished_at_ms=1_000))
    assert await store.prune(1_000) == 1
    assert ids(await store.tasks()) == ["recent", "running"]
    assert await store.tokens(TaskId("old")) == []
    assert [row.text for row in await store.tokens(TaskId("recent"))] == ["y"]
    assert await store.insert_task(old) == old
    assert await store.tokens(TaskId("old")) == []
    assert await store.prune(1_000) == 0


async def test_prune_takes_any_number(store: Store) -> None:
    tasks = [a_task(f"t{n}", status="done", finished_at_ms=n) for n in range(450)]
    await asyncio.gather(*(store.insert_task(task) for task in tasks))
    assert await store.prune(440) == 440
    assert len(await store.tasks(limit=READ_LIMIT)) == 10


@pytest.mark.parametrize("limit", [0, -1, READ_LIMIT + 1])
async def test_reads_are_bounded(store: Store, limit: int) -> None:
    with pytest.raises(InvalidValueError, match=f"limit is {limit}"):
        await store.tasks(limit=limit)
    with pytest.raises(InvalidValueError):
        await store.tokens(TaskId("a"), limit=limit)
    with pytest.raises(InvalidValueError):
        await store.alarms(limit=limit)
    with pytest.raises(InvalidValueError):
        await store.decisions(0, limit=limit)


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreClosedError):
        await store.insert_task(FULL_TASK)
    with pytest.raises(StoreClosedError):
        await store.task(FULL_TASK.task_id)
    with pytest.raises(StoreClosedError):
        await store.finish_task(FULL_TASK.task_id, [], TaskPatch())
    with pytest.raises(StoreClosedError):
        await store.next_epoch()
    with pytest.raises(StoreClosedError):
        await store.put_host(HOST)
    with pytest.raises(StoreClosedError):
        await store.hosts()
