-- When the command, its input and its output were erased. The log keeps the digests.
ALTER TABLE plans ADD COLUMN erased_at INTEGER;
-- What the run used of the machine, as JSON.
ALTER TABLE plans ADD COLUMN run_usage TEXT;
CREATE INDEX plans_unerased ON plans(queued_at) WHERE erased_at IS NULL
  AND status IN ('finished', 'lost', 'denied', 'blocked', 'expired', 'withdrawn', 'superseded', 'cancelled');
