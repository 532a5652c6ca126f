//! A whole run: first over an empty queue, then, on a fresh server, over a short and a long one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use hyper::header::HeaderValue;

use crate::args::{Measure, Wanted};
use crate::client::{Ask, Client, Target, Who, pending_count};
use crate::effort::Effort;
use crate::failure::Failure;
use crate::row::Row;
use crate::server::{Server, Workshop, host_and_port};
use crate::stand::{Stand, idle, word};
use crate::{confinement, judge, limits, process, ratios, restart, say};

/// The server beside us was built as we were.
const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

/// A whole run.
pub(crate) struct Course {
    chosen: BTreeSet<Measure>,
    effort: Effort,
    place: Place,
    /// Where the disk is measured.
    folder: PathBuf,
    rows: Vec<Row>,
    failed: Vec<String>,
}

/// What is measured.
enum Place {
    /// Servers of our own, a fresh one for each part.
    Own(Workshop),
    /// Somebody's, for all parts.
    Theirs(Target),
}

/// One of them, for one part.
enum Host {
    Own(Box<Server>),
    Theirs(Target),
}

impl Host {
    fn target(&self) -> Result<Target, Failure> {
        match self {
            Self::Own(server) => server.target(),
            Self::Theirs(target) => Ok(target.clone()),
        }
    }
}

/// Measures what is wanted and returns every row. A measure that fails is a row that says why, and fails the run at its end.
pub(crate) async fn run(wanted: &Wanted) -> Result<(Vec<Row>, Option<Failure>), Failure> {
    let mut course = Course::new(wanted)?;
    let machine = course.machine(wanted).await?.number("idle_before", idle().await);
    course.emit(machine)?;
    course.without_a_server().await?;
    if course.any(&Measure::value_variants().iter().copied().filter(needs_empty).collect::<Vec<_>>()) {
        course.over_nothing().await?;
    }
    if course.any(&[Measure::Pending, Measure::Status, Measure::Rss, Measure::Restart, Measure::Growth]) {
        course.over_many().await?;
    }
    let last = |all: &[u32]| all.last().copied().unwrap_or(1);
    let effort = &course.effort;
    let planners = effort.planners.get(1).copied().unwrap_or(1);
    let compared = ratios::of(&course.rows, last(effort.askers), planners, last(effort.readers));
    course.emit_all(compared)?;
    let failed = (!course.failed.is_empty()).then(|| Failure::Some { names: course.failed.join(", ") });
    Ok((course.rows, failed))
}

fn needs_empty(measure: &Measure) -> bool {
    !matches!(measure, Measure::Judge | Measure::Limits | Measure::Confinement | Measure::Restart)
}

impl Course {
    fn new(wanted: &Wanted) -> Result<Self, Failure> {
        let all = Measure::value_variants();
        let theirs = wanted.base.is_some();
        let chosen: BTreeSet<Measure> = match wanted.measures.as_slice() {
            // Somebody's server is not ours to end.
            [] => all.iter().copied().filter(|measure| !(theirs && *measure == Measure::Restart)).collect(),
            some => some.iter().copied().collect(),
        };
        let folder = wanted.dir.clone().unwrap_or_else(std::env::temp_dir);
        Ok(Self {
            chosen,
            effort: Effort::of(wanted),
            place: place(wanted, &folder)?,
            folder,
            rows: Vec::new(),
            failed: Vec::new(),
        })
    }

    fn wants(&self, measure: Measure) -> bool {
        self.chosen.contains(&measure)
    }

    fn any(&self, measures: &[Measure]) -> bool {
        measures.iter().any(|measure| self.wants(*measure))
    }

    async fn without_a_server(&mut self) -> Result<(), Failure> {
        if self.wants(Measure::Limits) {
            say::progress("limits of this machine");
            let found = limits::measure(&self.folder, self.effort.load);
            self.take("limits", found)?;
        }
        if self.wants(Measure::Judge) {
            say::progress("policy alone");
            let found = judge::measure(self.effort.load);
            self.take("judge", found)?;
        }
        if self.wants(Measure::Confinement) {
            say::progress("confinement alone");
            let found = confinement::measure(&self.folder, self.effort.confined).await;
            self.take("confinement", found)?;
        }
        Ok(())
    }

    /// The plans themselves come last: they are what fills the queue.
    async fn over_nothing(&mut self) -> Result<(), Failure> {
        let host = self.host().await?;
        let effort = self.effort.clone();
        let stand = Stand { target: host.target()?, effort: &effort, queue: "empty" };
        let growth = self.wants(Measure::Growth);
        if self.wants(Measure::Rss) {
            self.take("rss", stand.rss().await.map(|row| vec![row]))?;
        }
        if self.wants(Measure::Pending) {
            self.take("pending", stand.pending().await)?;
        }
        if self.wants(Measure::Status) || growth {
            self.take("status", stand.status().await)?;
        }
        if self.wants(Measure::Approve) || growth {
            self.take("approve", stand.approve().await)?;
        }
        if self.wants(Measure::ApproveParallel) {
            self.take("approve_parallel", stand.approve_parallel().await)?;
        }
        if self.wants(Measure::Output) {
            self.take("output", stand.output().await)?;
        }
        if self.wants(Measure::Events) || growth {
            self.take("events", stand.events().await)?;
        }
        if self.wants(Measure::Plan) || growth {
            self.take("plan", stand.plan(effort.planners).await)?;
        }
        Ok(())
    }

