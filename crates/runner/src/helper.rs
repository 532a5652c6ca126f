//! The helper's side, all single-threaded: the helper forks a supervisor for each spare that the server asks for; the
//! supervisor makes the namespaces and forks the first process; that one forks what becomes the shell, and reaps. What becomes
//! the shell makes ready all that can be made ready, waits for the one run that the spare is for, and becomes its shell.
//!
//! A spare knows nothing of any run: the helper, from whose memory it is made, never sees a specification.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeValLike as _;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, pipe2};
use provara_domain::{Limit, Mechanism, Resource, ResourceLimits, SpawnFailure, Usage};
use provara_faults::{Place, reached};

use crate::child::{NotStarted, become_shell, give_up_rights, prepare_walls};
use crate::confine::{finish_view, leave_namespaces, prepare_view};
use crate::groups::{Delegated, Groups};
use crate::protocol::{
    BEGIN, COUNT, Calls, Frame, KILL, Left, OF_A_PREVIEW, OF_A_RUN, Report, Spec, TERMINATE, Used, read_spec,
    receive_any,
};
use crate::sys;

/// How long a tree has between SIGTERM and its end.
const GRACE: Duration = Duration::from_secs(2);

/// What a spare is made with.
struct Spare {
    frame: Frame,
    /// Where the run comes in.
    inlet: OwnedFd,
    control: UnixStream,
    /// Where the listener of its proxy goes out, where its frame has one.
    way_out: Option<OwnedFd>,
}

/// The one run that a spare is for.
struct Run {
    spec: Spec,
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
    /// Where what a preview changes goes out. Where there is one, nothing of the run reaches the workspace itself.
    changes: Option<OwnedFd>,
}

/// What the helper process does, from its start until the server is gone. Its standard input is the server's socket.
pub fn helper_main() -> ExitCode {
    // The server marks its own as close-on-exec; whoever started the server may not have.
    if sys::close_inherited().is_err() {
        return ExitCode::FAILURE;
    }
    // A killed server shows as the end of its socket. A signal at the parent's death would come when the *thread* ends that
    // started us, and a runtime's threads come and go.
    let _ = prctl::set_dumpable(false);
    // Started from a descriptor, we would be called by its number, and so would the first process of each run.
    let _ = prctl::set_name(c"provara-run");
    // Held open by the helper alone: its end is the helper's end.
    let Ok((helper, held_by_helper)) = pipe2(OFlag::O_CLOEXEC) else { return ExitCode::FAILURE };
    let server = io::stdin();
    let delegated = Delegated::find();
    loop {
        match next_spare(server.as_fd()) {
            Ok(Some(spare)) => {
                reached(Place::HelperReceived);
                supervise_apart(spare, &helper, &held_by_helper, &delegated);
                reached(Place::HelperForked);
            }
            Ok(None) => return ExitCode::SUCCESS,
            // A malformed request is the server's fault and one run's loss; its control stream is closed by now.
            Err(_) => {}
        }
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG))
            && let Some(supervisor) = status.pid()
        {
            // It has done so itself, unless it was killed.
            delegated.remove_of(supervisor);
        }
    }
}

