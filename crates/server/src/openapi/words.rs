//! Schemas that no Rust type says by itself: words of the domain, made from the domain's own lists.

use provara_domain::{Role, Shell, Status};
use utoipa::openapi::schema::{AnyOfBuilder, Array, ArrayBuilder, Object, ObjectBuilder, Schema, SchemaType, Type};

fn one_of<'a>(description: &str, all: impl IntoIterator<Item = &'a str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description)).enum_values(Some(all)).build()
}

fn matching(description: &str, pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description)).pattern(Some(pattern))
}

fn or_null(schema: Object) -> Schema {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    Schema::AnyOf(AnyOfBuilder::new().item(schema).item(null).build())
}

pub(crate) fn state() -> Object {
    one_of("Where the plan stands", Status::ALL.map(Status::as_str))
}

pub(crate) fn verdict() -> Object {
    one_of("From mild to strict", ["allow", "ask", "deny"])
}

pub(crate) fn severity() -> Object {
    one_of("How bad it could get", ["info", "low", "medium", "high", "critical"])
}

pub(crate) fn decision() -> Object {
    one_of("Yes or no", ["approve", "deny"])
}

pub(crate) fn method() -> Object {
    matching("How the approver proved to be one: `token`, …", "^[a-z_]+$").build()
}

pub(crate) fn spawn_failure() -> Object {
    one_of("Why it was never started", ["confinement", "changed", "missing", "refused"])
}

pub(crate) fn limit() -> Object {
    one_of("The bound that it went over", ["memory", "cpu", "processes", "output", "file_size"])
}

pub(crate) fn plan_kind() -> Object {
    one_of("What the plan proposes to do", ["command"])
}

pub(crate) fn shell() -> Object {
    one_of("The shell that reads the command", Shell::ALL.map(Shell::as_str))
}

pub(crate) fn shell_or_null() -> Schema {
    or_null(shell())
}

pub(crate) fn shells() -> Array {
    ArrayBuilder::new().items(shell()).build()
}

pub(crate) fn roles() -> Array {
    let words = [Role::Agent, Role::Approver, Role::Auditor, Role::Admin, Role::Runner].map(Role::as_str);
    ArrayBuilder::new().items(one_of("What the holder may do", words)).build()
}

pub(crate) fn roles_or_null() -> Schema {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    Schema::AnyOf(AnyOfBuilder::new().item(roles()).item(null).build())
}

pub(crate) fn stream() -> Object {
    one_of("Which of the two outputs; `stdout` by default", ["stdout", "stderr"])
}

pub(crate) fn digest() -> Object {
    matching("SHA-256", "^sha256:[0-9a-f]{64}$").build()
}

pub(crate) fn script_use() -> Object {
    one_of("How the command uses it", ["program", "interpreted", "sourced", "makefile"])
}

pub(crate) fn script_state() -> Object {
    one_of("Whether its bytes are bound", ["bound", "unbound"])
}

pub(crate) fn script_content() -> Schema {
    or_null(one_of("What it holds", ["text", "binary", "too_long"]))
}

pub(crate) fn digest_or_null() -> Schema {
    or_null(digest())
}

pub(crate) fn name() -> Object {
    matching("A name", "^[A-Za-z0-9][A-Za-z0-9._-]*$").min_length(Some(1)).max_length(Some(64)).build()
}

pub(crate) fn name_or_null() -> Schema {
    or_null(name())
}

pub(crate) fn states() -> Object {
    let word = Status::ALL.map(Status::as_str).join("|");
    let description = "States to list, separated by commas; all of them by default";
    matching(description, &format!("^({word})(,({word}))*$")).build()
}

pub(crate) fn loc() -> Array {
    let part = AnyOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::String))
        .item(ObjectBuilder::new().schema_type(Type::Integer));
    ArrayBuilder::new().items(part).build()
}

pub(crate) fn anything() -> Object {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).build()
}

pub(crate) fn object() -> Object {
    ObjectBuilder::new().schema_type(Type::Object).build()
}

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident = $schema:expr;)*) => { $(
        $(#[$doc])*
        pub(crate) struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<Schema> {
                Schema::from($schema).into()
            }
        }

        impl utoipa::ToSchema for $name {}
    )* };
}

named! {
    /// What `state` of a list takes.
    States = states();
    /// What `stream` of an output takes.
    WhichStream = stream();
    /// Bytes as they are.
    Bytes = ObjectBuilder::new().content_media_type("application/octet-stream").build();
    /// A JSON object of which nothing more is said.
    AnyObject = object();
}
