"""Who is let in, and as whom."""

from __future__ import annotations

import pytest

from swarmesh.config.worker_key import hive_id, host_secret, worker_key
from swarmesh.core.errors import ForbiddenError, UnauthorizedError
from swarmesh.core.ids import KeyId
from swarmesh.queen.keys import KEY_PREFIX, KeyRing, Role, key_hash, new_key
from swarmesh.store.records import KeyRecord

SECRET = bytes(range(32))
ADMIN, CLIENT = new_key(), new_key()


@pytest.fixture
def ring() -> KeyRing:
    roles = [("admin", ADMIN), ("client", CLIENT)]
    return KeyRing([KeyRecord(KeyId(role), role, role, key_hash(key), 0) for role, key in roles], SECRET)


def header(key: str) -> bytes:
    return f"Bearer {key}".encode()


def test_new_keys_are_long_and_never_the_same() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith(KEY_PREFIX) and len(key) == len(KEY_PREFIX) + 43 for key in keys)


def test_a_known_key_is_who_it_is(ring: KeyRing) -> None:
    assert ring.identify(header(ADMIN)).role is Role.ADMIN
    assert ring.identify(header(CLIENT)).role is Role.CLIENT
    assert ring.identify(b"bearer  " + ADMIN.encode() + b" ").key_id == "admin"
    worker = ring.identify(header(worker_key(SECRET, "rustbee-1")))
    assert (worker.role, worker.worker_id) == (Role.WORKER, "rustbee-1")


def test_a_key_sees_its_own_tasks_and_the_admins_all(ring: KeyRing) -> None:
    assert ring.identify(header(ADMIN)).sees is None
    assert ring.identify(header(CLIENT)).sees == "client"
    assert ring.identify(header(worker_key(SECRET, "rustbee-1"))).sees == "worker:rustbee-1"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer  ",
        b"Basic " + ADMIN.encode(),
        ADMIN.encode(),
        header(ADMIN[:-1]),
        header(ADMIN + "x"),
        header(ADMIN.lower()),
        header(f"{ADMIN}, Bearer {ADMIN}"),
        header(worker_key(bytes(32), "rustbee-1")),
        b"Bearer rustbee.\xe4.\xff",
        b"Bearer \xff",
    ],
)
def test_anything_else_is_nobody(ring: KeyRing, authorization: bytes | None) -> None:
    with pytest.raises(UnauthorizedError) as raised:
        ring.identify(authorization)
    assert ADMIN not in raised.value.message


def test_roles(ring: KeyRing) -> None:
    client = ring.identify(header(CLIENT))
    client.must_be(Role.ADMIN, Role.CLIENT)
    with pytest.raises(ForbiddenError, match="a client key"):
        client.must_be(Role.ADMIN)


def test_a_worker_speaks_for_itself_an_admin_for_all_a_client_for_none(ring: KeyRing) -> None:
    worker = ring.identify(header(worker_key(SECRET, "a")))
    worker.must_speak_for("a")
    with pytest.raises(ForbiddenError, match="the key of a does not speak for b"):
        worker.must_speak_for("b")
    ring.identify(header(ADMIN)).must_speak_for("b")
    with pytest.raises(ForbiddenError):
        ring.identify(header(CLIENT)).must_speak_for("a")


def test_a_host_speaks_for_its_own_workers_only(ring: KeyRing) -> None:
    key = worker_key(host_secret(SECRET, "mac", 1), "rustbee-1")
    with pytest.raises(UnauthorizedError):
        ring.identify(header(key))
    assert ring.add_host("mac", 1) == host_secret(SECRET, "mac", 1)
    ring.add_host("oak", 1)
    worker = ring.identify(header(key))
    assert (worker.role, worker.worker_id, worker.host) == (Role.WORKER, "rustbee-1", "mac")
    assert ring.identify(header(worker_key(SECRET, "rustbee-1"))).host == "localhost"
    assert ring.worker_key("mac", "rustbee-1") == key
    ring.add_host("mac", 2)
    with pytest.raises(UnauthorizedError):
        ring.identify(header(key))  # It was removed and added again; this is the machine before.
    ring.remove_host("mac")
    with pytest.raises(UnauthorizedError):
        ring.identify(header(key))


def test_hosts_cannot_make_the_keys_of_others() -> None:
    secrets = {SECRET, host_secret(SECRET, "mac", 1), host_secret(SECRET, "oak", 1), host_secret(bytes(32), "mac", 1)}
    assert len(secrets) == 4
    assert hive_id(SECRET) != hive_id(bytes(32))
    assert len(hive_id(SECRET)) == 12


def test_a_ring_learns_and_forgets_at_once(ring: KeyRing) -> None:
    key = new_key()
    record = KeyRecord(KeyId("key-1"), "laptop", "client", key_hash(key), 1, 4)
    ring.add(record)
    assert ring.identify(header(key)).key_id == "key-1"
    assert [known.key_id for known in ring.records()] == ["admin", "client", "key-1"]
    ring.remove(record)
    with pytest.raises(UnauthorizedError):
        ring.identify(header(key))
    assert len(ring.records()) == 2
    ring.remove(record)