fn next_spare(server: BorrowedFd<'_>) -> io::Result<Option<Spare>> {
    let Some((frame, descriptors)) = receive_any(server)? else { return Ok(None) };
    let frame: Frame = serde_json::from_slice(&frame)?;
    let mut descriptors = descriptors.into_iter();
    let (inlet, control, way_out) = (descriptors.next(), descriptors.next(), descriptors.next());
    match (inlet, control, descriptors.next()) {
        (Some(inlet), Some(control), None) if way_out.is_some() == (frame.calls == Calls::Proxy) => {
            Ok(Some(Spare { frame, inlet, control: control.into(), way_out }))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Forks the spare's supervisor. The helper keeps none of its descriptors.
fn supervise_apart(spare: Spare, helper: &OwnedFd, held_by_helper: &OwnedFd, delegated: &Delegated) {
    let me = std::process::id();
    match sys::fork_single_threaded() {
        Ok(ForkResult::Parent { .. }) => {}
        Ok(ForkResult::Child) => {
            // Neither may outlive the helper in a supervisor: the server would go on asking for spares that nobody makes,
            // and spares would not end with the helper.
            let closed = nullify_stdin().and_then(|()| sys::replace(held_by_helper, helper));
            match closed {
                Ok(()) => match Groups::make(delegated, me, spare.frame.limits) {
                    Ok(mut groups) => {
                        supervise(spare, helper, &mut groups);
                        groups.remove();
                    }
                    Err(message) => {
                        report(&spare.control, &failed(SpawnFailure::Confinement, message, vec![]));
                    }
                },
                Err(error) => {
                    let message = format!("could not leave the helper's descriptors: {error}");
                    report(&spare.control, &failed(SpawnFailure::Refused, message, vec![]));
                }
            }
            std::process::exit(0);
        }
        Err(error) => {
            report(&spare.control, &failed(SpawnFailure::Refused, format!("could not fork: {error}"), vec![]));
        }
    }
}

fn nullify_stdin() -> io::Result<()> {
    Ok(dup2_stdin(File::open("/dev/null")?)?)
}

fn failed(failure: SpawnFailure, message: String, mechanisms: Vec<Mechanism>) -> Report {
    Report::Failed { failure, message, mechanisms }
}

/// Tells the server. If it is gone, the end of the stream will tell us.
fn report(mut control: &UnixStream, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = io::Write::write_all(&mut control, &line);
    }
}

/// The supervisor: lives outside the run's PID namespace and ends it.
fn supervise(mut spare: Spare, helper: &OwnedFd, groups: &mut Groups) {
    reached(Place::SupervisorBegun);
    let refused = |message: String| failed(SpawnFailure::Refused, message, vec![]);
    let made = match leave_namespaces(spare.frame, spare.way_out.take()) {
        Ok(made) => made,
        Err(error) => return report(&spare.control, &not_started(NotStarted::from(error).advised(spare.frame.user))),
    };
    reached(Place::SupervisorApart);
    // Held open by the first process of the run alone: its end is that process's end.
    let Ok((alive, held_by_init)) = pipe2(OFlag::O_CLOEXEC) else {
        return report(&spare.control, &refused("out of descriptors".into()));
    };
    // The first process inherits this, so that a SIGTERM that comes before it listens is kept for it. Ours is SIGKILL alone.
    if let Err(error) = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&for_the_first()), None) {
        return report(&spare.control, &refused(format!("could not block signals: {error}")));
    }
    match sys::fork_single_threaded() {
        Ok(ForkResult::Parent { child }) => {
            drop((held_by_init, spare.inlet));
            reached(Place::SupervisorForked);
            let limits = spare.frame.limits;
            let exceeded = watch(&spare.control, &alive, helper, child, &Bounds { groups, limits });
            report(&spare.control, &Report::Ended(used(groups, limits, exceeded)));
        }
        Ok(ForkResult::Child) => {
            drop(alive);
            be_first(spare, &held_by_init, made, groups);
            std::process::exit(0);
        }
        Err(error) => report(&spare.control, &refused(format!("could not fork: {error}"))),
    }
}

fn for_the_first() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals
}

fn not_started(stopped: NotStarted) -> Report {
    failed(stopped.failure, stopped.message, vec![])
}

