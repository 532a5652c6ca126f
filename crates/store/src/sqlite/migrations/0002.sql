-- When the command, its input and its output were erased. The log keeps the digests.
ALTER TABLE plans ADD COLUMN erased_at INTEGER;
CREATE INDEX plans_unerased ON plans(queued_at) WHERE erased_at IS NULL
  AND status IN ('finished', 'lost', 'denied', 'blocked', 'expired', 'withdrawn', 'superseded', 'cancelled');
-- What was measured about a plan, and the texts of its scripts that an approver is shown.
ALTER TABLE plans ADD COLUMN measured TEXT;
CREATE TABLE scripts (
  plan TEXT NOT NULL REFERENCES plans(id),
  sha256 TEXT NOT NULL,
  content TEXT NOT NULL,
  PRIMARY KEY (plan, sha256)
) STRICT;
