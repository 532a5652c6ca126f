//! `profiles.toml`, read and checked. All faults are told at once, each with its line.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use provara_domain::{
    Access, AskedBy, EnvName, Files, Grants, HomePath, HostPort, Name, Network, Profile, ProfileName, ProfilePath,
    Profiles, Resource, ResourceLimits, Tmp, UserName,
};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use toml::Spanned;

use super::own::{OwnFiles, exposes};
use crate::egress::Allowed;

/// A file of profiles.
#[derive(Debug, Clone, Copy)]
pub struct ProfileFile<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// Its TOML.
    pub text: &'a str,
}

/// Whether this host can mount what a profile needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// Commands get a view of their own.
    Available,
    /// They do not.
    Missing,
}

/// Everything that is wrong with a file of profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileErrors(pub Vec<ProfileError>);

/// One fault of a file of profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileError {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where the fault is of the whole file.
    pub line: usize,
    /// The profile, where the fault is in one.
    pub profile: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub mend: &'static str,
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if let Some(profile) = &self.profile {
            write!(f, ": profile `{profile}`")?;
        }
        write!(f, ": {}; {}", self.what, self.mend)
    }
}

impl fmt::Display for ProfileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ProfileErrors {}

/// Of the file, in bytes.
const MAX_FILE: usize = 1 << 18;
const MAX_PROFILES: usize = 64;
/// Of one list.
const MAX_LISTED: usize = 128;
/// Told in all.
const MAX_FAULTS: usize = 100;
/// Of a text of the file that is told, in characters.
const MAX_TOLD: usize = 120;
/// Variables of this beginning are Provara's settings, tokens among them.
const OWN_VARIABLES: &str = "AGENT_HUB_";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    profile: Vec<RawProfile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    name: Spanned<String>,
    extends: Option<Spanned<String>>,
    #[serde(default)]
    agents_may_ask: bool,
    readable: Option<Spanned<Listed>>,
    writable: Option<Spanned<Listed>>,
    hidden: Option<Spanned<Listed>>,
    network: Option<Spanned<Listed>>,
    environment: Option<Spanned<Listed>>,
    #[serde(default)]
    limits: BTreeMap<Spanned<String>, Spanned<Amount>>,
    user: Option<Spanned<String>>,
}

