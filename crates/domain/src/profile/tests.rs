use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::plan::ProfileName;
use crate::principal::Name;
use crate::text::EnvName;

fn path(raw: &str) -> ProfilePath {
    ProfilePath::parse(raw).unwrap()
}

fn files(everywhere: Access, workspace: Access, paths: &[(&str, Access)]) -> Files {
    let paths: Vec<_> = paths.iter().map(|(raw, access)| (path(raw), *access)).collect();
    Files::new(everywhere, workspace, Tmp::Private, paths, [])
}

#[test]
fn the_built_in_profiles_say_what_they_do() {
    let words: Vec<(String, String)> =
        Profiles::builtin().iter().map(|profile| (profile.name().to_string(), profile.words())).collect();
    let limits = "inherits LANG, LC_ALL and TZ; at most 4096 processes and 4096 open files each";
    let secret = "reads everything but Provara's own files and credential folders";
    let expected = [
        (
            "host",
            format!(
                "writes whatever its user may; the host's own network, this machine's services included; reads everything \
                 but Provara's own files; {limits}"
            ),
        ),
        (
            "network",
            format!(
                "writes only below workspace/ and a private tmp; network to any host but this one, through Provara's \
                 proxy; {secret}; {limits}"
            ),
        ),
        ("read-only", format!("writes only below a private tmp; no network; {secret}; {limits}")),
        ("workspace", format!("writes only below workspace/ and a private tmp; no network; {secret}; {limits}")),
    ];
    assert_eq!(words, expected.map(|(name, words)| (name.to_owned(), words)));
}

#[test]
fn the_built_in_profiles_are_a_chain_from_tight_to_loose() {
    let all = Profile::builtin();
    for (n, tighter) in all.iter().enumerate() {
        for (m, looser) in all.iter().enumerate() {
            assert_eq!(tighter.is_within(looser), n <= m, "{} within {}", tighter.name(), looser.name());
        }
    }
    for profile in &all {
        let grants = profile.grants();
        assert_eq!(grants.environment.len(), 3);
        let hidden = if profile.name().as_str() == ProfileName::HOST { 0 } else { CREDENTIALS.len() };
        assert_eq!(grants.files.homes().count(), hidden, "a credential folder is no path");
        assert_eq!(
            (grants.limits.get(Resource::Processes), grants.limits.get(Resource::OpenFiles)),
            (Some(4096), Some(4096))
        );
    }
}

#[test]
fn the_most_specific_path_decides() {
    let it = files(
        Access::Hidden,
        Access::Write,
        &[
            ("/srv", Access::Write),
            ("/srv/kept", Access::Read),
            ("/srv/secret", Access::Hidden),
            ("/srv/secret/door", Access::Read),
        ],
    );
    for (place, access) in [
        ("/", Access::Hidden),
        ("/srv2", Access::Hidden),
        ("/srv/a", Access::Write),
        ("/srv/kept/a", Access::Read),
        ("/srv/keptnot", Access::Write),
        ("/srv/secret/a", Access::Hidden),
        ("/srv/secret/door", Access::Read),
    ] {
        assert_eq!(it.access(&path(place)), access, "{place}");
    }
    assert_eq!(it.exception(), Some(&path("/srv/kept")));
    assert_eq!(files(Access::Hidden, Access::Read, &[("/srv", Access::Read)]).exception(), None);
    // Said only for a workspace that may hold it.
    let kept = files(Access::Read, Access::Write, &[("/srv/work/kept", Access::Read)]);
    assert_eq!(kept.exception(), Some(&path("/srv/work/kept")));
}

#[test]
fn a_path_that_a_workspace_may_hold_counts_in_the_order() {
    let plain = files(Access::Read, Access::Write, &[]);
    let kept = files(Access::Read, Access::Write, &[("/srv/work/kept", Access::Read)]);
    assert!(kept.is_within(&plain), "what stays read-only in a workspace is tighter");
    assert!(!plain.is_within(&kept), "giving up that it stays read-only is loosening");
    let same = files(Access::Read, Access::Read, &[("/srv/work/kept", Access::Read)]);
    assert_eq!(same, files(Access::Read, Access::Read, &[]), "an entry that says nothing is none");
    let hidden = files(Access::Read, Access::Write, &[("/srv/work/kept", Access::Hidden)]);
    assert!(hidden.is_within(&kept) && !kept.is_within(&hidden));
}

/// As much as a file may hold, nested as deep as a path may be.
#[test]
fn the_largest_profiles_are_compared_in_no_time() {
    let nested = |n: usize| (path(&"/a".repeat(n + 1)), if n.is_multiple_of(2) { Access::Read } else { Access::Write });
    let all: Vec<_> = (0..249).map(nested).chain((0..135).map(|n| (path(&format!("/b/{n}")), Access::Read))).collect();
    let big = |tmp| Files::new(Access::Hidden, Access::Write, tmp, all.clone(), []);
    let begun = std::time::Instant::now();
    assert!(big(Tmp::Private).is_within(&big(Tmp::Shared)) && !big(Tmp::Shared).is_within(&big(Tmp::Private)));
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "took {:?}", begun.elapsed());
}

