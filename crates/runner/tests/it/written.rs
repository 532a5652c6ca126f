//! What changed below a workspace is told, however a command goes about it, or is told to be not all known.

use nix::time::{ClockId, clock_gettime};
use provara_domain::{Unseen, Written, WrittenHow};

use crate::support::*;

scenarios!(
    what_a_command_made_changed_and_removed_is_told,
    times_that_a_command_sets_hide_nothing,
    what_is_not_looked_at_is_told_to_be_unknown,
    many_paths_are_counted_and_the_first_listed,
    nothing_is_looked_at_through_a_link_and_nothing_is_opened_that_may_wait,
    what_never_began_has_written_nothing,
);

/// Waits until the clock that marks files has moved on, so that what is there is older than what comes.
async fn later() {
    let now = || clock_gettime(ClockId::CLOCK_REALTIME_COARSE).unwrap();
    let begun = now();
    wait_until("a tick of the clock", || now() > begun).await;
}

/// Has a run make files, so that they are the command's user's.
async fn there(world: &World, files: &[&str]) {
    let made = files.iter().map(|file| format!("mkdir -p $(dirname {file}); echo before > {file}; "));
    assert_eq!(world.run(&made.collect::<String>()).await.code(), Some(0));
}

/// What a command changed. That the tests' file system is one of memory is left out.
async fn written(world: &World, command: &str) -> Written {
    later().await;
    let done = world.run(command).await;
    assert_eq!(done.code(), Some(0), "{command}: {done:?}");
    let mut written = done.ran.written.unwrap();
    written.unseen.retain(|why| *why != Unseen::FileSystemKind);
    written
}

fn all(found: &Written) -> Vec<(String, WrittenHow)> {
    let path = |path| serde_json::to_value(path).unwrap();
    let text = |path: serde_json::Value| path.as_str().map_or_else(|| path.to_string(), str::to_owned);
    found.paths.iter().map(|found| (text(path(&found.path)), found.change)).collect()
}

fn told(found: &[(&str, WrittenHow)]) -> Vec<(String, WrittenHow)> {
    found.iter().map(|(path, change)| ((*path).to_owned(), *change)).collect()
}

async fn what_a_command_made_changed_and_removed_is_told() {
    use WrittenHow::{Changed, Created, Folder};
    let world = World::new().await;
    there(&world, &["kept", "edited", "full/gone", "full/kept", "mode/x", "old/moved", "new/there"]).await;
    let command =
        "echo more >> edited; mkdir made; echo > made/file; rm full/gone; mv old/moved new/moved; chmod a-x mode/x";
    let found = written(&world, command).await;
    let expected =
        [("edited", Changed), ("full", Folder), ("made", Created), ("made/file", Created), ("mode/x", Changed)];
    let moved = [("new/moved", Changed), ("old", Folder)];
    assert_eq!(all(&found), told(&[expected.as_slice(), &moved].concat()));
    assert_eq!((found.count, found.unseen), (7, vec![]));
    // What is gone from the workspace itself, and a run that changes nothing.
    assert_eq!(all(&written(&world, "rm kept").await), told(&[(".", Folder)]));
    assert_eq!(written(&world, "cat edited; ls -R > /dev/null").await, Written::default());
}

async fn times_that_a_command_sets_hide_nothing() {
    use WrittenHow::{Changed, Created};
    let world = World::new().await;
    there(&world, &["edited", "mapped", "reference"]).await;
    let command = "echo more >> edited && touch -r reference edited && echo > planted && touch -d 1990-01-01 planted . && \
                   ln reference other && printf x | dd of=mapped conv=notrunc status=none && touch -d 1990-01-01 mapped";
    let found = written(&world, command).await;
    let expected = [("edited", Changed), ("mapped", Changed), ("other", Changed), ("planted", Created)];
    // Another name of a file marks the file, and so its first name too.
    assert_eq!(all(&found), told(&[expected.as_slice(), &[("reference", Changed)]].concat()));
}

async fn what_is_not_looked_at_is_told_to_be_unknown() {
    let world = World::new().await;
    let deep = written(&world, "d=.; for i in $(seq 60); do d=$d/d; done; mkdir -p $d; echo > $d/hidden").await;
    assert_eq!((deep.count, deep.unseen), (49, vec![Unseen::TooDeep]));
    let shut = written(&world, "rm -r d; mkdir shut; echo > shut/hidden; chmod 000 shut").await;
    // Root reads it all the same.
    let expected = if is_root() { (2, vec![]) } else { (1, vec![Unseen::Unreadable]) };
    assert_eq!((shut.count, shut.unseen), expected);
    let many = written(&world, "chmod 700 shut; rm -r shut; mkdir many; cd many; for i in {1..3000}; do : > $i; done");
    let many = many.await;
    assert_eq!(many.unseen, [Unseen::TooMany]);
    assert!((1000..1030).contains(&many.count), "{}", many.count);
}

async fn many_paths_are_counted_and_the_first_listed() {
    let world = World::new().await;
    let found = written(&world, "for i in {1..300}; do : > $i; done").await;
    assert_eq!((found.count, found.paths.len(), found.unseen.len()), (300, Written::MAX_PATHS, 0));
    let long = "rm *; n=$(printf '%0200d' 7); mkdir -p $n/$n/$n; cd $n/$n/$n; for i in {1..90}; do : > $n$i; done";
    let found = written(&world, long).await;
    let bytes: usize = all(&found).iter().map(|(path, _)| path.len()).sum();
    assert_eq!((found.count, bytes <= Written::MAX_BYTES, found.paths.len() < 30), (93, true, true));
}

async fn nothing_is_looked_at_through_a_link_and_nothing_is_opened_that_may_wait() {
    use WrittenHow::Created;
    let world = World::new().await;
    let command =
        "ln -s ../runtime link; ln -s / root; ln -s . loop; mkfifo pipe; : > $'a\\xff\\n\\e[2J'; : > $'b\\nc'";
    let found = written(&world, command).await;
    let bytes = serde_json::to_string(&b"a\xff\n\x1b[2J".to_vec()).unwrap();
    let expected = ["b\nc", "link", "loop", "pipe", "root", &bytes].map(|path| (path, Created));
    assert_eq!((all(&found), found.unseen), (told(&expected), vec![]));
}

async fn what_never_began_has_written_nothing() {
    let world = World::new().await;
    let (_handle, control) = control();
    let claim = world.claim("true", "workspace", &world.path("workspace/gone"), 20);
    let done = world.run_claim(claim, control).await;
    assert!(matches!(done.ran.outcome, Outcome::SpawnFailed { .. }), "{done:?}");
    assert_eq!(done.ran.written, None);
}
