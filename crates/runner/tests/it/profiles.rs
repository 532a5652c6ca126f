//! Profiles other than `workspace` and `host`: what they grant works, and what they do not grant cannot be had, by acts.

use std::collections::BTreeSet;
use std::fs;

use provara_domain::{Access, EnvName, Files, HomePath, Limit, Network, ProfilePath, Tmp, UserName};

use crate::support::*;

scenarios!(
    read_only_changes_nothing_but_its_private_tmp,
    a_writable_place_is_written_and_what_is_kept_in_it_is_not,
    what_is_hidden_below_a_writable_place_stays_hidden,
    a_hidden_file_keeps_its_name_for_the_next_run,
    what_is_not_granted_is_not_there,
    a_place_below_a_hidden_one_is_reached_and_nothing_beside_it,
    a_workspace_in_a_hidden_or_credential_folder_is_reached_alone,
    a_link_that_a_command_may_have_made_opens_nothing,
    a_missing_place_is_told_and_what_appears_at_one_is_not_read,
    own_processes_are_called_and_nobody_else,
    variables_and_limits_are_the_profiles,
    lowered_limits_hold,
);

fn path(raw: &str) -> ProfilePath {
    ProfilePath::parse(raw).unwrap()
}

fn files(everywhere: Access, workspace: Access, paths: &[(&str, Access)]) -> Grants {
    let usual = Profile::workspace().grants().clone();
    let homes: Vec<HomePath> = usual.files.homes().cloned().collect();
    let paths = paths.iter().map(|(raw, access)| (path(raw), *access));
    Grants { files: Files::new(everywhere, workspace, Tmp::Private, paths, homes), ..usual }
}

/// What every program needs, where not everything can be read.
const PROGRAMS: [(&str, Access); 5] = [
    ("/usr", Access::Read),
    ("/bin", Access::Read),
    ("/lib", Access::Read),
    ("/lib64", Access::Read),
    ("/etc", Access::Read),
];

/// A folder of the machine's that anybody may use, so that what keeps a command out of it is no mode.
fn open_folder(world: &World, name: &str) -> String {
    let folder = world.path(name);
    fs::create_dir_all(&folder).unwrap();
    give(&folder);
    folder
}

fn open_file(at: &str, text: &str) {
    fs::write(at, text).unwrap();
    give(at);
}

fn give(path: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    provara_runner::give_workspace(Path::new(path), None).unwrap();
}

/// Runs a Python act that has to fail with one of `errors`, and to read no secret.
async fn fails(world: &World, grants: &Grants, act: &str, errors: &[&str]) {
    let script = format!("import os, socket\n{act}\nprint('worked')\n");
    let mut plan = world.plan("/usr/bin/python3 -");
    plan.stdin = Some(script.into_bytes());
    plan.profile = own(grants.clone()).name().clone();
    let done = world.run_with(claim_of(plan), &own(grants.clone()), control().1).await;
    let told = done.stderr.lines().last().unwrap_or_default();
    assert_eq!((done.code(), done.stdout.as_str()), (Some(1), ""), "`{act}`: {done:?}");
    assert!(errors.iter().any(|error| told.contains(error)), "`{act}` failed otherwise: {told}");
    for wall in ["mount_namespace", "landlock", "seccomp", "capabilities_dropped", "network_namespace"] {
        assert!(held(&done.ran, wall), "{wall}: {:?}", done.ran.enforced);
    }
}

const REFUSED: &[&str] = &[
    "PermissionError",
    "Read-only",
    "Invalid cross-device link",
    "Operation not permitted",
    "Device or resource busy",
    "FileNotFoundError",
];

