//! What was approved is what runs: a script, a folder or a shell that is another than measured does not run.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use provara_domain::{
    Access, Digest, Files, Measurement, NamedScript, Network, ProfilePath, ScriptFound, ScriptPlace, ScriptUse, Span,
    Tmp,
};

use crate::support::*;

scenarios!(
    what_a_command_names_is_measured_and_never_waited_for,
    what_lies_outside_is_told_only_where_everybody_may_read_it,
    a_script_that_is_not_what_was_approved_does_not_run,
    what_was_not_measured_is_not_compared_and_no_script_slips_in_by_it,
    a_working_directory_that_is_another_folder_does_not_run,
    a_run_sees_the_approved_bytes_whatever_is_written_meanwhile,
    a_script_that_is_rewritten_while_runs_begin_never_runs_other_bytes,
    a_script_that_is_replaced_while_it_runs_is_recorded,
    a_makefile_is_bound_and_a_command_may_write_it,
    what_may_not_be_run_where_it_lies_is_not_run_by_its_copy,
    a_script_is_sealed_under_every_profile_that_sees_it,
);

fn named(path: &str) -> NamedScript {
    let span = Span { start: 0, end: 1 };
    NamedScript { path: path.into(), span, how: ScriptUse::Interpreted, place: ScriptPlace::Known }
}

/// The digest of a profile: the runner hands it on, and compares it with nothing.
fn profile() -> Digest {
    Digest::from_sha256([7; 32])
}

fn naming(world: &World, paths: &[&str]) -> Site {
    Site { workspace: world.path("workspace"), scripts: paths.iter().map(|path| named(path)).collect() }
}

/// Writes a file that the user of the commands may read.
fn write(world: &World, name: &str, bytes: &[u8]) {
    fs::write(world.path(name), bytes).unwrap();
    fs::set_permissions(world.path(name), fs::Permissions::from_mode(0o755)).unwrap();
}

async fn measured(world: &World, paths: &[&str]) -> Measurement {
    world.runner.measure(&world.plan("true"), &naming(world, paths), profile()).await.unwrap()
}

/// What was found of each script, in short.
fn found(measurement: &Measurement) -> Vec<String> {
    let told = |found: &ScriptFound| match found {
        ScriptFound::Bound { path, size, content, .. } => {
            let name = path.rsplit('/').next().unwrap();
            format!("{name} {size} {}", serde_json::to_value(content).unwrap().as_str().unwrap())
        }
        ScriptFound::Unbound { why } => why.clone(),
    };
    measurement.measured.scripts.iter().map(|script| told(&script.found)).collect()
}

/// Approves `command` as it stands, lets `meanwhile` happen, and runs it.
async fn after(world: &World, command: &str, scripts: &[&str], meanwhile: impl FnOnce()) -> Done {
    let site = naming(world, scripts);
    let plan = world.plan(command);
    let binding = world.runner.measure(&plan, &site, profile()).await.unwrap().measured.binding;
    meanwhile();
    let (_handle, control) = control();
    world.run_at(bound_claim(plan, Some(binding)), &site, control).await.unwrap()
}

fn changed(what: &str) -> Outcome {
    let message = format!("{what}; re-open the plan to have it measured and decided anew");
    Outcome::SpawnFailed { failure: SpawnFailure::Changed, message }
}

fn fifo(path: &str) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
}

