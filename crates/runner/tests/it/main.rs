//! The runner on the real kernel: awkward children, and commands that reach for what is not theirs.

#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use provara_domain::{
    Claim, CommandText, Limits, Name, Nonce, Outcome, Plan, PlanId, PlanKind, ProfileName, Ran, RunId, Shell,
    SpawnFailure, Stream, Timeout, Timestamp, WorkingDir,
};
use provara_runner::{Chunk, HelperProgram, RunControl, RunHandle, Runner, RunnerConfig, control};
use tokio::sync::mpsc;

/// A server's folders: its own files, which no command may reach, and a workspace.
struct World {
    runner: Runner,
    root: tempfile::TempDir,
}

struct Done {
    ran: Ran,
    stdout: String,
    stderr: String,
}

impl World {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        // The user that commands run as has to get through to the workspace, as it would in an installation.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = root.path().join("runtime");
        fs::create_dir(&runtime).unwrap();
        fs::write(runtime.join("token.txt"), "secret-token").unwrap();
        // Left open on purpose: what hides it from a command must not be the file's mode.
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(runtime.join("token.txt"), fs::Permissions::from_mode(0o666)).unwrap();
        let workspace = root.path().join("workspace");
        fs::create_dir(&workspace).unwrap();
        provara_runner::give_workspace(&workspace, None).unwrap();
        let helper = PathBuf::from(env!("CARGO_BIN_EXE_provara-test-helper"));
        let runner = Runner::start(RunnerConfig {
            runtime,
            protected: vec![],
            run_as: None,
            helper: HelperProgram { program: helper, arguments: vec![], opened: None },
            environment: vec![("LANG".into(), "C.UTF-8".into())],
            workspace: workspace.to_str().unwrap().to_owned(),
            allow_host_same_user: false,
        })
        .await
        .unwrap();
        Self { runner, root }
    }

    fn path(&self, below: &str) -> String {
        self.root.path().join(below).to_str().unwrap().to_owned()
    }

    fn claim(&self, command: &str, profile: &str, cwd: &str, timeout_s: u32) -> Claim {
        let plan = Plan {
            kind: PlanKind::Command,
            id: PlanId::new(Timestamp::from_millis(0), 1),
            project: Name::default_project(),
            agent: Name::parse("robot").unwrap(),
            command: CommandText::parse(command.to_owned()).unwrap(),
            shell: Shell::Bash,
            cwd: WorkingDir::parse(cwd.to_owned()).unwrap(),
            env: BTreeMap::new(),
            stdin: None,
            tty: false,
            timeout: Timeout::from_seconds(timeout_s).unwrap(),
            target: Name::local_target(),
            profile: ProfileName::new(Name::parse(profile).unwrap()),
            nonce: Nonce::new(1),
        };
        let profile = plan.profile.clone();
        let run = RunId::new(Timestamp::from_millis(0), 1);
        #[expect(clippy::disallowed_methods, reason = "the runner is tested without a store")]
        Claim::issued_by_store(plan, run, profile, Limits { timeout_s }, None)
    }

    async fn run(&self, command: &str) -> Done {
        self.run_as(command, "workspace").await
    }

    async fn run_as(&self, command: &str, profile: &str) -> Done {
        let (_handle, control) = control();
        self.run_claim(self.claim(command, profile, &self.path("workspace"), 20), control).await
    }

    async fn run_claim(&self, claim: Claim, control: RunControl) -> Done {
        let (sender, mut chunks) = mpsc::channel::<Chunk>(16);
        let collect = tokio::spawn(async move {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            while let Some(chunk) = chunks.recv().await {
                match chunk.stream {
                    Stream::Stdout => stdout.extend_from_slice(&chunk.bytes),
                    Stream::Stderr => stderr.extend_from_slice(&chunk.bytes),
                }
            }
            (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
        });
        let workspace = self.path("workspace");
        let ran = self.runner.run(claim, &workspace, Timestamp::from_millis(0), sender, control).await.unwrap();
        let (stdout, stderr) = collect.await.unwrap();
        Done { ran, stdout, stderr }
    }

    /// Runs a command that must fail under both profiles, and shows that the file it aimed at is as before.
    async fn refuses(&self, command: &str) {
        for profile in ["workspace", "host"] {
            let done = self.run_as(command, profile).await;
            let code = done.ran.outcome.exit_code();
            assert!(code.is_some_and(|code| code != 0), "{profile}: `{command}` did {:?}: {}", code, done.stdout);
            assert!(!done.stdout.contains("secret"), "{profile}: `{command}` read {}", done.stdout);
            assert!(held(&done.ran, "own_files_hidden"), "{profile}: {:?}", done.ran.enforced);
        }
        assert_eq!(fs::read_to_string(self.root.path().join("runtime/token.txt")).unwrap(), "secret-token");
    }
}

