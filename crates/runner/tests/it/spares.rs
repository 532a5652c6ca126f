//! What stands ready for the next run: used once, true of the machine at the moment of the run, and gone with its makers.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::*;

scenarios!(
    a_run_has_a_spare_that_stood_ready_and_no_other_run_has_the_same,
    a_spare_dies_with_the_helper_and_with_the_server,
    what_is_made_after_a_spare_is_hidden_all_the_same,
    a_spare_that_was_killed_is_not_used,
    spares_know_nothing_of_earlier_runs,
    a_workspace_below_a_private_folder_is_the_machines,
);

/// The spares' first processes and shells-to-be, by their parents: a supervisor is a child of the helper.
fn spares() -> Vec<i32> {
    let me = std::process::id().try_into().unwrap();
    let helpers: Vec<i32> = those_with("helper").into_iter().filter(|pid| parent(*pid) == Some(me)).collect();
    let under = |parents: &[i32]| -> Vec<i32> {
        those_with("helper").into_iter().filter(|pid| parent(*pid).is_some_and(|it| parents.contains(&it))).collect()
    };
    let supervisors = under(&helpers);
    let firsts = under(&supervisors);
    let shells = under(&firsts);
    [supervisors, firsts, shells].concat()
}

/// Four of three processes each.
const WHOLE: usize = 12;

async fn stand_ready() -> Vec<i32> {
    wait_until("four spares", || spares().len() == WHOLE).await;
    spares()
}

async fn a_run_has_a_spare_that_stood_ready_and_no_other_run_has_the_same() {
    let world = World::new().await;
    let mut ready = stand_ready().await;
    for _ in 0..12 {
        let before: Vec<i32> = ready.clone();
        let done = world.run("mkdir /tmp/used; echo $$").await;
        assert_eq!(done.stderr, "", "a run found the private folder of another");
        assert_eq!(done.stdout, "2\n", "not the one process of its namespace that was to become a shell");
        wait_until("the end of the used spare", || spares().len() == WHOLE - 3).await;
        let left = spares();
        assert!(left.iter().all(|pid| before.contains(pid)), "a run was not given what stood ready");
        world.runner.make_ready();
        ready = stand_ready().await;
    }
}

async fn a_spare_dies_with_the_helper_and_with_the_server() {
    let world = World::new().await;
    let ready = stand_ready().await;
    let helper = parent(ready[0]).unwrap();
    let gone = |all: &[i32]| all.iter().all(|pid| zombie(*pid));
    kill(Pid::from_raw(helper), Signal::SIGKILL).unwrap();
    wait_until("the spares' end with the helper", || gone(&ready) && zombie(helper)).await;
    assert_eq!(world.run("echo next").await.stdout, "next\n");
    world.runner.make_ready();
    let ready = stand_ready().await;
    // Of the server nothing is left but its sockets, which its end closes.
    drop(world);
    wait_until("the spares' end with the server", || gone(&ready)).await;
}

async fn what_is_made_after_a_spare_is_hidden_all_the_same() {
    let world = World::new().await;
    stand_ready().await;
    // Provara's own files.
    fs::create_dir(world.path("not-there")).unwrap();
    fs::write(world.path("not-there/secret"), "secret-late").unwrap();
    world.refuses(&format!("cat {}", world.path("not-there/secret"))).await;
}

#[test]
fn a_credential_folder_made_after_a_spare_is_hidden() {
    const ME: &str = "it::spares::a_credential_folder_made_after_a_spare_is_hidden";
    as_root(ME, "a home of the test's own needs a mount over /etc/passwd", async {
        let home = "/srv/home";
        fs::create_dir_all(home).unwrap();
        let users = fs::read_to_string("/etc/passwd").unwrap() + &format!("svc:x:4242:4242::{home}:/bin/sh\n");
        fs::write("/srv/passwd", users).unwrap();
        assert!(Command::new("mount").args(["--bind", "/srv/passwd", "/etc/passwd"]).status().unwrap().success());
        let world = World::new().await;
        stand_ready().await;
        fs::create_dir_all(format!("{home}/.ssh")).unwrap();
        fs::write(format!("{home}/.ssh/id"), "secret").unwrap();
        fs::write(format!("{home}/plain"), "plain").unwrap();
        let done = world.run(&format!("cat {home}/plain {home}/.ssh/id 2> /dev/null")).await;
        assert_eq!(done.stdout, "plain");
        // Three are gone, not all: it was a spare that was asked.
        wait_until("the end of the used spare", || spares().len() == WHOLE - 3).await;
    });
}

