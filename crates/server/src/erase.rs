//! What an admin erases.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use provara_domain::{PlanId, Timestamp};
use provara_gateway::Erased;
use serde_json::Value;

use crate::access::Caller;
use crate::body::{Body, Fields};
use crate::problem::{Problem, ProblemBody};
use crate::routes::App;
use crate::{requests, wire};

/// Erases what settled plans said and wrote: one plan, or some of those that settled before a day.
///
/// Digests, decisions, times and the log stay. `more` says to ask again.
#[utoipa::path(post, path = "/erase", operation_id = "erase", tag = "admin", request_body = requests::EraseRequest,
    responses((status = 200, description = "They are erased", body = wire::Erased),
        (status = 404, description = "No such plan", body = ProblemBody),
        (status = 409, description = "The plan is not settled, or is erased already", body = ProblemBody)))]
pub(crate) async fn erase(State(app): State<App>, Caller(who): Caller, body: Body) -> Result<Response, Problem> {
    let mut fields = body.required()?;
    let (plan, before) = which(&mut fields);
    fields.done()?;
    let erased = match (plan, before) {
        (Some(id), _) => {
            let id = PlanId::parse(&id)?;
            app.gateway.erase(&who, &id).await?;
            Erased { plans: 1, more: false }
        }
        (None, Some(before)) => app.gateway.erase_before(&who, before).await?,
        (None, None) => return Err(Problem::fields(Vec::new())),
    };
    Ok(axum::Json(wire::Erased { erased: erased.plans, more: erased.more }).into_response())
}

pub(crate) fn which(fields: &mut Fields) -> (Option<String>, Option<Timestamp>) {
    let plan = fields.text("plan", 1, 100);
    let before = fields.text("before", 10, 10);
    if plan.is_some() == before.is_some() {
        fields.wrong("plan", "name either `plan` or `before`", Value::Null);
    }
    let before =
        fields.checked("before", before, |raw| Timestamp::parse_date(&raw).ok_or("not a day such as 2026-01-31"));
    (plan, before)
}
