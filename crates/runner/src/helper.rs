//! The helper's side, all single-threaded: the helper forks one supervisor a run; the supervisor makes the run's
//! namespaces and forks its first process; that one mounts the view, forks the shell, and reaps.

use std::fs::File;
use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, pipe2};
use provara_domain::{Mechanism, SpawnFailure};
use provara_faults::{Place, reached};

use crate::advice::advice;
use crate::child::{NotStarted, become_shell, give_up_rights, open_workspace};
use crate::confine::{leave_namespaces, mount_view};
use crate::protocol::{DESCRIPTORS, KILL, Report, Spec, TERMINATE, read_spec};
use crate::sys;

/// How long a tree has between SIGTERM and its end.
const GRACE: Duration = Duration::from_secs(2);

/// The descriptors of one run.
struct Run {
    spec: Spec,
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
    control: UnixStream,
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
    let server = io::stdin();
    loop {
        match next_run(server.as_fd()) {
            Ok(Some(run)) => {
                reached(Place::HelperReceived);
                supervise_apart(run);
                reached(Place::HelperForked);
            }
            Ok(None) => return ExitCode::SUCCESS,
            // A malformed request is the server's fault and one run's loss; its control stream is closed by now.
            Err(_) => {}
        }
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
    }
}

fn next_run(server: BorrowedFd<'_>) -> io::Result<Option<Run>> {
    let mut byte = [0];
    let mut space = cmsg_space!([i32; DESCRIPTORS]);
    let mut iov = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(server.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
        .map_err(io::Error::from);
    let message = match message {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
        // The socket is broken: there is no server any more.
        Err(_) => return Ok(None),
        Ok(message) if message.bytes == 0 => return Ok(None),
        Ok(message) => message,
    };
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            received.extend(descriptors.into_iter().map(sys::received));
        }
    }
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidData);
    let [spec, input, output, errors, control] = <[OwnedFd; DESCRIPTORS]>::try_from(received).map_err(wrong)?;
    Ok(Some(Run { spec: read_spec(spec)?, input, output, errors, control: control.into() }))
}

/// Forks the run's supervisor. The helper keeps none of the run's descriptors.
fn supervise_apart(run: Run) {
    match sys::fork_single_threaded() {
        Ok(ForkResult::Parent { .. }) => {}
        Ok(ForkResult::Child) => {
            // The server's socket must not outlive the helper in a supervisor: the server would go on handing over runs
            // that nobody takes.
            match nullify_stdin() {
                Ok(()) => supervise(run),
                Err(error) => {
                    let message = format!("could not open /dev/null: {error}");
                    report(&mut &run.control, &failed(SpawnFailure::Refused, message, vec![]));
                }
            }
            std::process::exit(0);
        }
        Err(error) => {
            report(&mut &run.control, &failed(SpawnFailure::Refused, format!("could not fork: {error}"), vec![]))
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
fn report(control: &mut impl io::Write, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = control.write_all(&line);
    }
}

/// The supervisor: lives outside the run's PID namespace and ends it.
fn supervise(run: Run) {
    reached(Place::SupervisorBegun);
    // Not ours to die with: each supervisor ends its own tree when the server's stream ends.
    let mut made = match leave_namespaces(&run.spec) {
        Ok(made) => made,
        Err(error) => {
            let message = format!("could not {}: {}; {}", error.step, error.cause, advice(run.spec.user));
            return report(&mut &run.control, &failed(SpawnFailure::Confinement, message, vec![]));
        }
    };
    reached(Place::SupervisorApart);
    // Held open by the first process of the run alone: its end is that process's end.
    let Ok((alive, held_by_init)) = pipe2(nix::fcntl::OFlag::O_CLOEXEC) else {
        return report(&mut &run.control, &failed(SpawnFailure::Refused, "out of descriptors".into(), vec![]));
    };
    match sys::fork_single_threaded() {
        Ok(ForkResult::Parent { child }) => {
            drop((held_by_init, run.input, run.output, run.errors));
            reached(Place::SupervisorForked);
            watch(&run.control, &alive, child);
        }
        Ok(ForkResult::Child) => {
            drop(alive);
            be_first(run, &held_by_init, &mut made);
            std::process::exit(0);
        }
        Err(error) => {
            report(&mut &run.control, &failed(SpawnFailure::Refused, format!("could not fork: {error}"), vec![]));
        }
    }
}

/// Waits for the run's end or the server's word. When this returns, no process of the run is left.
fn watch(control: &UnixStream, alive: &OwnedFd, init: Pid) {
    let mut deadline: Option<Instant> = None;
    loop {
        let mut waiting =
            [PollFd::new(control.as_fd(), PollFlags::POLLIN), PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
        let patience = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = patience.and_then(|left| PollTimeout::try_from(left).ok()).unwrap_or(PollTimeout::NONE);
        let woken = poll(&mut waiting, timeout);
        let [asked, ended] = waiting.map(|fd| fd.any().unwrap_or(false));
        if ended
            || deadline.is_some_and(|at| Instant::now() >= at)
            || (woken.is_err() && woken != Err(nix::Error::EINTR))
        {
            break;
        }
        if asked {
            let mut byte = [0];
            match (&mut &*control).read(&mut byte) {
                Ok(1) if byte == [TERMINATE] => {
                    let _ = kill(init, Signal::SIGTERM);
                    deadline = Some(Instant::now() + GRACE);
                }
                Ok(1) if byte != [KILL] => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Asked to kill, or the server is gone.
                _ => break,
            }
        }
    }
    // The first process of a PID namespace takes all others with it, and waitpid returns only when they are gone.
    let _ = kill(init, Signal::SIGKILL);
    let _ = waitpid(init, None);
}

/// The first process of the run's PID namespace: makes the view, starts the shell, reaps, and ends with the shell.
fn be_first(run: Run, held_by_us: &OwnedFd, made: &mut Vec<Mechanism>) {
    // If the supervisor is killed, the run must not go on; also not when that happened a moment ago.
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || unheard(held_by_us) {
        return;
    }
    let mut control = &run.control;
    let workspace = match open_workspace(&run.spec) {
        Ok(workspace) => workspace,
        Err(stopped) => return report(&mut control, &failed(stopped.failure, stopped.message, made.clone())),
    };
    match mount_view(&run.spec, &workspace) {
        Ok(mounts) => made.extend(mounts),
        Err(error) => {
            let message = format!("could not {}: {}; {}", error.step, error.cause, advice(run.spec.user));
            return report(&mut control, &failed(SpawnFailure::Confinement, message, made.clone()));
        }
    }
    reached(Place::InitMounted);
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    let prepared = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)
        .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC))
        .and_then(|signals| Ok((signals, pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)));
    let Ok((mut signals, (told, tell))) = prepared else {
        return report(&mut control, &failed(SpawnFailure::Refused, "out of descriptors".into(), made.clone()));
    };
    let shell = match sys::fork_single_threaded() {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            drop(told);
            be_shell(&run, File::from(tell));
            std::process::exit(127);
        }
        Err(error) => {
            let message = format!("could not fork: {error}");
            return report(&mut control, &failed(SpawnFailure::Refused, message, made.clone()));
        }
    };
    reached(Place::InitForked);
    drop((tell, run.input, run.output, run.errors));
    if started(told, made, &mut control)
        && let Some(end) = reap_until(shell, &mut signals)
    {
        report(&mut control, &end);
    }
}

