//! Errors as clients see them: `detail` as they know it, with `code` and `request_id` beside it.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use provara_domain::{IdError, Measured};
use provara_gateway::{
    ControlError, DecideError, EraseError, EvidenceError, LookupError, PreviewError, PrincipalError, ProposeError,
    StoreError, WorkspaceError,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::lax;
use crate::openapi::words;
use crate::wire::{Binding, DeniedBefore, Judgement};

/// One fault of a request, in FastAPI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Fault {
    /// `missing`, `string_too_long`, `greater_than_equal`, …
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// Where: `body`, `query` or `header`, then the field's name; names and positions within it follow.
    #[schema(schema_with = words::loc)]
    pub(crate) loc: Vec<Value>,
    pub(crate) msg: String,
    /// What stood there; null where that is too long to tell.
    #[schema(schema_with = words::anything)]
    pub(crate) input: Value,
    /// The bound that was broken, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::object)]
    pub(crate) ctx: Option<Value>,
}

/// Faults of a request's fields.
#[derive(ToSchema)]
#[schema(as = RequestFaults)]
#[expect(dead_code, reason = "documents what `Problem` sends")]
pub(crate) struct FaultsBody {
    detail: Vec<Fault>,
    /// Always `invalid_request`.
    code: String,
    /// Also in the header `X-Request-Id`, and in the server's log.
    request_id: String,
}

/// An error. `code` is for programs, `detail` for people.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "documents what `Problem` sends")]
pub(crate) struct ProblemBody<'a> {
    detail: String,
    /// `policy_denied`, `plan_not_pending`, `digest_mismatch`, `rate_limited`, …
    code: String,
    /// Also in the header `X-Request-Id`, and in the server's log.
    request_id: String,
    /// With `policy_denied`: the plan that was stored and not queued.
    #[schema(nullable = false)]
    pending_id: Option<String>,
    /// With `policy_denied` and `judgement_changed`: why.
    judgement: Option<Judgement<'a>>,
    /// With `cool_down`: what people answered to the same proposal.
    denied_before: Option<DeniedBefore<'a>>,
    /// With `binding_changed`: what the plan binds now.
    binding: Option<Binding<'a>>,
    /// With `binding_changed`: what it bound before.
    binding_shown: Option<Binding<'a>>,
    /// With conflicts: the state that was found.
    #[schema(schema_with = words::state, required = false)]
    state: Option<String>,
    /// With `digest_mismatch`: the plan's own.
    #[schema(schema_with = words::digest, required = false)]
    digest: Option<String>,
}

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Detail,
    more: Map<String, Value>,
    retry_after: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Detail {
    Text(String),
    Faults(Vec<Fault>),
}

impl Problem {
    /// An error that the caller can do something about.
    pub(crate) fn caller(status: StatusCode, code: &'static str, detail: impl ToString) -> Self {
        Self { status, code, detail: Detail::Text(detail.to_string()), more: Map::new(), retry_after: None }
    }

    /// Faults of a request's fields, in FastAPI's shape.
    pub(crate) fn fields(faults: Vec<Fault>) -> Self {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self { status, code: "invalid_request", detail: Detail::Faults(faults), more: Map::new(), retry_after: None }
    }

    /// An error of ours. The caller learns that it is not theirs; the log has the whole chain.
    pub(crate) fn ours(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        let text = "the server could not read or write its store; try again, and see its log if it stays so";
        let problem = Self::caller(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text);
        Self { retry_after: Some(1), ..problem }
    }

