//! What a crash between a commit and its tidying left behind: spools whose bytes are in the database already, or erased.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use provara_domain::{RunId, Stream};
use rusqlite::Connection;

use crate::output::Spools;
use crate::types::StoreError;

/// The most runs that one start looks at, the newest first: a crash leaves the newest behind.
const LOOKS: usize = 10_000;

/// Removes spools that nobody reads any more. A file that is not named like one is somebody else's and stays.
pub(crate) fn sweep(conn: &Connection, spools: &Spools, folder: &Path) -> Result<(), StoreError> {
    let mut removed = 0_u64;
    for run in newest_runs(folder)? {
        if is_nobodys(conn, &run)? {
            spools.remove(&run);
            removed = removed.saturating_add(1);
        }
    }
    if removed > 0 {
        tracing::info!(runs = removed, "removed outputs that a crash left behind");
    }
    Ok(())
}

/// A run's identifier begins with its time, so that the order of names is the order of age.
fn newest_runs(folder: &Path) -> io::Result<BTreeSet<RunId>> {
    let mut newest = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let Some(run) = entry?.file_name().to_str().and_then(run_of) else { continue };
        newest.insert(run);
        if newest.len() > LOOKS {
            newest.pop_first();
        }
    }
    Ok(newest)
}

fn run_of(file_name: &str) -> Option<RunId> {
    let (run, stream) = file_name.split_once('.')?;
    let ours = [Stream::Stdout, Stream::Stderr].iter().any(|known| known.as_str() == stream);
    RunId::parse(run).ok().filter(|_| ours)
}

/// A run that is not recorded keeps its spool, the last that is known of it. So does one that the database never heard of:
/// no crash leaves such a run, but a database put back from an older copy does, and its owner may find the newer one.
fn is_nobodys(conn: &Connection, run: &RunId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM outputs WHERE run = ?1 \
               UNION ALL SELECT 1 FROM plans WHERE run_id = ?1 AND erased_at IS NOT NULL";
    Ok(conn.prepare_cached(sql)?.exists([run.as_str()])?)
}
