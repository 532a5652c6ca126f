//! The server's side: start the helper, hand it a run, stream its output, end it in time.

mod job;
mod trial;

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use provara_domain::{
    Access, Binding, Changes, Claim, Digest, Enforced, Limit, Measurement, Mechanism, Outcome, Plan, Profile, Ran,
    Resource, ResourceLimits, SpawnFailure, Stream, Timestamp, Usage,
};
use provara_faults::{Place, reached};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::Instant;

use self::job::Job;
pub(crate) use self::job::find_shell;
use crate::binding::{Identity, Keep, Known, Question, Site, Taken, Unmeasured, difference};
use crate::changes::changes_in;
use crate::child::NotStarted;
use crate::confine::held;
use crate::egress::{Allowed, Egress, EgressLimits, EgressPolicy, Resolve, SystemResolver};
use crate::progress::{Live, RunWatch};
use crate::protocol::{
    COUNT, Calls, Frame, HelperProgram, KILL, Left, MAX_LINE, Report, Spec, TERMINATE, Used, User, View, receive,
    sealed, sealed_spec,
};
use crate::spares::{Spare, Spares, seqpacket_pair};
use crate::written::{self, Before};

/// The largest chunk of output.
const CHUNK: usize = 64 * 1024;
/// How long a read waits for more after the whole tree has ended. Only a descriptor sent out of the run can hold it open.
const DRAIN: Duration = Duration::from_secs(1);
/// How long a tree has after SIGTERM before the server stops being patient with its supervisor, which ends it sooner.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many measure at once.
const MEASURING: usize = 4;
/// How long anybody waits for a measurement. A file system may never answer, and its owner may be the agent.
const MEASURED_WITHIN: Duration = Duration::from_secs(20);

/// How long a preview may take.
const PREVIEWED_WITHIN: Duration = Duration::from_secs(30);

/// What the operator decided about running commands.
#[derive(Debug)]
pub struct RunnerConfig {
    /// The runtime folder: hidden from every command.
    pub runtime: PathBuf,
    /// Provara's other own files and folders: hidden from every command.
    pub protected: Vec<PathBuf>,
    /// The user that commands run as when the server is root; `nobody` where absent.
    pub run_as: Option<String>,
    /// What becomes the helper.
    pub helper: HelperProgram,
    /// The server's variables that profiles may name; each command inherits those that its own one names.
    pub environment: Vec<(String, String)>,
    /// The workspace in which the host is probed at start.
    pub workspace: String,
    /// Whether the profile `host` may run as the server's own user, who can reach what the mounts do not cover.
    pub allow_host_same_user: bool,
    /// What holds for the way out of every run that has one.
    pub egress: EgressConfig,
}

/// What the operator decided about runs that may call hosts.
#[derive(Debug)]
pub struct EgressConfig {
    /// Makes a run's resolver: each has one of its own, so that none waits for another's lookups.
    pub resolver: fn() -> Box<dyn Resolve>,
    /// Hosts whose addresses may be private.
    pub internal: Allowed,
    /// Addresses by which this server is reached, beside those of this host's interfaces.
    pub own: Vec<IpAddr>,
    /// What each run's connections are limited to.
    pub limits: EgressLimits,
}

impl Default for EgressConfig {
    fn default() -> Self {
        let resolver = || -> Box<dyn Resolve> { Box::new(SystemResolver::default()) };
        Self { resolver, internal: Allowed::default(), own: Vec::new(), limits: EgressLimits::default() }
    }
}

/// Why no command can be run here.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The user that commands should run as cannot be used.
    #[error("commands cannot run as `{name}`: {why}; name another user in AGENT_HUB_RUN_AS")]
    RunAs {
        /// The user's name.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// The helper did not start.
    #[error("could not start the helper process")]
    Helper(#[source] io::Error),
}

/// The run's end cannot be known: its supervisor died.
#[derive(Debug, thiserror::Error)]
#[error("the run's supervisor died, so how the run ended cannot be known")]
pub struct Lost;

/// What a command did in a throw-away copy of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previewed {
    /// How it ended.
    pub outcome: Outcome,
    /// What held.
    pub enforced: Enforced,
    /// From the start to the end of the whole tree.
    pub duration: Duration,
    /// What it changed in the copy.
    pub changes: Changes,
}

