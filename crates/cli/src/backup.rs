//! `provara backup`: a checked copy of what a server knows, made while it works.
//!
//! A backup is a folder: the database as of one moment, the outputs that its runs need, the newest checkpoint, the log's
//! verifier key, and a manifest with every file's hash, written last. It is made under another name and appears whole or not
//! at all.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use provara_audit::checkpoint::VerifierKey;
use provara_domain::Timestamp;
use provara_store::{Snapshot, SnapshotError};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::config::Settings;
use crate::display::visible_line;
use crate::failure::Failure;
use crate::{prepare, secrets, serve};

/// Of the folder's layout and the manifest. A reader refuses another.
const FORMAT: u64 = 1;
const MANIFEST: &str = "manifest.json";
const CHECKPOINT: &str = "checkpoint";
const VKEY: &str = "log.vkey";
pub(crate) const KEYS: &str = "keys";
/// A line for each of some 400 000 outputs. Longer is no manifest of ours.
const MAX_MANIFEST: u64 = 64 << 20;
/// A checkpoint, a key: never longer.
pub(crate) const MAX_SMALL: u64 = 64 << 10;

/// Whether the secrets are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    Left,
    Copied,
}

/// What is wrong with a backup, or why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("`{}` cannot be used", path.display())]
    Io {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("the database cannot be copied or read")]
    Snapshot(#[from] SnapshotError),
    #[error("`{}` is not a backup: {why}", path.display())]
    NotOne { path: PathBuf, why: String },
    #[error("`{name}` {why}")]
    Wrong { name: String, why: String },
    #[error("{0}")]
    Refused(String),
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Refused(why) => Self::Usage(why),
            error => Self::Other(serve::with_causes(&error)),
        }
    }
}

/// Says which file an error belongs to.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T, BackupError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, path: &Path) -> Result<T, BackupError> {
        self.map_err(|cause| BackupError::Io { path: path.to_owned(), cause: cause.into() })
    }
}

/// Makes the backup `to`, checks it, and only then gives it its name.
pub(crate) fn backup(
    settings: &Settings,
    to: &Path,
    keys: Secrets,
    now: Timestamp,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let to = std::path::absolute(to)?;
    let parent = to.parent().ok_or_else(|| Failure::Usage("name a folder that is not there yet".to_owned()))?;
    let beside = parent.canonicalize().at(parent)?;
    refuse_within_reach(settings, &beside)?;
    if to.symlink_metadata().is_ok() {
        return Err(Failure::Usage(format!("`{}` is there already; a backup never overwrites", to.display())));
    }
    let making = private_temporary(&beside, ".provara-backup-")?;
    let summary = fill(settings, making.path(), keys, now)?;
    let checked = verify_folder(making.path(), None)?;
    let name = to.file_name().map(|name| beside.join(name)).unwrap_or_else(|| to.clone());
    rename(making.path(), &name, RenameFlags::RENAME_NOREPLACE)?;
    let _ = making.keep();
    sync_folder(&beside)?;
    if keys == Secrets::Copied {
        warn("this backup holds the log's private key and tokens: whoever reads it can approve and sign")?;
    }
    for missing in &summary.missing {
        warn(&format!("the output `{missing}` is gone from the runtime folder and is not in the backup"))?;
    }
    tell(&checked, &name, as_json)
}

/// Checks a backup without a server and without changing anything.
pub(crate) fn verify(folder: &Path, key: Option<&Path>, as_json: bool) -> Result<ExitCode, Failure> {
    let key = key.map(|path| small(path).and_then(|text| vkey(path, &text))).transpose()?;
    let checked = verify_folder(folder, key.as_ref())?;
    tell(&checked, folder, as_json)
}

/// What was found about a backup that holds together.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) files: Vec<Listed>,
    pub(crate) entries: u64,
    pub(crate) root: String,
    /// Up to where the checkpoint in the backup speaks for the log.
    pub(crate) signed: Option<u64>,
    pub(crate) made_at: String,
    pub(crate) has_keys: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

struct Summary {
    missing: Vec<String>,
}

