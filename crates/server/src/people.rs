//! What admins manage: tokens and workspaces.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use provara_domain::{Name, Principal, Role, Roles, TokenId};
use provara_gateway::{NewPrincipal, TokenRecord, new_secret};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::access::{Caller, Reader};
use crate::body::{Body, Fields};
use crate::problem::{Problem, ProblemBody};
use crate::routes::App;
use crate::{requests, wire};

/// Makes a token. The answer is the only place where the secret ever stands.
///
/// With `replaces` the new token takes the place of that one, name and roles included, which ends in the same commit.
#[utoipa::path(post, path = "/tokens", operation_id = "createToken", tag = "admin", request_body = requests::TokenRequest,
    responses((status = 201, description = "The token, once", body = wire::NewToken),
        (status = 404, description = "No such token to replace", body = ProblemBody),
        (status = 409, description = "There is such a token", body = ProblemBody)))]
pub(crate) async fn create_token(State(app): State<App>, Caller(who): Caller, body: Body) -> Result<Response, Problem> {
    let mut fields = body.required()?;
    let (record, secret) = match replaced(&mut fields) {
        Some(old) => replace(&app, &who, fields, &old).await?,
        None => create(&app, &who, fields).await?,
    };
    let answer = wire::NewToken { record: (&record).into(), token: secret };
    Ok((StatusCode::CREATED, axum::Json(answer)).into_response())
}

async fn create(app: &App, who: &Principal, mut fields: Fields) -> Result<(TokenRecord, String), Problem> {
    let (name, roles) = holder(&mut fields);
    fields.done()?;
    let Some(name) = name else { return Err(Problem::fields(Vec::new())) };
    let secret = new_secret(kind_of(roles.first().copied()), app.gateway.secret_bits());
    let new = NewPrincipal { name, roles: Roles::of(&roles), secret_sha256: Sha256::digest(&secret).into() };
    Ok((app.gateway.create_token(who, new).await?, secret))
}

async fn replace(app: &App, who: &Principal, mut fields: Fields, old: &str) -> Result<(TokenRecord, String), Problem> {
    for name in ["name", "roles"] {
        if fields.has(name) {
            fields.wrong(name, "the new token has those of the one that it replaces", Value::Null);
        }
    }
    fields.done()?;
    let old = TokenId::parse(old)?;
    // Only for the word in the secret's text; the store settles who may and what is there.
    let known = app.gateway.tokens(who).await?;
    let role = known.iter().find(|token| token.id == old).and_then(|token| token.roles.iter().next());
    let secret = new_secret(kind_of(role), app.gateway.secret_bits());
    let record = app.gateway.replace_token(who, &old, Sha256::digest(&secret).into()).await?;
    Ok((record, secret))
}

pub(crate) fn replaced(fields: &mut Fields) -> Option<String> {
    fields.text("replaces", 1, 64)
}

fn kind_of(first: Option<Role>) -> &'static str {
    first.unwrap_or(Role::Agent).as_str()
}

pub(crate) fn holder(fields: &mut Fields) -> (Option<Name>, Vec<Role>) {
    let name = fields.needed_text("name", 1, 64);
    let name = fields.checked("name", name, |raw| Name::parse(&raw));
    let mut roles = Vec::new();
    for word in fields.needed_list("roles").unwrap_or_default() {
        match Role::parse(&word) {
            Some(role) => roles.push(role),
            None => fields.wrong("roles", "not a role", word),
        }
    }
    (name, roles)
}

/// Lists tokens, revoked ones too, without their secrets.
#[utoipa::path(get, path = "/tokens", operation_id = "tokens", tag = "admin",
    responses((status = 200, description = "For an admin", body = Vec<wire::Token>)))]
pub(crate) async fn tokens(State(app): State<App>, Caller(who): Caller) -> Result<Response, Problem> {
    let records = app.gateway.tokens(&who).await?;
    Ok(axum::Json(records.iter().map(wire::Token::from).collect::<Vec<_>>()).into_response())
}

/// Revokes a token. It is refused from the next request on.
#[utoipa::path(delete, path = "/tokens/{id}", operation_id = "revokeToken", tag = "admin",
    params(("id" = String, Path, description = "The token's `id`; not the token")),
    responses((status = 204, description = "It is revoked"),
        (status = 404, description = "No such token", body = ProblemBody)))]
pub(crate) async fn revoke_token(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = TokenId::parse(&id)?;
    app.gateway.revoke_token(&who, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Lists the folders that commands may run in.
#[utoipa::path(get, path = "/workspaces", operation_id = "workspaces", tag = "admin",
    responses((status = 200, description = "For people", body = Vec<String>)))]
pub(crate) async fn workspaces(State(app): State<App>, _: Reader) -> Response {
    axum::Json(app.gateway.workspaces()).into_response()
}

/// Lets commands run in a folder.
#[utoipa::path(post, path = "/workspaces", operation_id = "addWorkspace", tag = "admin",
    request_body = requests::WorkspaceRequest,
    responses((status = 201, description = "Commands may run there", body = wire::Workspace)))]
pub(crate) async fn add_workspace(
    State(app): State<App>,
    Caller(who): Caller,
    body: Body,
) -> Result<Response, Problem> {
    let path = workspace(body.required()?)?;
    app.gateway.add_workspace(&who, path.clone()).await?;
    Ok((StatusCode::CREATED, axum::Json(wire::Workspace { path })).into_response())
}

/// Lets commands run in a folder no longer.
#[utoipa::path(delete, path = "/workspaces", operation_id = "removeWorkspace", tag = "admin",
    request_body = requests::WorkspaceRequest, responses((status = 204, description = "Commands may not run there")))]
pub(crate) async fn remove_workspace(
    State(app): State<App>,
    Caller(who): Caller,
    body: Body,
) -> Result<Response, Problem> {
    app.gateway.remove_workspace(&who, workspace(body.required()?)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn workspace(mut fields: Fields) -> Result<String, Problem> {
    let path = folder(&mut fields);
    fields.done()?;
    path.ok_or_else(|| Problem::fields(Vec::new()))
}

pub(crate) fn folder(fields: &mut Fields) -> Option<String> {
    fields.needed_text("path", 1, 500)
}
