use std::fs;
use std::os::unix::fs::symlink;

use std::path::PathBuf;

use super::*;

const OWN: &str = "/srv/provara/runtime";

fn secret(path: impl Into<PathBuf>) -> OwnFiles {
    OwnFiles { secret: vec![("the runtime folder", path.into())], public: Vec::new() }
}

fn load_in(text: &str, own: &OwnFiles, mounts: Mounts) -> Result<Profiles, String> {
    load_profiles(&ProfileFile { name: "p.toml", text }, own, mounts).map_err(|errors| errors.to_string())
}

fn load(text: &str) -> Result<Profiles, String> {
    load_in(text, &secret(OWN), Mounts::Available)
}

fn one(body: &str) -> Result<Profile, String> {
    let loaded = load(&format!("[[profile]]\nname = 'own'\n{body}"))?;
    Ok(loaded.get(&ProfileName::new(Name::parse("own").unwrap())).unwrap().clone())
}

fn refused(body: &str) -> String {
    one(body).unwrap_err()
}

#[test]
fn no_file_and_an_empty_one_give_the_built_in_profiles() {
    assert_eq!(load("").unwrap(), Profiles::builtin());
    assert_eq!(load("# nothing\n").unwrap(), Profiles::builtin());
}

#[test]
fn a_profile_that_says_nothing_is_as_tight_as_read_only_and_only_for_people() {
    let own = one("").unwrap();
    assert_eq!(own.grants(), Profile::read_only().grants());
    assert_eq!(own.asked_by(), AskedBy::PeopleOnly);
    assert_eq!(one("agents_may_ask = true").unwrap().asked_by(), AskedBy::Agents);
}

#[test]
fn everything_that_is_said_is_granted_and_told() {
    let own = one(r#"extends = "workspace"
        readable = ["/usr", "/lib64", "/srv/docs"]
        writable = ["workspace", "/srv/cache"]
        hidden = ["/srv/cache/secret", "~/.config/private", "~/.ssh"]
        network = ["Example.org:443", "db.example:5432"]
        environment = ["LANG", "http_proxy"]
        user = "build"
        [profile.limits]
        cpu_s = 60
        memory = "2 GiB"
        file_size = "64 MiB"
        output = 1000
        "#)
    .unwrap();
    assert_eq!(
        own.words(),
        "writes only below workspace/, `/srv/cache` and a private tmp; network to db.example:5432 and example.org:443 only; \
         reads only `/lib64`, `/srv/docs` and `/usr` beside that, never Provara's own files, credential folders and \
         `/srv/cache/secret`; inherits LANG and http_proxy; at most 60 s of processor time, 2 GiB of memory, 4096 processes, \
         4096 open files each, 64 MiB a file and 1000 bytes of output; runs as `build`"
    );
}

#[test]
fn what_a_profile_does_not_say_stays_as_what_it_extends() {
    let own = one("extends = 'network'\nlimits = { processes = 10 }").unwrap();
    assert!(own.is_within(&Profile::network()) && !Profile::network().is_within(&own));
    assert_eq!(one("extends = 'network'\nnetwork = 'none'").unwrap().grants(), Profile::workspace().grants());
    assert_eq!(one("extends = 'workspace'\nwritable = []").unwrap().grants(), Profile::read_only().grants());
    assert_eq!(one("readable = 'all'\nnetwork = []").unwrap().grants(), Profile::read_only().grants());
    let hidden = one("extends = 'workspace'\nhidden = ['/opt/x']").unwrap();
    assert_eq!(hidden.grants().files.homes().count(), provara_domain::CREDENTIALS.len(), "hiding more shows nothing");
}

#[test]
fn nothing_makes_provaras_own_files_reachable() {
    let mend = "no profile makes Provara's own files reachable; name folders beside them";
    for path in ["/srv", "/srv/provara", OWN, "/srv/provara/runtime/output/x"] {
        for list in ["readable", "writable"] {
            let told = refused(&format!("{list} = ['{path}']"));
            let expected =
                format!("p.toml:3: profile `own`: `{path}` holds or lies in the runtime folder (`{OWN}`); {mend}");
            assert_eq!(told, expected);
        }
        assert!(one(&format!("hidden = ['{path}']")).is_ok(), "hiding {path} harms nothing");
    }
    assert!(
        one("writable = ['/srv/provara/runtime2', '/srv/provaraa']").is_ok(),
        "a name that only begins so is another"
    );
    for list in ["readable", "writable", "hidden"] {
        assert!(refused(&format!("{list} = ['/']")).contains("it names `/`"), "{list}");
    }
    assert!(refused("writable = 'all'").contains("stands where a list has to"));
}

#[test]
fn what_is_public_may_be_read_and_not_written() {
    let program = ("Provara's program", PathBuf::from("/usr/local/bin/provara"));
    let own = OwnFiles { public: vec![program], ..secret(OWN) };
    let file = |list: &str| format!("[[profile]]\nname = 'own'\n{list} = ['/usr']\n");
    assert!(load_in(&file("readable"), &own, Mounts::Available).is_ok());
    let told = load_in(&file("writable"), &own, Mounts::Available).unwrap_err();
    assert!(told.contains("`/usr` holds or lies in Provara's program"), "{told}");
}

#[test]
fn a_link_into_the_runtime_folder_is_followed_and_one_to_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let runtime = root.join("runtime");
    fs::create_dir_all(runtime.join("output")).unwrap();
    fs::create_dir(root.join("other")).unwrap();
    symlink(&runtime, root.join("straight")).unwrap();
    symlink(root.join("straight/output"), root.join("twice")).unwrap();
    symlink(runtime.join("not-yet"), root.join("dangling")).unwrap();
    symlink(root.join("other"), root.join("harmless")).unwrap();
    symlink(&root, root.join("above")).unwrap();
    let own = secret(runtime);
    for bad in ["straight", "straight/new", "twice", "dangling", "dangling/x", "above", "above/runtime/x"] {
        let text = format!("[[profile]]\nname = 'own'\nwritable = ['{}']\n", root.join(bad).display());
        let told = load_in(&text, &own, Mounts::Available).unwrap_err();
        let expected =
            if bad.starts_with("dangling") { "leads nowhere" } else { "holds or lies in the runtime folder" };
        assert!(told.contains(expected), "{bad}: {told}");
    }
    for good in ["harmless", "other", "other/new", "not-there"] {
        let text = format!("[[profile]]\nname = 'own'\nwritable = ['{}']\n", root.join(good).display());
        load_in(&text, &own, Mounts::Available).unwrap();
    }
    // The own file may itself be named by a link.
    let by_link = secret(root.join("straight"));
    let text = format!("[[profile]]\nname = 'own'\nwritable = ['{}']\n", root.join("runtime").display());
    assert!(load_in(&text, &by_link, Mounts::Available).is_err());
}

