//! What an auditor asks for: entries, checkpoints, proofs.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use provara_domain::{PlanId, Role};

use crate::access::{Caller, needs};
use crate::problem::{Problem, ProblemBody};
use crate::query::Query;
use crate::routes::App;
use crate::wire;

/// The most entries in one answer.
const MAX_ENTRIES: i64 = 1000;

fn allowed(who: &provara_domain::Principal) -> Result<(), Problem> {
    needs(who, Role::Auditor).or_else(|_| needs(who, Role::Approver))
}

/// Exports entries of the log, one a line.
#[utoipa::path(get, path = "/audit", operation_id = "entries", tag = "audit",
    params(("from" = Option<u64>, Query, minimum = 0, maximum = 9_007_199_254_740_991_i64,
            description = "The first position; 0 by default"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "How many at most; 1000 by default")),
    responses((status = 200, description = "What `provara audit verify` reads", content_type = "application/jsonl",
        body = String)))]
pub(crate) async fn entries(
    State(app): State<App>,
    Caller(who): Caller,
    mut query: Query,
) -> Result<Response, Problem> {
    allowed(&who)?;
    let from = query.position("from").unwrap_or(0);
    let limit = query.integer("limit", 1, MAX_ENTRIES).unwrap_or(MAX_ENTRIES);
    query.done()?;
    let entries = app.gateway.all_entries(from, u32::try_from(limit).unwrap_or(1)).await?;
    let mut lines = String::new();
    for entry in &entries {
        lines.push_str(&app.gateway.export_line(entry));
        lines.push('\n');
    }
    let mut response = lines.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    Ok(response)
}

/// Signs the head of the log.
#[utoipa::path(get, path = "/audit/checkpoint", operation_id = "checkpoint", tag = "audit",
    responses((status = 200, description = "A signed note and the key that checks it", body = wire::Checkpoint)))]
pub(crate) async fn checkpoint(State(app): State<App>, Caller(who): Caller) -> Result<Response, Problem> {
    allowed(&who)?;
    let checkpoint = app.gateway.checkpoint().await?;
    Ok(axum::Json(wire::Checkpoint { checkpoint, key: app.gateway.log_vkey() }).into_response())
}

/// Proves that an entry, or every entry of a plan, is in the log.
#[utoipa::path(get, path = "/audit/inclusion", operation_id = "inclusion", tag = "audit",
    params(("position" = Option<u64>, Query, minimum = 0, maximum = 9_007_199_254_740_991_i64,
            description = "The entry; this or `plan` is needed"),
        ("plan" = Option<String>, Query, description = "The plan whose entries are meant"),
        ("size" = Option<u64>, Query, minimum = 0, maximum = 9_007_199_254_740_991_i64,
            description = "The size of the log; the whole one by default")),
    responses((status = 200, description = "A proof for each", body = wire::Inclusion),
        (status = 404, description = "The log is shorter, or there is no such plan", body = ProblemBody)))]
pub(crate) async fn inclusion(
    State(app): State<App>,
    Caller(who): Caller,
    mut query: Query,
) -> Result<Response, Problem> {
    allowed(&who)?;
    let neither = !query.has("position") && !query.has("plan");
    if neither {
        query.missing("position");
    }
    let (position, plan, size) = (query.position("position"), query.text("plan"), query.position("size"));
    query.done()?;
    let size = size.unwrap_or_else(|| app.gateway.head());
    let positions = match (position, plan) {
        (Some(position), _) => vec![position],
        (None, plan) => app.gateway.positions_of(&PlanId::parse(&plan.unwrap_or_default())?).await?,
    };
    let root = app.gateway.root(size).await?.to_string();
    let mut entries = Vec::new();
    for position in positions.into_iter().filter(|one| *one < size || position.is_some()) {
        let proof = app.gateway.inclusion(position, size).await?;
        let entry = app.gateway.all_entries(position, 1).await?;
        entries.push(wire::Included {
            position,
            leaf: entry.first().map(|entry| String::from_utf8_lossy(&entry.leaf).into_owned()),
            proof: proof.iter().map(ToString::to_string).collect(),
        });
    }
    Ok(axum::Json(wire::Inclusion { size, root, entries }).into_response())
}

/// Proves that the log has only grown.
#[utoipa::path(get, path = "/audit/consistency", operation_id = "consistency", tag = "audit",
    params(("old" = u64, Query, minimum = 0, maximum = 9_007_199_254_740_991_i64, description = "The earlier size"),
        ("new" = Option<u64>, Query, minimum = 0, maximum = 9_007_199_254_740_991_i64,
            description = "The later size; the present one by default")),
    responses((status = 200, description = "The proof", body = wire::Consistency),
        (status = 404, description = "The log is shorter", body = ProblemBody)))]
pub(crate) async fn consistency(
    State(app): State<App>,
    Caller(who): Caller,
    mut query: Query,
) -> Result<Response, Problem> {
    allowed(&who)?;
    let (old, new) = (query.needed_position("old"), query.position("new"));
    query.done()?;
    let Some(old) = old else { return Err(Problem::fields(Vec::new())) };
    let new = new.unwrap_or_else(|| app.gateway.head());
    let proof = app.gateway.consistency(old, new).await?;
    let answer = wire::Consistency {
        old,
        new,
        old_root: app.gateway.root(old).await?.to_string(),
        new_root: app.gateway.root(new).await?.to_string(),
        proof: proof.iter().map(ToString::to_string).collect(),
    };
    Ok(axum::Json(answer).into_response())
}
