//! Tokens: how they are made, recognised, asked for and kept.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::config::Secret;

/// Returns a new token for `role`.
pub(crate) fn new_token(role: &str) -> io::Result<Secret> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(Secret::new(provara_gateway::new_secret(role, bytes)))
}

/// Returns the SHA-256 of a token: what the store knows of it.
pub(crate) fn hash(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.expose().as_bytes()).into()
}

/// Makes `path` and its parents, readable by nobody else.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        let why = format!("`{}` cannot be made: {error}; may this user write to the folder above?", path.display());
        io::Error::new(error.kind(), why)
    })?;
    let meta = std::fs::metadata(path)?;
    if meta.uid() != nix::unistd::Uid::effective().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the runtime folder belongs to another user"));
    }
    if meta.mode() & 0o077 != 0 {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(path, private)?;
    }
    Ok(())
}

/// Writes a file that only its owner reads. Never replaces one.
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Opens a file that only its owner may read, following no link. `None` where it is not there.
pub(crate) fn open_private(path: &Path) -> io::Result<Option<std::fs::File>> {
    let file = match std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.mode() & 0o077 != 0 {
        let why = format!("others can read `{}`; run chmod 600 on it, and replace the secret in it", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(Some(file))
}

/// Reads a secret of one line, if its file exists. One that others can read is no secret.
pub(crate) fn read_private(path: &Path) -> io::Result<Option<Secret>> {
    let Some(mut file) = open_private(path)? else { return Ok(None) };
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(Some(Secret::new(text.trim().to_owned())))
}

/// Asks on the terminal, without echo. `None` when there is no terminal to ask on.
pub(crate) fn prompt(question: &str) -> io::Result<Option<Secret>> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let Ok(tty) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        return Ok(None);
    };
    if !tty.is_terminal() {
        return Ok(None);
    }
    let shown = tcgetattr(&tty)?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    let restored = (tty.try_clone()?, shown.clone());
    // A Ctrl-C must not leave a terminal that shows nothing of what is typed.
    let armed = crate::interrupt::at_interrupt(move || {
        let _ = tcsetattr(&restored.0, SetArg::TCSAFLUSH, &restored.1);
    });
    (&tty).write_all(question.as_bytes())?;
    tcsetattr(&tty, SetArg::TCSAFLUSH, &hidden)?;
    let mut line = String::new();
    let read = io::BufReader::new(&tty).read_line(&mut line);
    tcsetattr(&tty, SetArg::TCSAFLUSH, &shown)?;
    drop(armed);
    (&tty).write_all(b"\n")?;
    read?;
    Ok(Some(Secret::new(line.trim().to_owned())))
}

#[cfg(test)]
mod tests {
    use provara_gateway::is_whole_secret as is_whole;

    use super::*;

    #[test]
    fn tokens_have_the_documented_form_and_a_typo_shows() {
        let token = new_token("agent").unwrap();
        let text = token.expose();
        assert!(text.starts_with("pv_agent_"));
        assert_eq!(text.len(), "pv_agent_".len() + 43 + 6);
        assert!(is_whole(text));
        assert!(!is_whole(&text.replace("pv_agent_", "pv_agent_x")));
        assert!(!is_whole(text.get(..text.len() - 1).unwrap()));
        assert!(is_whole("a-token-that-somebody-configured"));
        assert_ne!(new_token("agent").unwrap().expose(), text);
    }
}
