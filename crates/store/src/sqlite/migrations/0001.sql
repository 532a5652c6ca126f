-- Every row names its project. Lists go by the internal sequence: an index's entries are ordered by rowid within equal
-- keys, so that each list below is one index range.
-- Rows are never deleted, so `seq` is never given twice.
CREATE TABLE plans (
  seq INTEGER PRIMARY KEY,
  project TEXT NOT NULL,
  id TEXT NOT NULL UNIQUE,
  agent TEXT NOT NULL,
  target TEXT NOT NULL,
  status TEXT NOT NULL,
  revision INTEGER NOT NULL,
  plan TEXT NOT NULL,
  stdin BLOB,
  digest TEXT NOT NULL,
  dedupe TEXT,
  note TEXT,
  judgement TEXT NOT NULL,
  queued_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  decision TEXT,
  decision_digest TEXT,
  reason TEXT,
  approval_valid_until INTEGER,
  superseded_by TEXT,
  origin TEXT REFERENCES plans(id),
  run_id TEXT UNIQUE,
  run_started_at INTEGER,
  run_duration_ms INTEGER,
  run_outcome TEXT,
  run_enforced TEXT,
  run_timeout_s INTEGER,
  stdout_bytes INTEGER NOT NULL DEFAULT 0,
  stderr_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX plans_status ON plans(project, status);
CREATE INDEX plans_agent_status ON plans(project, agent, status);
CREATE INDEX plans_claimable ON plans(target) WHERE status = 'approved';
CREATE INDEX plans_pending_due ON plans(expires_at) WHERE status = 'pending';
CREATE INDEX plans_approved_due ON plans(approval_valid_until) WHERE status = 'approved';
CREATE INDEX plans_dedupe ON plans(project, agent, dedupe) WHERE status = 'pending' AND dedupe IS NOT NULL;
-- One edit or one re-opening a plan.
CREATE UNIQUE INDEX plans_origin ON plans(origin) WHERE origin IS NOT NULL;

-- How many plans of each agent stand where; `runs` counts every run ever begun.
CREATE TABLE counts (
  project TEXT NOT NULL,
  agent TEXT NOT NULL,
  what TEXT NOT NULL,
  n INTEGER NOT NULL CHECK (n >= 0),
  PRIMARY KEY (project, agent, what)
) STRICT, WITHOUT ROWID;

CREATE TABLE outputs (
  project TEXT NOT NULL,
  run TEXT NOT NULL,
  stream TEXT NOT NULL,
  head INTEGER NOT NULL,
  total INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (run, stream)
) STRICT, WITHOUT ROWID;

-- `nodes` are the complete subtrees of the Merkle tree that end with this leaf, from two leaves up, 32 bytes each; a leaf's
-- own hash is made from the leaf. The log is the server's: a project's part of it is a filter over the whole.
CREATE TABLE log (
  position INTEGER PRIMARY KEY,
  project TEXT NOT NULL,
  agent TEXT,
  plan TEXT REFERENCES plans(id),
  plan_rev INTEGER,
  kind TEXT NOT NULL,
  ts INTEGER NOT NULL,
  leaf BLOB NOT NULL,
  nodes BLOB NOT NULL
) STRICT;
CREATE INDEX log_agent ON log(project, agent) WHERE agent IS NOT NULL;
CREATE UNIQUE INDEX log_plan ON log(plan, plan_rev) WHERE plan IS NOT NULL;

CREATE TABLE checkpoints (
  size INTEGER PRIMARY KEY,
  note TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
  id TEXT PRIMARY KEY,
  project TEXT NOT NULL,
  name TEXT NOT NULL,
  roles TEXT NOT NULL,
  secret BLOB NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  revoked_at INTEGER
) STRICT;
CREATE INDEX tokens_project ON tokens(project);

CREATE TABLE workspaces (
  project TEXT NOT NULL,
  path TEXT NOT NULL,
  PRIMARY KEY (project, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
  project TEXT NOT NULL,
  scope TEXT NOT NULL,
  key TEXT NOT NULL,
  body BLOB NOT NULL,
  plan TEXT NOT NULL REFERENCES plans(id),
  at INTEGER NOT NULL,
  UNIQUE (project, scope, key)
) STRICT;
CREATE INDEX idempotency_at ON idempotency(at);
