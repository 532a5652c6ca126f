//! Ways out of a workspace that a command may try. Each is an act that fails, under a confinement that says it holds.

use std::fs;

use crate::support::*;

scenarios!(
    nothing_outside_is_changed_by_any_name,
    another_runs_files_and_processes_are_out_of_reach,
    nobody_is_called_by_any_kind_of_socket,
    no_descriptor_of_ours_is_inherited,
);

const WALLS: [&str; 4] = ["mount_namespace", "landlock", "seccomp", "capabilities_dropped"];

/// Runs a Python act that has to fail with one of `errors`.
async fn fails(world: &World, act: &str, errors: &[&str]) {
    fs::write(world.path("workspace/act.py"), format!("import os, socket\n{act}\nprint('worked')\n")).unwrap();
    let done = world.run("/usr/bin/python3 act.py").await;
    let told = done.stderr.lines().last().unwrap_or_default();
    assert_eq!((done.code(), done.stdout.as_str()), (Some(1), ""), "`{act}`: {done:?}");
    assert!(errors.iter().any(|error| told.contains(error)), "`{act}` failed otherwise: {told}");
    for wall in WALLS {
        assert!(held(&done.ran, wall), "{wall}: {:?}", done.ran.enforced);
    }
}

async fn nothing_outside_is_changed_by_any_name() {
    let world = World::new().await;
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    let file = format!("{outside}/file");
    fs::write(&file, "as it was").unwrap();
    // Open to everybody: what keeps a command away must not be the mode. And its own, where a server can give it away.
    for path in [&outside, &file] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        provara_runner::give_workspace(Path::new(path), None).unwrap();
    }
    let refused = &["PermissionError", "Read-only", "Invalid cross-device link", "Operation not permitted"];
    for act in [
        format!("open('{file}', 'w')"),
        format!("open('{file}', 'a')"),
        format!("os.truncate('{file}', 0)"),
        format!("os.chmod('{file}', 0o600)"),
        format!("os.chmod('{outside}', 0o700)"),
        format!("os.utime('{file}', (1, 1))"),
        format!("os.chown('{file}', os.getuid(), os.getgid())"),
        format!("os.setxattr('{file}', 'user.x', b'1')"),
        format!("os.unlink('{file}')"),
        format!("os.mkdir('{outside}/folder')"),
        format!("os.symlink('/etc', '{outside}/link')"),
        format!("os.mkfifo('{outside}/fifo')"),
        format!("os.rename('{file}', 'taken')"),
        format!("open('mine', 'w').close(); os.rename('mine', '{outside}/mine')"),
        format!("os.link('{file}', 'linked')"),
        format!("open('own', 'w').close(); os.link('own', '{outside}/own')"),
        format!("os.rename('{outside}', '{outside}-away')"),
        // By a link, by a descriptor's name, from a folder that was opened first, and by leaving the workspace.
        format!("os.symlink('{outside}', 'way') if not os.path.lexists('way') else 0; open('way/new', 'w')"),
        format!("fd = os.open('{file}', os.O_RDONLY); open(f'/proc/self/fd/{{fd}}', 'w')"),
        format!("fd = os.open('{outside}', os.O_PATH); open(f'/proc/self/fd/{{fd}}/new', 'w')"),
        format!("fd = os.open('{outside}', os.O_RDONLY); os.open('new', os.O_CREAT | os.O_WRONLY, dir_fd=fd)"),
        "open('../outside/new', 'w')".to_owned(),
        "open('/proc/self/cwd/../outside/new', 'w')".to_owned(),
        "open('/proc/self/root/etc/new', 'w')".to_owned(),
        "open('/proc/1/root/etc/new', 'w')".to_owned(),
        "open('/proc/sys/kernel/hostname', 'w')".to_owned(),
        "open('/proc/sys/vm/drop_caches', 'w')".to_owned(),
        "os.chroot('.')".to_owned(),
        "os.mknod('device', 0o600 | 0o060000, os.makedev(8, 0))".to_owned(),
    ] {
        fails(&world, &act, refused).await;
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "as it was");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    let found = fs::metadata(&file).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o777);
    assert_ne!(found.modified().unwrap(), std::time::UNIX_EPOCH + Duration::from_secs(1));
}

