//! How much of the machine a run may use, what happens at each limit, and what a run is said to have used.

use provara_domain::{Limit, Usage};

use crate::support::*;

scenarios!(
    a_run_says_what_it_used,
    output_beyond_the_limit_ends_the_run,
    a_file_beyond_the_limit_ends_the_run,
    processor_time_beyond_the_limit_ends_the_run,
    memory_beyond_the_limit_ends_the_run_or_nothing_runs,
    processes_beyond_the_limit_end_the_run_where_they_are_counted,
    limits_cannot_be_raised_and_files_run_out,
    no_group_is_left_behind,
);

/// Whether this host lets this server make control groups, as its own probe found.
fn grouped(world: &World) -> bool {
    world.runner.host().mechanisms.iter().any(|known| known.name == "control_group" && known.held)
}

fn exceeded(limit: Limit) -> Outcome {
    Outcome::LimitExceeded { limit }
}

async fn a_run_says_what_it_used() {
    let world = World::new().await;
    // A quarter of a second of processor time, and 60 MB in one process, in a child that is gone before the shell.
    let busy = "import time\nkept = bytearray(60_000_000)\nwhile time.process_time() < 0.25: pass";
    for (profile, last) in [("workspace", ""), ("host", "; sleep 300 & disown; true")] {
        let done = world.run_as(&format!("/usr/bin/python3 -c '{busy}'{last}"), profile).await;
        assert_eq!(done.ran.outcome, Outcome::Exited { code: 0 }, "{}", done.stderr);
        let used = done.ran.usage.unwrap();
        assert!((250..5000).contains(&used.cpu_ms), "{used:?}");
        assert!((60_000_000..300_000_000).contains(&used.largest_process_bytes), "{used:?}");
        assert_eq!(used.memory_peak_bytes.is_some(), grouped(&world), "{used:?}");
        if let Some(peak) = used.memory_peak_bytes {
            assert!((60_000_000..400_000_000).contains(&peak), "{used:?}");
        }
        if let Some(processes) = used.processes_peak {
            assert!((1..=4).contains(&processes), "{used:?}");
        }
    }
    // What we ended says it too: by the supervisor, since the run's first process cannot any more.
    let (_handle, control) = control();
    let claim = world.claim("while :; do :; done", "workspace", &world.path("workspace"), 1);
    let done = world.run_claim(claim, control).await;
    assert_eq!(done.ran.outcome, Outcome::TimedOut);
    assert!(done.ran.usage.as_ref().is_some_and(|used| used.cpu_ms >= 100), "{:?}", done.ran.usage);
    // What never began used nothing that is known.
    assert_eq!(world.run_as("true", "no-such-profile").await.ran.usage, None::<Usage>);
}

async fn output_beyond_the_limit_ends_the_run() {
    let world = World::limited(&[(Resource::Output, 100_000)]).await;
    for command in ["yes", "yes >&2", "head -c 60000 /dev/zero; head -c 60000 /dev/zero >&2; sleep 300"] {
        let done = world.run(command).await;
        assert_eq!(done.ran.outcome, exceeded(Limit::Output), "{command}");
        assert!(done.ran.stdout_bytes + done.ran.stderr_bytes > 100_000, "{command}");
    }
    // Exactly the limit is within it.
    let done = world.run("head -c 100000 /dev/zero").await;
    assert_eq!((done.ran.outcome, done.ran.stdout_bytes), (Outcome::Exited { code: 0 }, 100_000));
    // One byte more is not, however soon the command ends.
    assert_eq!(world.run("head -c 100001 /dev/zero").await.ran.outcome, exceeded(Limit::Output));
}

async fn a_file_beyond_the_limit_ends_the_run() {
    let world = World::limited(&[(Resource::FileSize, 100_000)]).await;
    let done = world.run("exec head -c 200000 /dev/zero > big").await;
    assert_eq!(done.ran.outcome, exceeded(Limit::FileSize));
    assert_eq!(std::fs::metadata(world.path("workspace/big")).unwrap().len(), 100_000);
    // A child is ended, and the shell goes on and says so by its own code. We do not guess from a code what became of it.
    let done = world.run("head -c 200000 /dev/zero > big; echo $?").await;
    assert_eq!((done.code(), done.stdout.as_str()), (Some(0), "153\n"));
    // A signal that a command sends to itself at no limit of ours is only a signal.
    let world = World::new().await;
    let done = world.run("kill -XFSZ $$").await;
    assert_eq!(done.ran.outcome, Outcome::Signalled { signal: libc::SIGXFSZ });
}

async fn processor_time_beyond_the_limit_ends_the_run() {
    let world = World::limited(&[(Resource::Cpu, 1)]).await;
    let done = world.run("while :; do :; done").await;
    assert_eq!(done.ran.outcome, exceeded(Limit::Cpu));
    // Ignoring the kernel's signal does not help.
    let done = world.run("trap '' XCPU; while :; do :; done").await;
    assert_eq!(done.ran.outcome, exceeded(Limit::Cpu));
    // Many processes with little each have it together.
    let done = world.run("for i in $(seq 100); do timeout 0.1 sh -c 'while :; do :; done'; done").await;
    assert_eq!(done.ran.outcome, exceeded(Limit::Cpu));
    let used = done.ran.usage.unwrap();
    assert!(used.cpu_ms >= 1000, "{used:?}");
    if grouped(&world) {
        assert!(used.cpu_ms < 4000, "not stopped in time: {used:?}");
    }
    assert_eq!(world.run("sleep 0.01").await.ran.outcome, Outcome::Exited { code: 0 });
}

