from pathlib import Path

import apsw
import pytest
from msgspec import Struct

from swarmesh.core.errors import StoreError
from swarmesh.core.ids import TaskId
from swarmesh.store import schema
from swarmesh.store.records import AlarmRecord, HostRecord, KeyRecord, TaskRecord, TokenRow, WorkerRecord
from swarmesh.store.schema import APPLICATION_ID, migrate, migrations, queries
from swarmesh.store.statements import select_task, select_tokens

PATH = Path("hivecomb.db")


@pytest.fixture
def connection() -> apsw.Connection:
    return apsw.Connection(":memory:")


def test_an_empty_file_gets_the_newest_schema(connection: apsw.Connection) -> None:
    migrate(connection, PATH)
    assert connection.pragma("user_version") == len(migrations())
    assert connection.pragma("application_id") == APPLICATION_ID


def test_migrating_again_changes_nothing(connection: apsw.Connection) -> None:
    migrate(connection, PATH)
    changes = connection.total_changes()
    migrate(connection, PATH)
    assert connection.total_changes() == changes


def test_what_an_older_file_has_stays(connection: apsw.Connection) -> None:
    [first, *_] = migrations()
    connection.execute(first).fetchall()
    connection.pragma("user_version", 1)
    connection.pragma("foreign_keys", 1)
    request = b"{}" * 10_000
    connection.execute(
        "INSERT INTO tasks (task_id, request, status, modelcell, priority, key_id, created_at_ms, attempts, epoch) "
        "VALUES ('t', ?, 'done', 'm', 'low', 'k', 1, 2, 3)",
        (request,),
    )
    connection.execute("INSERT INTO tokens (submission, seq, text) VALUES (1, 1, 'honey')")
    migrate(connection, PATH)
    kept = select_task(connection, TaskId("t"))
    assert kept is not None
    assert (kept.request, kept.attempts, kept.kills, kept.epoch) == (request, 2, 0, 3)
    assert select_tokens(connection, TaskId("t"), after_seq=0, limit=9) == [TokenRow(1, "honey")]


def test_the_request_stands_last_so_that_listings_need_not_read_it(connection: apsw.Connection) -> None:
    migrate(connection, PATH)
    assert [row[1] for row in connection.pragma("table_info", "tasks")][-1] == "request"


def test_only_missing_steps_run(connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(connection, PATH)
    scripts = [*migrations(), "CREATE TABLE later (x); INSERT INTO later VALUES (1);"]
    monkeypatch.setattr(schema, "migrations", lambda: scripts)
    migrate(connection, PATH)
    assert connection.pragma("user_version") == len(scripts)
    assert connection.execute("SELECT x FROM later").get == 1


def test_a_step_that_fails_leaves_no_half(connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(connection, PATH)
    version = connection.pragma("user_version")
    monkeypatch.setattr(schema, "migrations", lambda: [*migrations(), "CREATE TABLE later (x); nonsense;"])
    with pytest.raises(apsw.SQLError):
        migrate(connection, PATH)
    assert connection.pragma("user_version") == version
    assert not connection.table_exists("main", "later")


def test_a_newer_schema_is_refused_untouched(connection: apsw.Connection) -> None:
    migrate(connection, PATH)
    connection.pragma("user_version", 99)
    with pytest.raises(StoreError, match=r"hivecomb\.db has schema version 99; this Swarmesh knows") as raised:
        migrate(connection, PATH)
    assert "newer Swarmesh" in raised.value.hint


@pytest.mark.parametrize("script", ["CREATE TABLE recipes (name)", "PRAGMA application_id = 7"])
def test_somebody_elses_database_is_refused(connection: apsw.Connection, script: str) -> None:
    connection.execute(script).fetchall()
    with pytest.raises(StoreError, match="is a database, but not a hivecomb"):
        migrate(connection, PATH)
    assert not connection.table_exists("main", "tasks")


@pytest.mark.parametrize(
    ("query", "record"),
    [
        ("task", TaskRecord),
        ("task_by_idempotency_key", TaskRecord),
        ("tasks", TaskRecord),
        ("unfinished_tasks", TaskRecord),
        ("tokens", TokenRow),
        ("workers", WorkerRecord),
        ("hosts", HostRecord),
        ("keys", KeyRecord),
        ("alarms", AlarmRecord),
    ],
)
def test_columns_stand_in_the_order_of_the_fields(
    connection: apsw.Connection, query: str, record: type[Struct]
) -> None:
    migrate(connection, PATH)
    columns: list[str] = []

    def note_columns(cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
        columns.extend(name for name, _ in cursor.get_description())
        return True

    connection.exec_trace = note_columns
    bindings = {"statuses": "[]", "before_ms": None, "key_id": None, "limit": 1}
    parameters = queries()[query].count("?")
    connection.execute(queries()[query], ("1",) * parameters if parameters else bindings).fetchall()
    order = list(record.__struct_fields__)
    assert columns == order


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("task", "sqlite_autoindex_tasks_1"),
        ("task_by_idempotency_key", "tasks_by_idempotency_key"),
        ("tasks", "tasks_by_age"),
        ("unfinished_tasks", "tasks_unfinished"),
        ("prune", "tasks_finished"),
    ],
)
def test_queries_use_their_indexes(connection: apsw.Connection, query: str, index: str) -> None:
    migrate(connection, PATH)
    sql = queries()[query]
    parameters = sql.count("?")
    bindings = ("1",) * parameters or {"statuses": "[]", "before_ms": None, "key_id": None, "limit": 1}
    plan = " ".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql, bindings))
    assert index in plan, plan
    assert "TEMP B-TREE" not in plan, plan