async fn what_a_command_names_is_measured_and_never_waited_for() {
    let world = World::new().await;
    let at = |name: &str| world.path(&format!("workspace/{name}"));
    write(&world, "workspace/a.sh", b"echo a\n");
    write(&world, "workspace/binary", b"\x7fELF\0");
    write(&world, "workspace/latin", b"\xe9");
    write(&world, "workspace/long", &vec![b'#'; 1024 * 1024 + 1]);
    write(&world, "workspace/huge", b"");
    fs::File::options().write(true).open(at("huge")).unwrap().set_len(65 * 1024 * 1024).unwrap();
    fs::create_dir(at("folder")).unwrap();
    fifo(&at("fifo"));
    symlink("a.sh", at("link")).unwrap();
    symlink("loop", at("loop")).unwrap();
    let absolute = at("a.sh");
    let names =
        ["a.sh", "binary", "latin", "long", "huge", "folder", "fifo", "link", "loop", "gone", "a.sh/x", &absolute];
    let measurement = measured(&world, &names).await;
    let expected = [
        "a.sh 7 text",
        "binary 5 binary",
        "latin 1 binary",
        "long 1048577 too_long",
        "it is too large: 68157440 bytes",
        "it is a folder",
        "it is no regular file",
        "a.sh 7 text",
        "it cannot be read",
        "it is not there now",
        "it is not there now",
        "a.sh 7 text",
    ];
    assert_eq!(found(&measurement), expected);
    let [text] = <[_; 1]>::try_from(measurement.texts).unwrap();
    assert_eq!(text.text, "echo a\n");
    let binding = measurement.measured.binding;
    assert_eq!(binding.scripts.len(), 4, "named by three names, a script is bound once");
    let folder = fs::metadata(world.path("workspace")).unwrap();
    assert_eq!(binding.cwd_dev_ino.unwrap(), format!("{}:{}", folder.dev(), folder.ino()));
    // Known by name alone, and beyond the bound.
    let many: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    many.iter().for_each(|name| write(&world, &format!("workspace/{name}"), name.as_bytes()));
    let names: Vec<&str> = many.iter().map(String::as_str).collect();
    let told = found(&measured(&world, &names).await);
    assert_eq!(told.iter().filter(|told| told.ends_with("text")).count(), 16);
    assert_eq!(told.last().unwrap(), "the command names more than 16 scripts");
    let mut site = naming(&world, &["a.sh", "gone", "a.sh"]);
    site.scripts[0].place = ScriptPlace::AtRunTime;
    site.scripts[1].place = ScriptPlace::Perhaps;
    site.scripts[2].place = ScriptPlace::Perhaps;
    let told = world.runner.measure(&world.plan("true"), &site, profile()).await.unwrap();
    assert_eq!(found(&told), ["its name is known only at run time", "a.sh 7 text"]);
}

