-- Decisions of the last day with the facts they were made from, as JSON, so that another policy can be tried on them.
CREATE TABLE decisions (
  decision_id INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms       INTEGER NOT NULL,
  kind        TEXT NOT NULL CHECK (kind IN ('admit', 'score', 'place', 'scale')),
  facts       BLOB NOT NULL
) STRICT;
CREATE INDEX decisions_by_age ON decisions (at_ms);
