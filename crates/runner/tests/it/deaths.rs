//! Whoever of server, helper, supervisor and first process is killed: no tree is left, nothing hangs, nothing runs twice.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::*;

scenarios!(
    the_helpers_death_leaves_its_runs_alone_and_the_next_gets_a_new_one,
    a_killed_supervisor_takes_its_tree_along_and_the_run_is_lost,
    a_killed_first_process_takes_its_tree_along_and_the_run_is_lost,
    runs_while_the_helper_is_killed_again_and_again_end_and_run_at_most_once,
    a_run_that_waits_in_a_dead_helpers_socket_is_lost_and_never_run,
);

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// The helper: a child of this process.
fn helper() -> i32 {
    let me = i32::try_from(std::process::id()).unwrap();
    let helpers: Vec<i32> =
        those_with("helper").into_iter().filter(|pid| parent(*pid) == Some(me)).filter(|pid| !zombie(*pid)).collect();
    assert_eq!(helpers.len(), 1, "not one helper: {helpers:?}");
    helpers[0]
}

/// The shell's ancestors: the run's first process and its supervisor.
fn above(shell: i32) -> (i32, i32) {
    let first = parent(shell).unwrap();
    (first, parent(first).unwrap())
}

fn shell_with(mark: &str) -> Option<i32> {
    those_with(mark).first().copied()
}

async fn the_helpers_death_leaves_its_runs_alone_and_the_next_gets_a_new_one() {
    let world = World::new().await;
    let old = helper();
    let (_handle, control) = control();
    // Known by a mark: another test's command may wait for a file of the same name.
    let mark = marked(3210);
    let command = format!("until [ -e go ]; do : {mark}; done; echo went; exit 6");
    let claim = world.claim(&command, "workspace", &world.path("workspace"), 60);
    let kill_it = async {
        wait_until("the command's start", || alive(&format!(": {mark}"))).await;
        end(old);
        wait_until("the helper's end", || zombie(old)).await;
        // While the first run goes on: nobody may be left who holds the dead helper's socket open.
        let next = world.run("echo next").await;
        assert_eq!((next.code(), next.stdout.as_str()), (Some(0), "next\n"));
        assert_ne!(helper(), old);
        fs::write(world.path("workspace/go"), "").unwrap();
    };
    let (done, ()) = tokio::join!(world.run_claim(claim, control), kill_it);
    assert_eq!((done.code(), done.stdout.as_str()), (Some(6), "went\n"));
}

async fn dies_with(victim: impl Fn(i32) -> i32) {
    let world = World::new().await;
    let (_handle, control) = control();
    let (mark, hidden) = (marked(3201), marked(3202));
    let command = format!("(trap '' TERM HUP; setsid sleep {hidden}) & exec sleep {mark}");
    let claim = world.claim(&command, "workspace", &world.path("workspace"), 60);
    let kill_it = async {
        wait_until("the command's start", || sleeps(&mark) && sleeps(&hidden)).await;
        end(victim(shell_with(&format!("sleep\0{mark}")).unwrap()));
    };
    let workspace = world.path("workspace");
    let (lost, ()) = tokio::join!(world.try_run(claim, &workspace, control), kill_it);
    assert_eq!(lost.unwrap_err().to_string(), Lost.to_string());
    wait_until("the tree's end", || !sleeps(&mark) && !sleeps(&hidden)).await;
    assert_eq!(world.run("echo next").await.stdout, "next\n");
}

async fn a_killed_supervisor_takes_its_tree_along_and_the_run_is_lost() {
    dies_with(|shell| above(shell).1).await;
}

async fn a_killed_first_process_takes_its_tree_along_and_the_run_is_lost() {
    dies_with(|shell| above(shell).0).await;
}

