//! What the server and the helper say to each other: one sealed specification a run, and short lines back.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use provara_domain::{Mechanism, SpawnFailure};
use serde::{Deserialize, Serialize};

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

/// How many descriptors accompany a specification: the specification, input, output, errors, control.
pub(crate) const DESCRIPTORS: usize = 5;
/// The longest line on a control stream, in bytes.
pub(crate) const MAX_LINE: usize = 64 * 1024;

/// Everything that a run needs, fixed before it is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) workspace: String,
    /// Below the workspace, relative to it.
    pub(crate) cwd: String,
    /// Whether everything but the workspace is read-only and there is no network.
    pub(crate) confined: bool,
    /// What a command must not see: Provara's own files.
    pub(crate) hidden: Vec<PathBuf>,
    pub(crate) user: User,
}

/// Who the command runs as.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whether the server is root and gives its rights up; else it makes a user namespace.
    pub(crate) from_root: bool,
}

/// What a run's supervisor reports, one JSON line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The shell was started under this confinement.
    Started(Vec<Mechanism>),
    /// The shell was not started.
    Failed { failure: SpawnFailure, message: String, mechanisms: Vec<Mechanism> },
    /// The shell ended by itself.
    Exited { code: i32 },
    /// A signal ended the shell.
    Signalled { signal: i32 },
}

/// What the server asks of a supervisor, one byte each.
pub(crate) const TERMINATE: u8 = b't';
pub(crate) const KILL: u8 = b'k';

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

/// Reads a sealed specification.
pub(crate) fn read_spec(fd: OwnedFd) -> std::io::Result<Spec> {
    let mut bytes = Vec::new();
    File::from(fd).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
