-- When the command, its input and its output were erased. The log keeps the digests.
ALTER TABLE plans ADD COLUMN erased_at INTEGER;
-- What the run used of the machine, as JSON.
ALTER TABLE plans ADD COLUMN run_usage TEXT;
-- What changed below its workspace meanwhile, as JSON.
ALTER TABLE plans ADD COLUMN run_written TEXT;
CREATE INDEX plans_unerased ON plans(queued_at) WHERE erased_at IS NULL
  AND status IN ('finished', 'lost', 'denied', 'blocked', 'expired', 'withdrawn', 'superseded', 'cancelled');

-- What people denied lately, so that asking again at once can be told and held back. The digest is that of equal plans; the
-- reason is in the denied plan's own row.
CREATE TABLE denials (
  project TEXT NOT NULL,
  agent TEXT NOT NULL,
  dedupe TEXT NOT NULL,
  at INTEGER NOT NULL,
  plan TEXT NOT NULL REFERENCES plans(id),
  PRIMARY KEY (project, agent, dedupe, at, plan)
) STRICT, WITHOUT ROWID;
CREATE INDEX denials_at ON denials(at);
-- How often an equal plan was denied when this one came, when last, and which one that was.
ALTER TABLE plans ADD COLUMN denied_before INTEGER;
ALTER TABLE plans ADD COLUMN denied_before_at INTEGER;
ALTER TABLE plans ADD COLUMN denied_before_plan TEXT REFERENCES plans(id);
-- How many secrets were replaced by marks in what a run's streams kept.
ALTER TABLE plans ADD COLUMN redactions INTEGER NOT NULL DEFAULT 0;
-- What was measured about a plan, and the texts of its scripts that an approver is shown.
ALTER TABLE plans ADD COLUMN measured TEXT;
CREATE TABLE scripts (
  plan TEXT NOT NULL REFERENCES plans(id),
  sha256 TEXT NOT NULL,
  content TEXT NOT NULL,
  PRIMARY KEY (plan, sha256)
) STRICT;