async fn read_only_changes_nothing_but_its_private_tmp() {
    let world = World::new().await;
    let workspace = world.path("workspace");
    open_file(&format!("{workspace}/file"), "as it was");
    let outside = open_folder(&world, "outside");
    open_file(&format!("{outside}/file"), "as it was");
    let grants = Profile::read_only().grants().clone();
    for folder in [&workspace, &outside] {
        for act in [
            format!("open('{folder}/new', 'w')"),
            format!("open('{folder}/file', 'a')"),
            format!("os.truncate('{folder}/file', 0)"),
            format!("os.chmod('{folder}/file', 0o600)"),
            format!("os.utime('{folder}/file', (1, 1))"),
            format!("os.setxattr('{folder}/file', 'user.x', b'1')"),
            format!("os.unlink('{folder}/file')"),
            format!("os.rename('{folder}/file', '{folder}/away')"),
            format!("os.rename('{folder}/file', '/tmp/away')"),
            format!("os.link('{folder}/file', '{folder}/linked')"),
            format!("os.link('{folder}/file', '/tmp/linked')"),
            format!("open('/tmp/mine', 'w').close(); os.link('/tmp/mine', '{folder}/mine')"),
            format!("open('/tmp/mine', 'w').close(); os.rename('/tmp/mine', '{folder}/mine')"),
            format!("os.mkdir('{folder}/folder')"),
            format!("os.symlink('/etc', '{folder}/link')"),
            format!("os.mkfifo('{folder}/fifo')"),
            format!("socket.socket(socket.AF_UNIX).bind('{folder}/socket')"),
            format!("os.symlink('{folder}', '/tmp/way'); open('/tmp/way/new', 'w')"),
            format!("fd = os.open('{folder}/file', os.O_RDONLY); open(f'/proc/self/fd/{{fd}}', 'w')"),
            format!("fd = os.open('{folder}', os.O_PATH); open(f'/proc/self/fd/{{fd}}/new', 'w')"),
            format!("fd = os.open('{folder}', os.O_RDONLY); os.open('new', os.O_CREAT | os.O_WRONLY, dir_fd=fd)"),
        ] {
            fails(&world, &grants, &act, REFUSED).await;
        }
    }
    for act in
        ["open('/proc/self/cwd/new', 'w')", "open('/proc/sys/kernel/hostname', 'w')", "open('/run/../etc/x', 'w')"]
    {
        fails(&world, &grants, act, REFUSED).await;
    }
    for folder in [&workspace, &outside] {
        assert_eq!(fs::read_to_string(format!("{folder}/file")).unwrap(), "as it was");
        assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "{folder}");
    }
    let work = "cat file && echo mine > /tmp/x && cat /tmp/x && pwd && echo $HOME";
    let done = world.run_as(work, "read-only").await;
    assert_eq!(done.stdout, format!("as it wasmine\n{workspace}\n{workspace}\n"), "{done:?}");
    let view = done.ran.enforced.mechanisms.iter().find(|known| known.name == "mount_namespace").unwrap();
    assert_eq!(view.detail, "all read-only; /tmp private; /run hidden");
    assert_eq!(done.ran.enforced.profile, "read-only");
    // The same spares serve it as serve `workspace`, and what one was used for the next does not know.
    assert_eq!(world.run("echo x > here; cat here; ls /tmp").await.stdout, "x\n");
}

/// A writable place of the machine's with a read-only folder, a hidden folder and a hidden file in it.
async fn kept() -> (World, String, Grants) {
    let world = World::new().await;
    let cache = open_folder(&world, "cache");
    for folder in ["deep", "deep/private", "deep/readable", "beside"] {
        open_folder(&world, &format!("cache/{folder}"));
    }
    open_file(&format!("{cache}/deep/private/key"), "secret-key");
    open_file(&format!("{cache}/deep/secret"), "secret-file");
    open_file(&format!("{cache}/deep/readable/file"), "as it was");
    let [private, secret, readable] = ["private", "secret", "readable"].map(|name| format!("{cache}/deep/{name}"));
    let grants = files(
        Access::Read,
        Access::Write,
        &[(&cache, Access::Write), (&private, Access::Hidden), (&secret, Access::Hidden), (&readable, Access::Read)],
    );
    (world, cache, grants)
}

