//! Previews: what a command would do, in a copy of the workspace, and nothing of it anywhere else.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;

use provara_domain::{ChangeKind, Changes, NodeKind};
use provara_runner::Previewed;
use sha2::{Digest as _, Sha256};

use crate::support::*;

scenarios!(
    a_preview_tells_what_would_change_and_changes_nothing,
    nothing_outside_of_the_copy_can_be_written,
    a_preview_that_is_ended_leaves_nothing_behind,
    previews_know_nothing_of_each_other,
    a_preview_and_a_run_of_the_same_plan_do_not_meet,
    what_a_preview_fills_is_bounded,
    a_hostile_layer_is_read_within_bounds,
    nobody_is_called_by_the_workspaces_sockets_and_pipes,
    a_read_only_profile_has_nothing_to_change,
    a_looser_profile_is_refused,
);

async fn preview_with(world: &World, command: &str, profile: &Profile, control: RunControl) -> (Previewed, String) {
    let (sender, mut chunks) = mpsc::channel::<Chunk>(16);
    let collect = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            all.extend_from_slice(&chunk.bytes);
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    let (plan, at) = (world.plan(command), site(&world.path("workspace")));
    let seen = world.runner.preview(&plan, None, profile, &at, sender, control).await.unwrap();
    (seen, collect.await.unwrap())
}

async fn preview(world: &World, command: &str) -> (Previewed, String) {
    let (_handle, control) = control();
    preview_with(world, command, &Profile::workspace(), control).await
}

fn told(changes: &Changes) -> Vec<(String, ChangeKind, Option<NodeKind>)> {
    let path = |bytes: &[u8]| bytes.escape_ascii().to_string();
    changes.listed.iter().map(|change| (path(&change.path), change.kind, change.node)).collect()
}

/// Everything below a folder: path, mode, size, times, and bytes or target.
fn snapshot(folder: &str) -> BTreeMap<String, (u32, u64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            let bytes = if meta.is_file() {
                fs::read(&path).unwrap()
            } else if meta.is_symlink() {
                fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
            } else {
                Vec::new()
            };
            let name = path.to_str().unwrap().to_owned();
            if meta.is_dir() {
                folders.push(name.clone());
            }
            all.insert(name, (meta.mode(), meta.len(), meta.mtime_nsec() + meta.mtime(), bytes));
        }
    }
    all
}

/// Makes what the command's user may change, as the user who the commands run as.
async fn given(world: &World, command: &str) -> BTreeMap<String, (u32, u64, i64, Vec<u8>)> {
    assert_eq!(world.run(command).await.code(), Some(0));
    snapshot(&world.path("workspace"))
}

async fn a_preview_tells_what_would_change_and_changes_nothing() {
    let world = World::new().await;
    let before = given(
        &world,
        "mkdir -p keep/deep gone old; echo a >a; echo b >b; echo same >same; echo x >gone/x; echo y >old/y; echo z >keep/deep/z; \
         ln -s a link; ln a hard; echo t >turn; chmod 644 *; chmod 755 keep gone old",
    )
    .await;
    let (seen, output) = preview(
        &world,
        "pwd; echo new >$'n\\xffw'; echo more >>a; rm b; rm -r gone; rm -r old && mkdir old && echo n >old/n; rm link && ln -s b link; \
         touch same; chmod 600 keep/deep/z; mkdir made; rm turn && mkdir turn; mv keep/deep/z keep/moved; echo err >&2; exit 3",
    )
    .await;
    assert_eq!(seen.outcome, Outcome::Exited { code: 3 }, "{seen:?} {output}");
    assert!(output.contains(&world.path("workspace")) && output.contains("err"), "{output}");
    use ChangeKind::{Changed, Created, Deleted, Replaced};
    use NodeKind::{File, Folder, Link};
    let expected = [
        ("a", Changed, File),
        ("b", Deleted, File),
        ("gone", Deleted, Folder),
        ("keep/deep/z", Deleted, File),
        ("keep/moved", Created, File),
        ("link", Changed, Link),
        ("made", Created, Folder),
        ("n\\xffw", Created, File),
        ("old", Replaced, Folder),
        ("old/n", Created, File),
        ("turn", Changed, Folder),
    ];
    let expected: Vec<_> = expected.map(|(path, kind, node)| (path.to_owned(), kind, Some(node))).into();
    assert_eq!(told(&seen.changes), expected);
    assert_eq!((seen.changes.more, seen.changes.unread), (0, 0));
    let of = |path: &[u8]| seen.changes.listed.iter().find(|change| change.path == path).unwrap();
    let digest: [u8; 32] = Sha256::digest(b"a\nmore\n").into();
    assert_eq!(of(b"a").sha256, Some(provara_domain::Digest::from_sha256(digest)));
    assert_eq!((of(b"a").size, of(b"keep/moved").mode), (Some(7), Some(0o600)));
    assert_eq!(of(b"link").target.as_deref(), Some(b"b".as_slice()));
    assert!(seen.enforced.mechanisms.iter().any(|known| known.name == "workspace_copied" && known.held));
    assert_eq!(snapshot(&world.path("workspace")), before);
}

