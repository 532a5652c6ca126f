//! Settings, strongest first: flags, environment (`AGENT_HUB_*`), `ROOT/.env`, `ROOT/provara.toml`, defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use provara_runner::egress::Allowed;

/// What every variable's name begins with.
pub(crate) const PREFIX: &str = "AGENT_HUB_";

/// The largest configuration file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Every setting there is, with its default (empty: none) and its meaning. A name that is not here is an error.
/// `docs/configuration.md` holds this table; a test compares them.
pub(crate) const KEYS: &[(&str, &str, &str)] = &[
    ("ALLOWED_HOSTS", "", "names that browsers may call this server by, separated by commas"),
    ("ALLOW_HOST_SAME_USER", "0", "1: the profile `host` runs even where it cannot be kept from Provara's own files"),
    ("BASE", "", "the server's address, for clients; where absent, what the server in ROOT says, else HOST and PORT"),
    (
        "CA_CERT",
        "",
        "the authority's certificates that clients, and the server at its checkpoint sinks, believe, PEM; the public ones where absent",
    ),
    ("CHECKPOINT_SINKS", "", "where checkpoints and entries are copied to: file:PATH, http(s)://…, git:PATH"),
    ("COOL_DOWN_SECONDS", "3600", "how long a person's denial counts against equal plans of the same agent"),
    ("CORS_ORIGINS", "", "loopback origins whose pages may call the API"),
    (
        "DENIALS_BEFORE_COOL_DOWN",
        "3",
        "so many denials of equal plans, and the next one is refused until the oldest no longer counts; 0 never does",
    ),
    ("HOST", "127.0.0.1", "the address to listen on"),
    (
        "INTERNAL_HOSTS",
        "",
        "hosts with their ports, name:port or *.name:port, whose addresses may be private for commands that may call them",
    ),
    ("LOG_LEVEL", "INFO", "ERROR, WARNING, INFO, DEBUG or TRACE"),
    ("MAX_PENDING", "1000", "pending plans that one agent may have"),
    ("OPERATOR_TOKEN", "", "the approver's token"),
    ("OPERATOR_TOKEN_FILE", "0", "1: the first start writes the approver's token into the runtime folder"),
    ("OUTPUT_KEEP", "16777216", "bytes kept of each output stream"),
    ("PORT", "8787", "the port to listen on; 0 takes a free one"),
    ("PUBLIC_URL", "", "the address that people use in their browser"),
    ("RATE_LIMIT_REQUESTS", "100", "requests that one client address may make in a window"),
    ("RATE_LIMIT_WINDOW_SECONDS", "60", "the window's length"),
    ("REDACT_OUTPUT", "1", "0: secrets in what commands write are kept as they are"),
    ("RETENTION_DAYS", "", "days after which a settled plan's command, input and output are erased; never by default"),
    ("ROOT", ".", "the folder that holds configuration, runtime and workspace"),
    ("RUNTIME_DIR", "runtime", "the folder for database, keys and tokens, below ROOT unless absolute"),
    ("RUN_AS", "", "the user that commands run as when the server is root's"),
    ("SECRETS", "", "a file of own rules that know secrets, added to the built-in ones; below ROOT unless absolute"),
    ("SHELL", "bash", "the shell of a plan that names none: bash, sh or pwsh"),
    ("SINGLE_TOKEN", "0", "1: one token proposes and decides; gives up that nobody approves their own commands"),
    ("STRICT_MODE", "0", "1: a command that no rule knows is denied instead of asked"),
    ("TLS_CERT", "", "the certificate chain, PEM"),
    ("TLS_KEY", "", "the certificate's key, PEM"),
    ("TOKEN", "", "the agent's token"),
    ("TRUSTED_PROXIES", "", "addresses whose X-Forwarded-For counts"),
    ("WORKSPACE_DIR", "workspace", "the folder that commands work in, below ROOT unless absolute"),
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Flag,
    Environment,
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("the command line"),
            Self::Environment => f.write_str("the environment"),
            Self::File(path) => write!(f, "`{}`", path.display()),
        }
    }
}

