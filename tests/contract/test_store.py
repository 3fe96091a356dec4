"""What every hivecomb promises, whatever it is made of."""

import asyncio

import pytest
from msgspec.structs import replace

from store_bed import FULL_TASK, a_task
from swarmesh.core.errors import InvalidValueError
from swarmesh.core.ids import HostName, KeyId, ModelName, TaskId, WorkerId
from swarmesh.store.errors import StoreClosedError
from swarmesh.store.records import (
    AlarmRecord,
    DecisionRecord,
    HostRecord,
    KeyRecord,
    LaunchRecord,
    LoadTimeRecord,
    ScaleRecord,
    TaskPatch,
    WorkerRecord,
)
from swarmesh.store.store import (
    ALARMS_KEPT,
    DECISIONS_KEPT,
    DECISIONS_KEPT_MS,
    LOAD_TIMES_KEPT,
    READ_BYTES,
    READ_LIMIT,
    Store,
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
    numbers = range(LOAD_TIMES_KEPT)
    records = [LoadTimeRecord(demo, HostName(f"h{number:04d}"), number, number) for number in numbers]
    await asyncio.gather(*map(store.put_load_time, records))
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
