//! What an auditor asks for: entries, checkpoints, proofs.

use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use provara_domain::Role;
use serde::Deserialize;
use serde_json::json;

use crate::access::{Caller, needs};
use crate::plans::plan_id;
use crate::problem::Problem;
use crate::routes::App;

/// The most entries in one answer.
const MAX_ENTRIES: u32 = 1000;

/// Which entries.
#[derive(Debug, Deserialize)]
pub(crate) struct Range {
    from: Option<u64>,
    limit: Option<u32>,
}

fn allowed(who: &provara_domain::Principal) -> Result<(), Problem> {
    needs(who, Role::Auditor).or_else(|_| needs(who, Role::Approver))
}

/// `GET /audit`: exported entries, one a line.
pub(crate) async fn entries(
    State(app): State<App>,
    Caller(who): Caller,
    Query(range): Query<Range>,
) -> Result<Response, Problem> {
    allowed(&who)?;
    let limit = range.limit.unwrap_or(MAX_ENTRIES).clamp(1, MAX_ENTRIES);
    let entries = app.gateway.all_entries(range.from.unwrap_or(0), limit).await?;
    let mut lines = String::new();
    for entry in &entries {
        lines.push_str(&app.gateway.export_line(entry));
        lines.push('\n');
    }
    let mut response = lines.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    Ok(response)
}

/// `GET /audit/checkpoint`
pub(crate) async fn checkpoint(State(app): State<App>, Caller(who): Caller) -> Result<Response, Problem> {
    allowed(&who)?;
    let note = app.gateway.checkpoint().await?;
    Ok(axum::Json(json!({ "checkpoint": note, "key": app.gateway.log_vkey() })).into_response())
}

/// Which entry, in a log of which size.
#[derive(Debug, Deserialize)]
pub(crate) struct Inclusion {
    position: Option<u64>,
    plan: Option<String>,
    size: Option<u64>,
}

/// `GET /audit/inclusion`
pub(crate) async fn inclusion(
    State(app): State<App>,
    Caller(who): Caller,
    Query(asked): Query<Inclusion>,
) -> Result<Response, Problem> {
    allowed(&who)?;
    let size = asked.size.unwrap_or_else(|| app.gateway.head());
    let positions = match (asked.position, asked.plan) {
        (Some(position), _) => vec![position],
        (None, Some(plan)) => app.gateway.positions_of(&plan_id(&plan)?).await?,
        (None, None) => {
            let fault =
                json!({ "type": "missing", "loc": ["query", "position"], "msg": "Field required", "input": null });
            return Err(Problem::fields(vec![fault]));
        }
    };
    let root = app.gateway.root(size).await?;
    let mut proofs = Vec::new();
    for position in positions.into_iter().filter(|position| *position < size || asked.position.is_some()) {
        let proof = app.gateway.inclusion(position, size).await?;
        let entry = app.gateway.all_entries(position, 1).await?;
        proofs.push(json!({
            "position": position,
            "leaf": entry.first().map(|entry| String::from_utf8_lossy(&entry.leaf).into_owned()),
            "proof": proof.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }));
    }
    Ok(axum::Json(json!({ "size": size, "root": root.to_string(), "entries": proofs })).into_response())
}

/// From which size to which.
#[derive(Debug, Deserialize)]
pub(crate) struct Consistency {
    old: u64,
    new: Option<u64>,
}

/// `GET /audit/consistency`
pub(crate) async fn consistency(
    State(app): State<App>,
    Caller(who): Caller,
    Query(Consistency { old, new }): Query<Consistency>,
) -> Result<Response, Problem> {
    allowed(&who)?;
    let new = new.unwrap_or_else(|| app.gateway.head());
    let proof = app.gateway.consistency(old, new).await?;
    Ok(axum::Json(json!({
        "old": old,
        "new": new,
        "old_root": app.gateway.root(old).await?.to_string(),
        "new_root": app.gateway.root(new).await?.to_string(),
        "proof": proof.iter().map(ToString::to_string).collect::<Vec<_>>(),
    }))
    .into_response())
}