/// Why the settings cannot be used. Never carries a token's value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("unknown setting `{name}` in {from}; did you mean `{nearest}`?")]
    Unknown { name: String, from: Source, nearest: String },
    #[error("setting {PREFIX}{key} in {from} is not {expected}")]
    Value { key: &'static str, from: Source, expected: &'static str },
    #[error("`{}` belongs to another user; it must belong to you or to root", path.display())]
    Owner { path: PathBuf },
    #[error("`{}` can be written by others; run: chmod go-w {}", path.display(), path.display())]
    Writable { path: PathBuf },
    #[error("`{}` cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("`{}` cannot be understood: {why}", path.display())]
    Syntax { path: PathBuf, why: String },
    #[error("the folder `{}` cannot be used; make it with `mkdir -p`, or name another with --root", path.display())]
    Root {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

/// What was set, before anybody asked what it means.
#[derive(Debug, Default)]
struct Layers(BTreeMap<&'static str, (String, Source)>);

/// A secret. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(value: String) -> Self {
        Self(value)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The settings in force.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) root: PathBuf,
    pub(crate) runtime: PathBuf,
    pub(crate) workspace: PathBuf,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) base: Option<(String, Source)>,
    pub(crate) token: Option<Secret>,
    pub(crate) operator_token: Option<Secret>,
    pub(crate) operator_token_file: bool,
    pub(crate) single_token: bool,
    pub(crate) log_level: LogLevel,
    pub(crate) rate_limit_requests: u32,
    pub(crate) rate_limit_window: Duration,
    pub(crate) strict_mode: bool,
    pub(crate) shell: provara_domain::Shell,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) ca_cert: Option<PathBuf>,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) trusted_proxies: Vec<IpAddr>,
    pub(crate) internal_hosts: Allowed,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) public_url: Option<String>,
    pub(crate) max_pending: u32,
    pub(crate) denials_before_cool_down: u32,
    pub(crate) cool_down: Duration,
    pub(crate) output_keep: u64,
    pub(crate) redact_output: provara_gateway::OutputRedaction,
    pub(crate) secrets: Option<PathBuf>,
    pub(crate) run_as: Option<String>,
    pub(crate) allow_host_same_user: bool,
    pub(crate) checkpoint_sinks: Vec<String>,
    pub(crate) retention: Option<Duration>,
    /// The configuration files that were read.
    pub(crate) files: Vec<PathBuf>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Error,
    Warning,
    Info,
    Debug,
    Trace,
}