async fn a_writable_place_is_written_and_what_is_kept_in_it_is_not() {
    let (world, cache, grants) = kept().await;
    let work = format!(
        "set -e; echo x > {cache}/new; mkdir -p {cache}/a/b; mv {cache}/new {cache}/a/b/c; cat {cache}/a/b/c; \
         echo y > {cache}/deep/also; cat {cache}/deep/readable/file; echo w > here; rm -r {cache}/a"
    );
    let done = world.run_under(&work, grants.clone()).await;
    assert_eq!((done.code(), done.stdout.as_str()), (Some(0), "x\nas it was"), "{done:?}");
    assert!(Path::new(&format!("{cache}/deep/also")).exists() && Path::new(&world.path("workspace/here")).exists());
    let view = done.ran.enforced.mechanisms.iter().find(|known| known.name == "mount_namespace").unwrap();
    let expected =
        "all but the workspace read-only; 2 places writable, 1 readable, 2 hidden; /tmp private; /run hidden";
    assert_eq!(view.detail, expected);
    let kept = format!("{cache}/deep/readable");
    for act in [
        format!("open('{kept}/new', 'w')"),
        format!("open('{kept}/file', 'a')"),
        format!("os.chmod('{kept}/file', 0o600)"),
        format!("os.unlink('{kept}/file')"),
        format!("os.rename('{kept}', '{cache}/deep/writable')"),
        format!("os.rename('{cache}/deep', '{cache}/other')"),
        format!("os.link('{kept}/file', '{cache}/linked')"),
        format!("os.rmdir('{kept}')"),
        format!("fd = os.open('{kept}', os.O_PATH); open(f'/proc/self/fd/{{fd}}/new', 'w')"),
        format!(
            "os.symlink('{kept}', '{cache}/way') if not os.path.lexists('{cache}/way') else 0; open('{cache}/way/new', 'w')"
        ),
        "open('../beside-the-workspace', 'w')".to_owned(),
    ] {
        fails(&world, &grants, &act, REFUSED).await;
    }
    assert_eq!(fs::read_to_string(format!("{kept}/file")).unwrap(), "as it was");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
    assert_eq!(fs::metadata(format!("{kept}/file")).unwrap().permissions().mode() & 0o777, 0o777);
}

async fn what_is_hidden_below_a_writable_place_stays_hidden() {
    let (world, cache, grants) = kept().await;
    let (private, secret) = (format!("{cache}/deep/private"), format!("{cache}/deep/secret"));
    let look =
        |name: &str| format!("text = open('{name}').read(); assert text, 'FileNotFoundError: empty'; print(text)");
    for act in [
        look(&format!("{private}/key")),
        look(&secret),
        format!("os.listdir('{private}')"),
        format!("os.stat('{private}/key')"),
        // By a link, by another name of the same file, and by another name of the folder.
        format!("os.symlink('{private}', '{cache}/way1'); {}", look(&format!("{cache}/way1/key"))),
        format!("os.symlink('{secret}', '{cache}/way2'); {}", look(&format!("{cache}/way2"))),
        format!("os.link('{private}/key', '{cache}/key')"),
        format!("os.link('{secret}', '{cache}/file'); {}", look(&format!("{cache}/file"))),
        format!("os.rename('{private}', '{cache}/moved')"),
        format!("os.rename('{secret}', '{cache}/moved')"),
        format!("os.rename('{cache}/deep', '{cache}/moved')"),
        format!("os.rename('{cache}', '{cache}2')"),
        format!("os.replace('{cache}/beside', '{private}')"),
        format!("os.unlink('{secret}')"),
        format!("os.rmdir('{private}')"),
        format!("os.chmod('{private}', 0o777)"),
        // By a descriptor of the folder above, and by what leads to one.
        format!("fd = os.open('{cache}/deep', os.O_PATH); os.open('private/key', os.O_RDONLY, dir_fd=fd)"),
        format!("fd = os.open('{private}', os.O_PATH); os.listdir(f'/proc/self/fd/{{fd}}')"),
        format!("fd = os.open('{cache}/deep', os.O_PATH); {}", "os.listdir(f'/proc/self/fd/{fd}/private')"),
        look(&format!("/proc/self/root{private}/key")),
        look(&format!("/proc/1/root{private}/key")),
        look("/proc/self/cwd/../cache/deep/private/key"),
        // By a mount of one's own.
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\nif libc.unshare(0x10020000): raise OSError(ctypes.get_errno(), 'PermissionError')".to_owned(),
        format!("import ctypes; libc = ctypes.CDLL(None, use_errno=True)\nif libc.mount(b'{cache}', b'/tmp', None, 4096, None): raise OSError(ctypes.get_errno(), 'PermissionError')"),
        format!("import ctypes; libc = ctypes.CDLL(None, use_errno=True)\nif libc.umount2(b'{private}', 2): raise OSError(ctypes.get_errno(), 'PermissionError')"),
        format!("import ctypes; libc = ctypes.CDLL(None, use_errno=True)\nif libc.syscall(428, -100, b'{cache}', 1) < 0: raise OSError(ctypes.get_errno(), 'PermissionError')"),
    ] {
        fails(&world, &grants, &act, &[REFUSED, &["NotADirectoryError", "Directory not empty"]].concat()).await;
    }
    assert_eq!(fs::read_to_string(format!("{private}/key")).unwrap(), "secret-key");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret-file");
}

