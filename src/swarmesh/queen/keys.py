"""Who is asking: every request shows a key, and nothing is open without one (R-28)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from swarmesh.config.worker_key import host_secret, worker_key, worker_of_key
from swarmesh.core.errors import ForbiddenError, UnauthorizedError
from swarmesh.core.ids import LOCAL_HOST, KeyId
from swarmesh.store.records import KeyRecord

KEY_PREFIX: Final = "sk-swarmesh-"


class Role(StrEnum):
    """What a key opens."""

    ADMIN = "admin"
    CLIENT = "client"
    WORKER = "worker"


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Whoever showed a valid key.

    Attributes:
        worker_id: Set for workers, who may speak only for themselves.
        host: Set for workers: the machine whose secret made the key, whatever the worker itself says.
    """

    key_id: KeyId
    role: Role
    worker_id: str = ""
    host: str = ""

    @property
    def sees(self) -> KeyId | None:
        """Of which key the one who is asking may see tasks; None for all.

        What an engine says of a task quotes it, and the names of relayed tasks follow one another, so that an id
        alone opens nothing.
        """
        return None if self.role is Role.ADMIN else self.key_id

    def must_be(self, *roles: Role) -> None:
        """Let only these roles go on.

        Raises:
            ForbiddenError: The key is valid but not for this.
        """
        if self.role not in roles:
            raise ForbiddenError(f"a {self.role} key may not do this", hint="Use the admin key of this swarmesh.")

    def must_speak_for(self, worker_id: str) -> None:
        """Let an admin go on, and a worker that reports about itself.

        Raises:
            ForbiddenError: A worker's key was used for another worker, or a client's for any.
        """
        self.must_be(Role.ADMIN, Role.WORKER)
        if self.role is Role.WORKER and worker_id != self.worker_id:
            raise ForbiddenError(f"the key of {self.worker_id} does not speak for {worker_id}")


def new_key() -> str:
    """A fresh API key: 256 bits, so that a plain hash of it is safe to keep."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def key_hash(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


class KeyRing:
    """Keys by their hash. A look-up by digest leaks nothing about the key; the last compare is constant-time.

    Workers' keys are not kept but made again: from the secret of this home, or from that of another host.
    """

    def __init__(self, records: Iterable[KeyRecord], worker_secret: bytes) -> None:
        self._records: dict[KeyId, KeyRecord] = {}
        self._by_hash: dict[bytes, tuple[bytes, Identity]] = {}
        for record in records:
            self.add(record)
        self._worker_secret = worker_secret
        self._host_secrets: dict[str, bytes] = {LOCAL_HOST: worker_secret}

    def records(self) -> list[KeyRecord]:
        """The keys that open the door now, workers' left out."""
        return list(self._records.values())

    def add(self, record: KeyRecord) -> None:
        """Let whoever shows this key in, from now on."""
        self._records[record.key_id] = record
        self._by_hash[record.sha256] = record.sha256, Identity(record.key_id, Role(record.role))

    def remove(self, record: KeyRecord) -> None:
        """Let them in no more."""
        self._records.pop(record.key_id, None)
        self._by_hash.pop(record.sha256, None)

    def add_host(self, host: str, added_at_ms: int) -> bytes:
        """Let the workers of another host in; the secret that their keys are made from."""
        self._host_secrets[host] = host_secret(self._worker_secret, host, added_at_ms)
        return self._host_secrets[host]

    def remove_host(self, host: str) -> None:
        """Let them in no more."""
        self._host_secrets.pop(host, None)

    def worker_key(self, host: str, worker_id: str) -> str:
        """The key that a worker of this host has.

        Raises:
            KeyError: The host was not added.
        """
        return worker_key(self._host_secrets[host], worker_id)

    def identify(self, authorization: bytes | None) -> Identity:
        """The identity behind an Authorization header.

        Raises:
            UnauthorizedError: There is none, or its key is not known.
        """
        if authorization is None:
            raise UnauthorizedError("the request has no Authorization header")
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise UnauthorizedError("the Authorization header is not of the form 'Bearer KEY'")
        token = token.strip()
        digest = hashlib.sha256(token).digest()
        found = self._by_hash.get(digest)
        if found is not None and hmac.compare_digest(found[0], digest):
            return found[1]
        key = token.decode("latin-1")
        for host, secret in self._host_secrets.items():
            worker_id = worker_of_key(secret, key)
            if worker_id is not None:
                return Identity(KeyId(f"worker:{worker_id}"), Role.WORKER, worker_id, host)
        raise UnauthorizedError("the API key is not known here")