fn held(ran: &Ran, mechanism: &str) -> bool {
    ran.enforced.mechanisms.iter().any(|known| known.name == mechanism && known.held)
}

/// Whether any process of this machine has `mark` in its arguments.
fn alive(mark: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit())
            && String::from_utf8_lossy(&arguments).contains(mark)
            && entry.file_name().to_string_lossy() != std::process::id().to_string()
    })
}

#[tokio::test]
async fn output_code_and_confinement_come_back() {
    let world = World::new().await;
    assert_eq!(world.runner.host().problem, None);
    let done = world.run("echo out; echo err >&2; pwd; exit 7").await;
    assert_eq!(done.ran.outcome, Outcome::Exited { code: 7 }, "{}", done.stderr);
    assert_eq!(done.stdout, format!("out\n{}\n", world.path("workspace")));
    assert_eq!(done.stderr, "err\n");
    assert_eq!((done.ran.stdout_bytes, done.ran.stderr_bytes), (u64::try_from(done.stdout.len()).unwrap(), 4));
    for mechanism in [
        "mount_namespace",
        "pid_namespace",
        "network_namespace",
        "capabilities_dropped",
        "no_new_privs",
        "landlock",
        "seccomp",
        "own_files_hidden",
        "private_proc",
    ] {
        assert!(held(&done.ran, mechanism), "{mechanism} did not hold: {:?}", done.ran.enforced);
    }
}

#[tokio::test]
async fn a_signal_is_told_from_an_exit() {
    let world = World::new().await;
    assert_eq!(world.run("kill -SEGV $$").await.ran.outcome, Outcome::Signalled { signal: 11 });
    // A pipe's reader that leaves early ends its writer quietly, as in any shell.
    let done = world.run("yes | head -n 1; echo ${PIPESTATUS[0]}").await;
    assert_eq!(done.stdout, "y\n141\n");
}

#[tokio::test]
async fn the_end_of_the_shell_ends_everything_that_it_started() {
    let world = World::new().await;
    let begun = Instant::now();
    // Holds the pipe, leaves the session, forks twice, ignores TERM.
    let command =
        "(trap '' TERM; exec setsid bash -c 'trap \"\" TERM; sleep 3071 & sleep 3072') & sleep 0.2; echo done";
    let done = world.run(command).await;
    assert_eq!((done.ran.outcome, done.stdout.as_str()), (Outcome::Exited { code: 0 }, "done\n"));
    assert!(begun.elapsed() < Duration::from_secs(15), "a background child held the run up");
    assert!(!alive("sleep\u{0}3071") && !alive("sleep\u{0}3072"), "a process outlived its run");
}

#[tokio::test]
async fn a_timeout_ends_what_ignores_it() {
    let world = World::new().await;
    let (_handle, control) = control();
    let command = "trap '' TERM; setsid sleep 3081 & while :; do sleep 0.1; done";
    let done = world.run_claim(world.claim(command, "workspace", &world.path("workspace"), 1), control).await;
    assert_eq!(done.ran.outcome, Outcome::TimedOut);
    assert!(done.ran.duration < Duration::from_secs(10), "{:?}", done.ran.duration);
    assert!(!alive("sleep\u{0}3081"));
}

#[tokio::test]
async fn a_cancel_ends_a_run_also_when_it_came_first() {
    let world = World::new().await;
    let (handle, control) = control();
    handle.cancel();
    let claim = world.claim("sleep 3091", "workspace", &world.path("workspace"), 60);
    assert_eq!(world.run_claim(claim, control).await.ran.outcome, Outcome::Cancelled);
    assert!(!alive("sleep\u{0}3091"));
}

#[tokio::test]
async fn an_extension_counts_from_the_start() {
    let world = World::new().await;
    let (handle, control): (RunHandle, RunControl) = control();
    handle.extend(Duration::from_secs(30));
    let claim = world.claim("sleep 2; echo late", "workspace", &world.path("workspace"), 1);
    let done = world.run_claim(claim, control).await;
    assert_eq!((done.ran.outcome, done.stdout.as_str()), (Outcome::Exited { code: 0 }, "late\n"));
}

