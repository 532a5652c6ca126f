//! Opens the database and brings its format up to date.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::types::{OpenError, StoreError};

/// Each file brings the format one further. Never changed once released, only added to.
const MIGRATIONS: [&str; 2] = [include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql")];

pub(crate) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    // SQLite gives its journal the database's mode: making the file first keeps both to ourselves.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
    let mut conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // KiB: the right edges of every index.
    conn.pragma_update(None, "cache_size", -8000).map_err(StoreError::from)?;
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).map_err(StoreError::from)?;
    conn.pragma_update(None, "synchronous", "full").map_err(StoreError::from)?;
    conn.pragma_update(None, "foreign_keys", true).map_err(StoreError::from)?;
    // What is erased is overwritten, and does not linger in pages that are free.
    conn.pragma_update_and_check(None, "secure_delete", true, |_| Ok(())).map_err(StoreError::from)?;
    migrate(&mut conn)?;
    Ok(conn)
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    Ok(connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}

/// Opens the connection that copies commits into the database file: what it syncs must be as durable as a commit.
pub(crate) fn open_copier(path: &Path) -> Result<Connection, OpenError> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(StoreError::from)?;
    conn.pragma_update(None, "synchronous", "full").map_err(StoreError::from)?;
    Ok(conn)
}

/// Opens a database that somebody else may have made: nothing that its schema names is run.
pub(crate) fn open_copied(path: &Path) -> Result<Connection, StoreError> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    Ok(conn)
}

/// Compares the schema, to the letter, with the one that this version makes of the same format.
pub(crate) fn is_ours(conn: &Connection) -> Result<(), String> {
    let said = |error: rusqlite::Error| error.to_string();
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(said)?;
    let known = usize::try_from(version).ok().filter(|version| *version > 0).and_then(|count| MIGRATIONS.get(..count));
    let known =
        known.ok_or_else(|| format!("it has format {version}, this version knows 1 to {}", MIGRATIONS.len()))?;
    let fresh = Connection::open_in_memory().map_err(said)?;
    known.iter().try_for_each(|sql| fresh.execute_batch(sql)).map_err(said)?;
    let (found, expected) = (parts(conn).map_err(said)?, parts(&fresh).map_err(said)?);
    let odd = found.symmetric_difference(&expected).next().map(|(kind, name, _)| format!("{kind} `{name}`"));
    odd.map_or(Ok(()), Err)
}

type SchemaPart = (String, String, Option<String>);

fn parts(conn: &Connection) -> Result<std::collections::BTreeSet<SchemaPart>, rusqlite::Error> {
    let mut query = conn.prepare("SELECT type, name, sql FROM sqlite_master")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(128);
    // Without it SQLite plans a statement anew for every value of a limit or a key: a seventh of what a plan cost.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // KiB: what reads come back to. There are several readers, and behind each is what the system keeps of the file.
    conn.pragma_update(None, "cache_size", -2000)?;
    Ok(conn)
}

fn migrate(conn: &mut Connection) -> Result<(), OpenError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(StoreError::from)?;
    if !(0..=known).contains(&found) {
        return Err(OpenError::TooNew { found, known });
    }
    for (version, sql) in (1_i64..).zip(MIGRATIONS) {
        if version > found {
            let step = conn.transaction().map_err(StoreError::from)?;
            step.execute_batch(sql).map_err(StoreError::from)?;
            step.pragma_update(None, "user_version", version).map_err(StoreError::from)?;
            step.commit().map_err(StoreError::from)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_on_disk_before_it_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let conn = open_writer(&folder.path().join("provara.db")).unwrap();
        let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
        // A killed process loses nothing either way; only a power cut would show the difference.
        assert_eq!(pragma("synchronous"), 2.into(), "not FULL");
        assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
        assert_eq!(pragma("foreign_keys"), 1.into());
        assert_eq!(pragma("secure_delete"), 1.into(), "what is erased would linger");
    }
}
