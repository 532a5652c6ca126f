//! Which files a command may reach. The most specific path decides: below a writable folder, a path may be read-only or
//! hidden, and below a hidden one, readable.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// What may be done with a file, declared from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// It cannot be seen.
    Hidden,
    /// It can be read and executed.
    Read,
    /// It can be read, executed and changed.
    Write,
}

impl Access {
    /// Returns the word of the canonical form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Whose `/tmp`, `/var/tmp` and `/dev/shm` a command sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tmp {
    /// Empty ones of its own, gone with the run.
    Private,
    /// The host's.
    Shared,
}

impl Tmp {
    /// Returns the word of the canonical form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
        }
    }
}

/// An absolute path of a profile: no `.`, `..` or empty part, nothing that cannot be seen, and no backtick, which quotes
/// paths in a profile's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfilePath(String);

/// A path below every home folder, `~/.ssh`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HomePath(String);

/// Why a text is no path of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfilePathError {
    /// It has more than [`ProfilePath::MAX_CHARS`] characters.
    TooLong,
    /// It does not begin as it must.
    NotAbsolute,
    /// It has `.`, `..` or an empty part.
    NotPlain,
    /// It has a control, invisible or quoting character.
    Unreadable,
}

impl fmt::Display for ProfilePathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "has more than {} characters", ProfilePath::MAX_CHARS),
            Self::NotAbsolute => f.write_str("does not begin with `/`"),
            Self::NotPlain => f.write_str("has `.`, `..` or an empty part"),
            Self::Unreadable => f.write_str("has a backtick, or a character that cannot be seen"),
        }
    }
}

impl std::error::Error for ProfilePathError {}

impl ProfilePath {
    /// The longest path, in characters.
    pub const MAX_CHARS: usize = 500;

    /// Returns `raw` as a path. `/` is one.
    ///
    /// # Errors
    /// See [`ProfilePathError`].
    pub fn parse(raw: &str) -> Result<Self, ProfilePathError> {
        let rest = raw.strip_prefix('/').ok_or(ProfilePathError::NotAbsolute)?;
        if !rest.is_empty() {
            plain(rest)?;
        }
        Ok(Self(raw.to_owned()))
    }

    /// Returns the root of all files.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether `other` is this path or lies below it, as names.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.0 == "/")
    }

    /// How many names lead to it.
    fn depth(&self) -> usize {
        self.0.split('/').filter(|part| !part.is_empty()).count()
    }
}

impl HomePath {
    /// Returns `raw`, which begins with `~/`, as a path below every home folder.
    ///
    /// # Errors
    /// See [`ProfilePathError`].
    pub fn parse(raw: &str) -> Result<Self, ProfilePathError> {
        plain(raw.strip_prefix("~/").ok_or(ProfilePathError::NotAbsolute)?)?;
        Ok(Self(raw.to_owned()))
    }

    /// Returns the path with its `~/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path below a home folder.
    pub fn below_home(&self) -> &str {
        self.0.strip_prefix("~/").unwrap_or(&self.0)
    }

    /// Returns whether `other` is this path or lies below it.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn plain(relative: &str) -> Result<(), ProfilePathError> {
    // Marks of direction and what has no width: a path that reads as another must not stand before an approver.
    let unseen = |c: char| {
        c.is_control()
            || matches!(c, '`' | '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
            || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}')
    };
    if relative.chars().count() >= ProfilePath::MAX_CHARS {
        Err(ProfilePathError::TooLong)
    } else if relative.contains(unseen) {
        Err(ProfilePathError::Unreadable)
    } else if relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
        Err(ProfilePathError::NotPlain)
    } else {
        Ok(())
    }
}

/// Which files a command may reach. Provara's own are out of reach in every profile, whatever this says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    workspace: Access,
    tmp: Tmp,
    // INVARIANT: `/` is there, and no entry says what would hold without it.
    paths: BTreeMap<ProfilePath, Access>,
    // INVARIANT: none lies below another.
    homes: BTreeSet<HomePath>,
}

