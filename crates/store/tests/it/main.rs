//! The store's contract. The cases below know [`Store`] and nothing behind it: every backend has to pass all of them.
//! What only one backend can suffer is in `damage` and `kill`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail loudly and say what they skip"
)]

mod damage;
mod decisions;
mod denials;
mod erase;
mod histories;
mod kill;
mod lists;
mod log;
mod pages;
mod proposals;
mod recovery;
mod runs;
mod tokens;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use provara_audit::{canonical, merkle};
use provara_domain::*;
use provara_store::*;

/// Runs each case in a place of its own.
macro_rules! contract {
    ($backend:ident: $($topic:ident { $($case:ident,)+ })+) => {
        mod $backend {
            $(mod $topic {
                $(#[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    crate::$topic::$case(crate::Place::$backend()).await;
                })+
            })+
        }
    };
}

contract! { sqlite:
    proposals {
        a_repeated_key_answers_with_the_first_plan_and_another_body_is_refused,
        a_key_belongs_to_its_scope_and_project,
        a_key_lasts_24_hours,
        a_refused_proposal_leaves_no_key,
        of_32_proposals_with_one_key_one_is_stored,
        an_equal_pending_plan_answers_only_when_asked_and_only_its_own_agent,
        no_race_gets_an_agent_past_its_cap,
        a_denied_plan_is_blocked_and_takes_no_place_in_the_queue,
        every_field_of_a_plan_comes_back,
        a_measurement_is_kept_with_its_texts_and_replaced_while_pending,
    }
    lists {
        a_list_is_newest_first_and_of_the_statuses_asked_for,
        pages_show_nothing_twice_and_miss_nothing_while_plans_come_and_go,
        an_agent_sees_its_own_and_another_projects_plans_do_not_exist,
    }
    pages {
        whoever_was_answered_finds_it_in_the_next_list,
        a_list_is_its_owners_and_goes_on_where_it_ended,
        what_is_erased_leaves_the_memory_with_the_commit,
    }
    decisions {
        of_sixteen_decisions_one_wins,
        every_step_from_every_status_is_in_the_table_or_changes_nothing,
        what_a_plan_became_too_late_or_unseen_is_not_decided,
        a_key_is_kept_by_the_decision_that_it_made,
        an_edit_and_a_reopening_are_linked_and_happen_once,
    }
    runs {
        each_step_is_counted_once_and_a_refused_one_never,
        of_sixteen_claims_one_wins,
        an_approval_and_its_claim_are_one_commit_or_none,
        a_claim_needs_its_target_and_a_valid_approval,
        a_run_is_recorded_once,
        a_lost_run_can_still_be_told_of_and_the_log_says_late,
        a_run_keeps_the_ends_of_its_output,
        whoever_follows_an_output_is_woken_by_bytes_and_by_its_end,
    }
    log {
        every_entry_is_followed_proved_and_in_its_plans_order,
        a_checkpoint_is_kept_and_what_the_log_has_not_is_refused,
    }
    tokens {
        a_token_counts_from_its_commit_to_its_revocation,
        a_token_is_replaced_whole_or_not_at_all,
        a_configured_token_follows_its_configuration_and_stays_revoked,
        a_secret_has_one_holder,
        workspaces_are_added_and_removed_once,
    }
    recovery {
        what_was_acknowledged_is_there_after_a_drop_and_a_second_server_is_refused,
        a_crash_makes_running_plans_lost_and_keeps_their_output,
        whoever_asks_a_closed_store_is_told_so,
        outputs_that_a_crash_left_behind_are_removed_and_no_others,
    }
    denials {
        what_was_denied_is_told_with_the_next_equal_plan_and_after_three_that_is_refused,
        a_denial_counts_for_its_window_and_no_longer,
        nobody_elses_denials_and_no_other_command_are_held_back,
        what_was_answered_before_and_what_policy_denies_is_answered_as_before,
        a_cool_down_that_is_off_still_tells,
        of_32_proposals_after_the_third_denial_none_gets_through,
        denials_and_proposals_at_once_let_no_fourth_through,
        denials_last_over_a_restart,
        an_erasure_takes_the_denial_its_digest_and_its_reason,
        what_no_longer_counts_is_swept_away_by_the_next_denial,
    }
    erase {
        what_was_said_and_written_is_gone_and_what_proves_it_stays,
        only_what_is_settled_and_old_is_erased,
        an_erased_plan_is_not_reopened_and_takes_no_late_output,
        output_that_a_crash_kept_from_being_erased_goes_at_the_next_start,
    }
    histories {
        never_leave_the_table,
    }
}

