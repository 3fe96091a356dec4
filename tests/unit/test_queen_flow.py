"""Whose a nectarflow is."""

from __future__ import annotations

import pytest

from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.queen.flow import is_shown_to
from swarmesh.store.records import TaskRecord


@pytest.mark.parametrize(
    ("owner", "asks", "shown"),
    [
        ("ada", "ada", True),
        ("ada", "eve", False),
        ("ada", "", False),
        ("ada", None, True),
        ("", "eve", True),
        ("", None, True),
    ],
)
def test_a_task_is_shown_to_its_key_and_to_who_sees_all(owner: str, asks: str | None, *, shown: bool) -> None:
    record = TaskRecord(TaskId("flow-1"), "done", ModelName("qwen"), "medium", KeyId(owner), b"{}", 1)
    assert is_shown_to(KeyId(asks) if asks is not None else None, record) is shown
