//! The proxy of one run: accept, read what is asked, decide by name, connect to what the name leads to, copy.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use provara_domain::NetworkUse;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::address::{Where, check, of_this_host};
use super::allowed::{Allowed, HostName, Target};
use super::head::{Asked, Head, HeadError};
use super::hello::{Hello, HelloError, read_hello};
use super::ledger::{Ledger, Meter, Refusal};
use super::resolve::Resolve;

/// How much is read at once, in each direction of a connection.
const BUFFER: usize = 16 * 1024;
/// How much of what a refused client still sends is thrown away while it takes its answer.
const LINGER_BYTES: u64 = 64 * 1024;
/// How many addresses of a name are tried.
const ADDRESSES: usize = 8;
/// How long we wait when this process is out of descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// What one run may do with the network.
#[derive(Debug, Clone)]
pub struct EgressPolicy {
    /// Whom it may speak to.
    pub allowed: Allowed,
    /// Those of them that the operator calls internal: their addresses may be private.
    pub internal: Allowed,
    /// Addresses by which this server is reached, beside those of this host's interfaces.
    pub own: Vec<IpAddr>,
    /// Its limits.
    pub limits: EgressLimits,
}

/// Limits of one run's connections.
#[derive(Debug, Clone, Copy)]
pub struct EgressLimits {
    /// How many there are at once; more wait.
    pub at_once: usize,
    /// How long a request's head, or the first message in a tunnel, may take to come.
    pub head: Duration,
    /// How long looking up a name and connecting may take, each.
    pub connect: Duration,
    /// After how long without a byte a connection is closed, at the latest after twice that.
    pub idle: Duration,
    /// How long a connection may last.
    pub total: Duration,
    /// How long a client has to take the end of what it is answered.
    pub linger: Duration,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            at_once: 64,
            head: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            total: Duration::from_secs(3600),
            linger: Duration::from_secs(1),
        }
    }
}

/// A run's way out, open until it is stopped or dropped.
#[derive(Debug)]
pub struct Egress {
    ledger: Arc<Ledger>,
    task: JoinSet<()>,
    open: oneshot::Sender<()>,
}

impl Egress {
    /// Begins to accept on a run's listener.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn start(listener: StdTcpListener, policy: EgressPolicy, resolver: Box<dyn Resolve>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let ledger = Arc::new(Ledger::default());
        let (open, stopped) = oneshot::channel();
        let proxy = Arc::new(Proxy { policy, resolver, ledger: Arc::clone(&ledger) });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, proxy, stopped));
        Ok(Self { ledger, task, open })
    }

    /// Closes every connection and says what the network was used for.
    pub async fn stop(mut self) -> NetworkUse {
        drop(self.open);
        while self.task.join_next().await.is_some() {}
        self.ledger.report()
    }
}