/// Waits for the run's end or the server's word; until there is a run, for the helper's end as well. When this returns, no
/// process of the run is left. Returns the limit for which it ended the run, if any.
fn watch(control: &UnixStream, alive: &OwnedFd, helper: &OwnedFd, init: Pid, bounds: &Bounds<'_>) -> Option<Limit> {
    let mut deadline: Option<Instant> = None;
    let mut exceeded = None;
    let mut helper = Some(helper);
    loop {
        let patience = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        // Nothing of a spare's is limited before it is a run.
        let look = if helper.is_none() { bounds.soonest() } else { None };
        let timeout = patience.into_iter().chain(look).min();
        let timeout = timeout.and_then(|left| PollTimeout::try_from(left).ok()).unwrap_or(PollTimeout::NONE);
        let mut waiting =
            vec![PollFd::new(control.as_fd(), PollFlags::POLLIN), PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
        // The kernel tells by POLLPRI that a limit was met. Where it does not count, a pipe that never has any stands in.
        let news = bounds.groups.news().map_or(alive.as_fd(), |news| news.as_fd());
        waiting.push(PollFd::new(news, PollFlags::POLLPRI));
        waiting.extend(helper.map(|helper| PollFd::new(helper.as_fd(), PollFlags::POLLIN)));
        let woken = poll(&mut waiting, timeout);
        let mut ready = waiting.iter().map(|fd| fd.any().unwrap_or(false));
        let [asked, ended, told, alone] = [(); 4].map(|()| ready.next().unwrap_or(false));
        if ended
            || deadline.is_some_and(|at| Instant::now() >= at)
            || (woken.is_err() && woken != Err(nix::Error::EINTR))
        {
            break;
        }
        if told || look.is_some() {
            exceeded = bounds.exceeded();
            if exceeded.is_some() {
                break;
            }
        }
        if asked {
            let mut byte = [0];
            match (&mut &*control).read(&mut byte) {
                // From now on the helper's death is none of the run's business.
                Ok(1) if byte == [BEGIN] => helper = None,
                Ok(1) if byte == [TERMINATE] => {
                    let _ = kill(init, Signal::SIGTERM);
                    deadline = Some(Instant::now() + GRACE);
                }
                Ok(1) if byte == [COUNT] => {
                    if let Some(count) = bounds.groups.processes_now() {
                        report(control, &Report::Processes(count));
                    }
                }
                Ok(1) if byte != [KILL] => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Asked to kill, or the server is gone.
                _ => break,
            }
        } else if alone {
            break;
        }
    }
    // The first process of a PID namespace takes all others with it, and waitpid returns only when they are gone.
    let _ = kill(init, Signal::SIGKILL);
    let _ = waitpid(init, None);
    exceeded
}

/// What a run may have, and what counts it.
struct Bounds<'a> {
    groups: &'a Groups,
    limits: ResourceLimits,
}

impl Bounds<'_> {
    /// The limit that was met so far.
    fn exceeded(&self) -> Option<Limit> {
        let spent = self.groups.cpu_micros().unwrap_or(0) >= self.cpu_micros();
        if spent { Some(Limit::Cpu) } else { self.groups.exceeded() }
    }

    /// When to look next, if nothing is told.
    fn soonest(&self) -> Option<Duration> {
        let spending = self.limits.get(Resource::Cpu).and_then(|_| self.until_spent());
        spending.into_iter().chain(self.groups.rhythm()).min()
    }

    /// The soonest that all processors together can have spent what is left. Never less than a moment: what is nearly spent
    /// is looked at again, and not all the time.
    fn until_spent(&self) -> Option<Duration> {
        let used = self.groups.cpu_micros()?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let left = self.cpu_micros().saturating_sub(used) / u64::try_from(processors).unwrap_or(1);
        Some(Duration::from_micros(left).max(Duration::from_millis(10)))
    }

    fn cpu_micros(&self) -> u64 {
        self.limits.get(Resource::Cpu).map_or(u64::MAX, |seconds| seconds.saturating_mul(1_000_000))
    }
}

