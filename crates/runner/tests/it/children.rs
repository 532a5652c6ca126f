//! Awkward children: whatever they do, the run ends and nothing of it is left.

use std::fs;

use provara_domain::EnvName;

use crate::support::*;

scenarios!(
    a_signal_is_told_from_an_exit,
    the_end_of_the_shell_ends_everything_that_it_started,
    a_timeout_ends_what_ignores_it,
    a_cancel_ends_a_run_also_when_it_came_first,
    an_extension_counts_from_the_start,
    a_flood_of_output_is_streamed_and_not_kept,
    a_slow_receiver_loses_nothing,
    the_end_of_the_server_ends_the_tree,
    nothing_of_the_server_is_inherited,
    input_arrives_whole_or_is_left,
    words_and_bytes_are_handed_on_as_they_are,
    streams_that_are_closed_held_or_left_do_not_hold_a_run_up,
    the_first_process_cannot_be_ended_from_inside,
    a_plans_environment_and_nothing_else_arrives,
);

async fn a_signal_is_told_from_an_exit() {
    let world = World::new().await;
    assert_eq!(world.run("kill -SEGV $$").await.ran.outcome, Outcome::Signalled { signal: 11 });
    // A pipe's reader that leaves early ends its writer quietly, as in any shell.
    let done = world.run("yes | head -n 1; echo ${PIPESTATUS[0]}").await;
    assert_eq!(done.stdout, "y\n141\n");
}

async fn the_end_of_the_shell_ends_everything_that_it_started() {
    let world = World::new().await;
    let begun = Instant::now();
    let (first, second) = (marked(3071), marked(3072));
    // Holds the pipe, leaves the session, forks twice, ignores TERM.
    let command = format!(
        "(trap '' TERM; exec setsid bash -c 'trap \"\" TERM; sleep {first} & echo > ready; sleep {second}') & \
         until [ -e ready ]; do :; done; echo done"
    );
    let done = world.run(&command).await;
    assert_eq!((done.ran.outcome, done.stdout.as_str()), (Outcome::Exited { code: 0 }, "done\n"));
    assert!(begun.elapsed() < Duration::from_secs(15), "a background child held the run up");
    assert!(!sleeps(&first) && !sleeps(&second), "a process outlived its run");
}

async fn a_timeout_ends_what_ignores_it() {
    let world = World::new().await;
    let (_handle, control) = control();
    let mark = marked(3081);
    let command = format!("trap '' TERM; setsid sleep {mark} & while :; do sleep 0.1; done");
    let done = world.run_claim(world.claim(&command, "workspace", &world.path("workspace"), 1), control).await;
    assert_eq!(done.ran.outcome, Outcome::TimedOut);
    assert!(done.ran.duration < Duration::from_secs(10), "{:?}", done.ran.duration);
    assert!(!sleeps(&mark));
}

async fn a_cancel_ends_a_run_also_when_it_came_first() {
    let world = World::new().await;
    let (handle, control) = control();
    handle.cancel();
    let mark = marked(3091);
    let claim = world.claim(&format!("sleep {mark}"), "workspace", &world.path("workspace"), 60);
    assert_eq!(world.run_claim(claim, control).await.ran.outcome, Outcome::Cancelled);
    assert!(!sleeps(&mark));
}

