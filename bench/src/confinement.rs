//! What confinement alone takes: the same shell bare, under the profile `workspace` by the runner itself, and in bubblewrap
//! with the same namespaces and mounts. No HTTP, no store.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use provara_domain::{
    Claim, CommandText, Limits, Name, Nonce, Outcome, Plan, PlanId, PlanKind, Profile, ProfileName, ResourceLimits,
    RunId, Shell, Timeout, Timestamp, WorkingDir,
};
use provara_runner::{EgressConfig, HelperProgram, Runner, RunnerConfig, Site, control};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::limits::bare;
use crate::load::Samples;
use crate::row::Row;
use crate::say;

/// The argument by which this program becomes the runner's helper.
pub(crate) const HELPER: &str = "__helper";

/// What the runner makes ready off the way of a run is let to end, so that it takes no time from whoever is measured next.
const SETTLED: Duration = Duration::from_millis(8);

/// Returns one row: medians of bare, confined and bubblewrap, taken in turns so that what disturbs one disturbs all.
pub(crate) async fn measure(folder: &Path, rounds: u32) -> Result<Vec<Row>, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("provara-bench-")
        .tempdir_in(folder)
        .map_err(Failure::io(folder.display().to_string()))?;
    // The command may run as another user, who has to get to the workspace.
    let open = fs::set_permissions(folder.path(), Permissions::from_mode(0o755));
    open.map_err(Failure::io(folder.path().display().to_string()))?;
    let ready = Confined::start(folder.path(), "ready").await?;
    let bubblewrap = Bubblewrap::find(&ready.workspace)?;
    // What it has ready at its start is used up first; nothing is made ready again.
    let unready = Confined::start(folder.path(), "unready").await?;
    for _ in 0..8 {
        unready.run().await?;
    }
    let (mut alone, mut confined, mut cold, mut wrapped) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let found = [
            timed(|| bare("bash", &["-c", "true"]))?,
            ready.run().await?,
            unready.run().await?,
            bubblewrap.as_ref().map_or(Ok(Duration::ZERO), |wrapper| timed(|| wrapper.run()))?,
        ];
        ready.runner.make_ready();
        tokio::time::sleep(SETTLED).await;
        // The first round finds cold caches.
        if round > 0 {
            [&mut alone, &mut confined, &mut cold, &mut wrapped]
                .into_iter()
                .zip(found)
                .for_each(|(all, one)| all.push(one));
        }
    }
    for confined in [&ready, &unready] {
        confined.runner.shutdown().await;
    }
    let [alone, confined, cold, wrapped] = [alone, confined, cold, wrapped].map(Samples::new);
    let median = |samples: &Samples| samples.micros(50);
    let wrapped = if bubblewrap.is_some() { median(&wrapped) } else { None };
    let over = |less: Option<f64>| median(&confined).zip(less).map(|(more, less)| more - less);
    Ok(vec![
        Row::new("confinement")
            .with("profile", "workspace")
            .with("rounds", alone.count())
            .number("bare_p50_us", median(&alone))
            .number("p50_us", median(&confined))
            .number("p99_us", confined.micros(99))
            .number("overhead_p50_us", over(median(&alone)))
            .number("unready_p50_us", median(&cold))
            .with("bwrap", if bubblewrap.is_some() { "measured" } else { ABSENT })
            .number("bwrap_p50_us", wrapped)
            .number("over_bwrap_us", over(wrapped)),
    ])
}

const ABSENT: &str = "not installed";

