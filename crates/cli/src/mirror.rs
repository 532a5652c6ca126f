//! The log outside the store: a mirror in JSON Lines, and checkpoints sent where this server cannot take them back.
//!
//! The server never reads the mirror as truth: at start it is cut to whole lines, compared in length with the store, and
//! continued.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use provara_faults::{Place, reached};
use provara_gateway::Gateway;
use ureq::tls::TlsConfig;

/// How many entries are read at once.
const BATCH: u32 = 500;
/// How long changes may wait, so that one write and one checkpoint cover what came in between.
const PAUSE: Duration = Duration::from_millis(500);

/// Where checkpoints go.
#[derive(Debug)]
pub(crate) struct Sinks {
    pub(crate) addresses: Vec<String>,
    /// Whose certificates are believed there.
    pub(crate) trust: TlsConfig,
}

/// Keeps the mirror and the sinks up to date until the server ends.
pub(crate) async fn keep(gateway: Gateway, folder: PathBuf, sinks: Sinks) {
    let mut head = gateway.watch_head();
    let mut mirrored: Option<(File, u64)> = None;
    loop {
        if let Err(error) = catch_up(&gateway, &folder, &mut mirrored).await {
            tracing::error!(%error, "could not write the log's mirror; will try again");
            mirrored = None;
        }
        match gateway.checkpoint().await {
            Ok(note) => send(&folder, &sinks, &note).await,
            Err(error) => tracing::error!(%error, "no checkpoint to send"),
        }
        tokio::time::sleep(PAUSE).await;
        if head.changed().await.is_err() {
            return;
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn catch_up(gateway: &Gateway, folder: &Path, mirrored: &mut Option<(File, u64)>) -> Result<(), Failure> {
    let (file, next) = match mirrored {
        Some(open) => (&mut open.0, &mut open.1),
        None => {
            let open = mirrored.insert(open(folder, gateway.head())?);
            (&mut open.0, &mut open.1)
        }
    };
    loop {
        let entries = gateway.all_entries(*next, BATCH).await?;
        let Some(last) = entries.last() else {
            gateway.note_mirrored(*next);
            return Ok(());
        };
        let lines: String = entries.iter().map(|entry| gateway.export_line(entry) + "\n").collect();
        reached(Place::MirrorReady);
        file.write_all(lines.as_bytes())?;
        *next = last.position + 1;
    }
}

/// The mirror, ready to be continued, and the position that comes next. A torn last line is cut off; a mirror that is
/// longer than the store is somebody else's and is put aside.
fn open(folder: &Path, head: u64) -> io::Result<(File, u64)> {
    crate::secrets::private_dir(folder)?;
    let path = folder.join("log.jsonl");
    let (mut lines, mut good) = (0, 0);
    if let Ok(file) = File::open(&path) {
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && line.last() == Some(&b'\n') {
            lines += 1;
            good += u64::try_from(line.len()).unwrap_or(0);
            line.clear();
        }
    }
    if lines > head {
        tracing::error!(lines, head, "the log's mirror is longer than the log; it was put aside as log.jsonl.old");
        fs::rename(&path, folder.join("log.jsonl.old"))?;
        (lines, good) = (0, 0);
    }
    let file = OpenOptions::new().create(true).append(true).open(&path)?;
    file.set_len(good)?;
    Ok((file, lines))
}

/// Keeps the checkpoint beside the mirror and sends it to every sink. A sink that fails is told of and tried again with
/// the next checkpoint, which covers this one.
async fn send(folder: &Path, sinks: &Sinks, note: &str) {
    let here = format!("file:{}", folder.join("checkpoint").display());
    for sink in std::iter::once(&here).chain(&sinks.addresses) {
        let (sink, trust, note) = (sink.clone(), sinks.trust.clone(), note.to_owned());
        let sending = move || send_one(&sink, trust, &note).map_err(|error| (sink, error));
        let sent = tokio::task::spawn_blocking(sending).await;
        if let Ok(Err((sink, error))) = sent {
            tracing::error!(sink = told(&sink), %error, "could not send a checkpoint");
        }
    }
}

/// A sink as the log may name it: of an address its host alone, for the rest of it may be a password or a key.
fn told(sink: &str) -> String {
    let Some((scheme, rest)) = sink.split_once("://") else { return sink.to_owned() };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}")
}

fn send_one(sink: &str, trust: TlsConfig, note: &str) -> Result<(), Failure> {
    if let Some(path) = sink.strip_prefix("file:") {
        return Ok(replace(Path::new(path), note)?);
    }
    if let Some(folder) = sink.strip_prefix("git:") {
        return commit(Path::new(folder), note);
    }
    if sink.starts_with("http://") || sink.starts_with("https://") {
        let config = ureq::Agent::config_builder()
            .tls_config(trust)
            .timeout_global(Some(Duration::from_secs(10)))
            .max_redirects(0);
        let sent = config.build().new_agent().post(sink).header("content-type", "text/plain; charset=utf-8").send(note);
        return match sent {
            Ok(_) => Ok(()),
            // Its text would be the address.
            Err(ureq::Error::BadUri(_)) => Err("the address cannot be used".into()),
            Err(error) => Err(error.into()),
        };
    }
    Err(format!("`{sink}` is no sink: use file:PATH, git:FOLDER, http://… or https://…").into())
}

/// Writes a file whole or not at all: a reader never meets half of it.
pub(crate) fn replace(path: &Path, note: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(note.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

fn commit(folder: &Path, note: &str) -> Result<(), Failure> {
    let path = folder.join("checkpoint");
    if fs::read_to_string(&path).is_ok_and(|kept| kept == note) {
        return Ok(());
    }
    replace(&path, note)?;
    let identity = ["-c", "user.name=provara", "-c", "user.email=provara@localhost", "-c", "commit.gpgsign=false"];
    for arguments in [&["add", "checkpoint"][..], &["commit", "--quiet", "--message", "Keep a checkpoint"][..]] {
        // The folder's hooks are not ours: neither tokens nor the supervisor's socket are for them.
        let kept = ["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut git = Command::new("git");
        let status = git.env_clear().envs(kept).arg("-C").arg(folder).args(identity).args(arguments).status()?;
        if !status.success() {
            return Err(format!("git ended with {status}").into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_names_a_sink_without_what_opens_it() {
        for (sink, expected) in [
            ("https://user:secret@sink.example:8443/path/key?token=x", "https://sink.example:8443"),
            ("http://secret@sink.example#x", "http://sink.example"),
            ("https://sink.example?token=x", "https://sink.example"),
            ("file:/srv/kept", "file:/srv/kept"),
            ("git:/srv/kept@home", "git:/srv/kept@home"),
        ] {
            assert_eq!(told(sink), expected);
        }
        for bad in ["http://:secret@", "http:///secret", "https://user:secret@"] {
            let error = send_one(bad, TlsConfig::default(), "note").unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
