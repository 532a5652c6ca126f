//! Server-sent events: nothing lost, nothing twice, and nobody holds anything up.

use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use futures_util::StreamExt as _;
use provara_domain::TokenId;
use provara_testkit::approver;

use crate::{Edge, json, request};

/// A stream being read as a client reads it.
struct Reading {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Reading {
    async fn of(edge: &Edge, path: &str) -> Self {
        let response: Response<Body> = edge.ask(request("GET", path, "operator").body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// Reads on until `enough` says so or the stream ends.
    async fn until(&mut self, enough: impl Fn(&str) -> bool) {
        while !enough(&self.text) {
            let next = tokio::time::timeout(Duration::from_secs(20), self.body.next()).await;
            match next.expect("the stream went silent") {
                Some(piece) => self.text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap()),
                None => return,
            }
        }
    }

    fn positions(&self) -> Vec<u64> {
        // An id that no event follows only says where to come back to.
        let frames = self.text.split("\n\n").filter(|frame| frame.contains("\nevent: "));
        frames.filter_map(|frame| frame.strip_prefix("id: ")?.lines().next()?.parse().ok()).collect()
    }
}

/// Events of whichever kind, made faster than by planning.
async fn write_events(edge: &Edge, count: u64) {
    let before = edge.world.gateway.head();
    for number in 0..count / 2 {
        let new = provara_gateway::NewPrincipal {
            name: provara_domain::Name::parse(&format!("t{number}")).unwrap(),
            roles: provara_domain::Roles::of(&[provara_domain::Role::Auditor]),
            secret_sha256: <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(format!("{before} {number}"))),
        };
        let made = edge.world.gateway.create_token(&approver(), new).await.unwrap();
        edge.world.gateway.revoke_token(&approver(), &TokenId::parse(made.id.as_str()).unwrap()).await.unwrap();
    }
    assert_eq!(edge.world.gateway.head(), before + count);
}

#[tokio::test(flavor = "multi_thread")]
async fn catching_up_goes_over_into_live_entries_without_a_gap() {
    let edge = Edge::new().await;
    write_events(&edge, 1500).await;
    let mut reading = Reading::of(&edge, "/events?since=0").await;
    // Read and written at once: what comes in between belongs to both halves, and is told once.
    let (_, ()) =
        tokio::join!(write_events(&edge, 600), reading.until(|text| text.matches("\nevent: ").count() > 1000));
    let last = edge.world.gateway.head() - 1;
    reading.until(|text| text.contains(&format!("id: {last}\nevent: "))).await;
    assert_eq!(reading.positions(), (1..=last).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_keep_up_is_told_and_let_go_and_misses_nothing_when_it_comes_back() {
    let edge = Edge::new().await;
    let first = edge.world.gateway.head();
    let mut slow = Reading::of(&edge, "/events").await;
    slow.until(|text| text.contains(": caught up")).await;
    write_events(&edge, 3000).await;
    slow.until(|_| false).await;
    assert!(slow.text.contains("event: dropped\ndata: {\"reason\":\"too_slow\",\"last_event_id\":"), "{}", slow.text);
    let seen = slow.positions();
    let told = seen.last().copied().unwrap_or(first - 1);
    let mut again = Reading::of(&edge, &format!("/events?since={told}")).await;
    let last = edge.world.gateway.head() - 1;
    again.until(|text| text.contains(&format!("id: {last}\nevent: "))).await;
    assert_eq!([seen, again.positions()].concat(), (first..=last).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_gateway_ends_a_stream_after_its_last_entry() {
    let edge = Edge::new().await;
    let mut reading = Reading::of(&edge, "/events").await;
    reading.until(|text| text.contains(": caught up")).await;
    write_events(&edge, 2).await;
    let last = edge.world.gateway.head() - 1;
    tokio::join!(edge.world.gateway.quiesce(Duration::from_secs(1)), reading.until(|_| false));
    let told = reading.text.find(&format!("id: {last}\nevent: ")).expect("the last entry was told");
    assert!(reading.text.find("\"reason\":\"server_stopping\"").unwrap() > told, "{}", reading.text);
    edge.world.gateway.close().await.unwrap();
}

#[tokio::test]
async fn a_position_that_the_log_has_not_reached_is_another_logs() {
    let edge = Edge::new().await;
    edge.plan("ls").await;
    for (path, header) in [("/events?since=99", None), ("/events", Some("99"))] {
        let mut asked = request("GET", path, "operator");
        if let Some(id) = header {
            asked = asked.header("last-event-id", id);
        }
        let answer = edge.ask(asked.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), 422);
        let fault = json(answer).await["detail"][0].clone();
        let why = "Value error, the log has 4 entries only; is this the server that the position came from?";
        assert_eq!((&fault["msg"], &fault["input"]), (&why.into(), &"99".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_reads_nothing_more() {
    let edge = Edge::new().await;
    let mut reading = Reading::of(&edge, "/events").await;
    reading.until(|text| text.contains(": caught up")).await;
    let tokens = edge.world.gateway.tokens(&approver()).await.unwrap();
    let operator = tokens.iter().find(|token| token.name.as_str() == "operator").unwrap();
    edge.world.gateway.revoke_token(&approver(), &operator.id).await.unwrap();
    edge.plan("ls").await;
    reading.until(|_| false).await;
    assert!(reading.text.contains("\"reason\":\"token_revoked\""), "{}", reading.text);
    assert!(reading.positions().is_empty(), "an entry after the revocation was told");
}
