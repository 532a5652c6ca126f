//! Opens the database and brings its format up to date.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::types::{OpenError, StoreError};

/// Each file brings the format one further. Never changed once released, only added to.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001.sql")];

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
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).map_err(StoreError::from)?;
    conn.pragma_update(None, "synchronous", "full").map_err(StoreError::from)?;
    // Pages that many commits change are then copied into the database once for all of them. 16 MiB are read at a restart
    // after a crash, which takes milliseconds.
    conn.pragma_update(None, "wal_autocheckpoint", 4000).map_err(StoreError::from)?;
    conn.pragma_update(None, "foreign_keys", true).map_err(StoreError::from)?;
    migrate(&mut conn)?;
    Ok(conn)
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    Ok(connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(128);
    // KiB: the right edges of every index, and what reads come back to.
    conn.pragma_update(None, "cache_size", -8000)?;
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
    }
}
