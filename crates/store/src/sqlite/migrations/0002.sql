-- When the command, its input and its output were erased. The log keeps the digests.
ALTER TABLE plans ADD COLUMN erased_at INTEGER;
CREATE INDEX plans_unerased ON plans(queued_at) WHERE erased_at IS NULL
  AND status IN ('finished', 'lost', 'denied', 'blocked', 'expired', 'withdrawn', 'superseded', 'cancelled');
-- How many secrets were replaced by marks in what a run's streams kept.
ALTER TABLE plans ADD COLUMN redactions INTEGER NOT NULL DEFAULT 0;
