//! A server's folders and its runner, as root and as an ordinary user.

use std::collections::BTreeMap;
use std::fs;
pub(crate) use std::os::unix::fs::PermissionsExt as _;
pub(crate) use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

pub(crate) use std::time::{Duration, Instant};

use provara_domain::{
    AskedBy, CommandText, Limits, Name, Nonce, PlanId, PlanKind, ProfileName, Profiles, RunId, Timeout, WorkingDir,
};
pub(crate) use provara_domain::{
    Binding, Claim, Grants, Outcome, Plan, Profile, Ran, Resource, ResourceLimits, Shell, SpawnFailure, Stream,
    Timestamp,
};
use provara_runner::egress::{Allowed, Lookup, Resolve, Target};
pub(crate) use provara_runner::{Chunk, Lost, RunControl, Runner, Site, control};
use provara_runner::{EgressConfig, HelperProgram, RunnerConfig};
pub(crate) use tokio::sync::mpsc;

/// A user with no entry anywhere, and none but one test's processes: the kernel counts processes by user.
pub(crate) fn ordinary() -> u32 {
    1_000_000 + std::process::id()
}

/// Makes two tests of each scenario: one under root, and one under an ordinary user, who has to make user namespaces.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            #[test]
            fn as_root() {
                let me = concat!(module_path!(), "::as_root");
                let why = "only root can be a root server; the same scenario runs as this user";
                crate::support::as_root(me, why, super::$name());
            }

            #[test]
            fn as_an_ordinary_user() {
                let me = concat!(module_path!(), "::as_an_ordinary_user");
                crate::support::as_an_ordinary_user(me, super::$name());
            }
        })*
    };
}
pub(crate) use scenarios;

/// Plays each scenario as root and as an ordinary user, in networks that the module's `in_a_network` makes.
macro_rules! networks {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            #[test]
            fn as_root() {
                let me = concat!(module_path!(), "::as_root");
                super::in_a_network(me, crate::support::As::Root, super::$name);
            }

            #[test]
            fn as_an_ordinary_user() {
                let me = concat!(module_path!(), "::as_an_ordinary_user");
                super::in_a_network(me, crate::support::As::Ordinary, super::$name);
            }
        })*
    };
}
pub(crate) use networks;

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub(crate) fn play(scenario: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(scenario);
}

/// Plays a scenario again in a process of its own, or says `why` only root can.
pub(crate) fn as_root(me: &str, why: &str, scenario: impl Future<Output = ()>) {
    match (is_root(), is_again()) {
        (true, true) => play(scenario),
        (true, false) => again(me, &[], As::Root),
        (false, _) => eprintln!("skipped: {why}"),
    }
}

pub(crate) fn as_an_ordinary_user(me: &str, scenario: impl Future<Output = ()>) {
    if is_again() { play(scenario) } else { again(me, &[], As::Ordinary) }
}

/// Who a test is played again by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    Root,
    Ordinary,
}

/// Plays one test of this binary again in a process of its own, through `wrapper`, and fails as it fails.
pub(crate) fn again(me: &str, wrapper: &[&str], who: As) {
    let place = Place::new();
    let done = place.command(me, wrapper, who).output().unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && told.contains("test result: ok. 1 passed"),
        "{}\n{told}\n{}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Copies of this test's binary and of the helper where any user may start them.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let egress = PathBuf::from(env!("CARGO_BIN_EXE_provara-test-egress"));
        for (from, name) in [(std::env::current_exe().unwrap(), "it"), (helper_program(), "helper"), (egress, "egress")]
        {
            let to = folder.path().join(name);
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).unwrap();
        }
        Self(folder)
    }

    /// The mark by which every process of this place's runners is known: it is in their arguments.
    pub(crate) fn mark(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    pub(crate) fn command(&self, me: &str, wrapper: &[&str], who: As) -> Command {
        let (_crate, me) = me.split_once("::").unwrap();
        let program = format!("{}/it", self.mark());
        let mut words = Vec::new();
        if is_root() {
            // A folder that no run makes private, unlike /tmp: else nothing but that would hide what lies there.
            let mount = format!("mount -t tmpfs -o mode=1777 none {OUTSIDE_TMP} && exec \"$@\"");
            words.extend(["unshare", "--mount", "--propagation=private", "sh", "-c", &mount, "sh"].map(str::to_owned));
        }
        if is_root() && who == As::Ordinary {
            let user = ordinary();
            let user = [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()];
            words.push("setpriv".into());
            words.extend(user);
        }
        words.extend(wrapper.iter().copied().chain([&*program, "--exact", me, "--nocapture"]).map(str::to_owned));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir("/").env_remove("HOME").env("PROVARA_TEST_AGAIN", "1");
        if is_root() {
            command.env("PROVARA_TEST_FOLDER", OUTSIDE_TMP);
        }
        command
    }
}

