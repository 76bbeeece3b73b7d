-- What the server keeps beside runs. Made where a journal has none of it: an older runback does not miss it.
CREATE TABLE IF NOT EXISTS schedules (
  schedule TEXT NOT NULL PRIMARY KEY, decided INTEGER NOT NULL, paused_by TEXT, paused_at INTEGER, paused_why TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS firings (
  schedule TEXT NOT NULL, at INTEGER NOT NULL, run TEXT, decision TEXT NOT NULL, decided_at INTEGER NOT NULL,
  PRIMARY KEY (schedule, at)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
  id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, roles TEXT NOT NULL, hash BLOB NOT NULL,
  created_at INTEGER NOT NULL, created_by TEXT NOT NULL, expires_at INTEGER, revoked_at INTEGER
) STRICT, WITHOUT ROWID;
