"""What contracts are tested on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmesh.store.memory import MemoryStore
from swarmesh.store.sqlite import SqliteStore
from swarmesh.store.store import Store


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else await SqliteStore.open(tmp_path / "hivecomb.db")
    yield opened
    await opened.close()
