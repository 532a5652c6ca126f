//! The way out by name, on the real kernel: a run in a network namespace of its own, the proxy in a second, and the world in a
//! third, joined by a real link. The world has a public address that leads nowhere else.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use provara_domain::NetworkUse;
use provara_runner::egress::{Allowed, Egress, EgressLimits, EgressPolicy, Lookup, Resolve, Target, receive_listener};

use crate::support::*;

networks!(
    curl_reaches_what_is_allowed_and_nothing_else,
    a_name_is_looked_up_once_a_connection_and_only_when_it_is_allowed,
    nothing_but_the_proxy_leads_out_of_a_run,
    a_request_is_passed_on_in_one_reading_or_not_at_all,
    a_tunnel_is_tls_for_its_name_or_it_is_closed,
    slow_and_oversized_heads_end_in_bounded_time,
    a_thousand_connections_of_one_run_wait_and_harm_nobody,
    idle_and_long_connections_end_and_half_closed_ones_go_on,
    the_end_of_a_run_ends_its_connections,
    no_listener_is_made_where_another_interface_is_up,
);

fn in_a_network<T: Future<Output = ()>>(me: &str, who: As, scenario: impl FnOnce() -> T) {
    match (is_again(), is_root(), who) {
        (true, ..) => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(scenario()),
        (false, false, As::Root) => eprintln!("skipped: only root can be root; the same scenario runs as this user"),
        (false, _, As::Root) => again(me, &["unshare", "--net"], who),
        (false, _, As::Ordinary) => again(me, &["unshare", "--user", "--map-root-user", "--net"], who),
    }
}

/// The world's address, as public as any. This process has the one before it.
pub(crate) const WORLD: &str = "11.0.0.2";
pub(crate) const OURS: &str = "11.0.0.1";

/// The world's address in a private range.
pub(crate) const INNER: &str = "10.77.0.2";

/// A network namespace with the world's servers.
pub(crate) struct World {
    listen: mpsc::Sender<(u16, mpsc::Sender<TcpListener>)>,
}

impl World {
    pub(crate) fn new() -> Self {
        let (listen, asked) = mpsc::channel::<(u16, mpsc::Sender<TcpListener>)>();
        let (made, ready) = mpsc::channel();
        let (linked, go) = mpsc::channel::<()>();
        // A socket stays where it was made, so one thread in the namespace is enough to make them all.
        thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            made.send(nix::unistd::gettid()).unwrap();
            go.recv().unwrap();
            ip(&format!("address add {WORLD}/24 dev theirs"));
            ip(&format!("address add {INNER}/24 dev theirs"));
            ip("link set theirs up");
            for (port, answer) in asked {
                answer.send(TcpListener::bind(("0.0.0.0", port)).unwrap()).unwrap();
            }
        });
        let thread = ready.recv().unwrap();
        ip(&format!("link add ours type veth peer name theirs netns {thread}"));
        ip(&format!("address add {OURS}/24 dev ours"));
        ip("address add 10.77.0.1/24 dev ours");
        ip("link set ours up");
        ip("link set lo up");
        linked.send(()).unwrap();
        Self { listen }
    }

    pub(crate) fn listen(&self, port: u16) -> TcpListener {
        let (answer, listener) = mpsc::channel();
        self.listen.send((port, answer)).unwrap();
        listener.recv().unwrap()
    }

    /// A server that answers each request with its own first line and Host, and keeps what it was sent to the byte.
    pub(crate) fn serve(&self, port: u16) -> Arc<Mutex<Vec<String>>> {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (listener, kept) = (self.listen(port), Arc::clone(&heard));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || answer(stream.unwrap(), &kept));
            }
        });
        heard
    }
}

