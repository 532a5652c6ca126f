//! A sign of life on a terminal, for whatever takes longer than a second.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Counts seconds on stderr until it is dropped.
pub(crate) struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// Begins to count, where there is a terminal and somebody who wants it.
    pub(crate) fn start(quiet: bool, what: &str) -> Self {
        if quiet || !io::stderr().is_terminal() {
            return Self(None);
        }
        let (ended, end) = mpsc::channel();
        let (what, begun) = (what.to_owned(), Instant::now());
        let thread = thread::spawn(move || {
            let mut shown = false;
            while end.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                let _ = write!(io::stderr(), "\r\u{1b}[K{what} ({} s)", begun.elapsed().as_secs());
                shown = true;
            }
            if shown {
                let _ = write!(io::stderr(), "\r\u{1b}[K");
            }
        });
        Self(Some((ended, thread)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((ended, thread)) = self.0.take() {
            drop(ended);
            let _ = thread.join();
        }
    }
}
