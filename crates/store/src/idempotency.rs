//! Idempotency keys: what a repeated request did the first time. Kept by the transaction that did it.

use std::time::Duration;

use provara_domain::{Name, PlanId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::plans::by_key;
use crate::store::Store;
use crate::types::{Idempotency, Recalled, StoreError};

const LASTS: Duration = Duration::from_secs(24 * 60 * 60);
/// Expired keys that one new key sweeps away.
const SWEEP: u32 = 64;

impl Store {
    /// Returns what a key did within the last 24 hours, counted from `now`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn recall(
        &self,
        project: &Name,
        key: &Idempotency,
        now: Timestamp,
    ) -> Result<Option<Recalled>, StoreError> {
        let (project, key) = (project.clone(), key.clone());
        self.inner.readers.read(move |conn| recall(conn, &project, &key, now)).await
    }
}

pub(crate) fn recall(
    conn: &Connection,
    project: &Name,
    key: &Idempotency,
    now: Timestamp,
) -> Result<Option<Recalled>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT body, plan FROM idempotency WHERE project = ?1 AND scope = ?2 AND key = ?3 AND at > ?4",
    )?;
    let row = params![project.as_str(), key.scope, key.key, oldest(now)];
    let found: Option<([u8; 32], String)> = query.query_row(row, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match found {
        None => Ok(None),
        Some((body, _)) if body != key.body_sha256 => Ok(Some(Recalled::OtherBody)),
        Some((_, plan)) => Ok(by_key(conn, "id", &plan)?.map(|record| Recalled::Same(Box::new(record)))),
    }
}

pub(crate) fn remember(
    conn: &Connection,
    project: &Name,
    key: &Idempotency,
    plan: &PlanId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let mut sweep = conn.prepare_cached(
        "DELETE FROM idempotency WHERE rowid IN (SELECT rowid FROM idempotency WHERE at <= ?1 ORDER BY at LIMIT ?2)",
    )?;
    sweep.execute(params![oldest(at), SWEEP])?;
    let mut insert = conn.prepare_cached(
        "INSERT OR REPLACE INTO idempotency (project, scope, key, body, plan, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    insert.execute(params![project.as_str(), key.scope, key.key, key.body_sha256, plan.as_str(), at.as_millis()])?;
    Ok(())
}

fn oldest(now: Timestamp) -> i64 {
    now.as_millis().saturating_sub(i64::try_from(LASTS.as_millis()).unwrap_or(i64::MAX))
}
