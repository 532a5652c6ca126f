//! Compares what we answer to faulty requests with what FastAPI was recorded to answer (`tests/fastapi/`), whole.

use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use crate::body::{Body, Fields};
use crate::problem::{Problem, tell};
use crate::query::{MAX_POSITION, Query};

fn plan(fields: &mut Fields) -> Value {
    fields.needed_text("command", 1, 12);
    fields.text("cwd", 0, 5);
    let answer = json!([fields.integer("timeout_s", 1, 3600), fields.flag("dedupe")]);
    fields.texts("env");
    answer
}

fn token(fields: &mut Fields) -> Value {
    fields.needed_list("roles");
    fields.needed_integer("timeout_s", 1, 3600);
    json!([])
}

fn sent(case: &Value) -> Result<Value, Problem> {
    let kind = HeaderValue::from_str(case["kind"].as_str().unwrap()).unwrap();
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
    let body = Body { headers, bytes: case["body"].as_str().unwrap().to_owned().into() };
    let (mut fields, read): (Fields, fn(&mut Fields) -> Value) = match case["path"].as_str().unwrap() {
        "/plan" => (body.required()?, plan),
        "/token" => (body.required()?, token),
        _ => (body.optional()?, |fields| {
            fields.text("reason", 0, 1000);
            json!([])
        }),
    };
    let answer = read(&mut fields);
    fields.done()?;
    Ok(answer)
}

fn asked(case: &Value, query: &str) -> Result<Value, Problem> {
    let uri: Uri = format!("/?{query}").parse().unwrap();
    let mut query = Query::read(uri.query().unwrap_or_default());
    let answer = if case["path"] == "/need" {
        json!([query.needed_position("old")])
    } else {
        let limit = query.integer("limit", 1, 500).unwrap_or(50);
        json!([limit, query.integer("before", 0, MAX_POSITION), query.flag("follow").unwrap_or(false)])
    };
    query.done()?;
    Ok(answer)
}

async fn answered(answer: Result<Value, Problem>) -> (StatusCode, Value) {
    match answer {
        Ok(value) => (StatusCode::OK, value),
        Err(problem) => {
            let response = tell(problem.into_response(), "");
            let status = response.status();
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            let mut body: Value = serde_json::from_slice(&body).unwrap();
            for ours in ["code", "request_id"] {
                body.as_object_mut().unwrap().remove(ours).unwrap();
            }
            (status, body)
        }
    }
}

#[tokio::test]
async fn every_recorded_request_is_answered_as_fastapi_answers_it() {
    let recorded: Vec<Value> = serde_json::from_str(include_str!("../tests/fastapi/recorded.json")).unwrap();
    assert!(recorded.len() > 100, "the record is not whole");
    for case in &recorded {
        let ours = match case["query"].as_str() {
            Some(query) => asked(case, query),
            None => sent(case),
        };
        let (status, ours) = answered(ours).await;
        assert_eq!((json!(status.as_u16()), &ours), (case["status"].clone(), &case["answer"]), "{case}");
    }
}

#[tokio::test]
async fn broken_json_is_told_in_the_same_shape_with_our_own_words() {
    for (body, at) in [("{", 0), ("{\"a\" 1}", 5), ("nul", 2), ("{'a':1}", 1), ("[1 2]", 3), ("{\"a\":1,\n  x}", 10)] {
        let body = Body { headers: HeaderMap::new(), bytes: body.as_bytes().into() };
        let (status, answer) = answered(body.required().map(|_| json!(null))).await;
        let error = answer["detail"][0]["ctx"]["error"].clone();
        let whole = json!({ "detail": [{
            "type": "json_invalid", "loc": ["body", at], "msg": "JSON decode error", "input": {}, "ctx": { "error": error },
        }] });
        assert_eq!((status, &answer), (StatusCode::UNPROCESSABLE_ENTITY, &whole));
        assert!(error.as_str().is_some_and(|error| !error.is_empty()));
    }
}
