//! System calls that a command may not make, by their numbers, and the rights that it may not have.

use crate::support::*;

scenarios!(
    calls_that_widen_a_commands_reach_are_refused,
    raw_sockets_and_unusual_arguments_are_refused,
    no_right_is_left_and_none_comes_back,
    a_crash_leaves_no_core_and_starts_no_handler,
);

const PROFILES: [&str; 2] = ["workspace", "host"];

/// A program that makes each call and prints its name and what the kernel said.
fn caller(calls: &[(&str, i64, &str)]) -> String {
    let mut program = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n".to_owned();
    for (name, number, arguments) in calls {
        let call = format!("libc.syscall({number}, {arguments})");
        program.push_str(&format!(
            "ctypes.set_errno(0); got = {call}; print('{name}', got, ctypes.get_errno(), flush=True)\n"
        ));
    }
    program
}

async fn calls_that_widen_a_commands_reach_are_refused() {
    let world = World::new().await;
    let nothing = "0, 0, 0, 0, 0, 0";
    let forbidden = [
        ("acct", libc::SYS_acct),
        ("add_key", libc::SYS_add_key),
        ("bpf", libc::SYS_bpf),
        ("chroot", libc::SYS_chroot),
        ("clock_adjtime", libc::SYS_clock_adjtime),
        ("clock_settime", libc::SYS_clock_settime),
        ("delete_module", libc::SYS_delete_module),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("finit_module", libc::SYS_finit_module),
        ("fsconfig", libc::SYS_fsconfig),
        ("fsmount", libc::SYS_fsmount),
        ("fsopen", libc::SYS_fsopen),
        ("fspick", libc::SYS_fspick),
        ("init_module", libc::SYS_init_module),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("io_uring_register", libc::SYS_io_uring_register),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("kcmp", libc::SYS_kcmp),
        ("kexec_file_load", libc::SYS_kexec_file_load),
        ("kexec_load", libc::SYS_kexec_load),
        ("keyctl", libc::SYS_keyctl),
        ("mount", libc::SYS_mount),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("move_mount", libc::SYS_move_mount),
        ("name_to_handle_at", libc::SYS_name_to_handle_at),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("open_tree", libc::SYS_open_tree),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("pivot_root", libc::SYS_pivot_root),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("ptrace", libc::SYS_ptrace),
        ("quotactl", libc::SYS_quotactl),
        ("quotactl_fd", libc::SYS_quotactl_fd),
        ("reboot", libc::SYS_reboot),
        ("request_key", libc::SYS_request_key),
        ("setdomainname", libc::SYS_setdomainname),
        ("sethostname", libc::SYS_sethostname),
        ("setns", libc::SYS_setns),
        ("settimeofday", libc::SYS_settimeofday),
        ("swapoff", libc::SYS_swapoff),
        ("swapon", libc::SYS_swapon),
        ("syslog", libc::SYS_syslog),
        ("umount2", libc::SYS_umount2),
        ("unshare", libc::SYS_unshare),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("open_tree_attr", 467),
    ];
    let calls: Vec<_> = forbidden.iter().map(|(name, number)| (*name, *number, nothing)).collect();
    std::fs::write(world.path("workspace/calls.py"), caller(&calls)).unwrap();
    let expected: String = forbidden.iter().map(|(name, _)| format!("{name} -1 {}\n", libc::EPERM)).collect();
    for profile in PROFILES {
        let done = world.run_as("/usr/bin/python3 calls.py", profile).await;
        assert_eq!(done.stdout, expected, "{profile}: {}", done.stderr);
        assert!(held(&done.ran, "seccomp"), "{profile}: {:?}", done.ran.enforced);
    }
}

