//! Where a command begins: the workspace is the folder that was added, and no other that has taken its name.

use std::fs;
use std::process::Command;

use crate::support::*;

scenarios!(
    a_workspace_that_is_not_what_was_added_is_refused,
    a_folder_that_the_commands_user_may_not_enter_is_refused,
    a_folder_that_is_exchanged_while_runs_begin_never_leads_outside,
    an_added_workspace_is_used_and_the_others_stay_read_only,
);

async fn ended(world: &World, workspace: &str, cwd: &str) -> (Outcome, String) {
    let (_handle, control) = control();
    let done = world.try_run(world.claim("pwd; ls", "workspace", cwd, 20), workspace, control).await.unwrap();
    (done.ran.outcome, done.stdout)
}

fn failed(failure: SpawnFailure, message: &str) -> (Outcome, String) {
    (Outcome::SpawnFailed { failure, message: message.into() }, String::new())
}

async fn a_workspace_that_is_not_what_was_added_is_refused() {
    let world = World::new().await;
    let at = |name: &str| world.path(name);
    fs::create_dir_all(at("real/below")).unwrap();
    link(Path::new(&at("real")), &at("alias"));
    fs::write(at("file"), "").unwrap();
    let led = "cannot use the workspace: it leads through a symbolic link";
    for (workspace, cwd, expected) in [
        ("alias", "alias", failed(SpawnFailure::Refused, led)),
        ("alias/below", "alias/below", failed(SpawnFailure::Refused, led)),
        ("file", "file", failed(SpawnFailure::Missing, "cannot use the workspace: not a directory")),
        ("gone", "gone", failed(SpawnFailure::Missing, "cannot use the workspace: no such file or directory")),
        (
            "real",
            "real/gone",
            failed(SpawnFailure::Missing, "cannot use the working directory: no such file or directory"),
        ),
    ] {
        assert_eq!(ended(&world, &at(workspace), &at(cwd)).await, expected, "{workspace}");
    }
    fs::write(at("real/file"), "").unwrap();
    let expected = failed(SpawnFailure::Missing, "cannot use the working directory: not a directory");
    assert_eq!(ended(&world, &at("real"), &at("real/file")).await, expected);
}

async fn a_folder_that_the_commands_user_may_not_enter_is_refused() {
    let world = World::new().await;
    fs::create_dir_all(world.path("workspace/shut/below")).unwrap();
    fs::set_permissions(world.path("workspace/shut"), fs::Permissions::from_mode(0o000)).unwrap();
    let workspace = world.path("workspace");
    let expected = failed(SpawnFailure::Refused, "cannot use the working directory: permission denied");
    for cwd in ["workspace/shut", "workspace/shut/below"] {
        assert_eq!(ended(&world, &workspace, &world.path(cwd)).await, expected, "{cwd}");
    }
    fs::set_permissions(world.path("workspace/shut"), fs::Permissions::from_mode(0o700)).unwrap();
}

