//! Commands that reach for what is not theirs, under a root server and under an ordinary user's.

use std::fs;

use crate::support::*;

scenarios!(
    output_code_and_confinement_come_back,
    provaras_own_files_are_out_of_reach_in_every_profile,
    sockets_of_the_machine_cannot_be_spoken_to,
    a_socket_in_no_covered_folder_is_guarded_by_its_mode_alone,
    a_hidden_file_that_is_replaced_during_a_run_stays_hidden_where_there_is_landlock,
    landlock_refuses_what_the_other_walls_let_pass,
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
    let (root, runtime, settings) = (world.path(""), world.path("runtime"), world.path("settings"));
    let token = world.path("runtime/token.txt");
    let python = |act: &str| format!("/usr/bin/python3 -c 'import os; {act}'");
    for command in [
        format!("cat {token}"),
        format!("echo x > {token}"),
        format!("chmod 600 {token}"),
        format!("touch -d 2000-01-01 {token}"),
        format!("mv {token} {token}.away"),
        format!("ln {token} stolen"),
        python(&format!("os.setxattr(\"{token}\", \"user.x\", b\"1\")")),
        python(&format!("os.rename(\"{runtime}\", \"stolen\")")),
        python(&format!("os.rename(\"{runtime}\", \"{root}away\")")),
        python(&format!("os.setxattr(\"{runtime}\", \"user.x\", b\"1\")")),
        format!("ls {runtime} | grep ."),
        format!("touch {runtime}/planted"),
        format!("cd {runtime}"),
        format!("chmod 777 {runtime} && cat {token}"),
        format!("rm -rf {runtime}"),
        format!("rmdir {runtime}"),
        format!("mkdir bound && mount --bind {runtime} bound"),
        format!("umount {runtime}"),
        // A folder above it, so that another may be put in its place.
        python(&format!("os.rename(\"{}\", \"{}-away\")", root.trim_end_matches('/'), root.trim_end_matches('/'))),
        format!("grep . {settings}"),
        format!("chmod 600 {settings}"),
        format!("touch -d 2000-01-01 {settings}"),
        format!("rm -f {settings}"),
        format!("mv {settings} stolen-settings"),
        format!("ln {settings} stolen-settings && grep . stolen-settings"),
        python(&format!("os.truncate(\"{settings}\", 0)")),
    ] {
        world.refuses(&command).await;
    }
    // Whatever a command said of its success, the files are who they were.
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode(&runtime), mode(&token), mode(&settings)], [0o777, 0o666, 0o666]);
    assert_eq!(fs::read_dir(&runtime).unwrap().count(), 1);
}

async fn sockets_of_the_machine_cannot_be_spoken_to() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};

    let world = World::new().await;
    let socket = world.path("runtime/listens");
    let _listens = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let name = format!("provara-test-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let connect =
        |to: &str| format!("/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{to}\")'");
    world.refuses(&connect(&socket)).await;
    let done = world.run(&connect(&format!("\\0{name}"))).await;
    assert!(done.code() == Some(1) && done.stderr.contains("ConnectionRefusedError"), "{done:?}");
    // The same name within the run is the command's own to use: it is the network namespace that keeps them apart.
    assert_eq!(world.run("ls -A /run /var/run/").await.stdout, "/run:\n\n/var/run/:\n");
    if is_root() {
        let service = format!("/run/{name}.sock");
        let _service = UnixListener::bind(&service).unwrap();
        fs::set_permissions(&service, fs::Permissions::from_mode(0o777)).unwrap();
        let done = world.run(&connect(&service)).await;
        fs::remove_file(&service).unwrap();
        assert!(done.code() == Some(1) && done.stderr.contains("FileNotFoundError"), "{done:?}");
    }
}

/// Wrong, and known: neither a read-only mount nor this Landlock governs connecting to a socket by its name, so one that lies
/// in no covered folder answers to whom its mode lets in.
async fn a_socket_in_no_covered_folder_is_guarded_by_its_mode_alone() {
    let world = World::new().await;
    let socket = world.path("open.sock");
    let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let connect = format!("/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{socket}\")'");
    // Below /tmp it would be hidden, and this would show nothing.
    if world.root.path().starts_with("/tmp") {
        return eprintln!("skipped: needs a folder outside /tmp");
    }
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(world.run(&connect).await.code(), Some(0));
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(world.run(&connect).await.code(), Some(1));
}

