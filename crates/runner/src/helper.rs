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
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, pipe2};
use provara_domain::{Mechanism, SpawnFailure};
use provara_faults::{Place, reached};

use crate::child::{NotStarted, become_shell, give_up_rights, prepare_walls};
use crate::confine::{finish_view, leave_namespaces, prepare_view};
use crate::protocol::{BEGIN, Frame, KILL, Left, OF_A_RUN, OF_A_SPARE, Report, Spec, TERMINATE, read_spec, receive};
use crate::sys;

/// How long a tree has between SIGTERM and its end.
const GRACE: Duration = Duration::from_secs(2);

/// What a spare is made with.
struct Spare {
    frame: Frame,
    /// Where the run comes in.
    inlet: OwnedFd,
    control: UnixStream,
}

/// The one run that a spare is for.
struct Run {
    spec: Spec,
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
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
    loop {
        match next_spare(server.as_fd()) {
            Ok(Some(spare)) => {
                reached(Place::HelperReceived);
                supervise_apart(spare, &helper, &held_by_helper);
                reached(Place::HelperForked);
            }
            Ok(None) => return ExitCode::SUCCESS,
            // A malformed request is the server's fault and one run's loss; its control stream is closed by now.
            Err(_) => {}
        }
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
    }
}

fn next_spare(server: BorrowedFd<'_>) -> io::Result<Option<Spare>> {
    let Some((frame, [inlet, control])) = receive::<OF_A_SPARE>(server)? else { return Ok(None) };
    Ok(Some(Spare { frame: serde_json::from_slice(&frame)?, inlet, control: control.into() }))
}

/// Forks the spare's supervisor. The helper keeps none of its descriptors.
fn supervise_apart(spare: Spare, helper: &OwnedFd, held_by_helper: &OwnedFd) {
    match sys::fork_single_threaded() {
        Ok(ForkResult::Parent { .. }) => {}
        Ok(ForkResult::Child) => {
            // Neither may outlive the helper in a supervisor: the server would go on asking for spares that nobody makes,
            // and spares would not end with the helper.
            let closed = nullify_stdin().and_then(|()| sys::replace(held_by_helper, helper));
            match closed {
                Ok(()) => supervise(spare, helper),
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
fn supervise(spare: Spare, helper: &OwnedFd) {
    reached(Place::SupervisorBegun);
    let refused = |message: String| failed(SpawnFailure::Refused, message, vec![]);
    let made = match leave_namespaces(spare.frame) {
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
            watch(&spare.control, &alive, helper, child);
        }
        Ok(ForkResult::Child) => {
            drop(alive);
            be_first(spare, &held_by_init, made);
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
/// process of the run is left.
fn watch(control: &UnixStream, alive: &OwnedFd, helper: &OwnedFd, init: Pid) {
    let mut deadline: Option<Instant> = None;
    let mut helper = Some(helper);
    loop {
        let patience = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = patience.and_then(|left| PollTimeout::try_from(left).ok()).unwrap_or(PollTimeout::NONE);
        let mut waiting =
            vec![PollFd::new(control.as_fd(), PollFlags::POLLIN), PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
        waiting.extend(helper.map(|helper| PollFd::new(helper.as_fd(), PollFlags::POLLIN)));
        let woken = poll(&mut waiting, timeout);
        let mut ready = waiting.iter().map(|fd| fd.any().unwrap_or(false));
        let [asked, ended, alone] = [ready.next(), ready.next(), ready.next()].map(|it| it.unwrap_or(false));
        if ended
            || deadline.is_some_and(|at| Instant::now() >= at)
            || (woken.is_err() && woken != Err(nix::Error::EINTR))
        {
            break;
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
}

/// The first process of the run's PID namespace: starts what becomes the shell, reaps, and ends with the shell.
fn be_first(spare: Spare, held_by_us: &OwnedFd, made: Vec<Mechanism>) {
    // If the supervisor is killed, the run must not go on; also not when that happened a moment ago.
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || unheard(held_by_us) {
        return;
    }
    let refused = |message: String| failed(SpawnFailure::Refused, message, vec![]);
    let Ok(mut signals) = SignalFd::with_flags(&for_the_first(), SfdFlags::SFD_CLOEXEC) else {
        return report(&spare.control, &refused("out of descriptors".into()));
    };
    let shell = match sys::fork_single_threaded() {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            drop(signals);
            let stopped = be_shell(spare.frame, &spare.control, spare.inlet, made);
            if let Some(stopped) = stopped {
                report(&spare.control, &not_started(stopped));
            }
            std::process::exit(127);
        }
        Err(error) => return report(&spare.control, &refused(format!("could not fork: {error}"))),
    };
    reached(Place::InitForked);
    drop(spare.inlet);
    if let Some(end) = reap_until(shell, &mut signals) {
        report(&spare.control, &end);
    }
}

/// Whether the pipe's other end is closed.
fn unheard(pipe: &OwnedFd) -> bool {
    let mut waiting = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    poll(&mut waiting, PollTimeout::ZERO).is_err() || waiting.iter().any(|fd| fd.any().unwrap_or(true))
}

/// Reaps every orphan of the run until the shell itself ends; passes SIGTERM on to all.
fn reap_until(shell: Pid, signals: &mut SignalFd) -> Option<Report> {
    let mut end = None;
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == shell => {
                    end = Some(Report::Exited { code, left: Left::Nobody });
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == shell => {
                    let signal = i32::from(signal_number(signal));
                    end = Some(Report::Signalled { signal, left: Left::Nobody });
                }
                // Whoever lost its parent is our child, so a childless first process is the last one.
                Err(nix::Error::ECHILD) => return end,
                Ok(WaitStatus::StillAlive) => break,
                _ => {}
            }
        }
        match end {
            Some(Report::Exited { code, .. }) => return Some(Report::Exited { code, left: Left::Others }),
            Some(Report::Signalled { signal, .. }) => return Some(Report::Signalled { signal, left: Left::Others }),
            _ => {}
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
fn be_shell(frame: Frame, control: &UnixStream, inlet: OwnedFd, mut made: Vec<Mechanism>) -> Option<NotStarted> {
    let ready = prepare_view(frame).map_err(NotStarted::from).and_then(|(ground, view)| {
        let (walls, rights) = prepare_walls(frame)?;
        Ok((ground, walls, view, rights))
    });
    let (ground, walls, view, rights) = match ready {
        Ok(ready) => ready,
        Err(stopped) => return Some(stopped.advised(frame.user)),
    };
    made.extend(view);
    reached(Place::ShellWaits);
    let run = match next_run(inlet) {
        Ok(Some(run)) => run,
        Ok(None) => return None,
        Err(error) => return Some(refused(&error)),
    };
    reached(Place::ShellReceived);
    let (view, secrets) = match finish_view(frame, &ground, &run.spec) {
        Ok(view) => view,
        Err(stopped) => return Some(stopped.advised(frame.user)),
    };
    made.extend(view.into_iter().chain(rights));
    reached(Place::ShellMounted);
    if let Err(error) = take_streams(&run, frame) {
        return Some(refused(&error));
    }
    match give_up_rights(frame, walls, &run.spec, &secrets) {
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
    let Some((_, [spec, input, output, errors])) = receive::<OF_A_RUN>(inlet.as_fd())? else { return Ok(None) };
    Ok(Some(Run { spec: read_spec(spec)?, input, output, errors }))
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
