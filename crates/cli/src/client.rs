//! The HTTP API as the command line uses it.

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::config::{Secret, Settings, Source};

/// What is read of the file that names the address, in bytes.
const LONGEST_ADDRESS: u64 = 200;

/// Why a request did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(
        "no server answers at {base}; start one with `provara serve`, or name its folder with --root or its address with --base ({cause})"
    )]
    Unreachable { base: String, cause: Box<ureq::Error> },
    #[error("the server at {base} went away while it answered")]
    Cut { base: String },
    #[error("{detail}")]
    Refused { status: u16, code: String, detail: String, body: Box<Value> },
    #[error("the server's answer cannot be read; is AGENT_HUB_BASE ({base}) really Provara?")]
    NotProvara { base: String },
    #[error("AGENT_HUB_CA_CERT `{path}` cannot be used: {why}")]
    Authority { path: String, why: String },
    #[error("a token would travel unencrypted to {base}; use https, or name the address with --base")]
    Unencrypted { base: String },
}

impl ClientError {
    /// Whether the same question may be answered a little later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Cut { .. } | Self::Refused { status: 429 | 502..=504, .. })
    }

    /// Whether the server knows nothing of that name.
    pub(crate) const fn is_unknown(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// One server, asked with one token.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    base: String,
    token: Option<Secret>,
}

impl Client {
    /// Returns a client of the configured server.
    ///
    /// A file in the working directory could be somebody else's idea: only a flag or the environment may send a token to
    /// another machine unencrypted.
    pub(crate) fn new(settings: &Settings, token: Option<Secret>) -> Result<Self, ClientError> {
        let scheme = if settings.tls_cert.is_some() { "https" } else { "http" };
        let (base, from) = match &settings.base {
            Some((base, from)) => (base.trim_end_matches('/').to_owned(), Some(from)),
            None => {
                let configured = || format!("{scheme}://{}", authority(&settings.host, settings.port));
                (announced(&settings.runtime).unwrap_or_else(configured), None)
            }
        };
        if matches!(from, Some(Source::File(_))) && !base.starts_with("https://") && !is_loopback(&base) {
            return Err(ClientError::Unencrypted { base });
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(Duration::from_secs(5)))
            .tls_config(trust(settings)?)
            .build()
            .new_agent();
        Ok(Self { agent, base, token })
    }

    /// Returns where the server is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.json(self.send("GET", path, None, &[])?)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(self.send("POST", path, Some(body), &[])?)
    }

    pub(crate) fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Result<Value, ClientError> {
        self.json(self.send("POST", path, Some(body), headers)?)
    }

    pub(crate) fn delete(&self, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        self.json(self.send("DELETE", path, body, &[])?)
    }

    /// Returns the body as it arrives: command output, or the event stream.
    pub(crate) fn stream(&self, path: &str) -> Result<impl Read + use<>, ClientError> {
        Ok(self.stream_from(path)?.1)
    }

    /// Returns the body as it arrives, and the offset that it begins at: later than asked for where bytes were dropped.
    pub(crate) fn stream_from(&self, path: &str) -> Result<(u64, impl Read + use<>), ClientError> {
        let response = self.send("GET", path, None, &[])?;
        if !response.status().is_success() {
            self.json(response)?;
            return Err(ClientError::NotProvara { base: self.base.clone() });
        }
        let offset = response.headers().get("x-provara-offset").and_then(|value| value.to_str().ok()?.parse().ok());
        Ok((offset.unwrap_or(0), response.into_body().into_with_config().limit(u64::MAX).reader()))
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<ureq::http::Response<ureq::Body>, ClientError> {
        let unreachable = |cause| ClientError::Unreachable { base: self.base.clone(), cause: Box::new(cause) };
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base)).header("accept", "*/*");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("x-agent-token", token.expose());
        }
        let bytes = body.map(|body| body.to_string()).unwrap_or_default();
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(bytes).map_err(|error| unreachable(error.into()))?;
        self.agent.run(request).map_err(unreachable)
    }

    fn json(&self, mut response: ureq::http::Response<ureq::Body>) -> Result<Value, ClientError> {
        let status = response.status();
        if status.as_u16() == 204 {
            return Ok(Value::Null);
        }
        let not_provara = || ClientError::NotProvara { base: self.base.clone() };
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string().map_err(|error| match error {
            ureq::Error::Io(_) => ClientError::Cut { base: self.base.clone() },
            _ => not_provara(),
        })?;
        let is_json =
            response.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let body = if is_json { serde_json::from_str(&text).map_err(|_| not_provara())? } else { Value::String(text) };
        if status.is_success() {
            return Ok(body);
        }
        Err(ClientError::Refused {
            status: status.as_u16(),
            code: body.get("code").and_then(Value::as_str).unwrap_or_default().to_owned(),
            detail: detail(&body, status.as_u16()),
            body: Box::new(body),
        })
    }
}

/// Whose certificates are believed: the usual authorities', or a private one's alone.
pub(crate) fn trust(settings: &Settings) -> Result<ureq::tls::TlsConfig, ClientError> {
    let Some(path) = &settings.ca_cert else { return Ok(ureq::tls::TlsConfig::default()) };
    let failed = |why: String| ClientError::Authority { path: path.display().to_string(), why };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        if let ureq::tls::PemItem::Certificate(certificate) = item.map_err(|error| failed(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(failed("it holds no certificate".to_owned()));
    }
    let roots = ureq::tls::RootCerts::Specific(std::sync::Arc::new(certificates));
    Ok(ureq::tls::TlsConfig::builder().root_certs(roots).build())
}

fn detail(body: &Value, status: u16) -> String {
    match body.get("detail") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(faults)) => {
            let one = |fault: &Value| {
                let place: Vec<_> = fault.get("loc")?.as_array()?.iter().filter_map(Value::as_str).collect();
                Some(format!("{}: {}", place.join("."), fault.get("msg")?.as_str()?))
            };
            faults.iter().filter_map(one).collect::<Vec<_>>().join("; ")
        }
        _ => format!("the server answered {status}"),
    }
}

/// Returns where the server in `runtime` says that it listens: it knows the port that it took. Only an address of this
/// machine is believed, so that a forged file sends no token away.
fn announced(runtime: &Path) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(runtime.join("address")).ok()?.take(LONGEST_ADDRESS).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned()).filter(|base| is_loopback(base))
}

fn authority(host: &str, port: u16) -> String {
    // What is listened on is not always what can be called.
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => format!("127.0.0.1:{port}"),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => format!("[::1]:{port}"),
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

fn is_loopback(base: &str) -> bool {
    let Ok(uri) = base.parse::<ureq::http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Returns `raw` fit for one segment or value of an address.
pub(crate) fn encoded(raw: &str) -> String {
    raw.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
