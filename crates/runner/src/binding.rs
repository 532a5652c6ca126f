//! What this machine measures about a plan: where it runs, the shell that reads it, and the scripts that it names.
//!
//! Measured when it is planned, when it is approved, and right before its shell starts. What differs then does not run.
//! Everything that is opened here was named by an agent: nothing is read that is no regular file, nothing waits, nothing
//! is read without a bound, and nothing is told of a file that a command could not read by itself.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use provara_domain::{
    Binding, BoundScript, Digest, Measured, MeasuredScript, Measurement, Name, NamedScript, Plan, ScriptContent,
    ScriptFound, ScriptPlace, ScriptText, ScriptUse,
};
use sha2::{Digest as _, Sha256};

use crate::child::FOLDER;
use crate::confine::known_credentials;
use crate::protocol::SealedScript;
use crate::runner::find_shell;

/// How many scripts of one command are bound.
const MAX_SCRIPTS: usize = 16;
/// How long the text of a script may be that an approver is shown, in bytes.
const MAX_SHOWN: u64 = 1024 * 1024;
/// How many bytes of scripts are hashed for one command.
const MAX_HASHED: u64 = 64 * 1024 * 1024;
/// How many bytes of scripts are copied for one run. What is larger is compared right before the run instead.
const MAX_SEALED: u64 = 16 * 1024 * 1024;

/// Folders of which a command sees another than this machine has.
const NOT_THE_COMMANDS: [&str; 7] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/var/run", "/var/tmp"];

/// Where a plan would run, and what it names there.
#[derive(Debug, Clone)]
pub struct Site {
    /// The workspace that holds its working directory: a canonical path.
    pub workspace: String,
    /// The scripts that its command names.
    pub scripts: Vec<NamedScript>,
}

/// Why nothing could be measured. Such a plan would not run either.
#[derive(Debug, thiserror::Error)]
pub enum Unmeasured {
    /// Its shell is not here.
    #[error("`{0}` is not installed on this host")]
    NoShell(&'static str),
    /// Its working directory cannot be opened, or leads through a link.
    #[error("cannot use the working directory")]
    WorkingDir(#[source] io::Error),
    /// The shell cannot be read.
    #[error("cannot read the shell")]
    Shell(#[source] io::Error),
    /// The measuring did not end.
    #[error("the measuring did not end")]
    GivenUp,
}

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) site: &'a Site,
    /// Provara's own files: nothing is told of them.
    pub(crate) own: &'a [PathBuf],
    pub(crate) keep: Keep,
}

/// What of the scripts is kept beside their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Text that can be shown.
    Texts,
    /// The bytes, for a run to see nothing else.
    Bytes,
}

/// What was found, and what a run needs of it.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) cwd_dev_ino: String,
    pub(crate) shell_sha256: Digest,
    /// Every script, bound or not.
    scripts: Vec<MeasuredScript>,
    pub(crate) bound: Vec<BoundScript>,
    texts: Vec<ScriptText>,
    pub(crate) sealed: Vec<SealedScript>,
    /// The bytes of `sealed`, one after the other.
    pub(crate) bytes: Vec<u8>,
    /// The files of `sealed`, as they were.
    pub(crate) files: Vec<Identity>,
}

/// Digests of the system's own programs, by everything that changes with them.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<Identity, Digest>>);

/// A file as it was at one moment.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) path: PathBuf,
    dev: u64,
    ino: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Taken {
    /// Returns what a decision binds, beside the profile that it would run with, and what is shown of it.
    pub(crate) fn measurement(self, profile_sha256: Digest) -> Measurement {
        let binding = Binding {
            runner: Name::local_target(),
            cwd_dev_ino: Some(self.cwd_dev_ino),
            shell_sha256: Some(self.shell_sha256),
            scripts: self.bound,
            profile_sha256,
        };
        Measurement { measured: Measured { binding, scripts: self.scripts }, texts: self.texts }
    }
}

impl Known {
    const CAPACITY: usize = 64;