impl Settings {
    /// Returns the settings that `flags` (by key, without prefix), `environment` and the files below the root amount to.
    pub(crate) fn load(
        flags: &[(&'static str, String)],
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut stated = Layers::default();
        for (key, value) in flags {
            stated.offer(key, value.clone(), Source::Flag);
        }
        for (name, value) in environment {
            if name.starts_with(PREFIX) {
                let key = known(&name, &Source::Environment)?;
                stated.offer(key, value, Source::Environment);
            }
        }
        let root = PathBuf::from(stated.0.get("ROOT").map_or(".", |(value, _)| value.as_str()));
        let root = root.canonicalize().map_err(|cause| ConfigError::Root { path: root, cause })?;
        let mut files = Vec::new();
        let readers: [(&str, Parse); 2] = [(".env", parse_env), ("provara.toml", parse_toml)];
        for (name, parse) in readers {
            let path = root.join(name);
            if let Some(text) = read_trusted(&path)? {
                for (key, value) in parse(&text, &path)? {
                    stated.offer(key, value, Source::File(path.clone()));
                }
                files.push(path);
            }
        }
        stated.settle(root, files)
    }

    /// Returns where the agent's token is kept when it was not configured.
    pub(crate) fn agent_token_path(&self) -> PathBuf {
        self.runtime.join("agent_hub_token.txt")
    }

    /// Returns where the approver's token is kept, if it is kept at all.
    pub(crate) fn operator_token_path(&self) -> PathBuf {
        self.runtime.join("operator_token.txt")
    }

    /// Returns where the seed of the log's signing key is kept.
    pub(crate) fn log_key_path(&self) -> PathBuf {
        self.runtime.join("log_key")
    }

    /// Returns whether only this machine can reach the server.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

type Parse = fn(&str, &Path) -> Result<Vec<(&'static str, String)>, ConfigError>;

impl Layers {
    /// The first to speak wins: layers are offered strongest first.
    fn offer(&mut self, key: &'static str, value: String, from: Source) {
        self.0.entry(key).or_insert((value, from));
    }

    fn settle(mut self, root: PathBuf, files: Vec<PathBuf>) -> Result<Settings, ConfigError> {
        Ok(Settings {
            runtime: root.join(self.text("RUNTIME_DIR").unwrap_or_else(|| "runtime".to_owned())),
            workspace: root.join(self.text("WORKSPACE_DIR").unwrap_or_else(|| "workspace".to_owned())),
            host: self.text("HOST").unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: self.parsed("PORT", "a port number, 0 to 65535", |raw| raw.parse().ok())?.unwrap_or(8787),
            base: self.0.remove("BASE").filter(|(value, _)| !value.is_empty()),
            token: self.secret("TOKEN")?,
            operator_token: self.secret("OPERATOR_TOKEN")?,
            operator_token_file: self.flag("OPERATOR_TOKEN_FILE")?,
            single_token: self.flag("SINGLE_TOKEN")?,
            log_level: self
                .parsed("LOG_LEVEL", "one of ERROR, WARNING, INFO, DEBUG, TRACE", log_level)?
                .unwrap_or(LogLevel::Info),
            rate_limit_requests: self
                .parsed("RATE_LIMIT_REQUESTS", "a number above 0", |raw| raw.parse().ok().filter(|n| *n > 0))?
                .unwrap_or(100),
            rate_limit_window: self
                .parsed("RATE_LIMIT_WINDOW_SECONDS", "a number of seconds above 0", |raw| {
                    raw.parse().ok().filter(|n| *n > 0).map(Duration::from_secs)
                })?
                .unwrap_or(Duration::from_secs(60)),
            strict_mode: self.flag("STRICT_MODE")?,
            shell: self
                .parsed("SHELL", "one of bash, sh, pwsh", |raw| {
                    serde_json::from_value(serde_json::Value::String(raw.to_owned())).ok()
                })?
                .unwrap_or(provara_domain::Shell::Bash),
            tls_cert: self.text("TLS_CERT").map(|path| root.join(path)),
            tls_key: self.text("TLS_KEY").map(|path| root.join(path)),
            ca_cert: self.text("CA_CERT").map(|path| root.join(path)),
            allowed_hosts: self.list("ALLOWED_HOSTS"),
            trusted_proxies: self
                .parsed("TRUSTED_PROXIES", "a list of IP addresses", |raw| {
                    split(raw).map(|ip| ip.parse().ok()).collect::<Option<Vec<IpAddr>>>()
                })?
                .unwrap_or_default(),
            cors_origins: self.list("CORS_ORIGINS"),
            internal_hosts: self
                .parsed("INTERNAL_HOSTS", "a list of at most 64 hosts, name:port or *.name:port", |raw| {
                    Allowed::parse(split(raw)).ok()
                })?
                .unwrap_or_default(),
            public_url: self.text("PUBLIC_URL"),
            max_pending: self
                .parsed("MAX_PENDING", "a number above 0", |raw| raw.parse().ok().filter(|n| *n > 0))?
                .unwrap_or(1000),
            denials_before_cool_down: self
                .parsed("DENIALS_BEFORE_COOL_DOWN", "a number from 0 to 1000", |raw| {
                    raw.parse().ok().filter(|n| *n <= 1000)
                })?
                .unwrap_or(3),
            cool_down: self
                .parsed("COOL_DOWN_SECONDS", "a number of seconds from 1 to 604800", |raw| {
                    raw.parse().ok().filter(|n| (1..=604_800).contains(n)).map(Duration::from_secs)
                })?
                .unwrap_or(Duration::from_secs(3600)),
            output_keep: self
                .parsed("OUTPUT_KEEP", "a number of bytes, at least 4096", |raw| {
                    raw.parse().ok().filter(|n| *n >= 4096)
                })?
                .unwrap_or(16 << 20),
            redact_output: if self.switch("REDACT_OUTPUT")?.unwrap_or(true) {
                provara_gateway::OutputRedaction::On
            } else {
                provara_gateway::OutputRedaction::Off
            },
            secrets: self.text("SECRETS").map(|path| root.join(path)),
            run_as: self.text("RUN_AS"),
            allow_host_same_user: self.flag("ALLOW_HOST_SAME_USER")?,
            checkpoint_sinks: self.list("CHECKPOINT_SINKS"),
            retention: self.parsed("RETENTION_DAYS", "a number of days, 1 to 36500", |raw| {
                let days = raw.parse().ok().filter(|days: &u64| (1..=36_500).contains(days));
                days.map(|days| Duration::from_secs(days * 86_400))
            })?,
            root,
            files,
        })
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        self.0.remove(key).map(|(value, _)| value).filter(|value| !value.is_empty())
    }

    fn list(&mut self, key: &'static str) -> Vec<String> {
        self.text(key).map(|raw| split(&raw).map(str::to_owned).collect()).unwrap_or_default()
    }

    fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.0.remove(key) {
            Some((raw, from)) if !raw.trim().is_empty() => {
                parse(raw.trim()).map(Some).ok_or(ConfigError::Value { key, from, expected })
            }
            _ => Ok(None),
        }
    }

    fn flag(&mut self, key: &'static str) -> Result<bool, ConfigError> {
        Ok(self.switch(key)?.unwrap_or(false))
    }

    fn switch(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        let parse = |raw: &str| match raw.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        };
        self.parsed(key, "1 or 0", parse)
    }

    fn secret(&mut self, key: &'static str) -> Result<Option<Secret>, ConfigError> {
        self.parsed(key, "a token of at least 16 printable ASCII characters", |raw| {
            let fits = raw.len() >= 16 && raw.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| Secret::new(raw.to_owned()))
        })
    }
}

fn split(raw: &str) -> impl Iterator<Item = &str> {
    raw.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn log_level(raw: &str) -> Option<LogLevel> {
    match raw.to_ascii_uppercase().as_str() {
        "ERROR" | "CRITICAL" => Some(LogLevel::Error),
        "WARNING" | "WARN" => Some(LogLevel::Warning),
        "INFO" => Some(LogLevel::Info),
        "DEBUG" => Some(LogLevel::Debug),
        "TRACE" => Some(LogLevel::Trace),
        _ => None,
    }
}

/// The setting that the variable `name` names.
fn known(name: &str, from: &Source) -> Result<&'static str, ConfigError> {
    let key = name.strip_prefix(PREFIX).unwrap_or(name);
    let found = KEYS.iter().map(|(known, _, _)| *known).find(|known| *known == key);
    found.ok_or_else(|| ConfigError::Unknown {
        name: name.to_owned(),
        from: from.clone(),
        nearest: format!("{PREFIX}{}", nearest(key)),
    })
}

fn nearest(key: &str) -> &'static str {
    let by_likeness = |name: &&str| (strsim::jaro_winkler(name, key) * 1000.0).round();
    KEYS.iter().map(|(known, _, _)| *known).max_by(|a, b| by_likeness(a).total_cmp(&by_likeness(b))).unwrap_or("ROOT")
}