async fn runs_while_the_helper_is_killed_again_and_again_end_and_run_at_most_once() {
    let world = World::new().await;
    let runs = async {
        let workspace = world.path("workspace");
        let mut runs = Vec::new();
        for number in 0..24 {
            let (_handle, control) = control();
            let command = format!("echo x >> ran-{number}; exit 7");
            let claim = world.claim(&command, "workspace", &workspace, 60);
            runs.push(world.try_run(claim, &workspace, control));
        }
        futures_of(runs).await
    };
    let kill_it = async {
        for _ in 0..6 {
            let helpers = those_with("helper");
            let me = i32::try_from(std::process::id()).unwrap();
            for pid in helpers.into_iter().filter(|pid| parent(*pid) == Some(me)) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            tokio::task::yield_now().await;
            // The next run replaces a dead helper, or is lost with one that is just dying.
            let (_handle, control) = control();
            let workspace = world.path("workspace");
            let claim = world.claim("true", "workspace", &workspace, 60);
            let ended = world.try_run(claim, &workspace, control);
            drop(tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap());
        }
    };
    let both = async { tokio::join!(runs, kill_it) };
    let (ended, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    for (number, ended) in ended.into_iter().enumerate() {
        let times = fs::read_to_string(world.path(&format!("workspace/ran-{number}"))).unwrap_or_default();
        match ended.map(|done| done.ran.outcome) {
            Ok(Outcome::Exited { code: 7 }) => assert_eq!(times, "x\n", "run {number}"),
            Ok(Outcome::SpawnFailed { .. }) | Err(Lost) => assert!(times.len() <= 2, "run {number} ran twice"),
            Ok(other) => panic!("run {number}: {other:?}"),
        }
    }
}

/// Drives all to their ends at once.
async fn futures_of<F: Future>(all: Vec<F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = all.into_iter().map(|one| Some(Box::pin(one))).collect();
    let mut ended: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (one, end) in waiting.iter_mut().zip(&mut ended) {
            if let Some(future) = one
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *end = Some(output);
                *one = None;
            }
        }
        if waiting.iter().all(Option::is_none) {
            return std::task::Poll::Ready(ended.iter_mut().map(|end| end.take().unwrap()).collect());
        }
        std::task::Poll::Pending
    })
    .await
}

async fn a_run_that_waits_in_a_dead_helpers_socket_is_lost_and_never_run() {
    let world = World::new().await;
    let helper = helper();
    // Stopped, so that the run has been sent and not taken when the helper dies. No spare stands ready for this profile.
    kill(Pid::from_raw(helper), Signal::SIGSTOP).unwrap();
    let (_handle, control) = control();
    let claim = world.claim("echo x >> ran", "host", &world.path("workspace"), 60);
    let workspace = world.path("workspace");
    let kill_it = async {
        // Polled once, the run has handed itself over.
        tokio::task::yield_now().await;
        end(helper);
    };
    let (lost, ()) = tokio::join!(world.try_run(claim, &workspace, control), kill_it);
    assert_eq!(lost.unwrap_err().to_string(), Lost.to_string());
    assert_eq!(world.run("ls").await.stdout, "", "a lost run ran");
}

/// Plays a server with many runs whose children are hard to find, and never ends by itself.
#[test]
fn a_server_to_be_killed() {
    if !is_again() {
        return;
    }
    let Ok(mark) = std::env::var("PROVARA_TEST_MARK") else { return };
    play(async {
        let world = World::new().await;
        let workspace = world.path("workspace");
        let runs = (0..12).map(|number| {
            let command = format!(
                "trap '' TERM HUP; (setsid bash -c '(exec -a {mark} sleep 600 &) ; exec -a {mark} sleep 600' &); \
                 exec 3>&1; yes {mark} > /dev/null & echo > up-{number}; exec -a {mark} sleep 600"
            );
            let (_handle, control) = control();
            world.try_run(world.claim(&command, "workspace", &workspace, 600), &workspace, control)
        });
        let up = async {
            wait_until("all commands' start", || {
                (0..12).all(|number| Path::new(&world.path(&format!("workspace/up-{number}"))).exists())
                    && those_with(&mark).len() >= 12 * 4
            })
            .await;
            eprintln!("all up");
        };
        tokio::join!(futures_of(runs.collect()), up);
    });
}

#[test]
fn a_killed_server_leaves_no_process_of_any_run() {
    for who in [As::Root, As::Ordinary] {
        if !is_root() && who == As::Root {
            continue;
        }
        let place = Place::new();
        let mark = format!("{}/marked", place.mark());
        let who = if is_root() { who } else { As::Root };
        let mut server = place
            .command("it::deaths::a_server_to_be_killed", &[], who)
            .env("PROVARA_TEST_MARK", &mark)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let said: Vec<String> = lines.by_ref().map(Result::unwrap).take_while(|line| line != "all up").collect();
        // Commands, supervisors, first processes and the helper: all have the place in their arguments.
        assert!(those_with(place.mark()).len() > 12 * 6, "the server did not start its runs: {said:?}");
        server.kill().unwrap();
        server.wait().unwrap();
        play(wait_until("the end of every process", || those_with(place.mark()).is_empty()));
    }
}