async fn raw_sockets_and_unusual_arguments_are_refused() {
    let world = World::new().await;
    let (eperm, enosys) = (libc::EPERM, libc::ENOSYS);
    let refused: Vec<(&str, i64, String, i32)> = vec![
        ("raw", libc::SYS_socket, format!("{}, {}, 1", libc::AF_INET, libc::SOCK_RAW), eperm),
        // The flags that share the argument hide nothing.
        ("raw6", libc::SYS_socket, format!("{}, {}, 58", libc::AF_INET6, libc::SOCK_RAW | libc::SOCK_CLOEXEC), eperm),
        ("packet", libc::SYS_socket, format!("{}, 10, 0", libc::AF_INET), eperm),
        ("pair", libc::SYS_socketpair, format!("{}, 1, 0, 0", libc::AF_TIPC), eperm),
        ("personality", libc::SYS_personality, "0x0400000".into(), eperm),
        ("sti", libc::SYS_ioctl, format!("0, {}, b'x'", libc::TIOCSTI), eperm),
        // The kernel reads 32 bits of a request; what lies above must not lead around the rule.
        ("high", libc::SYS_ioctl, format!("0, ctypes.c_ulong({} | 1 << 32), b'x'", libc::TIOCSTI), eperm),
        ("console", libc::SYS_ioctl, "0, 0x541c, b'x'".into(), eperm),
        ("line", libc::SYS_ioctl, "0, 0x5423, b'x'".into(), eperm),
        ("clone3", libc::SYS_clone3, "0, 0".into(), enosys),
        ("clone", libc::SYS_clone, format!("{}, 0, 0, 0, 0", libc::CLONE_NEWUSER | libc::SIGCHLD), eperm),
    ];
    let calls: Vec<_> =
        refused.iter().map(|(name, number, arguments, _)| (*name, *number, arguments.as_str())).collect();
    let ask = caller(&calls) + &caller(&[("asked", libc::SYS_personality, "0xffffffff")]);
    std::fs::write(world.path("workspace/calls.py"), ask).unwrap();
    let expected: String = refused.iter().map(|(name, .., errno)| format!("{name} -1 {errno}\n")).collect();
    for profile in PROFILES {
        let done = world.run_as("/usr/bin/python3 calls.py", profile).await;
        assert_eq!(done.stdout, format!("{expected}asked 0 0\n"), "{profile}: {}", done.stderr);
        assert!(held(&done.ran, "seccomp"));
    }
}

async fn no_right_is_left_and_none_comes_back() {
    let world = World::new().await;
    for profile in PROFILES {
        let done = world.run_as("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status", profile).await;
        let none = "0000000000000000";
        let expected = format!(
            "CapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\nCapBnd:\t{none}\nCapAmb:\t{none}\nNoNewPrivs:\t1\nSeccomp:\t2\n"
        );
        assert_eq!(done.stdout, expected, "{profile}");
        for mechanism in ["capabilities_dropped", "securebits", "no_new_privs"] {
            assert!(held(&done.ran, mechanism), "{profile}: {mechanism}: {:?}", done.ran.enforced);
        }
        // PR_GET_SECUREBITS: no root, no fix-up, no ambient capability, each locked, and keeping capabilities locked off.
        let bits = "import ctypes; print(hex(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0)))";
        assert_eq!(world.run_as(&format!("/usr/bin/python3 -c '{bits}'"), profile).await.stdout, "0xef\n");
    }
    // A program whose file says that it runs as root runs as who called it.
    if is_root() {
        let program = world.path("workspace/id");
        std::fs::copy("/usr/bin/id", &program).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o6755)).unwrap();
        for profile in PROFILES {
            let done = world.run_as("./id -u; ./id -g", profile).await;
            assert_eq!(done.stdout, "65534\n65534\n", "{profile}: {}", done.stderr);
        }
    }
}

async fn a_crash_leaves_no_core_and_starts_no_handler() {
    let world = World::new().await;
    // Where the operator allows none at all, it stays at none.
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).unwrap();
    let most = if hard == 0 { "0" } else { "1" };
    for profile in PROFILES {
        // One byte: too little for any core in a file, and the one value at which no handler is started.
        let done = world.run_as("grep core /proc/self/limits; sh -c 'kill -SEGV $$'; echo $?; ls", profile).await;
        let told: Vec<&str> = done.stdout.split_whitespace().collect();
        assert_eq!(told, ["Max", "core", "file", "size", most, most, "bytes", "139"], "{profile}: {}", done.stderr);
        let raise = "/usr/bin/python3 -c 'import resource as r; r.setrlimit(r.RLIMIT_CORE, (2, 2))'";
        assert_eq!(world.run_as(raise, profile).await.code(), Some(1), "{profile}");
        assert!(held(&done.ran, "rlimits"));
    }
}