/// What is done in one run must not show it to the next.
async fn a_hidden_file_keeps_its_name_for_the_next_run() {
    let (world, cache, grants) = kept().await;
    let moves = format!(
        "cd {cache}; mv -f deep moved; mv -f deep/private moved; mv -f deep/secret moved; ln deep/secret linked; \
         cp -r deep copied; ln -s deep/private link; true"
    );
    assert_eq!(world.run_under(&moves, grants.clone()).await.code(), Some(0));
    let done = world.run_under(&format!("grep -rs secret {cache}; echo end"), grants.clone()).await;
    assert_eq!(done.stdout, "end\n");
    // And it is the profile that hides it.
    let open = files(Access::Read, Access::Write, &[(&cache, Access::Write)]);
    assert!(world.run_under(&format!("grep -rs secret {cache}"), open).await.stdout.contains("secret-key"));
}

async fn what_is_not_granted_is_not_there() {
    let world = World::new().await;
    let readable = open_folder(&world, "readable");
    open_file(&format!("{readable}/file"), "granted");
    let other = open_folder(&world, "other");
    open_file(&format!("{other}/file"), "secret-other");
    let single = world.path("single");
    open_file(&single, "one file");
    open_file(&format!("{single}-not"), "secret-beside");
    let grants = files(
        Access::Hidden,
        Access::Write,
        &[&PROGRAMS[..], &[(&readable, Access::Read), (&single, Access::Read)]].concat(),
    );
    let work = format!(
        "set -e; cat {readable}/file {single}; echo; pwd; echo x > here; echo y > /tmp/t; echo z > /var/tmp/t; \
         echo s > /dev/shm/s; cat /dev/null; head -c 2 /dev/zero | wc -c; cat /proc/self/comm; \
         /usr/bin/python3 -c 'print(1 + 1)'; ls / | paste -sd' '"
    );
    let done = world.run_under(&work, grants.clone()).await;
    let told = &done.stdout;
    let workspace = world.path("workspace");
    assert!(told.starts_with(&format!("grantedone file\n{workspace}\n2\ncat\n2\n")), "{done:?}");
    let root: BTreeSet<&str> = told.lines().last().unwrap().split(' ').collect();
    let first = workspace.split('/').nth(1).unwrap();
    let expected = ["bin", "dev", "etc", "lib", "lib64", "proc", "run", "tmp", "usr", "var", first];
    let exists = |name: &&str| Path::new("/").join(name).exists();
    assert_eq!(root, expected.into_iter().filter(exists).collect(), "{done:?}");
    let view = done.ran.enforced.mechanisms.iter().find(|known| known.name == "mount_namespace").unwrap();
    assert!(view.detail.starts_with("only what is granted is there; 1 places writable, "), "{view:?}");
    for act in [
        format!("open('{other}/file')"),
        format!("open('{single}-not')"),
        format!("os.listdir('{other}')"),
        format!("os.stat('{other}')"),
        format!("open('{readable}/new', 'w')"),
        format!("open('{readable}/file', 'a')"),
        "open('/new', 'w')".to_owned(),
        "os.mkdir('/new')".to_owned(),
        format!("open('{}/new', 'w')", world.root.path().display()),
        "os.stat('/sys/kernel')".to_owned(),
        "os.stat('/root')".to_owned(),
        "os.stat('/home')".to_owned(),
        format!("open('{}/token.txt')", world.path("runtime")),
        format!("os.symlink('{other}', 'way'); open('way/file')"),
        format!("open('/proc/1/root{other}/file')"),
        format!("open('../../../../../../../..{other}/file')"),
        format!("os.chdir('/'); os.chdir('..'); open('.{other}/file')"),
    ] {
        fails(&world, &grants, &act, REFUSED).await;
    }
    // Without its programs nothing begins, and that is told.
    let bare = files(Access::Hidden, Access::Write, &[]);
    let done = world.run_under("true", bare).await;
    let Outcome::SpawnFailed { failure: SpawnFailure::Missing, message } = done.ran.outcome else { panic!("{done:?}") };
    assert!(message.contains("bash") && message.contains("readable"), "{message}");
}

