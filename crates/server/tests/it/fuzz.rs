//! The body of the fuzz target of requests, for a second.
#![expect(unreachable_pub, reason = "the bodies are shared with the fuzz targets")]

#[path = "../../../../fuzz/bodies/inputs.rs"]
mod inputs;
#[path = "../../../../fuzz/bodies/requests.rs"]
mod requests;

use inputs::{hostile, throw};

use crate::Edge;

#[test]
fn hostile_requests_are_answered_in_the_documented_shape() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let edge = tokio.block_on(Edge::new());
    throw(&hostile(requests::REQUESTS), |bytes| {
        let Some(request) = requests::request(&bytes) else { return };
        tokio.block_on(async { requests::answer(edge.ask(request).await).await });
    });
    // A router that a request had broken would answer nobody any more.
    assert!(tokio.block_on(edge.plan("ls"))["pending_id"].is_string());
}
