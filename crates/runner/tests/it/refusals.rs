//! Where a host forbids what a run needs, nothing runs, and the operator is told what to do.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::support::*;

/// What a container's filter does: no namespaces at all.
fn forbid_namespaces(flag: i32) {
    let bit = u64::try_from(flag).unwrap();
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bit), bit).unwrap();
    let rules = BTreeMap::from([(libc::SYS_unshare, vec![SeccompRule::new(vec![condition]).unwrap()])]);
    let arch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

async fn is_refused(step: &str, ways: &[&str]) {
    let world = World::new().await;
    let problem = world.runner.host().problem.clone().unwrap();
    assert_eq!(world.runner.host().mechanisms, []);
    assert!(problem.starts_with(&format!("could not {step}: ")), "{problem}");
    for way in ways {
        assert!(problem.contains(way), "`{way}` is not in `{problem}`");
    }
    for profile in ["workspace", "host"] {
        let done = world.run_as("touch ran; echo ran", profile).await;
        assert_eq!(
            done.ran.outcome,
            Outcome::SpawnFailed { failure: SpawnFailure::Confinement, message: problem.clone() },
            "{profile}"
        );
        assert_eq!((done.stdout.as_str(), done.ran.enforced.mechanisms.as_slice()), ("", &[][..]));
    }
    assert!(!Path::new(&world.path("workspace/ran")).exists());
}

const ORDINARY_WAYS: [&str; 5] = [
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.unprivileged_userns_clone",
    "user.max_user_namespaces",
    "AGENT_HUB_RUN_AS",
    "--security-opt seccomp=unconfined",
];

#[test]
fn a_filter_that_forbids_user_namespaces_is_named_to_an_ordinary_server() {
    if is_root() {
        return again(
            "it::refusals::a_filter_that_forbids_user_namespaces_is_named_to_an_ordinary_server",
            &[],
            As::Ordinary,
        );
    }
    forbid_namespaces(libc::CLONE_NEWUSER);
    play(is_refused("make a user namespace", &ORDINARY_WAYS));
}

/// As AppArmor does it on Ubuntu: the user namespace is made and is good for nothing.
#[test]
fn a_user_namespace_without_rights_is_no_confinement() {
    if is_root() {
        return again("it::refusals::a_user_namespace_without_rights_is_no_confinement", &[], As::Ordinary);
    }
    forbid_namespaces(libc::CLONE_NEWNS);
    play(is_refused("make mount, process, IPC and network namespaces", &ORDINARY_WAYS));
}

#[test]
fn a_count_of_no_user_namespaces_is_named_as_the_reason() {
    const ME: &str = "it::refusals::a_count_of_no_user_namespaces_is_named_as_the_reason";
    if !is_again() {
        // In a user namespace of its own, where the count is the test's to set.
        let set =
            "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"";
        return again(
            ME,
            &["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", set, "sh"],
            As::Ordinary,
        );
    }
    play(is_refused("make a user namespace", &["`sysctl user.max_user_namespaces=10000`", "AGENT_HUB_RUN_AS"]));
}

#[test]
fn a_root_server_in_a_container_is_told_what_the_container_needs() {
    const ME: &str = "it::refusals::a_root_server_in_a_container_is_told_what_the_container_needs";
    as_root(ME, "needs root", async {
        forbid_namespaces(libc::CLONE_NEWNS);
        is_refused("make mount, process, IPC and network namespaces", &["--cap-add SYS_ADMIN", "seccomp=unconfined"])
            .await;
    });
}

#[test]
fn stricter_limits_of_the_operators_hold_and_are_told() {
    const ME: &str = "it::refusals::stricter_limits_of_the_operators_hold_and_are_told";
    if !is_again() {
        let who = if is_root() { As::Ordinary } else { As::Root };
        return again(ME, &["prlimit", "--nproc=60", "--nofile=500"], who);
    }
    play(async {
        let world = World::new().await;
        let done = world.run("ulimit -Hn; ulimit -Hu").await;
        assert_eq!((done.code(), done.stdout.as_str()), (Some(0), "500\n60\n"), "{done:?}");
        let limits = done.ran.enforced.mechanisms.iter().find(|known| known.name == "rlimits").unwrap();
        assert_eq!(limits.detail, "no core dumps, open files 500, processes 60");
        // A fork bomb runs into it, ends at its time-out, and leaves the machine as it was.
        let mark = marked(3301);
        let bomb = format!("b() {{ sleep {mark} & b & b & wait; }}; b 2> /dev/null; exec sleep {mark}");
        let (_handle, control) = control();
        let claim = world.claim(&bomb, "workspace", &world.path("workspace"), 2);
        let most = async {
            wait_until("the bomb", || those_with(&mark).len() > 20).await;
            those_with(&mark).len()
        };
        let (done, most) = tokio::join!(world.run_claim(claim, control), most);
        assert_eq!(done.ran.outcome, Outcome::TimedOut);
        assert!(most <= 60, "{most} processes");
        assert!(!alive(&mark), "a process outlived its run");
        assert_eq!(world.run("echo calm").await.stdout, "calm\n");
    });
}

#[test]
fn the_profile_host_needs_a_word_of_the_operators_where_it_is_the_servers_user() {
    const ME: &str = "it::refusals::the_profile_host_needs_a_word_of_the_operators_where_it_is_the_servers_user";
    if is_root() {
        return again(ME, &[], As::Ordinary);
    }
    play(async {
        let done = World::with(SameUser::Refused).await.run_as("echo ran", "host").await;
        let Outcome::SpawnFailed { failure: SpawnFailure::Refused, message } = done.ran.outcome else {
            panic!("{done:?}")
        };
        assert!(message.contains("AGENT_HUB_ALLOW_HOST_SAME_USER=1"), "{message}");
        assert_eq!(done.stdout, "");
    });
}
