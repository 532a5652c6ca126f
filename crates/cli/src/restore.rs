//! `provara restore`: a backup is checked, copied beside the runtime folder, hashed again on the way, and takes the folder's
//! place in one step. What was there is moved aside and never deleted.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::RenameFlags;
use provara_domain::Timestamp;
use provara_store::{Held, Snapshot};
use serde_json::json;

use crate::backup::{
    At as _, BackupError, Checked, KEYS, MAX_SMALL, SECRETS, copy, hex, make_folder, open_plain, private_temporary,
    rename, sync_folder, verify_folder, warn, wrong,
};
use crate::config::Settings;
use crate::display::visible_line;
use crate::failure::Failure;
use crate::{secrets, serve};

/// What becomes of a runtime folder that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Present {
    Refused,
    MovedAside,
}

/// Puts a backup in the place of the runtime folder.
pub(crate) fn restore(
    settings: &Settings,
    from: &Path,
    present: Present,
    now: Timestamp,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let checked = verify_folder(from, None)?;
    let runtime = &settings.runtime;
    let parent = runtime.parent().unwrap_or(&settings.root).to_owned();
    let old = look_at(runtime, present)?;
    // From here on no server can start in the old folder, until it has another name.
    let _held = match old {
        Old::Absent => None,
        Old::Empty | Old::Full => {
            Some(Held::hold(runtime).map_err(|error| Failure::Other(serve::with_causes(&error)))?)
        }
    };
    let making = private_temporary(&parent, ".provara-restore-")?;
    unpack(from, &checked, making.path())?;
    recheck(making.path(), &checked)?;
    let keys = carry_keys(&checked, runtime, making.path())?;
    sync_folder(making.path())?;
    let aside = put_in_place(runtime, making, old, now)?;
    sync_folder(&parent)?;
    told_of_restore(&checked, runtime, aside.as_deref(), keys, as_json)
}

/// What stands where the runtime folder belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Old {
    Absent,
    /// Nothing, or a lock that nobody holds.
    Empty,
    Full,
}

fn look_at(runtime: &Path, present: Present) -> Result<Old, BackupError> {
    let meta = match runtime.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Old::Absent),
        Err(error) => return Err(error).at(runtime),
    };
    let refused = |why: &str| Err(BackupError::Refused(format!("`{}` {why}", runtime.display())));
    if !meta.is_dir() {
        return refused("is not a folder");
    }
    if meta.uid() != nix::unistd::Uid::effective().as_raw() {
        return refused("belongs to another user; restore as the user that the server runs as");
    }
    let mut entries = fs::read_dir(runtime).at(runtime)?;
    let empty = entries.try_fold(true, |empty, entry| Ok::<_, io::Error>(empty && entry?.file_name() == "lock"));
    match (empty.at(runtime)?, present) {
        (true, _) => Ok(Old::Empty),
        (false, Present::MovedAside) => Ok(Old::Full),
        (false, Present::Refused) => refused("is not empty; --force moves it aside"),
    }
}

/// Copies what the manifest lists. Each file is hashed on its way: what was checked is what is put in place.
fn unpack(from: &Path, checked: &Checked, into: &Path) -> Result<(), BackupError> {
    make_folder(&into.join(Snapshot::OUTPUT))?;
    for file in &checked.files {
        let to = match file.name.split_once('/') {
            Some((KEYS, key)) => key.to_owned(),
            // These two are the backup's own; the server keeps both in the database.
            None if file.name != Snapshot::DATABASE => continue,
            _ => file.name.clone(),
        };
        let path = from.join(&file.name);
        let copied = copy(open_plain(&path).at(&path)?, file.size.saturating_add(1), into, &to)?;
        if (copied.size, copied.sha256) != (file.size, file.sha256.clone()) {
            return Err(wrong(&file.name, "was changed while it was copied"));
        }
    }
    sync_folder(&into.join(Snapshot::OUTPUT))
}

