//! Which of the host's files a run sees: the places that its specification names, as they are on this host at this moment.
//!
//! What is granted is looked up and its mounts are copied while the host's files are as they are. Then everything is made
//! read-only, or left behind. Then the copies are put where their names say, an outer place before those in it, each with no
//! more than was granted, and what is hidden is covered. Places are opened without following links and mounts are made on what
//! was opened, so nobody who writes in a folder meanwhile can lead a mount elsewhere.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::AccessFlags;
use provara_domain::{Access, Mechanism, SpawnFailure};

use crate::child::{FOLDER, NotStarted, unusable};
use crate::confine::{Failed, Ground, Step as _, held};
use crate::overlay::overlay;
use crate::protocol::{FilesSpec, Spec, User, send};
use crate::sys;

/// How many links may lead to one place: as many as the kernel follows.
const LINKS: usize = 40;
const ANYTHING: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// The places of one run, each by the name that leads to it without any link.
pub(crate) struct Places {
    // In the order of paths an outer place comes before those in it.
    all: BTreeMap<PathBuf, Place>,
    /// The links that led to them, and where they lead.
    links: Vec<(PathBuf, PathBuf)>,
    workspace: PathBuf,
}

enum Place {
    Hidden,
    Granted { access: Access, mounts: OwnedFd, kind: Kind },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File,
}

impl Places {
    /// Looks up what the specification names. Nothing is covered yet but what `ground` tells.
    ///
    /// # Errors
    /// When the workspace or a writable place is not there, or a command may have made a link on the way to one.
    pub(crate) fn look_up(ground: &Ground, spec: &Spec, user: User) -> Result<Self, NotStarted> {
        let workspace = PathBuf::from(&spec.workspace);
        let folder = open_beneath(ground, &workspace, FOLDER).map_err(|cause| unusable("workspace", cause))?;
        // Copied before all becomes read-only, so that what the operator mounted read-only below it stays so.
        let mounts = sys::copy_mounts(&folder).step("copy the workspace's mounts")?;
        let mut places = Self { all: BTreeMap::new(), links: Vec::new(), workspace: workspace.clone() };
        if !spec.files.paths.is_empty() {
            places.find_paths(ground, &spec.files, user)?;
        }
        // Whatever is said of the same path, a workspace is one.
        places.all.insert(workspace, Place::Granted { access: spec.files.workspace, mounts, kind: Kind::Folder });
        Ok(places)
    }

    /// Puts a copy of the workspace in its place, and hands out what will be changed in it. Nothing else stays writable.
    pub(crate) fn copy_workspace(&mut self, ground: &Ground, changes: &OwnedFd) -> Result<Mechanism, NotStarted> {
        for place in self.all.values_mut() {
            if let Place::Granted { access: access @ Access::Write, .. } = place {
                *access = Access::Read;
            }
        }
        // As it lies in the tree: older kernels take no layer that lies nowhere.
        let lower = open_beneath(ground, &self.workspace, FOLDER).map_err(|cause| unusable("workspace", cause))?;
        let (mounts, upper) = overlay(&self.workspace, &lower)?;
        send(changes.as_fd(), b"c", &[upper.as_fd()]).map_err(io::Error::from).step("hand out what is changed")?;
        let copy = Place::Granted { access: Access::Write, mounts, kind: Kind::Folder };
        self.all.insert(self.workspace.clone(), copy);
        Ok(held("workspace_copied", "what it changes is kept apart from the workspace and thrown away"))
    }

    fn find_paths(&mut self, ground: &Ground, files: &FilesSpec, user: User) -> Result<(), NotStarted> {
        for (path, access) in &files.paths {
            let covered = ground.beneath.iter().any(|(folder, _)| path.starts_with(folder));
            let real = if covered { path.clone() } else { self.settle(path, user)? };
            let place = match access {
                Access::Hidden => Place::Hidden,
                Access::Read | Access::Write => match self.copied(ground, &real, *access)? {
                    Some(granted) => granted,
                    None => continue,
                },
            };
            match self.all.get(&real) {
                // Two names of one place: the stricter holds.
                Some(known) if known.access() <= place.access() => {}
                _ => drop(self.all.insert(real, place)),
            }
        }
        Ok(())
    }