    pub(crate) fn measure(&self, asked: &Question<'_>) -> Result<Taken, Unmeasured> {
        let plan = asked.plan;
        let cwd = open_cwd(asked).map_err(Unmeasured::WorkingDir)?;
        let found = File::from(cwd.try_clone().map_err(Unmeasured::WorkingDir)?);
        let found = found.metadata().map_err(Unmeasured::WorkingDir)?;
        let shell = find_shell(plan.shell).ok_or(Unmeasured::NoShell(plan.shell.as_str()))?;
        let mut taking = Taking {
            known: self,
            asked,
            credentials: OnceCell::new(),
            cwd: &cwd,
            left: MAX_HASHED,
            scripts: Vec::new(),
            bound: Vec::new(),
            texts: Vec::new(),
            sealed: Vec::new(),
            bytes: Vec::new(),
            files: Vec::new(),
        };
        for named in &asked.site.scripts {
            taking.script(named);
        }
        Ok(Taken {
            cwd_dev_ino: dev_ino(found.dev(), found.ino()),
            shell_sha256: self.program(Path::new(&shell)).map_err(Unmeasured::Shell)?,
            scripts: taking.scripts,
            bound: taking.bound,
            texts: taking.texts,
            sealed: taking.sealed,
            bytes: taking.bytes,
            files: taking.files,
        })
    }

    /// The digest of a whole program, remembered where only root can change it.
    fn program(&self, path: &Path) -> io::Result<Digest> {
        let path = path.canonicalize()?;
        let file = File::open(&path)?;
        let found = file.metadata()?;
        let identity = Identity::of(path, &found);
        if let Some(digest) = self.recall(&identity) {
            return Ok(digest);
        }
        let digest = hash(file, u64::MAX, |_| {})?.0;
        self.remember(identity, &found, &digest);
        Ok(digest)
    }

    fn recall(&self, identity: &Identity) -> Option<Digest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(identity).cloned()
    }

    /// A file's times may stay what they were when it is written twice within one tick of the kernel's clock. So only what
    /// its owner alone can write, and that is root, is remembered.
    fn remember(&self, identity: Identity, found: &fs::Metadata, digest: &Digest) {
        if found.uid() != 0 || found.mode() & 0o022 != 0 {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::CAPACITY {
            known.clear();
        }
        known.insert(identity, digest.clone());
    }
}

impl Identity {
    /// Whether it is the same file still, and nobody wrote, renamed or linked it since.
    pub(crate) fn is_untouched(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| Self::of(self.path.clone(), &found) == *self)
    }

    fn of(path: PathBuf, found: &fs::Metadata) -> Self {
        Self {
            path,
            dev: found.dev(),
            ino: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// Returns how a folder's identity is spelled in a binding.
pub(crate) fn dev_ino(dev: u64, ino: u64) -> String {
    format!("{dev}:{ino}")
}

/// Opens the working directory as a run does: the workspace by no link, and below it by none.
fn open_cwd(asked: &Question<'_>) -> io::Result<OwnedFd> {
    let workspace = asked.site.workspace.as_str();
    let below = Path::new(asked.plan.cwd.as_str()).strip_prefix(workspace).map_err(io::Error::other)?;
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let workspace =
        openat2(AT_FDCWD, workspace, OpenHow::new().flags(FOLDER).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS))?;
    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    Ok(openat2(&workspace, below, OpenHow::new().flags(FOLDER).resolve(beneath))?)
}

/// Scripts, one after the other, and what is left of the bounds.
struct Taking<'a> {
    known: &'a Known,
    asked: &'a Question<'a>,
    /// What is hidden from commands; looked for where a script is found.
    credentials: OnceCell<Vec<PathBuf>>,
    cwd: &'a OwnedFd,
    left: u64,
    scripts: Vec<MeasuredScript>,
    bound: Vec<BoundScript>,
    texts: Vec<ScriptText>,
    sealed: Vec<SealedScript>,
    bytes: Vec<u8>,
    files: Vec<Identity>,
}

/// Whether a run sees a copy of a script, or the script itself, compared right before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Sealed,
    /// Its name leads through a link, which nothing holds in its place; or it is a makefile, which commands write themselves.
    Compared,
}

