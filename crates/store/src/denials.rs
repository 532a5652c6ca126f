//! Denials that still count: what a person refused lately, so that the same cannot be asked until somebody errs. Written by
//! the transaction that denies; a plan that nobody denied an equal of costs one look at an index.

use std::time::Duration;

use provara_audit::canonical;
use provara_domain::{Plan, PlanId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::sqlite::codec::{self, signed};
use crate::types::{CoolDown, DeniedBefore, NewPlan, StoreError};

/// The most denials that are counted: whoever denies more often than this has a queue that was full before.
const COUNTED: u32 = 1000;
/// Denials out of the window that one new denial sweeps away.
const SWEEP: u32 = 64;

/// What a new plan finds.
pub(crate) struct Denials {
    pub(crate) before: DeniedBefore,
    /// The plan that was denied last: it holds the reason, so that erasing it erases every copy.
    pub(crate) last: PlanId,
    /// Times of the denials, newest first.
    times: Vec<i64>,
}

impl Denials {
    /// Until when a further plan is held back, if it is.
    pub(crate) fn hold_until(&self, rule: CoolDown) -> Option<Timestamp> {
        let nth = usize::try_from(rule.denials.min(COUNTED)).ok()?.checked_sub(1)?;
        self.times.get(nth).map(|at| Timestamp::from_millis(*at).plus(rule.window))
    }
}

/// Returns the denials of plans equal to `new` that still count, if there are any.
pub(crate) fn of(conn: &Connection, new: &NewPlan) -> Result<Option<Denials>, StoreError> {
    let plan = &new.plan;
    let mut query = conn.prepare_cached(
        "SELECT at, plan FROM denials WHERE project = ?1 AND agent = ?2 AND dedupe = ?3 AND at > ?4 AND at <= ?5 \
         ORDER BY at DESC, plan DESC LIMIT ?6",
    )?;
    let (now, window) = (new.cause.at, new.cool_down.window);
    // A clock that was set back leaves denials in the future: they count, but none holds back for longer than two windows.
    let (oldest, newest) = (oldest(now, window), now.plus(window).as_millis());
    let (project, agent, dedupe) = (plan.project.as_str(), plan.agent.as_str(), new.dedupe.as_str());
    let mut rows = query.query(params![project, agent, dedupe, oldest, newest, COUNTED])?;
    let (mut times, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        times.push(row.get(0)?);
        if last.is_none() {
            last = Some(codec::plan_id(&row.get::<_, String>(1)?)?);
        }
    }
    let (Some(last), Some(at)) = (last, times.first()) else { return Ok(None) };
    let before = DeniedBefore {
        count: u32::try_from(times.len()).unwrap_or(COUNTED),
        last_at: Timestamp::from_millis(*at),
        reason: reason(conn, &last)?,
    };
    Ok(Some(Denials { before, last, times }))
}

fn reason(conn: &Connection, denied: &PlanId) -> Result<Option<String>, StoreError> {
    let mut query = conn.prepare_cached("SELECT reason FROM plans WHERE id = ?1")?;
    Ok(query.query_row([denied.as_str()], |row| row.get(0)).optional()?.flatten())
}

/// Keeps that `plan` was denied, and sweeps away what no longer counts.
pub(crate) fn keep(conn: &Connection, plan: &Plan, at: Timestamp, counts_for: Duration) -> Result<(), StoreError> {
    let mut sweep = conn.prepare_cached(
        "DELETE FROM denials WHERE (project, agent, dedupe, at, plan) IN \
         (SELECT project, agent, dedupe, at, plan FROM denials WHERE at <= ?1 ORDER BY at LIMIT ?2)",
    )?;
    sweep.execute(params![oldest(at, counts_for), SWEEP])?;
    let mut insert =
        conn.prepare_cached("INSERT INTO denials (project, agent, dedupe, at, plan) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let (dedupe, at) = (canonical::plan_dedupe_digest(plan), at.as_millis());
    insert.execute(params![plan.project.as_str(), plan.agent.as_str(), dedupe.as_str(), at, plan.id.as_str()])?;
    Ok(())
}

/// Forgets that `plan` was denied. Its digest has no nonce: whoever guesses the command could confirm it.
pub(crate) fn forget(conn: &Connection, plan: &Plan) -> Result<(), StoreError> {
    let mut delete =
        conn.prepare_cached("DELETE FROM denials WHERE project = ?1 AND agent = ?2 AND dedupe = ?3 AND plan = ?4")?;
    let dedupe = canonical::plan_dedupe_digest(plan);
    delete.execute(params![plan.project.as_str(), plan.agent.as_str(), dedupe.as_str(), plan.id.as_str()])?;
    Ok(())
}

fn oldest(now: Timestamp, window: Duration) -> i64 {
    now.as_millis().saturating_sub(signed(u64::try_from(window.as_millis()).unwrap_or(u64::MAX)))
}
