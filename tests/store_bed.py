"""What tests put into a hivecomb."""

from msgspec.structs import replace

from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.task import TaskStatus
from swarmesh.store.records import TaskRecord

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
