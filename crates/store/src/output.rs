//! What commands write: a spool file a stream while they run, a row afterwards where it is small.
//!
//! A spool is a header (bytes kept at most, bytes written), the first half of what is kept, and a ring of the last half.
//! Nothing is synced until the run is recorded: an output without a recorded outcome proves nothing.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use provara_audit::canonical;
use provara_domain::{Digest, Name, RunId, Status, Stream};
use provara_faults::{Place, reached};
use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::sqlite::codec::{count, signed};
use crate::store::Store;
use crate::types::{OutputPage, StoreError};

const HEADER: u64 = 16;
/// Kept output up to this size goes into the database.
const INLINE: u64 = 64 * 1024;

impl Store {
    /// Returns what takes the output of a claimed run. One a run.
    ///
    /// # Errors
    /// When the run is not running, has one already, or its files cannot be made.
    pub fn output_writer(&self, run: &RunId) -> Result<OutputWriter, StoreError> {
        let live = self.inner.spools.live(run).ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        for stream in [Stream::Stdout, Stream::Stderr] {
            let spool = Spool::create(&self.inner.spools.path(run, stream), self.inner.spools.keep)?;
            *locked(live.spool(stream)) = Some(spool);
        }
        Ok(OutputWriter { live })
    }

    /// Returns at most `max` bytes of a run's output, from `offset` or else from the next kept byte. A run that the project
    /// has not wrote nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read_output(
        &self,
        project: &Name,
        run: &RunId,
        stream: Stream,
        offset: u64,
        max: usize,
    ) -> Result<OutputPage, StoreError> {
        let (spools, project, run) = (Arc::clone(&self.inner.spools), project.clone(), run.clone());
        self.inner
            .files
            .read(move |conn| {
                let Some(status) = status_of(conn, &project, &run)? else { return Ok(nothing(offset, true)) };
                match page(conn, &spools, &run, stream, offset, max) {
                    // Nothing of a lost run was made durable: after a power cut its spool may be empty or end early, and
                    // what cannot be read was not kept. A recorded run's bytes were on disk before its record was.
                    Err(error) if status == Status::Lost.as_str() && is_torn(&error) => Ok(nothing(offset, true)),
                    page => page,
                }
            })
            .await
    }

    /// Waits until a stream has more than `beyond` bytes, or its run ended.
    pub async fn output_grown(&self, run: &RunId, stream: Stream, beyond: u64) {
        let Some(live) = self.inner.spools.live(run) else { return };
        let mut progress = live.progress.subscribe();
        drop(live);
        // An error means that the sender is gone, and the run with it.
        let _ = progress.wait_for(|now| now.ended || now.total(stream) > beyond).await;
    }
}

/// Takes a run's output. Cheap: it writes to the page cache and wakes whoever follows.
#[derive(Debug)]
pub struct OutputWriter {
    live: Arc<Live>,
}

impl OutputWriter {
    /// Appends to a stream.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn append(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let total = {
            let mut spool = locked(self.live.spool(stream));
            let spool = spool.as_mut().ok_or(io::ErrorKind::NotFound)?;
            spool.append(bytes)?;
            spool.total
        };
        reached(Place::OutputAppended);
        self.live.progress.send_modify(|now| match stream {
            Stream::Stdout => now.stdout = total,
            Stream::Stderr => now.stderr = total,
        });
        Ok(())
    }
}

/// The output of runs that have not ended, and where all spools lie.
#[derive(Debug)]
pub(crate) struct Spools {
    folder: PathBuf,
    keep: u64,
    live: Mutex<HashMap<RunId, Arc<Live>>>,
}

#[derive(Debug, Default)]
struct Live {
    stdout: Mutex<Option<Spool>>,
    stderr: Mutex<Option<Spool>>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    stdout: u64,
    stderr: u64,
    ended: bool,
}