fn fill(settings: &Settings, into: &Path, keys: Secrets, now: Timestamp) -> Result<Summary, BackupError> {
    let (runtime, mut files, mut missing) = (&settings.runtime, Vec::new(), Vec::new());
    let snapshot = Snapshot::take(runtime, &into.join(Snapshot::DATABASE))?;
    files.push(hashed(into, Snapshot::DATABASE)?);
    let output = into.join(Snapshot::OUTPUT);
    make_folder(&output)?;
    snapshot.spools::<BackupError>(|name, needed| {
        // Recorded after it was synced, and never written again: what the copy of the database names is whole.
        let path = format!("{}/{name}", Snapshot::OUTPUT);
        match open_plain(&runtime.join(&path)) {
            Ok(file) => files.push(copy(file, u64::MAX, into, &path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound && needed => missing.push(name.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).at(&runtime.join(&path)),
        }
        Ok(())
    })?;
    sync_folder(&output)?;
    if let Some(note) = snapshot.latest_checkpoint()? {
        files.push(write(into, CHECKPOINT, note.as_bytes())?);
    }
    files.push(write(into, VKEY, own_vkey(settings)?.as_bytes())?);
    if keys == Secrets::Copied {
        make_folder(&into.join(KEYS))?;
        for path in secret_paths(settings) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            match secrets::open_private(&path).at(&path)? {
                Some(file) => files.push(copy(file, MAX_SMALL, into, &format!("{KEYS}/{name}"))?),
                None => continue,
            }
        }
        sync_folder(&into.join(KEYS))?;
    }
    let report = snapshot.verify(None, &[])?;
    let listed = |file: &Listed| json!({"path": file.name, "size": file.size, "sha256": file.sha256});
    let manifest = json!({
        "format": FORMAT,
        "made_at": now.rfc3339(),
        "version": serve::VERSION,
        "log": {"size": report.entries, "root": hex(&report.root.0)},
        "missing": missing,
        "files": files.iter().map(listed).collect::<Vec<_>>(),
    });
    write(into, MANIFEST, format!("{manifest:#}\n").as_bytes())?;
    sync_folder(into)?;
    Ok(Summary { missing })
}

/// Everything about a backup, or the first thing that is wrong with it. `key` is one that was kept elsewhere; without it the
/// checkpoint is held against the key in the backup itself.
pub(crate) fn verify_folder(folder: &Path, key: Option<&VerifierKey>) -> Result<Checked, BackupError> {
    let manifest = read_manifest(folder)?;
    let files = listed_files(folder, &manifest)?;
    nothing_else(folder, &files)?;
    for file in &files {
        let found = hashed(folder, &file.name)?;
        if (found.size, &found.sha256) != (file.size, &file.sha256) {
            return Err(wrong(&file.name, "is not what the manifest says: it was changed or cut"));
        }
    }
    let has = |name: &str| files.iter().any(|file| file.name == name);
    let path = folder.join(VKEY);
    let own = vkey(&path, &small(&path)?)?;
    if key.is_some_and(|key| *key != own) {
        return Err(wrong(VKEY, "is another key than the one given: this is not a backup of that log"));
    }
    let notes = if has(CHECKPOINT) { vec![small(&folder.join(CHECKPOINT))?] } else { Vec::new() };
    let snapshot = Snapshot::open(&folder.join(Snapshot::DATABASE))?;
    snapshot.check()?;
    let report = snapshot.verify(Some(&own), &notes)?;
    if let Some(problem) = report.problems.first() {
        return Err(wrong("the log", &format!("does not hold together: {problem}")));
    }
    let root = hex(&report.root.0);
    let stated = (manifest.pointer("/log/size").and_then(Value::as_u64), manifest.pointer("/log/root"));
    if stated != (Some(report.entries), Some(&json!(root))) {
        return Err(wrong("the log", "has another size or root than the manifest says"));
    }
    let missing: BTreeSet<&str> = strings(&manifest, "missing").collect();
    snapshot.spools::<BackupError>(|name, needed| {
        if needed && !missing.contains(name) && !has(&format!("{}/{name}", Snapshot::OUTPUT)) {
            return Err(wrong(name, "is an output that a run needs, and it is not here"));
        }
        Ok(())
    })?;
    let made_at = manifest.get("made_at").and_then(Value::as_str).unwrap_or_default().to_owned();
    let has_keys = files.iter().any(|file| file.name.starts_with(KEYS));
    Ok(Checked { entries: report.entries, root, signed: report.checked_until, made_at, has_keys, files })
}

fn read_manifest(folder: &Path) -> Result<Value, BackupError> {
    let path = folder.join(MANIFEST);
    let not_one = |why: &str| BackupError::NotOne { path: folder.to_owned(), why: why.to_owned() };
    let file = match open_plain(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_one("it has no manifest.json")),
        Err(error) => return Err(error).at(&path),
    };
    let mut text = String::new();
    file.take(MAX_MANIFEST).read_to_string(&mut text).at(&path)?;
    let manifest: Value = serde_json::from_str(&text).map_err(|error| not_one(&format!("its manifest: {error}")))?;
    match manifest.get("format").and_then(Value::as_u64) {
        Some(FORMAT) => Ok(manifest),
        Some(other) => Err(not_one(&format!("it has format {other}, this version reads {FORMAT}"))),
        None => Err(not_one("its manifest states no format")),
    }
}

