//! `provara setup`: the recommended installation. A user for commands, folders, an environment file and a systemd unit.
//!
//! By default the server is root's with the few capabilities that the runner needs, and commands run as `provara-run`: only
//! so do they have another user than the one that owns tokens, keys and the database, beside every namespace. With
//! `--unprivileged` the server is `provara`'s with no capability at all, and namespaces alone are between the two.
//!
//! What is there already is looked at and never changed, but for our own unit, which is kept beside the new one.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

use crate::display::{visible, visible_line};
use crate::failure::Failure;

/// The server's user where it is not root.
const SERVER: &str = "provara";
/// Whose commands are, where the server is root.
const COMMANDS: &str = "provara-run";
const STATE: &str = "/var/lib/provara";
const UNITS: &str = "/etc/systemd/system";
const ENVIRONMENT: &str = "/etc/provara/provara.env";
/// Where a root server's tools come from, whatever the caller's PATH says.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The server's ROOT.
    pub(crate) state: Option<String>,
    /// Everything is put below this folder: an image or a package being made.
    pub(crate) prefix: Option<PathBuf>,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) unprivileged: bool,
    pub(crate) socket: bool,
    pub(crate) dry_run: bool,
}

/// One thing that has to be there.
#[derive(Debug)]
enum Step {
    User {
        name: &'static str,
    },
    Folder {
        path: PathBuf,
        mode: u32,
        owner: &'static str,
    },
    /// Written anew by every version; what somebody made of it is kept beside.
    Unit {
        path: PathBuf,
        text: String,
    },
    /// Somebody's to edit: written once.
    Settings {
        path: PathBuf,
        text: String,
    },
}

