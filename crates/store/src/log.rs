//! The log: entries, proofs and checkpoints.

use std::sync::Arc;

use provara_audit::merkle::{self, Hash};
use provara_domain::{EventBody, Name, PlanId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{broadcast, watch};

use crate::sqlite::codec::{self, count, signed};
use crate::sqlite::writer::{About, StoredNodes};
use crate::store::Store;
use crate::types::{Cause, LogEntry, Owner, StoreError};

impl Store {
    /// Returns the number of entries.
    pub fn head(&self) -> u64 {
        self.inner.memory.head()
    }

    /// Returns what follows the number of entries.
    pub fn watch_head(&self) -> watch::Receiver<u64> {
        self.inner.memory.watch_head()
    }

    /// Returns the entries from now on, in order, each after its commit. Whoever lags 1024 behind loses the oldest and
    /// reads [`Store::entries`].
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<LogEntry>> {
        self.inner.memory.subscribe()
    }

    /// Returns at most `limit` entries from position `from` on that `owner` may see.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn entries(
        &self,
        project: &Name,
        owner: Owner,
        from: u64,
        limit: u32,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let project = project.clone();
        self.inner.readers.read(move |conn| entries(conn, &project, &owner, from, limit)).await
    }

    /// Returns the root of the first `size` entries.
    ///
    /// # Errors
    /// When there are not so many, or the store fails.
    pub async fn root(&self, size: u64) -> Result<Hash, StoreError> {
        self.within(size)?;
        self.inner.readers.read(move |conn| merkle::root(&StoredNodes(conn), size)).await
    }

    /// Returns the proof that the entry at `position` is among the first `size`.
    ///
    /// # Errors
    /// When there are not so many, or the store fails.
    pub async fn inclusion(&self, position: u64, size: u64) -> Result<Vec<Hash>, StoreError> {
        self.within(size)?;
        if position >= size {
            return Err(StoreError::OutOfRange { asked: position, head: size });
        }
        self.inner.readers.read(move |conn| merkle::inclusion_proof(&StoredNodes(conn), position, size)).await
    }

    /// Returns the proof that the first `old` entries begin the first `new`.
    ///
    /// # Errors
    /// When there are not so many, or the store fails.
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, StoreError> {
        self.within(new)?;
        if old > new {
            return Err(StoreError::OutOfRange { asked: old, head: new });
        }
        self.inner.readers.read(move |conn| merkle::consistency_proof(&StoredNodes(conn), old, new)).await
    }

    /// Returns the positions of a plan's entries, in the plan's order; none where the project has no such plan.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn positions_of(&self, project: &Name, plan: &PlanId) -> Result<Vec<u64>, StoreError> {
        let (project, plan) = (project.clone(), plan.clone());
        self.inner
            .readers
            .read(move |conn| {
                let mut query =
                    conn.prepare_cached("SELECT position FROM log WHERE plan = ?1 AND project = ?2 ORDER BY plan_rev")?;
                let mut rows = query.query([plan.as_str(), project.as_str()])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(count(row.get(0)?)?);
                }
                Ok(found)
            })
            .await
    }

    /// Keeps a signed checkpoint over the first `size` entries.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn save_checkpoint(&self, size: u64, note: &str, at: Timestamp) -> Result<(), StoreError> {
        self.within(size)?;
        let note = note.to_owned();
        self.inner
            .writer
            .write(move |tx| {
                let mut insert = tx
                    .conn
                    .prepare_cached("INSERT OR REPLACE INTO checkpoints (size, note, at) VALUES (?1, ?2, ?3)")?;
                insert.execute(params![signed(size), note, at.as_millis()])?;
                Ok(())
            })
            .await
    }

    /// Returns the largest checkpoint kept.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn latest_checkpoint(&self) -> Result<Option<(u64, String)>, StoreError> {
        self.inner
            .readers
            .read(|conn| {
                let mut query = conn.prepare_cached("SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1")?;
                let found: Option<(i64, String)> =
                    query.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
                found.map(|(size, note)| Ok((count(size)?, note))).transpose()
            })
            .await
    }

    /// Logs that the server started or stopped.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn server_event(&self, body: EventBody, cause: Cause) -> Result<(), StoreError> {
        self.inner.writer.write(move |tx| tx.event(&Name::default_project(), About::Nothing, body, &cause)).await
    }

    fn within(&self, size: u64) -> Result<(), StoreError> {
        let head = self.head();
        if size <= head { Ok(()) } else { Err(StoreError::OutOfRange { asked: size, head }) }
    }
}

fn entries(
    conn: &Connection,
    project: &Name,
    owner: &Owner,
    from: u64,
    limit: u32,
) -> Result<Vec<LogEntry>, StoreError> {
    let columns = codec::LOG_COLUMNS;
    let (mine, agent) = match owner {
        Owner::Only(agent) => ("AND agent = ?4", Some(agent.as_str())),
        Owner::Everyone => ("AND ?4 IS NULL", None),
    };
    let sql =
        format!("SELECT {columns} FROM log WHERE project = ?1 AND position >= ?2 {mine} ORDER BY position LIMIT ?3");
    let mut query = conn.prepare_cached(&sql)?;
    let mut rows = query.query(params![project.as_str(), signed(from), limit, agent])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(codec::log_entry(row)?);
    }
    Ok(found)
}