impl Progress {
    const fn total(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

impl Live {
    const fn spool(&self, stream: Stream) -> &Mutex<Option<Spool>> {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}

impl Spools {
    pub(crate) fn new(folder: PathBuf, keep: u64) -> Self {
        Self { folder, keep, live: Mutex::default() }
    }

    pub(crate) fn begin(&self, run: RunId) {
        locked(&self.live).insert(run, Arc::default());
    }

    /// The output is where it stays: followers look there from now on.
    pub(crate) fn end(&self, run: &RunId, inlined: bool) {
        let live = locked(&self.live).remove(run);
        if inlined {
            reached(Place::OutputUnlinked);
            self.remove(run);
        }
        if let Some(live) = live {
            live.progress.send_modify(|now| now.ended = true);
        }
    }

    pub(crate) fn remove(&self, run: &RunId) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let path = self.path(run, stream);
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%error, path = %path.display(), "could not remove a spool"),
            }
        }
    }

    fn live(&self, run: &RunId) -> Option<Arc<Live>> {
        locked(&self.live).get(run).cloned()
    }

    fn path(&self, run: &RunId, stream: Stream) -> PathBuf {
        self.folder.join(format!("{run}.{}", stream.as_str()))
    }

    /// Makes a run's output durable and returns what its record needs. Slow: not for the writer's thread.
    pub(crate) fn settle(&self, run: &RunId) -> Result<[Settled; 2], StoreError> {
        let stdout = self.settle_stream(run, Stream::Stdout)?;
        let stderr = self.settle_stream(run, Stream::Stderr)?;
        if !(stdout.is_small() && stderr.is_small()) {
            // Both stay here, the small one too.
            for settled in [&stdout, &stderr] {
                self.sync(run, settled.stream)?;
            }
            File::open(&self.folder)?.sync_all()?;
        }
        reached(Place::OutputSettled);
        Ok([stdout, stderr])
    }

    fn sync(&self, run: &RunId, stream: Stream) -> io::Result<()> {
        match File::open(self.path(run, stream)) {
            Ok(spool) => spool.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn settle_stream(&self, run: &RunId, stream: Stream) -> Result<Settled, StoreError> {
        let path = self.path(run, stream);
        let spool = match Spool::open(&path) {
            Ok(spool) => spool,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settled::nothing(stream)),
            Err(error) => return Err(error.into()),
        };
        let small = spool.kept_len() <= INLINE;
        let (mut kept, mut hasher, mut next) = (Vec::new(), Sha256::new(), 0);
        // In pieces: what is kept may be many times what a server otherwise needs.
        while next < spool.total {
            let (at, bytes) = spool.read(next, INLINE)?;
            hasher.update(&bytes);
            next = at.saturating_add(len(&bytes));
            if small {
                kept.extend(bytes);
            }
        }
        let sha256 = Digest::from_sha256(hasher.finalize().into());
        let kept = small.then_some(kept);
        Ok(Settled { stream, head: spool.head_len(), total: spool.total, sha256, kept })
    }
}

/// A stream that nobody writes to any more.
pub(crate) struct Settled {
    pub(crate) stream: Stream,
    pub(crate) head: u64,
    pub(crate) total: u64,
    pub(crate) sha256: Digest,
    /// What was kept of it, where that is little.
    kept: Option<Vec<u8>>,
}

impl Settled {
    fn nothing(stream: Stream) -> Self {
        Self { stream, head: 0, total: 0, sha256: canonical::sha256(&[]), kept: Some(Vec::new()) }
    }

    const fn is_small(&self) -> bool {
        self.kept.is_some()
    }
}

/// Stores both streams in the database if both are small; returns whether.
pub(crate) fn inline(
    conn: &Connection,
    project: &str,
    run: &RunId,
    streams: &[Settled; 2],
) -> Result<bool, StoreError> {
    let [stdout, stderr] = streams;
    let (Some(of_stdout), Some(of_stderr)) = (&stdout.kept, &stderr.kept) else { return Ok(false) };
    let mut insert = conn.prepare_cached(
        "INSERT OR REPLACE INTO outputs (project, run, stream, head, total, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (it, kept) in [(stdout, of_stdout), (stderr, of_stderr)] {
        insert.execute(params![project, run.as_str(), it.stream.as_str(), signed(it.head), signed(it.total), kept])?;
    }
    Ok(true)
}

/// Files and live spools are named by their run alone, so whose it is is asked first.
fn status_of(conn: &Connection, project: &Name, run: &RunId) -> Result<Option<String>, StoreError> {
    let mut query = conn.prepare_cached("SELECT status FROM plans WHERE run_id = ?1 AND project = ?2")?;
    Ok(query.query_row([run.as_str(), project.as_str()], |row| row.get(0)).optional()?)
}

fn is_torn(error: &StoreError) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    let StoreError::Io(cause) = error else { return false };
    let file = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(file, Some(InvalidData | UnexpectedEof))
}