/// Names are taken from a closed set: none of them leads out of the folder.
fn listed_files(folder: &Path, manifest: &Value) -> Result<Vec<Listed>, BackupError> {
    let mut files: Vec<Listed> = Vec::new();
    let mut names = BTreeSet::new();
    for entry in manifest.get("files").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| entry.get(field).and_then(Value::as_str);
        let (Some(name), Some(size), Some(sha256)) =
            (text("path"), entry.get("size").and_then(Value::as_u64), text("sha256"))
        else {
            return Err(wrong(MANIFEST, "has an entry without path, size or sha256"));
        };
        if !is_ours(name) || !names.insert(name.to_owned()) {
            return Err(wrong(MANIFEST, &format!("names `{name}`, which is no file of a backup or was named before")));
        }
        files.push(Listed { name: name.to_owned(), size, sha256: sha256.to_owned() });
    }
    for needed in [Snapshot::DATABASE, VKEY] {
        if !names.contains(needed) {
            return Err(BackupError::NotOne { path: folder.to_owned(), why: format!("it has no `{needed}`") });
        }
    }
    Ok(files)
}

pub(crate) const SECRETS: [&str; 3] = ["log_key", "agent_hub_token.txt", "operator_token.txt"];

fn is_ours(name: &str) -> bool {
    match name.split_once('/') {
        None => [Snapshot::DATABASE, CHECKPOINT, VKEY].contains(&name),
        Some((Snapshot::OUTPUT, spool)) => Snapshot::is_spool(spool),
        Some((KEYS, key)) => SECRETS.contains(&key),
        Some(_) => false,
    }
}

/// A file beside those that were listed could be taken for part of the database.
fn nothing_else(folder: &Path, files: &[Listed]) -> Result<(), BackupError> {
    let known: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    for (below, prefix) in [("", ""), (Snapshot::OUTPUT, "output/"), (KEYS, "keys/")] {
        let path = folder.join(below);
        if below == KEYS && path.symlink_metadata().is_err() {
            continue;
        }
        for entry in fs::read_dir(&path).at(&path)? {
            let entry = entry.at(&path)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let folder = [Snapshot::OUTPUT, KEYS].contains(&name.as_str()) && entry.file_type().at(&path)?.is_dir();
            if !folder && name != MANIFEST && !known.contains(name.as_str()) {
                return Err(wrong(&name, "is in the folder and not in the manifest"));
            }
        }
    }
    Ok(())
}

fn tell(checked: &Checked, folder: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    let manifest = hashed(folder, MANIFEST)?.sha256;
    if as_json {
        let answer = json!({"ok": true, "path": folder.display().to_string(), "made_at": checked.made_at, "log_size": checked.entries, "root": checked.root, "signed_until": checked.signed, "files": checked.files.len(), "keys": checked.has_keys, "manifest_sha256": manifest});
        writeln!(out, "{answer}")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "backup    {}", visible_line(&folder.display().to_string()))?;
    writeln!(out, "made at   {}", visible_line(&checked.made_at))?;
    writeln!(out, "files     {}\nentries   {}\nroot      {}", checked.files.len(), checked.entries, checked.root)?;
    match checked.signed {
        Some(size) => writeln!(out, "signed    the first {size} entries fit the checkpoint")?,
        None => writeln!(out, "signed    nothing: there is no checkpoint yet")?,
    }
    writeln!(out, "manifest  sha256 {manifest}\nOK")?;
    Ok(ExitCode::SUCCESS)
}

