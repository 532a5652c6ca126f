//! What the edge does to a request before any route sees it.

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json as value};
use sha2::{Digest as _, Sha256};

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

async fn get(edge: &Edge, path: &str, token: &str) -> Value {
    json(edge.ask(request("GET", path, token).body(Body::empty()).unwrap()).await).await
}

/// Computes a plan's digest from an answer, as `docs/api.md` says how.
fn recomputed(plan: &Value) -> String {
    // `Value` sorts its keys and writes no spaces, which is all that RFC 8785 asks for with these texts and numbers.
    let form = value!({
        "v": 1, "kind": plan["kind"], "id": plan["pending_id"], "project": plan["project"], "agent": plan["agent"],
        "command_b64": STANDARD.encode(plan["command"].as_str().unwrap()), "shell": plan["shell"], "cwd": plan["cwd"],
        "env": plan["env"], "stdin_b64": plan["stdin_b64"], "tty": plan["tty"], "timeout_s": plan["timeout_s"],
        "target": plan["target"], "profile": plan["profile"], "nonce": plan["nonce"],
    });
    let hash = Sha256::digest(form.to_string());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[tokio::test]
async fn a_plans_digest_can_be_computed_from_what_is_shown() {
    let edge = Edge::new().await;
    let body = value!({ "command": "make \u{202e} install", "timeout_s": 7, "env": {"B": "2", "A": "\n"}, "shell": "sh",
        "stdin_b64": STANDARD.encode([0, 255]), "note": "not part of it" });
    for body in [body, value!({ "command": "ls" })] {
        let asked = request("POST", "/plan", "agent").body(body.to_string().into()).unwrap();
        let queued = json(edge.ask(asked).await).await;
        let id = queued["pending_id"].as_str().unwrap();
        for token in ["operator", "agent"] {
            for shown in [&get(&edge, "/pending", token).await[0], &get(&edge, &format!("/commands/{id}"), token).await]
            {
                assert_eq!(shown["pending_id"], queued["pending_id"]);
                assert_eq!(recomputed(shown), queued["digest"].as_str().unwrap());
                // Whatever else were shown would have another digest.
                for (field, other) in
                    [("command", "rm -rf /"), ("nonce", "0"), ("project", "other"), ("profile", "host")]
                {
                    let mut forged = shown.clone();
                    forged[field] = other.into();
                    assert_ne!(recomputed(&forged), queued["digest"].as_str().unwrap(), "{field} is not bound");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_was_just_decided_is_not_listed_and_an_agent_sees_its_own() {
    let edge = Edge::new().await;
    let other = value!({ "name": "other", "roles": ["agent"] }).to_string();
    let other = json(edge.ask(request("POST", "/tokens", "operator").body(other.into()).unwrap()).await).await;
    let other = other["token"].as_str().unwrap();
    let ids = |list: &Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(|plan| plan["pending_id"].clone()).collect()
    };
    assert_eq!(get(&edge, "/pending", "agent").await, value!([]));
    let mut waiting = Vec::new();
    for n in 0..3 {
        let plan = edge.plan(&format!("make {n}")).await;
        waiting.insert(0, plan["pending_id"].clone());
        for token in ["agent", "operator"] {
            assert_eq!(ids(&get(&edge, "/pending", token).await), waiting);
            assert_eq!(ids(&get(&edge, "/pending?limit=2", token).await), waiting[..waiting.len().min(2)]);
        }
        assert_eq!(get(&edge, "/pending", other).await, value!([]));
    }
    let first = edge.ask(request("GET", "/pending?limit=2", "agent").body(Body::empty()).unwrap()).await;
    assert_eq!(first.headers()["content-type"], "application/json");
    let next = first.headers()["x-next-cursor"].to_str().unwrap().to_owned();
    assert_eq!(ids(&get(&edge, &format!("/pending?limit=2&before={next}"), "agent").await), waiting[2..]);
    for _ in 0..3 {
        let gone = waiting.remove(1.min(waiting.len() - 1));
        let denied = request("POST", &format!("/deny/{}", gone.as_str().unwrap()), "operator");
        assert_eq!(edge.ask(denied.body(Body::empty()).unwrap()).await.status(), 200);
        for token in ["agent", "operator"] {
            assert_eq!(ids(&get(&edge, "/pending", token).await), waiting);
        }
    }
}