impl Previewed {
    fn not_begun(profile: &Profile, outcome: Outcome) -> Self {
        let enforced = Enforced { profile: profile.name().as_str().to_owned(), mechanisms: Vec::new() };
        Self { outcome, enforced, duration: Duration::ZERO, changes: Changes::default() }
    }
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The stream that it was written to.
    pub stream: Stream,
    /// What was written.
    pub bytes: Bytes,
}

/// What this host was found able to enforce, by running a command under the default profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostReport {
    /// The user that commands run as.
    pub run_as: String,
    /// What held.
    pub mechanisms: Vec<Mechanism>,
    /// Why commands cannot be confined here, where that is so.
    pub problem: Option<String>,
}

/// What a run is told from outside.
#[derive(Debug, Clone, Copy)]
struct Wish {
    cancelled: bool,
    timeout: Option<Duration>,
}

/// Ends or extends a run. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct RunHandle(watch::Sender<Wish>);

/// The run's end of a [`RunHandle`].
#[derive(Debug)]
pub struct RunControl(watch::Receiver<Wish>, Arc<Live>);

/// Returns the two ends of a run's control.
pub fn control() -> (RunHandle, RunControl) {
    let (sender, receiver) = watch::channel(Wish { cancelled: false, timeout: None });
    (RunHandle(sender), RunControl(receiver, Arc::default()))
}

impl RunControl {
    /// Returns what looks at the run that this controls.
    pub fn watch(&self) -> RunWatch {
        RunWatch(Arc::clone(&self.1))
    }
}

impl RunHandle {
    /// Ends the run with its whole tree. Works also before it has begun.
    pub fn cancel(&self) {
        self.0.send_modify(|wish| wish.cancelled = true);
    }

    /// Lets the run last `timeout`, counted from its start.
    pub fn extend(&self, timeout: Duration) {
        self.0.send_modify(|wish| wish.timeout = Some(timeout));
    }
}

/// Runs commands on this host.
#[derive(Debug)]
pub struct Runner {
    config: RunnerConfig,
    user: User,
    /// What stands ready: the frame of the default profile, and of all that differ from it in their files alone.
    usual: Frame,
    spares: Mutex<Spares>,
    host: HostReport,
    /// What the trial run managed, although it was confined.
    breach: Option<String>,
    known: Arc<Known>,
    /// Bounds how many measure at once: each may read many files.
    measuring: Arc<Semaphore>,
    /// Bounds how many look at once at what runs have left: each may wait for a file system.
    looking: Arc<Semaphore>,
}

impl Runner {
    /// Starts the helper and finds out what this host can enforce.
    ///
    /// # Errors
    /// When the helper cannot be started or the user to run as cannot be used.
    pub async fn start(config: RunnerConfig) -> Result<Self, StartError> {
        let (user, run_as) = user_of(config.run_as.as_deref())?;
        let spares = Mutex::new(Spares::start(&config.helper).map_err(StartError::Helper)?);
        let host = HostReport { run_as, mechanisms: Vec::new(), problem: None };
        let usual = Frame { view: View::Own, calls: Calls::Nobody, user, limits: Profile::workspace().grants().limits };
        let (known, measuring) = (Arc::default(), Arc::new(Semaphore::new(MEASURING)));
        let looking = Arc::new(Semaphore::new(MEASURING));
        let mut runner = Self { config, user, usual, spares, host, breach: None, known, measuring, looking };
        runner.probe().await;
        runner.make_ready();
        Ok(runner)
    }

    /// Returns what this host was found able to enforce.
    pub const fn host(&self) -> &HostReport {
        &self.host
    }

    /// Ends the helper. Runs that are still going have supervisors of their own, and end when their futures are dropped.
    pub async fn shutdown(&self) {
        self.spares().end();
    }

    /// Makes ready for the next runs what can be made ready before they are known. Worth calling when a run has ended and
    /// its result is on its way.
    pub fn make_ready(&self) {
        // Where nothing can be confined, nothing will run.
        if self.host.problem.is_none()
            && let Err(error) = self.spares().fill(self.usual, &self.config.helper)
        {
            tracing::warn!(%error, "could not make ready for the next run");
        }
    }

    fn spares(&self) -> MutexGuard<'_, Spares> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what this machine finds of a plan that would run at `site`, with the profile of that digest: what a decision
    /// on it binds.
    ///
    /// # Errors
    /// When its shell or its working directory is not there; it could not run either.
    pub async fn measure(&self, plan: &Plan, site: &Site, profile: Digest) -> Result<Measurement, Unmeasured> {
        self.take(plan, site, Keep::Texts).await.map(|taken| taken.measurement(profile))
    }