async fn accept(listener: TcpListener, proxy: Arc<Proxy>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            // Those beyond wait in the kernel's queue, which is short.
            accepted = listener.accept(), if connections.len() < proxy.policy.limits.at_once => match accepted {
                Ok((client, _)) => {
                    let proxy = Arc::clone(&proxy);
                    connections.spawn(async move { proxy.serve(client).await });
                }
                // A client that went away is its own matter; without descriptors, the next try would fail as fast.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "could not accept a run's connection");
                    tokio::time::sleep(BREATH).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    connections.shutdown().await;
}

struct Proxy {
    policy: EgressPolicy,
    resolver: Box<dyn Resolve>,
    ledger: Arc<Ledger>,
}

/// A connection that may go on.
struct Passed {
    upstream: TcpStream,
    target: Target,
    /// What the destination gets first.
    first: Vec<u8>,
    /// How much of what the client sends after that goes on.
    rest: Rest,
    /// Whether the client has sent more than one plain request already.
    more: bool,
}

enum Rest {
    /// All, until either end closes; then the other direction goes on.
    All,
    /// So many bytes; the answer's end is the connection's.
    Bytes(u64),
}

/// A connection that goes no further.
struct Stopped {
    target: Option<Target>,
    refusal: Refusal,
    /// Whether it is a tunnel that was opened already.
    within: Within,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Http,
    Tunnel,
}

impl Proxy {
    async fn serve(&self, mut client: TcpStream) {
        let _ = client.set_nodelay(true);
        match self.admit(&mut client).await {
            Ok(passed) => self.carry(client, passed).await,
            Err(Stopped { refusal: Refusal::NothingAsked, .. }) => {}
            Err(stopped) => {
                self.ledger.refuse(stopped.target.as_ref(), &stopped.refusal);
                let _ = timeout(self.policy.limits.linger, tell(client, self.answer(&stopped))).await;
            }
        }
    }

    /// Reads what is asked, and connects where that is allowed.
    async fn admit(&self, client: &mut TcpStream) -> Result<Passed, Stopped> {
        let limits = self.policy.limits;
        let unnamed = |refusal| Stopped { target: None, refusal, within: Within::Http };
        let read = timeout(limits.head, read_head(client)).await;
        let (head, more) = read.unwrap_or(Err(Refusal::SlowHead)).map_err(unnamed)?;
        let target = head.target;
        let stopped = |within| {
            let target = Some(target.clone());
            move |refusal| Stopped { target, refusal, within }
        };
        let upstream = self.connect(&target).await.map_err(stopped(Within::Http))?;
        let (first, rest, more) = match head.asked {
            Asked::Tunnel => {
                let opened = timeout(limits.head, open_tunnel(client, more, &target.host)).await;
                let hello = opened.unwrap_or(Err(Refusal::SlowHello)).map_err(stopped(Within::Tunnel))?;
                (hello, Rest::All, false)
            }
            Asked::Plain { mut head, body } => {
                // What came behind the body would be another request, for whomever it names. It goes nowhere.
                let length = usize::try_from(body).unwrap_or(usize::MAX).min(more.len());
                head.extend_from_slice(more.get(..length).unwrap_or_default());
                let left = body.saturating_sub(u64::try_from(length).unwrap_or(0));
                (head, Rest::Bytes(left), length < more.len())
            }
        };
        Ok(Passed { upstream, target, first, rest, more })
    }

    /// Connects to an address that the name leads to now and that was checked: it is looked up once, and that is used.
    async fn connect(&self, target: &Target) -> Result<TcpStream, Refusal> {
        if !self.policy.allowed.allows(target) {
            // Before the lookup: a question to a name server carries bytes out too.
            return Err(Refusal::NotAllowed);
        }
        let wait = self.policy.limits.connect;
        let found = timeout(wait, self.resolver.resolve(target)).await;
        let addresses = found.map_err(|_| Refusal::Unresolved)?.map_err(|_| Refusal::Unresolved)?;
        let mut own = of_this_host().map_err(|_| Refusal::OwnAddress)?;
        own.extend(&self.policy.own);
        let expected = if self.policy.internal.allows(target) { Where::Internal } else { Where::Public };
        check(&addresses, &own, expected)?;
        timeout(wait, connect_to_one(&addresses, target.port)).await.unwrap_or(Err(Refusal::Unreachable))
    }

    async fn carry(&self, client: TcpStream, passed: Passed) {
        let meter = self.ledger.connected(&passed.target);
        let progress = AtomicU64::new(0);
        let sent = Counts { meter: &meter, of: |meter| &meter.sent, progress: &progress };
        let received = Counts { meter: &meter, of: |meter| &meter.received, progress: &progress };
        let (mut from_client, to_client) = client.into_split();
        let (from_upstream, mut to_upstream) = passed.upstream.into_split();
        let up = async {
            to_upstream.write_all(&passed.first).await?;
            sent.add(passed.first.len());
            match passed.rest {
                Rest::All => {
                    copy(&mut from_client, &mut to_upstream, &sent).await?;
                    let _ = to_upstream.shutdown().await;
                    io::Result::Ok(())
                }
                Rest::Bytes(count) => {
                    copy((&mut from_client).take(count), &mut to_upstream, &sent).await?;
                    // The end of the answer ends the request. Whatever more the client sends would be another one, for whomever
                    // it names: it goes nowhere, and the destination hears that nothing more comes. Else a client that
                    // believes in a kept connection would wait on it for an answer.
                    if !passed.more {
                        let _ = from_client.read(&mut [0; 1]).await;
                    }
                    let _ = to_upstream.shutdown().await;
                    std::future::pending().await
                }
            }
        };
        let down = async {
            let mut to_client = to_client;
            copy(from_upstream, &mut to_client, &received).await?;
            let _ = to_client.shutdown().await;
            Ok(())
        };
        let copied = async {
            match passed.rest {
                Rest::All => tokio::try_join!(up, down).map(drop),
                Rest::Bytes(_) => tokio::select! { done = up => done, done = down => done },
            }
        };
        tokio::select! {
            // An end of either side that is no orderly one is no fault of ours, and there is nobody to tell.
            _ = copied => {}
            () = idle(&progress, self.policy.limits.idle) => {}
            () = tokio::time::sleep(self.policy.limits.total) => {}
        }
        if matches!(passed.rest, Rest::Bytes(_)) {
            // Closed with something unread, the connection would be reset, and the client might lose the answer's end.
            let mut unread = from_client.take(LINGER_BYTES);
            let _ = timeout(self.policy.limits.linger, tokio::io::copy(&mut unread, &mut tokio::io::sink())).await;
        }
    }

    /// What the client of a refused connection is told.
    fn answer(&self, stopped: &Stopped) -> Vec<u8> {
        if stopped.within == Within::Tunnel {
            // The words of TLS for `unrecognized_name`, where TLS is spoken.
            let spoken = matches!(stopped.refusal, Refusal::OtherName(_) | Refusal::NotTls(HelloError::NoName));
            return if spoken { vec![21, 3, 3, 0, 2, 2, 112] } else { Vec::new() };
        }
        let status = match &stopped.refusal {
            Refusal::Head(HeadError::TooLong) => "431 Request Header Fields Too Large",
            Refusal::Head(HeadError::Chunks) => "411 Length Required",
            Refusal::Head(_) => "400 Bad Request",
            Refusal::SlowHead => "408 Request Timeout",
            Refusal::Unresolved | Refusal::Unreachable => "502 Bad Gateway",
            _ => "403 Forbidden",
        };
        let asked = stopped.target.as_ref().map_or_else(String::new, |target| format!("`{target}`: "));
        let body = format!("provara: {asked}{}\nallowed: {}\n", stopped.refusal, self.policy.allowed);
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// Reads a head and returns it with what came behind it.
async fn read_head(client: &mut TcpStream) -> Result<(Head, Vec<u8>), Refusal> {
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        if !read_more(client, &mut bytes).await {
            let nothing = bytes.is_empty();
            return Err(if nothing { Refusal::NothingAsked } else { Refusal::Head(HeadError::Syntax) });
        }
        // Its end may have come in two parts.
        let from = before.saturating_sub(3);
        let end = bytes.get(from..).and_then(|new| new.windows(4).position(|four| four == b"\r\n\r\n"));
        if let Some(end) = end {
            let behind = bytes.split_off(from.saturating_add(end).saturating_add(4));
            return Ok((Head::parse(&bytes).map_err(Refusal::Head)?, behind));
        }
        if bytes.len() > Head::MOST {
            return Err(Refusal::Head(HeadError::TooLong));
        }
    }
}

/// Opens a tunnel and returns what came through it, once that is known to be TLS for its name.
async fn open_tunnel(client: &mut TcpStream, mut bytes: Vec<u8>, host: &HostName) -> Result<Vec<u8>, Refusal> {
    let opened = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await;
    opened.map_err(|_| Refusal::NotTls(HelloError::Malformed))?;
    loop {
        match read_hello(&bytes) {
            Hello::Named(name) if name == *host => return Ok(bytes),
            Hello::Named(name) => return Err(Refusal::OtherName(name)),
            Hello::Refused(why) => return Err(Refusal::NotTls(why)),
            Hello::Partial => {}
        }
        if !read_more(client, &mut bytes).await {
            return Err(Refusal::NotTls(HelloError::Malformed));
        }
    }
}

/// Whether more came.
async fn read_more(client: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    let read = client.read(&mut buffer).await.unwrap_or(0);
    bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
    read > 0
}

async fn connect_to_one(addresses: &[SocketAddr], port: u16) -> Result<TcpStream, Refusal> {
    for address in addresses.iter().take(ADDRESSES) {
        let Ok(stream) = TcpStream::connect(SocketAddr::new(address.ip(), port)).await else { continue };
        // What is routed to this host without being an interface's address shows here: both ends are the same.
        match stream.local_addr() {
            Ok(local) if local.ip() != address.ip() => {}
            _ => return Err(Refusal::OwnAddress),
        }
        let _ = stream.set_nodelay(true);
        return Ok(stream);
    }
    Err(Refusal::Unreachable)
}

/// Counts bytes of one direction.
struct Counts<'a> {
    meter: &'a Meter,
    of: fn(&Meter) -> &AtomicU64,
    progress: &'a AtomicU64,
}

impl Counts<'_> {
    fn add(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        (self.of)(self.meter).fetch_add(bytes, Ordering::Relaxed);
        self.progress.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Copies until there is no more, one buffer at a time.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    counts: &Counts<'_>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        counts.add(read);
    }
}

/// Returns when nothing has moved in either direction for `patience`.
async fn idle(progress: &AtomicU64, patience: Duration) {
    let mut seen = None;
    loop {
        let now = progress.load(Ordering::Relaxed);
        if seen.replace(now) == Some(now) {
            return;
        }
        tokio::time::sleep(patience).await;
    }
}

/// Tells the client and lets it take that: what it still sends would otherwise end the connection before the answer.
async fn tell(mut client: TcpStream, answer: Vec<u8>) -> io::Result<()> {
    client.write_all(&answer).await?;
    client.shutdown().await?;
    tokio::io::copy(&mut (&mut client).take(LINGER_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}