/// Where a test's own file system is mounted, in a mount namespace of its own.
const OUTSIDE_TMP: &str = "/srv";

/// Whether [`again`] started this process.
pub(crate) fn is_again() -> bool {
    std::env::var_os("PROVARA_TEST_AGAIN").is_some()
}

fn helper_program() -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name("helper");
    if beside.exists() { beside } else { PathBuf::from(env!("CARGO_BIN_EXE_provara-test-helper")) }
}

/// A server's folders: its own files, which no command may reach, and a workspace.
pub(crate) struct World {
    pub(crate) runner: Runner,
    pub(crate) root: tempfile::TempDir,
    /// What every profile of this world is limited to, beside its own.
    limits: ResourceLimits,
}

#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) ran: Ran,
    pub(crate) out: Vec<u8>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn code(&self) -> Option<i32> {
        self.ran.outcome.exit_code()
    }
}

/// The names that the worlds' runs may ask for.
const NAMES: [(&str, &str); 8] = [
    ("example.org", crate::egress::WORLD),
    ("other.org", crate::egress::WORLD),
    ("ours.org", crate::egress::OURS),
    ("loopback.org", "127.0.0.1"),
    ("metadata.org", "169.254.169.254"),
    ("private.org", "10.0.0.1"),
    ("inner.org", crate::egress::INNER),
    ("other-inner.org", crate::egress::INNER),
];

/// Answers for those.
struct Names;

impl Resolve for Names {
    fn resolve<'a>(&'a self, target: &'a Target) -> Lookup<'a> {
        let known = NAMES.into_iter().find(|(name, _)| *name == target.host.as_str());
        let found = known.map(|(_, address)| vec![(address.parse::<std::net::IpAddr>().unwrap(), 1).into()]);
        Box::pin(std::future::ready(found.ok_or_else(|| std::io::ErrorKind::NotFound.into())))
    }
}

