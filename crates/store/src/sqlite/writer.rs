//! The one writer: a thread that commits whatever waited during the last commit, or, while nobody else is about, whoever asks.
//! Everybody is answered after the commit that holds their change, refusals included: a refusal may speak of a change of the
//! same commit.
//!
//! A change looks first and writes then, so a refusal has written nothing. Should one fail half-way all the same, the whole
//! commit is taken back and everybody in it is told to try again: a savepoint for each change would cost every change what
//! only a fault needs.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use provara_audit::{canonical, merkle};
use provara_domain::{Event, EventBody, EventId, Name, PlanId, Status};
use provara_faults::{Place, reached};
use rusqlite::{Connection, params};
use sha2::{Digest as _, Sha256};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::checkpoint::Checkpointer;
use super::codec::{name, signed};
use crate::memory::{Effect, Memory};
use crate::types::{Cause, Entropy, LogEntry, OpenError, StoreError};

/// The most changes in one commit: bounds how long the first of them waits.
const BATCH: usize = 512;

type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Without a transaction a change does nothing and only says whom to answer.
type Change = Box<dyn FnOnce(Option<&mut Tx<'_>>) -> (Result<(), Refusal>, Answer) + Send>;
/// What the store itself had to do with a refusal, if anything.
type Refusal = Option<StoreError>;

pub(crate) struct Writer {
    changes: Mutex<Option<mpsc::Sender<Change>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Nothing once the store is closed.
    desk: Arc<Mutex<Option<Desk>>>,
    /// Whether the last commit held one change: then whoever comes next is likely alone as well.
    alone: Arc<AtomicBool>,
}

/// What a commit needs. Whoever has it is the writer.
struct Desk {
    /// Before the connection, which goes last and leaves all in one file.
    checkpointer: Checkpointer,
    conn: Connection,
    memory: Arc<Memory>,
    state: State,
}

impl Desk {
    fn commit(&mut self, batch: Vec<Change>) {
        commit(&self.conn, &self.memory, &mut self.state, batch);
        self.checkpointer.after_commit(&self.conn);
    }
}

impl Writer {
    pub(crate) fn start(mut conn: Connection, path: &Path, memory: Arc<Memory>) -> Result<Self, OpenError> {
        let (sender, changes) = mpsc::channel();
        let counts = kept_counts(&conn)?;
        let checkpointer = Checkpointer::start(&mut conn, path)?;
        let state = State { size: memory.head(), edge: Edge::default(), counts };
        let desk = Arc::new(Mutex::new(Some(Desk { checkpointer, conn, memory, state })));
        let alone = Arc::new(AtomicBool::new(true));
        let (mine, seen) = (Arc::clone(&desk), Arc::clone(&alone));
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            while let Ok(first) = changes.recv() {
                // A change that panicked left the desk as no commit leaves it.
                let Ok(mut desk) = mine.lock() else { return };
                let Some(desk) = desk.as_mut() else { return };
                let batch: Vec<Change> = std::iter::once(first).chain(changes.try_iter().take(BATCH)).collect();
                seen.store(batch.len() == 1, Ordering::Relaxed);
                desk.commit(batch);
            }
        });
        let thread = thread.map_err(StoreError::from)?;
        let (changes, thread) = (Mutex::new(Some(sender)), Mutex::new(Some(thread)));
        Ok(Self { changes, thread, desk, alone })
    }

    /// Returns what `change` answers, once it is durable. A change MUST look before it writes: see above.
    pub(crate) async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Error + Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let boxed: Change = Box::new(move |tx| {
            let result = tx.map_or_else(|| Err(E::from(StoreError::Closed)), change);
            let keep = result.as_ref().map(|_| ()).map_err(|error| in_chain(error));
            let tell: Answer = Box::new(move |committed| {
                // Whoever asked may be gone; the change stands all the same.
                let _ = answer.send(committed.map_err(E::from).and(result));
            });
            (keep, tell)
        });
        if let Some(change) = self.commit_here(boxed) {
            self.send(change)?;
        }
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Commits on the thread that asks, where nobody else does: two wake-ups less, which is a fifth of what one agent alone
    /// waits for. Returns the change where others are about, who share a commit.
    fn commit_here(&self, change: Change) -> Option<Change> {
        let movable = Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
        if !movable || !self.alone.load(Ordering::Relaxed) {
            return Some(change);
        }
        let Ok(mut desk) = self.desk.try_lock() else { return Some(change) };
        let Some(desk) = desk.as_mut() else { return Some(change) };
        // The executor goes on elsewhere while this thread waits for the disk.
        tokio::task::block_in_place(|| desk.commit(vec![change]));
        None
    }

    fn send(&self, change: Change) -> Result<(), StoreError> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.as_ref().ok_or(StoreError::Closed)?.send(change).map_err(|_| StoreError::Closed)
    }

    /// Commits what was asked, then ends. Blocks.
    pub(crate) fn close(&self) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the writer knows without asking the database. Changed by commits alone.