/// Where one store lives, the one thing here that knows of a backend. Opened again, it is the same store.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn sqlite() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Another place of the same kind.
    fn another(&self) -> Self {
        Self::sqlite()
    }

    fn open_keeping(&self, output_keep: u64) -> Result<Store, OpenError> {
        Store::open(StoreConfig { runtime: self.folder.path().to_owned(), output_keep })
    }

    fn try_open(&self) -> Result<Store, OpenError> {
        self.open_keeping(20)
    }

    fn open(&self) -> Store {
        self.try_open().unwrap()
    }
}

/// How long a denial counts.
const WINDOW: Duration = Duration::from_secs(3600);

fn project() -> Name {
    Name::default_project()
}

fn name(raw: &str) -> Name {
    Name::parse(raw).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_795_479_747_000 + seconds * 1000)
}

fn cause(seconds: i64) -> Cause {
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    let entropy = Entropy(u128::from(DRAWN.fetch_add(1, Ordering::Relaxed)));
    Cause { actor: Actor::System, at: at(seconds), entropy }
}

fn policy() -> PolicyVersion {
    PolicyVersion { version: "1".into(), digest: canonical::sha256(b"policy") }
}

fn judgement() -> Judgement {
    Judgement::of(Vec::new(), policy())
}

fn judged(verdict: Verdict) -> Judgement {
    let (rule, category, text) = ("a-rule".into(), "a-category".into(), "why".into());
    Judgement::of(vec![Reason { rule, category, verdict, severity: Severity::High, text, span: None }], policy())
}

fn new_plan(n: u64) -> NewPlan {
    new_plan_of("agent", n)
}

fn new_plan_of(agent: &str, n: u64) -> NewPlan {
    planned(Plan {
        kind: PlanKind::Command,
        id: PlanId::new(at(0), n),
        project: project(),
        agent: name(agent),
        command: CommandText::parse(format!("echo {n}")).unwrap(),
        shell: Shell::Bash,
        cwd: WorkingDir::parse("/srv".into()).unwrap(),
        env: BTreeMap::new(),
        stdin: None,
        tty: false,
        timeout: Timeout::DEFAULT,
        target: Name::local_target(),
        profile: ProfileName::workspace(),
        nonce: Nonce::new(u128::from(n)),
    })
}

/// What was measured of a plan that runs one script of that text.
fn measured(text: &str) -> Measurement {
    let sha256 = canonical::sha256(text.as_bytes());
    let size = u64::try_from(text.len()).unwrap();
    let script = BoundScript { path: "/srv/work/s.sh".into(), sha256: sha256.clone(), size };
    let found =
        ScriptFound::Bound { path: script.path.clone(), sha256: sha256.clone(), size, content: ScriptContent::Text };
    let named =
        MeasuredScript { named: "s.sh".into(), span: Span { start: 5, end: 9 }, how: ScriptUse::Interpreted, found };
    let binding = Binding {
        runner: Name::local_target(),
        cwd_dev_ino: Some("1:2".into()),
        shell_sha256: Some(canonical::sha256(b"shell")),
        scripts: vec![script],
        profile_sha256: canonical::sha256(b"profile"),
    };
    let texts = vec![ScriptText { sha256, text: text.to_owned() }];
    Measurement { measured: Measured { binding, scripts: vec![named] }, texts }
}

fn planned(plan: Plan) -> NewPlan {
    NewPlan {
        digest: canonical::plan_digest(&plan),
        dedupe: canonical::plan_dedupe_digest(&plan),
        equal: EqualPending::StaysApart,
        plan,
        note: None,
        judgement: judgement(),
        measurement: None,
        expires_at: at(1000),
        pending_cap: 1000,
        cool_down: CoolDown { denials: 3, window: WINDOW },
        idempotency: None,
        cause: cause(0),
    }
}

/// A decision taken `seconds` after the start.
fn decision(new: &NewPlan, kind: DecisionKind, seconds: i64) -> NewDecision {
    let decision = Decision {
        plan: new.plan.id.clone(),
        digest: new.digest.clone(),
        binding: None,
        decision: kind,
        profile: ProfileName::workspace(),
        limits: Limits { timeout_s: 30, resources: ResourceLimits::default() },
        approver: name("ann"),
        method: DecisionMethod::Token,
        nonce: Nonce::new(7),
        ts: at(seconds),
    };
    NewDecision {
        decision,
        reason: None,
        judgement: judgement(),
        approval_valid_until: at(600),
        denial_counts_for: WINDOW,
        profile_change: None,
        idempotency: None,
        cause: cause(seconds),
    }
}

fn run_of(n: u64) -> RunId {
    RunId::new(at(2), n)
}