fn page(
    conn: &Connection,
    spools: &Spools,
    run: &RunId,
    stream: Stream,
    offset: u64,
    max: usize,
) -> Result<OutputPage, StoreError> {
    let max = u64::try_from(max).unwrap_or(u64::MAX);
    if let Some(live) = spools.live(run) {
        let spool = locked(live.spool(stream));
        return match spool.as_ref() {
            Some(spool) => Ok(spool.page(offset, max, false)?),
            None => Ok(nothing(offset, false)),
        };
    }
    if let Some(page) = inlined_page(conn, run, stream, offset, max)? {
        return Ok(page);
    }
    match Spool::open(&spools.path(run, stream)) {
        Ok(spool) => Ok(spool.page(offset, max, true)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(nothing(offset, true)),
        Err(error) => Err(error.into()),
    }
}

const fn nothing(offset: u64, ended: bool) -> OutputPage {
    OutputPage { offset, bytes: Bytes::new(), gap: false, total: 0, ended }
}

fn inlined_page(
    conn: &Connection,
    run: &RunId,
    stream: Stream,
    offset: u64,
    max: u64,
) -> Result<Option<OutputPage>, StoreError> {
    let mut query = conn.prepare_cached("SELECT head, total, bytes FROM outputs WHERE run = ?1 AND stream = ?2")?;
    let found: Option<(i64, i64, Vec<u8>)> = query
        .query_row(params![run.as_str(), stream.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((head, total, kept)) = found else { return Ok(None) };
    let (head, total) = (count(head)?, count(total)?);
    let dropped = total.saturating_sub(u64::try_from(kept.len()).unwrap_or(u64::MAX));
    let (at, index) = if offset < head {
        (offset, offset)
    } else {
        let at = offset.max(head.saturating_add(dropped));
        (at, at.saturating_sub(dropped))
    };
    // A page ends where the gap begins, so that its bytes are one piece.
    let end = if at < head && dropped > 0 { head } else { u64::try_from(kept.len()).unwrap_or(u64::MAX) };
    let end = end.min(index.saturating_add(max));
    let bytes = usize_of(index).zip(usize_of(end)).and_then(|(from, to)| kept.get(from..to)).unwrap_or_default();
    // Reading beyond the end is no gap.
    let gap = dropped > 0 && (head..head.saturating_add(dropped)).contains(&offset);
    Ok(Some(OutputPage { offset: at, bytes: Bytes::copy_from_slice(bytes), gap, total, ended: true }))
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn usize_of(value: u64) -> Option<usize> {
    usize::try_from(value).ok()
}

#[derive(Debug)]
struct Spool {
    file: File,
    half: u64,
    total: u64,
}

impl Spool {
    fn create(path: &std::path::Path, keep: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let spool = Self { file, half: (keep / 2).max(1), total: 0 };
        spool.write_header()?;
        Ok(spool)
    }

    fn open(path: &std::path::Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut half = [0; 8];
        let mut total = [0; 8];
        file.read_exact_at(&mut half, 0)?;
        file.read_exact_at(&mut total, 8)?;
        let half = u64::from_be_bytes(half);
        if half == 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(Self { file, half, total: u64::from_be_bytes(total) })
    }

    fn write_header(&self) -> io::Result<()> {
        self.file.write_all_at(&self.half.to_be_bytes(), 0)?;
        self.file.write_all_at(&self.total.to_be_bytes(), 8)
    }

    /// The bytes first, the total after: a total never counts what is not there.
    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut at = self.total;
        while !bytes.is_empty() {
            let (place, room) = self.place(at);
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.file.write_all_at(now, place)?;
            at = at.saturating_add(u64::try_from(now.len()).unwrap_or(u64::MAX));
            bytes = rest;
        }
        self.total = at;
        self.write_header()
    }

    /// Returns where the byte `at` lies, and how many from it on lie together.
    fn place(&self, at: u64) -> (u64, u64) {
        let Some(in_tail) = at.checked_sub(self.half) else { return (HEADER + at, self.half - at) };
        let in_ring = in_tail % self.half;
        (HEADER + self.half + in_ring, self.half - in_ring)
    }

    fn head_len(&self) -> u64 {
        self.total.min(self.half)
    }

    fn kept_len(&self) -> u64 {
        self.head_len() + (self.total - self.tail_start().min(self.total))
    }

    fn tail_start(&self) -> u64 {
        self.half.max(self.total.saturating_sub(self.half))
    }

    /// Returns the bytes from `offset`, or from the next kept byte, up to the end or the gap, and where they begin.
    fn read(&self, offset: u64, max: u64) -> io::Result<(u64, Vec<u8>)> {
        let at = if offset < self.half { offset } else { offset.max(self.tail_start()) };
        let end = if at < self.half && self.tail_start() > self.half { self.half } else { self.total };
        let mut left = end.saturating_sub(at).min(max);
        let mut bytes = vec![0; usize::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?];
        let mut rest = bytes.as_mut_slice();
        let mut from = at;
        while left > 0 {
            let (place, together) = self.place(from);
            let now = together.min(left);
            let (piece, after) = std::mem::take(&mut rest)
                .split_at_mut_checked(usize::try_from(now).map_err(|_| io::ErrorKind::InvalidInput)?)
                .ok_or(io::ErrorKind::InvalidInput)?;
            self.file.read_exact_at(piece, place)?;
            rest = after;
            from += now;
            left -= now;
        }
        Ok((at, bytes))
    }

    fn page(&self, offset: u64, max: u64, ended: bool) -> io::Result<OutputPage> {
        let (at, bytes) = self.read(offset, max)?;
        Ok(OutputPage { offset: at, bytes: Bytes::from(bytes), gap: at > offset, total: self.total, ended })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
