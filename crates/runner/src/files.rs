//! The second wall, behind the mounts: Landlock. What a command may open is said by folder, so what the mounts should hide
//! and do not (a file that was replaced while it was covered, a fault of ours) is refused all the same.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use provara_domain::Mechanism;

/// The newest version that is asked for; what the kernel does not know of it is left out, and the record tells.
const NEWEST: ABI = ABI::V10;
/// Those up to it, in their order.
const VERSIONS: [ABI; 10] = [ABI::V1, ABI::V2, ABI::V3, ABI::V4, ABI::V5, ABI::V6, ABI::V7, ABI::V8, ABI::V9, NEWEST];
/// The run's own, or harmless by their mounts.
const WRITABLE: [&str; 4] = ["/tmp", "/var/tmp", "/dev", "/proc"];

/// Makes the part that is the same for every run: names of folders, and the private folders. Nobody may be called.
pub(crate) fn prepare() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(["/"], AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(WRITABLE, AccessFs::from_all(NEWEST)))
}

/// Adds the rules that need the run, and raises the wall: the workspace is the command's, and of the rest it may read what
/// is no secret.
pub(crate) fn raise(prepared: RulesetCreated, workspace: &str, secrets: &[PathBuf]) -> Result<Mechanism, RulesetError> {
    let status = prepared
        .add_rules(path_beneath_rules(readable(secrets), AccessFs::from_read(NEWEST)))?
        .add_rules(path_beneath_rules([workspace], AccessFs::from_all(NEWEST)))?
        .restrict_self()?;
    let (held, detail) = match (status.ruleset, status.landlock) {
        (
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced,
            LandlockStatus::Available { effective_abi, .. },
        ) => (true, governed(effective_abi)),
        // The mounts hold without it; the record says that this second wall is missing.
        _ => (false, "this kernel has no Landlock".to_owned()),
    };
    Ok(Mechanism { name: "landlock".into(), held, detail })
}

/// What a version of Landlock governs, of what is asked for.
fn governed(abi: ABI) -> String {
    let since = [
        (ABI::V1, "files"),
        (ABI::V4, "TCP"),
        (ABI::V6, "abstract sockets and signals"),
        (ABI::V9, "sockets by path"),
        (ABI::V10, "UDP"),
    ];
    let parts: Vec<&str> = since.into_iter().filter(|(first, _)| abi >= *first).map(|(_, what)| what).collect();
    let number = VERSIONS.iter().filter(|version| abi >= **version).count();
    format!("ABI {number}: {}", parts.join(", "))
}

/// Everything that is neither a secret nor leads to one. A rule holds for all below a folder and cannot be taken back further
/// down, so the folders that lead to a secret are spelled out.
fn readable(secrets: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // What cannot be listed grants nothing.
    let _ = spell_out(Path::new("/"), secrets, &mut found);
    found
}

fn spell_out(folder: &Path, secrets: &[PathBuf], found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        // A link grants nothing: what it leads to is granted, or not, by its own name.
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if is_link || secrets.contains(&path) || WRITABLE.iter().any(|granted| path == Path::new(granted)) {
            continue;
        }
        if secrets.iter().any(|secret| secret.starts_with(&path)) {
            let _ = spell_out(&path, secrets, found);
        } else {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_by_what_it_governs() {
        assert_eq!(governed(ABI::V3), "ABI 3: files");
        assert_eq!(governed(ABI::V7), "ABI 7: files, TCP, abstract sockets and signals");
        assert_eq!(governed(ABI::V10), "ABI 10: files, TCP, abstract sockets and signals, sockets by path, UDP");
    }

    #[test]
    fn folders_that_lead_to_a_secret_are_spelled_out_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let at = |below: &str| root.path().join(below);
        for folder in ["home/me/.ssh", "home/me/work", "home/you", "usr"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("home/me/.netrc"), "secret").unwrap();
        std::os::unix::fs::symlink(at("home/me/.ssh"), at("home/me/keys")).unwrap();
        let mut found = Vec::new();
        spell_out(root.path(), &[at("home/me/.ssh"), at("home/me/.netrc")], &mut found).unwrap();
        found.sort();
        assert_eq!(found, [at("home/me/work"), at("home/you"), at("usr")]);
    }
}