#[test]
fn an_exception_below_a_writable_folder_needs_mounts() {
    let own = OwnFiles::default();
    for (body, path) in [
        ("writable = ['/srv/a']\nhidden = ['/srv/a/secret']", "/srv/a/secret"),
        ("writable = ['/srv/a']\nreadable = ['/srv/a/kept', '/usr']", "/srv/a/kept"),
        ("extends = 'workspace'\nhidden = ['/srv/work/secret']", "/srv/work/secret"),
    ] {
        let text = format!("[[profile]]\nname = 'own'\n{body}\n");
        assert!(load_in(&text, &own, Mounts::Available).is_ok(), "{body}");
        let told = load_in(&text, &own, Mounts::Missing).unwrap_err();
        assert_eq!(
            told,
            format!(
                "p.toml:2: profile `own`: `{path}` may be used less than the folder that holds it; only a host that allows \
                 mount namespaces can hold that; leave it out"
            )
        );
    }
    let plain = "[[profile]]\nname = 'own'\nreadable = ['/usr']\nwritable = ['/srv/a']\n";
    assert!(load_in(plain, &own, Mounts::Missing).is_ok());
}

#[test]
fn names_are_taken_whatever_their_case() {
    for (name, other) in [("build", "Build"), ("x", "x"), ("y", "WORKSPACE"), ("y", "host"), ("y", "Read-Only")] {
        let told = load(&format!("[[profile]]\nname = '{name}'\n[[profile]]\nname = '{other}'\n")).unwrap_err();
        assert!(
            told.starts_with(&format!("p.toml:4: profile `{other}`: ")) && told.contains("is named like"),
            "{told}"
        );
    }
}

#[test]
fn a_large_file_is_refused_before_it_is_read() {
    let text = "[[profile]]\nname = 'a'\n".repeat(1 << 19);
    assert!(text.len() > 10 << 20);
    let begun = std::time::Instant::now();
    let told = load(&text).unwrap_err();
    assert_eq!(told, format!("p.toml: it has {} bytes, and 262144 are read at most; write fewer profiles", text.len()));
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    let many = (0..65).map(|n| format!("[[profile]]\nname = 'p{n}'\n")).collect::<String>();
    assert!(load(&many).unwrap_err().contains("it has 65 profiles, and 64 are read at most"));
    let hosts: Vec<String> = (0..65).map(|n| format!("'h{n}.example.org:443'")).collect();
    assert!(refused(&format!("network = [{}]", hosts.join(","))).contains("one more than the 64 hosts of a run"));
    let long: Vec<String> = (0..200).map(|n| format!("'/srv/{n}'")).collect();
    assert!(refused(&format!("readable = [{}]", long.join(","))).contains("a list has at most 128 entries"));
}