    fn copied(&self, ground: &Ground, path: &Path, access: Access) -> Result<Option<Place>, NotStarted> {
        let shown = path.display();
        let found = match open_beneath(ground, path, ANYTHING) {
            Ok(found) => found,
            // What is not there cannot be read; but a command that is to write somewhere is not run to find that out.
            Err(Errno::ENOENT | Errno::ENOTDIR) if access == Access::Read => return Ok(None),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                let message =
                    format!("the profile's place `{shown}` is not there; make it, or take it out of the profile");
                return Err(NotStarted { failure: SpawnFailure::Missing, message });
            }
            Err(cause) => return Err(unusable(&format!("profile's place `{shown}`"), cause)),
        };
        let kind = kind_of(&found).step(&format!("look at {shown}"))?;
        let mounts = sys::copy_mounts(&found).step(&format!("copy the mounts of {shown}"))?;
        Ok(Some(Place::Granted { access, mounts, kind }))
    }

    /// Returns the name that leads to `path` without links, as far as it exists. A link that a command may have made is no
    /// word of the operator's: one of an earlier run, under whatever profile, would open whatever it likes.
    fn settle(&mut self, path: &Path, user: User) -> Result<PathBuf, NotStarted> {
        let refused = |why: String| NotStarted {
            failure: SpawnFailure::Confinement,
            message: format!(
                "`{}`, which the profile names, leads {why}; name in the profile what it leads to",
                path.display()
            ),
        };
        let mut real = PathBuf::from("/");
        let mut rest = names(path);
        let mut followed = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                real.pop();
                continue;
            }
            real.push(&name);
            let Ok(to) = fs::read_link(&real) else { continue };
            followed += 1;
            if followed > LINKS {
                return Err(refused("in a circle".to_owned()));
            }
            if !real.parent().is_some_and(|folder| is_operators(folder, user)) {
                return Err(refused(format!("through the link `{}`, which a command may have made", real.display())));
            }
            let mut next = names(&to);
            next.append(&mut rest);
            rest = next;
            self.links.push((real.clone(), to.clone()));
            real.pop();
            if to.is_absolute() {
                real = PathBuf::from("/");
            }
        }
        if real.parent().is_none() { Err(refused("to `/`".to_owned())) } else { Ok(real) }
    }

    /// Leaves all of the host's files behind, and begins with an empty root that holds what is the run's own. Returns it, to be
    /// closed when all is in its place.
    pub(crate) fn leave_all(&self, ground: &Ground) -> Result<OwnedFd, Failed> {
        const STEP: &str = "leave the host's files behind";
        let own = ["/dev", "/proc"].into_iter().chain(ground.private.iter().copied());
        let own = own.filter(|folder| *folder != "/dev/shm"); // which comes with /dev
        let copy =
            |folder: &'static str| -> io::Result<_> { Ok((folder, sys::copy_mounts(&open(Path::new(folder))?)?)) };
        let own: Vec<_> = own.map(copy).collect::<io::Result<_>>().step(STEP)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), "/dev", Some("tmpfs"), flags, Some("mode=0755,size=1m")).step(STEP)?;
        let root = open(Path::new("/dev")).step(STEP)?;
        for (folder, mounts) in &own {
            let onto = made_below(&root, Path::new(folder), Kind::Folder).step(STEP)?;
            sys::attach_mounts(mounts, &onto).step(STEP)?;
        }
        nix::unistd::fchdir(&root).step(STEP)?;
        // The old root lies upon the new one then, and is taken away.
        nix::unistd::pivot_root(".", ".").step(STEP)?;
        nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH).step(STEP)?;
        nix::unistd::chdir("/").step(STEP)?;
        for (link, to) in &self.links {
            let beside = |path: &PathBuf| !link.starts_with(path);
            if link.symlink_metadata().is_err()
                && self.all.keys().all(beside)
                && let Some(parent) = link.parent()
            {
                fs::create_dir_all(parent).and_then(|()| std::os::unix::fs::symlink(to, link)).step(STEP)?;
            }
        }
        Ok(root)
    }

    /// Puts every place where its name says. `empty` are folders of the run's own that hold nothing yet and are closed at the
    /// end.
    pub(crate) fn lay(&self, mut empty: Vec<OwnedFd>) -> Result<(), Failed> {
        for (path, place) in &self.all {
            let step = format!("lay {}", path.display());
            self.hold(path)?;
            match place {
                Place::Granted { access, mounts, kind } => {
                    let readable = if *access == Access::Write { 0 } else { libc::MOUNT_ATTR_RDONLY };
                    sys::set_mounts(mounts, readable | libc::MOUNT_ATTR_NODEV).step(&step)?;
                    let onto = made(path, *kind).step(&step)?;
                    sys::attach_mounts(mounts, &onto).step(&step)?;
                }
                Place::Hidden if self.leads_to_a_grant(path) => empty.extend(cover(path).step(&step)?),
                Place::Hidden => hide(path).or_else(absent).step(&step)?,
            }
        }
        for folder in &empty {
            // These folders alone: what was put into them has what it was given.
            sys::close_mount(folder).step("close the folders that lead to a place")?;
        }
        Ok(())
    }

    /// Hides `path`, whatever place holds it or lies in it, but for a workspace.
    pub(crate) fn hide_all(&self, path: &Path) -> Result<(), Failed> {
        let step = format!("hide {}", path.display());
        if path == self.workspace {
            return Ok(());
        }
        self.hold(path)?;
        if !self.workspace.starts_with(path) {
            return hide(path).step(&step);
        }
        let workspace = sys::copy_mounts(&open(&self.workspace).step(&step)?).step(&step)?;
        let Some(folder) = cover(path).step(&step)? else { return Ok(()) };
        let onto = made(&self.workspace, Kind::Folder).step(&step)?;
        sys::attach_mounts(&workspace, &onto).step(&step)?;
        sys::close_mount(&folder).step(&step)
    }

    /// Holds the folders between `path` and the writable place that holds it: what is mounted on cannot be renamed. Else a
    /// command could give a hidden file another name, by which the next run finds it.
    fn hold(&self, path: &Path) -> Result<(), Failed> {
        let above = self.all.iter().rfind(|(outer, _)| *outer != path && path.starts_with(outer));
        let Some((outer, Place::Granted { access: Access::Write, .. })) = above else { return Ok(()) };
        let mut between: Vec<&Path> =
            path.ancestors().skip(1).take_while(|folder| *folder != outer.as_path()).collect();
        between.reverse();
        for folder in between {
            let held = open(folder).and_then(|it| sys::attach_mounts(&sys::copy_mounts(&it)?, &it));
            held.or_else(absent).step(&format!("hold {} in its place", folder.display()))?;
        }
        Ok(())
    }

    fn leads_to_a_grant(&self, path: &Path) -> bool {
        let grants = self.all.iter().filter(|(_, place)| place.access() > Access::Hidden);
        grants.into_iter().any(|(inner, _)| inner.starts_with(path))
    }

    /// Every place with what may be done there.
    pub(crate) fn accesses(&self) -> impl Iterator<Item = (&Path, Access)> {
        self.all.iter().map(|(path, place)| (path.as_path(), place.access()))
    }
}