    /// Off the executor: files are read, and a slow disk must not stop everybody.
    async fn take(&self, plan: &Plan, site: &Site, keep: Keep) -> Result<Taken, Unmeasured> {
        let permit = Arc::clone(&self.measuring).acquire_owned();
        let own = self.own_files();
        let (known, plan, site) = (Arc::clone(&self.known), plan.clone(), site.clone());
        let taking = async move {
            // Kept by the thread, not by whoever waits: a file system that never answers takes these places and no more.
            let permit = permit.await.map_err(|_| Unmeasured::GivenUp)?;
            let measured = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                known.measure(&Question { plan: &plan, site: &site, own: &own, keep })
            });
            measured.await.unwrap_or(Err(Unmeasured::GivenUp))
        };
        tokio::time::timeout(MEASURED_WITHIN, taking).await.unwrap_or(Err(Unmeasured::GivenUp))
    }

    /// Measures again what was approved. Returns the bytes of the bound scripts, which alone the run will see.
    async fn check(&self, plan: &Plan, binding: Option<&Binding>, site: &Site) -> Result<Option<Taken>, Outcome> {
        let measured = binding.filter(|binding| binding.is_measured());
        if measured.is_none() && site.scripts.is_empty() {
            return Ok(None);
        }
        let taken = self.take(plan, site, Keep::Bytes).await;
        let changed = match (measured, &taken) {
            (Some(approved), Ok(taken)) => difference(approved, taken),
            (Some(_), Err(Unmeasured::WorkingDir(_))) => Some("the working directory is not there any more".into()),
            (Some(_), Err(error)) => Some(error.to_string()),
            // Nothing could be measured when it was approved. If there is a script now, nobody has seen it.
            (None, Ok(taken)) => taken.bound.first().map(|new| format!("`{}` was not bound", new.path)),
            // The run itself says what is missing.
            (None, Err(_)) => None,
        };
        match changed.map(|what| NotStarted::changed(&what)) {
            Some(NotStarted { failure, message }) => Err(Outcome::SpawnFailed { failure, message }),
            None => Ok(measured.and(taken.ok())),
        }
    }

    /// Runs what `claim` permits, at `site` and under `profile`, and returns when no process of it is left.
    ///
    /// `profile` MUST be what was decided on: whoever holds the claim has compared its digest.
    ///
    /// Output goes to `output` as it comes; a slow receiver slows the command, a gone one does not.
    ///
    /// # Errors
    /// When how it ended cannot be known.
    pub async fn run(
        &self,
        claim: Claim,
        profile: &Profile,
        site: &Site,
        started_at: Timestamp,
        output: mpsc::Sender<Chunk>,
        control: RunControl,
    ) -> Result<Ran, Lost> {
        let limit = Duration::from_secs(u64::from(claim.limits().timeout_s));
        let input = claim.plan().stdin.clone().unwrap_or_default();
        let begun = Instant::now();
        let ready = match self.job(&claim, profile, &site.workspace) {
            Ok(job) => self.check(claim.plan(), claim.binding(), site).await.map(|taken| (job, taken)),
            Err(outcome) => Err(outcome),
        };
        let (mut written, mut duration) = (None, None);
        let ended = match ready {
            Ok((mut job, taken)) => {
                let bound = taken.map(|taken| Bound::to(&mut job.spec, taken));
                let before = Before::now();
                let mut ended = self.execute(&job, &input, limit, output, control).await?;
                duration = Some(begun.elapsed());
                // What never began has changed nothing.
                if ended.usage.is_some() {
                    written = Some(written::since(before, &site.workspace, &self.looking).await);
                }
                if let Some(bound) = bound {
                    bound.tell(&mut ended.mechanisms).await;
                }
                ended
            }
            Err(outcome) => Ended::at_once(outcome),
        };
        let [stdout_bytes, stderr_bytes] = ended.written;
        Ok(Ran {
            run: claim.run().clone(),
            outcome: ended.outcome,
            enforced: Enforced { profile: claim.profile().as_str().to_owned(), mechanisms: ended.mechanisms },
            started_at,
            duration: duration.unwrap_or_else(|| begun.elapsed()),
            stdout_bytes,
            stderr_bytes,
            // The runner hands on bytes as they are; whoever keeps them counts.
            redactions: 0,
            usage: ended.usage,
            written,
        })
    }

    /// Runs `plan` in a throw-away copy of the workspace, for whoever decides on it, and returns what it would have changed.
    /// Nothing but that copy can be written, and nobody can be called.
    ///
    /// `profile` MUST be within `workspace`, `binding` what is shown of the plan.
    ///
    /// # Errors
    /// When how it ended cannot be known.
    pub async fn preview(
        &self,
        plan: &Plan,
        binding: Option<&Binding>,
        profile: &Profile,
        site: &Site,
        output: mpsc::Sender<Chunk>,
        control: RunControl,
    ) -> Result<Previewed, Lost> {
        let begun = Instant::now();
        let limit = plan.timeout.as_duration().min(PREVIEWED_WITHIN);
        let refused = |message: String| Outcome::SpawnFailed { failure: SpawnFailure::Refused, message };
        let ready = match self.job_of(plan, profile, ResourceLimits::default(), &site.workspace) {
            Ok(_) if !profile.is_within(&Profile::workspace()) => {
                Err(refused(format!("the profile `{}` is looser than a preview may have", profile.name())))
            }
            Ok(job) => self.check(plan, binding, site).await.map(|taken| (job, taken)),
            Err(outcome) => Err(outcome),
        };
        let (ended, upper) = match ready {
            Ok((mut job, taken)) => {
                let pair = seqpacket_pair().and_then(|(ours, theirs)| {
                    // What was not sent by the end of the run never will be.
                    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(|_| (ours, theirs))
                });
                let (ours, theirs) = match pair {
                    Ok(pair) => pair,
                    Err(error) => return Ok(Previewed::not_begun(profile, refused(error.to_string()))),
                };
                // Where nothing of the workspace can be written, there is nothing to copy.
                job.changes = (profile.grants().files.workspace() == Access::Write).then_some(theirs);
                let bound = taken.map(|taken| Bound::to(&mut job.spec, taken));
                // A folder of an overlay has another number; what it lies upon was compared just now.
                job.spec.cwd_dev_ino = None;
                let input = plan.stdin.clone().unwrap_or_default();
                let mut ended = self.execute(&job, &input, limit, output, control).await?;
                if let Some(bound) = bound {
                    bound.tell(&mut ended.mechanisms).await;
                }
                drop(job);
                let upper = receive::<1>(ours.as_fd()).ok().flatten();
                (ended, upper.map(|(_, [upper])| upper))
            }
            Err(outcome) => (Ended::at_once(outcome), None),
        };
        let changes = match upper {
            Some(upper) => {
                let workspace = PathBuf::from(&site.workspace);
                let reading = tokio::task::spawn_blocking(move || changes_in(&upper, &workspace));
                match tokio::time::timeout(MEASURED_WITHIN, reading).await {
                    Ok(Ok(changes)) => changes,
                    _ => Changes { unread: 1, ..Changes::default() },
                }
            }
            None => Changes::default(),
        };
        Ok(Previewed {
            outcome: ended.outcome,
            enforced: Enforced { profile: profile.name().as_str().to_owned(), mechanisms: ended.mechanisms },
            duration: begun.elapsed(),
            changes,
        })
    }

    async fn execute(
        &self,
        job: &Job,
        input: &[u8],
        limit: Duration,
        output: mpsc::Sender<Chunk>,
        mut control: RunControl,
    ) -> Result<Ended, Lost> {
        let begun = Instant::now();
        let Streams { stdout, stderr, control: stream, egress } = match self.hand_over(job, input).await {
            Ok(streams) => streams,
            Err(NotHandedOver::Io(error)) => {
                let message = format!("could not hand the run over: {error}");
                let outcome = Outcome::SpawnFailed { failure: SpawnFailure::Refused, message };
                return Ok(Ended::at_once(outcome));
            }
            Err(NotHandedOver::Ended(ended)) => return Ok(*ended),
        };
        let live = &*Arc::clone(&control.1);
        live.begin();
        let (gone, ended) = watch::channel(false);
        let most = job.frame.limits.get(Resource::Output).unwrap_or(u64::MAX);
        let meter = Arc::new(Meter { left: AtomicU64::new(most), spent: Notify::new(), live: Arc::clone(&control.1) });
        let out = tokio::spawn(forward(stdout, Stream::Stdout, output.clone(), ended.clone(), Arc::clone(&meter)));
        let err = tokio::spawn(forward(stderr, Stream::Stderr, output, ended, Arc::clone(&meter)));
        let (reports, mut asks) = stream.into_split();
        let mut reports = BufReader::new(reports);
        let mut line = Vec::new();
        let mut state = Watched::default();
        let mut why: Option<Outcome> = None;
        let mut until = begun + limit;
        let mut listening = true;
        control.0.mark_changed();
        while state.left != Some(Left::Nobody) {
            tokio::select! {
                report = next_report(&mut reports, &mut line) => match report {
                    Some(Report::Processes(count)) => live.has(count),
                    Some(report) => state.note(report),
                    None => break,
                },
                changed = control.0.changed(), if listening && why.is_none() => {
                    let wish = *control.0.borrow_and_update();
                    if let Some(timeout) = wish.timeout {
                        until = begun + timeout;
                    }
                    if wish.cancelled {
                        why = Some(Outcome::Cancelled);
                        let _ = asks.write_all(&[TERMINATE]).await;
                        until = Instant::now() + PATIENCE;
                    }
                    // Once nobody can wish anything any more, a closed channel must not spin.
                    listening = changed.is_ok();
                }
                () = live.asked.notified() => drop(asks.write_all(&[COUNT]).await),
                () = meter.spent.notified(), if why.is_none() => {
                    why = Some(Outcome::LimitExceeded { limit: Limit::Output });
                    let _ = asks.write_all(&[KILL]).await;
                    until = Instant::now() + PATIENCE;
                }
                () = tokio::time::sleep_until(until) => {
                    let ask = if why.is_none() { TERMINATE } else { KILL };
                    why.get_or_insert(Outcome::TimedOut);
                    let _ = asks.write_all(&[ask]).await;
                    until = Instant::now() + PATIENCE;
                }
            }
        }
        live.end();
        // Nobody of the run is left to speak through it.
        let network = match egress {
            Some(egress) => Some(egress.stop().await),
            None => None,
        };
        gone.send_replace(true);
        let written = [out.await.unwrap_or(0), err.await.unwrap_or(0)];
        if meter.is_spent() {
            why.get_or_insert(Outcome::LimitExceeded { limit: Limit::Output });
        }
        if let Some(limit) = state.exceeded {
            why.get_or_insert(Outcome::LimitExceeded { limit });
        }
        let usage = if state.begun { state.usage.take().map(|usage| Usage { network, ..usage }) } else { None };
        if let Some(policy) = job.egress.as_ref().filter(|_| state.begun) {
            state.mechanisms.push(held("egress_proxy", &policy.allowed.in_short()));
        }
        let outcome = state.outcome(why).ok_or(Lost)?;
        Ok(Ended { outcome, mechanisms: state.mechanisms, written, usage })
    }

    async fn hand_over(&self, job: &Job, input: &[u8]) -> Result<Streams, NotHandedOver> {
        let spec = sealed_spec(&job.spec)?;
        let input: OwnedFd = if input.is_empty() { File::open("/dev/null")?.into() } else { sealed(input)? };
        let (stdout, stdout_end) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
        let (stderr, stderr_end) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
        let all = [spec.as_fd(), input.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()];
        let descriptors: Vec<_> = all.into_iter().chain(job.changes.as_ref().map(OwnedFd::as_fd)).collect();
        reached(Place::RunReady);
        let (control, egress) = match &job.egress {
            None => (self.spares().hand_over(job.frame, &descriptors, &self.config.helper)?, None),
            Some(policy) => {
                let (spare, egress) = self.with_a_way_out(job.frame, policy).await?;
                (spare.begin(&descriptors)?, Some(egress))
            }
        };
        reached(Place::RunHandedOver);
        control.set_nonblocking(true)?;
        Ok(Streams {
            stdout: pipe::Receiver::from_owned_fd(stdout)?,
            stderr: pipe::Receiver::from_owned_fd(stderr)?,
            control: UnixStream::from_std(control)?,
            egress,
        })
    }

    /// Makes a spare with a proxy that serves it: nothing of a command begins before its way out is guarded.
    async fn with_a_way_out(&self, frame: Frame, policy: &EgressPolicy) -> Result<(Spare, Egress), NotHandedOver> {
        let mut spare = self.spares().make(frame, &self.config.helper)?;
        let listener = tokio::time::timeout(PATIENCE, spare.way_out()).await;
        match listener.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(listener) => {
                let egress = Egress::start(listener, policy.clone(), (self.config.egress.resolver)())?;
                Ok((spare, egress))
            }
            Err(error) => Err(why_no_way_out(spare.given_up(), &error).await),
        }
    }
}