/// The file's text, if it exists. Whoever can write it can set the operator's token, so it has to be ours or root's.
pub(crate) fn read_trusted(path: &Path) -> Result<Option<String>, ConfigError> {
    use std::io::Read as _;
    let failed = |cause| ConfigError::Read { path: path.to_owned(), cause };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(failed(cause)),
    };
    // The opened file is asked, not the path: nobody can swap it in between.
    let meta = file.metadata().map_err(failed)?;
    if meta.uid() != 0 && meta.uid() != nix::unistd::Uid::effective().as_raw() {
        return Err(ConfigError::Owner { path: path.to_owned() });
    }
    if meta.mode() & 0o022 != 0 {
        return Err(ConfigError::Writable { path: path.to_owned() });
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_FILE) {
        let why = format!("it has more than {MAX_FILE} bytes");
        return Err(ConfigError::Syntax { path: path.to_owned(), why });
    }
    Ok(Some(text))
}

/// `NAME=value` lines. Other programs' names are theirs; ours have to be known.
fn parse_env(text: &str, path: &Path) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let assignment = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = assignment.split_once('=') else {
            let why = format!("line {} is not NAME=value", number + 1);
            return Err(ConfigError::Syntax { path: path.to_owned(), why });
        };
        let name = name.trim();
        if name.starts_with(PREFIX) {
            let key = known(name, &Source::File(path.to_owned()))?;
            if key == "ROOT" {
                let why = "AGENT_HUB_ROOT says where this file is, so it cannot stand in it".to_owned();
                return Err(ConfigError::Syntax { path: path.to_owned(), why });
            }
            found.push((key, unquoted(value.trim()).to_owned()));
        }
    }
    // The last of two equal names wins, as a shell that sources the file would have it.
    found.reverse();
    Ok(found)
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    value.split_once(" #").map_or(value, |(before, _)| before.trim_end())
}

