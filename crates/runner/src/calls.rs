//! Which system calls a command may not make: everything is allowed but what widens what it could do.
//!
//! A list of what is refused and not of what is allowed: commands are arbitrary programs, and a call that a new libc makes
//! must not break them. What the list would miss meets the mounts, the namespaces and Landlock.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::protocol::Calls;

/// Returns the filters, in the order in which they are applied.
pub(crate) fn filters(calls: Calls) -> Result<Vec<BpfProgram>, BackendError> {
    let numbering = cfg!(target_arch = "x86_64").then(no_second_numbering);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.iter().chain(&FORBIDDEN_HERE).map(|call| (*call, vec![])).collect();
    rules.insert(libc::SYS_socket, sockets(calls)?);
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![is_not(0, number(libc::AF_UNIX))?])?]);
    rules.insert(
        libc::SYS_ioctl,
        IOCTLS.into_iter().map(|request| SeccompRule::new(vec![is(1, request)?])).collect::<Result<_, _>>()?,
    );
    // Of personalities, asking for one's own and going back to the usual one.
    let usual = [PERSONALITY_QUERY, 0].map(|wanted| is_not(0, wanted));
    rules.insert(libc::SYS_personality, vec![SeccompRule::new(usual.into_iter().collect::<Result<_, _>>()?)?]);
    let clones = NAMESPACES.into_iter().map(|flag| SeccompRule::new(vec![has(0, number(flag), number(flag))?]));
    rules.insert(libc::SYS_clone, clones.collect::<Result<_, _>>()?);
    // clone3 hides its flags behind a pointer, which a filter cannot follow; programs fall back to clone.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    let rest = [filter(rules, libc::EPERM)?, filter(clone3, libc::ENOSYS)?];
    Ok(numbering.into_iter().chain(rest).collect())
}

/// System calls that no command needs and that widen what it could do.
const FORBIDDEN: [i64; 51] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    // The kernel's messages name addresses, devices and other people's programs.
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    // `open_tree_attr`, which libc does not name yet. New calls have the same number everywhere.
    467,
];

#[cfg(target_arch = "x86_64")]
const FORBIDDEN_HERE: [i64; 5] =
    [libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_modify_ldt, libc::SYS_uselib, libc::SYS__sysctl];
#[cfg(not(target_arch = "x86_64"))]
const FORBIDDEN_HERE: [i64; 0] = [];

const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Typing into a terminal on behalf of its reader (TIOCSTI, and TIOCLINUX of the console), and loading code of the kernel's
/// that treats a line (TIOCSETD).
const IOCTLS: [u64; 3] = [0x5412, 0x541c, 0x5423];

const PERSONALITY_QUERY: u64 = 0xffff_ffff;

/// Only the address families that ordinary programs use, and of none the raw kind.
fn sockets(calls: Calls) -> Result<Vec<SeccompRule>, BackendError> {
    const RAW: u64 = 3; // SOCK_RAW
    const PACKET: u64 = 10; // SOCK_PACKET, the old name of the same power
    const KIND: u64 = 0xf; // the flags that share the argument left out
    let netlink = number(libc::AF_NETLINK);
    let mut usual = vec![libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    // In a network of its own there is nothing to ask for: programs take a refusal for "every family", and go on.
    if calls == Calls::Host {
        usual.push(libc::AF_NETLINK);
    }
    let unusual = usual.into_iter().map(|family| is_not(0, number(family)));
    let mut rules = vec![SeccompRule::new(unusual.collect::<Result<_, _>>()?)?];
    for kind in [RAW, PACKET] {
        // Every netlink socket calls itself raw, and is judged by its protocol below.
        rules.push(SeccompRule::new(vec![is_not(0, netlink)?, has(1, KIND, kind)?])?);
    }
    // Of netlink only what name resolution and `ip` read. The rest (netfilter, audit, device events) serves nobody without
    // capabilities, and has been the way into the kernel too often.
    rules.push(SeccompRule::new(vec![is(0, netlink)?, is_not(2, number(libc::NETLINK_ROUTE))?])?);
    Ok(rules)
}

/// A constant of libc's as an argument of a call: none is negative.
fn number(constant: i32) -> u64 {
    u64::from(constant.cast_unsigned())
}

fn is(index: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn is_not(index: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

fn has(index: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

/// x32 programs call the same kernel by other numbers under the same architecture's name, so no rule by number would
/// meet them. The rules themselves end a process that calls as another architecture.
fn no_second_numbering() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const X32: u32 = 0x4000_0000;
    const NUMBER: u32 = 0; // where `struct seccomp_data` has the call's number
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD_WORD, 0, 0, NUMBER),
        step(JUMP_GREATER_EQUAL, 0, 1, X32),
        step(RETURN, 0, 0, u32::from(SeccompAction::Errno(1))),
        step(RETURN, 0, 0, u32::from(SeccompAction::Allow)),
    ]
}

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, BackendError> {
    let arch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
    let refuse = SeccompAction::Errno(u32::try_from(errno).unwrap_or(1));
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()
}
