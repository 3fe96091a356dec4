-- 'HIVE': tells this file from any other SQLite database.
PRAGMA application_id = 1212765765;

-- The request stands last: a listing that skips a large request then never reads its pages.
CREATE TABLE tasks (
  submission        INTEGER PRIMARY KEY,
  task_id           TEXT NOT NULL UNIQUE,
  status            TEXT NOT NULL CHECK (status IN ('queued', 'running', 'preempted', 'done', 'failed', 'cancelled')),
  modelcell         TEXT NOT NULL,
  priority          TEXT NOT NULL,
  key_id            TEXT NOT NULL,
  created_at_ms     INTEGER NOT NULL,
  idempotency_key   TEXT,
  attempts          INTEGER NOT NULL,
  epoch             INTEGER NOT NULL,
  worker_id         TEXT,
  started_at_ms     INTEGER,
  finished_at_ms    INTEGER,
  prompt_tokens     INTEGER,
  completion_tokens INTEGER,
  finish_reason     TEXT,
  error_code        TEXT,
  error_message     TEXT,
  error_hint        TEXT,
  request           BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX tasks_by_idempotency_key ON tasks (key_id, idempotency_key)
  WHERE idempotency_key IS NOT NULL;
CREATE INDEX tasks_by_age ON tasks (created_at_ms);
CREATE INDEX tasks_unfinished ON tasks (submission)
  WHERE status IN ('queued', 'running', 'preempted');
CREATE INDEX tasks_finished ON tasks (finished_at_ms)
  WHERE finished_at_ms IS NOT NULL;

-- token_ids is a JSON array, NULL when the engine told none.
CREATE TABLE tokens (
  submission INTEGER NOT NULL REFERENCES tasks ON DELETE CASCADE,
  seq        INTEGER NOT NULL CHECK (seq >= 1),
  text       TEXT NOT NULL,
  token_ids  TEXT,
  data       BLOB,
  media_type TEXT,
  PRIMARY KEY (submission, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE workers (
  worker_id        TEXT PRIMARY KEY,
  modelcell        TEXT NOT NULL,
  backend          TEXT NOT NULL,
  host             TEXT NOT NULL,
  location         TEXT NOT NULL,
  slots            INTEGER NOT NULL,
  status           TEXT NOT NULL,
  pid              INTEGER,
  engine_pid       INTEGER,
  boot_id          TEXT NOT NULL,
  nonce            TEXT NOT NULL,
  key_sha256       BLOB NOT NULL,
  direct           INTEGER NOT NULL CHECK (direct IN (0, 1)),
  spec             BLOB NOT NULL,
  registered_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
  key_id        TEXT PRIMARY KEY,
  name          TEXT NOT NULL,
  role          TEXT NOT NULL,
  sha256        BLOB NOT NULL,
  created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: the id of an alarm that made room is never given again.
CREATE TABLE alarms (
  alarm_id  INTEGER PRIMARY KEY AUTOINCREMENT,
  worker_id TEXT,
  code      TEXT NOT NULL,
  message   TEXT NOT NULL,
  at_ms     INTEGER NOT NULL
) STRICT;