/// What the reaped children of this process used, and which limit that shows to have been met.
fn used(groups: &Groups, limits: ResourceLimits, exceeded: Option<Limit>) -> Used {
    const BLOCK: u64 = 512; // in which traffic of disks is counted
    let mut usage =
        Usage { memory_peak_bytes: groups.memory_peak(), processes_peak: groups.processes_peak(), ..Usage::default() };
    if let Ok(children) = getrusage(UsageWho::RUSAGE_CHILDREN) {
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let time = children.user_time() + children.system_time();
        usage.cpu_ms = count(time.num_milliseconds()).max(groups.cpu_micros().unwrap_or(0) / 1000);
        usage.largest_process_bytes = count(children.max_rss()).saturating_mul(1024);
        usage.disk_read_bytes = count(children.block_reads()).saturating_mul(BLOCK);
        usage.disk_written_bytes = count(children.block_writes()).saturating_mul(BLOCK);
    }
    // Of all processes together: each of them may have stayed within what the kernel lets one have.
    let spent = limits.get(Resource::Cpu).is_some_and(|most| usage.cpu_ms >= most.saturating_mul(1000));
    let exceeded = exceeded.or_else(|| groups.exceeded()).or_else(|| spent.then_some(Limit::Cpu));
    Used { usage, exceeded }
}

/// The first process of the run's PID namespace: starts what becomes the shell, reaps, and ends with the shell.
fn be_first(spare: Spare, held_by_us: &OwnedFd, mut made: Vec<Mechanism>, groups: &mut Groups) {
    // If the supervisor is killed, the run must not go on; also not when that happened a moment ago.
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || unheard(held_by_us) {
        return;
    }
    match groups.enter() {
        Ok(entered) => made.extend(entered),
        Err(error) => {
            let message = format!("could not enter the run's control group: {error}");
            return report(&spare.control, &failed(SpawnFailure::Confinement, message, vec![]));
        }
    }
    let refused = |message: String| failed(SpawnFailure::Refused, message, vec![]);
    let Ok(mut signals) = SignalFd::with_flags(&for_the_first(), SfdFlags::SFD_CLOEXEC) else {
        return report(&spare.control, &refused("out of descriptors".into()));
    };
    let shell = match sys::fork_single_threaded() {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            drop(signals);
            let stopped = be_shell(spare.frame, groups.unheld(spare.frame.limits), &spare.control, spare.inlet, made);
            if let Some(stopped) = stopped {
                report(&spare.control, &not_started(stopped));
            }
            std::process::exit(127);
        }
        Err(error) => return report(&spare.control, &refused(format!("could not fork: {error}"))),
    };
    reached(Place::InitForked);
    drop(spare.inlet);
    if let Some((end, left)) = reap_until(shell, &mut signals) {
        let limits = spare.frame.limits;
        report(&spare.control, &end_of(end, left, used(groups, limits, None), limits));
    }
}

/// Whether the pipe's other end is closed.
fn unheard(pipe: &OwnedFd) -> bool {
    let mut waiting = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    poll(&mut waiting, PollTimeout::ZERO).is_err() || waiting.iter().any(|fd| fd.any().unwrap_or(true))
}

/// How the shell ended.
#[derive(Clone, Copy)]
enum End {
    Exited(i32),
    Signalled(Signal),
}

/// The report of the shell's end. A signal that the kernel sends at a limit says which one it was.
fn end_of(end: End, left: Left, mut used: Used, limits: ResourceLimits) -> Report {
    let sent = |signal, limit: Option<u64>| matches!(end, End::Signalled(found) if found == signal) && limit.is_some();
    if sent(Signal::SIGXFSZ, limits.get(Resource::FileSize)) {
        used.exceeded = Some(Limit::FileSize);
    } else if sent(Signal::SIGXCPU, limits.get(Resource::Cpu)) {
        used.exceeded = Some(Limit::Cpu);
    }
    match end {
        End::Exited(code) => Report::Exited { code, left, used },
        End::Signalled(signal) => Report::Signalled { signal: i32::from(signal_number(signal)), left, used },
    }
}

