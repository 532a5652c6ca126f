//! One kept connection, and what is asked over it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::failure::Failure;

/// No answer takes longer: a run of 100 MB takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// No answer is larger: the largest holds the kept ends of two outputs.
const MOST: usize = 128 << 20;

/// The server that is measured.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Host and port.
    pub(crate) address: String,
    pub(crate) agent: HeaderValue,
    pub(crate) approver: HeaderValue,
    /// Its process, where known.
    pub(crate) process: Option<u32>,
}

/// Whose token a request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Nobody,
    Agent,
    Approver,
}

/// A request, which may be made again and again.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    who: Who,
    body: Bytes,
}

impl Ask {
    pub(crate) fn get(who: Who, path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), who, body: Bytes::new() }
    }

    pub(crate) fn post(who: Who, path: impl Into<String>, body: &Value) -> Self {
        Self { method: Method::POST, path: path.into(), who, body: body.to_string().into() }
    }

    fn route(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// A connection that is kept open.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    target: Target,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    pub(crate) async fn connect(target: &Target) -> Result<Self, Failure> {
        let address = target.address.clone();
        let failed = |cause| Failure::Connect { address: address.clone(), cause };
        let stream = TcpStream::connect(&target.address).await.map_err(failed)?;
        // A small request must not wait for the answer to the last one.
        stream.set_nodelay(true).map_err(failed)?;
        let route = || format!("connection to {address}");
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|cause| Failure::Http { route: route(), cause })?;
        let driver = tokio::spawn(async move {
            // What broke is told by the request that was under way.
            let _ = connection.await;
        });
        Ok(Self { sender, driver, target: target.clone() })
    }

    /// Returns the body of a good answer.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<Bytes, Failure> {
        let answered = async {
            let response = self.send(ask).await?;
            whole(ask, response).await
        };
        tokio::time::timeout(PATIENCE, answered).await.map_err(|_| Failure::Silent { route: ask.route() })?
    }

    /// Returns a good answer's body as JSON.
    pub(crate) async fn ask_json(&mut self, ask: &Ask) -> Result<Value, Failure> {
        let body = self.ask(ask).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Failure::Unexpected { route: "a JSON route", why: error.to_string() })
    }

    /// Returns a good answer whose body still comes.
    pub(crate) async fn open(&mut self, ask: &Ask) -> Result<Incoming, Failure> {
        let response = self.send(ask).await?;
        if response.status().is_success() { Ok(response.into_body()) } else { Err(refused(ask, response).await) }
    }

    async fn send(&mut self, ask: &Ask) -> Result<Response<Incoming>, Failure> {
        let failed = |cause| Failure::Http { route: ask.route(), cause };
        self.sender.ready().await.map_err(failed)?;
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.path.parse().map_err(|_| Failure::Base { base: ask.path.clone() })?;
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&self.target.address);
        headers.insert(HOST, host.map_err(|_| Failure::Base { base: self.target.address.clone() })?);
        if !ask.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        match ask.who {
            Who::Nobody => {}
            Who::Agent => drop(headers.insert("x-agent-token", self.target.agent.clone())),
            Who::Approver => drop(headers.insert("x-agent-token", self.target.approver.clone())),
        }
        self.sender.send_request(request).await.map_err(failed)
    }
}

async fn whole(ask: &Ask, response: Response<Incoming>) -> Result<Bytes, Failure> {
    if response.status() != StatusCode::OK {
        return Err(refused(ask, response).await);
    }
    let read = Limited::new(response.into_body(), MOST).collect().await;
    read.map(http_body_util::Collected::to_bytes)
        .map_err(|error| Failure::Unexpected { route: "a route", why: error.to_string() })
}

async fn refused(ask: &Ask, response: Response<Incoming>) -> Failure {
    let status = response.status();
    let body = Limited::new(response.into_body(), 4096).collect().await.map(http_body_util::Collected::to_bytes);
    let body = String::from_utf8_lossy(&body.unwrap_or_default()).chars().take(300).collect();
    Failure::Refused { route: ask.route(), status, body }
}

/// Proposes `command` and returns the plan's id and digest.
pub(crate) async fn propose(client: &mut Client, command: &str) -> Result<(String, String), Failure> {
    let answer = client.ask_json(&proposal(command)).await?;
    Ok((text(&answer, "pending_id")?, text(&answer, "digest")?))
}

/// The request that proposes `command`.
pub(crate) fn proposal(command: &str) -> Ask {
    Ask::post(Who::Agent, "/plan", &serde_json::json!({ "command": command }))
}

/// The request that approves exactly what was shown.
pub(crate) fn approval((id, digest): &(String, String)) -> Ask {
    Ask::post(Who::Approver, format!("/approve/{id}"), &serde_json::json!({ "digest": digest }))
}

/// Returns how many plans are pending.
pub(crate) async fn pending_count(client: &mut Client) -> Result<u64, Failure> {
    let status = client.ask_json(&Ask::get(Who::Nobody, "/status")).await?;
    let count = status.get("pending_count").and_then(Value::as_u64);
    count.ok_or_else(|| Failure::Unexpected { route: "/status", why: "it has no `pending_count`".into() })
}

fn text(answer: &Value, field: &'static str) -> Result<String, Failure> {
    let found = answer.get(field).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| Failure::Unexpected { route: "/plan", why: format!("it has no `{field}`") })
}