async fn a_place_below_a_hidden_one_is_reached_and_nothing_beside_it() {
    let world = World::new().await;
    let data = open_folder(&world, "data");
    for folder in ["in", "in/out", "beside"] {
        open_folder(&world, &format!("data/{folder}"));
    }
    for file in ["secret", "in/secret", "beside/secret"] {
        open_file(&format!("{data}/{file}"), "secret");
    }
    let (out, hidden) = (format!("{data}/in/out"), data.clone());
    let grants = files(Access::Read, Access::Write, &[(&hidden, Access::Hidden), (&out, Access::Write)]);
    let done = world
        .run_under(&format!("echo x > {out}/made; ls -A {data} {data}/in; grep -rs secret {data}"), grants.clone())
        .await;
    assert_eq!(done.stdout, format!("{data}:\nin\n\n{data}/in:\nout\n"), "{done:?}");
    assert_eq!(fs::read_to_string(format!("{out}/made")).unwrap(), "x\n");
    for act in [
        format!("open('{data}/new', 'w')"),
        format!("os.mkdir('{data}/in/new')"),
        format!("open('{out}/../secret')"),
        format!("os.rename('{out}', '{data}/out')"),
        format!("open('{data}/beside/secret')"),
    ] {
        fails(&world, &grants, &act, REFUSED).await;
    }
}

async fn a_workspace_in_a_hidden_or_credential_folder_is_reached_alone() {
    let world = World::new().await;
    open_file(&world.path("beside"), "secret-beside");
    let root = world.root.path().to_str().unwrap().to_owned();
    let hidden = files(Access::Read, Access::Write, &[(&root, Access::Hidden)]);
    let done = world.run_under(&format!("echo x > here; ls -A {root}; cat {root}/beside"), hidden).await;
    assert_eq!(done.stdout, "workspace\n", "{done:?}");
    assert_eq!(fs::read_to_string(world.path("workspace/here")).unwrap(), "x\n");
    // Of a credential folder that holds the workspace, the workspace alone is seen.
    if !is_root() {
        return eprintln!("skipped: a home of the test's own needs root");
    }
    let home = "/root";
    let covered = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "mode=0755", "none", home]).status();
    assert!(covered.unwrap().success());
    let workspace = format!("{home}/.config/app/workspace");
    fs::create_dir_all(&workspace).unwrap();
    give(&workspace);
    open_file(&format!("{home}/.config/token"), "secret-token");
    open_file(&format!("{home}/.config/app/token"), "secret-token");
    let claim =
        world.claim("echo x > here; ls -A .. ../..; grep -rs secret ../..; echo end", "workspace", &workspace, 20);
    let done = world.try_run(claim, &workspace, control().1).await.unwrap();
    assert_eq!(done.stdout, "..:\nworkspace\n\n../..:\napp\nend\n", "{done:?}");
}

