//! What admins manage: tokens and workspaces.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use provara_domain::{Name, Principal, Role, Roles, TokenId};
use provara_gateway::{NewPrincipal, TokenRecord, new_secret};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::access::{Caller, Reader};
use crate::body::Fields;
use crate::problem::Problem;
use crate::routes::App;
use crate::wire;

/// `POST /tokens`: the answer is the only place where the secret ever stands. With `replaces` the new token takes the
/// place of that one, name and roles included.
pub(crate) async fn create_token(
    State(app): State<App>,
    Caller(who): Caller,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::required(&body)?;
    let replaces = fields.text("replaces", 1, 64);
    let (record, secret) = match replaces {
        Some(old) => replaced(&app, &who, fields, &old).await?,
        None => created(&app, &who, fields).await?,
    };
    let mut answer = wire::token(&record);
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("token".into(), secret.into());
    }
    Ok((StatusCode::CREATED, axum::Json(answer)).into_response())
}

async fn created(app: &App, who: &Principal, mut fields: Fields) -> Result<(TokenRecord, String), Problem> {
    let name = fields.needed_text("name", 1, 64);
    let name = fields.checked("name", name, |raw| Name::parse(&raw));
    let words = fields.list("roles").unwrap_or_default();
    let mut roles = Vec::new();
    for word in words {
        match Role::parse(&word) {
            Some(role) => roles.push(role),
            None => fields.fault("roles", "value_error", "Value error, not a role", word.into(), None),
        }
    }
    fields.done()?;
    let Some(name) = name else { return Err(Problem::fields(Vec::new())) };
    let secret = new_secret(kind_of(roles.first().copied()), app.gateway.secret_bits());
    let new = NewPrincipal { name, roles: Roles::of(&roles), secret_sha256: Sha256::digest(&secret).into() };
    Ok((app.gateway.create_token(who, new).await?, secret))
}

async fn replaced(app: &App, who: &Principal, mut fields: Fields, old: &str) -> Result<(TokenRecord, String), Problem> {
    for name in ["name", "roles"] {
        if fields.has(name) {
            let msg = "Value error, the new token has those of the one that it replaces";
            fields.fault(name, "value_error", msg, Value::Null, None);
        }
    }
    fields.done()?;
    let old = TokenId::parse(old).map_err(|_| Problem::not_found())?;
    // Only for the word in the secret's text; the store settles who may and what is there.
    let known = app.gateway.tokens(who).await?;
    let role = known.iter().find(|token| token.id == old).and_then(|token| token.roles.iter().next());
    let secret = new_secret(kind_of(role), app.gateway.secret_bits());
    let record = app.gateway.replace_token(who, &old, Sha256::digest(&secret).into()).await?;
    Ok((record, secret))
}

fn kind_of(first: Option<Role>) -> &'static str {
    first.unwrap_or(Role::Agent).as_str()
}

/// `GET /tokens`
pub(crate) async fn tokens(State(app): State<App>, Caller(who): Caller) -> Result<Response, Problem> {
    let records = app.gateway.tokens(&who).await?;
    Ok(axum::Json(records.iter().map(wire::token).collect::<Vec<_>>()).into_response())
}

/// `DELETE /tokens/{id}`
pub(crate) async fn revoke_token(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = TokenId::parse(&id).map_err(|_| Problem::not_found())?;
    app.gateway.revoke_token(&who, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /workspaces`
pub(crate) async fn workspaces(State(app): State<App>, _: Reader) -> Response {
    axum::Json(app.gateway.workspaces()).into_response()
}

/// `POST /workspaces`
pub(crate) async fn add_workspace(
    State(app): State<App>,
    Caller(who): Caller,
    body: Bytes,
) -> Result<Response, Problem> {
    let path = workspace_path(&body)?;
    app.gateway.add_workspace(&who, path.clone()).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({ "path": path }))).into_response())
}

/// `DELETE /workspaces`
pub(crate) async fn remove_workspace(
    State(app): State<App>,
    Caller(who): Caller,
    body: Bytes,
) -> Result<Response, Problem> {
    app.gateway.remove_workspace(&who, workspace_path(&body)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn workspace_path(body: &[u8]) -> Result<String, Problem> {
    let mut fields = Fields::required(body)?;
    let path = fields.needed_text("path", 1, 500);
    fields.done()?;
    path.ok_or_else(|| Problem::fields(Vec::new()))
}
