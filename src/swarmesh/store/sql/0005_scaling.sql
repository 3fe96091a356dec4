-- How many workers a model may have. The empty name is for every model that has no row of its own; its 'paused' stops
-- all scaling. A row without bounds only pauses a model that the bounds for all hold for. 'wish' is JSON.
CREATE TABLE scaling (
  model       TEXT PRIMARY KEY,
  min_workers INTEGER CHECK (min_workers >= 0),
  max_workers INTEGER CHECK (max_workers >= 1),
  paused      INTEGER NOT NULL CHECK (paused IN (0, 1)),
  wish        BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- How long a worker of the model took on that host from its start until it was ready, when that was last measured.
CREATE TABLE load_times (
  model          TEXT NOT NULL,
  host           TEXT NOT NULL,
  load_ms        INTEGER NOT NULL CHECK (load_ms >= 0),
  measured_at_ms INTEGER NOT NULL,
  PRIMARY KEY (model, host)
) STRICT, WITHOUT ROWID;

-- What the last worker of a model that got ready had been started with, as JSON, so that its like can be started.
CREATE TABLE launches (
  model   TEXT PRIMARY KEY,
  request BLOB NOT NULL
) STRICT, WITHOUT ROWID;