/// A link that lies where commands write is no word of the operator's.
async fn a_link_that_a_command_may_have_made_opens_nothing() {
    let world = World::new().await;
    let cache = open_folder(&world, "cache");
    let other = open_folder(&world, "other");
    open_file(&format!("{other}/file"), "secret-other");
    let (place, target) = (format!("{cache}/place"), format!("{cache}/place/deep"));
    let grants = |everywhere| {
        let paths = [&PROGRAMS[..], &[(&cache, Access::Write), (&target, Access::Read)]].concat();
        files(everywhere, Access::Read, &paths)
    };
    open_folder(&world, "cache/place");
    open_folder(&world, "cache/place/deep");
    let look = format!("cat {target}/file 2> /dev/null; touch {cache}/works && echo works");
    assert_eq!(world.run_under(&look, grants(Access::Hidden)).await.stdout, "works\n");
    let plant = files(Access::Read, Access::Read, &[(&cache, Access::Write)]);
    let planted = format!("rm -r {place} && mkdir {place} && ln -s {other} {target}");
    assert_eq!(world.run_under(&planted, plant).await.code(), Some(0));
    for everywhere in [Access::Hidden, Access::Read] {
        let done = world.run_under(&look, grants(everywhere)).await;
        let Outcome::SpawnFailed { failure, message } = done.ran.outcome else { panic!("{done:?}") };
        assert_eq!((failure, done.stdout.as_str()), (SpawnFailure::Confinement, ""));
        assert!(message.contains("which a command may have made"), "{message}");
    }
    // Nor one that another profile let a command make.
    let planted = world.path("workspace/place");
    assert_eq!(world.run(&format!("ln -s {other} place")).await.code(), Some(0));
    let elsewhere = open_folder(&world, "elsewhere");
    let claim = world.claim("touch file", "own", &elsewhere, 20);
    let profile = own(files(Access::Read, Access::Read, &[(&planted, Access::Write)]));
    let done = world.try_with(claim, &profile, &site(&elsewhere), control().1).await.unwrap();
    let Outcome::SpawnFailed { message, .. } = done.ran.outcome else { panic!("{done:?}") };
    assert!(message.contains("which a command may have made"), "{message}");
    // The operator's own links are followed, where commands have another user, and what they lead to is what is granted.
    let alias = world.path("alias");
    link(Path::new(&other), &alias);
    let paths = [&PROGRAMS[..], &[(&alias, Access::Read)]].concat();
    let done =
        world.run_under(&format!("cat {alias}/file {other}/file"), files(Access::Hidden, Access::Read, &paths)).await;
    let expected = if is_root() { "secret-othersecret-other" } else { "" };
    assert_eq!(done.stdout, expected, "{done:?}");
    assert_eq!(matches!(done.ran.outcome, Outcome::SpawnFailed { .. }), !is_root(), "{done:?}");
    let circle = world.path("circle");
    link(Path::new(&circle), &circle);
    let done = world.run_under("true", files(Access::Read, Access::Read, &[(&circle, Access::Write)])).await;
    assert!(matches!(done.ran.outcome, Outcome::SpawnFailed { .. }), "{done:?}");
    let up = world.path("up");
    link(Path::new("/"), &up);
    let done = world.run_under("true", files(Access::Read, Access::Read, &[(&up, Access::Write)])).await;
    assert!(matches!(done.ran.outcome, Outcome::SpawnFailed { .. }), "a link to `/` opened everything: {done:?}");
}

async fn a_missing_place_is_told_and_what_appears_at_one_is_not_read() {
    let world = World::new().await;
    let none = world.path("none");
    let done = world.run_under("true", files(Access::Read, Access::Write, &[(&none, Access::Write)])).await;
    let Outcome::SpawnFailed { failure: SpawnFailure::Missing, message } = done.ran.outcome else { panic!("{done:?}") };
    assert_eq!(message, format!("the profile's place `{none}` is not there; make it, or take it out of the profile"));
    let paths = [&PROGRAMS[..], &[(&none, Access::Read)]].concat();
    let done = world.run_under("echo ran", files(Access::Hidden, Access::Write, &paths)).await;
    assert_eq!(done.stdout, "ran\n", "what is not there cannot be read: {done:?}");
    // What is made at a hidden place while the command runs is not granted, where there is Landlock.
    let (up, go) = (world.path("workspace/up"), world.path("workspace/go"));
    let command = format!("touch up; until test -e go; do :; done; cat {none}");
    let grants = files(Access::Read, Access::Write, &[(&none, Access::Hidden)]);
    let claim = world.claim(&command, "own", &world.path("workspace"), 20);
    let appear = async {
        wait_until("the command's start", || Path::new(&up).exists()).await;
        open_file(&none, "secret");
        fs::write(&go, "").unwrap();
    };
    let profile = own(grants);
    let (done, ()) = tokio::join!(world.run_with(claim, &profile, control().1), appear);
    assert_eq!((done.code(), done.stdout.as_str()), (Some(1), ""), "{done:?}");
}