/// What the supervisor says of a way out that did not come about.
async fn why_no_way_out(control: std::os::unix::net::UnixStream, error: &io::Error) -> NotHandedOver {
    let said = async {
        control.set_nonblocking(true)?;
        let (reports, _) = UnixStream::from_std(control)?.into_split();
        io::Result::Ok(next_report(&mut BufReader::new(reports), &mut Vec::new()).await)
    };
    let said = tokio::time::timeout(PATIENCE, said).await;
    let (failure, message, mechanisms) = match said {
        Ok(Ok(Some(Report::Failed { failure, message, mechanisms }))) => (failure, message, mechanisms),
        _ => {
            let message = format!("could not make the run's way out: {error}; run it again, and see the server's log");
            (SpawnFailure::Confinement, message, Vec::new())
        }
    };
    let outcome = Outcome::SpawnFailed { failure, message };
    NotHandedOver::Ended(Box::new(Ended { mechanisms, ..Ended::at_once(outcome) }))
}

/// Why a run was not handed over.
enum NotHandedOver {
    Io(io::Error),
    Ended(Box<Ended>),
}

impl From<io::Error> for NotHandedOver {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What was compared with the approval, and the files whose copies the run sees.
struct Bound {
    checked: Mechanism,
    files: Vec<Identity>,
}

impl Bound {
    /// Adds to `spec` what was approved.
    fn to(spec: &mut Spec, taken: Taken) -> Self {
        let rest = taken.bound.len().saturating_sub(taken.sealed.len());
        spec.cwd_dev_ino = Some(taken.cwd_dev_ino);
        (spec.scripts, spec.bytes) = (taken.sealed, taken.bytes);
        let also = if rest == 0 { String::new() } else { format!(", scripts that are not sealed: {rest}") };
        let detail = format!("right before the start: working directory, shell{also}");
        let checked = Mechanism { name: "binding_checked".to_owned(), held: true, detail };
        Self { checked, files: taken.files }
    }

