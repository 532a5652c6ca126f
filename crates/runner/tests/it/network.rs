//! Runs that may call hosts by name, on the real kernel: the server in a network namespace of its own, and the world in another,
//! joined by a real link. Each act that must fail could be done from where the server is.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::{Arc, Mutex};

use provara_domain::{HostPort, Network, NetworkUse};

use crate::egress::{INNER, OURS, WORLD, World as Outside, installed};
use crate::support::*;

/// What one of the world's servers was sent.
type Heard = Arc<Mutex<Vec<String>>>;

networks!(
    a_network_run_calls_hosts_by_name_through_the_proxy_alone,
    a_run_with_named_hosts_calls_those_and_no_other,
    every_run_has_a_way_out_of_its_own_that_ends_with_it,
);

fn in_a_network<T: Future<Output = ()>>(me: &str, who: As, scenario: impl FnOnce([Heard; 2]) -> T) {
    if !is_again() {
        return match is_root() {
            true => again(me, &["unshare", "--net"], As::Root),
            false => eprintln!("skipped: only root can join two networks"),
        };
    }
    let outside = Outside::new();
    // Before the rights for it are given up.
    let heard = [80, 8080].map(|port| outside.serve(port));
    if who == As::Ordinary {
        let user = ordinary();
        nix::unistd::setgroups(&[]).unwrap();
        nix::unistd::setresgid(user.into(), user.into(), user.into()).unwrap();
        nix::unistd::setresuid(user.into(), user.into(), user.into()).unwrap();
        // As a process is that was started by this user.
        nix::sys::prctl::set_dumpable(true).unwrap();
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(scenario(heard));
}

fn used(done: &Done) -> NetworkUse {
    done.ran.usage.as_ref().unwrap().network.clone().unwrap()
}

fn hosts(named: &[&str]) -> Grants {
    let hosts: BTreeSet<HostPort> = named.iter().map(|host| HostPort::parse(host).unwrap()).collect();
    Grants { network: Network::Hosts(hosts), ..Profile::workspace().grants().clone() }
}

/// What `curl` says of a request: the answer's status, or that nothing was reached.
async fn status(world: &World, words: &str, grants: &Grants) -> (String, Done) {
    let command = format!("curl -sS -m 20 -o answer -w '%{{http_code}}' {words}; cat answer >&2; rm -f answer");
    let done = world.run_under(&command, grants.clone()).await;
    (done.stdout.clone(), done)
}

async fn a_network_run_calls_hosts_by_name_through_the_proxy_alone(heard: [Heard; 2]) {
    if !installed("curl") {
        return;
    }
    let ports = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind((OURS, 0)).unwrap()];
    let [loopback, server] = ports.each_ref().map(|it| it.local_addr().unwrap().port());
    let dns = [UdpSocket::bind((OURS, 0)).unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
    let name = format!("provara-test-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    let world = World::new().await;
    assert_eq!(world.runner.problem_with(&Profile::network()).await, None);
    let done =
        world.run_as("curl -sS http://example.org/a?b -d body; curl -sS http://other.org:8080/c", "network").await;
    assert_eq!(done.stdout, "POST /a?b HTTP/1.1\nGET /c HTTP/1.1\n", "{done:?}");
    let traffic: Vec<(Option<String>, u64)> =
        used(&done).destinations.into_iter().map(|it| (it.destination, it.connections)).collect();
    let expected = ["example.org:80", "other.org:8080"].map(|name| (Some(name.to_owned()), 1));
    assert_eq!(traffic, expected);
    for wall in ["network_namespace", "egress_proxy", "landlock", "seccomp", "mount_namespace"] {
        assert!(held(&done.ran, wall), "{wall}: {:?}", done.ran.enforced);
    }
    // By a name that leads where no run may go, and by addresses in every spelling.
    let grants = Profile::network().grants().clone();
    for (words, expected) in [
        ("http://ours.org/".to_owned(), "403"),
        (format!("http://ours.org:{server}/"), "403"),
        (format!("http://loopback.org:{loopback}/"), "403"),
        ("http://metadata.org/latest/meta-data/".to_owned(), "403"),
        ("http://private.org/".to_owned(), "403"),
        // What the operator calls internal is the name with its port, and no more.
        ("http://inner.org/".to_owned(), "200"),
        ("http://inner.org:8080/".to_owned(), "403"),
        ("http://other-inner.org/".to_owned(), "403"),
        (format!("http://{INNER}/"), "400"),
        ("http://unknown.org/".to_owned(), "502"),
        (format!("http://{WORLD}/"), "400"),
        ("http://169.254.169.254/".to_owned(), "400"),
        (format!("--noproxy '' http://127.0.0.1:{loopback}/"), "400"),
        (format!("--noproxy '' http://localhost:{loopback}/"), "400"),
        (format!("--noproxy '' http://[::1]:{loopback}/"), "400"),
        ("--noproxy '' -p http://example.org:80/".to_owned(), "000"),
        ("https://example.org:80/".to_owned(), "000"),
    ] {
        let (told, done) = status(&world, &words, &grants).await;
        assert_eq!(told, expected, "{words}: {done:?}");
    }
    // Without the proxy there is nothing.
    for words in [
        format!("http://{WORLD}/"),
        "http://example.org/".to_owned(),
        format!("http://{OURS}:{server}/"),
        format!("http://127.0.0.1:{loopback}/"),
        format!("http://localhost:{server}/"),
    ] {
        let (told, done) = status(&world, &format!("--noproxy '*' {words}"), &grants).await;
        assert_eq!(told, "000", "{words}: {done:?}");
        assert_eq!(used(&done), NetworkUse::default(), "{words}");
    }
    let [udp, udp_loopback] = dns.each_ref().map(|it| it.local_addr().unwrap().port());
    let inet = "socket.AF_INET, socket.SOCK_DGRAM";
    for act in [
        format!("socket.socket().connect(('{WORLD}', 80))"),
        format!("socket.socket().connect(('{OURS}', {server}))"),
        format!("socket.socket().connect(('127.0.0.1', {loopback}))"),
        format!("socket.socket().connect(('127.0.0.1', {server}))"),
        "socket.socket().connect(('169.254.169.254', 80))".to_owned(),
        "socket.socket(socket.AF_INET6).connect(('::1', 80))".to_owned(),
        "socket.socket(socket.AF_INET6).connect(('fe80::1%lo', 80))".to_owned(),
        "socket.socket(socket.AF_INET6).connect(('2606:4700::1', 443))".to_owned(),
        format!("socket.socket({inet}).sendto(b'x', ('{OURS}', {udp}))"),
        format!(
            "s = socket.socket({inet}); s.connect(('127.0.0.1', {udp_loopback})); s.send(b'x'); s.settimeout(2); s.recv(1)"
        ),
        format!("socket.socket({inet}).sendto(b'x', ('{WORLD}', 53))"),
        format!("socket.socket({inet}).sendto(b'x', ('224.0.0.251', 5353))"),
        format!(
            "s = socket.socket({inet}); s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); s.sendto(b'x', ('255.255.255.255', 67))"
        ),
        "socket.getaddrinfo('example.org', 80)".to_owned(),
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)".to_owned(),
        "socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)".to_owned(),
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)".to_owned(),
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)".to_owned(),
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)".to_owned(),
        "socket.socket(40, socket.SOCK_STREAM)".to_owned(),
        format!("socket.socket(socket.AF_UNIX).connect('\\0{name}')"),
        "socket.socket().bind(('127.0.0.1', 8000))".to_owned(),
        "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('127.0.0.1', 3128))"
            .to_owned(),
    ] {
        let mut plan = world.plan("/usr/bin/python3 -");
        plan.stdin = Some(format!("import socket\n{act}\nprint('worked')\n").into_bytes());
        plan.profile = Profile::network().name().clone();
        let done = world.run_plan(plan).await;
        let refused =
            ["PermissionError", "unreachable", "refused", "gaierror", "not known", "resolution", "Cannot assign"];
        let told = done.stderr.lines().last().unwrap_or_default();
        assert_eq!((done.code(), done.stdout.as_str()), (Some(1), ""), "`{act}`: {done:?}");
        assert!(refused.iter().any(|word| told.contains(word)), "`{act}` failed otherwise: {told}");
        assert_eq!(used(&done), NetworkUse::default(), "`{act}`");
    }
    assert_eq!(heard.map(|it| it.lock().unwrap().len()), [2, 1]);
    for listener in &ports {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "a run called the server's side");
    }
    for socket in &dns {
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 1]).is_err(), "a run's packet came out");
    }
    // From here all of it can be reached, so that it is the run's walls that stop it.
    std::net::TcpStream::connect((WORLD, 80)).unwrap();
    std::net::TcpStream::connect((OURS, server)).unwrap();
}

