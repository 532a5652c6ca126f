//! What must hold for every request that reaches the router.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use serde_json::Value;

/// What requests are made of. A line feed ends a part of the head; an empty line, the head.
pub const REQUESTS: &[&str] = &[
    "POST\n/plan\nx-agent-token: agent\n\n{\"command\":\"ls\"}",
    "POST\n/plan\nx-agent-token: agent\nidempotency-key: k\n\n{\"command\":\"ls\",\"timeout_s\":5,\"env\":{\"A\":\"1\"},\"dedupe\":true,\"stdin\":\"x\"}",
    "POST\n/policy/check\nx-agent-token: operator\n\n{\"command\":\"ls\",\"shell\":\"pwsh\",\"cwd\":\"x\"}",
    "POST\n/deny/20261124_002227_00000000000000aa\nx-agent-token: operator\n\n{\"reason\":\"x\"}",
    "POST\n/edit/20261124_002227_00000000000000aa\nx-agent-token: operator\n\n{\"command\":\"ls\"}",
    "POST\n/approve/20261124_002227_00000000000000aa\nx-agent-token: agent\n\n{\"digest\":\"sha256:00\"}",
    "POST\n/tokens\nx-agent-token: operator\n\n{\"name\":\"x\",\"roles\":[\"auditor\"]}",
    "POST\n/workspaces\nx-agent-token: operator\n\n{\"path\":\"/srv\"}",
    "GET\n/pending?limit=5&before=3\nauthorization: Bearer agent\n\n",
    "GET\n/commands?state=pending,denied\nx-agent-token: operator\n\n",
    "GET\n/runs/20261124_002227_00000000000000aa/output?stream=stdout&offset=5\nx-agent-token: agent\n\n",
    "GET\n/audit/consistency?from=1&to=2\nx-agent-token: operator\n\n",
    "GET\n/audit/inclusion?plan=20261124_002227_00000000000000aa\nx-agent-token: operator\n\n",
    "GET\n/events?since=1&types=plan.queued\nlast-event-id: 1\nx-agent-token: agent\n\n",
    "OPTIONS\n/plan\norigin: http://localhost:3000\n\n",
    "DELETE\n/tokens/20261124_002227_00000000000000aa\nx-agent-token: operator\n\n",
    "GET\n/status\n\n",
    "HEAD",
    "/health",
    "?limit=",
    "99999999999999999999",
    "-1",
    "%00",
    "%ff",
    "..",
    "&",
    "=",
    "prefer: respond-async\n",
    "content-type: text/plain\n",
    "x-forwarded-for: 192.0.2.1\n",
    "host: evil.example\n",
    "cookie: token=agent\n",
    "authorization: Basic agent\n",
    "{\"command\":",
    "\"ls\"",
    "1e400",
    "null",
    "true",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"timeout_s\":",
    "1.5",
    "\u{feff}",
    "[[[[[[[[",
];

/// Returns the request that `bytes` spell, if they spell one that this body may send: no wait for a decision.
pub fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let mut rest = bytes;
    let mut part = || {
        let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let (part, after) = rest.split_at(at);
        rest = after.get(1..).unwrap_or_default();
        part
    };
    let method = Method::from_bytes(part()).ok()?;
    let path = String::from_utf8_lossy(part()).into_owned();
    let mut request = Request::builder().method(method).uri(path.parse::<Uri>().ok()?).header("host", "localhost:8787");
    loop {
        let line = part();
        if line.is_empty() {
            break;
        }
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line.get(..at)?).ok()?;
        request = request.header(name, HeaderValue::from_bytes(line.get(at + 1..)?.trim_ascii()).ok()?);
    }
    let waits = path.contains("wait") || path.contains("follow") || path.contains("%");
    let decides = path.starts_with("/approve") && String::from_utf8_lossy(bytes).contains("operator");
    if waits || decides { None } else { request.body(Body::from(rest.to_vec())).ok() }
}

/// Never ours to blame, always of the documented shape, and never a control character of theirs in our headers.
pub async fn answer(response: Response<Body>) {
    let status = response.status().as_u16();
    assert!(status < 500, "answered {status}");
    let headers = response.headers().clone();
    for (name, value) in &headers {
        // A redirect gives back the path's own bytes, also those beyond ASCII.
        assert!(value.as_bytes().iter().all(|byte| *byte >= 0x20 && *byte != 0x7f), "{name} is {value:?}");
    }
    assert!(
        headers.contains_key("x-request-id") && headers.get("x-content-type-options").is_some_and(|it| it == "nosniff")
    );
    if headers.get("content-type").is_some_and(|kind| kind == "text/event-stream") {
        return;
    }
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    if status >= 400 {
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        let field = |name: &str| body.get(name).cloned().unwrap_or_default();
        let detail = field("detail");
        assert!(detail.is_string() || detail.as_array().is_some_and(|faults| !faults.is_empty()), "{status}: {body}");
        assert!(field("request_id").is_string() && field("code").is_string(), "{status}: {body}");
    }
}
