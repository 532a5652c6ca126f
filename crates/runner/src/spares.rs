//! What stands ready for the next runs, and the helper that makes it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use tokio::io::Interest;

use crate::egress::receive_listener;
use crate::protocol::{BEGIN, Calls, Frame, HelperProgram, send};

/// How many spares stand ready: more than one, since runs come close after each other.
const READY: usize = 4;

/// The helper and the spares that it made. Each is for one run; whoever drops one ends it.
#[derive(Debug)]
pub(crate) struct Spares {
    helper: Helper,
    ready: VecDeque<Spare>,
    /// Told by the kernel when a mount of ours changes.
    mounts: File,
}

#[derive(Debug)]
struct Helper {
    socket: OwnedFd,
    process: Child,
}

/// Processes that are ready to become a run under `frame`, or soon will be.
#[derive(Debug)]
pub(crate) struct Spare {
    frame: Frame,
    /// Read by what becomes the shell, and by nobody else.
    inlet: OwnedFd,
    control: UnixStream,
    /// Where the listener of its proxy comes out, where its frame has one.
    way_out: Option<UnixStream>,
}

impl Spares {
    /// Starts the helper.
    pub(crate) fn start(program: &HelperProgram) -> io::Result<Self> {
        // Opened before any spare is made, so that no change is missed.
        let mounts = File::open("/proc/self/mountinfo")?;
        Ok(Self { helper: Helper::start(program)?, ready: VecDeque::new(), mounts })
    }

    /// Makes spares until enough stand ready.
    pub(crate) fn fill(&mut self, frame: Frame, program: &HelperProgram) -> io::Result<()> {
        self.discard_stale();
        while self.ready.len() < READY {
            let spare = self.make(frame, program)?;
            self.ready.push_back(spare);
        }
        Ok(())
    }

    /// Hands a run to a spare, to a new one where none is ready, and returns its control stream.
    ///
    /// The descriptors reach one spare at most: one that could not be reached has not got them.
    pub(crate) fn hand_over(
        &mut self,
        frame: Frame,
        descriptors: &[BorrowedFd<'_>],
        program: &HelperProgram,
    ) -> io::Result<UnixStream> {
        self.discard_stale();
        while let Some(mut spare) = self.take(frame) {
            if spare.become_run(descriptors).is_ok() {
                return Ok(spare.control);
            }
        }
        self.make(frame, program)?.begin(descriptors)
    }

    /// Ends the helper and every spare. Runs that are still going have supervisors of their own.
    pub(crate) fn end(&mut self) {
        self.ready.clear();
        self.helper.end();
    }

    /// Forgets the spares that are not what a new one would be.
    fn discard_stale(&mut self) {
        // What a spare sees are the mounts of when it was made. The kernel tells of a change once, so nothing made before
        // may be kept. When it cannot be asked, nothing is known to hold. A dead helper's spares are about to end.
        let mut mounts = [PollFd::new(self.mounts.as_fd(), PollFlags::POLLPRI)];
        if poll(&mut mounts, PollTimeout::ZERO) != Ok(0) || !self.helper.lives() {
            self.ready.clear();
        }
        self.ready.retain(Spare::is_quiet);
    }

    fn take(&mut self, frame: Frame) -> Option<Spare> {
        let index = self.ready.iter().position(|spare| spare.frame == frame)?;
        self.ready.remove(index)
    }

    /// Has the helper make a spare; if it died, a new one.
    pub(crate) fn make(&mut self, frame: Frame, program: &HelperProgram) -> io::Result<Spare> {
        match self.helper.make(frame) {
            Ok(spare) => return Ok(spare),
            Err(nix::Error::EPIPE | nix::Error::ECONNRESET | nix::Error::ECONNREFUSED | nix::Error::ENOTCONN) => {}
            // Its peer is well: to end it would lose the runs that it has not taken yet.
            Err(cause) => return Err(cause.into()),
        }
        tracing::warn!("the helper process died; starting a new one");
        self.end();
        self.helper = Helper::start(program)?;
        Ok(self.helper.make(frame)?)
    }
}

impl Spare {
    /// Whether nothing was heard of it: one that spoke before it had a run has failed, and one that ended is gone.
    fn is_quiet(&self) -> bool {
        poll(&mut [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(0)
    }

    /// Returns the listener that its supervisor made for its proxy, once that is there.
    pub(crate) async fn way_out(&mut self) -> io::Result<TcpListener> {
        let socket = self.way_out.take().ok_or(io::ErrorKind::NotFound)?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UnixStream::from_std(socket)?;
        // Its end closes the other one, so this waits no longer than its supervisor lives.
        socket.async_io(Interest::READABLE, || receive_listener(&socket)).await
    }

    /// Gives up on it, and returns what is heard of it.
    pub(crate) fn given_up(self) -> UnixStream {
        self.control
    }

    /// Spends it on a run, and returns the run's control stream.
    pub(crate) fn begin(mut self, descriptors: &[BorrowedFd<'_>]) -> io::Result<UnixStream> {
        match self.become_run(descriptors) {
            // One that ended so soon has said why on its control stream, if it could.
            Ok(()) | Err(nix::Error::EPIPE | nix::Error::ECONNRESET) => Ok(self.control),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Spends it on a run. After an error it has not got it.
    fn become_run(&mut self, descriptors: &[BorrowedFd<'_>]) -> nix::Result<()> {
        send(self.inlet.as_fd(), b"r", descriptors)?;
        // An error means that it has just ended, which its stream's end tells soon enough.
        let _ = self.control.write_all(&[BEGIN]);
        Ok(())
    }
}

impl Helper {
    fn start(program: &HelperProgram) -> io::Result<Self> {
        let (socket, theirs) = seqpacket_pair()?;
        let process = Command::new(&program.program)
            .args(&program.arguments)
            .env_clear()
            // Where credentials are looked for, to hide them.
            .envs(std::env::var_os("HOME").map(|home| ("HOME", home)))
            .envs(std::env::var_os(provara_faults::VARIABLE).map(|faults| (provara_faults::VARIABLE, faults)))
            .current_dir("/")
            // A Ctrl-C on the server's terminal is the server's to deal with; here it would end every run without a grace.
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket, process })
    }

    fn make(&self, frame: Frame) -> nix::Result<Spare> {
        let (inlet, their_inlet) = seqpacket_pair()?;
        let (control, their_control) = UnixStream::pair().map_err(errno)?;
        let wanted = serde_json::to_vec(&frame).map_err(|_| nix::Error::EINVAL)?;
        let mut descriptors = vec![their_inlet.as_fd(), their_control.as_fd()];
        let out = if frame.calls == Calls::Proxy { Some(UnixStream::pair().map_err(errno)?) } else { None };
        descriptors.extend(out.as_ref().map(|(_, theirs)| theirs.as_fd()));
        send(self.socket.as_fd(), &wanted, &descriptors)?;
        Ok(Spare { frame, inlet, control, way_out: out.map(|(ours, _)| ours) })
    }

    /// Whether its end of the socket is open: it closes at its death, before anything that its spares would notice.
    fn lives(&self) -> bool {
        poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::empty())], PollTimeout::ZERO) == Ok(0)
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn seqpacket_pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

fn errno(error: io::Error) -> nix::Error {
    error.raw_os_error().map_or(nix::Error::EIO, nix::Error::from_raw)
}
