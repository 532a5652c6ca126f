//! Copies what commits appended into the database file, beside the writer: a commit then waits for its own pages alone, and
//! nobody's answer for the pages of everybody before them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};

use super::schema;
use crate::types::{OpenError, StoreError};

/// Pages appended since the last copying before they are copied. 16 MiB are read at a restart after a crash, which takes
/// milliseconds, and pages that many commits change are copied once for all of them.
const COPY_AFTER: i32 = 4000;
/// Pages appended before the writer itself copies and lets everybody wait: the bound of the file's growth.
const MOST: i32 = 8 * COPY_AFTER;

/// The thread that copies, and what the writer knows of it.
pub(crate) struct Checkpointer {
    wake: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// How many pages the file of appended ones holds, as of the last commit.
    appended: Arc<AtomicI32>,
    /// How many it held when they were last to be copied.
    asked_at: i32,
    /// Whether a copying has ended that the writer has not yet made use of.
    fresh: Arc<AtomicBool>,
}

impl Checkpointer {
    /// Starts the thread, and takes the copying over from `writer`.
    pub(crate) fn start(writer: &mut Connection, path: &Path) -> Result<Self, OpenError> {
        let appended = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&appended);
        // The hook stands where SQLite's own copying stood.
        let note = move |_: &mut Wal, pages| {
            seen.store(pages, Ordering::Relaxed);
            Ok(())
        };
        writer.wal_hook(Some(note)).map_err(StoreError::from)?;
        let (wake, woken) = mpsc::sync_channel(1);
        let fresh = Arc::new(AtomicBool::new(false));
        let news = Arc::clone(&fresh);
        let conn = schema::open_copier(path)?;
        let thread = std::thread::Builder::new()
            .name("store-copier".to_owned())
            .spawn(move || {
                while let Ok(()) = woken.recv() {
                    copy(&conn);
                    news.store(true, Ordering::Release);
                }
            })
            .map_err(StoreError::from)?;
        Ok(Self { wake: Some(wake), thread: Some(thread), appended, asked_at: 0, fresh })
    }

    /// Copies where it is due. Called by the writer between commits, once everybody has an answer.
    pub(crate) fn after_commit(&mut self, writer: &Connection) {
        let appended = self.appended.load(Ordering::Relaxed);
        if appended < self.asked_at {
            // The file has begun anew.
            self.asked_at = 0;
        }
        // What came while the thread copied is little: with it, all is copied and the file begins anew.
        let finish = self.fresh.swap(false, Ordering::Acquire);
        if !finish && appended - self.asked_at < COPY_AFTER {
            return;
        }
        self.asked_at = appended;
        if finish || appended > MOST {
            copy(writer);
        } else if let Some(wake) = &self.wake {
            // Woken already, if there is no room.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake.take();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// Copies what no reader needs any more in its place; waits for nobody.
fn copy(conn: &Connection) {
    if let Err(error) = conn.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE) {
        // The disk may be full or failing: nothing is lost, commits say so by themselves, and the next time tries again.
        tracing::warn!(%error, "could not copy commits into the database file; will try again");
    }
}