/// Whatever the operator mounts, covers or takes away after a spare was made, the next run sees as it is.
#[test]
fn a_change_of_the_machines_mounts_discards_what_stood_ready() {
    const ME: &str = "it::spares::a_change_of_the_machines_mounts_discards_what_stood_ready";
    as_root(ME, "mounts need root", async {
        let world = World::new().await;
        let folder = world.path("covered");
        fs::create_dir(&folder).unwrap();
        fs::write(format!("{folder}/beneath"), "secret beneath").unwrap();
        let look = format!("cat {folder}/* 2> /dev/null; touch {folder}/x 2> /dev/null && echo written; :");
        let mount = |words: &[&str]| assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success());
        stand_ready().await;
        mount(&["mount", "-t", "tmpfs", "-o", "mode=1777", "none", &folder]);
        fs::write(format!("{folder}/above"), "above").unwrap();
        assert_eq!(world.run(&look).await.stdout, "above");
        world.runner.make_ready();
        stand_ready().await;
        mount(&["umount", &folder]);
        fs::set_permissions(format!("{folder}/beneath"), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(world.run(&look).await.stdout, "secret beneath");
        // What becomes read-only below the workspace is read-only.
        let below = world.path("workspace/below");
        fs::create_dir(&below).unwrap();
        mount(&["mount", "-t", "tmpfs", "-o", "mode=1777", "none", &below]);
        world.runner.make_ready();
        stand_ready().await;
        assert_eq!(world.run("touch below/x && echo written").await.stdout, "written\n");
        world.runner.make_ready();
        stand_ready().await;
        mount(&["mount", "-o", "remount,bind,ro", &below]);
        assert_eq!(world.run("touch below/y && echo written").await.stdout, "");
        // A process file system of the host's shows the server.
        let proc = world.path("other");
        fs::create_dir(&proc).unwrap();
        world.runner.make_ready();
        stand_ready().await;
        mount(&["mount", "-t", "proc", "none", &proc]);
        world.refuses(&format!("cat {proc}/{}/cmdline", std::process::id())).await;
    });
}

async fn a_spare_that_was_killed_is_not_used() {
    let world = World::new().await;
    for which in 0..3 {
        world.runner.make_ready();
        let ready = stand_ready().await;
        // All supervisors, all first processes, or all that would become shells.
        for pid in ready.chunks(WHOLE / 3).nth(which).unwrap() {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        wait_until("the spares' end", || ready.iter().all(|pid| zombie(*pid))).await;
        assert_eq!(world.run("echo next").await.stdout, "next\n", "{which}");
    }
}

/// A spare is made from the helper's memory, and the helper never sees a run.
async fn spares_know_nothing_of_earlier_runs() {
    if !is_root() {
        return eprintln!("skipped: only root may look into a spare");
    }
    let world = World::new().await;
    let word = format!("word-{}-that-only-a-run-knows", std::process::id());
    let done = world.run(&format!("echo {word}")).await;
    assert_eq!(done.stdout, format!("{word}\n"));
    world.runner.make_ready();
    for pid in stand_ready().await {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            let read = std::os::unix::fs::FileExt::read_at(&memory, &mut bytes, from).unwrap_or(0);
            let found = bytes[..read].windows(word.len()).any(|part| part == word.as_bytes());
            assert!(!found, "process {pid} knows of an earlier run: {line}");
        }
    }
}

/// A workspace below `/tmp` is found beneath what covers it in a spare.
async fn a_workspace_below_a_private_folder_is_the_machines() {
    let world = World::new().await;
    for folder in ["/tmp", "/dev/shm"] {
        let Ok(place) = tempfile::tempdir_in(folder) else { continue };
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let workspace = place.path().join("workspace").to_str().unwrap().to_owned();
        fs::create_dir(&workspace).unwrap();
        provara_runner::give_workspace(Path::new(&workspace), None).unwrap();
        world.runner.make_ready();
        stand_ready().await;
        let (_handle, control) = control();
        let claim = world.claim("pwd > here; ls -A ..", "workspace", &workspace, 20);
        let done = world.try_run(claim, &workspace, control).await.unwrap();
        assert_eq!((done.code(), done.stdout.as_str()), (Some(0), "workspace\n"), "{done:?}");
        assert_eq!(fs::read_to_string(format!("{workspace}/here")).unwrap(), format!("{workspace}\n"));
        // A link on the way is not followed, there as anywhere.
        let alias = place.path().join("alias").to_str().unwrap().to_owned();
        link(Path::new(&workspace), &alias);
        let claim = world.claim("pwd", "workspace", &alias, 20);
        let done = world.try_run(claim, &alias, crate::support::control().1).await.unwrap();
        assert!(matches!(done.ran.outcome, Outcome::SpawnFailed { failure: SpawnFailure::Refused, .. }), "{done:?}");
    }
}