async fn an_extension_counts_from_the_start() {
    let world = World::new().await;
    let (handle, control) = control();
    handle.extend(Duration::from_secs(30));
    let claim = world.claim("sleep 2; echo late", "workspace", &world.path("workspace"), 1);
    let done = world.run_claim(claim, control).await;
    assert_eq!((done.ran.outcome, done.stdout.as_str()), (Outcome::Exited { code: 0 }, "late\n"));
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

async fn a_flood_of_output_is_streamed_and_not_kept() {
    let world = World::new().await;
    let (_handle, control) = control();
    let claim = world.claim("head -c 300000000 /dev/zero", "workspace", &world.path("workspace"), 60);
    let (sender, mut chunks) = mpsc::channel::<Chunk>(4);
    let count = tokio::spawn(async move {
        let (mut bytes, mut largest) = (0, 0);
        while let Some(chunk) = chunks.recv().await {
            bytes += chunk.bytes.len();
            largest = largest.max(chunk.bytes.len());
        }
        (bytes, largest)
    });
    let before = peak();
    let workspace = world.path("workspace");
    let ran = world
        .runner
        .run(claim, &Profile::workspace(), &site(&workspace), Timestamp::from_millis(0), sender, control)
        .await
        .unwrap();
    let grown = peak() - before;
    assert_eq!((ran.outcome, ran.stdout_bytes), (Outcome::Exited { code: 0 }, 300_000_000));
    let (bytes, largest) = count.await.unwrap();
    assert_eq!(bytes, 300_000_000);
    assert!(largest <= 64 * 1024);
    assert!(grown < 16 << 20, "memory grew by {grown} bytes");
}

async fn a_slow_receiver_loses_nothing() {
    let world = World::new().await;
    let (_handle, control) = control();
    let claim = world.claim("head -c 200000 /dev/zero", "workspace", &world.path("workspace"), 60);
    let (sender, mut chunks) = mpsc::channel::<Chunk>(1);
    let slow = tokio::spawn(async move {
        let mut bytes = 0;
        // Longer than the runner waits for a pipe that nobody closes.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        while let Some(chunk) = chunks.recv().await {
            bytes += chunk.bytes.len();
        }
        bytes
    });
    let workspace = world.path("workspace");
    let ran = world
        .runner
        .run(claim, &Profile::workspace(), &site(&workspace), Timestamp::from_millis(0), sender, control)
        .await
        .unwrap();
    assert_eq!((ran.stdout_bytes, slow.await.unwrap()), (200_000, 200_000));
}

async fn the_end_of_the_server_ends_the_tree() {
    let world = World::new().await;
    let (_handle, control) = control();
    let (first, second) = (marked(3101), marked(3102));
    let command = format!("setsid sleep {first} & sleep {second}");
    let claim = world.claim(&command, "workspace", &world.path("workspace"), 60);
    let workspace = world.path("workspace");
    let (sender, _chunks) = mpsc::channel(4);
    {
        let (profile, site) = (Profile::workspace(), site(&workspace));
        let run = world.runner.run(claim, &profile, &site, Timestamp::from_millis(0), sender, control);
        tokio::select! {
            _ = run => panic!("the run ended by itself"),
            () = wait_until("the command's start", || sleeps(&first) && sleeps(&second)) => {}
        }
    }
    // The future is gone, and with it the control stream, as if the server had been killed.
    wait_until("the tree's end", || !sleeps(&first) && !sleeps(&second)).await;
}

async fn nothing_of_the_server_is_inherited() {
    let world = World::new().await;
    let done = world.run("env | sort | cut -d= -f1 | paste -sd,; ls /proc/self/fd | paste -sd,; cat").await;
    let mut lines = done.stdout.lines();
    assert_eq!(lines.next(), Some("HOME,LANG,PATH,PWD,SHLVL,_"), "{}", done.stderr);
    // Three streams and the folder that ls itself reads.
    assert_eq!(lines.next(), Some("0,1,2,3"));
    assert_eq!(lines.next(), None, "standard input was not empty");
}

async fn input_arrives_whole_or_is_left() {
    let world = World::new().await;
    let mut plan = world.plan("wc -c; sha256sum < /proc/self/fd/0 | cut -c1-8");
    let input: Vec<u8> = (0..1u32 << 20).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
    plan.stdin = Some(input.clone());
    assert_eq!(world.run_plan(plan).await.stdout.lines().next(), Some("1048576"));
    let mut plan = world.plan("cat");
    plan.stdin = Some(input.clone());
    assert!(world.run_plan(plan).await.out == input, "the input came back changed");
    let mut plan = world.plan("exit 3");
    plan.stdin = Some(input);
    assert_eq!(world.run_plan(plan).await.code(), Some(3));
    // Sealed: the command cannot change what was approved for a process that reads it later.
    let mut plan = world.plan("echo forged > /proc/self/fd/0; cat");
    plan.stdin = Some(b"approved".to_vec());
    assert_eq!(world.run_plan(plan).await.stdout, "approved");
}