impl Taking<'_> {
    fn script(&mut self, named: &NamedScript) {
        let found = match named.place {
            ScriptPlace::AtRunTime => Err("its name is known only at run time".to_owned()),
            ScriptPlace::Beyond => Err("the command names more scripts than are looked at".to_owned()),
            ScriptPlace::Known | ScriptPlace::Perhaps => self.found(named),
        };
        let found = match found {
            Err(_) if named.place == ScriptPlace::Perhaps => return,
            Err(why) => ScriptFound::Unbound { why },
            Ok(bound) => bound,
        };
        self.scripts.push(MeasuredScript { named: named.path.clone(), span: named.span, how: named.how, found });
    }

    fn found(&mut self, named: &NamedScript) -> Result<ScriptFound, String> {
        let (node, way) = self.open(&named.path).map_err(|error| unreadable(&error))?;
        let way = if named.how == ScriptUse::Makefile { Way::Compared } else { way };
        let real = fs::read_link(descriptor(&node)).map_err(|error| unreadable(&error))?;
        let found = File::from(node.try_clone().map_err(|error| unreadable(&error))?);
        let found = found.metadata().map_err(|error| unreadable(&error))?;
        if found.is_dir() {
            return Err("it is a folder".into());
        }
        if !found.is_file() {
            return Err("it is no regular file".into());
        }
        self.may_be_told(&real, &found)?;
        let Some(path) = real.to_str().map(str::to_owned) else {
            return Err("its real name is not text".into());
        };
        if let Some(again) = self.again(&path) {
            return Ok(again);
        }
        if self.bound.len() >= MAX_SCRIPTS {
            return Err(format!("the command names more than {MAX_SCRIPTS} scripts"));
        }
        if found.size() > self.left {
            return Err(format!("it is too large: {} bytes", found.size()));
        }
        let (sha256, size, kept) = self.read(&node, &real, &found, way).map_err(|error| unreadable(&error))?;
        let content = self.keep(&sha256, size, kept, &path, &found, way);
        self.bound.push(BoundScript { path: path.clone(), sha256: sha256.clone(), size });
        Ok(ScriptFound::Bound { path, sha256, size, content })
    }

    /// A script that is named twice is one script: it is not read twice, and so not found to be two.
    fn again(&self, path: &str) -> Option<ScriptFound> {
        self.scripts
            .iter()
            .map(|script| &script.found)
            .find(|found| matches!(found, ScriptFound::Bound { path: known, .. } if known == path))
            .cloned()
    }

    /// Finds it without opening it: opening a device or a FIFO may do something, or wait.
    fn open(&self, path: &str) -> io::Result<(OwnedFd, Way)> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let straight = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(self.cwd.as_fd(), path, straight) {
            Err(nix::Error::ELOOP) => {
                let followed = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
                Ok((openat2(self.cwd.as_fd(), path, followed)?, Way::Compared))
            }
            other => Ok((other?, Way::Sealed)),
        }
    }

    /// The server may read more than the command, and whoever planned it sees the digests in the log.
    fn may_be_told(&self, real: &Path, found: &fs::Metadata) -> Result<(), String> {
        if self.asked.own.iter().any(|own| real.starts_with(own)) {
            return Err("it is Provara's own, and no command reaches it".into());
        }
        // They may lie in a workspace that is somebody's home.
        let credentials = self.credentials.get_or_init(known_credentials);
        let workspace = Path::new(&self.asked.site.workspace);
        // Of a credential folder that holds the workspace, commands see the workspace.
        let seen = |hidden: &Path| workspace.starts_with(hidden) && real.starts_with(workspace);
        if credentials.iter().any(|hidden| real.starts_with(hidden) && !seen(hidden)) {
            return Err("it lies among credentials, and no command reaches it".into());
        }
        if real.starts_with(&self.asked.site.workspace) {
            return Ok(());
        }
        if NOT_THE_COMMANDS.iter().any(|folder| real.starts_with(folder)) {
            return Err("commands have a folder of their own there".into());
        }
        let open = |path: &Path| path.metadata().is_ok_and(|found| found.mode() & 0o001 != 0);
        if found.mode() & 0o004 == 0 || !real.ancestors().skip(1).all(open) {
            return Err("it lies outside the workspace, and not everybody may read it".into());
        }
        Ok(())
    }

    /// Reads it whole: its digest, its length, and the bytes where they are few enough to be of use.
    fn read(
        &mut self,
        node: &OwnedFd,
        real: &Path,
        found: &fs::Metadata,
        way: Way,
    ) -> io::Result<(Digest, u64, Option<Vec<u8>>)> {
        let most = match self.asked.keep {
            Keep::Texts => MAX_SHOWN,
            Keep::Bytes if way == Way::Compared => 0,
            Keep::Bytes => MAX_SEALED.saturating_sub(count(self.bytes.len())),
        };
        // Of a program of the system nobody needs to see or keep more than its digest.
        let identity = Identity::of(real.to_owned(), found);
        if let Some(digest) = self.known.recall(&identity) {
            return Ok((digest, found.size(), None));
        }
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(descriptor(node))?;
        let mut kept = Some(Vec::new());
        let (digest, size) = hash(file, self.left, |bytes| {
            kept = kept.take().filter(|kept| count(kept.len() + bytes.len()) <= most);
            kept.iter_mut().for_each(|kept| kept.extend_from_slice(bytes));
        })?;
        self.left = self.left.saturating_sub(size);
        if size > MAX_SHOWN && !real.starts_with(&self.asked.site.workspace) {
            self.known.remember(identity, found, &digest);
        }
        Ok((digest, size, kept))
    }

    fn keep(
        &mut self,
        sha256: &Digest,
        size: u64,
        kept: Option<Vec<u8>>,
        path: &str,
        found: &fs::Metadata,
        way: Way,
    ) -> ScriptContent {
        let Some(kept) = kept else {
            return if self.asked.keep == Keep::Texts { ScriptContent::TooLong } else { ScriptContent::Binary };
        };
        match self.asked.keep {
            Keep::Bytes if way == Way::Sealed => {
                self.bytes.extend_from_slice(&kept);
                self.files.push(Identity::of(PathBuf::from(path), found));
                let (mode, uid, gid) = (found.mode(), found.uid(), found.gid());
                self.sealed.push(SealedScript { path: path.to_owned(), size, mode, uid, gid });
                ScriptContent::Binary
            }
            Keep::Bytes => ScriptContent::Binary,
            Keep::Texts if kept.contains(&0) => ScriptContent::Binary,
            Keep::Texts => match String::from_utf8(kept) {
                Err(_) => ScriptContent::Binary,
                Ok(text) => {
                    if !self.texts.iter().any(|known| known.sha256 == *sha256) {
                        self.texts.push(ScriptText { sha256: sha256.clone(), text });
                    }
                    ScriptContent::Text
                }
            },
        }
    }
}