#[tokio::test]
async fn a_flood_of_output_is_streamed_and_not_kept() {
    let world = World::new().await;
    let (_handle, control) = control();
    let claim = world.claim("head -c 300000000 /dev/zero", "workspace", &world.path("workspace"), 60);
    let (sender, mut chunks) = mpsc::channel::<Chunk>(4);
    let count = tokio::spawn(async move {
        let (mut bytes, mut largest) = (0, 0);
        while let Some(chunk) = chunks.recv().await {
            bytes += chunk.bytes.len();
            largest = largest.max(chunk.bytes.len());
        }
        (bytes, largest)
    });
    let before = resident();
    let workspace = world.path("workspace");
    let ran = world.runner.run(claim, &workspace, Timestamp::from_millis(0), sender, control).await.unwrap();
    let grown = resident().saturating_sub(before);
    assert_eq!((ran.outcome, ran.stdout_bytes), (Outcome::Exited { code: 0 }, 300_000_000));
    let (bytes, largest) = count.await.unwrap();
    assert_eq!(bytes, 300_000_000);
    assert!(largest <= 64 * 1024);
    assert!(grown < 16 << 20, "memory grew by {grown} bytes");
}

#[tokio::test]
async fn a_slow_receiver_loses_nothing() {
    let world = World::new().await;
    let (_handle, control) = control();
    let claim = world.claim("head -c 200000 /dev/zero", "workspace", &world.path("workspace"), 60);
    let (sender, mut chunks) = mpsc::channel::<Chunk>(1);
    let slow = tokio::spawn(async move {
        let mut bytes = 0;
        // Longer than the runner waits for a pipe that nobody closes.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        while let Some(chunk) = chunks.recv().await {
            bytes += chunk.bytes.len();
        }
        bytes
    });
    let workspace = world.path("workspace");
    let ran = world.runner.run(claim, &workspace, Timestamp::from_millis(0), sender, control).await.unwrap();
    assert_eq!((ran.stdout_bytes, slow.await.unwrap()), (200_000, 200_000));
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test]
async fn provaras_own_files_are_out_of_reach_in_every_profile() {
    let world = World::new().await;
    let token = world.path("runtime/token.txt");
    for command in [
        format!("cat {token}"),
        format!("echo x > {token}"),
        format!("chmod 600 {token}"),
        format!("touch -d 2000-01-01 {token}"),
        format!("mv {token} {token}.away"),
        format!("ln {token} stolen"),
        format!("python3 -c 'import os; os.setxattr(\"{token}\", \"user.x\", b\"1\")'"),
        format!("ls {} && ls {} | grep token", world.path("runtime"), world.path("runtime")),
    ] {
        world.refuses(&command).await;
    }
}

#[tokio::test]
async fn the_servers_process_cannot_be_looked_into() {
    let world = World::new().await;
    let server = std::process::id();
    for file in ["environ", "cmdline", "mem", "root/etc/passwd", "fd/0"] {
        world.refuses(&format!("cat /proc/{server}/{file}")).await;
    }
    world.refuses(&format!("kill -0 {server}")).await;
    // Also not by another road to the same process file system.
    world.refuses("umount /proc").await;
    world.refuses("mkdir p && mount -t proc proc p").await;
}

#[tokio::test]
async fn namespaces_mounts_and_tracing_are_refused() {
    let world = World::new().await;
    for command in [
        "unshare -U true",
        "unshare -r true",
        "mount -t tmpfs none /mnt",
        "umount /tmp",
        "python3 -c 'import socket; socket.socket(40, 1)'",
        "python3 -c 'import ctypes,sys; sys.exit(ctypes.CDLL(None).ptrace(0,0,0,0) != 0)'",
    ] {
        for profile in ["workspace", "host"] {
            let done = world.run_as(command, profile).await;
            assert!(done.ran.outcome.exit_code().is_some_and(|code| code != 0), "{profile}: `{command}` worked");
            assert!(held(&done.ran, "seccomp") && held(&done.ran, "capabilities_dropped"));
        }
    }
    // A program that would become root stays who it is.
    let done = world.run("grep -E '^(NoNewPrivs|CapEff|CapBnd):' /proc/self/status; id -u").await;
    let uid = done.stdout.lines().last().unwrap();
    assert!(
        done.stdout.starts_with("CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n"),
        "{}",
        done.stdout
    );
    assert_ne!(uid, "0", "a command runs as root");
}