/// What was read while it was checked may have been another file than the one that was copied: somebody else may write the
/// backup's folder. Nobody else can write this one.
fn recheck(copied: &Path, checked: &Checked) -> Result<(), BackupError> {
    let snapshot = Snapshot::open(&copied.join(Snapshot::DATABASE))?;
    snapshot.check()?;
    let report = snapshot.verify(None, &[])?;
    let same =
        report.problems.is_empty() && (report.entries, hex(&report.root.0)) == (checked.entries, checked.root.clone());
    if same { Ok(()) } else { Err(wrong(Snapshot::DATABASE, "was changed while it was copied")) }
}

/// Where the secrets of the restored folder come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeysFrom {
    Backup,
    OldFolder,
    Nowhere,
}

/// A backup without keys, put back on the host that it is from, goes on with the keys that are there.
fn carry_keys(checked: &Checked, runtime: &Path, into: &Path) -> Result<KeysFrom, BackupError> {
    if checked.has_keys {
        return Ok(KeysFrom::Backup);
    }
    let mut found = KeysFrom::Nowhere;
    for name in SECRETS {
        let path = runtime.join(name);
        if let Some(file) = secrets::open_private(&path).at(&path)? {
            copy(file, MAX_SMALL, into, name)?;
            found = KeysFrom::OldFolder;
        }
    }
    Ok(found)
}

/// One step: at no moment is there a runtime folder that is neither the old one nor the whole new one.
fn put_in_place(
    runtime: &Path,
    making: tempfile::TempDir,
    old: Old,
    now: Timestamp,
) -> Result<Option<PathBuf>, BackupError> {
    if old == Old::Absent {
        rename(making.path(), runtime, RenameFlags::RENAME_NOREPLACE)?;
        let _ = making.keep();
        return Ok(None);
    }
    rename(making.path(), runtime, RenameFlags::RENAME_EXCHANGE)?;
    // What was the runtime folder has the other name now, and must not be removed as ours.
    let was = making.keep();
    if old == Old::Empty {
        let _ = fs::remove_file(was.join("lock"));
        fs::remove_dir(&was).at(&was)?;
        return Ok(None);
    }
    let name = runtime.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let aside = runtime.with_file_name(format!("{name}.before-{}", now.compact()));
    rename(&was, &aside, RenameFlags::RENAME_NOREPLACE)?;
    Ok(Some(aside))
}

fn told_of_restore(
    checked: &Checked,
    runtime: &Path,
    aside: Option<&Path>,
    keys: KeysFrom,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let keys_word = match keys {
        KeysFrom::Backup => "from the backup",
        KeysFrom::OldFolder => "from the folder that was moved aside",
        KeysFrom::Nowhere => "none: the next start makes new ones, and the log goes on under a new key",
    };
    warn(&format!(
        "the log goes on after entry {}: what came later is gone from it. A checkpoint kept of the old log beyond that will \
         not fit any more, and that is right: keep it, with what is left of the old log, as the evidence of this restore",
        checked.entries
    ))?;
    let mut out = io::stdout().lock();
    let aside = aside.map(|path| path.display().to_string());
    if as_json {
        let answer = json!({"ok": true, "log_size": checked.entries, "root": checked.root, "moved_aside": aside, "keys": keys_word, "made_at": checked.made_at});
        writeln!(out, "{answer}")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "restored  {}", visible_line(&runtime.display().to_string()))?;
    writeln!(out, "made at   {}", visible_line(&checked.made_at))?;
    writeln!(out, "entries   {}\nroot      {}\nkeys      {keys_word}", checked.entries, checked.root)?;
    if let Some(aside) = aside {
        writeln!(out, "aside     {}", visible_line(&aside))?;
    }
    writeln!(out, "next      start the server; commands that ran when the backup was made will be called lost")?;
    Ok(ExitCode::SUCCESS)
}