/// Neither commands nor the loss of the runtime folder may reach a backup.
fn refuse_within_reach(settings: &Settings, beside: &Path) -> Result<(), Failure> {
    let reaches = [("the workspace", &settings.workspace), ("the runtime folder", &settings.runtime)];
    for (what, path) in reaches {
        if beside.starts_with(prepare::resolved(path)) {
            return Err(Failure::Usage(format!("a backup must not lie in {what}; name another folder")));
        }
    }
    Ok(())
}

fn secret_paths(settings: &Settings) -> [PathBuf; 3] {
    [settings.log_key_path(), settings.agent_token_path(), settings.operator_token_path()]
}

fn own_vkey(settings: &Settings) -> Result<String, BackupError> {
    let path = settings.log_key_path();
    let mut seed = Vec::new();
    let file = secrets::open_private(&path).at(&path)?;
    let file = file.ok_or_else(|| BackupError::Io { path: path.clone(), cause: io::ErrorKind::NotFound.into() })?;
    file.take(MAX_SMALL).read_to_end(&mut seed).at(&path)?;
    let seed = seed.try_into().map_err(|_| wrong("log_key", "is not 32 bytes"))?;
    let key = serve::log_key(seed).map_err(|error| wrong("log_key", &error.to_string()))?;
    Ok(format!("{}\n", key.vkey()))
}

fn vkey(path: &Path, text: &str) -> Result<VerifierKey, BackupError> {
    VerifierKey::parse(text.trim()).map_err(|error| wrong(&path.display().to_string(), &error.to_string()))
}

fn small(path: &Path) -> Result<String, BackupError> {
    let mut text = String::new();
    open_plain(path).at(path)?.take(MAX_SMALL).read_to_string(&mut text).at(path)?;
    Ok(text)
}

/// Opens a regular file, following no link and waiting for nobody.
pub(crate) fn open_plain(path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

fn hashed(folder: &Path, name: &str) -> Result<Listed, BackupError> {
    let path = folder.join(name);
    let (size, sha256) = open_plain(&path).and_then(|file| pour(file, &mut io::sink())).at(&path)?;
    Ok(Listed { name: name.to_owned(), size, sha256 })
}

/// Copies at most `most` bytes of `from` to a new file, durable when this returns.
pub(crate) fn copy(from: File, most: u64, folder: &Path, name: &str) -> Result<Listed, BackupError> {
    let path = folder.join(name);
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).at(&path)?;
    let (size, sha256) = pour(from.take(most), &mut to).at(&path)?;
    to.sync_all().at(&path)?;
    Ok(Listed { name: name.to_owned(), size, sha256 })
}

/// Returns how much was copied, and its hash.
fn pour(mut from: impl Read, to: &mut dyn io::Write) -> io::Result<(u64, String)> {
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; 64 << 10]);
    loop {
        let read = from.read(&mut buffer)?;
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
            return Ok((size, hex(&hasher.finalize())));
        };
        hasher.update(piece);
        to.write_all(piece)?;
        size = size.saturating_add(u64::try_from(read).unwrap_or(0));
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<Listed, BackupError> {
    secrets::write_private(&folder.join(name), bytes).at(&folder.join(name))?;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Ok(Listed { name: name.to_owned(), size, sha256: hex(&Sha256::digest(bytes)) })
}

/// A folder that nobody else can look into, gone again if we fail.
pub(crate) fn private_temporary(beside: &Path, prefix: &str) -> Result<tempfile::TempDir, BackupError> {
    let private = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix(prefix).permissions(private).tempdir_in(beside).at(beside)
}

pub(crate) fn make_folder(path: &Path) -> Result<(), BackupError> {
    fs::create_dir(path).at(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).at(path)
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|folder| folder.sync_all()).at(path)
}

pub(crate) fn rename(from: &Path, to: &Path, how: RenameFlags) -> Result<(), BackupError> {
    renameat2(AT_FDCWD, from, AT_FDCWD, to, how).at(to)
}

pub(crate) fn wrong(name: &str, why: &str) -> BackupError {
    BackupError::Wrong { name: name.to_owned(), why: why.to_owned() }
}

fn strings<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    value.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn warn(text: &str) -> io::Result<()> {
    writeln!(io::stderr(), "warning: {}", visible_line(text))
}