#[tokio::test]
async fn a_workspace_run_writes_nowhere_else_and_speaks_to_nobody() {
    let world = World::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = world.path("open.sock");
    let _unix = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink(&outside, world.root.path().join("workspace/link")).unwrap();
    for command in [
        format!("touch {outside}/x"),
        "touch link/x".to_owned(),
        "touch /etc/x".to_owned(),
        "touch /usr/x".to_owned(),
        "touch /var/x".to_owned(),
        format!("exec 3<>/dev/tcp/127.0.0.1/{port}"),
        format!("python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{socket}\")'"),
    ] {
        let done = world.run(&command).await;
        assert!(done.ran.outcome.exit_code().is_some_and(|code| code != 0), "`{command}` worked");
        assert!(held(&done.ran, "mount_namespace") && held(&done.ran, "network_namespace"));
    }
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
    let done = world.run("touch here && mkdir -p a/b && echo x > a/b/c && echo tmp > /tmp/t && cat a/b/c /tmp/t").await;
    assert_eq!((done.ran.outcome, done.stdout.as_str()), (Outcome::Exited { code: 0 }, "x\ntmp\n"), "{}", done.stderr);
    assert!(Path::new(&world.path("workspace/a/b/c")).exists());
    // The next run does not see the last one's private folder.
    assert_ne!(world.run("cat /tmp/t").await.ran.outcome, Outcome::Exited { code: 0 });
}

#[tokio::test]
async fn a_working_directory_behind_a_link_is_refused_and_a_missing_one_is_named() {
    let world = World::new().await;
    std::os::unix::fs::symlink("/etc", world.root.path().join("workspace/etc")).unwrap();
    fs::create_dir(world.root.path().join("workspace/real")).unwrap();
    std::os::unix::fs::symlink("real", world.root.path().join("workspace/alias")).unwrap();
    // A neighbour whose name begins like the workspace's.
    fs::create_dir(world.root.path().join("workspace/2")).unwrap();
    for (cwd, expected) in [
        ("workspace/etc", SpawnFailure::Refused),
        ("workspace/alias", SpawnFailure::Refused),
        ("workspace/none", SpawnFailure::Missing),
        ("elsewhere", SpawnFailure::Refused),
        ("workspace2", SpawnFailure::Refused),
    ] {
        let (_handle, control) = control();
        let done = world.run_claim(world.claim("pwd", "workspace", &world.path(cwd), 20), control).await;
        let Outcome::SpawnFailed { failure, .. } = done.ran.outcome else { panic!("{cwd}: {:?}", done.ran.outcome) };
        assert_eq!((failure, done.stdout.as_str()), (expected, ""), "{cwd}");
    }
}

#[tokio::test]
async fn an_unknown_profile_is_no_run() {
    let world = World::new().await;
    let done = world.run_as("echo ran", "network").await;
    assert!(matches!(done.ran.outcome, Outcome::SpawnFailed { failure: SpawnFailure::Refused, .. }));
    assert_eq!(done.stdout, "");
}

#[tokio::test]
async fn the_end_of_the_server_ends_the_tree() {
    let world = World::new().await;
    let (_handle, control) = control();
    let claim = world.claim("setsid sleep 3101 & sleep 3102", "workspace", &world.path("workspace"), 60);
    let workspace = world.path("workspace");
    let (sender, _chunks) = mpsc::channel(4);
    {
        let run = world.runner.run(claim, &workspace, Timestamp::from_millis(0), sender, control);
        tokio::pin!(run);
        until(&mut run, || alive("sleep\u{0}3101") && alive("sleep\u{0}3102")).await;
    }
    // The future is gone, and with it the control stream, as if the server had been killed.
    let deadline = Instant::now() + Duration::from_secs(10);
    while alive("sleep\u{0}3101") || alive("sleep\u{0}3102") {
        assert!(Instant::now() < deadline, "a tree outlived its server");
        tokio::task::yield_now().await;
    }
}

async fn until(run: &mut (impl Future + Unpin), seen: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !seen() {
        assert!(Instant::now() < deadline, "the command's processes never appeared");
        let _ = tokio::time::timeout(Duration::from_millis(20), &mut *run).await;
    }
}

#[tokio::test]
async fn nothing_of_the_server_is_inherited() {
    let world = World::new().await;
    let done = world.run("env | sort | cut -d= -f1 | paste -sd,; ls /proc/self/fd | paste -sd,; cat").await;
    let mut lines = done.stdout.lines();
    assert_eq!(lines.next(), Some("HOME,LANG,PATH,PWD,SHLVL,_"), "{}", done.stderr);
    // Three streams and the folder that ls itself reads.
    assert_eq!(lines.next(), Some("0,1,2,3"));
}