async fn words_and_bytes_are_handed_on_as_they_are() {
    let world = World::new().await;
    let longest = format!("printf %s '{}'", "x".repeat(10_000 - 12));
    assert_eq!(longest.chars().count(), 10_000);
    assert_eq!(world.run(&longest).await.out.len(), 10_000 - 12);
    let done = world.run(r#"printf '<%s>' "a b" 'c"d' e\\f "$(printf "'")" '' '*' $'\t'"#).await;
    assert_eq!(done.stdout, "<a b><c\"d><e\\f><'><><*><\t>");
    assert_eq!(world.run(r"printf '\377\000\200\n'").await.out, b"\xff\0\x80\n");
    let line = world.run("head -c 5000000 /dev/zero | tr '\\0' z").await;
    assert_eq!(line.out.len(), 5_000_000);
    assert!(line.out.iter().all(|byte| *byte == b'z'));
}

async fn streams_that_are_closed_held_or_left_do_not_hold_a_run_up() {
    let world = World::new().await;
    let begun = Instant::now();
    let done = world.run("exec >&-; echo still >&2; exit 4").await;
    assert_eq!((done.code(), done.stdout.as_str(), done.stderr.as_str()), (Some(4), "", "still\n"));
    // The shell is gone, and what its child would write later never comes.
    let done = world.run("echo first; (trap '' TERM HUP; sleep 5; echo later) & exit 5").await;
    assert_eq!((done.code(), done.stdout.as_str()), (Some(5), "first\n"));
    let done = world.run("exec bash -c 'exec sh -c \"exec true\"'").await;
    assert_eq!(done.code(), Some(0));
    let done = world.run("exec 2>&1; kill -TERM $$; echo lived").await;
    assert_eq!((done.ran.outcome, done.stdout.as_str()), (Outcome::Signalled { signal: 15 }, ""));
    // vfork and exec, as a runtime's own spawn does it, many times over.
    let spawn =
        "import subprocess\nfor _ in range(20): subprocess.run(['true'], check=True, close_fds=False)\nprint('ok')";
    assert_eq!(world.run(&format!("/usr/bin/python3 -c \"{spawn}\"")).await.stdout, "ok\n");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

async fn the_first_process_cannot_be_ended_from_inside() {
    let world = World::new().await;
    let done = world.run_as("kill -9 1; kill -STOP 1; kill -HUP 1; kill -SEGV 1; echo after", "host").await;
    assert_eq!((done.code(), done.stdout.as_str()), (Some(0), "after\n"));
}

async fn a_plans_environment_and_nothing_else_arrives() {
    let world = World::new().await;
    let mut plan = world.plan("cat /proc/$$/environ; :");
    let named =
        [("BASH_ENV", "env.sh"), ("LD_PRELOAD", "/seen/by.so"), ("PATH", "/bin"), ("X", "a\nb=c"), ("LANG", "")];
    plan.env =
        named.iter().map(|(name, value)| (EnvName::parse((*name).to_owned()).unwrap(), (*value).to_owned())).collect();
    fs::write(world.path("workspace/env.sh"), "echo sourced >&2").unwrap();
    let done = world.run_plan(plan).await;
    let mut found: Vec<&str> = done.stdout.split_terminator('\0').collect();
    found.sort_unstable();
    let home = format!("HOME={}", world.path("workspace"));
    assert_eq!(found, ["BASH_ENV=env.sh", &home, "LANG=", "LD_PRELOAD=/seen/by.so", "PATH=/bin", "X=a\nb=c"]);
    // The approver saw both, so both do what they do.
    assert!(done.stderr.contains("sourced\n") && done.stderr.contains("'/seen/by.so' from LD_PRELOAD"), "{done:?}");
}