async fn nothing_outside_of_the_copy_can_be_written() {
    let world = World::new().await;
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(world.path("outside/file"), "as it was").unwrap();
    fs::set_permissions(world.path("outside/file"), fs::Permissions::from_mode(0o666)).unwrap();
    link(Path::new(&outside), &world.path("workspace/out"));
    let before = given(&world, "echo one >file; ln file twin").await;
    let mark = format!("provara-preview-{}", std::process::id());
    let (seen, output) = preview(
        &world,
        &format!(
            "echo bad >out/file; echo bad >out/new; rm -f out/file; ln out/file hard && echo bad >hard; mv out/file in; \
             echo bad >file; echo bad >>twin; chmod 000 twin; echo bad >{mark} && mv {mark} ../{mark}; \
             echo bad >/tmp/{mark}; echo bad >/var/tmp/{mark}; echo bad >/dev/shm/{mark}; \
             mknod white c 0 0; mount -t tmpfs none .; unshare -rm true; \
             cat ../runtime/token.txt; ls /proc/1/root/dev /dev"
        ),
    )
    .await;
    assert!(!output.contains("secret"), "{output}");
    assert!(!output.contains("upper") && !output.contains("work\n"), "the layers can be reached: {output}");
    assert_eq!(fs::read_to_string(world.path("outside/file")).unwrap(), "as it was");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    for place in ["/tmp", "/var/tmp", "/dev/shm", &world.path("")] {
        assert!(!Path::new(place).join(&mark).exists(), "{place}");
    }
    assert_eq!(snapshot(&world.path("workspace")), before);
    let changed = told(&seen.changes);
    assert!(changed.iter().any(|(path, kind, _)| path == "file" && *kind == ChangeKind::Changed), "{changed:?}");
    assert!(!changed.iter().any(|(path, ..)| path == "white" || path == "out"), "{changed:?}");
}

async fn a_preview_that_is_ended_leaves_nothing_behind() {
    let world = World::new().await;
    let before = given(&world, "echo one >file").await;
    let mark = marked(301);
    let (handle, control) = control();
    let command = format!("echo two >file; echo begun; (setsid sleep {mark} &); sleep {mark}");
    let profile = Profile::workspace();
    let (sender, mut chunks) = mpsc::channel::<Chunk>(16);
    let (plan, at) = (world.plan(&command), site(&world.path("workspace")));
    let previewing = world.runner.preview(&plan, None, &profile, &at, sender, control);
    let ending = async {
        assert_eq!(chunks.recv().await.unwrap().bytes.as_ref(), b"begun\n");
        handle.cancel();
    };
    let (seen, ()) = tokio::join!(previewing, ending);
    assert_eq!(seen.unwrap().outcome, Outcome::Cancelled);
    assert!(!sleeps(&mark));
    // And one whose asker is gone: its future is dropped.
    let (_handle, control) = provara_runner::control();
    let (sender, mut chunks) = mpsc::channel::<Chunk>(16);
    {
        let previewing = world.runner.preview(&plan, None, &profile, &at, sender, control);
        tokio::select! {
            _ = previewing => panic!("it sleeps"),
            chunk = chunks.recv() => assert_eq!(chunk.unwrap().bytes.as_ref(), b"begun\n"),
        }
    }
    let until = Instant::now() + Duration::from_secs(20);
    while sleeps(&mark) {
        assert!(Instant::now() < until, "processes of a dropped preview live");
        tokio::task::yield_now().await;
    }
    assert_eq!(snapshot(&world.path("workspace")), before);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("provara-preview") && !mounts.contains("overlay overlay"), "{mounts}");
}

async fn previews_know_nothing_of_each_other() {
    let world = World::new().await;
    let before = given(&world, "echo one >file").await;
    let one = preview(&world, "echo first >file; echo x >one; sleep 0.3; ls; cat file");
    let other = preview(&world, "echo second >file; echo x >other; sleep 0.3; ls; cat file");
    let ((one, first), (other, second)) = tokio::join!(one, other);
    assert_eq!((first.as_str(), second.as_str()), ("file\none\nfirst\n", "file\nother\nsecond\n"));
    assert_eq!((one.changes.listed.len(), other.changes.listed.len()), (2, 2));
    assert_eq!(snapshot(&world.path("workspace")), before);
}

async fn a_preview_and_a_run_of_the_same_plan_do_not_meet() {
    let world = World::new().await;
    given(&world, "echo one >file").await;
    let command = "test ! -e made && echo made >made && echo two >file";
    let (seen, ran) = tokio::join!(preview(&world, command), world.run(command));
    assert_eq!(ran.code(), Some(0));
    assert!(matches!(seen.0.outcome, Outcome::Exited { .. }), "{seen:?}");
    assert_eq!(fs::read_to_string(world.path("workspace/file")).unwrap(), "two\n");
    // As the preview's own copy was thrown away, one after the run sees the run's files.
    assert_eq!(preview(&world, "cat file made").await.1, "two\nmade\n");
}

