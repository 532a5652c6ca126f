//! What a supervisor such as systemd hands us and wants to be told: a listening socket, and `sd_notify`'s few words.
//!
//! Nothing of this reaches a command or the helper: both get environments made for them, and the socket is closed on exec.

use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use provara_gateway::Gateway;

use crate::config::Settings;
use crate::failure::Failure;

/// Returns the socket that a supervisor listened on for us, if it did. MUST be called while there is one thread: it takes
/// the variables out of the environment.
pub(crate) fn inherited() -> Result<Option<TcpListener>, Failure> {
    // Passed on by a careless parent, they speak of somebody else's descriptors.
    if std::env::var("LISTEN_PID").ok() != Some(std::process::id().to_string()) {
        return Ok(None);
    }
    let mut handed = listenfd::ListenFd::from_env();
    let unusable = |why: &str| Failure::Usage(format!("the socket that was handed to us cannot be used: {why}"));
    match handed.len() {
        0 => Ok(None),
        1 => {
            let listener = handed.take_tcp_listener(0).map_err(|error| unusable(&error.to_string()))?;
            if let Some(listener) = &listener {
                listener.set_nonblocking(true)?;
            }
            Ok(listener)
        }
        more => Err(unusable(&format!("there are {more}; name one ListenStream in the socket unit"))),
    }
}

/// Returns the settings with the address that we were handed: what is checked has to be what can be reached.
pub(crate) fn settled(settings: &Settings, listener: Option<&TcpListener>) -> Result<Settings, Failure> {
    let mut settings = settings.clone();
    if let Some(listener) = listener {
        let address = listener.local_addr()?;
        (settings.host, settings.port) = (address.ip().to_string(), address.port());
    }
    Ok(settings)
}

/// Whoever started us, as far as they want to hear.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// How often a sign of life is expected, halved.
    every: Option<Duration>,
}

impl Supervisor {
    pub(crate) fn from_env() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let open = connected(name.as_bytes());
            open.map_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET cannot be used; nobody is told")).ok()
        });
        let var = |name| std::env::var(name).ok();
        let ours = var("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let limit = var("WATCHDOG_USEC").and_then(|raw| raw.parse().ok()).filter(|micros| ours && *micros > 0);
        Self { socket, every: limit.map(|micros| Duration::from_micros(micros) / 2) }
    }

    pub(crate) fn ready(&self, base: &str) {
        self.tell(&format!("READY=1\nSTATUS=listening on {base}\n"));
    }

    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping: running commands get their grace\n");
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            tracing::warn!(%error, "could not tell the supervisor");
        }
    }
}

/// Gives signs of life for as long as the store answers. An error is an answer: a full disk or a damaged database is
/// not mended by a new start, which would only end running commands.
pub(crate) async fn keep_alive(supervisor: Arc<Supervisor>, gateway: Gateway) {
    let Some(every) = supervisor.every.filter(|_| supervisor.socket.is_some()) else { return };
    let mut ticks = tokio::time::interval(every);
    // A store that was slow owes one sign of life, not all that it missed.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let _ = gateway.answers().await;
        supervisor.tell("WATCHDOG=1\n");
    }
}

/// A path, or a name that begins with `@` in the kernel's own space.
fn connected(name: &[u8]) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read must not stop us.
    socket.set_nonblocking(true)?;
    match name.split_first() {
        Some((b'@', rest)) => socket.connect_addr(&SocketAddr::from_abstract_name(rest)?)?,
        Some((b'/', _)) => socket.connect(std::ffi::OsStr::from_bytes(name))?,
        _ => return Err(io::ErrorKind::AddrNotAvailable.into()),
    }
    Ok(socket)
}