struct State {
    /// The number of entries of the log.
    size: u64,
    edge: Edge,
    counts: HashMap<CountKey, i64>,
}

fn commit(conn: &Connection, memory: &Memory, state: &mut State, batch: Vec<Change>) {
    let begun = Instant::now();
    let edge = std::mem::take(&mut state.edge);
    let mut tx =
        Tx { conn, size: state.size, edge, effects: Vec::new(), counts: &state.counts, deltas: HashMap::new() };
    let mut answers = Vec::with_capacity(batch.len());
    let mut failure = run(conn, "BEGIN IMMEDIATE").err();
    reached(Place::CommitBegun);
    for change in batch {
        // SQLite may have ended the transaction: a statement now would commit by itself.
        if failure.is_some() {
            answers.push(change(None).1);
            continue;
        }
        match apply(&mut tx, change) {
            Ok(answer) => answers.push(answer),
            Err((answer, error)) => {
                answers.push(answer);
                failure = Some(error);
            }
        }
    }
    if failure.is_none() {
        failure = tx.write_counts().err();
    }
    reached(Place::CommitReady);
    if failure.is_none() {
        failure = run(conn, "COMMIT").err();
    }
    match failure {
        None => {
            memory.measures.committed(answers.len(), begun.elapsed());
            reached(Place::CommitDone);
            let Tx { size, edge, effects, deltas, .. } = tx;
            (state.size, state.edge) = (size, edge);
            for (key, by) in deltas {
                memory.count(&key.0, key.2, by);
                *state.counts.entry(key).or_default() += by;
            }
            let news = memory.apply(effects);
            reached(Place::CommitApplied);
            answers.into_iter().for_each(|answer| answer(Ok(())));
            // A thousand followers woken first would keep those waiting who caused the news.
            memory.tell(news);
        }
        Some(error) => {
            memory.measures.failed_commits.add_one();
            tracing::error!(%error, changes = answers.len(), "could not commit");
            // Refused when SQLite already took everything back, which is as good.
            let _ = conn.execute_batch("ROLLBACK");
            answers.into_iter().for_each(|answer| answer(Err(error.clone())));
        }
    }
}