#[test]
fn every_fault_is_told_with_its_line_and_how_to_mend_it() {
    let told = load(
        "[[profile]]\nname = 'a b'\n[[profile]]\nname = 'two'\nextends = 'host'\nwritable = ['srv', '/a/../b', '/x',\n '/x', \
         'workspace']\nhidden = ['~root/.ssh', '/x']\nnetwork = ['localhost:80', 'a:0', 'b.org:1', 'B.org:1', '10.0.0.7:80', 'db:5432']\nenvironment = \
         ['AGENT_HUB_TOKEN', 'A=B', 'C', 'C']\nuser = 'root'\nlimits = { memory = '1 GB', wall_s = 3, cpu_s = -1 }\n\
         [[profile]]\nname = 'three'\nnetwork = 'some'\n",
    )
    .unwrap_err();
    let faults: Vec<&str> = told.lines().map(|line| line.split("; ").next().unwrap()).collect();
    assert_eq!(
        faults,
        [
            "p.toml:2: profile `a b`: its name is not 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or \
             digit",
            "p.toml:5: profile `two`: it extends `host`",
            "p.toml:6: profile `two`: the path `srv` does not begin with `/`",
            "p.toml:6: profile `two`: the path `/a/../b` has `.`, `..` or an empty part",
            "p.toml:7: profile `two`: `/x` is named twice",
            "p.toml:8: profile `two`: the path `~root/.ssh` does not begin with `/`",
            "p.toml:8: profile `two`: `/x` is named twice",
            "p.toml:9: profile `two`: `localhost:80` is this machine or link-local, which no profile may call by name",
            "p.toml:9: profile `two`: `a:0` is not a name or address and a port, `example.org:443`",
            "p.toml:9: profile `two`: `b.org:1` is named twice",
            "p.toml:9: profile `two`: `10.0.0.7:80` is not the whole name of a host",
            "p.toml:9: profile `two`: `db:5432` is not the whole name of a host",
            "p.toml:10: profile `two`: `AGENT_HUB_TOKEN` is a setting of Provara's own, and may be a token",
            "p.toml:10: profile `two`: `A=B`: a variable's name is 1 to 128 letters, digits and underscores, the first no digit",
            "p.toml:10: profile `two`: `C` is named twice",
            "p.toml:12: profile `two`: the limit `cpu_s` is a whole number from 1 to 9007199254740991",
            "p.toml:12: profile `two`: the limit `memory` is a whole number from 16777216 to 9007199254740991",
            "p.toml:12: profile `two`: `wall_s` is no limit",
            "p.toml:11: profile `two`: a user is 1 to 32 of `a-z`, `0-9`, `_` and `-`, beginning with a letter or `_`, and \
             never `root`",
            "p.toml:15: profile `three`: `some` is no network",
        ],
        "{told}"
    );
    assert!(told.lines().all(|line| line.contains("; ")), "a fault without a cure: {told}");
}

#[test]
fn what_is_not_known_is_an_error_and_no_message_hides_anything() {
    for bad in ["bogus = 1", "readable = 3", "agents_may_ask = 'yes'", "name = 'twice'", "limits = 3", "network = [[]]"]
    {
        assert!(refused(bad).starts_with("p.toml:3: "), "{bad}: {}", refused(bad));
    }
    assert!(load("profile = 3").is_err() && load("[[Profile]]\nname = 'x'").is_err() && load("[[profile]]").is_err());
    let told = refused("readable = [\"/a\\u001b[2J\\nb\"]");
    assert!(!told.contains('\u{1b}') && told.lines().count() == 1, "{told:?}");
}

#[test]
fn bytes_have_one_spelling() {
    for (text, expected) in
        [("1 KiB", Some(1024)), ("3 GiB", Some(3 << 30)), ("2MiB", None), ("-1 KiB", None), ("+1 KiB", None)]
    {
        assert_eq!(bytes(text), expected, "{text}");
    }
    assert_eq!(bytes(&format!("{} GiB", u64::MAX)), None);
    assert_eq!(bytes("1 TiB"), None);
}