/// Whether the profile `host` may run as the server's own user.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SameUser {
    Allowed,
    Refused,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(SameUser::Allowed).await
    }

    pub(crate) async fn with(same_user: SameUser) -> Self {
        Self::made(same_user, ResourceLimits::default()).await
    }

    /// A world in which every profile has these limits as well.
    pub(crate) async fn limited(limits: &[(Resource, u64)]) -> Self {
        let all = |all: ResourceLimits, (what, most): &(Resource, u64)| all.with(*what, *most).unwrap();
        Self::made(SameUser::Allowed, limits.iter().fold(ResourceLimits::default(), all)).await
    }

    async fn made(same_user: SameUser, limits: ResourceLimits) -> Self {
        let folder = std::env::var_os("PROVARA_TEST_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
        let root = tempfile::tempdir_in(folder).unwrap();
        // The user that commands run as has to get through to the workspace, as it would in an installation.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = root.path().join("runtime");
        fs::create_dir(&runtime).unwrap();
        fs::write(runtime.join("token.txt"), "secret-token").unwrap();
        // Left open on purpose: what hides it from a command must not be the file's mode.
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(runtime.join("token.txt"), fs::Permissions::from_mode(0o666)).unwrap();
        fs::write(root.path().join("settings"), "secret-settings").unwrap();
        fs::set_permissions(root.path().join("settings"), fs::Permissions::from_mode(0o666)).unwrap();
        let workspace = root.path().join("workspace");
        fs::create_dir(&workspace).unwrap();
        provara_runner::give_workspace(&workspace, None).unwrap();
        let runner = Runner::start(RunnerConfig {
            runtime,
            protected: vec![root.path().join("settings"), root.path().join("not-there")],
            run_as: None,
            helper: HelperProgram { program: helper_program(), arguments: vec![], opened: None },
            environment: vec![("LANG".into(), "C.UTF-8".into()), ("EXTRA".into(), "more".into())],
            workspace: workspace.to_str().unwrap().to_owned(),
            allow_host_same_user: same_user == SameUser::Allowed,
            egress: EgressConfig {
                resolver: || Box::new(Names),
                internal: Allowed::parse(["inner.org:80"]).unwrap(),
                ..EgressConfig::default()
            },
        })
        .await
        .unwrap();
        Self { runner, root, limits }
    }

    pub(crate) fn path(&self, below: &str) -> String {
        self.root.path().join(below).to_str().unwrap().to_owned()
    }

    /// A plan for bash in the workspace.
    pub(crate) fn plan(&self, command: &str) -> Plan {
        Plan {
            kind: PlanKind::Command,
            id: PlanId::new(Timestamp::from_millis(0), 1),
            project: Name::default_project(),
            agent: Name::parse("robot").unwrap(),
            command: CommandText::parse(command.to_owned()).unwrap(),
            shell: Shell::Bash,
            cwd: WorkingDir::parse(self.path("workspace")).unwrap(),
            env: BTreeMap::new(),
            stdin: None,
            tty: false,
            timeout: Timeout::from_seconds(60).unwrap(),
            target: Name::local_target(),
            profile: ProfileName::workspace(),
            nonce: Nonce::new(1),
        }
    }

    pub(crate) fn claim(&self, command: &str, profile: &str, cwd: &str, timeout_s: u32) -> Claim {
        let mut plan = self.plan(command);
        plan.cwd = WorkingDir::parse(cwd.to_owned()).unwrap();
        plan.timeout = Timeout::from_seconds(timeout_s).unwrap();
        plan.profile = ProfileName::new(Name::parse(profile).unwrap());
        claim_of(plan)
    }

    pub(crate) async fn run(&self, command: &str) -> Done {
        self.run_as(command, "workspace").await
    }

    pub(crate) async fn run_as(&self, command: &str, profile: &str) -> Done {
        let (_handle, control) = control();
        self.run_claim(self.claim(command, profile, &self.path("workspace"), 60), control).await
    }

    /// Runs a command under an operator's profile.
    pub(crate) async fn run_under(&self, command: &str, grants: Grants) -> Done {
        let (_handle, control) = control();
        let claim = self.claim(command, "own", &self.path("workspace"), 60);
        self.run_with(claim, &own(grants), control).await
    }

    pub(crate) async fn run_with(&self, claim: Claim, profile: &Profile, control: RunControl) -> Done {
        self.try_with(claim, profile, &site(&self.path("workspace")), control).await.unwrap()
    }

    pub(crate) async fn run_plan(&self, plan: Plan) -> Done {
        let (_handle, control) = control();
        self.run_claim(claim_of(plan), control).await
    }

    pub(crate) async fn run_claim(&self, claim: Claim, control: RunControl) -> Done {
        self.try_run(claim, &self.path("workspace"), control).await.unwrap()
    }

    pub(crate) async fn try_run(&self, claim: Claim, workspace: &str, control: RunControl) -> Result<Done, Lost> {
        self.run_at(claim, &site(workspace), control).await
    }

    pub(crate) async fn run_at(&self, claim: Claim, site: &Site, control: RunControl) -> Result<Done, Lost> {
        let profiles = Profiles::builtin();
        let profile = profiles.get(claim.profile()).cloned();
        // What is called otherwise is nobody's.
        let profile = profile.unwrap_or_else(Profile::workspace);
        self.try_with(claim, &profile, site, control).await
    }

    pub(crate) async fn try_with(
        &self,
        claim: Claim,
        profile: &Profile,
        site: &Site,
        control: RunControl,
    ) -> Result<Done, Lost> {
        let grants = profile.grants().clone();
        let grants = Grants { limits: grants.limits.and(self.limits), ..grants };
        let profile = &Profile::new(profile.name().clone(), grants, profile.asked_by());
        let (sender, mut chunks) = mpsc::channel::<Chunk>(16);
        let collect = tokio::spawn(async move {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            while let Some(chunk) = chunks.recv().await {
                match chunk.stream {
                    Stream::Stdout => stdout.extend_from_slice(&chunk.bytes),
                    Stream::Stderr => stderr.extend_from_slice(&chunk.bytes),
                }
            }
            (stdout, stderr)
        });
        let ran = self.runner.run(claim, profile, site, Timestamp::from_millis(0), sender, control).await?;
        let (out, err) = collect.await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Done { ran, stdout: text(&out), stderr: text(&err), out })
    }

    /// Runs a command that must fail under both profiles, and shows that the file it aimed at is as before.
    pub(crate) async fn refuses(&self, command: &str) {
        for profile in ["workspace", "host"] {
            let done = self.run_as(command, profile).await;
            let code = done.code();
            assert!(code.is_some_and(|code| code != 0), "{profile}: `{command}` did {:?}: {done:?}", code);
            assert!(!done.stdout.contains("secret"), "{profile}: `{command}` read {}", done.stdout);
            assert!(held(&done.ran, "own_files_hidden"), "{profile}: {:?}", done.ran.enforced);
        }
        assert_eq!(fs::read_to_string(self.root.path().join("runtime/token.txt")).unwrap(), "secret-token");
        assert_eq!(fs::read_to_string(self.root.path().join("settings")).unwrap(), "secret-settings");
    }
}