/// Reaps every orphan of the run until the shell itself ends; passes SIGTERM on to all.
fn reap_until(shell: Pid, signals: &mut SignalFd) -> Option<(End, Left)> {
    let mut end = None;
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == shell => end = Some(End::Exited(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == shell => end = Some(End::Signalled(signal)),
                // Whoever lost its parent is our child, so a childless first process is the last one.
                Err(nix::Error::ECHILD) => return end.map(|end| (end, Left::Nobody)),
                Ok(WaitStatus::StillAlive) => break,
                _ => {}
            }
        }
        if let Some(end) = end {
            return Some((end, Left::Others));
        }
        if let Ok(Some(signal)) = signals.read_signal()
            && i32::try_from(signal.ssi_signo) == Ok(libc::SIGTERM)
        {
            // To every process of the namespace but this one.
            let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
        }
    }
}

#[expect(clippy::as_conversions, reason = "a signal is its number by definition")]
fn signal_number(signal: Signal) -> u8 {
    signal as u8
}

/// What becomes the shell: makes ready, waits for its run, takes its streams, gives up its rights, says what held, and becomes
/// the shell. Returns why it did not, or nothing when there never was a run.
fn be_shell(
    frame: Frame,
    limits: ResourceLimits,
    control: &UnixStream,
    inlet: OwnedFd,
    mut made: Vec<Mechanism>,
) -> Option<NotStarted> {
    let ready = prepare_view(frame).map_err(NotStarted::from).and_then(|(ground, view)| {
        let (walls, rights) = prepare_walls(frame, limits)?;
        Ok((ground, walls, view, rights))
    });
    let (ground, walls, view, rights) = match ready {
        Ok(ready) => ready,
        Err(stopped) => return Some(stopped.advised(frame.user)),
    };
    made.extend(view);
    reached(Place::ShellWaits);
    let mut run = match next_run(inlet) {
        Ok(Some(run)) => run,
        Ok(None) => return None,
        Err(error) => return Some(refused(&error)),
    };
    reached(Place::ShellReceived);
    let (view, seen) = match finish_view(frame, &ground, &run.spec, run.changes.take()) {
        Ok(view) => view,
        Err(stopped) => return Some(stopped.advised(frame.user)),
    };
    made.extend(view.into_iter().chain(rights));
    reached(Place::ShellMounted);
    if let Err(error) = take_streams(&run, frame) {
        return Some(refused(&error));
    }
    match give_up_rights(frame, walls, &run.spec, &seen) {
        Ok(rights) => made.extend(rights),
        Err(stopped) => return Some(stopped),
    }
    report(control, &Report::Started(made));
    reached(Place::ShellReady);
    Some(become_shell(&run.spec))
}

fn refused(error: &io::Error) -> NotStarted {
    NotStarted { failure: SpawnFailure::Refused, message: error.to_string() }
}

/// Waits for the run. One comes at most: the inlet is closed with it.
fn next_run(inlet: OwnedFd) -> io::Result<Option<Run>> {
    let Some((_, mut received)) = receive_any(inlet.as_fd())? else { return Ok(None) };
    let changes = if received.len() == OF_A_PREVIEW { received.pop() } else { None };
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidData);
    let [spec, input, output, errors] = <[OwnedFd; OF_A_RUN]>::try_from(received).map_err(wrong)?;
    Ok(Some(Run { spec: read_spec(spec)?, input, output, errors, changes }))
}

fn take_streams(run: &Run, frame: Frame) -> io::Result<()> {
    // Whoever opens `/dev/stderr` opens the pipe anew, which only its owner may.
    let user = frame.user;
    let owned =
        |stream| if user.from_root { fchown(stream, Some(user.uid.into()), Some(user.gid.into())) } else { Ok(()) };
    owned(&run.output)?;
    owned(&run.errors)?;
    dup2_stdin(&run.input)?;
    dup2_stdout(&run.output)?;
    dup2_stderr(&run.errors)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    sys::default_sigpipe()
}