#[test]
fn paths_that_could_mean_or_look_like_another_are_none() {
    for bad in [
        "",
        "srv",
        "/srv/",
        "//",
        "/a/../b",
        "/.",
        "/a\0b",
        "/a\nb",
        "/a`b",
        "/a\u{202e}b",
        "/a\u{200b}",
        "~/.ssh",
        "/\u{e0041}",
    ] {
        assert!(ProfilePath::parse(bad).is_err(), "{bad:?}");
    }
    for bad in ["~", "~/", "~root/x", "/root", "~/../x", "~/a//b", "~/\u{7f}"] {
        assert!(HomePath::parse(bad).is_err(), "{bad:?}");
    }
    assert!(ProfilePath::parse(&format!("/{}", "a".repeat(499))).is_ok());
    assert_eq!(ProfilePath::parse(&format!("/{}", "a".repeat(500))), Err(ProfilePathError::TooLong));
}

#[test]
fn hosts_are_plain_and_never_this_machine() {
    for (raw, expected) in [
        ("Example.ORG:443", "example.org:443"),
        ("10.1.2.3:80", "10.1.2.3:80"),
        ("[2001:DB8::1]:65535", "[2001:db8::1]:65535"),
    ] {
        assert_eq!(HostPort::parse(raw).unwrap().as_str(), expected);
    }
    for form in [
        "",
        ":1",
        "a",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "a:01",
        "*.example.org:443",
        "example.org.:443",
        "-a:1",
        "a b:1",
        "::1:80",
        "127.1:80",
        "2130706433:80",
        "0x7f000001:80",
        "1.2.3:80",
        "a..b:1",
        "ä.org:1",
        "[::1:80",
        "http://a:1",
        "a/b:1",
    ] {
        assert_eq!(HostPort::parse(form), Err(HostPortError::Form), "{form}");
    }
    for own in [
        "localhost:80",
        "a.localhost:80",
        "127.0.0.1:80",
        "127.9.9.9:1",
        "0.0.0.0:1",
        "[::]:1",
        "[::1]:1",
        "169.254.169.254:80",
        "[fe80::1]:1",
        "[::ffff:127.0.0.1]:1",
        "[::ffff:169.254.169.254]:80",
        "255.255.255.255:1",
        "224.0.0.1:1",
    ] {
        assert_eq!(HostPort::parse(own), Err(HostPortError::ThisMachine), "{own}");
    }
}

#[test]
fn a_name_that_differs_in_case_alone_is_taken() {
    let mut known = Profiles::builtin();
    let named = |name: &str| {
        let (grants, asked_by) = (Profile::workspace().grants().clone(), AskedBy::PeopleOnly);
        Profile::new(ProfileName::new(Name::parse(name).unwrap()), grants, asked_by)
    };
    assert!(known.add(named("HOST")).is_err() && known.add(named("workspace")).is_err());
    known.add(named("build")).unwrap();
    assert_eq!(known.add(named("Build")).unwrap_err().to_string(), "the profile `Build` is named like `build`");
    assert!(known.get(&ProfileName::new(Name::parse("BUILD").unwrap())).is_none(), "a name is exact");
}

#[test]
fn no_user_is_root_and_no_limit_lets_nothing_start() {
    for bad in ["", "root", "0", "Root", "a b", "-a", "a\0", &"a".repeat(33)] {
        assert!(UserName::parse(bad).is_err(), "{bad:?}");
    }
    let none = ResourceLimits::default();
    for resource in Resource::ALL {
        assert!(none.with(resource, resource.least() - 1).is_err() && none.with(resource, u64::MAX).is_err());
        assert_eq!(none.with(resource, 1 << 30).unwrap().get(resource), Some(1 << 30));
        assert_eq!(Resource::parse(resource.as_str()), Some(resource));
    }
    let lower = none.with(Resource::Memory, 1 << 25).unwrap();
    let higher = none.with(Resource::Memory, 1 << 26).unwrap().with(Resource::Cpu, 5).unwrap();
    assert_eq!(lower.and(higher).words(), ["5 s of processor time", "32 MiB of memory"]);
    assert_eq!((lower.beyond(&higher), higher.beyond(&lower)), (Some(Resource::Cpu), Some(Resource::Memory)));
}

fn access() -> impl Strategy<Value = Access> {
    prop::sample::select(vec![Access::Hidden, Access::Read, Access::Write])
}

