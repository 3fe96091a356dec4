"""API keys while the queen runs: made, shown without themselves, and taken back at once."""

from __future__ import annotations

import secrets
import time

import structlog

from swarmesh.core.errors import ConflictError, NotFoundError
from swarmesh.core.events import KeyLimited, KeyRevoked
from swarmesh.core.ids import KeyId
from swarmesh.queen.driver import Driver
from swarmesh.queen.keys import KeyRing, Role, key_hash, new_key
from swarmesh.store.records import KeyRecord
from swarmesh.store.store import Store
from swarmesh.wire.keys import KeyMade, KeyRequest, KeyRole, KeyView

log = structlog.get_logger("keys")


class KeyKeeper:
    """Keeps the hivecomb, the ring at the door and the core's limits in step."""

    def __init__(self, driver: Driver, store: Store, ring: KeyRing) -> None:
        self._driver = driver
        self._store = store
        self._ring = ring
        self._reserved: set[str] = set()

    def open(self) -> None:
        """Tell the core what the keys of the hivecomb may have; before any task is taken up."""
        for record in self._ring.records():
            self._limit(record)

    def views(self) -> list[KeyView]:
        """All keys, the oldest first."""
        return [self._view(record) for record in sorted(self._ring.records(), key=_age)]

    async def make(self, request: KeyRequest) -> KeyMade:
        """A new key, which works at once.

        Raises:
            ConflictError: A key has that name already.
            StoreError: It could not be kept; there is none then.
        """
        if request.name in self._reserved or any(record.name == request.name for record in self._ring.records()):
            raise ConflictError(
                f"a key is called {request.name!r} already", hint="Take another name, or revoke it.", param="name"
            )
        # Taken before anything is waited for, so that of two who ask for it at once one gets it.
        self._reserved.add(request.name)
        try:
            return await self._made(request)
        finally:
            self._reserved.remove(request.name)

    async def _made(self, request: KeyRequest) -> KeyMade:
        key = new_key()
        record = KeyRecord(
            key_id=self._new_id(),
            name=request.name,
            role=request.role.value,
            sha256=key_hash(key),
            created_at_ms=time.time_ns() // 1_000_000,
            concurrency=request.concurrency,
            tokens_per_minute=request.tokens_per_minute,
        )
        await self._store.put_key(record)
        self._ring.add(record)
        self._limit(record)
        log.info("key_made", key_id=record.key_id, name=record.name, role=record.role)
        return KeyMade(
            key_id=record.key_id,
            key=key,
            name=record.name,
            role=request.role,
            concurrency=record.concurrency,
            tokens_per_minute=record.tokens_per_minute,
            created_at=record.created_at_ms / 1000,
        )

    async def revoke(self, key_id: KeyId) -> None:
        """Let a key in no more, from now on; tasks that were accepted with it go on.

        Raises:
            NotFoundError: There is no such key.
            ConflictError: It is the last that opens everything.
            StoreError: It could not be struck from the hivecomb; it stays then.
        """
        record = next((record for record in self._ring.records() if record.key_id == key_id), None)
        if record is None:
            raise NotFoundError(f"no key has the id {key_id!r}", hint="'swarmesh keys list' shows them.")
        admins = sum(other.role == Role.ADMIN for other in self._ring.records())
        if record.role == Role.ADMIN and admins == 1:
            raise ConflictError(
                f"{key_id} is the last admin key: nobody could command this swarmesh any more",
                hint="Make another first: swarmesh keys create --name NAME --role admin",
            )
        # Off the ring before anything is waited for, so that no second revocation counts this one as left.
        self._ring.remove(record)
        try:
            await self._store.delete_key(key_id)
        except BaseException:
            self._ring.add(record)
            raise
        self._driver.post(KeyRevoked(key_id))
        log.info("key_revoked", key_id=key_id, name=record.name)

    def _limit(self, record: KeyRecord) -> None:
        if record.concurrency or record.tokens_per_minute:
            self._driver.post(KeyLimited(record.key_id, record.concurrency, record.tokens_per_minute))

    def _view(self, record: KeyRecord) -> KeyView:
        dispatcher = self._driver.swarm.dispatcher
        book = dispatcher.limits.of(record.key_id)
        return KeyView(
            key_id=record.key_id,
            name=record.name,
            role=KeyRole(record.role),
            concurrency=record.concurrency,
            tokens_per_minute=record.tokens_per_minute,
            created_at=record.created_at_ms / 1000,
            running=book.running,
            waiting=dispatcher.queue.size_of_key(record.key_id),
            honeytokens=book.tokens,
        )

    def _new_id(self) -> KeyId:
        taken = {record.key_id for record in self._ring.records()}
        while (key_id := KeyId(f"key-{secrets.token_hex(4)}")) in taken:
            pass
        return key_id


def _age(record: KeyRecord) -> tuple[int, str]:
    return record.created_at_ms, record.key_id
