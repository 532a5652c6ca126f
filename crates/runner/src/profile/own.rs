//! Provara's own files as a profile must not name them.
//!
//! Links are followed as they are when the file is loaded, to tell an operator of a mistake. What keeps a command from these
//! files is not this but the mounts of its run, which cover them in every profile, wherever a link leads by then.

use std::path::{Path, PathBuf};

use provara_domain::Access;

/// Provara's own files, each with what messages call it.
#[derive(Debug, Clone, Default)]
pub struct OwnFiles {
    /// No profile makes these readable or writable.
    pub secret: Vec<(&'static str, PathBuf)>,
    /// These may be read, and not written: the program, public certificates.
    pub public: Vec<(&'static str, PathBuf)>,
}

/// Returns the path as the kernel sees it: links followed as far as it exists.
pub fn resolved(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|there| {
            let (there, rest) = (there.canonicalize().ok()?, path.strip_prefix(there).ok()?);
            // Joining nothing would leave a slash at the end, and what compares paths as text would miss it.
            Some(if rest.as_os_str().is_empty() { there } else { there.join(rest) })
        })
        .unwrap_or_else(|| path.to_owned())
}

/// Returns what is wrong with a path that a profile makes reachable.
pub(crate) fn exposes(path: &Path, access: Access, own: &OwnFiles) -> Option<String> {
    // A link to nothing hides where it leads until somebody makes what it names.
    let dangling = path.ancestors().find(|part| part.symlink_metadata().is_ok() && part.canonicalize().is_err());
    if let Some(link) = dangling {
        return Some(format!("`{}` is a link that leads nowhere, or cannot be looked up", link.display()));
    }
    let real = resolved(path);
    let public = own.public.iter().filter(|_| access == Access::Write);
    let found = own.secret.iter().chain(public).find_map(|(what, file)| {
        let other = resolved(file);
        let meets = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
        [path, &real].iter().any(|ours| meets(ours, file) || meets(ours, &other)).then_some((what, other))
    });
    found.map(|(what, file)| format!("`{}` holds or lies in {what} (`{}`)", path.display(), file.display()))
}
