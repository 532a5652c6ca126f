//! What the edge does to a request before any route sees it.

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

use crate::{Edge, json, request};

#[tokio::test]
async fn a_body_that_never_ends_is_let_go() {
    let edge = Edge::new().await;
    // Only the patience is left to wait for, so the paused clock jumps to its end.
    tokio::time::pause();
    let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{\"command\":"))]);
    let endless = Body::from_stream(futures_util::StreamExt::chain(first, stream::pending()));
    let answer = edge.ask(request("POST", "/plan", "agent").body(endless).unwrap()).await;
    assert_eq!(answer.status(), 408);
    let answer = json(answer).await;
    assert_eq!(answer["code"], "body_too_slow");
    assert_eq!(answer["detail"], "the request's body took longer than 30 s");
    assert_eq!(edge.world.gateway.counts().pending, 0);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_whether_it_says_so_or_not() {
    let edge = Edge::new().await;
    let stated = request("POST", "/plan", "agent").header("content-length", "4194305").body(Body::from("{")).unwrap();
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    let pieces = stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
    let unstated = request("POST", "/plan", "agent").body(Body::from_stream(pieces)).unwrap();
    for asked in [stated, unstated] {
        let answer = edge.ask(asked).await;
        assert_eq!(answer.status(), 413);
        assert_eq!(json(answer).await["code"], "body_too_large");
    }
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_can_read_where_a_list_goes_on() {
    let edge = Edge::new().await;
    let asked = request("GET", "/pending", "agent").header("origin", "http://localhost:3000");
    let answer = edge.ask(asked.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "http://localhost:3000");
    let exposed = answer.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.split(", ").any(|name| name == "x-next-cursor"), "{exposed}");
}