async fn what_a_preview_fills_is_bounded() {
    let world = World::new().await;
    let before = given(&world, "echo one >file").await;
    let (seen, output) =
        preview(&world, "head -c 400M /dev/zero >big; for n in $(seq 40000); do : >f$n || break; done 2>&1 | tail -n1")
            .await;
    assert!(output.contains("No space left"), "{output}");
    let big = seen.changes.listed.iter().find(|change| change.path == b"big").unwrap();
    assert!(big.size.unwrap() <= 256 << 20, "{big:?}");
    assert_eq!(seen.changes.listed.len(), 1000);
    assert!(seen.changes.more > 20_000 && seen.changes.more < 40_000, "{}", seen.changes.more);
    assert_eq!(snapshot(&world.path("workspace")), before);
}

async fn a_hostile_layer_is_read_within_bounds() {
    let world = World::new().await;
    let before = given(&world, "echo one >file").await;
    let (seen, output) = preview(
        &world,
        "truncate -s 1T huge; mkfifo pipe; ln -s /etc/passwd out; ln -s / root; echo s >shut; chmod 000 shut; mkdir dark; echo d >dark/d; \
         chmod 000 dark; d=deep; mkdir $d; cd $d; for n in $(seq 100); do mkdir d && cd d || exit 9; done; echo done",
    )
    .await;
    assert_eq!(output, "done\n");
    let of = |path: &[u8]| seen.changes.listed.iter().find(|change| change.path == path);
    assert_eq!((of(b"huge").unwrap().size, &of(b"huge").unwrap().sha256), (Some(1 << 40), &None));
    assert_eq!(of(b"pipe").unwrap().node, Some(NodeKind::Special));
    assert_eq!(of(b"out").unwrap().target.as_deref(), Some(b"/etc/passwd".as_slice()));
    assert!(!told(&seen.changes).iter().any(|(path, ..)| path.starts_with("root/")));
    assert_eq!((of(b"shut").unwrap().mode, of(b"shut").unwrap().sha256.is_some()), (Some(0), true));
    assert!(of(b"dark").is_some() && of(b"dark/d").is_some(), "{:?}", told(&seen.changes));
    assert_eq!(seen.changes.unread, 2, "the huge file, and what is too deep");
    assert_eq!(snapshot(&world.path("workspace")), before);
}

async fn nobody_is_called_by_the_workspaces_sockets_and_pipes() {
    let world = World::new().await;
    let listener = UnixListener::bind(world.path("workspace/socket")).unwrap();
    fs::set_permissions(world.path("workspace/socket"), fs::Permissions::from_mode(0o777)).unwrap();
    listener.set_nonblocking(true).unwrap();
    nix::unistd::mkfifo(world.path("workspace/pipe").as_str(), nix::sys::stat::Mode::from_bits_truncate(0o666))
        .unwrap();
    fs::set_permissions(world.path("workspace/pipe"), fs::Permissions::from_mode(0o666)).unwrap();
    let mut pipe =
        fs::OpenOptions::new().read(true).custom_flags_nonblocking().open(world.path("workspace/pipe")).unwrap();
    let (_, output) = preview(
        &world,
        "timeout 1 sh -c 'echo told >pipe'; \
         perl -MSocket -e 'socket(my $s, AF_UNIX, SOCK_STREAM, 0) or exit 3; connect($s, sockaddr_un(\"socket\")) or exit 4; print \"called\\n\"'; \
         echo ended",
    )
    .await;
    assert!(output.contains("ended") && !output.contains("called"), "{output}");
    assert!(listener.accept().is_err(), "somebody called");
    let mut heard = Vec::new();
    let read = pipe.read_to_end(&mut heard);
    assert_eq!(heard, b"", "{read:?}");
}

trait Nonblocking {
    fn custom_flags_nonblocking(&mut self) -> &mut Self;
}

impl Nonblocking for fs::OpenOptions {
    fn custom_flags_nonblocking(&mut self) -> &mut Self {
        use std::os::unix::fs::OpenOptionsExt as _;
        self.custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
    }
}

async fn a_read_only_profile_has_nothing_to_change() {
    let world = World::new().await;
    let (_handle, control) = control();
    let (seen, output) = preview_with(&world, "echo x >file", &Profile::read_only(), control).await;
    assert_eq!((seen.outcome, seen.changes), (Outcome::Exited { code: 1 }, Changes::default()));
    assert!(output.contains("Read-only file system"), "{output}");
}

async fn a_looser_profile_is_refused() {
    let world = World::new().await;
    for profile in [Profile::network(), Profile::host()] {
        let (_handle, control) = control();
        let (seen, output) = preview_with(&world, "echo ran; echo x >file", &profile, control).await;
        let message = format!("the profile `{}` is looser than a preview may have", profile.name());
        let failure = SpawnFailure::Refused;
        assert_eq!((seen.outcome, output.as_str()), (Outcome::SpawnFailed { failure, message }, ""));
    }
    assert_eq!(fs::read_dir(world.path("workspace")).unwrap().count(), 0);
}
