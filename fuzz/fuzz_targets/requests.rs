//! Requests through the whole router, without a socket.
#![no_main]

#[path = "../bodies/requests.rs"]
mod body;

use std::sync::LazyLock;
use std::time::Duration;

use axum::Router;
use provara_domain::{Name, Role, Roles};
use provara_gateway::NewPrincipal;
use provara_server::{Bucket, ServerConfig, router};
use provara_testkit::{World, approver};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

static EDGE: LazyLock<(Runtime, World, Router)> = LazyLock::new(|| {
    let tokio = Runtime::new().unwrap();
    let (world, router) = tokio.block_on(async {
        let world = provara_testkit::world(1000).await;
        for (name, roles) in [("agent", &[Role::Agent][..]), ("operator", &[Role::Approver, Role::Admin])] {
            let (name_of, roles) = (Name::parse(name).unwrap(), Roles::of(roles));
            let new = NewPrincipal { name: name_of, roles, secret_sha256: Sha256::digest(name).into() };
            world.gateway.create_token(&approver(), new).await.unwrap();
        }
        let bucket = Bucket { requests: u32::MAX, window: Duration::from_secs(60) };
        let config = ServerConfig {
            allowed_hosts: vec!["localhost".to_owned()],
            origins: vec!["http://localhost:3000".to_owned()],
            agents: bucket,
            people: bucket,
            failures: bucket,
            trusted_proxies: Vec::new(),
            public_url: "http://localhost:8787".to_owned(),
            version: "fuzz",
        };
        let router = router(world.gateway.clone(), config);
        (world, router)
    });
    (tokio, world, router)
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(request) = body::request(bytes) else { return };
    let (tokio, _, router) = &*EDGE;
    tokio.block_on(async { body::answer(router.clone().oneshot(request).await.unwrap()).await });
});