fn run(conn: &Connection, sql: &'static str) -> Result<(), StoreError> {
    conn.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Runs a change. An error means that the store failed it, or that it refused and had written already.
fn apply(tx: &mut Tx<'_>, change: Change) -> Result<Answer, (Answer, StoreError)> {
    let (written, effects) = (tx.conn.total_changes(), tx.effects.len());
    let (kept, answer) = change(Some(tx));
    match kept {
        Ok(()) => Ok(answer),
        Err(None) if tx.conn.total_changes() == written && tx.effects.len() == effects => Ok(answer),
        // SQLite may have taken the whole transaction back by itself: a statement now would commit alone.
        Err(cause) => Err((answer, cause.unwrap_or(StoreError::TakenBack))),
    }
}

fn in_chain(error: &(dyn Error + 'static)) -> Option<StoreError> {
    std::iter::successors(Some(error), |error| (**error).source()).find_map(|error| error.downcast_ref().cloned())
}

/// What a change may do: statements, events and effects that come true with the commit.
pub(crate) struct Tx<'a> {
    pub(crate) conn: &'a Connection,
    size: u64,
    edge: Edge,
    effects: Vec<Effect>,
    /// As of the last commit.
    counts: &'a HashMap<CountKey, i64>,
    /// What this commit adds to them.
    deltas: HashMap<CountKey, i64>,
}

/// A project's agent, and a status's word or `runs`.
type CountKey = (Name, Name, &'static str);

/// What an event is about.
pub(crate) enum About<'a> {
    Plan { id: &'a PlanId, agent: &'a Name, revision: u64 },
    Nothing,
}

impl Tx<'_> {
    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Writes an event: its leaf, its position and the nodes of the tree that it completes.
    pub(crate) fn event(
        &mut self,
        project: &Name,
        about: About<'_>,
        body: EventBody,
        cause: &Cause,
    ) -> Result<(), StoreError> {
        let (plan, agent, plan_rev) = match about {
            About::Plan { id, agent, revision } => (Some(id.clone()), Some(agent.clone()), Some(revision)),
            About::Nothing => (None, None, None),
        };
        let event =
            Event { id: EventId::new(cause.entropy.0), ts: cause.at, plan, plan_rev, actor: cause.actor.clone(), body };
        let leaf = canonical::leaf(&event);
        let nodes = self.grow_tree(&leaf)?;
        self.insert_leaf(project, agent.as_ref(), &event, &leaf, &nodes)?;
        self.effects.push(Effect::Logged(LogEntry {
            position: self.size,
            kind: event.body.kind().to_owned(),
            project: project.clone(),
            agent,
            plan: event.plan,
            leaf: Bytes::from(leaf),
            ts: event.ts,
        }));
        self.size = self.size.saturating_add(1);
        Ok(())
    }

    fn insert_leaf(
        &self,
        project: &Name,
        agent: Option<&Name>,
        event: &Event,
        leaf: &[u8],
        nodes: &[u8],
    ) -> Result<(), StoreError> {
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO log (position, project, agent, plan, plan_rev, kind, ts, leaf, nodes) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        insert.execute(params![
            signed(self.size),
            project.as_str(),
            agent.map(Name::as_str),
            event.plan.as_ref().map(PlanId::as_str),
            event.plan_rev.map(signed),
            event.body.kind(),
            event.ts.as_millis(),
            leaf,
            nodes
        ])?;
        Ok(())
    }

    /// Returns the nodes that the next leaf completes, from its parent up, one after the other.
    fn grow_tree(&mut self, leaf: &[u8]) -> Result<Vec<u8>, StoreError> {
        let grown = merkle::append(&KnownNodes(&self.edge, self.conn), self.size, merkle::leaf_hash(leaf))?;
        // A leaf's own hash is a hash of what is stored already: keeping it would be half of the tree's cost.
        let nodes = grown.iter().skip(1).flat_map(|(_, _, hash)| hash.0).collect();
        for (level, index, hash) in grown {
            self.edge.note(level, index, hash);
        }
        Ok(nodes)
    }

    /// Keeps the counts when one of an agent's plans goes from one status to another.
    pub(crate) fn count_move(&mut self, project: &Name, agent: &Name, from: Option<Status>, to: Option<Status>) {
        if let Some(from) = from {
            self.count(project, agent, from.as_str(), -1);
        }
        if let Some(to) = to {
            self.count(project, agent, to.as_str(), 1);
        }
    }

    pub(crate) fn count(&mut self, project: &Name, agent: &Name, what: &'static str, by: i64) {
        *self.deltas.entry((project.clone(), agent.clone(), what)).or_default() += by;
    }

    /// Returns how many plans of an agent stand there, this commit's changes included.
    pub(crate) fn counted(&self, project: &Name, agent: &Name, status: Status) -> u64 {
        let key = (project.clone(), agent.clone(), status.as_str());
        let of = |counts: &HashMap<CountKey, i64>| counts.get(&key).copied().unwrap_or(0);
        u64::try_from(of(self.counts).saturating_add(of(&self.deltas))).unwrap_or(0)
    }

    /// Writes the counts that this commit changes, each once.
    fn write_counts(&self) -> Result<(), StoreError> {
        let mut update =
            self.conn.prepare_cached("UPDATE counts SET n = n + ?4 WHERE project = ?1 AND agent = ?2 AND what = ?3")?;
        for ((project, agent, what), by) in self.deltas.iter().filter(|(_, by)| **by != 0) {
            let row = params![project.as_str(), agent.as_str(), what, by];
            if update.execute(row)? == 0 {
                let sql = "INSERT INTO counts (project, agent, what, n) VALUES (?1, ?2, ?3, ?4)";
                self.conn.prepare_cached(sql)?.execute(row)?;
            }
        }
        Ok(())
    }
}