    /// Tells what held now that the run has ended. The kernel lifts a mount from a file that somebody outside of the run
    /// unlinks, or renames another over; what was touched meanwhile may have been seen otherwise than approved.
    async fn tell(self, mechanisms: &mut Vec<Mechanism>) {
        let Self { checked, files } = self;
        let touched = tokio::task::spawn_blocking(move || {
            files.into_iter().filter(|file| !file.is_untouched()).map(|file| file.path).collect::<Vec<_>>()
        });
        let touched = touched.await.unwrap_or_default();
        if let (Some(first), Some(sealed)) =
            (touched.first(), mechanisms.iter_mut().find(|known| known.name == "scripts_sealed"))
        {
            sealed.held = false;
            sealed.detail = format!("`{}` was touched from outside while it ran", first.display());
        }
        mechanisms.push(checked);
    }
}

struct Streams {
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    control: UnixStream,
    egress: Option<Egress>,
}

struct Ended {
    outcome: Outcome,
    mechanisms: Vec<Mechanism>,
    written: [u64; 2],
    usage: Option<Usage>,
}

impl Ended {
    /// How a run ended that was never begun.
    const fn at_once(outcome: Outcome) -> Self {
        Self { outcome, mechanisms: Vec::new(), written: [0, 0], usage: None }
    }
}

/// How many bytes of output a run may still write.
#[derive(Debug)]
struct Meter {
    left: AtomicU64,
    spent: Notify,
    live: Arc<Live>,
}

/// What [`Meter::left`] is once more was written than allowed.
const SPENT: u64 = u64::MAX - 1;

impl Meter {
    /// Takes `bytes` off; when there are not so many left, says so.
    fn take(&self, bytes: u64) {
        let rest = |left: u64| match left {
            u64::MAX | SPENT => None,
            left => Some(left.checked_sub(bytes).unwrap_or(SPENT)),
        };
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).is_ok() && self.is_spent() {
            self.spent.notify_one();
        }
    }

    fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == SPENT
    }
}

/// What was told of a run so far.
#[derive(Default)]
struct Watched {
    begun: bool,
    mechanisms: Vec<Mechanism>,
    end: Option<Outcome>,
    left: Option<Left>,
    usage: Option<Usage>,
    exceeded: Option<Limit>,
}

impl Watched {
    fn note(&mut self, report: Report) {
        match report {
            Report::Started(mechanisms) => {
                self.begun = true;
                self.mechanisms = mechanisms;
            }
            Report::Failed { failure, message, mechanisms } => {
                self.mechanisms = mechanisms;
                self.end = Some(Outcome::SpawnFailed { failure, message });
            }
            Report::Exited { code, left, used } => {
                self.used(used);
                self.ended(Outcome::Exited { code }, left);
            }
            Report::Signalled { signal, left, used } => {
                self.used(used);
                self.ended(Outcome::Signalled { signal }, left);
            }
            Report::Ended(used) => self.used(used),
            // Told while it goes on, and to others.
            Report::Processes(_) => {}
        }
    }

    /// What is told later counts more of the run.
    fn used(&mut self, used: Used) {
        self.usage = Some(used.usage);
        self.exceeded = self.exceeded.or(used.exceeded);
    }

    fn ended(&mut self, end: Outcome, left: Left) {
        self.left = Some(left);
        // Why it did not begin says more than how its process then ended.
        if self.end.is_none() {
            self.end = Some(end);
        }
    }

