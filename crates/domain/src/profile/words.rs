//! A profile as one sentence for whoever decides: every grant, every limit, and nothing else.

use super::builtin::CREDENTIALS;
use super::files::{Access, Files, Tmp};
use super::grants::{Grants, Profile};
use super::limits::{Resource, ResourceLimits};
use super::network::{HostPort, Network};

impl Profile {
    /// Returns what a command may do, in words. Equal grants have equal words, and every path, host, variable, limit and
    /// user that is granted stands in them.
    pub fn words(&self) -> String {
        let Grants { files, network, environment, limits, user } = self.grants();
        let mut clauses = vec![writes(files), calls(network), reads(files)];
        let names: Vec<String> = environment.iter().map(|name| name.as_str().to_owned()).collect();
        clauses.push(if names.is_empty() {
            "inherits no variable".to_owned()
        } else {
            format!("inherits {}", listed(&names))
        });
        clauses.push(bounds(limits));
        clauses.extend(user.as_ref().map(|user| format!("runs as `{}`", user.as_str())));
        clauses.join("; ")
    }
}

impl ResourceLimits {
    /// Returns the limits in words, each with its number; nothing where there are none.
    pub fn words(&self) -> Vec<String> {
        self.limited().map(|(resource, most)| limit(resource, most)).collect()
    }
}

fn writes(files: &Files) -> String {
    let written = paths(files, Access::Write);
    if files.everywhere() == Access::Write {
        let mut words = "writes whatever its user may".to_owned();
        if files.workspace() != Access::Write {
            words.push_str(" but below workspace/");
        }
        if !written.is_empty() {
            words.push_str(&format!(", also below {}", listed(&written)));
        }
        if files.tmp() == Tmp::Private {
            words.push_str(", with a private tmp");
        }
        return words;
    }
    let mut all = Vec::new();
    all.extend((files.workspace() == Access::Write).then(|| "workspace/".to_owned()));
    all.extend(written);
    all.push(match files.tmp() {
        Tmp::Private => "a private tmp".to_owned(),
        Tmp::Shared => "the host's tmp".to_owned(),
    });
    format!("writes only below {}", listed(&all))
}

fn calls(network: &Network) -> String {
    match network {
        Network::None => "no network".to_owned(),
        Network::Loopback => "network among its own processes only".to_owned(),
        Network::Hosts(hosts) => {
            let hosts: Vec<String> = hosts.iter().map(HostPort::as_str).map(str::to_owned).collect();
            format!("network to {} only", listed(&hosts))
        }
        Network::All => "network to any host but this one, through Provara's proxy".to_owned(),
        Network::Host => "the host's own network, this machine's services included".to_owned(),
    }
}

fn reads(files: &Files) -> String {
    let mut hidden = vec!["Provara's own files".to_owned()];
    let is_covered = |credential: &str| files.homes().any(|home| holds_credential(home.as_str(), credential));
    let all_credentials = CREDENTIALS.iter().all(|credential| is_covered(credential));
    hidden.extend(all_credentials.then(|| "credential folders".to_owned()));
    let told = |home: &str| all_credentials && CREDENTIALS.contains(&home);
    hidden.extend(files.homes().filter(|home| !told(home.as_str())).map(|home| format!("`{}`", home.as_str())));
    hidden.extend(paths(files, Access::Hidden));
    let read = paths(files, Access::Read);
    if files.everywhere() == Access::Hidden {
        let mut readable = Vec::new();
        readable.extend((files.workspace() == Access::Read).then(|| "workspace/".to_owned()));
        readable.extend(read);
        let beside = if readable.is_empty() { "nothing".to_owned() } else { format!("only {}", listed(&readable)) };
        return format!("reads {beside} beside that, never {}", listed(&hidden));
    }
    let kept = if read.is_empty() { String::new() } else { format!(", and changes nothing below {}", listed(&read)) };
    format!("reads everything but {}{kept}", listed(&hidden))
}

fn holds_credential(home: &str, credential: &str) -> bool {
    credential.strip_prefix(home).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn bounds(limits: &ResourceLimits) -> String {
    match limits.words().as_slice() {
        [] => "limited by the host alone".to_owned(),
        words => format!("at most {}", listed(words)),
    }
}

fn limit(resource: Resource, most: u64) -> String {
    match resource {
        Resource::Cpu => format!("{most} s of processor time"),
        Resource::Memory => format!("{} of memory", bytes(most)),
        Resource::Processes => format!("{most} processes"),
        Resource::OpenFiles => format!("{most} open files each"),
        Resource::FileSize => format!("{} a file", bytes(most)),
        Resource::Output => format!("{} of output", bytes(most)),
    }
}

fn bytes(count: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.into_iter().find(|(unit, _)| count >= *unit && count.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{count} bytes"), |(unit, name)| format!("{} {name}", count / unit))
}

/// Paths of exactly that access, quoted.
fn paths(files: &Files, access: Access) -> Vec<String> {
    files.paths().filter(|(_, known)| *known == access).map(|(path, _)| format!("`{}`", path.as_str())).collect()
}

fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