fn kept_counts(conn: &Connection) -> Result<HashMap<CountKey, i64>, StoreError> {
    let mut query = conn.prepare("SELECT project, agent, what, n FROM counts")?;
    let mut rows = query.query([])?;
    let mut counts = HashMap::new();
    while let Some(row) = rows.next()? {
        let what: String = row.get(2)?;
        let what = if what == RUNS { Some(RUNS) } else { Status::parse(&what).map(Status::as_str) };
        let what = what.ok_or(StoreError::Corrupt { what: "count" })?;
        counts.insert((name(&row.get::<_, String>(0)?)?, name(&row.get::<_, String>(1)?)?, what), row.get(3)?);
    }
    Ok(counts)
}

/// Counts every run ever begun, beside the plans of each status.
pub(crate) const RUNS: &str = "runs";

/// The newest complete subtree of each level: all that the next leaf needs of the tree, so that the log's growth asks the
/// database for nothing.
#[derive(Default)]
struct Edge(Vec<Option<(u64, merkle::Hash)>>);

impl Edge {
    fn note(&mut self, level: u8, index: u64, hash: merkle::Hash) {
        let level = usize::from(level);
        if self.0.len() <= level {
            self.0.resize(level + 1, None);
        }
        if let Some(place) = self.0.get_mut(level) {
            *place = Some((index, hash));
        }
    }
}

/// The tree's edge first, then what is stored.
struct KnownNodes<'a>(&'a Edge, &'a Connection);

impl merkle::Nodes for KnownNodes<'_> {
    type Error = StoreError;

    fn node(&self, level: u8, index: u64) -> Result<merkle::Hash, StoreError> {
        match self.0.0.get(usize::from(level)).copied().flatten() {
            Some((known, hash)) if known == index => Ok(hash),
            _ => StoredNodes(self.1).node(level, index),
        }
    }
}

/// The stored part of the Merkle tree: beside each leaf the nodes that it completed.
pub(crate) struct StoredNodes<'a>(pub(crate) &'a Connection);

impl merkle::Nodes for StoredNodes<'_> {
    type Error = StoreError;

    fn node(&self, level: u8, index: u64) -> Result<merkle::Hash, StoreError> {
        let missing = || StoreError::Corrupt { what: "node of the log's tree" };
        let last = index.checked_add(1).and_then(|next| next.checked_mul(1_u64.checked_shl(level.into())?));
        let last = last.ok_or_else(missing)? - 1;
        let mut query = self.0.prepare_cached("SELECT leaf, nodes FROM log WHERE position = ?1")?;
        query.query_row([signed(last)], |row| {
            let Some(above) = usize::from(level).checked_sub(1) else {
                return Ok(Ok(merkle::leaf_hash(row.get_ref(0)?.as_blob()?)));
            };
            let (nodes, _) = row.get_ref(1)?.as_blob()?.as_chunks::<32>();
            Ok(nodes.get(above).copied().map(merkle::Hash).ok_or_else(missing))
        })?
    }
}

/// Returns the cause of the `nth` further event of the change that `cause` is of.
pub(crate) fn derived(cause: &Cause, nth: u8) -> Cause {
    let mut hasher = Sha256::new();
    hasher.update(cause.entropy.0.to_be_bytes());
    hasher.update([nth]);
    let digest: [u8; 32] = hasher.finalize().into();
    let (half, _) = digest.split_first_chunk::<16>().map_or(([0; 16], ()), |(half, _)| (*half, ()));
    Cause { entropy: Entropy(u128::from_be_bytes(half)), ..cause.clone() }
}