impl Place {
    const fn access(&self) -> Access {
        match self {
            Self::Hidden => Access::Hidden,
            Self::Granted { access, .. } => *access,
        }
    }
}

/// Whether no command can make anything in a folder: under a root server because it is root's alone; under another, whose
/// commands have its user, because that user cannot either.
fn is_operators(folder: &Path, user: User) -> bool {
    let Ok(found) = folder.metadata() else { return false };
    let forbidden = || nix::unistd::access(folder, AccessFlags::W_OK).is_err();
    if user.from_root { found.uid() == 0 && found.mode() & 0o022 == 0 } else { found.uid() != user.uid && forbidden() }
}

/// What is not there need not be kept from anybody.
fn absent(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(()),
        _ => Err(error),
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// Opens a place of the host's by a name without links, beneath whatever covers it.
pub(crate) fn open_beneath(ground: &Ground, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let below = ground.beneath.iter().filter_map(|(folder, fd)| Some((fd, path.strip_prefix(folder).ok()?)));
    // The nearest of them: `/dev/shm` before `/dev`.
    let nearest = below.min_by_key(|(_, rest)| rest.components().count());
    let (at, rest) = nearest.map_or((AT_FDCWD, path), |(fd, rest)| (fd.as_fd(), rest));
    let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    openat2(at, rest, OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS))
}