    async fn over_many(&mut self) -> Result<(), Failure> {
        let host = self.host().await?;
        let effort = self.effort.clone();
        let mut stand = Stand { target: host.target()?, effort: &effort, queue: "short" };
        for (queue, plans) in [("short", effort.short), ("long", effort.long)] {
            stand.queue = queue;
            let filled = stand.fill(plans).await.map(|row| vec![row]);
            if !self.take("fill", filled)? {
                return Ok(());
            }
            if self.wants(Measure::Rss) {
                self.take("rss", stand.rss().await.map(|row| vec![row]))?;
            }
            if self.wants(Measure::Pending) || self.wants(Measure::Growth) {
                self.take("pending", stand.pending().await)?;
            }
            if self.wants(Measure::Status) || self.wants(Measure::Growth) {
                self.take("status", stand.status().await)?;
            }
        }
        if self.wants(Measure::Growth) {
            self.take("approve", stand.approve().await)?;
        }
        if self.wants(Measure::Restart) {
            let found = match host {
                Host::Own(mut server) => {
                    let found = restart::measure(&mut server).await;
                    // It listens at another address now.
                    stand.target = server.target()?;
                    return self.take("restart", found).and(self.plans_over_many(&stand).await);
                }
                Host::Theirs(_) => Err(Failure::NotOurs),
            };
            self.take("restart", found)?;
        }
        self.plans_over_many(&stand).await
    }

    /// The last of all: they make the queue longer still.
    async fn plans_over_many(&mut self, stand: &Stand<'_>) -> Result<(), Failure> {
        if self.wants(Measure::Growth) {
            let crowd = self.effort.planners.get(1..2).unwrap_or_default();
            self.take("plan", stand.plan(crowd).await)?;
        }
        Ok(())
    }

    /// What the numbers were taken on. No path and no name: results are shown to others.
    async fn machine(&self, wanted: &Wanted) -> Result<Row, Failure> {
        let filesystem = process::filesystem(&self.folder);
        let (version, build) = match &self.place {
            Place::Own(_) => (env!("CARGO_PKG_VERSION").to_owned(), BUILD),
            Place::Theirs(target) => {
                let status = Client::connect(target).await?.ask_json(&Ask::get(Who::Nobody, "/status")).await?;
                (word(&status, "/version").to_owned(), "running")
            }
        };
        if BUILD == "debug" && !wanted.quick {
            say::told("warning: this is a debug build; its numbers say nothing");
        }
        if filesystem == "tmpfs" {
            say::told("warning: the folder is in memory, where nothing waits for a disk; name another by --dir");
        }
        let row = Row::new("machine")
            .with("version", version)
            .with("build", build)
            .with("quick", wanted.quick)
            .with("long_queue", self.effort.long)
            .with("processors", std::thread::available_parallelism().ok().map(std::num::NonZero::get))
            .with("memory_mib", process::memory_mib())
            .with("linux", process::kernel())
            .with("filesystem", filesystem);
        Ok(if let Some(note) = &wanted.note { row.with("note", note.as_str()) } else { row })
    }

    async fn host(&self) -> Result<Host, Failure> {
        match &self.place {
            Place::Own(workshop) => Ok(Host::Own(Box::new(workshop.make().await?))),
            Place::Theirs(target) => {
                let waiting = pending_count(&mut Client::connect(target).await?).await?;
                let base = &target.address;
                say::told(&format!(
                    "warning: {base} keeps every plan that this makes; {waiting} wait there now, and nothing takes them back"
                ));
                Ok(Host::Theirs(target.clone()))
            }
        }
    }

    /// Notes what was found, and tells whether it was.
    fn take(&mut self, measure: &str, found: Result<Vec<Row>, Failure>) -> Result<bool, Failure> {
        match found {
            Ok(rows) => self.emit_all(rows).map(|()| true),
            Err(failure) => {
                self.failed.push(measure.to_owned());
                self.emit(Row::new(measure).with("error", failure.told())).map(|()| false)
            }
        }
    }

    fn emit_all(&mut self, rows: Vec<Row>) -> Result<(), Failure> {
        rows.into_iter().try_for_each(|row| self.emit(row))
    }

    fn emit(&mut self, row: Row) -> Result<(), Failure> {
        say::result(&row).map_err(Failure::io("stdout"))?;
        self.rows.push(row);
        Ok(())
    }
}

fn place(wanted: &Wanted, folder: &Path) -> Result<Place, Failure> {
    let files = (&wanted.agent_token_file, &wanted.approver_token_file);
    if let (Some(base), (Some(agent), Some(approver))) = (&wanted.base, files) {
        return Ok(Place::Theirs(Target {
            address: host_and_port(base)?,
            agent: token(agent)?,
            approver: token(approver)?,
            process: wanted.pid,
        }));
    }
    let beside = || -> Result<PathBuf, Failure> {
        let own = std::env::current_exe().map_err(Failure::io("this program"))?;
        Ok(own.with_file_name("provara"))
    };
    let program = wanted.server.clone().map_or_else(beside, Ok)?;
    let folder = std::path::absolute(folder).map_err(Failure::io(folder.display().to_string()))?;
    Ok(Place::Own(Workshop { program, folder }))
}

fn token(path: &Path) -> Result<HeaderValue, Failure> {
    let text = fs::read_to_string(path).map_err(Failure::io(path.display().to_string()))?;
    let mut token = HeaderValue::from_str(text.trim()).map_err(|_| Failure::Token { path: path.to_owned() })?;
    token.set_sensitive(true);
    Ok(token)
}
