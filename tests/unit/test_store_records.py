import pytest

from swarmesh.core.errors import InvalidValueError
from swarmesh.core.ids import HostName, KeyId, ModelName, TaskId
from swarmesh.store.records import HostRecord, TaskPatch, TaskRecord, TokenRow


def test_a_patch_tells_none_from_unset() -> None:
    assert TaskPatch().changes() == {}
    patch = TaskPatch(status="running", worker_id=None, attempts=0)
    assert patch.changes() == {"status": "running", "attempts": 0, "worker_id": None}


def test_every_field_of_a_patch_is_a_field_of_a_task() -> None:
    assert set(TaskPatch.__struct_fields__) < set(TaskRecord.__struct_fields__)


def test_an_unknown_status_cannot_be_said() -> None:
    with pytest.raises(InvalidValueError, match="task status is 'lost'; it is one of queued, running"):
        TaskPatch(status="lost")
    with pytest.raises(InvalidValueError, match="lost"):
        TaskRecord(TaskId("t"), "lost", ModelName("m"), "low", KeyId("k"), b"{}", 1)


def test_seq_starts_at_one() -> None:
    assert TokenRow(1, "").seq == 1
    with pytest.raises(InvalidValueError, match="token seq is 0"):
        TokenRow(0, "")


@pytest.mark.parametrize(
    ("port", "proximity", "words"),
    [(-1, 0.5, "port is -1"), (65_536, 0.5, "port is 65536"), (22, 1.1, "proximity is 1.1")],
)
def test_a_host_is_within_its_ranges(port: int, proximity: float, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        HostRecord(HostName("mac"), "mac", "", port, "", proximity, "", 1)
    assert HostRecord(HostName("mac"), "mac", "", 65_535, "", 1.0, "", 1).draining is False