async fn a_run_with_named_hosts_calls_those_and_no_other(heard: [Heard; 2]) {
    if !installed("curl") {
        return;
    }
    let world = World::new().await;
    let grants = hosts(&["example.org:80", "unknown.org:80", "loopback.org:80"]);
    // That a name is internal permits nobody to call it.
    assert_eq!(status(&world, "http://inner.org/", &grants).await.0, "403");
    for (words, expected) in [
        ("http://example.org/", "200"),
        ("http://EXAMPLE.org:80/", "200"),
        ("http://example.org:8080/", "403"),
        ("http://other.org/", "403"),
        ("http://a.example.org/", "403"),
        ("http://example.org.other.org/", "403"),
        ("http://loopback.org/", "403"),
        ("http://unknown.org/", "502"),
        ("-H 'Host: other.org' http://example.org/", "400"),
        ("-x http://127.0.0.1:3128 http://127.0.0.1:3128/", "400"),
    ] {
        let (told, done) = status(&world, words, &grants).await;
        assert_eq!(told, expected, "{words}: {done:?}");
        let used = used(&done);
        assert_eq!((used.refused, used.destinations.len()), if expected == "200" { (0, 1) } else { (1, 0) }, "{words}");
    }
    let (_, done) = status(&world, "http://other.org/secret", &grants).await;
    let refusal = &used(&done).refusals[0];
    assert_eq!((refusal.destination.as_deref(), refusal.count), (Some("other.org:80"), 1));
    assert!(done.stderr.contains("allowed: example.org:80, loopback.org:80, unknown.org:80"), "{done:?}");
    assert!(!format!("{:?}", done.ran.enforced).contains("example.org"), "the record of the log names hosts");
    assert_eq!(heard.map(|it| it.lock().unwrap().len()), [2, 0]);
    // What a proxy cannot tell by name is no network at all.
    let done = world.run_under("echo ran", hosts(&["192.0.2.1:80"])).await;
    let Outcome::SpawnFailed { failure: SpawnFailure::Confinement, message } = done.ran.outcome else {
        panic!("{done:?}")
    };
    assert_eq!(
        message,
        "the proxy cannot hold the profile `own`: `192.0.2.1:80` is no destination: it is an address; hosts are named here by \
         their names"
    );
    assert_eq!(done.stdout, "");
}

