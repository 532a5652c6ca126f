use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use axum::http::HeaderMap;
use serde_json::{Value, json};
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, openapi::RefOr};

use crate::body::{Body, Fields};
use crate::{erase, people, plans, requests};

fn document() -> Value {
    serde_json::to_value(super::document(env!("CARGO_PKG_VERSION"))).unwrap()
}

#[test]
fn the_document_is_the_one_that_was_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let now = format!("{:#}\n", document());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let reviewed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        reviewed == now,
        "docs/openapi.json is not what the server says; renew it with `UPDATE_GOLDEN=1 cargo test -p provara-server` and \
         read the difference as a client would"
    );
}

#[test]
fn a_route_cannot_be_added_without_its_documentation() {
    let source = include_str!("../routes.rs");
    for beside in [".route(", ".nest(", ".merge(", ".route_service("] {
        assert!(
            !source.contains(beside),
            "`{beside}` adds what the document does not know; use `.routes(routes!(..))`"
        );
    }
    let registered = source.matches(".routes(routes!(").count();
    assert_eq!(document()["paths"].as_object().unwrap().len(), registered);
}

#[test]
fn every_operation_has_a_name_of_its_own_and_every_reference_leads_somewhere() {
    let document = document();
    let mut names = BTreeSet::new();
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "two operations are called {name}");
            assert!(operation["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{name} says nothing");
        }
    }
    let text = document.to_string();
    for reference in text.split(r##""$ref":"#"##).skip(1) {
        let place = reference.split('"').next().unwrap();
        assert!(document.pointer(place).is_some(), "{place} leads nowhere");
    }
}

/// Compares what a schema says of a body with what `read` takes from one: the names, and every bound.
fn alike<T>(schema: RefOr<Schema>, read: fn(&mut Fields) -> T) {
    let schema = serde_json::to_value(schema).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let mut fields = Fields::default();
    read(&mut fields);
    let asked: BTreeSet<&str> = fields.asked.iter().copied().collect();
    assert_eq!(properties.keys().map(String::as_str).collect::<BTreeSet<_>>(), asked);
    for (name, property) in properties {
        let property = property["anyOf"].as_array().map_or(property, |either| &either[0]);
        let long = |by: u64| json!("x".repeat(usize::try_from(by).unwrap()));
        for (bound, ctx, beyond) in [
            ("maxLength", "max_length", property["maxLength"].as_u64().map(|most| long(most + 1))),
            ("minLength", "min_length", property["minLength"].as_u64().map(|least| long(least - 1))),
            ("maximum", "le", property["maximum"].as_i64().map(|most| json!(most + 1))),
            ("minimum", "ge", property["minimum"].as_i64().map(|least| json!(least - 1))),
        ] {
            let Some(beyond) = beyond else { continue };
            let mut fields = body(&json!({ name: beyond }));
            read(&mut fields);
            let fault = fields.faults.iter().find(|fault| fault.loc == [json!("body"), json!(name)]);
            let told = fault.and_then(|fault| fault.ctx.as_ref()).map(|known| known[ctx].clone());
            assert_eq!(told.as_ref(), Some(&property[bound]), "{bound} of {name}");
        }
    }
}

fn body(value: &Value) -> Fields {
    Body { headers: HeaderMap::new(), bytes: value.to_string().into() }.required().unwrap()
}

#[test]
fn bodies_are_read_as_they_are_documented() {
    use requests::*;
    alike(PlanRequest::schema(), plans::proposal);
    alike(ApproveRequest::schema(), plans::approval);
    alike(DenyRequest::schema(), plans::denial);
    alike(EditRequest::schema(), plans::changes);
    alike(ExtendRequest::schema(), plans::extension);
    alike(CheckRequest::schema(), plans::question);
    alike(EraseRequest::schema(), erase::which);
    alike(TokenRequest::schema(), |fields| (people::replaced(fields), people::holder(fields)));
    alike(WorkspaceRequest::schema(), people::folder);
}
