-- Single values: 'epoch', the life number of the last queen, and 'sound_in_boot', the boot that checked this file.
CREATE TABLE facts (
  name  TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- A new column stands last, and the request must stay last; so the request moves behind it.
ALTER TABLE tasks RENAME COLUMN request TO request_before;
ALTER TABLE tasks ADD COLUMN kills INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN request BLOB NOT NULL DEFAULT x'';
UPDATE tasks SET request = request_before;
ALTER TABLE tasks DROP COLUMN request_before;
