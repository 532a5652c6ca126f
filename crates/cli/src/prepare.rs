//! What has to be in order before a server may start: folders, tokens and the log's key.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

pub(crate) use provara_runner::resolved;

use crate::config::{Secret, Settings};
use crate::{profiles, secrets, tell};

/// Why a server must not start like this.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("commands may write to the workspace `{}`, and it holds or lies in {what} (`{}`); name another folder", workspace.display(), inside.display())]
    Exposed { workspace: PathBuf, what: &'static str, inside: PathBuf },
    #[error("`{host}` can be reached from other machines; give TLS_CERT and TLS_KEY, or --insecure-listen")]
    Unencrypted { host: String },
    #[error("TLS_CERT and TLS_KEY go together; one is missing")]
    HalfTls,
    #[error("SINGLE_TOKEN=1 is for this machine only; `{host}` can be reached from others")]
    SingleToken { host: String },
}

/// Whether an unencrypted server may be reached from other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listening {
    Safely,
    AsTold,
}

/// The secrets that a server holds.
pub(crate) struct Keys {
    pub(crate) agent: Secret,
    /// Absent when only its hash was kept, by an earlier start.
    pub(crate) operator: Option<Secret>,
    pub(crate) log_seed: [u8; 32],
}

/// What no command may change or read, with its name in a sentence, whether it is there yet or not. ROOT itself is not
/// among them: a workspace may lie in it.
pub(crate) fn own_files(settings: &Settings, binary: &Path) -> Vec<(&'static str, PathBuf)> {
    let root = |name: &str| settings.root.join(name);
    let mut own = vec![
        ("the runtime folder", settings.runtime.clone()),
        ("the log's key", settings.log_key_path()),
        ("Provara's program", binary.to_owned()),
        ("policy", root("policies")),
        ("configuration", root(".env")),
        ("configuration", root("provara.toml")),
        ("configuration", root(profiles::FILE)),
    ];
    own.extend(settings.files.iter().map(|path| ("configuration", path.clone())));
    own.extend(settings.tls_key.iter().map(|path| ("the certificate's key", path.clone())));
    own.extend(settings.tls_cert.iter().map(|path| ("the certificate", path.clone())));
    own.extend(settings.ca_cert.iter().map(|path| ("the authority's certificate", path.clone())));
    own.extend(settings.secrets.iter().map(|path| ("the rules that know secrets", path.clone())));
    let kept = |sink: &String| sink.strip_prefix("file:").or_else(|| sink.strip_prefix("git:")).map(PathBuf::from);
    own.extend(settings.checkpoint_sinks.iter().filter_map(kept).map(|path| ("a checkpoint's copy", path)));
    own.into_iter().map(|(what, path)| (what, resolved(&path))).collect()
}

/// Checks that nothing that commands may write holds what they must not change, nor lies in it.
pub(crate) fn check_folders(settings: &Settings, binary: &Path) -> Result<(), Refusal> {
    let workspace = resolved(&settings.workspace);
    let root = resolved(&settings.root);
    if root.starts_with(&workspace) {
        return Err(Refusal::Exposed { workspace, what: "ROOT", inside: root });
    }
    check_workspace(&workspace, &own_files(settings, binary))
}