/// Opens what the run sees by a name without links.
fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat2(AT_FDCWD, path, OpenHow::new().flags(ANYTHING).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS))?)
}

fn kind_of(found: &OwnedFd) -> io::Result<Kind> {
    let kind = SFlag::from_bits_truncate(fstat(found)?.st_mode) & SFlag::S_IFMT;
    Ok(if kind == SFlag::S_IFDIR { Kind::Folder } else { Kind::File })
}

/// Opens a place of the run's, and makes it where it is not there: below a folder of the run's own.
fn made(path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    open(path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => made_below(&open(Path::new("/"))?, path, kind),
        _ => Err(error),
    })
}

fn made_below(root: &OwnedFd, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let inside = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let step = |at: &OwnedFd, name: &OsStr| openat2(at, name, OpenHow::new().flags(ANYTHING).resolve(inside));
    let mut at = root.try_clone()?;
    let mut names = names(path);
    let last = names.pop_back();
    for (name, kind) in names.into_iter().map(|name| (name, Kind::Folder)).chain(last.map(|last| (last, kind))) {
        let name = name.as_os_str();
        at = match step(&at, name) {
            Err(Errno::ENOENT) => {
                match kind {
                    Kind::Folder => mkdirat(&at, name, Mode::from_bits_truncate(0o755))?,
                    Kind::File => {
                        let how = OpenHow::new().flags(OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC);
                        drop(openat2(&at, name, how.mode(Mode::from_bits_truncate(0o444)).resolve(inside))?);
                    }
                }
                step(&at, name)?
            }
            found => found?,
        };
    }
    Ok(at)
}

/// Covers a folder by an empty one that leads to what will be put into it. Returns that one.
fn cover(path: &Path) -> io::Result<Option<OwnedFd>> {
    let covered = match open(path) {
        Ok(covered) => covered,
        Err(error) => return absent(error).map(|()| None),
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &*named(&covered), Some("tmpfs"), flags, Some("mode=0755,size=1m"))?;
    let cover = open(path)?;
    // Somebody who writes in the folder above may have moved it just now.
    let moved = fstat(&cover)?.st_dev == fstat(&covered)?.st_dev;
    if moved { Err(io::Error::other("it was moved while it was covered")) } else { Ok(Some(cover)) }
}

/// Covers a folder by an empty one that nobody may enter, or a file by `/dev/null`.
pub(crate) fn hide(path: &Path) -> io::Result<()> {
    let found = open(path)?;
    match kind_of(&found)? {
        Kind::Folder => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
            let options = Some("mode=0000,size=4k,nr_inodes=1");
            mount(Some("tmpfs"), &*named(&found), Some("tmpfs"), flags, options)?;
        }
        Kind::File => mount(Some("/dev/null"), &*named(&found), None::<&str>, MsFlags::MS_BIND, None::<&str>)?,
    }
    Ok(())
}

/// A name of what was opened, whatever leads there by now.
fn named(opened: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", opened.as_raw_fd())
}
