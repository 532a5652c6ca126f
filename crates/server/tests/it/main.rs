//! The HTTP edge in process: a router over a real gateway, asked without a socket.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod edge;
mod events;
mod metrics;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use provara_domain::{Name, Role, Roles};
use provara_gateway::NewPrincipal;
use provara_server::{Bucket, ServerConfig, router};
use provara_testkit::{World, approver};
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

/// A server over a world, with a token for each of `agent` and `operator`, spelled like their names.
struct Edge {
    router: Router,
    world: World,
}

impl Edge {
    async fn new() -> Self {
        let world = provara_testkit::world(100_000).await;
        for (name, roles) in [("agent", &[Role::Agent][..]), ("operator", &[Role::Approver, Role::Admin])] {
            let new = NewPrincipal {
                name: Name::parse(name).unwrap(),
                roles: Roles::of(roles),
                secret_sha256: Sha256::digest(name).into(),
            };
            world.gateway.create_token(&approver(), new).await.unwrap();
        }
        Self { router: router(world.gateway.clone(), config()), world }
    }

    async fn ask(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn plan(&self, command: &str) -> serde_json::Value {
        let body = serde_json::json!({ "command": command }).to_string();
        json(self.ask(request("POST", "/plan", "agent").body(body.into()).unwrap()).await).await
    }
}

fn config() -> ServerConfig {
    let bucket = Bucket { requests: 1_000_000, window: Duration::from_secs(60) };
    ServerConfig {
        allowed_hosts: vec!["localhost".to_owned()],
        origins: vec!["http://localhost:3000".to_owned()],
        agents: bucket,
        people: bucket,
        failures: bucket,
        trusted_proxies: Vec::new(),
        public_url: "http://localhost:8787".to_owned(),
        version: "test",
    }
}

fn request(method: &str, path: &str, token: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost:8787").header("x-agent-token", token)
}

async fn json(response: Response<Body>) -> serde_json::Value {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}
