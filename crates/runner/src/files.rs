//! The second wall, behind the mounts: Landlock. What a command may open is said by folder, so what the mounts should hide
//! and do not (a file that was replaced while it was covered, a fault of ours) is refused all the same.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus, NetPort, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use provara_domain::{Access, Mechanism};

use crate::confine::Seen;
use crate::egress::PORT;
use crate::protocol::Calls;

/// The newest version that is asked for; what the kernel does not know of it is left out, and the record tells.
const NEWEST: ABI = ABI::V10;
/// Those up to it, in their order.
const VERSIONS: [ABI; 10] = [ABI::V1, ABI::V2, ABI::V3, ABI::V4, ABI::V5, ABI::V6, ABI::V7, ABI::V8, ABI::V9, NEWEST];
/// The run's own, or harmless by their mounts.
const WRITABLE: [&str; 4] = ["/tmp", "/var/tmp", "/dev", "/proc"];

/// Makes the part that is the same for every run of a frame: names of folders, the private folders, and who may be called.
pub(crate) fn prepare(calls: Calls) -> Result<RulesetCreated, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    if governs_network(calls) {
        rules = rules.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let mut rules = rules
        .create()?
        .add_rules(path_beneath_rules(["/"], AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(WRITABLE, AccessFs::from_all(NEWEST)))?;
    if calls == Calls::Proxy {
        rules = rules.add_rule(NetPort::new(PORT, AccessNet::ConnectTcp))?;
    }
    Ok(rules)
}

/// Who may call its own processes may do so at any port.
fn governs_network(calls: Calls) -> bool {
    matches!(calls, Calls::Nobody | Calls::Proxy)
}

/// Adds the rules that need the run, and raises the wall: what was granted is the command's to use as granted, and of the
/// rest it may read what is there and no secret. What may be used less than a writable folder that holds it is left to the
/// mounts: a rule holds for all below a folder.
pub(crate) fn raise(prepared: RulesetCreated, calls: Calls, seen: &Seen) -> Result<Mechanism, RulesetError> {
    let mut rules = prepared.add_rules(path_beneath_rules(readable(&seen.secrets), AccessFs::from_read(NEWEST)))?;
    if seen.everywhere == Access::Hidden {
        // Another root than the one that was prepared for.
        rules = rules.add_rules(path_beneath_rules(["/"], AccessFs::ReadDir))?;
    }
    for (path, access) in &seen.granted {
        let access = if *access == Access::Write { AccessFs::from_all(NEWEST) } else { AccessFs::from_read(NEWEST) };
        rules = rules.add_rules(path_beneath_rules([path], access))?;
    }
    let status = rules.restrict_self()?;
    let (held, detail) = match (status.ruleset, status.landlock) {
        (
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced,
            LandlockStatus::Available { effective_abi, .. },
        ) => (true, governed(effective_abi, calls)),
        // The mounts hold without it; the record says that this second wall is missing.
        _ => (false, "this kernel has no Landlock".to_owned()),
    };
    Ok(Mechanism { name: "landlock".into(), held, detail })
}

/// What a version of Landlock governs, of what is asked for.
fn governed(abi: ABI, calls: Calls) -> String {
    let since = [
        (ABI::V1, "files"),
        (ABI::V4, "TCP"),
        (ABI::V6, "abstract sockets and signals"),
        (ABI::V9, "sockets by path"),
        (ABI::V10, "UDP"),
    ];
    let asked = |what: &str| governs_network(calls) || !matches!(what, "TCP" | "UDP");
    let parts: Vec<&str> =
        since.into_iter().filter(|(first, what)| abi >= *first && asked(what)).map(|(_, what)| what).collect();
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
        assert_eq!(governed(ABI::V3, Calls::Nobody), "ABI 3: files");
        assert_eq!(governed(ABI::V7, Calls::Proxy), "ABI 7: files, TCP, abstract sockets and signals");
        assert_eq!(
            governed(ABI::V10, Calls::Nobody),
            "ABI 10: files, TCP, abstract sockets and signals, sockets by path, UDP"
        );
        assert_eq!(governed(ABI::V7, Calls::Itself), "ABI 7: files, abstract sockets and signals");
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
