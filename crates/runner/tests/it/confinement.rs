//! Commands that reach for what is not theirs, under a root server and under an ordinary user's.

use std::fs;

use crate::support::*;

scenarios!(
    output_code_and_confinement_come_back,
    provaras_own_files_are_out_of_reach_in_every_profile,
    the_servers_process_cannot_be_looked_into,
    namespaces_mounts_and_tracing_are_refused,
    a_workspace_run_writes_nowhere_else_and_speaks_to_nobody,
    a_working_directory_behind_a_link_is_refused_and_a_missing_one_is_named,
    an_unknown_profile_is_no_run,
);

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

async fn an_unknown_profile_is_no_run() {
    let world = World::new().await;
    let done = world.run_as("echo ran", "network").await;
    assert!(matches!(done.ran.outcome, Outcome::SpawnFailed { failure: SpawnFailure::Refused, .. }));
    assert_eq!(done.stdout, "");
}
