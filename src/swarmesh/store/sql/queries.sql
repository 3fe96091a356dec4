-- name: insert_task
INSERT INTO tasks (
  task_id, status, modelcell, priority, key_id, request, created_at_ms, idempotency_key, attempts, kills, epoch,
  worker_id, started_at_ms, finished_at_ms, prompt_tokens, completion_tokens, finish_reason, error_code, error_message,
  error_hint)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: submission
SELECT submission FROM tasks WHERE task_id = ?;

-- name: task
SELECT
  task_id, status, modelcell, priority, key_id, request, created_at_ms, idempotency_key, attempts, kills, epoch,
  worker_id, started_at_ms, finished_at_ms, prompt_tokens, completion_tokens, finish_reason, error_code, error_message,
  error_hint
FROM tasks WHERE task_id = ?;

-- name: task_by_idempotency_key
SELECT
  task_id, status, modelcell, priority, key_id, request, created_at_ms, idempotency_key, attempts, kills, epoch,
  worker_id, started_at_ms, finished_at_ms, prompt_tokens, completion_tokens, finish_reason, error_code, error_message,
  error_hint
FROM tasks WHERE key_id = ? AND idempotency_key = ?;

-- name: tasks
SELECT
  task_id, status, modelcell, priority, key_id, x'' AS request, created_at_ms, idempotency_key, attempts, kills, epoch,
  worker_id, started_at_ms, finished_at_ms, prompt_tokens, completion_tokens, finish_reason, error_code, error_message,
  error_hint
FROM tasks
WHERE (:statuses = '[]' OR status IN (SELECT value FROM json_each(:statuses)))
  AND created_at_ms < coalesce(:before_ms, 9223372036854775807)
  AND (:key_id IS NULL OR key_id = :key_id)
ORDER BY created_at_ms DESC, submission DESC
LIMIT :limit;

-- name: unfinished_tasks
SELECT
  task_id, status, modelcell, priority, key_id, request, created_at_ms, idempotency_key, attempts, kills, epoch,
  worker_id, started_at_ms, finished_at_ms, prompt_tokens, completion_tokens, finish_reason, error_code, error_message,
  error_hint
FROM tasks
WHERE status IN ('queued', 'running', 'preempted')
ORDER BY submission;

-- name: prune
DELETE FROM tasks WHERE submission IN (
  SELECT submission FROM tasks
  WHERE finished_at_ms < ? AND status IN ('done', 'failed', 'cancelled')
  ORDER BY finished_at_ms
  LIMIT ?);

-- name: insert_token
INSERT INTO tokens (submission, seq, text, token_ids, data, media_type) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (submission, seq) DO NOTHING;

-- name: tokens
SELECT seq, text, token_ids, data, media_type
FROM tokens
WHERE submission = (SELECT submission FROM tasks WHERE task_id = ?) AND seq > ?
ORDER BY seq
LIMIT ?;

-- name: put_worker
INSERT OR REPLACE INTO workers (
  worker_id, modelcell, backend, host, location, slots, status, pid, engine_pid, boot_id, nonce, key_sha256, direct,
  spec, registered_at_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: delete_worker
DELETE FROM workers WHERE worker_id = ?;

-- name: workers
SELECT
  worker_id, modelcell, backend, host, location, slots, status, pid, engine_pid, boot_id, nonce, key_sha256, direct,
  spec, registered_at_ms
FROM workers ORDER BY worker_id;

-- name: put_host
INSERT OR REPLACE INTO hosts (name, address, user, port, identity, proximity, fingerprint, added_at_ms, draining)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: delete_host
DELETE FROM hosts WHERE name = ?;

-- name: hosts
SELECT name, address, user, port, identity, proximity, fingerprint, added_at_ms, draining FROM hosts ORDER BY name;

-- name: put_key
INSERT OR REPLACE INTO keys (key_id, name, role, sha256, created_at_ms, concurrency, tokens_per_minute)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: delete_key
DELETE FROM keys WHERE key_id = ?;

-- name: keys
SELECT key_id, name, role, sha256, created_at_ms, concurrency, tokens_per_minute FROM keys ORDER BY key_id;

-- name: put_scale
INSERT OR REPLACE INTO scaling (model, min_workers, max_workers, paused, wish) VALUES (?, ?, ?, ?, ?);

-- name: delete_scale
DELETE FROM scaling WHERE model = ?;

-- name: scales
SELECT model, min_workers, max_workers, paused, wish FROM scaling ORDER BY model;

-- name: put_load_time
INSERT OR REPLACE INTO load_times (model, host, load_ms, measured_at_ms) VALUES (?, ?, ?, ?);

-- name: drop_old_load_times
DELETE FROM load_times WHERE (model, host) IN (
  SELECT model, host FROM load_times ORDER BY measured_at_ms DESC, model, host LIMIT -1 OFFSET ?);

-- name: load_times
SELECT model, host, load_ms, measured_at_ms FROM load_times ORDER BY model, host;

-- name: put_launch
INSERT OR REPLACE INTO launches (model, request) VALUES (?, ?);

-- name: launches
SELECT model, request FROM launches ORDER BY model;

-- name: insert_alarm
INSERT INTO alarms (worker_id, code, message, at_ms) VALUES (?, ?, ?, ?) RETURNING alarm_id;

-- name: drop_old_alarms
DELETE FROM alarms WHERE alarm_id <= ?;

-- name: alarms
SELECT worker_id, code, message, at_ms, alarm_id FROM alarms ORDER BY alarm_id DESC LIMIT ?;

-- name: insert_decision
INSERT INTO decisions (at_ms, kind, facts) VALUES (?, ?, ?);

-- name: drop_old_decisions
DELETE FROM decisions WHERE at_ms < :before_ms OR decision_id <= (SELECT max(decision_id) FROM decisions) - :kept;

-- name: decisions
SELECT at_ms, kind, facts, decision_id FROM decisions WHERE decision_id > ? AND at_ms >= ? ORDER BY decision_id LIMIT ?;

-- name: next_epoch
INSERT INTO facts (name, value) VALUES ('epoch', :above + 1)
ON CONFLICT (name) DO UPDATE SET value = max(value, :above) + 1
RETURNING value;

-- name: strays
SELECT count(*), min("table") FROM pragma_foreign_key_check;

-- name: sound_in_boot
SELECT value FROM facts WHERE name = 'sound_in_boot';

-- name: put_sound_in_boot
INSERT OR REPLACE INTO facts (name, value) VALUES ('sound_in_boot', ?);