/// Whether the pipe's other end is closed.
fn unheard(pipe: &OwnedFd) -> bool {
    let mut waiting = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    poll(&mut waiting, PollTimeout::ZERO).is_err() || waiting.iter().any(|fd| fd.any().unwrap_or(true))
}

/// Reads what the shell's process says until it has become the shell, and tells the server.
fn started(told: OwnedFd, made: &mut Vec<Mechanism>, control: &mut &UnixStream) -> bool {
    let mut said = Vec::new();
    let _ = File::from(told).read_to_end(&mut said);
    let mut ok = false;
    for line in said.split(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Report::Started(more)) => {
                made.extend(more);
                ok = true;
            }
            Ok(Report::Failed { failure, message, .. }) => {
                report(control, &failed(failure, message, made.clone()));
                return false;
            }
            _ => {}
        }
    }
    if ok {
        report(control, &Report::Started(made.clone()));
    } else {
        report(
            control,
            &failed(SpawnFailure::Refused, "the shell's process died before it began".into(), made.clone()),
        );
    }
    ok
}

/// Reaps every orphan of the run until the shell itself ends; passes SIGTERM on to all.
fn reap_until(shell: Pid, signals: &mut SignalFd) -> Option<Report> {
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == shell => return Some(Report::Exited { code }),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == shell => {
                    return Some(Report::Signalled { signal: i32::from(signal_number(signal)) });
                }
                Ok(WaitStatus::StillAlive) => break,
                Err(nix::Error::ECHILD) => return None,
                _ => {}
            }
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

/// The shell's process: takes its streams, gives up its rights, says what held, and becomes the shell.
fn be_shell(run: &Run, mut tell: File) {
    // Whoever opens `/dev/stderr` opens the pipe anew, which only its owner may.
    let user = run.spec.user;
    let owned =
        |stream| if user.from_root { fchown(stream, Some(user.uid.into()), Some(user.gid.into())) } else { Ok(()) };
    let streams = owned(&run.output)
        .and_then(|()| owned(&run.errors))
        .and_then(|()| dup2_stdin(&run.input))
        .and_then(|()| dup2_stdout(&run.output))
        .and_then(|()| dup2_stderr(&run.errors));
    let ready = streams
        .and_then(|()| sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None))
        .map_err(io::Error::from)
        .and_then(|()| sys::default_sigpipe())
        .map_err(|error| NotStarted { failure: SpawnFailure::Refused, message: error.to_string() })
        .and_then(|()| give_up_rights(&run.spec));
    let stopped = match ready {
        Ok(made) => {
            report(&mut tell, &Report::Started(made));
            reached(Place::ShellReady);
            become_shell(&run.spec)
        }
        Err(stopped) => stopped,
    };
    report(&mut tell, &failed(stopped.failure, stopped.message, vec![]));
    let _ = tell.flush();
}