    /// The outcome, where it is known. What we ended, we ended, however the shell then went.
    fn outcome(&mut self, why: Option<Outcome>) -> Option<Outcome> {
        match (self.end.take(), why) {
            (Some(failed @ Outcome::SpawnFailed { .. }), _) => Some(failed),
            (_, Some(ours)) => Some(ours),
            (Some(_), None) if !self.begun => {
                let message = "the shell's process died before it began".to_owned();
                Some(Outcome::SpawnFailed { failure: SpawnFailure::Refused, message })
            }
            (end, None) => end,
        }
    }
}

/// Reads the next report. What was read when the wait is given up stays in `line`, so that no report is torn.
async fn next_report(reports: &mut BufReader<tokio::net::unix::OwnedReadHalf>, line: &mut Vec<u8>) -> Option<Report> {
    let most = u64::try_from(MAX_LINE.saturating_sub(line.len())).unwrap_or(0);
    let read = reports.take(most).read_until(b'\n', line).await;
    let report = if read.is_ok_and(|read| read > 0) { serde_json::from_slice(line).ok() } else { None };
    line.clear();
    report
}

/// Reads a stream to its end. The command never waits for a receiver that is gone.
async fn forward(
    mut from: pipe::Receiver,
    stream: Stream,
    to: mpsc::Sender<Chunk>,
    ended: watch::Receiver<bool>,
    meter: Arc<Meter>,
) -> u64 {
    let mut written = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            () = long_after(ended.clone()) => 0,
        };
        if read == 0 {
            return written;
        }
        let more = u64::try_from(read).unwrap_or(0);
        written += more;
        meter.live.wrote(stream, more);
        meter.take(more);
        let bytes = Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default());
        let _ = to.send(Chunk { stream, bytes }).await;
    }
}

/// Resolves when the tree has been gone for [`DRAIN`]. Only reading is cut short by it, never handing on what was read.
async fn long_after(mut ended: watch::Receiver<bool>) {
    let _ = ended.wait_for(|ended| *ended).await;
    tokio::time::sleep(DRAIN).await;
}

fn user_of(asked: Option<&str>) -> Result<(User, String), StartError> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    if !uid.is_root() {
        let user = User { uid: uid.as_raw(), gid: gid.as_raw(), from_root: false };
        return Ok((user, format!("uid {uid}, in a user namespace")));
    }
    let name = asked.unwrap_or("nobody");
    let refused = |why| StartError::RunAs { name: name.to_owned(), why };
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => Err(refused("it is root")),
        Ok(Some(user)) => {
            Ok((User { uid: user.uid.as_raw(), gid: user.gid.as_raw(), from_root: true }, name.to_owned()))
        }
        Ok(None) => Err(refused("there is no such user")),
        Err(_) => Err(refused("the user database cannot be read")),
    }
}

/// Gives a workspace that the server has just made to the user that commands run as.
///
/// # Errors
/// When there is no such user or the folder cannot be given away.
pub fn give_workspace(path: &Path, run_as: Option<&str>) -> Result<(), StartError> {
    let (user, _) = user_of(run_as)?;
    if user.from_root {
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).map_err(StartError::Helper)?;
    }
    Ok(())
}