async fn own_processes_are_called_and_nobody_else() {
    let world = World::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let grants = Grants { network: Network::Loopback, ..Profile::workspace().grants().clone() };
    let itself = "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n\
                  client = socket.create_connection(server.getsockname())\n\
                  server.accept()[0].sendall(b'hello'); print(client.recv(5).decode())\n\
                  udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 0))\n\
                  udp.sendto(b'x', udp.getsockname()); print(udp.recv(1).decode())";
    let done = world.run_under(&format!("/usr/bin/python3 -c \"{itself}\""), grants.clone()).await;
    assert_eq!(done.stdout, "hello\nx\n", "{done:?}");
    for (act, error) in [
        (format!("socket.create_connection(('127.0.0.1', {port}))"), "ConnectionRefusedError"),
        ("socket.socket().connect(('1.1.1.1', 443))".to_owned(), "Network is unreachable"),
        ("socket.socket(socket.AF_INET6).connect(('2606:4700::1', 443))".to_owned(), "Network is unreachable"),
        (
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53))".to_owned(),
            "Network is unreachable",
        ),
        (
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('224.0.0.251', 5353))".to_owned(),
            "Network is unreachable",
        ),
        ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)".to_owned(), "PermissionError"),
        ("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)".to_owned(), "PermissionError"),
        ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)".to_owned(), "PermissionError"),
    ] {
        fails(&world, &grants, &act, &[error]).await;
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "a run called the host");
    // What one run listens at, the next does not find.
    assert_eq!(world.run_under("exec 3<>/dev/tcp/127.0.0.1/9", grants).await.code(), Some(1));
}

async fn variables_and_limits_are_the_profiles() {
    let world = World::new().await;
    let usual = Profile::workspace().grants().clone();
    assert_eq!(world.run("echo $LANG-$EXTRA-$PATH").await.stdout, format!("C.UTF-8--{}\n", fixed_path()));
    let names: BTreeSet<EnvName> =
        ["EXTRA", "PATH", "HOME", "NONE"].map(|name| EnvName::parse(name.into()).unwrap()).into();
    let done = world
        .run_under(
            "echo $LANG-$EXTRA-$PATH-$HOME; env | grep -c ^PATH=",
            Grants { environment: names, ..usual.clone() },
        )
        .await;
    assert_eq!(done.stdout, format!("-more-{}-{}\n1\n", fixed_path(), world.path("workspace")));
    let limits = |what, most| Grants { limits: usual.limits.with(what, most).unwrap(), ..usual.clone() };
    for (grants, command, limit) in [
        (limits(Resource::Output, 1000), "yes", Limit::Output),
        (limits(Resource::FileSize, 1000), "exec head -c 2000 /dev/zero > big", Limit::FileSize),
        (limits(Resource::Cpu, 1), "while :; do :; done", Limit::Cpu),
    ] {
        let done = world.run_under(command, grants).await;
        assert_eq!(done.ran.outcome, Outcome::LimitExceeded { limit }, "{command}");
    }
    // Which limits a profile has says nothing about the host, where every host holds them.
    for what in [Resource::Output, Resource::FileSize, Resource::Cpu, Resource::Processes] {
        assert_eq!(world.runner.problem_with(&own(limits(what, 1))).await, None, "{what:?}");
    }
    let done = world.run_under("ulimit -Hn", limits(Resource::OpenFiles, 50)).await;
    assert_eq!(done.stdout, "50\n");
}

fn fixed_path() -> &'static str {
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

/// What an approver lowers holds, and nothing that a decision says raises what the profile limits.
async fn lowered_limits_hold() {
    let world = World::new().await;
    let under = |resources| {
        let plan = world.plan("ulimit -Hn; ulimit -Hf");
        let (profile, timeout_s) = (plan.profile.clone(), plan.timeout.seconds());
        let run = provara_domain::RunId::new(Timestamp::from_millis(0), 1);
        let limits = provara_domain::Limits { timeout_s, resources };
        #[expect(clippy::disallowed_methods, reason = "the runner is tested without a store")]
        Claim::issued_by_store(plan, run, profile, limits, None)
    };
    let none = ResourceLimits::default();
    let lowered = none.with(Resource::OpenFiles, 60).unwrap().with(Resource::FileSize, 1 << 20).unwrap();
    let done = world.run_claim(under(lowered), control().1).await;
    assert_eq!(done.stdout, "60\n1024\n", "{done:?}");
    let raised = none.with(Resource::OpenFiles, 100_000).unwrap();
    let done = world.run_claim(under(raised), control().1).await;
    assert_eq!(done.stdout, "4096\nunlimited\n", "{done:?}");
}