fn timed(work: impl FnOnce() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

/// A runner as a server has one, and its workspace.
struct Confined {
    runner: Runner,
    workspace: String,
}

impl Confined {
    async fn start(folder: &Path, name: &str) -> Result<Self, Failure> {
        let root = folder.join(name);
        let (runtime, workspace) = (root.join("runtime"), root.join("workspace"));
        for made in [&runtime, &workspace] {
            fs::create_dir_all(made).map_err(Failure::io(made.display().to_string()))?;
        }
        let refused = |error: &dyn std::fmt::Display| Failure::Confinement(error.to_string());
        provara_runner::give_workspace(&workspace, None).map_err(|error| refused(&error))?;
        let workspace = workspace.canonicalize().map_err(Failure::io(workspace.display().to_string()))?;
        let workspace = workspace.to_str().ok_or_else(|| refused(&"the folder's name is not UTF-8"))?.to_owned();
        let program = std::env::current_exe().map_err(Failure::io("this program"))?;
        let runner = Runner::start(RunnerConfig {
            runtime,
            protected: Vec::new(),
            run_as: None,
            helper: HelperProgram { program, arguments: vec![HELPER.to_owned()], opened: None },
            environment: Vec::new(),
            workspace: workspace.clone(),
            allow_host_same_user: false,
            egress: EgressConfig::default(),
        });
        let runner = runner.await.map_err(|error| refused(&error))?;
        if let Some(problem) = &runner.host().problem {
            return Err(refused(problem));
        }
        Ok(Self { runner, workspace })
    }

    /// Runs `true`, from the claim to the end of the last process. What did not run as it should is no measure.
    async fn run(&self) -> Result<Duration, Failure> {
        let claim = self.claim()?;
        let (profile, site) = (Profile::workspace(), Site { workspace: self.workspace.clone(), scripts: Vec::new() });
        let (sender, _receiver) = mpsc::channel(1);
        let (_handle, control) = control();
        let begun = Instant::now();
        let ran = self.runner.run(claim, &profile, &site, Timestamp::from_millis(0), sender, control).await;
        let took = begun.elapsed();
        let ran = ran.map_err(|error| Failure::Confinement(error.to_string()))?;
        let held = ran.enforced.mechanisms.iter().all(|mechanism| mechanism.held);
        match ran.outcome {
            Outcome::Exited { code: 0 } if held => Ok(took),
            outcome => Err(Failure::Confinement(format!("the run ended as {outcome:?}, all held: {held}"))),
        }
    }

    fn claim(&self) -> Result<Claim, Failure> {
        let refused = |error: &dyn std::fmt::Display| Failure::Confinement(error.to_string());
        let timeout = Timeout::from_seconds(60).map_err(|error| refused(&error))?;
        let now = Timestamp::from_millis(0);
        let plan = Plan {
            kind: PlanKind::Command,
            id: PlanId::new(now, 1),
            project: Name::default_project(),
            agent: Name::parse("bench").map_err(|error| refused(&error))?,
            command: CommandText::parse("true".to_owned()).map_err(|error| refused(&error))?,
            shell: Shell::Bash,
            cwd: WorkingDir::parse(self.workspace.clone()).map_err(|error| refused(&error))?,
            env: BTreeMap::new(),
            stdin: None,
            tty: false,
            timeout,
            target: Name::local_target(),
            profile: ProfileName::workspace(),
            nonce: Nonce::new(1),
        };
        let limits = Limits { timeout_s: timeout.seconds(), resources: ResourceLimits::default() };
        #[expect(clippy::disallowed_methods, reason = "there is no store in this measure, and the command is `true`")]
        let claim = Claim::issued_by_store(plan, RunId::new(now, 1), ProfileName::workspace(), limits, None);
        Ok(claim)
    }
}

/// Bubblewrap with the namespaces and mounts of the profile `workspace`. It does less: it filters no system calls, raises no
/// Landlock, hides no credentials, counts nothing and, as root, stays root.
struct Bubblewrap {
    arguments: Vec<String>,
}

impl Bubblewrap {
    /// Returns it where it is installed, and says loudly where it is not: half of the measure is then missing.
    fn find(workspace: &str) -> Result<Option<Self>, Failure> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed =
            std::env::split_paths(&path).map(|folder| folder.join("bwrap")).any(|file: PathBuf| file.is_file());
        if !installed {
            say::told(
                "warning: bubblewrap is NOT INSTALLED, so nothing is compared with it; install it (Debian: `apt install \
                 bubblewrap`) and measure again",
            );
            return Ok(None);
        }
        let mut arguments =
            ["--unshare-pid", "--unshare-ipc", "--unshare-net", "--die-with-parent", "--new-session"].to_vec();
        arguments.extend(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
        for private in ["/tmp", "/var/tmp", "/run"] {
            arguments.extend(["--tmpfs", private]);
        }
        arguments.extend(["--bind", workspace, workspace, "--chdir", workspace, "bash", "-c", "true"]);
        let found = Self { arguments: arguments.into_iter().map(str::to_owned).collect() };
        found.run().map(|()| Some(found))
    }

    fn run(&self) -> Result<(), Failure> {
        let ended = Command::new("bwrap").args(&self.arguments).stdin(Stdio::null()).output();
        let ended = ended.map_err(Failure::io("bwrap"))?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        Err(Failure::Confinement(format!("bwrap ended with {}: {}", ended.status, said.trim())))
    }
}