impl Files {
    /// Returns files of which `everywhere` holds but for `paths`. A workspace can always be read: a command works there. Of
    /// two entries for one path the stricter holds. What lies at `homes` is hidden in every home, whatever else is said of it.
    pub fn new(
        everywhere: Access,
        workspace: Access,
        tmp: Tmp,
        paths: impl IntoIterator<Item = (ProfilePath, Access)>,
        homes: impl IntoIterator<Item = HomePath>,
    ) -> Self {
        let mut all = BTreeMap::from([(ProfilePath::root(), everywhere)]);
        for (path, access) in paths {
            all.entry(path).and_modify(|known| *known = access.min(*known)).or_insert(access);
        }
        let homes: BTreeSet<HomePath> = homes.into_iter().collect();
        let outermost = |home: &&HomePath| !homes.iter().any(|other| other != *home && other.holds(home));
        let homes = homes.iter().filter(outermost).cloned().collect();
        let mut files = Self { workspace: workspace.max(Access::Read), tmp, paths: all, homes };
        files.forget_what_changes_nothing();
        files
    }

    /// What a workspace may be used for.
    pub const fn workspace(&self) -> Access {
        self.workspace
    }

    /// Whose temporary folders there are.
    pub const fn tmp(&self) -> Tmp {
        self.tmp
    }

    /// What holds where no path says otherwise.
    pub fn everywhere(&self) -> Access {
        self.paths.get(&ProfilePath::root()).copied().unwrap_or(Access::Hidden)
    }

    /// Paths of their own access, an outer one before those in it, `/` aside.
    pub fn paths(&self) -> impl Iterator<Item = (&ProfilePath, Access)> {
        self.paths.iter().filter(|(path, _)| path.as_str() != "/").map(|(path, access)| (path, *access))
    }

    /// Paths that are hidden in every home folder.
    pub fn homes(&self) -> impl Iterator<Item = &HomePath> {
        self.homes.iter()
    }

    /// Returns what may be done with `path` where no workspace holds it.
    pub fn access(&self, path: &ProfilePath) -> Access {
        self.effective(&self.leading_to(path), None)
    }

    /// Returns a path that may be used less than a folder, or a workspace, that holds it: only mounts can hold that.
    pub fn exception(&self) -> Option<&ProfilePath> {
        let lesser = |path: &ProfilePath, access: Access| {
            let above = above(&self.paths, path).unwrap_or(Access::Hidden);
            // What says the same as the folder above it is there for the sake of a workspace between the two.
            access < above || (access == above && access < self.workspace)
        };
        self.paths().find(|(path, access)| lesser(path, *access)).map(|(path, _)| path)
    }

    /// Returns whether every file may be used as much under `other`, wherever a workspace lies.
    pub fn is_within(&self, other: &Self) -> bool {
        let everywhere = self.paths.keys().chain(other.paths.keys()).all(|path| {
            let (ours, theirs) = (self.leading_to(path), other.leading_to(path));
            // A workspace between two entries is like one at the outer of them.
            let workspaces = ours.iter().chain(&theirs).map(|(depth, _)| Some(*depth));
            let mut workspaces = workspaces.chain([None]);
            workspaces.all(|at| self.effective(&ours, at) <= other.effective(&theirs, at))
        });
        let homes = other.homes.iter().all(|home| self.homes.iter().any(|ours| ours.holds(home)));
        everywhere && homes && self.workspace <= other.workspace && self.tmp <= other.tmp
    }

    /// The entries for a path and the folders that hold it, outermost first: how many names lead to each, and its access.
    fn leading_to(&self, path: &ProfilePath) -> Vec<(usize, Access)> {
        let holding = self.paths.iter().filter(|(known, _)| known.holds(path));
        holding.map(|(known, access)| (known.depth(), *access)).collect()
    }

    /// What may be done with a path when a workspace is the folder of so many names that leads to it, or elsewhere.
    fn effective(&self, leading: &[(usize, Access)], workspace: Option<usize>) -> Access {
        match (leading.last(), workspace) {
            (Some((depth, access)), Some(workspace)) if *depth > workspace => *access,
            (_, Some(_)) => self.workspace,
            (Some((_, access)), None) => *access,
            (None, None) => Access::Hidden,
        }
    }

    /// Drops entries that say what holds without them, so that equal grants are equal values. An entry like the folder above
    /// it but unlike a workspace stays: a workspace may lie between the two.
    fn forget_what_changes_nothing(&mut self) {
        let known = self.paths.clone();
        let workspace = self.workspace;
        self.paths
            .retain(|path, access| above(&known, path).is_none_or(|above| above != *access || workspace != *access));
    }
}

/// What holds right above `path`; nothing is above `/`.
fn above(paths: &BTreeMap<ProfilePath, Access>, path: &ProfilePath) -> Option<Access> {
    // An outer path sorts before those in it, so the last is the nearest.
    paths.iter().filter(|(other, _)| *other != path && other.holds(path)).map(|(_, access)| *access).next_back()
}
