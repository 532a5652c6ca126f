//! What the server says to the helper, to supervisors and to what becomes the shell, and the short lines that come back.
//!
//! The server asks the helper for a *spare* under a [`Frame`]: all that can be made before the run is known. It sends two
//! descriptors along: the spare's *inlet*, on which the run comes later, and its *control* stream; where the frame has a proxy,
//! also a socket by which the supervisor hands out the listener that is the run's *way out*. The run itself, a sealed
//! [`Spec`] and its streams, goes straight through the inlet to what becomes the shell; the helper never sees one.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use provara_domain::{Access, Files, Limit, Mechanism, ResourceLimits, SpawnFailure, Usage};
use serde::{Deserialize, Serialize};

use crate::sys;

/// The program that becomes the helper.
#[derive(Debug)]
pub struct HelperProgram {
    /// The program's path; `/proc/self/fd/N` of a descriptor opened at start survives a replaced binary.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The descriptor that `program` names, kept open.
    pub opened: Option<File>,
}

/// How many descriptors accompany a run: its specification, input, output and errors.
pub(crate) const OF_A_RUN: usize = 4;
/// And a preview's: also a socket on which what it changed comes out.
pub(crate) const OF_A_PREVIEW: usize = 5;
/// The longest line on a control stream, in bytes.
pub(crate) const MAX_LINE: usize = 64 * 1024;

/// What is fixed before a run is known. Runs of profiles that differ in their files alone have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frame {
    pub(crate) view: View,
    pub(crate) calls: Calls,
    pub(crate) user: User,
    pub(crate) limits: ResourceLimits,
}

/// Whose files a run sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum View {
    /// What its specification says, with private folders of its own.
    Own,
    /// The host's, but for Provara's own.
    Host,
}

/// Whom a run can call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Calls {
    /// Nobody.
    Nobody,
    /// Its own processes.
    Itself,
    /// Whom the proxy lets it.
    Proxy,
    /// Whom the host can.
    Host,
}

/// Everything else that a run needs, fixed before it is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) workspace: String,
    /// Below the workspace, relative to it.
    pub(crate) cwd: String,
    pub(crate) files: FilesSpec,
    /// What a command must not see: Provara's own files.
    pub(crate) hidden: Vec<PathBuf>,
    /// The working directory that was approved, where one was.
    pub(crate) cwd_dev_ino: Option<String>,
    /// The bound scripts that the run sees a sealed copy of.
    pub(crate) scripts: Vec<SealedScript>,
    /// Their bytes, one after the other. They follow the rest, as they are.
    #[serde(skip)]
    pub(crate) bytes: Vec<u8>,
}

/// A script whose approved bytes a run sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SealedScript {
    /// Its real path.
    pub(crate) path: String,
    /// How many bytes it has.
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Which files a run reaches, as [`provara_domain::Files`] says it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FilesSpec {
    pub(crate) everywhere: Access,
    pub(crate) workspace: Access,
    /// An outer one before those in it.
    pub(crate) paths: Vec<(PathBuf, Access)>,
    /// Hidden below every home folder.
    pub(crate) homes: Vec<String>,
}

impl From<&Files> for FilesSpec {
    fn from(files: &Files) -> Self {
        Self {
            everywhere: files.everywhere(),
            workspace: files.workspace(),
            paths: files.paths().map(|(path, access)| (PathBuf::from(path.as_str()), access)).collect(),
            homes: files.homes().map(|home| home.below_home().to_owned()).collect(),
        }
    }
}

/// Who the command runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whether the server is root and gives its rights up; else it makes a user namespace.
    pub(crate) from_root: bool,
}

/// What is reported of a run, one JSON line each: its beginning by what becomes the shell, its end by its first process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The shell was started under this confinement.
    Started(Vec<Mechanism>),
    /// The shell was not started.
    Failed { failure: SpawnFailure, message: String, mechanisms: Vec<Mechanism> },
    /// The shell ended by itself.
    Exited { code: i32, left: Left, used: Used },
    /// A signal ended the shell.
    Signalled { signal: i32, left: Left, used: Used },
    /// How many processes the run has just now, as the supervisor was asked.
    Processes(u64),
    /// The supervisor's last word, when no process of the run is left.
    Ended(Used),
}

/// What a run used, and which of its limits it met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) usage: Usage,
    pub(crate) exceeded: Option<Limit>,
}

/// Who of a run is left when its shell has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Left {
    /// Nobody: the run has ended.
    Nobody,
    /// Others: the run has ended when its control stream has.
    Others,
}

/// What the server tells a supervisor, one byte each. The first says that the spare is a run now: it no longer ends with
/// the helper.
pub(crate) const BEGIN: u8 = b'b';
pub(crate) const TERMINATE: u8 = b't';
pub(crate) const KILL: u8 = b'k';
/// Asks how many processes the run has. Where nobody counts them there is no answer.
pub(crate) const COUNT: u8 = b'c';

/// Sends bytes, at least one, with descriptors.
pub(crate) fn send(to: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let raw: Vec<i32> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

/// Receives what [`send`] sent, and exactly `N` descriptors. Returns nothing once the sender is gone.
///
/// # Errors
/// When the message is none of ours: its descriptors are closed then.
pub(crate) fn receive<const N: usize>(from: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, [OwnedFd; N])>> {
    let Some((bytes, received)) = receive_any(from)? else { return Ok(None) };
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidData);
    Ok(Some((bytes, <[OwnedFd; N]>::try_from(received).map_err(wrong)?)))
}

/// As [`receive`], with however many descriptors came.
pub(crate) fn receive_any(from: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = [0; MAX_MESSAGE];
    let mut space = cmsg_space!([i32; OF_A_PREVIEW]);
    let mut iov = [IoSliceMut::new(&mut bytes)];
    let message = match recvmsg::<()>(from.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
        Err(nix::Error::EINTR) => return Err(io::ErrorKind::Interrupted.into()),
        // The socket is broken: there is nobody any more.
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
    let length = message.bytes;
    Ok(Some((bytes.get(..length).unwrap_or_default().to_vec(), received)))
}

/// The longest message with descriptors, in bytes. A frame has a fixed size; a run's specification is a descriptor.
const MAX_MESSAGE: usize = 1024;

/// Returns a memory file with `bytes` that nobody can change any more.
pub(crate) fn sealed(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"provara", flags)?);
    file.write_all(bytes)?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    // The file's offset is shared with the reader; it begins at the start.
    std::io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

/// Returns a sealed specification: one line, and the bytes of its scripts.
pub(crate) fn sealed_spec(spec: &Spec) -> io::Result<OwnedFd> {
    let mut bytes = serde_json::to_vec(spec)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&spec.bytes);
    sealed(&bytes)
}

/// Reads what [`sealed_spec`] wrote.
pub(crate) fn read_spec(fd: OwnedFd) -> io::Result<Spec> {
    let mut bytes = Vec::new();
    File::from(fd).read_to_end(&mut bytes)?;
    // JSON of ours has no line break of its own.
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(io::ErrorKind::InvalidData)?;
    let scripts = bytes.split_off(end);
    let mut spec: Spec = serde_json::from_slice(&bytes)?;
    spec.bytes = scripts.get(1..).unwrap_or_default().to_vec();
    Ok(spec)
}