async fn a_folder_that_is_exchanged_while_runs_begin_never_leads_outside() {
    let world = World::new().await;
    fs::create_dir(world.path("outside")).unwrap();
    fs::write(world.path("outside/bait"), "").unwrap();
    fs::create_dir(world.path("workspace/work")).unwrap();
    link(Path::new(&world.path("outside")), &world.path("workspace/evil"));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, folder) = (stop.clone(), world.root.path().join("workspace"));
    let exchange = std::thread::spawn(move || {
        let mut times = 0_u32;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let (here, there) = (folder.join("work"), folder.join("evil"));
            nix::fcntl::renameat2(
                nix::fcntl::AT_FDCWD,
                &here,
                nix::fcntl::AT_FDCWD,
                &there,
                nix::fcntl::RenameFlags::RENAME_EXCHANGE,
            )
            .unwrap();
            times += 1;
        }
        times
    });
    let (mut ran, mut refused) = (0, 0);
    while ran + refused < 60 {
        let (outcome, stdout) = ended(&world, &world.path("workspace"), &world.path("workspace/work")).await;
        assert!(!stdout.contains("bait"), "a command began outside of its workspace");
        match outcome {
            Outcome::Exited { code: 0 } => ran += 1,
            Outcome::SpawnFailed { failure: SpawnFailure::Refused, .. } => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(exchange.join().unwrap() > 60);
}

async fn an_added_workspace_is_used_and_the_others_stay_read_only() {
    let world = World::new().await;
    let added = world.path("added");
    fs::create_dir_all(Path::new(&added).join("deep/er")).unwrap();
    for folder in ["added", "added/deep", "added/deep/er"] {
        provara_runner::give_workspace(Path::new(&world.path(folder)), None).unwrap();
    }
    fs::write(world.path("workspace/own"), "").unwrap();
    let (_handle, control) = control();
    let command = format!("pwd; touch here ../../up; touch {}/there", world.path("workspace"));
    let claim = world.claim(&command, "workspace", &format!("{added}/deep/er"), 20);
    let done = world.try_run(claim, &added, control).await.unwrap();
    assert_eq!((done.code(), done.stdout), (Some(1), format!("{added}/deep/er\n")));
    assert!(Path::new(&format!("{added}/deep/er/here")).exists() && Path::new(&format!("{added}/up")).exists());
    assert!(!Path::new(&world.path("workspace/there")).exists());
}

#[test]
fn credentials_are_hidden_wherever_a_home_lies() {
    const ME: &str = "it::folders::credentials_are_hidden_wherever_a_home_lies";
    as_root(ME, "a home of the test's own needs a mount over /etc/passwd", async {
        let world = World::new().await;
        let home = world.path("home");
        fs::create_dir_all(format!("{home}/.ssh")).unwrap();
        fs::create_dir_all(format!("{home}/elsewhere")).unwrap();
        for file in [".ssh/id", ".netrc", "elsewhere/token", "plain"] {
            fs::write(format!("{home}/{file}"), format!("secret of {file}\n")).unwrap();
        }
        link(Path::new("elsewhere"), &format!("{home}/.config"));
        // Leads nowhere: nothing to hide, and no reason to run nothing.
        link(Path::new("nowhere"), &format!("{home}/.gnupg"));
        let show = format!("cd {home}; cat .ssh/id .netrc .config/token elsewhere/token plain 2> /dev/null");
        let all = "secret of .ssh/id\nsecret of .netrc\nsecret of elsewhere/token\nsecret of elsewhere/token\nsecret of plain\n";
        assert_eq!(world.run(&show).await.stdout, all, "a folder of nobody's is no home");
        let users = fs::read_to_string("/etc/passwd").unwrap() + &format!("svc:x:4242:4242::{home}:/bin/sh\n");
        fs::write(world.path("passwd"), users).unwrap();
        let bound = Command::new("mount").args(["--bind", &world.path("passwd"), "/etc/passwd"]).status().unwrap();
        assert!(bound.success());
        assert_eq!(world.run(&show).await.stdout, "secret of plain\n");
    });
}

/// Mounts that the operator made below a workspace: what is read-only stays so, and what is not is the command's.
#[test]
fn mounts_below_a_workspace_keep_what_the_operator_made_of_them() {
    const ME: &str = "it::folders::mounts_below_a_workspace_keep_what_the_operator_made_of_them";
    as_root(ME, "mounts need root", async {
        let world = World::new().await;
        for (name, mode) in [("sealed", "ro"), ("open", "rw")] {
            let at = world.path(&format!("workspace/{name}"));
            fs::create_dir(&at).unwrap();
            let options = format!("{mode},mode=1777");
            let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none", &at]).status().unwrap();
            assert!(done.success());
        }
        let done = world.run("touch open/x && touch sealed/x").await;
        assert_eq!(done.code(), Some(1), "{done:?}");
        assert!(done.stderr.contains("Read-only file system"), "{}", done.stderr);
        assert!(Path::new(&world.path("workspace/open/x")).exists());
        // A process file system of the host's that lies elsewhere does not show the server.
        let proc = world.path("other proc");
        fs::create_dir(&proc).unwrap();
        assert!(Command::new("mount").args(["-t", "proc", "none", &proc]).status().unwrap().success());
        assert!(Path::new(&proc).join("self").exists());
        world.refuses(&format!("cat '{proc}/{}/cmdline'", std::process::id())).await;
        world.refuses(&format!("ls '{proc}' | grep .")).await;
    });
}
