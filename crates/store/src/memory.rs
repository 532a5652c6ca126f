//! What is kept in memory: changed by the writer alone, and only after the commit that made it true.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use provara_domain::{Name, Principal, RunId, Status, TokenId};
use rusqlite::Connection;
use subtle::ConstantTimeEq as _;
use tokio::sync::{broadcast, watch};

use crate::measures::{Measures, Step};
use crate::output::Spools;
use crate::pages::Kept;
use crate::sqlite::codec;
use crate::types::{Counts, LogEntry, StoreError, TokenRecord};

const SUBSCRIBER_CAPACITY: usize = 1024;

/// What a commit makes true.
pub(crate) enum Effect {
    Logged(LogEntry),
    Counted(Step),
    RunBegan(RunId),
    RunEnded { run: RunId, inlined: bool },
    OutputErased(RunId),
    PlanErased,
    TokenStored(TokenRecord, [u8; 32]),
    TokenRevoked(TokenId),
    WorkspaceAdded(Name, String),
    WorkspaceRemoved(Name, String),
}

pub(crate) struct Memory {
    counts: RwLock<HashMap<Name, Counts>>,
    tokens: RwLock<Vec<(Principal, [u8; 32])>>,
    workspaces: RwLock<HashMap<Name, Vec<String>>>,
    head: watch::Sender<u64>,
    entries: broadcast::Sender<Arc<LogEntry>>,
    spools: Arc<Spools>,
    pages: RwLock<Vec<Weak<Kept>>>,
    pub(crate) measures: Measures,
}

impl Memory {
    pub(crate) fn load(conn: &Connection, spools: Arc<Spools>) -> Result<Self, StoreError> {
        let head: i64 = conn.query_row("SELECT coalesce(max(position) + 1, 0) FROM log", [], |row| row.get(0))?;
        let memory = Self {
            counts: RwLock::default(),
            tokens: RwLock::default(),
            workspaces: RwLock::default(),
            head: watch::Sender::new(codec::count(head)?),
            entries: broadcast::Sender::new(SUBSCRIBER_CAPACITY),
            spools,
            pages: RwLock::default(),
            measures: Measures::new(),
        };
        memory.load_counts(conn)?;
        memory.load_tokens(conn)?;
        memory.load_workspaces(conn)?;
        Ok(memory)
    }

    fn load_counts(&self, conn: &Connection) -> Result<(), StoreError> {
        let mut query = conn.prepare("SELECT project, what, n FROM counts")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let project = codec::name(&row.get::<_, String>(0)?)?;
            self.count(&project, &row.get::<_, String>(1)?, row.get(2)?);
        }
        Ok(())
    }

    fn load_tokens(&self, conn: &Connection) -> Result<(), StoreError> {
        let mut query =
            conn.prepare(&format!("SELECT {} FROM tokens WHERE revoked_at IS NULL", codec::TOKEN_COLUMNS))?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (record, secret) = codec::token(row)?;
            self.store_token(record, secret);
        }
        Ok(())
    }

    fn load_workspaces(&self, conn: &Connection) -> Result<(), StoreError> {
        let mut query = conn.prepare("SELECT project, path FROM workspaces ORDER BY project, path")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            self.add_workspace(codec::name(&row.get::<_, String>(0)?)?, row.get(1)?);
        }
        Ok(())
    }

    /// Takes over what a commit made true; returns the news of it, for [`Memory::tell`].
    pub(crate) fn apply(&self, effects: Vec<Effect>) -> Vec<LogEntry> {
        let mut news = Vec::new();
        for effect in effects {
            match effect {
                Effect::Logged(entry) => news.push(entry),
                Effect::Counted(step) => self.measures.count(&step),
                Effect::RunBegan(run) => self.spools.begin(run),
                Effect::RunEnded { run, inlined } => self.spools.end(&run, inlined),
                Effect::OutputErased(run) => self.spools.remove(&run),
                Effect::PlanErased => read(&self.pages).iter().filter_map(Weak::upgrade).for_each(|kept| kept.forget()),
                Effect::TokenStored(record, secret) => self.store_token(record, secret),
                Effect::TokenRevoked(id) => write(&self.tokens).retain(|(principal, _)| principal.token != id),
                Effect::WorkspaceAdded(project, path) => self.add_workspace(project, path),
                Effect::WorkspaceRemoved(project, path) => {
                    if let Some(paths) = write(&self.workspaces).get_mut(&project) {
                        paths.retain(|kept| *kept != path);
                    }
                }
            }
        }
        if let Some(last) = news.last() {
            self.head.send_replace(last.position.saturating_add(1));
        }
        news
    }

    /// Tells whoever follows the log.
    pub(crate) fn tell(&self, news: Vec<LogEntry>) {
        for entry in news {
            // Nobody may be listening.
            let _ = self.entries.send(Arc::new(entry));
        }
    }

    /// Adds to a project's counts.
    pub(crate) fn count(&self, project: &Name, what: &str, by: i64) {
        let mut all = write(&self.counts);
        let counts = all.entry(project.clone()).or_default();
        let field = match what {
            "runs" => &mut counts.runs,
            _ => match Status::parse(what) {
                Some(Status::Pending) => &mut counts.pending,
                Some(Status::Approved) => &mut counts.approved,
                Some(Status::Running) => &mut counts.running,
                Some(Status::Finished) => &mut counts.finished,
                Some(Status::Lost) => &mut counts.lost,
                Some(Status::Denied) => &mut counts.denied,
                Some(Status::Blocked) => &mut counts.blocked,
                Some(Status::Expired) => &mut counts.expired,
                Some(Status::Withdrawn) => &mut counts.withdrawn,
                Some(Status::Superseded) => &mut counts.superseded,
                Some(Status::Cancelled) => &mut counts.cancelled,
                None => return,
            },
        };
        *field = field.saturating_add_signed(by);
    }

    fn store_token(&self, record: TokenRecord, secret: [u8; 32]) {
        let mut tokens = write(&self.tokens);
        tokens.retain(|(principal, _)| principal.token != record.id);
        let TokenRecord { id, name, roles, project, .. } = record;
        tokens.push((Principal { project, name, roles, token: id }, secret));
    }

    fn add_workspace(&self, project: Name, path: String) {
        let mut all = write(&self.workspaces);
        let paths = all.entry(project).or_default();
        if !paths.contains(&path) {
            paths.push(path);
        }
    }

    /// Has `kept` forget whatever an erasure erases.
    pub(crate) fn forget_with(&self, kept: &Arc<Kept>) {
        let mut pages = write(&self.pages);
        pages.retain(|known| known.strong_count() > 0);
        pages.push(Arc::downgrade(kept));
    }

    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    pub(crate) fn watch_head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<LogEntry>> {
        self.entries.subscribe()
    }

    pub(crate) fn counts(&self, project: &Name) -> Counts {
        read(&self.counts).get(project).copied().unwrap_or_default()
    }

    pub(crate) fn workspaces(&self, project: &Name) -> Vec<String> {
        read(&self.workspaces).get(project).cloned().unwrap_or_default()
    }

    /// Every token is compared, each in constant time: the time tells neither which matched nor how nearly.
    pub(crate) fn principal(&self, secret: &[u8; 32]) -> Option<Principal> {
        let tokens = read(&self.tokens);
        let mut found = None;
        for (principal, known) in tokens.iter() {
            if bool::from(known.ct_eq(secret)) {
                found = Some(principal);
            }
        }
        found.cloned()
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