fn ran(run: RunId, stdout_bytes: u64) -> Ran {
    Ran {
        run,
        outcome: Outcome::Exited { code: 0 },
        enforced: Enforced { profile: "workspace".into(), mechanisms: Vec::new() },
        started_at: at(2),
        duration: Duration::from_millis(5),
        stdout_bytes,
        stderr_bytes: 0,
        redactions: stdout_bytes,
        usage: Some(Usage { cpu_ms: 3, memory_peak_bytes: Some(5_000_000), ..Usage::default() }),
        written: Some(Written {
            count: 2,
            paths: vec![WrittenPath { path: b"a\xffb".to_vec().into(), change: provara_domain::WrittenHow::Created }],
            unseen: vec![Unseen::TooMany],
        }),
    }
}

async fn approved(store: &Store, n: u64) -> NewPlan {
    let new = new_plan(n);
    store.propose(new.clone()).await.unwrap();
    store.decide(&project(), decision(&new, DecisionKind::Approve, 1)).await.unwrap();
    new
}

async fn running(store: &Store, n: u64) -> NewPlan {
    let new = approved(store, n).await;
    let _ = store.claim(&Name::local_target(), &new.plan.id, run_of(n), cause(2)).await.unwrap();
    new
}

async fn look(store: &Store, id: &PlanId) -> PlanRecord {
    store.plan(&project(), Owner::Everyone, id).await.unwrap().unwrap()
}

/// Everything that can be read, to be compared with what is read later.
#[derive(Debug, PartialEq)]
struct Snapshot {
    plans: Vec<PlanRecord>,
    entries: Vec<LogEntry>,
    root: merkle::Hash,
    counts: Counts,
    tokens: Vec<TokenRecord>,
    workspaces: Vec<String>,
    checkpoint: Option<(u64, String)>,
}

async fn all_plans(store: &Store) -> Vec<PlanRecord> {
    let filter = PlanFilter { statuses: Vec::new(), before: None, limit: 1_000_000 };
    store.plans(&project(), Owner::Everyone, filter).await.unwrap()
}

/// Returns what the store holds, having compared its parts with each other: the counts with the plans, the history of each
/// plan with its revision, and the tree with the leaves.
async fn sound(store: &Store) -> Snapshot {
    let plans = all_plans(store).await;
    let entries = store.entries(&project(), Owner::Everyone, 0, 1_000_000).await.unwrap();
    let root = root_of(&entries);
    assert_eq!(store.head(), u64::try_from(entries.len()).unwrap());
    assert_eq!(store.root(store.head()).await.unwrap(), root, "the tree is not that of the leaves");
    let of = |status| u64::try_from(plans.iter().filter(|plan| plan.status == status).count()).unwrap();
    let runs = u64::try_from(plans.iter().filter(|plan| plan.run.is_some()).count()).unwrap();
    let counts = store.counts(&project());
    let counted = Counts {
        pending: of(Status::Pending),
        approved: of(Status::Approved),
        running: of(Status::Running),
        finished: of(Status::Finished),
        lost: of(Status::Lost),
        denied: of(Status::Denied),
        blocked: of(Status::Blocked),
        expired: of(Status::Expired),
        withdrawn: of(Status::Withdrawn),
        superseded: of(Status::Superseded),
        cancelled: of(Status::Cancelled),
        runs,
    };
    assert_eq!(counts, counted, "a count drifted");
    let mut histories: BTreeMap<PlanId, Vec<u64>> = BTreeMap::new();
    for entry in &entries {
        let leaf: serde_json::Value = serde_json::from_slice(&entry.leaf).unwrap();
        if let Some(plan) = &entry.plan {
            let history = histories.entry(plan.clone()).or_default();
            history.push(entry.position);
            let revision = leaf.get("plan_rev").and_then(serde_json::Value::as_u64);
            assert_eq!(revision, u64::try_from(history.len()).ok(), "a plan's entries are out of order");
        }
    }
    assert_eq!(histories.len(), plans.len());
    for plan in &plans {
        let history = histories.get(&plan.plan.id).unwrap();
        assert_eq!(u64::try_from(history.len()).unwrap(), plan.revision, "a history has a hole");
        assert_eq!(*history, store.positions_of(&project(), &plan.plan.id).await.unwrap());
    }
    Snapshot {
        plans,
        entries,
        root,
        counts,
        tokens: store.tokens(&project()).await.unwrap(),
        workspaces: store.workspaces(&project()),
        checkpoint: store.latest_checkpoint().await.unwrap(),
    }
}

fn root_of(entries: &[LogEntry]) -> merkle::Hash {
    let mut tree = merkle::Frontier::default();
    for (position, entry) in (0..).zip(entries) {
        assert_eq!(entry.position, position, "the log has a hole");
        tree.push(merkle::leaf_hash(&entry.leaf));
    }
    tree.root()
}