/// Few names, so that paths often lie in each other.
fn some_files() -> impl Strategy<Value = Files> {
    let places = vec!["/", "/a", "/a/b", "/a/b/c", "/a/d", "/ab", "/e"];
    let paths = prop::collection::vec((prop::sample::select(places), access()), 0..5);
    let homes = prop::collection::vec(prop::sample::select(vec!["~/.ssh", "~/.config", "~/.config/x", "~/y"]), 0..3);
    let tmp = prop::sample::select(vec![Tmp::Private, Tmp::Shared]);
    (access(), access(), tmp, paths, homes).prop_map(|(everywhere, workspace, tmp, paths, homes)| {
        let paths = paths.into_iter().map(|(raw, access)| (path(raw), access));
        Files::new(everywhere, workspace, tmp, paths, homes.into_iter().map(|raw| HomePath::parse(raw).unwrap()))
    })
}

fn some_network() -> impl Strategy<Value = Network> {
    let hosts = prop::collection::btree_set(prop::sample::select(vec!["a.org:1", "b.org:2", "10.0.0.1:3"]), 1..3);
    prop_oneof![
        Just(Network::None),
        Just(Network::Loopback),
        Just(Network::All),
        Just(Network::Host),
        hosts.prop_map(|hosts| Network::Hosts(hosts.into_iter().map(|raw| HostPort::parse(raw).unwrap()).collect())),
    ]
}

fn some_grants() -> impl Strategy<Value = Grants> {
    let names = prop::collection::btree_set(prop::sample::select(vec!["LANG", "A_1", "B"]), 0..3);
    let limits = prop::collection::vec((prop::sample::select(Resource::ALL.to_vec()), 0..2_u64), 0..3);
    let user = prop::option::of(prop::sample::select(vec!["build", "web"]));
    (some_files(), some_network(), names, limits, user).prop_map(|(files, network, names, limits, user)| Grants {
        files,
        network,
        environment: names.into_iter().map(|name| EnvName::parse(name.to_owned()).unwrap()).collect::<BTreeSet<_>>(),
        limits: limits
            .into_iter()
            .fold(ResourceLimits::default(), |all, (what, more)| all.with(what, (1 << 30) + more * 1024).unwrap()),
        user: user.map(|name| UserName::parse(name).unwrap()),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn the_order_is_one(a in some_grants(), b in some_grants(), c in some_grants()) {
        prop_assert!(a.is_within(&a));
        prop_assert!(!(a.is_within(&b) && b.is_within(&a)) || a == b, "two different grants are within each other");
        prop_assert!(!(a.is_within(&b) && b.is_within(&c)) || a.is_within(&c));
    }

    /// Alone, since of whole grants few can be compared.
    #[test]
    fn the_order_of_files_is_one_and_means_what_may_be_done(a in some_files(), b in some_files(), c in some_files()) {
        prop_assert!(a.is_within(&a));
        prop_assert!(!(a.is_within(&b) && b.is_within(&a)) || a == b);
        prop_assert!(!(a.is_within(&b) && b.is_within(&c)) || a.is_within(&c));
        if a.is_within(&b) {
            for place in ["/", "/a", "/a/b", "/a/b/c", "/a/b/c/x", "/a/d", "/ab/x", "/e", "/other"] {
                prop_assert!(a.access(&path(place)) <= b.access(&path(place)), "{place}");
            }
        }
    }

    #[test]
    fn words_tell_every_grant(grants in some_grants()) {
        let name = ProfileName::workspace();
        let words = Profile::new(name.clone(), grants.clone(), AskedBy::Agents).words();
        for (path, _) in grants.files.paths() {
            prop_assert!(words.contains(&format!("`{}`", path.as_str())), "{words}");
        }
        for home in grants.files.homes() {
            prop_assert!(words.contains(home.as_str()), "{words}");
        }
        if let Network::Hosts(hosts) = &grants.network {
            for host in hosts {
                prop_assert!(words.contains(host.as_str()), "{words}");
            }
        }
        for name in &grants.environment {
            prop_assert!(words.contains(name.as_str()), "{words}");
        }
        for limit in grants.limits.words() {
            prop_assert!(words.contains(&limit), "{words}");
        }
        prop_assert_eq!(grants.limits.words().len(), grants.limits.limited().count());
        if let Some(user) = &grants.user {
            prop_assert!(words.ends_with(&format!("runs as `{}`", user.as_str())), "{words}");
        }
        prop_assert_eq!(words.contains("no network"), grants.network == Network::None);
        prop_assert!(!words.contains('\n') && words.contains("Provara's own files"));
    }

    /// Whoever reads the same words decides on the same grants.
    #[test]
    fn different_grants_have_different_words(a in some_grants(), b in some_grants()) {
        let words = |grants: &Grants| Profile::new(ProfileName::workspace(), grants.clone(), AskedBy::Agents).words();
        prop_assert!(a == b || words(&a) != words(&b), "{}", words(&a));
    }
}
