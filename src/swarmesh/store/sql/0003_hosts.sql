-- The machines that were added; the queen's own is none of them.
CREATE TABLE hosts (
  name        TEXT PRIMARY KEY,
  address     TEXT NOT NULL,
  user        TEXT NOT NULL,
  port        INTEGER NOT NULL CHECK (port BETWEEN 0 AND 65535),
  identity    TEXT NOT NULL,
  proximity   REAL NOT NULL CHECK (proximity BETWEEN 0.0 AND 1.0),
  fingerprint TEXT NOT NULL,
  added_at_ms INTEGER NOT NULL,
  draining    INTEGER NOT NULL CHECK (draining IN (0, 1))
) STRICT, WITHOUT ROWID;
