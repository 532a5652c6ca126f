//! What the server says about itself: `/openapi.json`, made from the routes and the types that answer them, and `/docs`,
//! the same for a person's eyes.

use std::sync::OnceLock;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, InfoBuilder, OpenApi, Ref, RefOr};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::problem::{Fault, FaultsBody, ProblemBody};
use crate::routes::{App, routes};

mod page;
#[cfg(test)]
mod tests;
pub(crate) mod words;

/// The document and its page, made when somebody first asks: most servers are never asked, and it is a third of what a start
/// would cost.
pub(crate) struct Documents {
    version: &'static str,
    made: OnceLock<Made>,
}

struct Made {
    json: Bytes,
    page: Bytes,
}

impl Documents {
    pub(crate) const fn new(version: &'static str) -> Self {
        Self { version, made: OnceLock::new() }
    }

    fn made(&self) -> &Made {
        self.made.get_or_init(|| {
            let value = serde_json::to_value(document(self.version)).unwrap_or_default();
            Made { json: format!("{value:#}\n").into(), page: page::render(&value).into() }
        })
    }
}

/// Returns what the routes say of themselves.
fn document(version: &str) -> OpenApi {
    let mut document = routes().into_openapi();
    complete(&mut document, version);
    document
}

/// The document, for programs.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "server", security(()),
    responses((status = 200, description = "This document", content_type = "application/json", body = inline(words::AnyObject))))]
pub(crate) async fn json(State(app): State<App>) -> Response {
    let mut response = app.documents.made().json.clone().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The document, for people.
#[utoipa::path(get, path = "/docs", operation_id = "docs", tag = "server", security(()),
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub(crate) async fn docs(State(app): State<App>) -> Response {
    let mut response = app.documents.made().page.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let policy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// The page's style sheet: a file of its own, so that the page needs no inline style.
#[utoipa::path(get, path = "/docs.css", operation_id = "docsStyle", tag = "server", security(()),
    responses((status = 200, description = "A style sheet", content_type = "text/css", body = String)))]
pub(crate) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], page::STYLE).into_response()
}

const INTRODUCTION: &str = "Agents plan commands, people decide, Provara runs them confined and keeps evidence. A token is \
    shown as `X-Agent-Token` or as `Authorization: Bearer`. Bodies are JSON in UTF-8; a repeated key is an error. Lists go on \
    with the header `X-Next-Cursor`, whose value goes into `before`.";

/// Adds what holds for every route: who may ask, and how any request can fail before and beside its own work.
fn complete(document: &mut OpenApi, version: &str) {
    // Built anew: the router's own would name the authors of a library.
    document.info = InfoBuilder::new().title("Provara").version(version).description(Some(INTRODUCTION)).build();
    let components = document.components.get_or_insert_default();
    let key = ApiKeyValue::with_description("X-Agent-Token", "The token");
    components.security_schemes.insert("token".into(), SecurityScheme::ApiKey(ApiKey::Header(key)).into());
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The same token")).build();
    components.security_schemes.insert("bearer".into(), SecurityScheme::Http(bearer).into());
    let mut schemas =
        vec![("Problem".to_owned(), ProblemBody::schema()), ("RequestFaults".to_owned(), FaultsBody::schema())];
    schemas.push(("Fault".to_owned(), Fault::schema()));
    ProblemBody::schemas(&mut schemas);
    components.schemas.extend(schemas);
    for item in document.paths.paths.values_mut() {
        let all = [&mut item.get, &mut item.post, &mut item.delete];
        all.into_iter().flatten().for_each(complete_operation);
    }
}

fn complete_operation(operation: &mut Operation) {
    let open = operation.security.is_some();
    if !open {
        let requirement = |name| utoipa::openapi::security::SecurityRequirement::new(name, Vec::<String>::new());
        operation.security = Some(vec![requirement("token"), requirement("bearer")]);
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            parameter.schema = parameter.schema.take().map(never_null);
        }
    }
    let mut problems = vec![
        ("401", "No token that is known, or a wrong one"),
        ("403", "Not for this caller, or for a host or a page that the server does not serve"),
        ("429", "Too many requests; `Retry-After` says when to come back"),
    ];
    if !open {
        problems.push(("503", "The store cannot be read or written just now; `Retry-After` says when to come back"));
    }
    if operation.request_body.is_some() {
        problems.push(("413", "The body is larger than 4 MiB"));
    }
    for (status, description) in problems {
        operation.responses.responses.entry(status.into()).or_insert_with(|| problem(description));
    }
    if operation.request_body.is_some() || operation.parameters.as_ref().is_some_and(|all| !all.is_empty()) {
        let either =
            OneOfBuilder::new().item(Ref::from_schema_name("RequestFaults")).item(Ref::from_schema_name("Problem"));
        let faults = ResponseBuilder::new()
            .description("Faults of the request, all of them at once")
            .content("application/json", Content::new(Some(Schema::OneOf(either.build()))))
            .build();
        operation.responses.responses.entry("422".into()).or_insert_with(|| faults.into());
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        let id = ObjectBuilder::new().schema_type(Type::String);
        let id = utoipa::openapi::HeaderBuilder::new()
            .schema(Some(id))
            .description(Some("Also in the server's log"))
            .build();
        response.headers.insert("X-Request-Id".into(), id.into());
    }
}

/// A parameter is there or not; a header has no null.
fn never_null(mut schema: RefOr<Schema>) -> RefOr<Schema> {
    if let RefOr::T(Schema::Object(object)) = &mut schema
        && let SchemaType::Array(kinds) = &object.schema_type
        && let Some(kind) = kinds.iter().find(|kind| **kind != Type::Null)
    {
        object.schema_type = SchemaType::Type(kind.clone());
    }
    schema
}

fn problem(description: &str) -> RefOr<utoipa::openapi::Response> {
    ResponseBuilder::new()
        .description(description)
        .content("application/json", Content::new(Some(Ref::from_schema_name("Problem"))))
        .build()
        .into()
}
