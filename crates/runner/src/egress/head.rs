//! A request's head, read in one way or not at all. What goes on to the destination is written anew from what was read, so
//! that nobody behind us reads it differently.

use super::allowed::{Target, TargetError};

/// What a run asks of the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Whom it wants to speak to.
    pub target: Target,
    /// How.
    pub asked: Asked,
}

/// How a run wants to speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// By a tunnel (`CONNECT`).
    Tunnel,
    /// By one plain request.
    Plain {
        /// The head as the destination gets it.
        head: Vec<u8>,
        /// The length of the body that follows.
        body: u64,
    },
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP/1.
    #[error("the request cannot be read as HTTP/1.1")]
    Syntax,
    /// Longer than is read.
    #[error("the request's head is longer than {} bytes or {} lines", Head::MOST, Head::LINES)]
    TooLong,
    /// Not a target that a proxy is asked for.
    #[error("ask for `http://name/path`, or `CONNECT name:port` for TLS")]
    Form,
    /// The target names no host.
    #[error("the request's target is refused: {0}")]
    Target(TargetError),
    /// No Host, several, or another than the target's.
    #[error("the request needs one Host, and the same as in its target")]
    Host,
    /// A body whose length two readers could read differently.
    #[error("the request's body has no plain length")]
    Length,
    /// A body in chunks.
    #[error("send the body with its Content-Length, not in chunks")]
    Chunks,
    /// A Connection header that would take away what frames the request.
    #[error("the Connection header names a header that is needed")]
    Connection,
}

/// What concerns the way to the proxy, and ends here.
const HOP: [&str; 8] =
    ["connection", "keep-alive", "te", "trailer", "upgrade", "transfer-encoding", "host", "content-length"];

impl Head {
    /// The longest head.
    pub const MOST: usize = 16 * 1024;
    /// The most header lines.
    pub const LINES: usize = 100;

    /// Reads a head, its empty line included and nothing after it.
    ///
    /// # Errors
    /// When it is not a request for a proxy, or could be read in two ways.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        if bytes.len() > Self::MOST {
            return Err(HeadError::TooLong);
        }
        if bare_line_end(bytes) {
            return Err(HeadError::Syntax);
        }
        let mut lines = [httparse::EMPTY_HEADER; Self::LINES];
        let mut request = httparse::Request::new(&mut lines);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLong),
            _ => return Err(HeadError::Syntax),
        }
        let (Some(method), Some(wanted), Some(version)) = (request.method, request.path, request.version) else {
            return Err(HeadError::Syntax);
        };
        // The parser skips empty lines before the request; we read none that it did not begin with.
        if !bytes.starts_with(method.as_bytes()) || !wanted.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HeadError::Syntax);
        }
        let headers = Headers(request.headers);
        if method == "CONNECT" {
            let target = Target::parse(wanted, None).map_err(HeadError::Target)?;
            // Host may leave the port out: the tunnel goes to its target, and the name is the same.
            headers.host_is(&target, target.port, version)?;
            if headers.values("content-length").next().is_some() || headers.values("transfer-encoding").next().is_some()
            {
                return Err(HeadError::Length);
            }
            return Ok(Self { target, asked: Asked::Tunnel });
        }
        let (target, path) = absolute(wanted)?;
        headers.host_is(&target, HTTP, version)?;
        let body = headers.body()?;
        let head = headers.written_anew(method, &target, &path, body)?;
        Ok(Self { target, asked: Asked::Plain { head, body: body.unwrap_or(0) } })
    }
}

/// The port of plain HTTP.
const HTTP: u16 = 80;

/// Whether a line ends by one of CR and LF alone: some readers take that for an end, others for a part of the line.
fn bare_line_end(bytes: &[u8]) -> bool {
    let mut before = 0;
    for byte in bytes {
        if (before == b'\r') != (*byte == b'\n') {
            return true;
        }
        before = *byte;
    }
    before == b'\r'
}

/// Takes `http://name:port/path` apart.
fn absolute(wanted: &str) -> Result<(Target, String), HeadError> {
    let (scheme, rest) = wanted.split_once("://").ok_or(HeadError::Form)?;
    if !scheme.eq_ignore_ascii_case("http") || rest.contains('#') {
        return Err(HeadError::Form);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).ok_or(HeadError::Form)?;
    // Who signs in by `user@` is refused with the `@`: it has hidden the real host too often.
    let target = Target::parse(authority, Some(HTTP)).map_err(HeadError::Target)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok((target, path))
}

