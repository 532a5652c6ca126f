//! Erasing what a settled plan said and wrote. Its identifiers, digests, times and rules stay, and so does the whole log,
//! which never held anything else.

use provara_domain::{CommandText, EventBody, Judgement, Name, Nonce, Plan, PlanId, Status, Timestamp, Usage};
use rusqlite::params;
use rusqlite::types::Value;

use crate::denials;
use crate::memory::Effect;
use crate::plans::{delete_texts, guard, step};
use crate::sqlite::codec;
use crate::store::Store;
use crate::types::{Cause, PlanRecord, StoreError, TransitionError};

impl Store {
    /// Erases a settled plan's command, environment, input, note, reasons, scripts and output, in one commit with its event. What is
    /// erased is overwritten in the database, not only unlinked.
    ///
    /// # Errors
    /// When it is not settled or was erased before, or the store fails.
    pub async fn erase(&self, project: &Name, id: &PlanId, cause: Cause) -> Result<PlanRecord, TransitionError> {
        self.change_in(project, id, cause, |tx, found, cause| {
            guard(&found, found.status.is_settled() && found.erased_at.is_none())?;
            let set = [
                ("plan", codec::plan_json(&emptied(&found.plan)?)?.into()),
                ("stdin", Value::Null),
                ("note", Value::Null),
                ("reason", Value::Null),
                // A digest without a nonce: whoever guesses the command could confirm it.
                ("dedupe", Value::Null),
                // The reason that it leads to is another plan's, and speaks of this command too.
                ("denied_before_plan", Value::Null),
                ("measured", Value::Null),
                // Names are what it said.
                ("run_written", Value::Null),
                ("judgement", codec::json("judgement", &rules_alone(&found.judgement))?.into()),
                (
                    "run_usage",
                    match found.run.as_ref().and_then(|run| run.usage.as_ref()) {
                        // Whom it spoke to is what it said.
                        Some(usage) => codec::json("usage", &Usage { network: None, ..usage.clone() })?.into(),
                        None => Value::Null,
                    },
                ),
                ("erased_at", cause.at.as_millis().into()),
            ];
            let erased = step(tx, &found, &set, EventBody::PlanErased { digest: found.digest.clone() }, cause)?;
            denials::forget(tx.conn, &found.plan)?;
            tx.effect(Effect::PlanErased);
            delete_texts(tx.conn, &found.plan.id)?;
            if let Some(run) = &found.run {
                let sql = "DELETE FROM outputs WHERE run = ?1";
                tx.conn
                    .prepare_cached(sql)
                    .and_then(|mut it| it.execute([run.id.as_str()]))
                    .map_err(StoreError::from)?;
                // A crash before this comes true leaves files that the next start removes.
                tx.effect(Effect::OutputErased(run.id.clone()));
            }
            Ok(erased)
        })
        .await
    }

    /// Returns settled plans that came, and last changed, before `before` and are not erased, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn erasable(&self, project: &Name, before: Timestamp, limit: u32) -> Result<Vec<PlanId>, StoreError> {
        let project = project.clone();
        self.inner
            .readers
            .read(move |conn| {
                let settled: Vec<String> = Status::ALL
                    .into_iter()
                    .filter(|status| status.is_settled())
                    .map(|status| format!("'{}'", status.as_str()))
                    .collect();
                // Left to itself, the planner reads and sorts every settled plan.
                let mut query = conn.prepare_cached(&format!(
                    "SELECT id FROM plans INDEXED BY plans_unerased WHERE erased_at IS NULL AND queued_at < ?1 AND project = ?2 AND status IN ({}) \
                     AND (SELECT ts FROM log WHERE plan = plans.id ORDER BY plan_rev DESC LIMIT 1) < ?1 \
                     ORDER BY queued_at, seq LIMIT ?3",
                    settled.join(", ")
                ))?;
                let mut rows = query.query(params![before.as_millis(), project.as_str(), limit])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(codec::plan_id(&row.get::<_, String>(0)?)?);
                }
                Ok(found)
            })
            .await
    }
}

/// What stands where a command stood. Whoever reads a plan is told by `erased_at`, since anybody may write this.
const ERASED: &str = "[erased]";

/// The nonce goes too: with it, whoever guesses a short command could confirm the guess by the plan's digest.
fn emptied(plan: &Plan) -> Result<Plan, StoreError> {
    let command = CommandText::parse(ERASED.to_owned()).map_err(|_| StoreError::Corrupt { what: "erased command" })?;
    Ok(Plan { command, env: Default::default(), stdin: None, nonce: Nonce::new(0), ..plan.clone() })
}

fn rules_alone(judgement: &Judgement) -> Judgement {
    let mut kept = judgement.clone();
    for reason in &mut kept.reasons {
        reason.text.clear();
        reason.span = None;
    }
    kept
}