async fn every_run_has_a_way_out_of_its_own_that_ends_with_it(heard: [Heard; 2]) {
    let world = World::new().await;
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let grants = hosts(&["example.org:80"]);
    let get = "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'GET http://example.org/ HTTP/1.1\\r\\nHost: example.org\\r\\n\\r\\n' >&3; head -c 12 <&3";
    assert_eq!(world.run_under(get, grants.clone()).await.stdout, "HTTP/1.1 200");
    world.runner.make_ready();
    let before = descriptors();
    // Two at once share nothing; one that is cancelled, one that is killed and one that leaves a connection open end theirs.
    let (one, two) = tokio::join!(world.run_under(get, grants.clone()), world.run_under(get, hosts(&["other.org:80"])));
    assert_eq!((one.stdout.as_str(), two.stdout.as_str()), ("HTTP/1.1 200", "HTTP/1.1 403"));
    assert_eq!((used(&one).refused, used(&two).refused), (0, 1));
    let open = "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'GET http://exam' >&3; touch up; sleep 300";
    let (handle, control) = control();
    let claim = world.claim(open, "own", &world.path("workspace"), 60);
    let profile = own(grants.clone());
    let up = world.path("workspace/up");
    let cancel = async {
        wait_until("the command's start", || Path::new(&up).exists()).await;
        handle.cancel();
    };
    let (done, ()) = tokio::join!(world.run_with(claim, &profile, control), cancel);
    assert_eq!(done.ran.outcome, Outcome::Cancelled);
    assert!(world.run_under("kill -9 $$", grants.clone()).await.code().is_none());
    wait_until("the end of every way out", || descriptors() <= before).await;
    // A plan's own variables win: what an agent sets there it sets for itself, and gets no further.
    let mut plan = world.plan("echo $http_proxy-$HTTPS_PROXY; exec 3<>/dev/tcp/11.0.0.2/80");
    plan.env.insert(provara_domain::EnvName::parse("http_proxy".into()).unwrap(), "http://11.0.0.2:80".into());
    plan.profile = own(grants.clone()).name().clone();
    let done = world.run_with(claim_of(plan), &own(grants), crate::support::control().1).await;
    assert_eq!(
        (done.code(), done.stdout.as_str()),
        (Some(1), "http://11.0.0.2:80-http://127.0.0.1:3128\n"),
        "{done:?}"
    );
    assert_eq!(heard.map(|it| it.lock().unwrap().len()), [2, 0]);
}

/// What a container or a unit may leave out: profiles with a network say so, and the others run.
#[test]
fn a_root_server_that_may_not_bring_up_loopback_says_what_it_lacks() {
    const ME: &str = "it::network::a_root_server_that_may_not_bring_up_loopback_says_what_it_lacks";
    if !is_root() {
        return eprintln!("skipped: only a root server can lack a capability");
    }
    if !is_again() {
        return again(ME, &["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"], As::Root);
    }
    play(async {
        let world = World::new().await;
        let loopback = Grants { network: Network::Loopback, ..Profile::workspace().grants().clone() };
        for grants in [Profile::network().grants().clone(), loopback] {
            let done = world.run_under("echo ran", grants.clone()).await;
            let Outcome::SpawnFailed { failure: SpawnFailure::Confinement, message } = done.ran.outcome else {
                panic!("{done:?}")
            };
            assert!(message.contains("CAP_NET_ADMIN") && message.contains("Operation not permitted"), "{message}");
            assert_eq!(done.stdout, "");
            assert_eq!(world.runner.problem_with(&own(grants)).await, Some(message));
        }
        assert_eq!(world.run("echo ran").await.stdout, "ran\n");
        assert_eq!(world.runner.problem_with(&Profile::read_only()).await, None);
    });
}