/// An operator's profile.
pub(crate) fn own(grants: Grants) -> Profile {
    Profile::new(ProfileName::new(Name::parse("own").unwrap()), grants, AskedBy::PeopleOnly)
}

/// A place where commands name no scripts.
pub(crate) fn site(workspace: &str) -> Site {
    Site { workspace: workspace.to_owned(), scripts: Vec::new() }
}

pub(crate) fn claim_of(plan: Plan) -> Claim {
    bound_claim(plan, None)
}

pub(crate) fn bound_claim(plan: Plan, binding: Option<Binding>) -> Claim {
    let (profile, timeout_s) = (plan.profile.clone(), plan.timeout.seconds());
    let run = RunId::new(Timestamp::from_millis(0), 1);
    #[expect(clippy::disallowed_methods, reason = "the runner is tested without a store")]
    Claim::issued_by_store(plan, run, profile, Limits { timeout_s, resources: ResourceLimits::default() }, binding)
}

pub(crate) fn held(ran: &Ran, mechanism: &str) -> bool {
    ran.enforced.mechanisms.iter().any(|known| known.name == mechanism && known.held)
}

/// The processes of this machine, but for this one, that have `mark` in their arguments.
pub(crate) fn those_with(mark: &str) -> Vec<i32> {
    let me = i32::try_from(std::process::id()).unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != me)
        .filter(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(mark)
        })
        .collect()
}

pub(crate) fn alive(mark: &str) -> bool {
    !those_with(mark).is_empty()
}

/// How long a sleep lasts that only this process asks for: a mark to find it by, also while the same test runs twice.
pub(crate) fn marked(seconds: u32) -> String {
    format!("{seconds}.{}", std::process::id())
}

pub(crate) fn sleeps(mark: &str) -> bool {
    alive(&format!("sleep\0{mark}"))
}

/// The parent of a process, while it lives.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Whether a process has ended, reaped or not.
pub(crate) fn zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// Waits, with the runtime going on, until `seen`.
pub(crate) async fn wait_until(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !seen() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn link(to: &Path, at: &str) {
    std::os::unix::fs::symlink(to, at).unwrap();
}