/// Returns how what was found differs from what was approved, in words; nothing where it does not. What was not measured
/// then is not compared, and the profile is not this machine's to compare.
pub(crate) fn difference(approved: &Binding, now: &Taken) -> Option<String> {
    if approved.cwd_dev_ino.as_ref().is_some_and(|approved| *approved != now.cwd_dev_ino) {
        return Some("the working directory is another folder now".into());
    }
    if approved.shell_sha256.as_ref().is_some_and(|approved| *approved != now.shell_sha256) {
        return Some("the shell is another program now".into());
    }
    let of = |scripts: &[BoundScript], path: &str| scripts.iter().find(|script| script.path == path).cloned();
    for script in &approved.scripts {
        match of(&now.bound, &script.path) {
            None => return Some(format!("`{}` is not what the command names any more", script.path)),
            Some(found) if found != *script => return Some(format!("`{}` has other content", script.path)),
            Some(_) => {}
        }
    }
    let new = now.bound.iter().find(|script| of(&approved.scripts, &script.path).is_none());
    new.map(|new| format!("`{}` was not bound", new.path))
}

/// The name by which a descriptor of ours can be opened anew.
fn descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Returns the digest of all that `file` holds, and its length. Fails where that is more than `most`.
fn hash(mut file: File, most: u64, mut see: impl FnMut(&[u8])) -> io::Result<(Digest, u64)> {
    let (mut state, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; 64 * 1024]);
    loop {
        let read = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Ok((Digest::from_sha256(state.finalize().into()), size));
        }
        size = size.saturating_add(count(read));
        if size > most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        state.update(bytes);
        see(bytes);
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "it is not there now".into(),
        io::ErrorKind::FileTooLarge => "it is too large".into(),
        io::ErrorKind::PermissionDenied => "the server may not read it".into(),
        _ => "it cannot be read".into(),
    }
}