/// One word, or a list of texts.
enum Listed {
    Word(String),
    List(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Listed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a list of texts")
            }
            fn visit_str<E>(self, word: &str) -> Result<Listed, E> {
                Ok(Listed::Word(word.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Listed, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if list.len() >= MAX_LISTED {
                        return Err(A::Error::custom(format_args!("a list has at most {MAX_LISTED} entries")));
                    }
                    list.push(item);
                }
                Ok(Listed::List(list))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A number, or bytes with their unit.
struct Amount(Option<u64>);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Amount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, or bytes with their unit (`\"2 GiB\"`)")
            }
            fn visit_i64<E>(self, number: i64) -> Result<Amount, E> {
                Ok(Amount(u64::try_from(number).ok()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount(Some(number)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Amount, E> {
                Ok(Amount(bytes(text)))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once(' ')?;
    let unit: u64 = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| digits)?.checked_mul(unit)
}

/// Returns the built-in profiles and those of `file`. No profile may make one of `own` reachable.
///
/// # Errors
/// With every fault of the file; nothing is loaded then.
pub fn load_profiles(file: &ProfileFile<'_>, own: &OwnFiles, mounts: Mounts) -> Result<Profiles, ProfileErrors> {
    let mut loading = Loading { file: *file, own, mounts, profiles: Profiles::builtin(), errors: Vec::new() };
    loading.read();
    let Loading { profiles, mut errors, .. } = loading;
    errors.truncate(MAX_FAULTS);
    if errors.is_empty() { Ok(profiles) } else { Err(ProfileErrors(errors)) }
}

struct Loading<'a> {
    file: ProfileFile<'a>,
    own: &'a OwnFiles,
    mounts: Mounts,
    profiles: Profiles,
    errors: Vec<ProfileError>,
}

/// Where a fault is.
struct At<'a> {
    profile: Option<&'a str>,
    span: Option<Range<usize>>,
}

impl Loading<'_> {
    fn read(&mut self) {
        let whole = || At { profile: None, span: None };
        let length = self.file.text.len();
        if length > MAX_FILE {
            let what = format!("it has {length} bytes, and {MAX_FILE} are read at most");
            return self.fault(&whole(), what, "write fewer profiles");
        }
        let raw: RawFile = match toml::from_str(self.file.text) {
            Ok(raw) => raw,
            Err(error) => {
                let at = At { profile: None, span: error.span() };
                return self.fault(&at, error.message().to_owned(), "write it as `docs/profiles.md` shows");
            }
        };
        if raw.profile.len() > MAX_PROFILES {
            let what = format!("it has {} profiles, and {MAX_PROFILES} are read at most", raw.profile.len());
            return self.fault(&whole(), what, "write fewer profiles");
        }
        raw.profile.into_iter().for_each(|profile| self.take(profile));
    }

    fn take(&mut self, raw: RawProfile) {
        let name = raw.name.get_ref().clone();
        let at = |span: Range<usize>| At { profile: Some(&name), span: Some(span) };
        let Ok(checked) = Name::parse(&name) else {
            let what = "its name is not 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit";
            return self.fault(&at(raw.name.span()), what.to_owned(), "give it another name");
        };
        let base = self.base(&name, raw.extends);
        let files = self.files(&name, base.grants().files.clone(), raw.readable, raw.writable, raw.hidden);
        if let (Mounts::Missing, Some(path)) = (self.mounts, files.exception()) {
            let what = format!("`{}` may be used less than the folder that holds it", path.as_str());
            self.fault(
                &at(raw.name.span()),
                what,
                "only a host that allows mount namespaces can hold that; leave it out",
            );
        }
        let grants = Grants {
            files,
            network: self.network(&name, base.grants().network.clone(), raw.network),
            environment: match raw.environment {
                None => base.grants().environment.clone(),
                Some(listed) => self.environment(&name, listed).into_iter().collect(),
            },
            limits: self.limits(&name, base.grants().limits, raw.limits),
            user: raw.user.and_then(|user| match UserName::parse(user.get_ref()) {
                Ok(user) => Some(user),
                Err(error) => {
                    self.fault(&at(user.span()), error.to_string(), "name a user that owns nothing of Provara's");
                    None
                }
            }),
        };
        let asked_by = if raw.agents_may_ask { AskedBy::Agents } else { AskedBy::PeopleOnly };
        // After a fault too: who mends it should not only then be told that the name is taken.
        if let Err(error) = self.profiles.add(Profile::new(ProfileName::new(checked), grants, asked_by)) {
            self.fault(&at(raw.name.span()), error.to_string(), "give it another name");
        }
    }

    /// What a profile begins with: the tightest one where it does not say.
    fn base(&mut self, name: &str, extends: Option<Spanned<String>>) -> Profile {
        let Some(extends) = extends else { return Profile::read_only() };
        match extends.get_ref().as_str() {
            "read-only" => Profile::read_only(),
            ProfileName::WORKSPACE => Profile::workspace(),
            "network" => Profile::network(),
            other => {
                let what = format!("it extends `{}`", shortened(other));
                let at = At { profile: Some(name), span: Some(extends.span()) };
                self.fault(&at, what, "extend `read-only`, `workspace` or `network`");
                Profile::read_only()
            }
        }
    }

    fn files(
        &mut self,
        name: &str,
        base: Files,
        readable: Option<Spanned<Listed>>,
        writable: Option<Spanned<Listed>>,
        hidden: Option<Spanned<Listed>>,
    ) -> Files {
        let (mut everywhere, mut workspace) = (base.everywhere(), base.workspace());
        let mut paths = BTreeMap::new();
        let mut homes: Vec<HomePath> = base.homes().cloned().collect();
        match readable.map(Spanned::into_inner) {
            None => {}
            Some(Listed::Word(word)) if word == "all" => everywhere = Access::Read,
            Some(listed) => {
                everywhere = Access::Hidden;
                for entry in self.entries(name, listed, "name paths, or say \"all\"") {
                    // A workspace can always be read.
                    if entry.get_ref() != "workspace" {
                        self.path(name, &entry, Access::Read, &mut paths);
                    }
                }
            }
        }
        if let Some(listed) = writable {
            workspace = Access::Read;
            for entry in self.entries(name, listed.into_inner(), "name paths, or `workspace` among them") {
                match entry.get_ref().as_str() {
                    "workspace" => workspace = Access::Write,
                    _ => self.path(name, &entry, Access::Write, &mut paths),
                }
            }
        }
        if let Some(listed) = hidden {
            for entry in self.entries(name, listed.into_inner(), "name paths") {
                if !entry.get_ref().starts_with('~') {
                    self.path(name, &entry, Access::Hidden, &mut paths);
                    continue;
                }
                match HomePath::parse(entry.get_ref()) {
                    Ok(home) => homes.push(home),
                    Err(error) => self.bad_path(name, &entry, &error),
                }
            }
        }
        Files::new(everywhere, workspace, Tmp::Private, paths, homes)
    }

    fn path(&mut self, name: &str, entry: &Spanned<String>, access: Access, paths: &mut BTreeMap<ProfilePath, Access>) {
        let at = At { profile: Some(name), span: Some(entry.span()) };
        let path = match ProfilePath::parse(entry.get_ref()) {
            Ok(path) => path,
            Err(error) => return self.bad_path(name, entry, &error),
        };
        if path == ProfilePath::root() {
            let what = format!("it names `/` as {}", access.as_str());
            return self.fault(
                &at,
                what,
                "name folders; `readable = \"all\"` reads everything but Provara's own files",
            );
        }
        if access != Access::Hidden
            && let Some(what) = exposes(Path::new(path.as_str()), access, self.own)
        {
            return self.fault(&at, what, "no profile makes Provara's own files reachable; name folders beside them");
        }
        if paths.insert(path, access).is_some() {
            let what = format!("`{}` is named twice", shortened(entry.get_ref()));
            self.fault(&at, what, "a path is readable, writable or hidden: keep one");
        }
    }

    fn bad_path(&mut self, name: &str, entry: &Spanned<String>, error: &dyn fmt::Display) {
        let at = At { profile: Some(name), span: Some(entry.span()) };
        let what = format!("the path `{}` {error}", shortened(entry.get_ref()));
        self.fault(&at, what, "write an absolute path without `.` and `..`; hidden ones may begin with `~/`");
    }

    fn network(&mut self, name: &str, base: Network, network: Option<Spanned<Listed>>) -> Network {
        let Some(network) = network else { return base };
        let span = network.span();
        match network.into_inner() {
            Listed::Word(word) => match word.as_str() {
                "none" => Network::None,
                "loopback" => Network::Loopback,
                "all" => Network::All,
                other => {
                    let what = format!("`{}` is no network", shortened(other));
                    let at = At { profile: Some(name), span: Some(span) };
                    self.fault(&at, what, "say \"none\", \"loopback\", \"all\", or list hosts: [\"example.org:443\"]");
                    Network::None
                }
            },
            Listed::List(list) => {
                let mut hosts = std::collections::BTreeSet::new();
                for entry in list {
                    let fault = match HostPort::parse(entry.get_ref()) {
                        // The proxy decides by name, so what it would refuse is no part of a profile.
                        Ok(host) if Allowed::parse([host.as_str()]).is_err() => {
                            format!("`{}` is not the whole name of a host", host.as_str())
                        }
                        Ok(_) if hosts.len() >= Allowed::MOST => {
                            format!(
                                "`{}` is one more than the {} hosts of a run",
                                shortened(entry.get_ref()),
                                Allowed::MOST
                            )
                        }
                        Ok(host) if hosts.insert(host.clone()) => continue,
                        Ok(host) => format!("`{}` is named twice", host.as_str()),
                        Err(error) => format!("`{}` {error}", shortened(entry.get_ref())),
                    };
                    let at = At { profile: Some(name), span: Some(entry.span()) };
                    self.fault(&at, fault, "name each host with its port once");
                }
                if hosts.is_empty() { Network::None } else { Network::Hosts(hosts) }
            }
        }
    }

    fn environment(&mut self, name: &str, listed: Spanned<Listed>) -> Vec<EnvName> {
        let mut names = Vec::new();
        for entry in self.entries(name, listed.into_inner(), "name variables") {
            let fault = match EnvName::parse(entry.get_ref().clone()) {
                Ok(_) if entry.get_ref().starts_with(OWN_VARIABLES) => {
                    format!("`{}` is a setting of Provara's own, and may be a token", shortened(entry.get_ref()))
                }
                Ok(variable) if names.contains(&variable) => format!("`{}` is named twice", shortened(entry.get_ref())),
                Ok(variable) => {
                    names.push(variable);
                    continue;
                }
                Err(error) => format!("`{}`: {error}", shortened(entry.get_ref())),
            };
            let at = At { profile: Some(name), span: Some(entry.span()) };
            self.fault(&at, fault, "name variables that commands may know, each once");
        }
        names
    }

    fn limits(
        &mut self,
        name: &str,
        base: ResourceLimits,
        limits: BTreeMap<Spanned<String>, Spanned<Amount>>,
    ) -> ResourceLimits {
        limits.into_iter().fold(base, |limits, (key, amount)| {
            let at = At { profile: Some(name), span: Some(key.span()) };
            let Some(resource) = Resource::parse(key.get_ref()) else {
                let all = Resource::ALL.map(Resource::as_str).join("`, `");
                let what = format!("`{}` is no limit", shortened(key.get_ref()));
                self.fault(&at, format!("{what}; there are `{all}`"), "name one of these");
                return limits;
            };
            let most = amount.into_inner().0.unwrap_or(0);
            limits.with(resource, most).unwrap_or_else(|error| {
                self.fault(&at, error.to_string(), "give a number; bytes may have a unit: \"64 MiB\", \"2 GiB\"");
                limits
            })
        })
    }

    fn entries(&mut self, name: &str, listed: Listed, mend: &'static str) -> Vec<Spanned<String>> {
        match listed {
            Listed::List(list) => list,
            Listed::Word(word) => {
                let what = format!("`{}` stands where a list has to", shortened(&word));
                self.fault(&At { profile: Some(name), span: None }, what, mend);
                Vec::new()
            }
        }
    }

    fn fault(&mut self, at: &At<'_>, what: String, mend: &'static str) {
        let begun = at.span.as_ref().and_then(|span| self.file.text.get(..span.start));
        let line = begun.map_or(0, |before| before.bytes().filter(|byte| *byte == b'\n').count() + 1);
        let profile = at.profile.map(shortened);
        self.errors.push(ProfileError { file: self.file.name.to_owned(), line, profile, what: visible(&what), mend });
    }
}

fn shortened(text: &str) -> String {
    let shown = visible(text);
    if shown.chars().count() <= MAX_TOLD { shown } else { shown.chars().take(MAX_TOLD).chain(['…']).collect() }
}

/// A message is one line, whatever the file holds.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests;