async fn what_lies_outside_is_told_only_where_everybody_may_read_it() {
    let world = World::new().await;
    write(&world, "open.sh", b"echo open\n");
    write(&world, "shut.sh", b"secret");
    fs::set_permissions(world.path("shut.sh"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(world.path("home")).unwrap();
    write(&world, "home/x.sh", b"secret");
    fs::set_permissions(world.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
    for (link, to) in [("out", "open.sh"), ("shut", "shut.sh"), ("token", "runtime/token.txt")] {
        symlink(world.path(to), world.path(&format!("workspace/{link}"))).unwrap();
    }
    let absolute = ["shut.sh", "home/x.sh", "runtime/token.txt", "settings"].map(|name| world.path(name));
    let mut names: Vec<&str> = absolute.iter().map(String::as_str).collect();
    names.extend(["out", "shut", "token", "/dev/zero", "/proc/self/environ", "/proc/self/fd/0", "../open.sh"]);
    let measurement = measured(&world, &names).await;
    let (apart, own) = (
        "it lies outside the workspace, and not everybody may read it",
        "it is Provara's own, and no command reaches it",
    );
    let told = found(&measurement);
    // Where the test's own folder lies below /tmp, commands have another there.
    let tmp = world.path("").starts_with("/tmp");
    let of_tmp = |told| if tmp { "commands have a folder of their own there" } else { told };
    let expected: Vec<&str> = [apart, apart]
        .map(of_tmp)
        .into_iter()
        .chain([own, own, of_tmp("open.sh 10 text"), of_tmp(apart), own])
        .collect();
    assert_eq!(told[..7], expected);
    assert_eq!(told[7], "it is no regular file");
    assert_ne!(told[8], "environ 0 text", "what a magic file says is never told");
    assert!(measurement.texts.iter().all(|text| !text.text.contains("secret")), "{:?}", measurement.texts);
}

/// A digest is in the log, where the agent sees it: it would tell whether a guess at a password is right.
#[test]
fn nothing_is_told_of_credentials_in_a_workspace_that_is_a_home() {
    const ME: &str = "it::binding::nothing_is_told_of_credentials_in_a_workspace_that_is_a_home";
    as_root(ME, "a home of the test's own needs a mount over /etc/passwd", async {
        let world = World::new().await;
        fs::create_dir(world.path("workspace/.ssh")).unwrap();
        for name in [".netrc", ".ssh/config", "s.sh"] {
            write(&world, &format!("workspace/{name}"), b"password\n");
        }
        symlink(".netrc", world.path("workspace/link")).unwrap();
        let names = [".netrc", ".ssh/config", "link", "s.sh"];
        assert_eq!(found(&measured(&world, &names).await).last().unwrap(), "s.sh 9 text");
        let home = world.path("workspace");
        let users = fs::read_to_string("/etc/passwd").unwrap() + &format!("svc:x:4242:4242::{home}:/bin/sh\n");
        fs::write(world.path("passwd"), users).unwrap();
        let mut mount = std::process::Command::new("mount");
        assert!(mount.args(["--bind", &world.path("passwd"), "/etc/passwd"]).status().unwrap().success());
        let measurement = measured(&world, &names).await;
        let hidden = "it lies among credentials, and no command reaches it";
        assert_eq!(found(&measurement), [hidden, hidden, hidden, "s.sh 9 text"]);
        assert_eq!(measurement.measured.binding.scripts.len(), 1);
    });
}

async fn a_script_that_is_not_what_was_approved_does_not_run() {
    let world = World::new().await;
    let script = world.path("workspace/s.sh");
    let other = || changed(&format!("`{script}` has other content"));
    let gone = || changed(&format!("`{script}` is not what the command names any more"));
    let fresh = || {
        let _ = fs::remove_dir(&script);
        let _ = fs::remove_file(&script);
        write(&world, "workspace/s.sh", b"echo approved\n");
    };
    fresh();
    let done = after(&world, "bash s.sh", &["s.sh"], || {}).await;
    assert_eq!((done.code(), &*done.stdout), (Some(0), "approved\n"), "{done:?}");
    assert!(held(&done.ran, "scripts_sealed") && held(&done.ran, "binding_checked"), "{:?}", done.ran.enforced);
    // The same bytes written again are what was approved.
    let done = after(&world, "bash s.sh", &["s.sh"], || write(&world, "workspace/s.sh", b"echo approved\n")).await;
    assert_eq!(done.stdout, "approved\n");

    let check = |done: Done, expected: Outcome, what: &str| {
        assert_eq!(done.ran.outcome, expected, "{what}");
        assert_eq!(done.stdout, "", "{what}");
    };
    let attack = || fs::write(&script, "echo other!!!\n").unwrap();
    check(after(&world, "bash s.sh", &["s.sh"], attack).await, other(), "rewritten, the same length");
    fresh();
    write(&world, "workspace/same", b"echo approved\n");
    let attack = || {
        fs::remove_file(&script).unwrap();
        symlink("same", &script).unwrap();
    };
    check(after(&world, "bash s.sh", &["s.sh"], attack).await, gone(), "a link, even to the same bytes");
    fresh();
    let attack = || {
        fs::remove_file(&script).unwrap();
        fifo(&script);
    };
    check(after(&world, "bash s.sh", &["s.sh"], attack).await, gone(), "a FIFO");
    fresh();
    let attack = || {
        fs::remove_file(&script).unwrap();
        fs::create_dir(&script).unwrap();
    };
    check(after(&world, "bash s.sh", &["s.sh"], attack).await, gone(), "a folder");
    fresh();
    check(after(&world, "bash s.sh", &["s.sh"], || fs::remove_file(&script).unwrap()).await, gone(), "removed");
    fresh();
    fs::hard_link(&script, world.path("elsewhere")).unwrap();
    let attack = || fs::write(world.path("elsewhere"), "echo through\n").unwrap();
    check(after(&world, "bash s.sh", &["s.sh"], attack).await, other(), "written by another of its names");
    fs::remove_file(&script).unwrap();
    let appears = changed(&format!("`{script}` was not bound"));
    check(after(&world, "bash s.sh", &["s.sh"], fresh).await, appears.clone(), "it was not there");
    // Neither does a plan run of which nothing could be measured.
    let (_handle, control) = control();
    let claim = bound_claim(world.plan("bash s.sh"), None);
    check(world.run_at(claim, &naming(&world, &["s.sh"]), control).await.unwrap(), appears, "nothing was bound");
    // A link that leads to another script than it did.
    write(&world, "workspace/evil", b"echo evil\n");
    symlink("s.sh", world.path("workspace/l")).unwrap();
    let attack = || {
        fs::remove_file(world.path("workspace/l")).unwrap();
        symlink("evil", world.path("workspace/l")).unwrap();
    };
    check(after(&world, "bash l", &["l"], attack).await, gone(), "a link swapped");
}

async fn a_working_directory_that_is_another_folder_does_not_run() {
    let world = World::new().await;
    let at = |name: &str| world.path(&format!("workspace/{name}"));
    fs::create_dir(at("work")).unwrap();
    fs::create_dir(at("other")).unwrap();
    for folder in ["work", "other"] {
        fs::set_permissions(at(folder), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let site = naming(&world, &[]);
    let mut plan = world.plan("ls; pwd");
    plan.cwd = provara_domain::WorkingDir::parse(at("work")).unwrap();
    let binding = world.runner.measure(&plan, &site, profile()).await.unwrap().measured.binding;
    let run = async || {
        let (_handle, control) = control();
        world.run_at(bound_claim(plan.clone(), Some(binding.clone())), &site, control).await.unwrap().ran.outcome
    };
    assert_eq!(run().await, Outcome::Exited { code: 0 });
    fs::rename(at("work"), at("away")).unwrap();
    assert_eq!(run().await, changed("the working directory is not there any more"));
    fs::rename(at("other"), at("work")).unwrap();
    assert_eq!(run().await, changed("the working directory is another folder now"));
    fs::rename(at("work"), at("other")).unwrap();
    symlink("away", at("work")).unwrap();
    assert_eq!(run().await, changed("the working directory is not there any more"));
    fs::remove_file(at("work")).unwrap();
    fs::rename(at("away"), at("work")).unwrap();
    assert_eq!(run().await, Outcome::Exited { code: 0 });
}

async fn a_run_sees_the_approved_bytes_whatever_is_written_meanwhile() {
    for confinement in ["workspace", "host"] {
        let world = World::new().await;
        write(&world, "workspace/neighbour", b"echo neighbour\n");
        write(&world, "workspace/s.sh", b"#!/bin/bash\necho $0; . ./neighbour; echo more >> s.sh || echo kept\n");
        let gate = world.path("workspace/gate");
        fifo(&gate);
        fs::set_permissions(&gate, fs::Permissions::from_mode(0o666)).unwrap();
        let site = naming(&world, &["s.sh"]);
        let mut plan =
            world.plan("cat gate; ./s.sh; chmod 777 s.sh || mv neighbour s.sh; rm -f s.sh; ./s.sh | head -1");
        plan.profile = provara_domain::ProfileName::new(provara_domain::Name::parse(confinement).unwrap());
        let binding = world.runner.measure(&plan, &site, profile()).await.unwrap().measured.binding;
        let script = world.path("workspace/s.sh");
        // It opens when the run's shell reads it, and so after the run was checked and begun.
        let writer = std::thread::spawn(move || {
            let mut opened = fs::File::options().write(true).open(gate).unwrap();
            fs::write(script, "#!/bin/bash\necho evil\n").unwrap();
            std::io::Write::write_all(&mut opened, b"open\n").unwrap();
        });
        let (_handle, control) = control();
        let done = world.run_at(bound_claim(plan, Some(binding)), &site, control).await.unwrap();
        writer.join().unwrap();
        assert_eq!(done.stdout, "open\n./s.sh\nneighbour\nkept\n./s.sh\n", "{confinement}: {done:?}");
        assert_eq!(fs::read_to_string(world.path("workspace/s.sh")).unwrap(), "#!/bin/bash\necho evil\n");
        let sealed = done.ran.enforced.mechanisms.iter().find(|known| known.name == "scripts_sealed").unwrap();
        let detail = format!("`{}` was touched from outside while it ran", world.path("workspace/s.sh"));
        assert_eq!((sealed.held, &*sealed.detail), (false, &*detail));
    }
}

async fn a_script_that_is_rewritten_while_runs_begin_never_runs_other_bytes() {
    let world = World::new().await;
    write(&world, "workspace/s.sh", b"echo approved\n");
    let site = naming(&world, &["s.sh"]);
    let plan = world.plan("bash s.sh");
    let binding = world.runner.measure(&plan, &site, profile()).await.unwrap().measured.binding;
    let script = world.path("workspace/s.sh");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let attacker = std::thread::spawn(move || {
        let file = fs::File::options().write(true).open(script).unwrap();
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            for bytes in [b"echo otherly!\n", b"echo approved\n"] {
                std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).unwrap();
                std::thread::yield_now();
            }
        }
    });
    let (mut ran, mut refused) = (0, 0);
    for _ in 0..200 {
        let (_handle, control) = control();
        let done = world.run_at(bound_claim(plan.clone(), Some(binding.clone())), &site, control).await.unwrap();
        match done.ran.outcome {
            Outcome::Exited { code: 0 } => {
                assert_eq!(done.stdout, "approved\n");
                ran += 1;
            }
            Outcome::SpawnFailed { failure: SpawnFailure::Changed, .. } => refused += 1,
            other => panic!("{other:?}"),
        }
        if ran >= 10 && refused >= 10 {
            break;
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    attacker.join().unwrap();
    assert!(ran > 0 && refused > 0, "both happen: {ran} ran, {refused} were refused");
}

async fn what_was_not_measured_is_not_compared_and_no_script_slips_in_by_it() {
    let world = World::new().await;
    write(&world, "workspace/s.sh", b"echo ran\n");
    let of = |done: Done| {
        let checked = done.ran.enforced.mechanisms.iter().any(|known| known.name == "binding_checked");
        (done.ran.outcome, checked)
    };
    let plan = world.plan("bash s.sh");
    let (none, naming_it) = (naming(&world, &[]), naming(&world, &["s.sh"]));
    let full = world.runner.measure(&plan, &naming_it, profile()).await.unwrap().measured.binding;
    let run = async |binding: Binding, site: &Site| {
        let (_handle, control) = control();
        of(world.run_at(bound_claim(plan.clone(), Some(binding)), site, control).await.unwrap())
    };
    let ended = Outcome::Exited { code: 0 };
    // Neither the profile nor what is absent is this machine's to compare.
    let other = Binding { profile_sha256: Digest::from_sha256([8; 32]), ..full.clone() };
    assert_eq!(run(other, &naming_it).await, (ended.clone(), true));
    let absent = Binding { cwd_dev_ino: None, shell_sha256: None, ..full.clone() };
    assert_eq!(run(absent, &naming_it).await, (ended.clone(), true));
    // The profile alone: handed over as it is.
    let alone = Binding { cwd_dev_ino: None, shell_sha256: None, scripts: Vec::new(), ..full.clone() };
    assert_eq!(run(alone.clone(), &none).await, (ended, false));
    // But what is named by now, and was measured by nobody, does not run; nor does another shell.
    let slipped = changed(&format!("`{}` was not bound", world.path("workspace/s.sh")));
    assert_eq!(run(alone, &naming_it).await, (slipped, false));
    let shell = Binding { shell_sha256: Some(Digest::from_sha256([9; 32])), ..full };
    assert_eq!(run(shell, &naming_it).await, (changed("the shell is another program now"), false));
}

/// Wrong today, and recorded: the kernel lifts a mount from a file that is unlinked in another mount namespace, so whoever
/// can rename files of the workspace from outside, while a run goes on, puts another script in the place of a sealed one.
async fn a_script_that_is_replaced_while_it_runs_is_recorded() {
    let world = World::new().await;
    write(&world, "workspace/s.sh", b"echo approved\n");
    write(&world, "workspace/evil", b"echo evil\n");
    let gate = world.path("workspace/gate");
    fifo(&gate);
    fs::set_permissions(&gate, fs::Permissions::from_mode(0o666)).unwrap();
    let site = naming(&world, &["s.sh"]);
    let plan = world.plan("cat gate; bash s.sh");
    let binding = world.runner.measure(&plan, &site, profile()).await.unwrap().measured.binding;
    let (script, evil) = (world.path("workspace/s.sh"), world.path("workspace/evil"));
    let writer = std::thread::spawn(move || {
        let opened = fs::File::options().write(true).open(gate).unwrap();
        fs::rename(evil, script).unwrap();
        drop(opened);
    });
    let (_handle, control) = control();
    let done = world.run_at(bound_claim(plan, Some(binding)), &site, control).await.unwrap();
    writer.join().unwrap();
    assert_eq!(done.stdout, "evil\n");
    assert!(!held(&done.ran, "scripts_sealed"), "{:?}", done.ran.enforced);
}

async fn a_makefile_is_bound_and_a_command_may_write_it() {
    let world = World::new().await;
    write(&world, "workspace/Makefile", b"all:\n\techo made\n");
    let mut site = naming(&world, &["Makefile"]);
    site.scripts[0].how = ScriptUse::Makefile;
    let plan = world.plan("echo again > new && mv new Makefile && cat Makefile");
    let binding = world.runner.measure(&plan, &site, profile()).await.unwrap().measured.binding;
    let run = async || {
        let (_handle, control) = control();
        world.run_at(bound_claim(plan.clone(), Some(binding.clone())), &site, control).await.unwrap()
    };
    let done = run().await;
    assert_eq!(done.stdout, "again\n", "{done:?}");
    let checked = done.ran.enforced.mechanisms.iter().find(|known| known.name == "binding_checked").unwrap();
    assert_eq!(checked.detail, "right before the start: working directory, shell, scripts that are not sealed: 1");
    assert_eq!(run().await.ran.outcome, changed(&format!("`{}` has other content", world.path("workspace/Makefile"))));
}

async fn what_may_not_be_run_where_it_lies_is_not_run_by_its_copy() {
    use nix::mount::{MsFlags, mount};
    let world = World::new().await;
    if !is_root() {
        eprintln!("skipped: only root mounts a folder where nothing may be run");
        return;
    }
    let folder = world.path("workspace/shut");
    fs::create_dir(&folder).unwrap();
    mount(Some("none"), folder.as_str(), Some("tmpfs"), MsFlags::MS_NOEXEC, Some("mode=0755")).unwrap();
    write(&world, "workspace/shut/x", b"#!/bin/sh\necho ran\n");
    let done = after(&world, "shut/x; . shut/x", &["shut/x"], || {}).await;
    assert!(held(&done.ran, "scripts_sealed"), "{:?}", done.ran.enforced);
    assert_eq!(done.stdout, "ran\n", "only as text: {}", done.stderr);
    assert!(done.stderr.contains("Permission denied"), "{}", done.stderr);
}

async fn a_script_is_sealed_under_every_profile_that_sees_it() {
    let world = World::new().await;
    write(&world, "workspace/a.sh", b"echo approved\n");
    provara_runner::give_workspace(Path::new(&world.path("workspace/a.sh")), None).unwrap();
    let site = naming(&world, &["a.sh"]);
    let usual = Profile::workspace().grants().clone();
    let files = |everywhere, paths: &[(&str, Access)]| {
        let paths = paths.iter().map(|(raw, access)| (ProfilePath::parse(raw).unwrap(), *access));
        Grants { files: Files::new(everywhere, Access::Write, Tmp::Private, paths, []), ..usual.clone() }
    };
    let programs = ["/usr", "/bin", "/lib", "/lib64", "/etc"].map(|path| (path, Access::Read));
    let hidden = world.path("workspace/a.sh");
    let run = async |grants: Grants| {
        let mut plan = world.plan("bash a.sh; echo other > a.sh; bash a.sh");
        plan.profile = own(grants.clone()).name().clone();
        let binding = world.runner.measure(&plan, &site, profile()).await.unwrap().measured.binding;
        world.try_with(bound_claim(plan, Some(binding)), &own(grants), &site, control().1).await.unwrap()
    };
    for grants in [
        usual.clone(),
        Profile::read_only().grants().clone(),
        files(Access::Hidden, &programs),
        Grants { network: Network::Loopback, ..usual.clone() },
    ] {
        let done = run(grants).await;
        assert_eq!(done.stdout, "approved\napproved\n", "{done:?}");
        assert!(held(&done.ran, "scripts_sealed"), "{:?}", done.ran.enforced);
    }
    assert_eq!(fs::read_to_string(&hidden).unwrap(), "echo approved\n");
    // What the profile hides is no more there than what is gone, and not shown by its copy.
    let done = run(files(Access::Read, &[(&hidden, Access::Hidden)])).await;
    assert!(matches!(done.ran.outcome, Outcome::SpawnFailed { failure: SpawnFailure::Changed, .. }), "{done:?}");
    assert_eq!(done.stdout, "");
}
