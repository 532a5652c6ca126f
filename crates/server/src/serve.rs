//! Serving: connections in bounded number and time, with or without TLS, until told to stop.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::Layer as _;

use crate::routes::Peer;

/// How many connections are open at once. More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take to send its request's head, and to shake hands.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a client may leave what was sent to it untaken before its connection ends and its place is free again.
const UNTAKEN: Duration = Duration::from_secs(120);
/// How long open connections may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Why serving ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No connection can be accepted any more.
    #[error("could not accept connections")]
    Accept(#[source] io::Error),
}

/// Serves `router` on `listener` until `stop` resolves; then lets open requests end until `quiet` resolves, when no answer
/// is still in the making, and for a bounded time after that.
///
/// # Errors
/// When the listener is broken.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    stop: impl Future<Output = ()>,
    quiet: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stopping, _) = watch::channel(false);
    let tls = tls.map(TlsAcceptor::from);
    tokio::pin!(stop);
    loop {
        // The permit comes first: without room nothing is accepted, and nothing is held in memory for it.
        let permit = tokio::select! {
            () = &mut stop => break,
            permit = Arc::clone(&room).acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_) => break,
            },
        };
        let (stream, peer) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if passing(&error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => return Err(ServeError::Accept(error)),
            },
        };
        // Only a connection that is broken already refuses these.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNTAKEN));
        let (router, tls, stopping) = (router.clone(), tls.clone(), stopping.subscribe());
        tokio::spawn(async move {
            match tls {
                None => connection(stream, peer, router, stopping).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
                        connection(stream, peer, router, stopping).await;
                    }
                }
            }
            drop(permit);
        });
    }
    drop(listener);
    stopping.send_replace(true);
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    quiet.await;
    let _ = tokio::time::timeout(GRACE, room.acquire_many(all)).await;
    Ok(())
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

async fn connection<S>(stream: S, peer: Peer, router: Router, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = axum::Extension(ConnectInfo(peer)).layer(router);
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