/// As [`check_folders`], for any folder that commands may work in.
pub(crate) fn check_workspace(workspace: &Path, own: &[(&'static str, PathBuf)]) -> Result<(), Refusal> {
    for (what, inside) in own {
        if inside.starts_with(workspace) || workspace.starts_with(inside) {
            return Err(Refusal::Exposed { workspace: workspace.to_owned(), what, inside: inside.clone() });
        }
    }
    Ok(())
}

/// Checks that no token travels where others can read it.
pub(crate) fn check_listening(settings: &Settings, listening: Listening) -> Result<(), Refusal> {
    if settings.tls_cert.is_some() != settings.tls_key.is_some() {
        return Err(Refusal::HalfTls);
    }
    let host = settings.host.clone();
    if settings.is_loopback() {
        return Ok(());
    }
    if settings.single_token {
        return Err(Refusal::SingleToken { host });
    }
    if settings.tls_cert.is_none() && listening == Listening::Safely {
        return Err(Refusal::Unencrypted { host });
    }
    Ok(())
}

/// Returns what helps where commands cannot be confined because of `problem`.
pub(crate) fn cure(problem: &str) -> &'static str {
    // A root server's commands have another user, and a home folder such as /root is closed to it.
    if problem.contains("cannot use the workspace") {
        "the user that commands run as has to get into the workspace and every folder above it: take a ROOT outside of a home \
         folder, such as /srv/provara, or open the way with chmod o+x"
    } else {
        "allow mount, process and user namespaces, or start the server as root"
    }
}

/// Makes what is not there yet, and reads what is. `operator_known` says that an earlier start kept an operator's hash.
pub(crate) fn keys(settings: &Settings, operator_known: bool) -> io::Result<Keys> {
    secrets::private_dir(&settings.runtime)?;
    let agent = match &settings.token {
        Some(token) => token.clone(),
        None => kept_or_made(&settings.agent_token_path(), "agent")?,
    };
    Ok(Keys { agent, operator: operator(settings, operator_known)?, log_seed: log_seed(&settings.log_key_path())? })
}

fn operator(settings: &Settings, known: bool) -> io::Result<Option<Secret>> {
    let path = settings.operator_token_path();
    if let Some(token) = &settings.operator_token {
        return Ok(Some(token.clone()));
    }
    if let Some(token) = secrets::read_private(&path)? {
        return Ok(Some(token));
    }
    if known {
        return Ok(None);
    }
    if settings.operator_token_file || !io::stderr().is_terminal() {
        tell::warn(&format!("the operator's token is kept in `{}`; whoever reads it can approve", path.display()));
        return kept_or_made(&path, "operator").map(Some);
    }
    let token = secrets::new_token("operator")?;
    writeln!(io::stderr(), "operator's token, shown this once, kept nowhere: {}", token.expose())?;
    Ok(Some(token))
}

fn kept_or_made(path: &Path, role: &str) -> io::Result<Secret> {
    if let Some(token) = secrets::read_private(path)? {
        return Ok(token);
    }
    let token = secrets::new_token(role)?;
    secrets::write_private(path, format!("{}\n", token.expose()).as_bytes())?;
    Ok(token)
}

fn log_seed(path: &Path) -> io::Result<[u8; 32]> {
    let Some(mut file) = secrets::open_private(path)? else {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        secrets::write_private(path, &seed)?;
        return Ok(seed);
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    bytes.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the log's key is not 32 bytes"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn settings(root: &Path, more: &[(&'static str, &str)]) -> Settings {
        let mut flags = vec![("ROOT", root.to_str().unwrap().to_owned())];
        flags.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        Settings::load(&flags, []).unwrap()
    }

    #[test]
    fn a_workspace_that_holds_our_own_files_is_refused_even_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let elsewhere = Path::new("/usr/bin/true");
        assert_eq!(check_folders(&settings(root, &[]), elsewhere), Ok(()));
        std::os::unix::fs::symlink(root, root.join("link")).unwrap();
        for bad in [".", "..", "link", "runtime", "runtime/deep", "/"] {
            let refused = check_folders(&settings(root, &[("WORKSPACE_DIR", bad)]), elsewhere);
            assert!(matches!(refused, Err(Refusal::Exposed { .. })), "{bad}: {refused:?}");
        }
        let binary = root.join("workspace/provara");
        assert!(check_folders(&settings(root, &[]), &binary).is_err());
    }

    #[test]
    fn tokens_do_not_leave_the_machine_unencrypted() {
        let dir = tempfile::tempdir().unwrap();
        let open = settings(dir.path(), &[("HOST", "0.0.0.0")]);
        assert_eq!(check_listening(&open, Listening::Safely), Err(Refusal::Unencrypted { host: "0.0.0.0".to_owned() }));
        assert_eq!(check_listening(&open, Listening::AsTold), Ok(()));
        let single = settings(dir.path(), &[("HOST", "0.0.0.0"), ("SINGLE_TOKEN", "1")]);
        assert!(matches!(check_listening(&single, Listening::AsTold), Err(Refusal::SingleToken { .. })));
        assert_eq!(
            check_listening(&settings(dir.path(), &[("TLS_KEY", "k")]), Listening::Safely),
            Err(Refusal::HalfTls)
        );
    }

    #[test]
    fn keys_are_made_once_and_nobody_else_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), &[("OPERATOR_TOKEN_FILE", "1")]);
        let first = keys(&settings, false).unwrap();
        let second = keys(&settings, true).unwrap();
        assert!(first.agent == second.agent && first.operator == second.operator && first.log_seed == second.log_seed);
        assert!(first.operator != Some(first.agent));
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(settings.log_key_path(), open).unwrap();
        assert!(keys(&settings, true).is_err(), "a log's key that others can read was used");
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(settings.log_key_path(), closed).unwrap();
        for path in [settings.agent_token_path(), settings.operator_token_path(), settings.log_key_path()] {
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{path:?}");
        }
        assert_eq!(std::fs::metadata(&settings.runtime).unwrap().mode() & 0o777, 0o700);
    }
}