    pub(crate) fn too_many_streams() -> Self {
        let text = "this token holds too many open streams; close some";
        Self::caller(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", text).retry_after(5)
    }

    /// No such route. Where a route's own thing is missing, that is said.
    pub(crate) fn not_found() -> Self {
        Self::caller(StatusCode::NOT_FOUND, "not_found", "Not Found")
    }

    pub(crate) fn forbidden(detail: &str) -> Self {
        Self::caller(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn judged(self, judgement: &provara_domain::Judgement) -> Self {
        // What cannot be told is left out; the words of `detail` say the same.
        match serde_json::to_value(Judgement::from(judgement)) {
            Ok(judgement) => self.with("judgement", judgement),
            Err(_) => self,
        }
    }

    fn denied_before(self, denied: &provara_gateway::DeniedBefore) -> Self {
        // As above: the words of `detail` say the same.
        match serde_json::to_value(DeniedBefore::from(denied)) {
            Ok(denied) => self.with("denied_before", denied),
            Err(_) => self,
        }
    }

    /// Tells what was measured, without the scripts' texts: those are the plan's to show.
    fn measured(self, field: &'static str, known: Option<&Measured>) -> Self {
        let Some(known) = known else { return self };
        let digest = provara_gateway::binding_digest(known);
        match serde_json::to_value(Binding::new(known, &digest, &[])) {
            Ok(binding) => self.with(field, binding),
            Err(_) => self,
        }
    }

    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        let unsent = Unsent { detail: self.detail, code: self.code, more: self.more };
        response.extensions_mut().insert(Arc::new(unsent));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// What a response will tell: the layer that knows the request's id makes it the body.
#[derive(Debug, Serialize)]
pub(crate) struct Unsent {
    detail: Detail,
    code: &'static str,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// Makes a problem the body of its response, with the request's id.
pub(crate) fn tell(response: Response, request_id: &str) -> Response {
    #[derive(Serialize)]
    struct Sent<'a> {
        #[serde(flatten)]
        unsent: &'a Unsent,
        request_id: &'a str,
    }
    let (mut parts, body) = response.into_parts();
    match parts.extensions.remove::<Arc<Unsent>>() {
        Some(unsent) => (parts, axum::Json(Sent { unsent: &unsent, request_id })).into_response(),
        None => Response::from_parts(parts, body),
    }
}

/// An id that is none names nothing.
impl From<IdError> for Problem {
    fn from(error: IdError) -> Self {
        Self::caller(StatusCode::NOT_FOUND, "not_found", error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::ours(&error)
    }
}

impl From<ProposeError> for Problem {
    fn from(error: ProposeError) -> Self {
        match &error {
            ProposeError::NotAnAgent => Self::forbidden(&error.to_string()),
            ProposeError::WorkingDir(cause) => field("cwd", "value_error", &cause.to_string()),
            ProposeError::OutsideWorkspaces { .. } => field("cwd", "value_error", &error.to_string()),
            ProposeError::UnknownTarget(_) => field("target", "value_error", &error.to_string()),
            ProposeError::Profile { .. } => field("profile", "value_error", &error.to_string()),
            ProposeError::PendingCap { .. } => {
                Self::caller(StatusCode::TOO_MANY_REQUESTS, "pending_cap", error).retry_after(60)
            }
            ProposeError::CoolDown { denied, wait } => {
                let held = Self::caller(StatusCode::TOO_MANY_REQUESTS, "cool_down", &error);
                held.retry_after(wait.as_secs()).denied_before(denied)
            }
            ProposeError::IdempotencyMismatch => {
                Self::caller(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch", error)
            }
            ProposeError::Stopping => Self::caller(StatusCode::SERVICE_UNAVAILABLE, "stopping", error).retry_after(5),
            ProposeError::Store(_) => Self::ours(&error),
        }
    }
}

/// A fault of one field of the body that only the gateway could see.
fn field(name: &'static str, kind: &'static str, message: &str) -> Problem {
    Problem::fields(vec![lax::Fault::new(kind, message, None).at(["body", name], Value::Null)])
}

impl From<DecideError> for Problem {
    fn from(error: DecideError) -> Self {
        let text = error.to_string();
        match error {
            DecideError::NotAnApprover => Self::forbidden(&text),
            DecideError::NotFound { .. } => Self::caller(StatusCode::NOT_FOUND, "not_found", text),
            DecideError::Conflict { record } => {
                Self::caller(StatusCode::CONFLICT, "plan_not_pending", text).with("state", record.status.as_str())
            }
            DecideError::DigestMismatch { found } => {
                Self::caller(StatusCode::CONFLICT, "digest_mismatch", text).with("digest", found.as_str())
            }
            DecideError::JudgementChanged { record } => {
                Self::caller(StatusCode::CONFLICT, "judgement_changed", text).judged(&record.judgement)
            }
            DecideError::BindingChanged { shown, record } => {
                Self::caller(StatusCode::CONFLICT, "binding_changed", text)
                    .measured("binding", record.measured.as_ref())
                    .measured("binding_shown", shown.as_deref())
            }
            DecideError::PolicyDenied { record } => {
                Self::caller(StatusCode::FORBIDDEN, "policy_denied", text).judged(&record.judgement)
            }
            DecideError::IdempotencyMismatch => {
                Self::caller(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch", text)
            }
            DecideError::Profile(_) => field("profile", "value_error", &text),
            DecideError::ProfileMismatch { found, .. } => {
                Self::caller(StatusCode::CONFLICT, "profile_mismatch", text).with("profile_sha256", found.as_str())
            }
            DecideError::NotBound { .. } => Self::caller(StatusCode::CONFLICT, "binding_demanded", text),
            DecideError::ProfileRuled { .. } => Self::caller(StatusCode::CONFLICT, "profile_ruled", text),
            DecideError::NoReason { .. } => field("reason", "value_error", &text),
            DecideError::HigherLimit { what } => field(what, "value_error", &text),
            DecideError::Edit(error) => error.into(),
            error @ DecideError::Store { .. } => Self::ours(&error),
        }
    }
}

impl From<PreviewError> for Problem {
    fn from(error: PreviewError) -> Self {
        let text = error.to_string();
        match error {
            PreviewError::Decide(error) => error.into(),
            PreviewError::Busy => Self::caller(StatusCode::TOO_MANY_REQUESTS, "too_many_previews", text).retry_after(5),
            PreviewError::Stopping => Self::caller(StatusCode::SERVICE_UNAVAILABLE, "stopping", text),
            PreviewError::NoRunner | PreviewError::Profile | PreviewError::Unavailable { .. } => {
                Self::caller(StatusCode::CONFLICT, "preview_unavailable", text)
            }
            PreviewError::Lost => Self::caller(StatusCode::SERVICE_UNAVAILABLE, "preview_lost", text),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let text = error.to_string();
        match error {
            ControlError::NotAllowed => Self::forbidden(&text),
            ControlError::NotFound { .. } => Self::caller(StatusCode::NOT_FOUND, "not_found", text),
            ControlError::Conflict { record } => {
                Self::caller(StatusCode::CONFLICT, "plan_settled", text).with("state", record.status.as_str())
            }
            ControlError::NotLonger { .. } => Self::caller(StatusCode::CONFLICT, "not_longer", text),
            error @ ControlError::Store { .. } => Self::ours(&error),
        }
    }
}

impl From<LookupError> for Problem {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NoPlan { .. } => Self::caller(StatusCode::NOT_FOUND, "not_found", error),
            LookupError::Store { .. } => Self::ours(&error),
        }
    }
}

impl From<EvidenceError> for Problem {
    fn from(error: EvidenceError) -> Self {
        match error {
            EvidenceError::Beyond { .. } => Self::caller(StatusCode::NOT_FOUND, "beyond_the_log", error),
            EvidenceError::Store(_) => Self::ours(&error),
        }
    }
}

impl From<EraseError> for Problem {
    fn from(error: EraseError) -> Self {
        let text = error.to_string();
        match error {
            EraseError::NotAnAdmin => Self::forbidden(&text),
            EraseError::NotFound => Self::caller(StatusCode::NOT_FOUND, "not_found", text),
            EraseError::NotErasable { found, .. } => {
                Self::caller(StatusCode::CONFLICT, "not_erasable", text).with("state", found.as_str())
            }
            error @ EraseError::Store(_) => Self::ours(&error),
        }
    }
}

impl From<PrincipalError> for Problem {
    fn from(error: PrincipalError) -> Self {
        match &error {
            PrincipalError::NotAnAdmin => Self::forbidden(&error.to_string()),
            PrincipalError::AgentAndPerson | PrincipalError::NoRole => {
                field("roles", "value_error", &error.to_string())
            }
            PrincipalError::Store(provara_gateway::TokenError::NotFound) => {
                Self::caller(StatusCode::NOT_FOUND, "not_found", error)
            }
            PrincipalError::Store(provara_gateway::TokenError::Exists) => {
                Self::caller(StatusCode::CONFLICT, "token_exists", error)
            }
            PrincipalError::Store(provara_gateway::TokenError::Store(_)) => Self::ours(&error),
        }
    }
}

impl From<WorkspaceError> for Problem {
    fn from(error: WorkspaceError) -> Self {
        match &error {
            WorkspaceError::NotAnAdmin => Self::forbidden(&error.to_string()),
            WorkspaceError::Refused { .. } => field("path", "value_error", &error.to_string()),
            WorkspaceError::Store(_) => Self::ours(&error),
        }
    }
}
