//! A copy of the whole store as it stood at one moment, taken while a server works, and checked without one.
//!
//! A copy may come from anywhere, so it is believed in nothing: its format has to be one that this version makes, every
//! page is checked, and its log is read through the verifier that strangers use.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use provara_audit::checkpoint::VerifierKey;
use provara_audit::export;
use provara_audit::verify::{self, Report};
use provara_domain::{RunId, Status, Stream};
use rusqlite::{Connection, OptionalExtension as _};

use crate::sqlite::codec::{count, run_id, signed};
use crate::sqlite::schema;
use crate::store::{DATABASE, lock};
use crate::types::{OpenError, StoreError};

/// How many entries are read at once.
const PAGE: u64 = 1000;

/// Why a copy could not be made or is not one.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no store.
    #[error("there is no database at `{}`", path.display())]
    Missing {
        /// Where it was looked for.
        path: std::path::PathBuf,
    },
    /// The database's format is not one that this version makes.
    #[error("the database's format is not one that this version makes: {what}")]
    Format {
        /// What differs.
        what: String,
    },
    /// The database contradicts itself.
    #[error("the database is damaged: {what}")]
    Damaged {
        /// The first fault found.
        what: String,
    },
    /// A file could not be read or written.
    #[error("file could not be read or written")]
    Io(#[from] io::Error),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for SnapshotError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A runtime folder that no server uses as long as this lives.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

impl Held {
    /// Holds `runtime`, which must be there.
    ///
    /// # Errors
    /// When a server uses it, or it cannot be held.
    pub fn hold(runtime: &Path) -> Result<Self, OpenError> {
        Ok(Self { _lock: lock(runtime)? })
    }
}

/// A copy, open to be read. It is never changed.
#[derive(Debug)]
pub struct Snapshot {
    conn: Connection,
}

impl Snapshot {
    /// The database's file in a runtime folder and in a copy of one.
    pub const DATABASE: &str = DATABASE;
    /// The folder for output in a runtime folder and in a copy of one.
    pub const OUTPUT: &str = "output";

    /// Copies the database of `runtime` to the new file `to`, as of one moment, whoever writes meanwhile. Durable when it
    /// returns.
    ///
    /// # Errors
    /// When there is no database, `to` exists, or either cannot be used.
    pub fn take(runtime: &Path, to: &Path) -> Result<Self, SnapshotError> {
        let from = runtime.join(DATABASE);
        if !from.try_exists()? {
            return Err(SnapshotError::Missing { path: from });
        }
        // An empty file of ours first: SQLite would make one that others can read.
        let copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        let path = to.to_str().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
        // One read transaction, which a server's writes neither wait for nor disturb. The page-wise copy would begin again
        // with every commit of the server, and so never end under load.
        schema::open_copied(&from)?.execute("VACUUM INTO ?1", [path])?;
        copy.sync_all()?;
        Self::open(to)
    }

    /// Opens a copy.
    ///
    /// # Errors
    /// When it is no database.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        Ok(Self { conn: schema::open_copied(path)? })
    }

    /// Checks that the format is ours to the letter and that the database does not contradict itself.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self) -> Result<(), SnapshotError> {
        // A view or a trigger that somebody added would act in the server's name once this is put back.
        schema::is_ours(&self.conn).map_err(|what| SnapshotError::Format { what })?;
        let fault: String = self.conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if fault != "ok" {
            return Err(SnapshotError::Damaged { what: fault });
        }
        let dangling: Option<String> =
            self.conn.query_row("PRAGMA foreign_key_check", [], |row| row.get(0)).optional()?;
        match dangling {
            Some(table) => Err(SnapshotError::Damaged { what: format!("a row of `{table}` refers to nothing") }),
            None => Ok(()),
        }
    }

    /// Checks the log as a stranger would: its form, its order, every plan's history, and the root against the newest kept
    /// checkpoint.
    ///
    /// # Errors
    /// When it cannot be read. What is wrong with it is in the report.
    pub fn verify(&self, key: Option<&VerifierKey>, checkpoints: &[String]) -> Result<Report, SnapshotError> {
        let lines = Lines { conn: &self.conn, next: 0, page: io::Cursor::default() };
        verify::verify(BufReader::new(lines), key, checkpoints).map_err(|error| match error {
            verify::VerifyError::Read(cause) => SnapshotError::Io(cause),
        })
    }

    /// Returns the newest checkpoint kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn latest_checkpoint(&self) -> Result<Option<String>, SnapshotError> {
        let sql = "SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1";
        Ok(self.conn.query_row(sql, [], |row| row.get(0)).optional()?)
    }

    /// Calls `each` with the name of every file below [`Snapshot::OUTPUT`] that a recorded or lost run needs, and whether it
    /// has to be there: a lost run may have written nothing.
    ///
    /// # Errors
    /// When the runs cannot be read, or `each` fails.
    pub fn spools<E: From<SnapshotError>>(&self, mut each: impl FnMut(&str, bool) -> Result<(), E>) -> Result<(), E> {
        let failed = |error: rusqlite::Error| SnapshotError::from(error);
        let sql = "SELECT run_id, status FROM plans WHERE run_id IS NOT NULL AND status IN (?1, ?2) \
                   AND erased_at IS NULL AND NOT EXISTS (SELECT 1 FROM outputs WHERE run = run_id) ORDER BY seq";
        let mut query = self.conn.prepare(sql).map_err(failed)?;
        let mut rows = query.query([Status::Finished.as_str(), Status::Lost.as_str()]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let (run, status): (String, String) = row.get(0).and_then(|run| Ok((run, row.get(1)?))).map_err(failed)?;
            let run = run_id(&run).map_err(SnapshotError::from)?;
            for stream in [Stream::Stdout, Stream::Stderr] {
                each(&format!("{run}.{}", stream.as_str()), status == Status::Finished.as_str())?;
            }
        }
        Ok(())
    }

    /// Returns whether `name` can name a file below [`Snapshot::OUTPUT`].
    pub fn is_spool(name: &str) -> bool {
        name.split_once('.').is_some_and(|(run, stream)| {
            RunId::parse(run).is_ok() && [Stream::Stdout, Stream::Stderr].iter().any(|known| known.as_str() == stream)
        })
    }
}

/// The log as it would be exported, a page at a time.
struct Lines<'a> {
    conn: &'a Connection,
    next: u64,
    page: io::Cursor<Vec<u8>>,
}

impl Read for Lines<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.page.read(into)?;
        if read > 0 || into.is_empty() {
            return Ok(read);
        }
        self.page = io::Cursor::new(self.turn().map_err(io::Error::other)?);
        self.page.read(into)
    }
}

impl Lines<'_> {
    fn turn(&mut self) -> Result<Vec<u8>, StoreError> {
        let sql = "SELECT position, leaf FROM log WHERE position >= ?1 ORDER BY position LIMIT ?2";
        let mut query = self.conn.prepare_cached(sql)?;
        let mut rows = query.query([signed(self.next), signed(PAGE)])?;
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            let (position, leaf): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let position = count(position)?;
            page.extend_from_slice(export::line(position, &leaf).as_bytes());
            page.push(b'\n');
            self.next = position.saturating_add(1);
        }
        Ok(page)
    }
}