/// Does, or says, what is missing.
pub(crate) fn setup(wanted: &Wanted, as_json: bool) -> Result<ExitCode, Failure> {
    let site = Site::of(wanted)?;
    if !wanted.dry_run && wanted.prefix.is_none() && !nix::unistd::Uid::effective().is_root() {
        return Err(Failure::Usage(
            "setup makes users and units, so it is root's; --dry-run shows what it does".into(),
        ));
    }
    let mut told = Vec::new();
    for step in site.steps() {
        let did = if wanted.dry_run { site.would(&step)? } else { site.does(&step)? };
        told.push((step, did));
    }
    tell(&told, &site, wanted, as_json)?;
    let sound = !told.iter().any(|(_, did)| did.starts_with(PROBLEM));
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where everything goes.
#[derive(Debug)]
struct Site {
    state: String,
    binary: String,
    prefix: Option<PathBuf>,
    unprivileged: bool,
    socket: bool,
}

impl Site {
    fn of(wanted: &Wanted) -> Result<Self, Failure> {
        let state = wanted.state.clone().unwrap_or_else(|| STATE.to_owned());
        let binary = match &wanted.binary {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.canonicalize()?,
        };
        let binary = binary.to_str().map(str::to_owned).unwrap_or_default();
        for (what, path) in [("--root", &state), ("--binary", &binary)] {
            if !is_plain(path) {
                let why =
                    "has to be an absolute path of letters, digits and `/._-`, without `..`: it is written into a unit";
                return Err(Failure::Usage(format!("{what} `{path}` {why}")));
            }
        }
        if wanted.prefix.is_none() {
            only_roots(Path::new(&binary))?;
        }
        let prefix = wanted.prefix.as_deref().map(Path::canonicalize).transpose()?;
        Ok(Self { state, binary, prefix, unprivileged: wanted.unprivileged, socket: wanted.socket })
    }

    fn steps(&self) -> Vec<Step> {
        let (server, commands) = if self.unprivileged { (SERVER, SERVER) } else { ("root", COMMANDS) };
        let folder = |path: &str, mode, owner| Step::Folder { path: PathBuf::from(path), mode, owner };
        let below = |name: &str| format!("{}/{name}", self.state);
        let unit = |name: &str, text| Step::Unit { path: Path::new(UNITS).join(name), text };
        let mut steps = vec![
            Step::User { name: commands },
            // Others may pass to the workspace, and see nothing on the way.
            folder(&self.state, 0o711, server),
            folder(&below("runtime"), 0o700, server),
            folder(&below("workspace"), 0o750, commands),
            folder("/etc/provara", 0o755, "root"),
            Step::Settings { path: PathBuf::from(ENVIRONMENT), text: ENVIRONMENT_TEXT.to_owned() },
            unit("provara.service", self.service()),
        ];
        if self.socket {
            steps.push(unit("provara.socket", SOCKET_TEXT.to_owned()));
        }
        steps
    }

    fn service(&self) -> String {
        let Self { state, binary, .. } = self;
        let socket = if self.socket { "Requires=provara.socket\nAfter=provara.socket\n" } else { "" };
        let user = if self.unprivileged {
            format!("User={SERVER}\nGroup={SERVER}\nCapabilityBoundingSet=\nAmbientCapabilities=\n")
        } else {
            format!("Environment=AGENT_HUB_RUN_AS={COMMANDS}\n{CAPABILITIES}")
        };
        format!(
            "# Made by `provara setup`. Change it by a drop-in: systemctl edit provara\n\
             [Unit]\n\
             Description=Provara, the gateway between AI agents and this machine\n\
             After=network.target\n\
             {socket}\
             StartLimitIntervalSec=60\n\
             StartLimitBurst=5\n\
             \n\
             [Service]\n\
             Type=notify\n\
             NotifyAccess=main\n\
             ExecStart={binary} serve\n\
             Environment=AGENT_HUB_ROOT={state}\n\
             EnvironmentFile=-{ENVIRONMENT}\n\
             WorkingDirectory={state}\n\
             {user}\
             ReadWritePaths={state}\n\
             {HARDENING}\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n"
        )
    }

    /// Where `path` lies while an image is made.
    fn placed(&self, path: &Path) -> PathBuf {
        match &self.prefix {
            Some(prefix) => prefix.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// A user's and its group's numbers, as the place that is set up knows them.
    fn ids(&self, name: &str) -> Result<Option<(u32, u32)>, Failure> {
        if name == "root" {
            return Ok(Some((0, 0)));
        }
        let Some(prefix) = &self.prefix else {
            let user = nix::unistd::User::from_name(name).map_err(io::Error::from)?;
            return Ok(user.map(|user| (user.uid.as_raw(), user.gid.as_raw())));
        };
        let passwd = match fs::read_to_string(prefix.join("etc/passwd")) {
            Ok(passwd) => passwd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let fields =
            passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|it| it.first() == Some(&name));
        let number = |at: usize| fields.as_ref()?.get(at)?.parse().ok();
        Ok(number(2).zip(number(3)))
    }

    /// An image may come from anywhere: a link in it must not lead our writing out of it.
    fn refuse_links(&self, path: &Path) -> Result<(), Failure> {
        let Some(prefix) = &self.prefix else { return Ok(()) };
        let placed = self.placed(path);
        let above = placed.ancestors().skip(1).take_while(|above| above.starts_with(prefix) && *above != prefix);
        match above.filter(|above| above.is_symlink()).last() {
            Some(link) => Err(Failure::Usage(format!("`{}` is a link; nothing is written through it", link.display()))),
            None => Ok(()),
        }
    }

    fn would(&self, step: &Step) -> Result<String, Failure> {
        match step {
            Step::Folder { path, .. } | Step::Unit { path, .. } | Step::Settings { path, .. } => {
                self.refuse_links(path)?
            }
            Step::User { .. } => {}
        }
        Ok(match step {
            Step::User { name } => match self.ids(name)? {
                Some(_) => "is there".to_owned(),
                None if self.makes_no_users() => NO_USERS.to_owned(),
                None => "would be made".to_owned(),
            },
            Step::Folder { path, mode, owner } => match self.placed(path).symlink_metadata() {
                Ok(meta) => self.judge(&meta, *mode, owner)?,
                Err(_) => "would be made".to_owned(),
            },
            Step::Unit { path, text } => match fs::read_to_string(self.placed(path)) {
                Ok(found) if found == *text => "is there".to_owned(),
                Ok(_) => "would be replaced; the old one is kept beside it".to_owned(),
                Err(_) => "would be made".to_owned(),
            },
            Step::Settings { path, .. } if self.placed(path).symlink_metadata().is_ok() => {
                "is there, and yours".to_owned()
            }
            Step::Settings { .. } => "would be made".to_owned(),
        })
    }

    fn does(&self, step: &Step) -> Result<String, Failure> {
        let would = self.would(step)?;
        if !would.starts_with("would be") {
            return Ok(would);
        }
        match step {
            Step::User { name } => self.make_user(name)?,
            Step::Folder { path, mode, owner } => self.make_folder(path, *mode, owner)?,
            Step::Unit { path, text } => {
                let path = self.placed(path);
                if path.symlink_metadata().is_ok() {
                    let mut kept = path.clone().into_os_string();
                    kept.push(".before");
                    fs::rename(&path, kept)?;
                }
                write_new(&path, text, 0o644)?;
            }
            Step::Settings { path, text } => write_new(&self.placed(path), text, 0o600)?,
        }
        Ok(would.replacen("would be ", "", 1))
    }

    /// A package makes its users when it is installed; an image has a list of them already.
    fn makes_no_users(&self) -> bool {
        self.prefix.as_ref().is_some_and(|prefix| !prefix.join("etc/passwd").exists())
    }

    fn make_user(&self, name: &str) -> Result<(), Failure> {
        let mut useradd = Command::new("useradd");
        useradd.env_clear().env("PATH", PATH);
        if let Some(prefix) = &self.prefix {
            useradd.arg("--prefix").arg(prefix);
        }
        useradd.args(["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]);
        let ended = useradd.args(["--shell", "/usr/sbin/nologin", name]).output();
        let ended =
            ended.map_err(|error| Failure::Other(format!("useradd cannot be run: {error}; make `{name}` yourself")))?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
            return Err(Failure::Other(format!("useradd could not make `{name}`: {said}")));
        }
        Ok(())
    }

    /// Made under our eyes with its mode; given away last. Nothing that was there is ever given away: a link in a folder
    /// of the server's would make us give away what it points to.
    fn make_folder(&self, path: &Path, mode: u32, owner: &str) -> Result<(), Failure> {
        let path = self.placed(path);
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        fs::DirBuilder::new().mode(mode).create(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        if let Some((uid, gid)) = self.ids(owner)? {
            let meta = path.symlink_metadata()?;
            if (meta.uid(), meta.gid()) != (uid, gid) {
                std::os::unix::fs::lchown(&path, Some(uid), Some(gid))?;
            }
        }
        Ok(())
    }

    fn judge(&self, meta: &fs::Metadata, mode: u32, owner: &str) -> Result<String, Failure> {
        if !meta.is_dir() {
            return Ok(format!("{PROBLEM} it is no folder; move it away"));
        }
        let wanted = self.ids(owner)?.map(|(uid, _)| uid);
        if wanted.is_some_and(|uid| uid != meta.uid()) {
            return Ok(format!("{PROBLEM} it belongs to uid {}, and should be {owner}'s", meta.uid()));
        }
        // Narrower than we would make it is somebody's wish.
        if meta.mode() & 0o777 & !mode != 0 {
            return Ok(format!("{PROBLEM} it has mode {:o}, and should have {mode:o}", meta.mode() & 0o777));
        }
        Ok("is there".to_owned())
    }
}

/// What is there and is not as it should be is not ours to change.
const PROBLEM: &str = "PROBLEM:";
const NO_USERS: &str = "left to whoever installs the package";

/// What the runner needs of root, and nothing else: namespaces and mounts; becoming the commands' user; dropping what is
/// left; ending processes of that user; giving it its folder and streams; finding a workspace in somebody's private folder;
/// bringing up the loopback of a run's own network.
const CAPABILITIES: &str = "CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_KILL CAP_CHOWN \
                            CAP_DAC_READ_SEARCH CAP_NET_ADMIN\n";

/// Commands inherit all of this. What would keep the runner from confining them is left out on purpose:
/// docs/operations.md names each.
const HARDENING: &str = "\
UMask=0077
Restart=on-failure
RestartSec=2
# A setting that cannot be used is not mended by trying again.
RestartPreventExitStatus=2
WatchdogSec=60
TimeoutStartSec=60
TimeoutStopSec=30
KillMode=mixed
Delegate=yes
OOMPolicy=continue
LimitNOFILE=65536
LimitCORE=1
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelModules=yes
ProtectHostname=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
";

const SOCKET_TEXT: &str = "\
# Made by `provara setup`. Change it by a drop-in: systemctl edit provara.socket
[Unit]
Description=The socket of Provara

[Socket]
ListenStream=127.0.0.1:8787

[Install]
WantedBy=sockets.target
";

const ENVIRONMENT_TEXT: &str = "\
# Settings of the server, one AGENT_HUB_NAME=value a line. Root's alone: tokens may stand here.
# AGENT_HUB_PORT=8787
# AGENT_HUB_LOG_LEVEL=INFO
# AGENT_HUB_CHECKPOINT_SINKS=file:/srv/kept/checkpoint
";

fn is_plain(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    path.starts_with('/') && path.chars().all(plain) && path.split('/').all(|part| part != "..")
}

/// Root will run this file: nobody else may write it, or put another in its place.
fn only_roots(binary: &Path) -> Result<(), Failure> {
    for path in binary.ancestors() {
        let meta = fs::metadata(path).map_err(|error| Failure::Usage(format!("`{}`: {error}", path.display())))?;
        if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
            let whose = format!("root would run `{}`, and others can change `{}`", binary.display(), path.display());
            return Err(Failure::Usage(format!("{whose}; install it first: install -m 755 provara /usr/local/bin/")));
        }
    }
    Ok(())
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

impl Step {
    fn kind(&self) -> &'static str {
        match self {
            Self::User { .. } => "user",
            Self::Folder { .. } => "folder",
            Self::Unit { .. } => "unit",
            Self::Settings { .. } => "settings",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::User { name } => (*name).to_owned(),
            Self::Folder { path, .. } | Self::Unit { path, .. } | Self::Settings { path, .. } => {
                path.display().to_string()
            }
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Unit { text, .. } | Self::Settings { text, .. } => Some(text),
            Self::User { .. } | Self::Folder { .. } => None,
        }
    }
}

fn tell(told: &[(Step, String)], site: &Site, wanted: &Wanted, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let start = if site.socket { "provara.socket" } else { "provara.service" };
    let next = [
        "systemctl daemon-reload".to_owned(),
        format!("systemctl enable --now {start}"),
        format!("as the agents' user: provara --root {} doctor", site.state),
    ];
    if as_json {
        let step = |(step, did): &(Step, String)| json!({"kind": step.kind(), "subject": step.subject(), "did": did, "text": step.text()});
        let steps: Vec<Value> = told.iter().map(step).collect();
        return writeln!(out, "{}", json!({"dry_run": wanted.dry_run, "steps": steps, "next": next}));
    }
    for (step, did) in told {
        let mode = match step {
            Step::Folder { mode, owner, .. } => format!(" ({mode:o}, {owner})"),
            Step::User { .. } | Step::Unit { .. } | Step::Settings { .. } => String::new(),
        };
        writeln!(out, "{:<9} {}{mode}: {}", step.kind(), visible_line(&step.subject()), visible_line(did))?;
        if let (true, Some(text)) = (wanted.dry_run, step.text()) {
            for line in text.lines() {
                writeln!(out, "    {}", visible(line))?;
            }
        }
    }
    writeln!(out, "next:")?;
    next.iter().try_for_each(|line| writeln!(out, "  {line}"))
}