/// What hides a single file is bound to that file. When the server's user puts a new one in its place while a command runs,
/// the kernel takes the cover away with the old one. Landlock refuses the new one: it was not there to be granted. Wrong, and
/// known: `host` has no Landlock, and the file's mode is all that is left. What the server itself rewrites lies in the runtime
/// folder, and folders do not have this fault.
async fn a_hidden_file_that_is_replaced_during_a_run_stays_hidden_where_there_is_landlock() {
    let world = World::new().await;
    if world.root.path().starts_with("/tmp") {
        return eprintln!("skipped: needs a folder outside /tmp");
    }
    let (settings, up, go) = (world.path("settings"), world.path("workspace/up"), world.path("workspace/go"));
    for (profile, expected) in [("workspace", (Some(2), "")), ("host", (Some(0), "secret-settings"))] {
        let (_handle, control) = control();
        let command = format!("touch up; until test -e go; do :; done; rm up go; grep secret {settings}");
        let claim = world.claim(&command, profile, &world.path("workspace"), 20);
        let replace = async {
            wait_until("the command's start", || Path::new(&up).exists()).await;
            fs::write(world.path("new"), "secret-settings").unwrap();
            fs::rename(world.path("new"), &settings).unwrap();
            fs::write(&go, "").unwrap();
        };
        let (done, ()) = tokio::join!(world.run_claim(claim, control), replace);
        assert_eq!((done.code(), done.stdout.trim()), expected, "{profile}: {}", done.stderr);
        assert_eq!(held(&done.ran, "landlock"), profile == "workspace");
    }
}

/// Not the mounts and not the network's namespace: what Landlock alone refuses.
async fn landlock_refuses_what_the_other_walls_let_pass() {
    let world = World::new().await;
    // In a network of its own where nothing is up, a command could still listen at any address.
    let listen = "import socket; socket.socket().bind((\"0.0.0.0\", 0))";
    let call = "import socket; socket.socket(socket.AF_INET6).connect((\"::1\", 9))";
    for act in [listen, call] {
        let done = world.run(&format!("/usr/bin/python3 -c '{act}'")).await;
        assert!(done.code() == Some(1) && done.stderr.contains("PermissionError"), "{act}: {done:?}");
        assert!(held(&done.ran, "landlock"));
    }
    // The run's first process listens for SIGTERM, and under an ordinary server it is the command's own user's.
    let done = world.run("kill -TERM 1; echo $?; kill -TERM $$; echo after").await;
    assert_eq!(done.stdout, "1\n", "{done:?}");
    assert_eq!(done.ran.outcome, Outcome::Signalled { signal: libc::SIGTERM });
    // Names of folders are no secret; what lies in them is read where nothing below is one.
    let done = world.run("ls / > /dev/null && ls /etc > /dev/null && cat /etc/passwd | head -c 4").await;
    assert_eq!((done.code(), done.stdout.as_str()), (Some(0), "root"), "{done:?}");
}

async fn the_servers_process_cannot_be_looked_into() {
    let world = World::new().await;
    let server = std::process::id();
    for file in ["environ", "cmdline", "mem", "maps", "root/etc/passwd", "fd/0", "cwd", "exe"] {
        world.refuses(&format!("cat /proc/{server}/{file}")).await;
    }
    for signal in ["0", "TERM", "KILL"] {
        world.refuses(&format!("kill -{signal} {server}")).await;
    }
    // Also not by another road to the same process file system.
    assert_eq!(world.run("cat /proc/1/comm").await.stdout, "provara-run\n");
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
        "/usr/bin/python3 -c 'import socket; socket.socket(40, 1)'",
        "/usr/bin/python3 -c 'import ctypes,sys; sys.exit(ctypes.CDLL(None).ptrace(0,0,0,0) != 0)'",
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
    let private = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = private.path().join("open.sock").to_str().unwrap().to_owned();
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
        format!("/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{socket}\")'"),
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
    // What is run under must be what the claim is for.
    let done = world.run_as("echo ran", "networks").await;
    assert!(matches!(done.ran.outcome, Outcome::SpawnFailed { failure: SpawnFailure::Refused, .. }));
    assert_eq!(done.stdout, "");
}