async fn memory_beyond_the_limit_ends_the_run_or_nothing_runs() {
    let world = World::limited(&[(Resource::Memory, 100 << 20)]).await;
    let done = world.run("echo ran; /usr/bin/python3 -c 'kept = bytearray(300 << 20)'").await;
    if !grouped(&world) {
        let Outcome::SpawnFailed { failure, message } = done.ran.outcome else { panic!("{done:?}") };
        assert_eq!((failure, done.stdout.as_str()), (SpawnFailure::Confinement, ""));
        assert!(message.starts_with("could not limit memory: no control group can be made here"), "{message}");
        assert!(message.contains("`Delegate=yes`"), "{message}");
        return;
    }
    assert_eq!(done.ran.outcome, exceeded(Limit::Memory));
    // Together, and not each: three of 50 MiB do not fit.
    let hog = "/usr/bin/python3 -c 'import time; kept = bytearray(50 << 20); time.sleep(3)'";
    let done = world.run(&format!("{hog} & {hog} & {hog} & wait")).await;
    assert_eq!(done.ran.outcome, exceeded(Limit::Memory));
    // What lies in the private folder is memory as well.
    assert_eq!(world.run("head -c 200M /dev/zero > /tmp/x").await.ran.outcome, exceeded(Limit::Memory));
    let done = world.run("/usr/bin/python3 -c 'kept = bytearray(30 << 20)'").await;
    assert_eq!(done.ran.outcome, Outcome::Exited { code: 0 });
}

async fn processes_beyond_the_limit_end_the_run_where_they_are_counted() {
    let world = World::limited(&[(Resource::Processes, 20)]).await;
    if !grouped(&world) {
        return eprintln!("skipped: no control group can be made here, and the user's own limit only refuses");
    }
    let mark = marked(3302);
    let done = world.run(&format!("for i in $(seq 100); do sleep {mark} & done; wait")).await;
    assert_eq!(done.ran.outcome, exceeded(Limit::Processes));
    assert!(done.ran.usage.as_ref().unwrap().processes_peak.is_none_or(|most| most <= 20), "{:?}", done.ran.usage);
    assert!(!sleeps(&mark), "a process outlived its run");
    // A bomb ends at once, and not at its time-out.
    let begun = Instant::now();
    let done = world.run("b() { b | b & }; b; wait; sleep 300").await;
    assert_eq!(done.ran.outcome, exceeded(Limit::Processes));
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(world.run("seq 3 | cat | cat").await.stdout, "1\n2\n3\n");
}

async fn limits_cannot_be_raised_and_files_run_out() {
    let world = World::limited(&[(Resource::FileSize, 1 << 20)]).await;
    for limit in ["-c", "-n", "-f"] {
        let done = world.run(&format!("ulimit -H {limit} unlimited")).await;
        assert_eq!(done.code(), Some(1), "{limit}: {done:?}");
        assert!(held(&done.ran, "rlimits"));
    }
    let open = "import os\nheld = []\ntry:\n  while len(held) < 100_000: held.append(os.open('/dev/null', 0))\n\
        except OSError as e: print(e.errno, len(held) < 4096)";
    std::fs::write(world.path("workspace/open.py"), open).unwrap();
    let done = world.run("/usr/bin/python3 open.py").await;
    assert_eq!(done.stdout, format!("{} True\n", libc::EMFILE), "{}", done.stderr);
    // The group is nobody's to leave or to widen.
    let leave = "for f in $(find /sys/fs/cgroup -name cgroup.procs -o -name pids.max -o -name memory.max \
        -o -name memory.limit_in_bytes 2> /dev/null); do (echo 0 > $f) 2> /dev/null && echo left $f; done; echo tried";
    for profile in ["workspace", "host"] {
        // Where this server could make no group, its user has none to leave.
        assert_eq!(world.run_as(leave, profile).await.stdout, "tried\n", "{profile}");
    }
    assert_eq!(world.run_as("unlimited=1", "workspace").await.ran.outcome, Outcome::Exited { code: 0 });
}

async fn no_group_is_left_behind() {
    let helper_groups = || {
        let mut found = Vec::new();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let mut folders = vec![hierarchy.path()];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        folders.push(entry.path());
                        let name = entry.file_name().to_string_lossy().into_owned();
                        // Of this test's helper alone: others may be killed by their tests just now.
                        let helper =
                            name.strip_prefix("provara-").and_then(|rest| rest.split_once('-')?.0.parse().ok());
                        if helper.and_then(parent) == i32::try_from(std::process::id()).ok() {
                            found.push(entry.path());
                        }
                    }
                }
            }
        }
        found
    };
    let world = World::limited(&[(Resource::Cpu, 100)]).await;
    for command in ["true", "sleep 300 & disown", "kill -9 $$"] {
        let _ = world.run(command).await;
    }
    let made = helper_groups();
    assert_eq!(made.is_empty(), !grouped(&world));
    world.runner.shutdown().await;
    drop(world);
    // A supervisor removes its own, but for one that ends while the kernel still counts its last process: the next start does.
    let _next = World::limited(&[(Resource::Cpu, 100)]).await;
    wait_until("the end of every group", || made.iter().all(|group| !group.exists())).await;
}
