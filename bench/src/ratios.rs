//! What is compared within one run: a long queue with none, many readers with none, Provara with its machine.

use serde_json::Value;

use crate::row::Row;

/// A field of the row of a measure where these fields have these values.
type Place<'a> = (&'a str, &'a [(&'a str, Value)], &'a str);

/// Returns a row for each ratio whose two sides were measured.
pub(crate) fn of(rows: &[Row], askers: u32, planners: u32, readers: u32) -> Vec<Row> {
    let (empty, short, long) = (("queue", Value::from("empty")), ("queue", "short".into()), ("queue", "long".into()));
    let (asking, planning, one) = (("clients", askers.into()), ("clients", planners.into()), ("clients", 1.into()));
    let (nobody, crowd) = (("readers", Value::from(0)), ("readers", readers.into()));
    let disk = [("limit", Value::from("fdatasync"))];
    // As a cost, so that 1 is no growth and more is worse: throughput the other way round.
    let cost = |name, over: Place<'_>, under: Place<'_>| one_of(rows, name, over, under);
    let rate = |name, over: Place<'_>, under: Place<'_>| one_of(rows, name, under, over);
    [
        rate(
            "plan, long queue / empty",
            ("plan", &[long.clone(), planning.clone()], "ops_per_s"),
            ("plan", &[empty.clone(), planning.clone()], "ops_per_s"),
        ),
        rate(
            "status, long queue / empty",
            ("status", &[long.clone(), asking.clone()], "ops_per_s"),
            ("status", &[empty.clone(), asking.clone()], "ops_per_s"),
        ),
        rate(
            "pending, long queue / short",
            ("pending", &[long.clone(), asking.clone()], "ops_per_s"),
            ("pending", &[short, asking], "ops_per_s"),
        ),
        cost(
            "approve, long queue / empty",
            ("approve", std::slice::from_ref(&long), "p50_us"),
            ("approve", std::slice::from_ref(&empty), "p50_us"),
        ),
        cost("plan, readers / none", ("events", &[crowd], "plan_p50_us"), ("events", &[nobody], "plan_p50_us")),
        cost("plan / serial fdatasync", ("plan", &[empty.clone(), one], "p50_us"), ("limits", &disk, "p50_us")),
        // The other way round it is a gain: how many plans share a wait for the disk.
        cost(
            "plans per second / serial fdatasyncs per second",
            ("plan", &[empty.clone(), planning], "ops_per_s"),
            ("limits", &disk, "ops_per_s"),
        ),
        cost(
            "approve / bare bash",
            ("approve", std::slice::from_ref(&empty), "p50_us"),
            ("approve", std::slice::from_ref(&empty), "bare_p50_us"),
        ),
        memory(rows),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn one_of(rows: &[Row], name: &str, over: Place<'_>, under: Place<'_>) -> Option<Row> {
    let value = found(rows, over)? / found(rows, under)?;
    value.is_finite().then(|| Row::new("ratio").with("of", name).number("value", value))
}

/// Bytes that each pending plan adds to one and the same server, which has warmed up over the short queue.
fn memory(rows: &[Row]) -> Option<Row> {
    let at = |queue: &str, field| found(rows, ("rss", &[("queue", queue.into())], field));
    let grown = (at("long", "server_mib")? - at("short", "server_mib")?) * 1_048_576.0;
    let plans = at("long", "pending")? - at("short", "pending")?;
    let each = grown / plans;
    each.is_finite().then(|| Row::new("ratio").with("of", "bytes of memory per pending plan").number("value", each))
}

fn found(rows: &[Row], (measure, fields, field): Place<'_>) -> Option<f64> {
    let fits =
        |row: &&Row| row.is("measure", &measure.into()) && fields.iter().all(|(name, value)| row.is(name, value));
    rows.iter().find(fits)?.get(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_cost_and_is_told_only_where_both_sides_are_known() {
        let plan = |queue: &str, ops: f64| {
            Row::new("plan").with("queue", queue).with("clients", 16).number("ops_per_s", ops).number("p50_us", 1.0)
        };
        let rss = |queue: &str, pending: u32, mib: f64| {
            Row::new("rss").with("queue", queue).with("pending", pending).number("server_mib", mib)
        };
        let mut rows = vec![plan("empty", 100.0), rss("short", 0, 10.0)];
        assert!(of(&rows, 16, 16, 1000).is_empty());
        rows.extend([plan("long", 50.0), rss("long", 1 << 20, 12.0)]);
        let told: Vec<_> = of(&rows, 16, 16, 1000).iter().map(Row::told).collect();
        assert_eq!(
            told,
            [
                "ratio            of=plan, long queue / empty value=2.0",
                "ratio            of=bytes of memory per pending plan value=2.0"
            ]
        );
    }
}
