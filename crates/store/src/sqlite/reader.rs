//! Read-only connections, each on its own thread: reads never wait for the writer, nor for the executor.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::schema;
use crate::types::{OpenError, StoreError};

type Query = Box<dyn FnOnce(&Connection) + Send>;

/// Some connections that take turns.
pub(crate) struct Readers {
    lanes: Mutex<Vec<mpsc::Sender<Query>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    turn: AtomicUsize,
}

impl Readers {
    /// Opens `lanes` connections.
    pub(crate) fn open(path: &Path, name: &str, lanes: usize) -> Result<Self, OpenError> {
        let mut senders = Vec::new();
        let mut threads = Vec::new();
        for _ in 0..lanes {
            let conn = schema::open_reader(path)?;
            let (sender, queries) = mpsc::channel::<Query>();
            let thread = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || queries.into_iter().for_each(|query| query(&conn)))
                .map_err(StoreError::from)?;
            senders.push(sender);
            threads.push(thread);
        }
        Ok(Self { lanes: Mutex::new(senders), threads: Mutex::new(threads), turn: AtomicUsize::new(0) })
    }

    /// Returns what `query` reads.
    pub(crate) async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.send(Box::new(move |conn| {
            // Whoever asked may be gone.
            let _ = answer.send(query(conn));
        }))?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    fn send(&self, query: Query) -> Result<(), StoreError> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(lanes.len()).unwrap_or(0);
        lanes.get(turn).ok_or(StoreError::Closed)?.send(query).map_err(|_| StoreError::Closed)
    }

    /// Answers what was asked, then ends. Blocks.
    pub(crate) fn close(&self) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.close();
    }
}