/// A profile's user, which only a root server can give.
#[test]
fn a_profile_runs_as_its_user() {
    const ME: &str = "it::profiles::a_profile_runs_as_its_user";
    as_root(ME, "only root can become another user", async {
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let build = "build:x:4321:4321::/nonexistent:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n";
        fs::write("/srv/passwd", users + build).unwrap();
        let mounted = std::process::Command::new("mount").args(["--bind", "/srv/passwd", "/etc/passwd"]).status();
        assert!(mounted.unwrap().success());
        let world = World::new().await;
        let grants = |user: &str| {
            let user = Some(UserName::parse(user).unwrap());
            Grants { user, ..Profile::workspace().grants().clone() }
        };
        fs::set_permissions(world.path("workspace"), fs::Permissions::from_mode(0o777)).unwrap();
        let done = world.run_under("id -u; id -g; id -G; touch mine; stat -c %u mine", grants("build")).await;
        assert_eq!(done.stdout, "4321\n4321\n4321\n4321\n", "{done:?}");
        let user = done.ran.enforced.mechanisms.iter().find(|known| known.name == "user").unwrap();
        assert_eq!(user.detail, "uid 4321 gid 4321");
        for (name, told) in [("toor", "no such user beside root"), ("nobody-at-all", "no such user beside root")] {
            let done = world.run_under("echo ran", grants(name)).await;
            let Outcome::SpawnFailed { failure: SpawnFailure::Confinement, message } = done.ran.outcome else {
                panic!("{done:?}")
            };
            assert!(message.contains(told) && done.stdout.is_empty(), "{message}");
        }
    });
}

/// Where nothing but what is granted is there, the link that leads to a home is not; what it leads to may be.
#[test]
fn a_credential_folder_is_hidden_by_whatever_name_it_is_granted() {
    const ME: &str = "it::profiles::a_credential_folder_is_hidden_by_whatever_name_it_is_granted";
    as_root(ME, "a home of the test's own needs a mount over /etc/passwd", async {
        fs::create_dir_all("/srv/data/home/.ssh").unwrap();
        fs::create_dir_all("/srv/keys").unwrap();
        fs::write("/srv/data/home/.ssh/id", "secret").unwrap();
        fs::write("/srv/data/home/plain", "plain").unwrap();
        fs::write("/srv/keys/id", "secret").unwrap();
        link(Path::new("/srv/data"), "/srv/link");
        link(Path::new("/srv/keys"), "/srv/data/home/.gnupg");
        let users = fs::read_to_string("/etc/passwd").unwrap() + "svc:x:4242:4242::/srv/link/home:/bin/sh\n";
        fs::write("/srv/passwd", users).unwrap();
        let mounted = std::process::Command::new("mount").args(["--bind", "/srv/passwd", "/etc/passwd"]).status();
        assert!(mounted.unwrap().success());
        let world = World::new().await;
        for granted in
            [&[("/srv/data/home", Access::Read), ("/srv/keys", Access::Read)][..], &[("/srv/keys", Access::Read)]]
        {
            let grants = files(Access::Hidden, Access::Write, &[&PROGRAMS[..], granted].concat());
            let look = "cat /srv/data/home/plain 2> /dev/null; cat /srv/data/home/.ssh/id /srv/keys/id";
            let done = world.run_under(look, grants).await;
            let expected = if granted.len() == 2 { "plain" } else { "" };
            assert_eq!((done.code(), done.stdout.as_str()), (Some(1), expected), "{done:?}");
        }
    });
}

#[test]
fn a_server_that_is_not_root_says_that_it_cannot_change_users() {
    const ME: &str = "it::profiles::a_server_that_is_not_root_says_that_it_cannot_change_users";
    as_an_ordinary_user(ME, async {
        let world = World::new().await;
        let user = Some(UserName::parse("nobody").unwrap());
        let done = world.run_under("echo ran", Grants { user, ..Profile::workspace().grants().clone() }).await;
        let Outcome::SpawnFailed { failure: SpawnFailure::Confinement, message } = done.ran.outcome else {
            panic!("{done:?}")
        };
        assert!(message.contains("start the server as root, or take `user` out of the profile"), "{message}");
        assert_eq!(done.stdout, "");
    });
}
