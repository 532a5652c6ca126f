//! What a command asks of the kernel, and exactly what its record says held.

use std::process::Command;

use provara_domain::Mechanism;

use crate::support::*;

scenarios!(
    the_record_says_exactly_what_held,
    calls_by_other_numberings_are_refused,
    sockets_are_of_the_usual_kinds,
    no_device_of_the_machine_can_be_opened,
);

fn mechanism(name: &str, detail: &str) -> Mechanism {
    Mechanism { name: name.into(), held: true, detail: detail.into() }
}

async fn the_record_says_exactly_what_held() {
    let world = World::new().await;
    // Which version this kernel has is its own; that it governs files and networks is not.
    let known = &world.runner.host().mechanisms;
    let landlock = known.iter().find(|known| known.name == "landlock").unwrap().detail.clone();
    assert!(landlock.starts_with("ABI ") && landlock.contains(": files, TCP, "), "{landlock}");
    for profile in ["workspace", "host"] {
        let confined = profile == "workspace";
        let mut expected = Vec::new();
        if !is_root() {
            expected.push(mechanism("user_namespace", "same user"));
        }
        expected.push(mechanism("pid_namespace", "the kernel ends every process with the run"));
        expected.push(mechanism("ipc_namespace", ""));
        if confined {
            expected.push(mechanism("network_namespace", "no interface is up, loopback included"));
        }
        if known.iter().any(|known| known.name == "control_group") {
            expected.push(mechanism("control_group", "at most: processes 4096"));
        }
        if confined {
            let dev = "null, zero, full, random, urandom, tty, terminals of its own";
            expected.push(mechanism("private_dev", dev));
        }
        expected.push(mechanism("private_proc", "only the run's own processes"));
        if confined {
            let mounts = "all but the workspace read-only; /tmp private; /run hidden";
            expected.push(mechanism("mount_namespace", mounts));
            expected.push(mechanism("credentials_hidden", ""));
        } else {
            expected.push(mechanism("mount_namespace", "Provara's own files hidden, and held in their place"));
        }
        expected.push(mechanism("own_files_hidden", ""));
        let grouped = known.iter().any(|known| known.name == "control_group");
        let rest = if grouped { "" } else { ", processes 4096" };
        expected.push(mechanism("rlimits", &format!("no core dumps, open files 4096{rest}")));
        expected.push(mechanism("securebits", "uid 0 gives no capability, none is ambient; locked"));
        if is_root() {
            expected.push(mechanism("user", "uid 65534 gid 65534"));
        }
        expected.push(mechanism("capabilities_dropped", "all, bounding set included"));
        expected.push(mechanism("no_new_privs", ""));
        if confined {
            expected.push(mechanism("landlock", &landlock));
        }
        let seccomp = "no mounts, namespaces, tracing, keys, modules, clocks, io_uring, raw and unusual sockets, TIOCSTI, x32 calls";
        expected.push(mechanism("seccomp", seccomp));
        let done = world.run_as("true", profile).await;
        assert_eq!(done.ran.enforced.profile, profile);
        assert_eq!(done.ran.enforced.mechanisms, expected, "{profile}");
        if confined {
            assert_eq!(world.runner.host().mechanisms, expected, "the host's report differs from a run's record");
        }
    }
}

/// Compiles a C program into the workspace.
fn compile(world: &World, name: &str, source: &str) {
    let file = world.root.path().join(format!("{name}.c"));
    std::fs::write(&file, source).unwrap();
    let done =
        Command::new("gcc").arg("-O0").arg("-o").arg(world.path(&format!("workspace/{name}"))).arg(&file).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

async fn calls_by_other_numberings_are_refused() {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("skipped: only x86_64 has three numberings");
        return;
    }
    let world = World::new().await;
    // unshare and ptrace as x32 numbers: refused by us, where the kernel without x32 would say ENOSYS.
    let x32 = "#include <errno.h>\n#include <stdio.h>\n#include <unistd.h>\n\
        int main(void) { for (int n = 0; n < 3; n++) { static const long calls[] = {272, 521, 39}; errno = 0;\n\
        long got = syscall(0x40000000L | calls[n], 0x10000000L, 0, 0, 0); printf(\"%ld %d\\n\", got, errno); } }";
    compile(&world, "x32", x32);
    // getpid as a 32-bit program asks for it: the architecture itself ends the process.
    let i386 = "#include <stdio.h>\nint main(void) { long got; __asm__ volatile(\"int $0x80\" : \"=a\"(got) : \"a\"(20L));\n\
        printf(\"worked %ld\\n\", got); }";
    compile(&world, "i386", i386);
    for profile in ["workspace", "host"] {
        let done = world.run_as("./x32", profile).await;
        let eperm = libc::EPERM;
        assert_eq!(done.stdout, format!("-1 {eperm}\n-1 {eperm}\n-1 {eperm}\n"), "{profile}: {done:?}");
        let done = world.run_as("exec ./i386", profile).await;
        // A kernel without 32-bit programs has no such gate, and its answer is a fault.
        let ends = [libc::SIGSYS, libc::SIGSEGV].map(|signal| Outcome::Signalled { signal });
        assert!(ends.contains(&done.ran.outcome), "{profile}: {done:?}");
        assert_eq!(done.stdout, "");
    }
}