/// Lower-case keys without prefix: `port = 8787`, `strict_mode = true`, `allowed_hosts = ["a", "b"]`.
fn parse_toml(text: &str, path: &Path) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let syntax = |why: String| ConfigError::Syntax { path: path.to_owned(), why };
    // The parser's message quotes the line, which may hold a token: only the place is told.
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| text.bytes().take(span.start).filter(|b| *b == b'\n').count());
        syntax(format!("line {} is not TOML", line + 1))
    })?;
    let mut found = Vec::new();
    for (name, value) in &table {
        let upper = name.to_ascii_uppercase();
        let key = known(&upper, &Source::File(path.to_owned())).map_err(|_| ConfigError::Unknown {
            name: name.clone(),
            from: Source::File(path.to_owned()),
            nearest: nearest(&upper).to_ascii_lowercase(),
        })?;
        if key == "ROOT" {
            return Err(syntax("`root` says where this file is, so it cannot stand in it".to_owned()));
        }
        let value = toml_text(value)
            .ok_or_else(|| syntax(format!("`{name}` is neither text, number, true, false nor a list")))?;
        found.push((key, value));
    }
    Ok(found)
}

fn toml_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(u8::from(*flag).to_string()),
        toml::Value::Array(items) => Some(items.iter().map(toml_text).collect::<Option<Vec<_>>>()?.join(",")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_strongest_layer_wins() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(
            root.path().join("provara.toml"),
            "port = 1\nhost = \"toml\"\nmax_pending = 3\nlog_level = \"debug\"\n",
        )
        .unwrap();
        std::fs::write(
            root.path().join(".env"),
            "OTHER=x\nexport AGENT_HUB_PORT=2\nAGENT_HUB_HOST='dotenv' \nAGENT_HUB_MAX_PENDING=4\n",
        )
        .unwrap();
        let root_text = root.path().to_str().unwrap();
        let environment =
            env(&[("AGENT_HUB_ROOT", root_text), ("AGENT_HUB_PORT", "3"), ("AGENT_HUB_HOST", "env"), ("PATH", "/")]);
        let settings = Settings::load(&[("PORT", "4".to_owned())], environment).unwrap();
        assert_eq!((settings.port, settings.host.as_str(), settings.max_pending), (4, "env", 4));
        assert_eq!(settings.log_level, LogLevel::Debug);
        assert_eq!(settings.rate_limit_requests, 100);
        assert!(settings.runtime.ends_with("runtime"));
    }

    #[test]
    fn unknown_names_are_errors_that_name_the_nearest() {
        let error = Settings::load(&[], env(&[("AGENT_HUB_PROT", "1")])).unwrap_err().to_string();
        assert_eq!(error, "unknown setting `AGENT_HUB_PROT` in the environment; did you mean `AGENT_HUB_PORT`?");
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("provara.toml"), "strictmode = 1\n").unwrap();
        let environment = env(&[("AGENT_HUB_ROOT", root.path().to_str().unwrap())]);
        let error = Settings::load(&[], environment).unwrap_err().to_string();
        assert!(error.ends_with("did you mean `strict_mode`?"), "{error}");
    }

    #[test]
    fn the_stated_defaults_are_those_in_force_and_the_document_holds_them() {
        let root = tempfile::tempdir().unwrap();
        let rooted = ("ROOT", root.path().to_str().unwrap().to_owned());
        let none = Settings::load(std::slice::from_ref(&rooted), []).unwrap();
        let mut flags = vec![rooted];
        let set = KEYS.iter().filter(|(key, default, _)| *key != "ROOT" && !default.is_empty());
        flags.extend(set.map(|(key, default, _)| (*key, (*default).to_owned())));
        assert_eq!(format!("{none:?}"), format!("{:?}", Settings::load(&flags, []).unwrap()));

        let document = include_str!("../../../docs/configuration.md");
        let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| `AGENT_HUB_")).collect();
        let expected: Vec<String> = KEYS
            .iter()
            .map(|(key, default, meaning)| {
                let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
                format!("| `{PREFIX}{key}` | {default} | {meaning} |")
            })
            .collect();
        assert_eq!(rows, expected, "docs/configuration.md differs from the table in config.rs");
    }

    #[test]
    fn an_internal_host_is_a_name_with_its_port() {
        let load = |hosts: &str| {
            let root = tempfile::tempdir().unwrap();
            let environment =
                env(&[("AGENT_HUB_ROOT", root.path().to_str().unwrap()), ("AGENT_HUB_INTERNAL_HOSTS", hosts)]);
            Settings::load(&[], environment).map(|settings| settings.internal_hosts)
        };
        let listed = load("pypi.corp.example:443, *.git.corp.example:443").unwrap();
        assert_eq!(listed.to_string(), "pypi.corp.example:443, *.git.corp.example:443");
        assert_eq!(load("").unwrap(), Allowed::default());
        for bad in ["10.0.0.7:443", "pypi.corp.example", "*.example:443", "localhost:80", "*:443", "a.b:443 c.d:443"] {
            let refused = load(bad).unwrap_err();
            assert!(matches!(refused, ConfigError::Value { key: "INTERNAL_HOSTS", .. }), "{bad}: {refused}");
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(".env");
        std::fs::write(&file, "AGENT_HUB_PORT=1\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o622)).unwrap();
        let environment = env(&[("AGENT_HUB_ROOT", root.path().to_str().unwrap())]);
        assert!(matches!(Settings::load(&[], environment), Err(ConfigError::Writable { .. })));
    }

    #[test]
    fn no_error_and_no_debug_text_shows_a_token() {
        let secret = "hunter2-hunter2-hunter2";
        let settings = Settings::load(&[], env(&[("AGENT_HUB_TOKEN", secret)])).unwrap();
        assert!(!format!("{settings:?}").contains(secret));
        let error = Settings::load(&[], env(&[("AGENT_HUB_TOKEN", "shrt-secret ")])).unwrap_err();
        assert!(!error.to_string().contains("shrt"), "{error}");
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("provara.toml"), format!("token = \"{secret}\n")).unwrap();
        let environment = env(&[("AGENT_HUB_ROOT", root.path().to_str().unwrap())]);
        let error = Settings::load(&[], environment).unwrap_err().to_string();
        assert!(!error.contains(secret), "{error}");
    }

    #[test]
    fn hostile_files_are_read_or_refused_without_telling_a_secret() {
        use crate::fuzz::inputs::{hostile, throw};
        const PARTS: &[&str] = &[
            "AGENT_HUB_TOKEN=",
            "AGENT_HUB_PORT=1\n",
            "AGENT_HUB_ROOT=/\n",
            "AGENT_HUB_NONSENSE=1\n",
            "export ",
            "hunter2hunter2",
            "\n",
            "=",
            "'",
            "\"",
            " #",
            "#",
            "token = ",
            "\"hunter2hunter2\"",
            "port = 1\n",
            "port = { a = 1 }\n",
            "[token]\n",
            "token = [",
            "root = '/'\n",
            "single_token = true\n",
            "\u{feff}",
            "\u{0}",
            "\r\n",
            "\u{202e}",
            "a.b = 1\n",
            "[[x]]\n",
            "TOKEN",
            "Token = 'hunter2hunter2'\n",
            "\\",
            "$(id)",
            "`id`",
            "${HOME}",
        ];
        let readers: [(&str, Parse); 2] = [(".env", parse_env), ("provara.toml", parse_toml)];
        throw(&hostile(PARTS), |bytes| {
            let text = String::from_utf8_lossy(&bytes);
            for (name, parse) in readers {
                match parse(&text, Path::new(name)) {
                    Ok(found) => {
                        for (key, value) in found {
                            assert!(key != "ROOT" && KEYS.iter().any(|(known, ..)| *known == key));
                            // Nothing is filled in: a value is a part of the file.
                            assert!(name != ".env" || text.contains(&value), "{key} became {value:?}");
                        }
                    }
                    Err(error) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        let told = format!("{error}{error:?}{cause:?}");
                        let named = matches!(error, ConfigError::Unknown { .. });
                        assert!(named || !told.contains("hunter2hunter2"), "{told}");
                    }
                }
            }
        });
    }
}