struct Headers<'a>(&'a [httparse::Header<'a>]);

impl Headers<'_> {
    fn values<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b [u8]> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// Checks that there is one Host, and that it is the target's. A client of HTTP/1.0 may leave it out.
    fn host_is(&self, target: &Target, ordinary: u16, version: u8) -> Result<(), HeadError> {
        let mut hosts = self.values("host");
        let (host, second) = (hosts.next(), hosts.next());
        if second.is_some() {
            return Err(HeadError::Host);
        }
        match host {
            None if version == 0 => Ok(()),
            None => Err(HeadError::Host),
            Some(host) => {
                let named = std::str::from_utf8(host).ok().and_then(|host| Target::parse(host, Some(ordinary)).ok());
                if named.as_ref() == Some(target) { Ok(()) } else { Err(HeadError::Host) }
            }
        }
    }

    /// The body's length, where one is given.
    fn body(&self) -> Result<Option<u64>, HeadError> {
        let mut lengths = self.values("content-length");
        let (length, second) = (lengths.next(), lengths.next());
        let chunked = self.values("transfer-encoding").next().is_some();
        match (length, second, chunked) {
            (None, _, false) => Ok(None),
            (None, _, true) => Err(HeadError::Chunks),
            (Some(length), None, false) => {
                let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
                let text = std::str::from_utf8(length).ok().filter(|_| digits);
                text.and_then(|text| text.parse().ok()).map(Some).ok_or(HeadError::Length)
            }
            _ => Err(HeadError::Length),
        }
    }

    /// Writes the head for the destination: one request, then the end of the connection.
    fn written_anew(&self, method: &str, target: &Target, path: &str, body: Option<u64>) -> Result<Vec<u8>, HeadError> {
        let mut named = Vec::new();
        for value in self.values("connection") {
            let value = std::str::from_utf8(value).map_err(|_| HeadError::Connection)?;
            named.extend(value.split(',').map(|name| name.trim().to_ascii_lowercase()));
        }
        if named.iter().any(|name| matches!(name.as_str(), "host" | "content-length" | "transfer-encoding")) {
            return Err(HeadError::Connection);
        }
        let host = if target.port == HTTP { target.host.to_string() } else { target.to_string() };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        if let Some(body) = body {
            head.extend_from_slice(format!("Content-Length: {body}\r\n").as_bytes());
        }
        for header in self.0 {
            let name = header.name.to_ascii_lowercase();
            if HOP.contains(&name.as_str()) || name.starts_with("proxy-") || named.contains(&name) {
                continue;
            }
            head.extend_from_slice(header.name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(header.value);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::allowed::HostNameError;

    fn read(text: &str) -> Result<Head, HeadError> {
        Head::parse(text.as_bytes())
    }

    #[test]
    fn a_tunnel_and_a_plain_request_are_read_and_written_anew() {
        let head =
            read("CONNECT Example.org:443 HTTP/1.1\r\nHost: example.org:443\r\nProxy-Connection: x\r\n\r\n").unwrap();
        assert_eq!((head.target.to_string().as_str(), head.asked), ("example.org:443", Asked::Tunnel));
        assert!(read("CONNECT example.org:443 HTTP/1.0\r\n\r\n").is_ok());
        assert!(read("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n").is_ok());
        let head = read(
            "POST HTTP://Example.org:8080/a/../b?c=http://evil.org HTTP/1.0\r\nhOST: EXAMPLE.org:8080\r\nX-A:  b c \r\n\
             Connection: keep-alive, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: 5\r\nProxy-Authorization: secret\r\nUpgrade: x\r\n\
             TE: trailers\r\nContent-Length: 3\r\n\r\n",
        )
        .unwrap();
        let written = "POST /a/../b?c=http://evil.org HTTP/1.1\r\nHost: example.org:8080\r\nContent-Length: 3\r\n\
                       X-A: b c\r\nConnection: close\r\n\r\n";
        assert_eq!(head.asked, Asked::Plain { head: written.into(), body: 3 });
        for (wanted, path) in [("http://a.org", "/"), ("http://a.org:80?x", "/?x"), ("http://a.org/?x", "/?x")] {
            let head = read(&format!("GET {wanted} HTTP/1.1\r\nHost: a.org\r\n\r\n")).unwrap();
            let written = format!("GET {path} HTTP/1.1\r\nHost: a.org\r\nConnection: close\r\n\r\n");
            assert_eq!(head.asked, Asked::Plain { head: written.into(), body: 0 });
        }
    }

    #[test]
    fn what_two_readers_read_differently_is_refused() {
        use HeadError::*;
        let plain = |headers: &str| format!("POST http://a.org/ HTTP/1.1\r\n{headers}\r\n");
        for (headers, why) in [
            ("", Host),
            ("Host: a.org\r\nHost: a.org\r\n", Host),
            ("Host: a.org\r\nHost: b.org\r\n", Host),
            ("Host: b.org\r\n", Host),
            ("Host: a.org:81\r\n", Host),
            ("Host: a.org, b.org\r\n", Host),
            ("Host: a.org.\r\n", Host),
            ("Host: a.org/\r\n", Host),
            ("Host:\r\n", Host),
            ("Host : a.org\r\n", Syntax),
            (" Host: a.org\r\n", Syntax),
            ("Host: a.org\r\n b.org\r\n", Syntax),
            ("Host: a.org\nHost: b.org\r\n", Syntax),
            ("Host: a.org\rHost: b.org\r\n", Syntax),
            ("Host: a.org\0\r\n", Syntax),
            ("Host: a.org\r\nX: \0\r\n", Syntax),
            ("Host: a.org\r\nno colon\r\n", Syntax),
            ("Host: a.org\r\nContent-Length: 1\r\nContent-Length: 1\r\n", Length),
            ("Host: a.org\r\nContent-Length: 1, 1\r\n", Length),
            ("Host: a.org\r\nContent-Length: +1\r\n", Length),
            ("Host: a.org\r\nContent-Length: -1\r\n", Length),
            ("Host: a.org\r\nContent-Length: 0x1\r\n", Length),
            ("Host: a.org\r\nContent-Length: 1 1\r\n", Length),
            ("Host: a.org\r\nContent-Length:\r\n", Length),
            ("Host: a.org\r\nContent-Length: 18446744073709551616\r\n", Length),
            ("Host: a.org\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", Length),
            ("Host: a.org\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n", Length),
            ("Host: a.org\r\nTransfer-Encoding: chunked\r\n", Chunks),
            ("Host: a.org\r\ntransfer-encoding: identity\r\n", Chunks),
            ("Host: a.org\r\nContent-Length: 1\r\nConnection: content-length\r\n", Connection),
            ("Host: a.org\r\nConnection: close, Host\r\n", Connection),
        ] {
            assert_eq!(read(&plain(headers)), Err(why), "{headers:?}");
        }
        let tunnel = |headers: &str| format!("CONNECT a.org:443 HTTP/1.1\r\n{headers}\r\n");
        for (headers, why) in [
            ("", Host),
            ("Host: b.org:443\r\n", Host),
            ("Host: a.org:444\r\n", Host),
            ("Host: a.org:443\r\nHost: a.org:443\r\n", Host),
            ("Host: a.org:443\r\nContent-Length: 0\r\n", Length),
            ("Host: a.org:443\r\nTransfer-Encoding: chunked\r\n", Length),
        ] {
            assert_eq!(read(&tunnel(headers)), Err(why), "{headers:?}");
        }
    }

    #[test]
    fn a_target_is_a_name_and_nothing_around_it() {
        use HeadError::{Form, Syntax};
        let address = HeadError::Target(TargetError::Host(HostNameError::Address));
        let character = HeadError::Target(TargetError::Host(HostNameError::Character));
        for (line, why) in [
            ("GET / HTTP/1.1", Form),
            ("GET a.org HTTP/1.1", Form),
            ("GET https://a.org/ HTTP/1.1", Form),
            ("GET ftp://a.org/ HTTP/1.1", Form),
            ("GET http://a.org/#x HTTP/1.1", Form),
            ("OPTIONS * HTTP/1.1", Form),
            ("connect a.org:443 HTTP/1.1", Form),
            ("GET http://a.org@b.org/ HTTP/1.1", character),
            ("GET http://a.org\\@b.org/ HTTP/1.1", character),
            ("GET http://a.org%00.b.org/ HTTP/1.1", character),
            ("GET http://127.1/ HTTP/1.1", address),
            ("GET http://[::1]/ HTTP/1.1", address),
            ("CONNECT 0x7f.1:443 HTTP/1.1", address),
            ("CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1", address),
            ("CONNECT http://a.org:443 HTTP/1.1", address),
            ("CONNECT a.org HTTP/1.1", HeadError::Target(TargetError::Port)),
            ("CONNECT a.org:443 HTTP/2.0", Syntax),
            ("CONNECT  a.org:443 HTTP/1.1", Syntax),
            ("CONNECT a.org:443", Syntax),
            ("\r\nCONNECT a.org:443 HTTP/1.1", Syntax),
            ("GET http://a.org/\u{e9} HTTP/1.1", Syntax),
            ("GET http://a.org/\0 HTTP/1.1", Syntax),
            ("\u{16}\u{3}\u{1}", Syntax),
        ] {
            assert_eq!(read(&format!("{line}\r\nHost: a.org\r\n\r\n")), Err(why), "{line:?}");
        }
        assert_eq!(read("GET http://a.org/ HTTP/1.1\r\nHost: a.org\r\n\r\nmore"), Err(Syntax));
        assert_eq!(read("GET http://a.org/ HTTP/1.1\r\nHost: a.org\r\n"), Err(Syntax));
        let long = format!("GET http://a.org/{} HTTP/1.1\r\nHost: a.org\r\n\r\n", "a".repeat(Head::MOST));
        assert_eq!(read(&long), Err(HeadError::TooLong));
        let many = format!("GET http://a.org/ HTTP/1.1\r\nHost: a.org\r\n{}\r\n", "a: b\r\n".repeat(Head::LINES));
        assert_eq!(read(&many), Err(HeadError::TooLong));
    }
}