async fn another_runs_files_and_processes_are_out_of_reach() {
    let world = World::new().await;
    let mark = marked(3303);
    let (handle, control) = control();
    let first = format!("echo secret > /tmp/of-the-first; echo secret > /dev/shm/it; touch up; sleep {mark}");
    let claim = world.claim(&first, "workspace", &world.path("workspace"), 60);
    let second = async {
        wait_until("the first run", || Path::new(&world.path("workspace/up")).exists() && sleeps(&mark)).await;
        let look = "cat /tmp/of-the-first /dev/shm/it; cat /proc/*/cmdline | tr '\\0' ' '; \
            for p in /proc/[0-9]*; do cat $p/root/tmp/of-the-first; done";
        let done = world.run(look).await;
        assert!(!done.stdout.contains("secret"), "{}", done.stdout);
        assert!(!done.stdout.contains(&format!("sleep {mark}")), "{}", done.stdout);
        // By the number that the host knows it by, every process of the first.
        for pid in those_with(&format!("sleep\0{mark}")) {
            let done = world.run(&format!("kill -9 {pid}")).await;
            assert_eq!(done.code(), Some(1), "{done:?}");
        }
        assert!(sleeps(&mark), "the first run was ended by the second");
        handle.cancel();
    };
    let (done, ()) = tokio::join!(world.run_claim(claim, control), second);
    assert_eq!(done.ran.outcome, Outcome::Cancelled);
    assert!(held(&done.ran, "pid_namespace"));
}

async fn nobody_is_called_by_any_kind_of_socket() {
    let world = World::new().await;
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    let port = udp.local_addr().unwrap().port();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listening = tcp.local_addr().unwrap().port();
    let refused = &["PermissionError", "unreachable", "Cannot assign requested address", "gaierror"];
    for act in [
        format!("socket.create_connection(('127.0.0.1', {listening}), 2)"),
        format!("socket.create_connection(('localhost', {listening}), 2)"),
        format!("socket.create_connection(('::ffff:127.0.0.1', {listening}), 2)"),
        format!("socket.create_connection(('::1', {listening}), 2)"),
        format!("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'out', ('127.0.0.1', {port}))"),
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'out', ('192.0.2.1', 53))".to_owned(),
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'out', ('2001:db8::1', 53))".to_owned(),
        "socket.create_connection(('192.0.2.1', 443), 2)".to_owned(),
        "socket.create_connection(('169.254.169.254', 80), 2)".to_owned(),
        "socket.getaddrinfo('name.example.com', 80)".to_owned(),
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)".to_owned(),
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)".to_owned(),
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)".to_owned(),
        // TCP Fast Open sends with what would connect.
        format!("socket.socket().sendto(b'out', 0x20000000, ('127.0.0.1', {listening}))"),
    ] {
        fails(&world, &act, refused).await;
    }
    assert_eq!(udp.recv(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    tcp.set_nonblocking(true).unwrap();
    assert_eq!(tcp.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

async fn no_descriptor_of_ours_is_inherited() {
    let world = World::new().await;
    for profile in ["workspace", "host"] {
        let program = "import os\nfor fd in os.listdir('/proc/self/fd'):\n  try: print(fd, os.readlink(f'/proc/self/fd/{fd}'))\n\
            \x20 except FileNotFoundError: pass";
        fs::write(world.path("workspace/list.py"), program).unwrap();
        let done = world.run_as("exec /usr/bin/python3 list.py", profile).await;
        let mut open: Vec<&str> = done.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
        open.sort_unstable();
        assert_eq!(open, ["0", "1", "2"], "{profile}: {}", done.stdout);
        // Also not by the first process of the run, which holds some of ours.
        let done = world.run_as("ls -l /proc/1/fd; cat /proc/1/environ; cat /proc/1/mem", profile).await;
        assert_eq!((done.code(), done.stdout.as_str()), (Some(1), ""), "{profile}: {}", done.stderr);
    }
}
