"""Keys made, shown and taken back while the queen runs, through the routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from served_api import ServedApi, serving_api
from swarmesh.core.errors import StoreError, UnauthorizedError
from swarmesh.core.events import Ticked
from swarmesh.core.ids import KeyId
from swarmesh.core.limits import REVOKED_KEPT_MS, KeyBook
from swarmesh.core.swarm import Swarm
from swarmesh.queen.api.keys import KEYS, key_routes
from swarmesh.queen.api.openapi import document
from swarmesh.queen.driver import Driver, now_ms
from swarmesh.queen.key_keeper import KeyKeeper
from swarmesh.queen.keys import KEY_PREFIX, KeyRing, Role, key_hash
from swarmesh.queen.links import Links
from swarmesh.store.memory import MemoryStore
from swarmesh.store.records import KeyRecord

ADMIN = KeyRecord(KeyId("admin"), "admin", "admin", key_hash("sk-admin"), 5)


class Store(MemoryStore):
    """Fails when it is told to."""

    fails = False

    async def delete_key(self, key_id: KeyId) -> None:
        await asyncio.sleep(0)
        if self.fails:
            raise StoreError("no")
        await super().delete_key(key_id)


@dataclass
class Bed:
    """Everything that has to stay in step."""

    api: ServedApi
    store: Store
    ring: KeyRing
    swarm: Swarm
    keeper: KeyKeeper

    def opens(self, key: str) -> bool:
        try:
            self.ring.identify(f"Bearer {key}".encode())
        except UnauthorizedError:
            return False
        return True

    def book(self, key_id: str) -> KeyBook:
        return self.swarm.dispatcher.limits.of(KeyId(key_id))


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    store, swarm = Store(), Swarm()
    ring = KeyRing([ADMIN], b"")
    await store.put_key(ADMIN)
    keeper = KeyKeeper(Driver(swarm, Links()), store, ring)
    async with serving_api(key_routes(keeper)) as api:
        yield Bed(api, store, ring, swarm, keeper)
        assert api.errors == []


async def test_a_key_works_at_once_and_only_its_hash_is_kept(bed: Bed) -> None:
    asked = {"name": "laptop", "concurrency": 4, "tokens_per_minute": 20_000}
    status, made = await bed.api.ask("POST", KEYS, asked)
    assert status == 201
    key = made.pop("key")
    assert key.startswith(KEY_PREFIX)
    assert bed.opens(key)
    assert bed.ring.identify(f"Bearer {key}".encode()).role is Role.CLIENT
    [_, kept] = await bed.store.keys()
    assert (kept.sha256, kept.concurrency, kept.tokens_per_minute) == (key_hash(key), 4, 20_000)
    book = bed.book(made["key_id"])
    assert (book.concurrency, book.tokens_per_minute) == (4, 20_000)
    status, listed = await bed.api.ask("GET", KEYS)
    assert (status, [view["name"] for view in listed["keys"]]) == (200, ["admin", "laptop"])
    assert listed["keys"][1] == {**made, "running": 0, "waiting": 0, "honeytokens": 0}
    assert key not in str(listed)
    assert key_hash(key).hex() not in str(listed)


async def test_a_revoked_key_opens_nothing_from_then_on(bed: Bed) -> None:
    _, made = await bed.api.ask("POST", KEYS, {"name": "laptop"})
    assert (await bed.api.ask("DELETE", f"{KEYS}/{made['key_id']}"))[0] == 204
    assert not bed.opens(made["key"])
    assert await bed.store.keys() == [ADMIN]
    status, said = await bed.api.ask("DELETE", f"{KEYS}/{made['key_id']}")
    assert (status, said["error"]["code"]) == (404, "not_found")
    assert (await bed.api.ask("POST", KEYS, {"name": "laptop"}))[0] == 201, "the name is free again"


async def test_the_limits_of_a_revoked_key_are_forgotten_and_those_of_one_that_stays_are_not(bed: Bed) -> None:
    made = [(await bed.api.ask("POST", KEYS, {"name": name, "concurrency": 4}))[1] for name in ("laptop", "phone")]
    laptop, phone = (each["key_id"] for each in made)
    await bed.api.ask("DELETE", f"{KEYS}/{laptop}")
    bed.store.fails = True
    await bed.api.ask("DELETE", f"{KEYS}/{phone}")
    assert (bed.book(laptop).concurrency, bed.book(phone).concurrency) == (4, 4)
    bed.swarm.handle(Ticked(), now_ms() + REVOKED_KEPT_MS)
    assert (bed.book(laptop), bed.book(phone).concurrency) == (KeyBook(), 4)


async def test_names_are_taken_once(bed: Bed) -> None:
    status, said = await bed.api.ask("POST", KEYS, {"name": "admin"})
    assert (status, said["error"]["param"]) == (409, "name")
    assert len(await bed.store.keys()) == 1


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"name": ""},
        {"name": "two\nlines"},
        {"name": "x" * 65},
        {"name": "x", "role": "worker"},
        {"name": "x", "concurrency": -1},
        {"name": "x", "tokens_per_minute": 1.5},
        {"name": "x", "key": "sk-mine"},
    ],
)
async def test_requests_that_make_no_sense(bed: Bed, asked: object) -> None:
    status, said = await bed.api.ask("POST", KEYS, asked)
    assert (status, said["error"]["code"]) == (400, "invalid_value")
    assert len(bed.ring.records()) == 1


async def test_the_last_admin_key_stays(bed: Bed) -> None:
    await bed.api.ask("POST", KEYS, {"name": "client"})
    status, said = await bed.api.ask("DELETE", f"{KEYS}/admin")
    assert (status, said["error"]["code"]) == (409, "conflict")
    assert "last admin key" in said["error"]["message"]
    _, other = await bed.api.ask("POST", KEYS, {"name": "second", "role": "admin"})
    answers = await asyncio.gather(*(bed.api.ask("DELETE", f"{KEYS}/{key}") for key in ("admin", other["key_id"])))
    assert sorted(status for status, _ in answers) == [204, 409], "also when both are revoked at once"
    assert [record.role for record in bed.ring.records()].count("admin") == 1


async def test_a_key_that_cannot_be_struck_stays(bed: Bed) -> None:
    _, made = await bed.api.ask("POST", KEYS, {"name": "laptop"})
    bed.store.fails = True
    status, _ = await bed.api.ask("DELETE", f"{KEYS}/{made['key_id']}")
    assert status == 500
    assert bed.opens(made["key"])


async def test_limits_of_the_hivecomb_are_told_at_the_start(bed: Bed) -> None:
    bed.ring.add(KeyRecord(KeyId("key-1"), "laptop", "client", key_hash("sk-1"), 1, 3, 500))
    bed.keeper.open()
    book = bed.book("key-1")
    assert (book.concurrency, book.tokens_per_minute, book.left) == (3, 500, 500)
    assert not bed.book("admin").is_limited


@pytest.mark.parametrize(("method", "path"), [("GET", KEYS), ("POST", KEYS), ("DELETE", f"{KEYS}/admin")])
async def test_they_are_for_admins_alone(bed: Bed, method: str, path: str) -> None:
    bed.api.role = Role.CLIENT
    status, said = await bed.api.ask(method, path)
    assert (status, said["error"]["code"]) == (403, "forbidden")


async def test_they_are_described(bed: Bed) -> None:
    described = document(key_routes(bed.keeper))
    assert set(described["paths"]) == {KEYS, f"{KEYS}/{{key_id}}"}


async def test_of_two_who_want_one_name_at_once_one_gets_it(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    put = bed.store.put_key

    async def slowly(record: KeyRecord) -> None:
        await asyncio.sleep(0)
        await put(record)

    monkeypatch.setattr(bed.store, "put_key", slowly)
    told = await asyncio.gather(*(bed.api.ask("POST", KEYS, {"name": "laptop"}) for _ in range(3)))
    assert sorted(status for status, _ in told) == [201, 409, 409]
    assert [record.name for record in bed.ring.records()].count("laptop") == 1


async def test_a_name_that_could_not_be_kept_is_free_again(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_record: KeyRecord) -> None:
        raise StoreError("no")

    with monkeypatch.context() as patched:
        patched.setattr(bed.store, "put_key", fails)
        assert (await bed.api.ask("POST", KEYS, {"name": "laptop"}))[0] == StoreError.status
    assert (await bed.api.ask("POST", KEYS, {"name": "laptop"}))[0] == 201