/// Answers requests until the connection ends, as a server does that keeps connections.
fn answer(stream: TcpStream, heard: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut text = String::new();
        while reader.read_line(&mut text).is_ok_and(|read| read > 0) && !text.ends_with("\r\n\r\n") {}
        if text.is_empty() {
            return;
        }
        let length =
            text.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |it| it.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        text.push_str(&String::from_utf8(body).unwrap());
        let line = text.lines().next().unwrap().to_owned();
        heard.lock().unwrap().push(text);
        let redirect = if line.contains("/away") { "Location: http://evil.org/\r\n" } else { "" };
        let status = if redirect.is_empty() { "200 OK" } else { "302 Found" };
        let body = format!("{line}\n");
        let _ = write!(&stream, "HTTP/1.1 {status}\r\n{redirect}Content-Length: {}\r\n\r\n{body}", body.len());
    }
}

pub(crate) fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A name and what is answered for it, one after the other.
type Answers = (&'static str, VecDeque<Vec<IpAddr>>);

/// Answers for names by a list, in its order; the last answer stays. Keeps what it was asked.
#[derive(Clone, Default)]
struct Names {
    answers: Arc<Mutex<Vec<Answers>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Names {
    fn with(self, name: &'static str, answers: &[&[&str]]) -> Self {
        let answers = answers.iter().map(|answer| answer.iter().map(|it| it.parse().unwrap()).collect()).collect();
        self.answers.lock().unwrap().push((name, answers));
        self
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, target: &'a Target) -> Lookup<'a> {
        Box::pin(std::future::ready(self.answer(target)))
    }
}

impl Names {
    fn answer(&self, target: &Target) -> std::io::Result<Vec<SocketAddr>> {
        self.asked.lock().unwrap().push(target.to_string());
        let mut answers = self.answers.lock().unwrap();
        let known = answers.iter_mut().find(|(name, _)| *name == target.host.as_str());
        let Some((_, answers)) = known else { return Err(std::io::ErrorKind::NotFound.into()) };
        let answer = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
        // A port of the resolver's own choice is not listened to.
        Ok(answer.into_iter().map(|address| SocketAddr::new(address, 1)).collect())
    }
}

fn names() -> Names {
    Names::default().with("example.org", &[&[WORLD]]).with("evil.org", &[&[WORLD]])
}

fn policy(allowed: &[&str]) -> EgressPolicy {
    EgressPolicy {
        allowed: Allowed::parse(allowed.iter().copied()).unwrap(),
        internal: Allowed::default(),
        own: vec![],
        limits: EgressLimits {
            head: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            ..EgressLimits::default()
        },
    }
}

/// Starts `command` in a user and network namespace of its own, with its listener handed out to us.
fn start(command: &str) -> (std::process::Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let program = std::env::current_exe().unwrap().with_file_name("egress");
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(program)
        .args(["bash", "-c", command])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (child, ours)
}

/// Runs `command` to its end with the proxy behind it.
async fn run(command: &str, policy: EgressPolicy, names: &Names) -> (Output, NetworkUse) {
    let (child, control) = start(command);
    let listener = tokio::task::spawn_blocking(move || receive_listener(&control)).await.unwrap();
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => panic!("{error}: {:?}", child.wait_with_output()),
    };
    let egress = Egress::start(listener, policy, Box::new(names.clone())).unwrap();
    let done = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    (done, egress.stop().await)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sends bytes to the proxy from within a run, in the parts given, and prints all that comes back.
fn sending(parts: &[&str]) -> String {
    let sends: String = parts.iter().map(|part| format!("printf '{part}' >&3; ")).collect();
    format!("exec 3<>/dev/tcp/127.0.0.1/3128; {sends} timeout 20 cat <&3")
}

/// What the proxy answers to `request`, written with the escapes of `printf`.
async fn answered(request: &str, policy: EgressPolicy, names: &Names) -> (String, NetworkUse) {
    let (done, report) = run(&sending(&[request]), policy, names).await;
    assert!(done.stderr.is_empty(), "{done:?}");
    (text(&done.stdout), report)
}

fn refusals(report: &NetworkUse) -> Vec<(Option<&str>, &str)> {
    report.refusals.iter().map(|it| (it.destination.as_deref(), it.reason.as_str())).collect()
}

/// Whether a program is installed; where it is not, says that something is not shown.
pub(crate) fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing, and in CI nothing is skipped");
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

async fn curl_reaches_what_is_allowed_and_nothing_else() {
    if !installed("curl") {
        return;
    }
    let (world, names) = (World::new(), names());
    let (heard, other) = (world.serve(80), world.serve(8080));
    let curl = |words: &str| format!("curl -sS -w '%{{http_code}}\\n' {words}");
    let allowed = || policy(&["example.org:80", "*.example.net:80"]);
    let (done, report) = run(&curl("http://example.org/a?b -d body"), allowed(), &names).await;
    assert_eq!(text(&done.stdout), "POST /a?b HTTP/1.1\n200\n", "{done:?}");
    assert_eq!(heard.lock().unwrap().len(), 1);
    let sent = heard.lock().unwrap()[0].clone();
    assert!(sent.starts_with("POST /a?b HTTP/1.1\r\nHost: example.org\r\nContent-Length: 4\r\n"), "{sent}");
    assert!(sent.ends_with("Connection: close\r\n\r\nbody") && !sent.to_lowercase().contains("proxy"), "{sent}");
    let traffic = &report.destinations[0];
    assert_eq!((traffic.destination.as_deref(), traffic.connections), (Some("example.org:80"), 1));
    assert_eq!(traffic.sent, u64::try_from(sent.len()).unwrap());
    assert!(traffic.received > 20 && report.refused == 0, "{report:?}");
    // The answer leads elsewhere: it is the client that follows, and is refused there.
    let (done, report) = run(&curl("-L http://example.org/away"), allowed(), &names).await;
    let told = "provara: `evil.org:80`: this run may not speak to it\nallowed: example.org:80, *.example.net:80\n403\n";
    assert_eq!(text(&done.stdout), told, "{done:?}");
    assert_eq!(refusals(&report), [(Some("evil.org:80"), "this run may not speak to it")]);
    for (words, status) in [
        ("http://evil.org/", "403"),
        ("http://example.org:8080/", "403"),
        ("http://example.net/", "403"),
        ("http://example.org.evil.org/", "403"),
        ("http://11.0.0.2/", "400"),
        ("http://0x0b.2/", "400"),
        ("http://184549378/", "400"),
        ("'http://[::ffff:11.0.0.2]/'", "400"),
        ("-H 'Host: evil.org' http://example.org/", "400"),
        ("-H 'Transfer-Encoding: chunked' -d x http://example.org/", "411"),
        ("http://unknown.example.net/", "502"),
    ] {
        let (done, report) = run(&curl(words), allowed(), &names).await;
        assert!(text(&done.stdout).ends_with(&format!("\n{status}\n")), "{words}: {done:?}");
        assert_eq!((report.refused, report.destinations.len()), (1, 0), "{words}: {report:?}");
    }
    assert_eq!((heard.lock().unwrap().len(), other.lock().unwrap().len()), (2, 0));
}

async fn a_name_is_looked_up_once_a_connection_and_only_when_it_is_allowed() {
    let world = World::new();
    let heard = world.serve(80);
    let names = Names::default()
        .with("rebound.org", &[&[WORLD], &["127.0.0.1"]])
        .with("mixed.org", &[&[WORLD, "127.0.0.1"]])
        .with("cloud.org", &[&["169.254.169.254"]])
        .with("private.org", &[&["10.0.0.1"]])
        .with("ours.org", &[&[OURS]])
        .with("mapped.org", &[&["::ffff:11.0.0.2"]])
        .with("listed.org", &[&["12.0.0.1"]])
        .with("routed.org", &[&["13.0.0.1"]]);
    // What leads to this host without being an address of it.
    ip("route add local 13.0.0.0/8 dev lo");
    let here = TcpListener::bind("0.0.0.0:80").unwrap();
    let mut policy = policy(&[
        "rebound.org:80",
        "mixed.org:80",
        "cloud.org:80",
        "private.org:80",
        "ours.org:80",
        "mapped.org:80",
        "listed.org:80",
        "routed.org:80",
        "nowhere.org:80",
    ]);
    policy.own = vec!["12.0.0.1".parse().unwrap()];
    let get = |name: &str| format!("GET http://{name}/ HTTP/1.1\\r\\nHost: {name}\\r\\n\\r\\n");
    let (told, _) = answered(&get("rebound.org"), policy.clone(), &names).await;
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    assert_eq!(names.asked(), ["rebound.org:80"]);
    let forbidden = "it leads to an address that no run may speak to";
    let private = "it leads to a private address, and the operator has not called it internal";
    for (name, why) in [
        ("rebound.org", "it leads back to this host"),
        ("mixed.org", "it leads back to this host"),
        ("cloud.org", forbidden),
        ("private.org", private),
        ("ours.org", "it leads back to this host"),
        ("mapped.org", forbidden),
        ("listed.org", "it leads back to this host"),
        ("routed.org", "it leads back to this host"),
        ("nowhere.org", "its name does not lead to an address"),
    ] {
        let (told, report) = answered(&get(name), policy.clone(), &names).await;
        let status = if name == "nowhere.org" { "502 Bad Gateway" } else { "403 Forbidden" };
        assert!(told.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{name}: {told}");
        assert_eq!(refusals(&report), [(Some(&*format!("{name}:80")), why)], "{told}");
        assert_eq!(names.asked(), [format!("{name}:80")]);
    }
    // A name that is not allowed is not even asked about: a question carries bytes out too.
    let (told, _) = answered(&get("secret.evil.org"), policy, &names).await;
    assert!(told.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{told}");
    assert_eq!(names.asked(), [""; 0]);
    assert_eq!(heard.lock().unwrap().len(), 1);
    // One connection came back to us by a route, and not a byte through it.
    here.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    here.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
    assert_eq!((text(&bytes).as_str(), here.accept().is_err()), ("", true));
}

async fn nothing_but_the_proxy_leads_out_of_a_run() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

    let (world, names) = (World::new(), names());
    world.serve(80);
    let resolver = std::net::UdpSocket::bind((OURS, 53)).unwrap();
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let name = format!("provara-test-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    let program = format!(
        r#"
import socket, errno
def attempt(what, act):
    try: act(); print(what, "WORKED")
    except OSError as error: print(what, errno.errorcode.get(error.errno, type(error).__name__))
tcp = lambda to, family=socket.AF_INET: socket.socket(family).connect(to)
udp = lambda to, family=socket.AF_INET: socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", to)
attempt("world", lambda: tcp(("{WORLD}", 80)))
attempt("server", lambda: tcp(("{OURS}", 80)))
attempt("loopback", lambda: tcp(("127.0.0.1", {port})))
attempt("six", lambda: tcp(("2606:4700::1", 443), socket.AF_INET6))
attempt("udp", lambda: udp(("{WORLD}", 80)))
attempt("dns", lambda: udp(("{OURS}", 53)))
attempt("multicast", lambda: udp(("224.0.0.251", 5353)))
attempt("broadcast", lambda: udp(("255.255.255.255", 67)))
attempt("name", lambda: socket.getaddrinfo("example.org", 80))
attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\0{name}"))
"#
    );
    let (done, report) =
        run(&format!("/usr/bin/python3 - <<'END'\n{program}\nEND"), policy(&["example.org:80"]), &names).await;
    let expected = "world ENETUNREACH\nserver ENETUNREACH\nloopback ECONNREFUSED\nsix ENETUNREACH\nudp ENETUNREACH\n\
                    dns ENETUNREACH\nmulticast ENETUNREACH\nbroadcast ENETUNREACH\nname gaierror\nabstract ECONNREFUSED\n";
    // Not every resolver's failure has a number.
    let told = text(&done.stdout)
        .replace("name EAI_AGAIN", "name gaierror")
        .replace("broadcast EACCES", "broadcast ENETUNREACH");
    assert_eq!(told, expected, "{done:?}");
    assert_eq!((report.refused, names.asked().len()), (0, 0));
    resolver.set_nonblocking(true).unwrap();
    host.set_nonblocking(true).unwrap();
    assert!(resolver.recv(&mut [0; 1]).is_err() && host.accept().is_err());
    // From here all of it can be reached, so that it is the namespace that stops the run.
    for to in [(WORLD, 80), ("127.0.0.1", port)] {
        TcpStream::connect(to).unwrap();
    }
    UnixStream::connect_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
}

async fn a_request_is_passed_on_in_one_reading_or_not_at_all() {
    let (world, names) = (World::new(), names());
    let heard = world.serve(80);
    let allowed = || policy(&["example.org:80"]);
    for (request, status) in [
        ("GET http://example.org/ HTTP/1.1\\r\\nHost: example.org\\r\\nHost: evil.org\\r\\n\\r\\n", "400"),
        ("GET http://example.org/ HTTP/1.1\\r\\nHost: evil.org\\r\\n\\r\\n", "400"),
        (
            "POST http://example.org/ HTTP/1.1\\r\\nHost: example.org\\r\\nContent-Length: 4\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n",
            "400",
        ),
        ("GET http://example.org/ HTTP/1.1\\r\\nHost: example.org\\r\\nX: 1\\nHost: evil.org\\r\\n\\r\\n", "400"),
        ("GET http://example.org\\000.evil.org/ HTTP/1.1\\r\\nHost: example.org\\r\\n\\r\\n", "400"),
        ("GET /status HTTP/1.1\\r\\nHost: example.org\\r\\n\\r\\n", "400"),
        ("CONNECT example.org:80 HTTP/1.1\\r\\nHost: evil.org:80\\r\\n\\r\\n", "400"),
        ("CONNECT 11.0.0.2:80 HTTP/1.1\\r\\nHost: 11.0.0.2:80\\r\\n\\r\\n", "400"),
        ("CONNECT [::1]:80 HTTP/1.1\\r\\nHost: [::1]:80\\r\\n\\r\\n", "400"),
        ("CONNECT evil.org:80 HTTP/1.1\\r\\nHost: evil.org:80\\r\\n\\r\\n", "403"),
        ("\\026\\003\\001\\r\\n\\r\\n", "400"),
    ] {
        let (told, report) = answered(request, allowed(), &names).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {told}");
        assert!(told.ends_with("allowed: example.org:80\n"), "{told}");
        assert_eq!((report.refused, heard.lock().unwrap().len()), (1, 0), "{request}");
    }
    // A second request behind the first, and a longer body than was said: what follows goes nowhere.
    for (request, body) in [
        ("GET http://example.org/1 HTTP/1.1\\r\\nHost: example.org\\r\\n\\r\\n", ""),
        ("POST http://example.org/1 HTTP/1.1\\r\\nHost: example.org\\r\\nContent-Length: 2\\r\\n\\r\\nab", "ab"),
    ] {
        let second = "GET /2 HTTP/1.1\\r\\nHost: evil.org\\r\\n\\r\\n";
        for parts in [vec![format!("{request}{second}")], vec![request.to_owned(), second.to_owned()]] {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let mut limited = allowed();
            // The server here keeps its connections, whatever it is asked.
            limited.limits.idle = Duration::from_millis(300);
            let (done, _) = run(&sending(&parts), limited, &names).await;
            assert_eq!(text(&done.stdout).matches("HTTP/1.1 200").count(), 1, "{done:?}");
            let sent = std::mem::take(&mut *heard.lock().unwrap());
            assert_eq!(sent.len(), 1, "{sent:?}");
            assert!(sent[0].ends_with(&format!("Connection: close\r\n\r\n{body}")), "{sent:?}");
        }
    }
}

async fn a_tunnel_is_tls_for_its_name_or_it_is_closed() {
    let (world, names) = (World::new(), names());
    let plain = world.serve(443);
    let allowed = || policy(&["example.org:443", "example.org:8443"]);
    let connect = "CONNECT example.org:443 HTTP/1.1\\r\\nHost: example.org:443\\r\\n\\r\\n";
    let opened = "HTTP/1.1 200 Connection established\r\n\r\n";
    for (bytes, why) in [
        ("GET / HTTP/1.1\\r\\nHost: evil.org\\r\\n\\r\\n", "it is another protocol"),
        ("SSH-2.0-x\\r\\n", "it is another protocol"),
        ("\\026\\003\\001\\000\\001\\002", "it is another protocol"),
        ("\\026\\003\\001\\000\\000", "its first message is malformed"),
    ] {
        for parts in [vec![format!("{connect}{bytes}")], vec![connect.to_owned(), bytes.to_owned()]] {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let (done, report) = run(&sending(&parts), allowed(), &names).await;
            assert_eq!(text(&done.stdout), opened, "{bytes}: {done:?}");
            let why = format!("what came through the tunnel is not the start of TLS: {why}");
            assert_eq!(refusals(&report), [(Some("example.org:443"), &*why)]);
            assert_eq!((plain.lock().unwrap().len(), report.destinations.len()), (0, 0), "{bytes}");
        }
    }
    if !installed("curl") || !installed("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("cert.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=example.org", "-addext", "subjectAltName=DNS:example.org,DNS:evil.org", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    // A real server of TLS, which the world's own listener leads to.
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-accept", "127.0.0.1:4433", "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the server's start", || TcpStream::connect("127.0.0.1:4433").is_ok()).await;
    let listener = world.listen(8443);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (near, far) = (stream.unwrap(), TcpStream::connect("127.0.0.1:4433").unwrap());
            let (mut a, mut b) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (mut near, mut far) = (near, far);
            thread::spawn(move || {
                let _ = std::io::copy(&mut a, &mut b);
                let _ = b.shutdown(std::net::Shutdown::Write);
            });
            thread::spawn(move || {
                let _ = std::io::copy(&mut far, &mut near);
                let _ = near.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    let curl = |words: &str| {
        format!("curl -sS --cacert {} -o /dev/null -w '%{{http_code}}\\n' {words}", certificate.display())
    };
    let (done, report) = run(&curl("https://example.org:8443/"), allowed(), &names).await;
    assert_eq!(text(&done.stdout), "200\n", "{done:?}");
    assert_eq!((report.refused, report.destinations[0].connections), (0, 1), "{report:?}");
    assert!(report.destinations[0].sent > 200 && report.destinations[0].received > 500, "{report:?}");
    // The tunnel is for one name and TLS asks for another: fronting, as far as it shows.
    let fronted = curl("--connect-to evil.org:8443:example.org:8443 https://evil.org:8443/");
    let (done, report) = run(&fronted, allowed(), &names).await;
    assert_eq!((text(&done.stdout).as_str(), report.destinations.len()), ("000\n", 0), "{done:?}");
    assert!(text(&done.stderr).contains("unrecognized name"), "{done:?}");
    assert_eq!(refusals(&report), [(Some("example.org:8443"), "the tunnel's TLS asks for `evil.org`")]);
    // Without a name in it, since an address is none.
    let nameless = curl("-k --connect-to 11.0.0.2:8443:example.org:8443 https://11.0.0.2:8443/");
    let (done, report) = run(&nameless, allowed(), &names).await;
    let why = "what came through the tunnel is not the start of TLS: it names no host";
    assert_eq!(refusals(&report), [(Some("example.org:8443"), why)], "{done:?}");
    server.kill().unwrap();
    server.wait().unwrap();
}

async fn slow_and_oversized_heads_end_in_bounded_time() {
    let (world, names) = (World::new(), names());
    world.serve(443);
    let mut short = policy(&["example.org:443"]);
    short.limits.head = Duration::from_millis(300);
    let begun = Instant::now();
    // A head that is never whole although something always comes, and a tunnel whose first message is never whole.
    let slow = "exec 3<>/dev/tcp/127.0.0.1/3128; (while printf X >&3; do sleep 0.01; done) 2>/dev/null & \
        timeout 20 cat <&3; kill $!";
    let (done, report) = run(slow, short.clone(), &names).await;
    assert!(text(&done.stdout).starts_with("HTTP/1.1 408 Request Timeout"), "{done:?}");
    assert_eq!(refusals(&report), [(None, "the request's head did not come in time")]);
    let connect = "CONNECT example.org:443 HTTP/1.1\\r\\nHost: example.org:443\\r\\n\\r\\n";
    let (done, report) = run(&sending(&[connect, "\\026\\003\\001"]), short, &names).await;
    assert_eq!(text(&done.stdout), "HTTP/1.1 200 Connection established\r\n\r\n");
    assert_eq!(refusals(&report), [(Some("example.org:443"), "the tunnel's TLS did not begin in time")]);
    // An endless head is cut off at its bound, long before its time.
    let endless = "exec 3<>/dev/tcp/127.0.0.1/3128; head -c 20000 /dev/zero | tr '\\0' X >&3; timeout 20 cat <&3";
    let (done, report) = run(endless, policy(&["example.org:443"]), &names).await;
    assert!(text(&done.stdout).starts_with("HTTP/1.1 431 "), "{done:?}");
    assert_eq!(report.refused, 1);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

async fn a_thousand_connections_of_one_run_wait_and_harm_nobody() {
    let (world, names) = (World::new(), names());
    let heard = world.serve(80);
    let mut few = policy(&["example.org:80"]);
    few.limits.at_once = 8;
    few.limits.head = Duration::from_millis(50);
    few.limits.linger = Duration::from_millis(20);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    // Silent ones first, as many as the kernel lets wait; then an honest request, which has its turn when they gave up theirs.
    let program = "import socket, resource\n\
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000)) if resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 2000 else None\n\
        silent = []\n\
        for _ in range(1000):\n    \
            s = socket.socket(); s.setblocking(False); s.connect_ex((\"127.0.0.1\", 3128)); silent.append(s)\n\
        print(len(silent), flush=True)\n\
        def connect():\n    \
            # A kernel that drops what it has no room for is asked again, as by any client.\n    \
            for _ in range(300):\n        \
                try: return socket.create_connection((\"127.0.0.1\", 3128), timeout=0.2)\n        \
                except OSError: pass\n\
        input_ = connect(); input_.settimeout(60)\n\
        input_.sendall(b\"GET http://example.org/ HTTP/1.1\\r\\nHost: example.org\\r\\n\\r\\n\")\n\
        print(input_.makefile(\"rb\").read(12).decode())";
    let (child, control) = start(&format!("/usr/bin/python3 -c '{program}'"));
    let listener = receive_listener(&control).unwrap();
    let egress = Egress::start(listener, few, Box::new(names.clone())).unwrap();
    let mut child = child;
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "1000\n");
    // Eight clients, no more: each has one descriptor here until its destination is known.
    let most = descriptors();
    assert!(most <= before + 30, "{most} descriptors, {before} before");
    let (lines, line) = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        (lines, line)
    })
    .await
    .unwrap();
    assert_eq!(line, "HTTP/1.1 200\n");
    drop(lines);
    child.wait().unwrap();
    let report = egress.stop().await;
    assert_eq!(heard.lock().unwrap().len(), 1);
    assert!(report.refusals.len() <= 2 && report.refused > 100, "{report:?}");
}

async fn idle_and_long_connections_end_and_half_closed_ones_go_on() {
    let (world, names) = (World::new(), names());
    let listener = world.listen(80);
    // Answers only once its client has closed its side, which shows that half of a connection may close.
    let (ended, seen) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut bytes = Vec::new();
            let _ = (&mut &stream.unwrap()).read_to_end(&mut bytes);
            ended.send(bytes.len()).unwrap();
        }
    });
    let request = "GET http://example.org/ HTTP/1.1\\r\\nHost: example.org\\r\\n\\r\\n";
    let mut idle = policy(&["example.org:80"]);
    idle.limits.idle = Duration::from_millis(200);
    let (done, report) = run(&sending(&[request]), idle, &names).await;
    assert_eq!((text(&done.stdout).as_str(), report.refused), ("", 0), "{done:?}");
    assert!(seen.recv_timeout(Duration::from_secs(20)).unwrap() > 10);
    let mut long = policy(&["example.org:80"]);
    long.limits.total = Duration::from_millis(400);
    // Never idle: a body of which a byte comes every few milliseconds.
    let busy = "exec 3<>/dev/tcp/127.0.0.1/3128; \
        printf 'POST http://example.org/ HTTP/1.1\\r\\nHost: example.org\\r\\nContent-Length: 100000\\r\\n\\r\\n' >&3; \
        while printf X >&3; do read -t 0.01 -u 3 line; [ $? -eq 1 ] && break; done; echo ended";
    let (done, _) = run(busy, long, &names).await;
    assert_eq!(text(&done.stdout), "ended\n", "{done:?}");
    assert!(seen.recv_timeout(Duration::from_secs(20)).unwrap() > 100);
    half_closed(&world, &names).await;
}

/// A tunnel whose client has nothing more to say still hears the answer.
async fn half_closed(world: &World, names: &Names) {
    let listener = world.listen(443);
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        write!(stream, "heard {}", bytes.len()).unwrap();
    });
    // A whole ClientHello for the name, as short as can be.
    let program = r#"
import socket
name = b"example.org"
v = lambda width, content: len(content).to_bytes(width, "big") + content
sni = b"\0\0" + v(2, v(2, b"\0" + v(2, name)))
body = b"\3\3" + b"r" * 32 + v(1, b"") + v(2, b"\x13\1") + v(1, b"\0") + v(2, sni)
hello = b"\x16\3\1" + v(2, b"\1" + v(3, body))
s = socket.create_connection(("127.0.0.1", 3128), timeout=20)
s.sendall(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
head = b""
while not head.endswith(b"\r\n\r\n"): head += s.recv(1)
for byte in hello: s.sendall(bytes([byte]))
s.sendall(b"x" * 1000000)
s.shutdown(socket.SHUT_WR)
got = b""
while part := s.recv(100): got += part
print(got.decode(), len(hello) + 1000000)
"#;
    let (done, report) =
        run(&format!("/usr/bin/python3 - <<'END'\n{program}\nEND"), policy(&["example.org:443"]), names).await;
    let length = 1_000_000 + 90;
    let told = text(&done.stdout);
    let (heard, sent) = told.trim().strip_prefix("heard ").unwrap().split_once(' ').unwrap();
    assert_eq!(heard, sent, "{done:?}");
    let traffic = &report.destinations[0];
    assert!(traffic.sent.to_string() == sent && traffic.sent < length + 100 && traffic.received == 13, "{report:?}");
}

async fn the_end_of_a_run_ends_its_connections() {
    let (world, names) = (World::new(), names());
    let listener = world.listen(80);
    let (child, control) = start(&sending(&["GET http://example.org/ HTTP/1.1\\r\\nHost: example.org\\r\\n\\r\\n"]));
    let egress =
        Egress::start(receive_listener(&control).unwrap(), policy(&["example.org:80"]), Box::new(names.clone()))
            .unwrap();
    let (mut server, mut line) = tokio::task::spawn_blocking(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut first = vec![0; 16];
        stream.read_exact(&mut first).unwrap();
        (stream, first)
    })
    .await
    .unwrap();
    assert_eq!(text(&line), "GET / HTTP/1.1\r\n");
    let report = egress.stop().await;
    assert_eq!(report.destinations[0].connections, 1);
    // Both ends are closed, and nobody accepts on the listener any more.
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(server.read_to_end(&mut line).is_ok());
    let done = child.wait_with_output().unwrap();
    assert_eq!(text(&done.stdout), "", "{done:?}");
}

async fn no_listener_is_made_where_another_interface_is_up() {
    let _world = World::new();
    let refused = provara_runner::egress::listen_in_run().unwrap_err();
    assert_eq!(refused.to_string(), "this network namespace is not a run's own: `ours` is up");
    assert!(TcpStream::connect("127.0.0.1:3128").is_err());
    ip("link set ours down");
    let listener = TcpListener::from(provara_runner::egress::listen_in_run().unwrap());
    assert_eq!(listener.local_addr().unwrap().to_string(), "127.0.0.1:3128");
}
