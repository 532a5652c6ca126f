//! What an admin erases.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use provara_domain::{PlanId, Timestamp};
use provara_gateway::Erased;
use serde_json::json;

use crate::access::Caller;
use crate::body::Fields;
use crate::problem::Problem;
use crate::routes::App;

/// `POST /erase`: one plan, or a bounded number of those that settled before a day; `more` says to ask again.
pub(crate) async fn erase(State(app): State<App>, Caller(who): Caller, body: Bytes) -> Result<Response, Problem> {
    let mut fields = Fields::required(&body)?;
    let plan = fields.text("plan", 1, 100);
    let before = fields.text("before", 10, 10);
    let named = [plan.is_some(), before.is_some()];
    let before =
        fields.checked("before", before, |raw| Timestamp::parse_date(&raw).ok_or("not a day such as 2026-01-31"));
    if named == [true, true] || named == [false, false] {
        let msg = "Value error, name either `plan` or `before`";
        fields.fault("plan", "value_error", msg, serde_json::Value::Null, None);
    }
    fields.done()?;
    let erased = match (plan, before) {
        (Some(id), _) => {
            let id = PlanId::parse(&id).map_err(|_| Problem::not_found())?;
            app.gateway.erase(&who, &id).await?;
            Erased { plans: 1, more: false }
        }
        (None, Some(before)) => app.gateway.erase_before(&who, before).await?,
        (None, None) => return Err(Problem::fields(Vec::new())),
    };
    Ok(axum::Json(json!({ "erased": erased.plans, "more": erased.more })).into_response())
}
