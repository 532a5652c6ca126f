//! The store itself: opened once for a runtime folder, shared by cloning.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use crate::memory::Memory;
use crate::output::Spools;
use crate::sqlite::reader::Readers;
use crate::sqlite::schema;
use crate::sqlite::writer::Writer;
use crate::sweep::sweep;
use crate::types::{OpenError, StoreConfig, StoreError};

pub(crate) const DATABASE: &str = "provara.db";

/// The one store of a server. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

// Dropped in this order: the writer after the readers, because only the last connection, if it may write, copies what the
// database's own log holds into its one file; and the lock last, when nothing writes any more.
pub(crate) struct Inner {
    pub(crate) readers: Readers,
    /// Apart from the queries: a slow disk under a large output must not hold up a list.
    pub(crate) files: Readers,
    pub(crate) writer: Writer,
    pub(crate) memory: Arc<Memory>,
    pub(crate) spools: Arc<Spools>,
    _lock: File,
}

impl Store {
    /// Returns the store in `config.runtime`, its format brought up to date.
    ///
    /// # Errors
    /// When another server has it open, it is of a newer version, or files cannot be made.
    pub fn open(config: StoreConfig) -> Result<Self, OpenError> {
        make_private(&config.runtime)?;
        let output = config.runtime.join("output");
        make_private(&output)?;
        let lock = lock(&config.runtime)?;
        let database = config.runtime.join(DATABASE);
        let conn = schema::open_writer(&database)?;
        let spools = Arc::new(Spools::new(output.clone(), config.output_keep));
        sweep(&conn, &spools, &output)?;
        let memory = Arc::new(Memory::load(&conn, Arc::clone(&spools))?);
        let readers = Readers::open(&database, "store-reader", 2)?;
        let files = Readers::open(&database, "store-output", 1)?;
        let writer = Writer::start(conn, &database, Arc::clone(&memory))?;
        Ok(Self { inner: Arc::new(Inner { writer, readers, files, memory, spools, _lock: lock }) })
    }

    /// Returns once the store has read and could have written: what a supervisor needs to know. A disk that is full or a
    /// database that is damaged answers too, by the error: ending the server would mend neither.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn answers(&self) -> Result<(), StoreError> {
        let read = |conn: &rusqlite::Connection| Ok(conn.query_row("SELECT 1", [], |_| Ok(()))?);
        self.inner.readers.read(read).await?;
        self.inner.files.read(read).await?;
        self.inner.writer.write(|_| Ok::<(), StoreError>(())).await
    }

    /// Commits what was asked and ends, everything in the one database file; every later call is refused as closed. The
    /// folder is free once every clone is gone.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.inner);
        let (done, closed) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("store-close".to_owned()).spawn(move || {
            // The writer last: whoever closes a database last leaves it whole in one file.
            inner.readers.close();
            inner.files.close();
            inner.writer.close();
            // Before the answer: whoever then drops the last clone may open the folder again at once.
            drop(inner);
            let _ = done.send(());
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread to close the store with");
        }
        // Without a thread the channel is closed and the store closes when its last clone goes.
        let _ = closed.await;
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

fn make_private(folder: &Path) -> Result<(), OpenError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|cause| OpenError::Io { path: folder.to_owned(), cause })
}

/// The lock lives as long as the open file: it goes with the process, however that ends.
pub(crate) fn lock(runtime: &Path) -> Result<File, OpenError> {
    let path = runtime.join("lock");
    let failed = |cause| OpenError::Io { path: path.clone(), cause };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: runtime.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(failed(cause)),
    }
}
