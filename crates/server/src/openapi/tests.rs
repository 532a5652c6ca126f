use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, openapi::RefOr};

use super::*;
use crate::body::Fields;
use crate::{people, plans, requests};

fn document() -> Value {
    let mut document = crate::routes::routes().into_openapi();
    complete(&mut document, env!("CARGO_PKG_VERSION"));
    serde_json::to_value(document).unwrap()
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

fn properties(schema: RefOr<Schema>) -> BTreeSet<String> {
    let RefOr::T(Schema::Object(object)) = schema else { panic!("not an object") };
    object.properties.keys().cloned().collect()
}

fn read<T>(read: impl FnOnce(&mut Fields) -> T) -> BTreeSet<String> {
    let mut fields = Fields::default();
    read(&mut fields);
    fields.asked.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn bodies_are_read_as_they_are_documented() {
    use requests::*;
    assert_eq!(properties(PlanRequest::schema()), read(plans::proposal));
    assert_eq!(properties(ApproveRequest::schema()), read(plans::approval));
    assert_eq!(properties(DenyRequest::schema()), read(plans::denial));
    assert_eq!(properties(EditRequest::schema()), read(plans::changes));
    assert_eq!(properties(ExtendRequest::schema()), read(plans::extension));
    assert_eq!(properties(CheckRequest::schema()), read(plans::question));
    assert_eq!(properties(TokenRequest::schema()), read(people::holder));
    assert_eq!(properties(WorkspaceRequest::schema()), read(people::folder));
}
