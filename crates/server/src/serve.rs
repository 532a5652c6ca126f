//! Serving: connections in bounded number and time, with or without TLS, until told to stop.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use axum::middleware::AddExtension;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::Layer as _;

use crate::routes::Peer;
use crate::seats::{Seat, Seats};

/// How many connections are open at once at most.
pub const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take to send its request's head, and to shake hands.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a client may leave what was sent to it untaken before its connection ends and its place is free again.
const UNTAKEN: Duration = Duration::from_secs(120);
/// How often a flood is told of.
const EVERY: Duration = Duration::from_secs(10);
/// How long open connections may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Why serving ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No connection can be accepted any more.
    #[error("could not accept connections")]
    Accept(#[source] io::Error),
}

/// Where connections come in.
#[derive(Debug)]
pub struct Entrance {
    /// The socket.
    pub listener: TcpListener,
    /// With which every connection is encrypted, if any.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// How many may be open at once; never more than [`MAX_CONNECTIONS`]. Past that, one that nobody is served on makes
    /// room; else more wait in the kernel's queue.
    pub connections: usize,
}

/// Serves `router` at `entrance` until `stop` resolves; then lets open requests end until `quiet` resolves, when no answer
/// is still in the making, and for a bounded time after that.
///
/// # Errors
/// When the listener is broken.
pub async fn serve(
    entrance: Entrance,
    router: Router,
    stop: impl Future<Output = ()>,
    quiet: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let Entrance { listener, tls, connections } = entrance;
    let connections = connections.clamp(1, MAX_CONNECTIONS);
    let room = Arc::new(Semaphore::new(connections));
    let seats = Arc::new(Seats::default());
    let (stopping, _) = watch::channel(false);
    let tls = tls.map(TlsAcceptor::from);
    let mut complaint = Complaint::default();
    tokio::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if passing(&error) => {
                    complaint.say(&format!("could not accept a connection: {error}"));
                    seats.make_room().await;
                    continue;
                }
                Err(error) => return Err(ServeError::Accept(error)),
            },
        };
        // One more than there is room for is accepted, and then one that nobody is served on has to go: else whoever only
        // holds connections open would keep everybody out.
        let permit = tokio::select! {
            () = &mut stop => break,
            permit = a_place(&room, &seats, &mut complaint) => permit,
        };
        // Only a connection that is broken already refuses these.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNTAKEN));
        let (router, tls, stopping) = (router.clone(), tls.clone(), stopping.subscribe());
        let taken = seats.take(peer.ip());
        tokio::spawn(async move {
            let service = axum::Extension(ConnectInfo(peer)).layer(axum::Extension(taken.seat()).layer(router));
            let conversation = async {
                match tls {
                    None => connection(stream, service, stopping).await,
                    Some(tls) => {
                        if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
                            connection(stream, service, stopping).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = conversation => {}
                () = taken.dismissed() => {}
            }
            drop(permit);
            drop(taken);
        });
    }
    drop(listener);
    stopping.send_replace(true);
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    quiet.await;
    let _ = tokio::time::timeout(GRACE, room.acquire_many(all)).await;
    Ok(())
}

/// Waits for room for one more connection, and makes it.
async fn a_place(room: &Arc<Semaphore>, seats: &Seats, complaint: &mut Complaint) -> OwnedSemaphorePermit {
    loop {
        if let Ok(permit) = Arc::clone(room).try_acquire_owned() {
            return permit;
        }
        complaint.say("every connection is taken; those that say nothing are closed for new ones");
        seats.make_room().await;
    }
}

/// A warning that a flood repeats, said once in a while.
#[derive(Default)]
struct Complaint(Option<Instant>);

impl Complaint {
    fn say(&mut self, text: &str) {
        if self.0.is_none_or(|last| last.elapsed() >= EVERY) {
            self.0 = Some(Instant::now());
            tracing::warn!("{text}");
        }
    }
}

/// Whether the next attempt may work: the fault is one connection's, or one of resources that come back.
fn passing(error: &io::Error) -> bool {
    let out_of_descriptors = [Some(23), Some(24)]; // ENFILE, EMFILE
    out_of_descriptors.contains(&error.raw_os_error())
        || matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
                | io::ErrorKind::OutOfMemory
        )
}

/// The routes, for one connection.
type Service = AddExtension<AddExtension<Router, Arc<Seat>>, ConnectInfo<Peer>>;

async fn connection<S>(stream: S, service: Service, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => {}
        () = told(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn told(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
