//! What a command may call.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// What a command may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// Nothing.
    None,
    /// Its own processes only, by a loopback that no other run and no program of the host shares.
    Loopback,
    /// These only, through Provara's proxy.
    Hosts(BTreeSet<HostPort>),
    /// Any host through Provara's proxy, but never this machine and nothing link-local.
    All,
    /// Whatever the host itself can call, its own services included.
    Host,
}

impl Network {
    /// Returns whether everything that may be called may be called under `other` too. A loopback of its own is not part of
    /// what a proxy gives, so the two are not compared.
    pub fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, _) | (_, Self::Host) | (Self::Loopback, Self::Loopback) => true,
            (Self::Hosts(ours), Self::Hosts(theirs)) => ours.is_subset(theirs),
            (Self::Hosts(_) | Self::All, Self::All) => true,
            (Self::Loopback | Self::Hosts(_) | Self::All | Self::Host, _) => false,
        }
    }
}

/// A host and a port, `example.org:443` or `[2001:db8::1]:443`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort(String);

/// Why a text is no host and port that a command may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPortError {
    /// It is not of the form `host:port`.
    Form,
    /// It names this machine, or what is only reached from it.
    ThisMachine,
}

impl fmt::Display for HostPortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("is not a name or address and a port, `example.org:443`"),
            Self::ThisMachine => f.write_str("is this machine or link-local, which no profile may call by name"),
        }
    }
}

impl std::error::Error for HostPortError {}

impl HostPort {
    /// Returns `raw` as a host and port. Names are plain: no pattern, no dot at the end, at most 253 characters.
    ///
    /// # Errors
    /// See [`HostPortError`].
    pub fn parse(raw: &str) -> Result<Self, HostPortError> {
        let (host, port) = raw.rsplit_once(':').ok_or(HostPortError::Form)?;
        let number: u16 = port.parse().ok().filter(|number| *number > 0).ok_or(HostPortError::Form)?;
        if number.to_string() != port {
            return Err(HostPortError::Form);
        }
        let host = host.to_ascii_lowercase();
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address: Option<IpAddr> = match bracketed {
            Some(inner) => Some(IpAddr::V6(inner.parse().map_err(|_| HostPortError::Form)?)),
            None => host.parse().ok().filter(IpAddr::is_ipv4),
        };
        match address {
            Some(address) if is_this_machine(address) => Err(HostPortError::ThisMachine),
            Some(IpAddr::V4(address)) => Ok(Self(format!("{address}:{number}"))),
            Some(IpAddr::V6(address)) => Ok(Self(format!("[{address}]:{number}"))),
            None if host == "localhost" || host.ends_with(".localhost") => Err(HostPortError::ThisMachine),
            None if is_name(&host) => Ok(Self(format!("{host}:{number}"))),
            None => Err(HostPortError::Form),
        }
    }

    /// Returns host and port as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_this_machine(address: IpAddr) -> bool {
    let link_local = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let plain = address.to_canonical();
    link_local || plain.is_loopback() || plain.is_unspecified() || plain.is_multicast()
}

/// A name that ends in digits alone would be read as an address of an old spelling (`127.1`, `0x7f000001`).
fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    host.len() <= 253 && host.split('.').all(label) && !numeric
}