async fn sockets_are_of_the_usual_kinds() {
    let world = World::new().await;
    // Family, type, protocol, and which profiles give it.
    let (both, host, none) = (&["workspace", "host"][..], &["host"][..], &[][..]);
    let kinds = [
        ("AF_INET", "SOCK_STREAM", 0, both),
        ("AF_INET6", "SOCK_DGRAM", 0, both),
        ("AF_UNIX", "SOCK_STREAM", 0, both),
        ("AF_NETLINK", "SOCK_RAW", libc::NETLINK_ROUTE, host),
        ("AF_NETLINK", "SOCK_RAW", libc::NETLINK_SOCK_DIAG, none),
        ("AF_NETLINK", "SOCK_RAW", libc::NETLINK_NETFILTER, none),
        ("AF_NETLINK", "SOCK_RAW", libc::NETLINK_AUDIT, none),
        ("AF_NETLINK", "SOCK_RAW", libc::NETLINK_KOBJECT_UEVENT, none),
        ("AF_NETLINK", "SOCK_RAW", libc::NETLINK_GENERIC, none),
        ("AF_PACKET", "SOCK_RAW", 0, none),
        ("AF_VSOCK", "SOCK_STREAM", 0, none),
        ("AF_ALG", "SOCK_SEQPACKET", 0, none),
    ];
    for (family, kind, protocol, giving) in kinds {
        let program = format!(
            "import socket\ntry: socket.socket(socket.{family}, socket.{kind}, {protocol}); print('given')\n\
             except PermissionError: print('refused')"
        );
        std::fs::write(world.path("workspace/ask.py"), program).unwrap();
        for profile in ["workspace", "host"] {
            let done = world.run_as("/usr/bin/python3 ask.py", profile).await;
            let expected = if giving.contains(&profile) { "given\n" } else { "refused\n" };
            assert_eq!(done.stdout, expected, "{profile}: {family} {protocol}: {}", done.stderr);
        }
    }
    // Who calls nobody may not even ask for the routes, and programs that would do not need the answer.
    let done = world.run("getent ahosts localhost | head -1").await;
    assert!(done.stdout.starts_with("127.0.0.1") || done.stdout.starts_with("::1"), "{done:?}");
    // What may be asked of the routes may not be changed: no interface is brought up or down.
    let down = "import socket, struct\ns = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n\
        s.send(struct.pack('=IHHIIBxHiII', 32, 16, 5, 1, 0, 0, 0, 1, 1, 1))\n\
        error = struct.unpack('=i', s.recv(4096)[16:20])[0]\nprint(error)";
    std::fs::write(world.path("workspace/up.py"), down).unwrap();
    let done = world.run_as("/usr/bin/python3 up.py", "host").await;
    assert_eq!(done.stdout, format!("-{}\n", libc::EPERM), "{}", done.stderr);
}

async fn no_device_of_the_machine_can_be_opened() {
    let world = World::new().await;
    let done = world.run("cd /dev && ls -A | sort | paste -sd' '; ls -A pts shm").await;
    assert_eq!(
        done.stdout, "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero\npts:\nptmx\n\nshm:\n",
        "{}",
        done.stderr
    );
    // What programs need of it works, a terminal of the command's own included.
    let use_it = "set -e; echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; \
        cat <(echo by fd); echo err > /dev/stderr; echo y > /dev/shm/y; cat /dev/shm/y; \
        /usr/bin/python3 -c 'import pty, sys; sys.exit(pty.spawn([\"true\"]))'; \
        ! touch /dev/x 2> /dev/null; ! mknod d c 1 3 2> /dev/null; echo end";
    let done = world.run(use_it).await;
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("4\n4\nby fd\ny\nend\n", "err\n"), "{done:?}");
    if is_root() {
        // A device's node that anybody may open, in a folder of the host's and in the workspace.
        for folder in ["", "workspace/"] {
            let node = world.path(&format!("{folder}zero"));
            assert!(Command::new("mknod").args(["-m", "666", &node, "c", "1", "5"]).status().unwrap().success());
            let done = world.run(&format!("test -c {folder}zero -o -c {node}; head -c 1 {node}")).await;
            assert_eq!((done.code(), done.stdout.as_str()), (Some(1), ""), "{node}");
            // Not gone for want of the file: the node is seen where it is not covered.
            assert!(folder.is_empty() || done.stderr.contains("Permission denied"), "{}", done.stderr);
        }
    }
}
