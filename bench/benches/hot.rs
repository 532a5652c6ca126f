//! The functions that every plan goes through, each alone: `cargo bench -p provara-bench`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up fails")]

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use provara_audit::canonical;
use provara_audit::merkle::{Hash, Nodes, append, leaf_hash};
use provara_domain::{
    Actor, CommandText, Event, EventBody, EventId, Name, Nonce, Plan, PlanId, PlanKind, ProfileName, Shell, Timeout,
    Timestamp, WorkingDir,
};
use provara_policy::{Policy, Request, Strictness};
use provara_store::{Cause, CoolDown, Entropy, EqualPending, NewPlan, Store, StoreConfig};

#[path = "../src/commands.rs"]
mod commands;

const NOW: i64 = 1_795_479_747_123;

fn judge(criterion: &mut Criterion) {
    let policy = Policy::builtin(Strictness::Ask).unwrap();
    let workspaces = ["/work".to_owned()];
    let long = commands::long();
    let mut group = criterion.benchmark_group("judge");
    for (name, texts) in [
        ("plan", vec![commands::PLAN]),
        ("short", commands::SHORT.to_vec()),
        ("long", vec![long.as_str()]),
        ("hostile", commands::HOSTILE.to_vec()),
    ] {
        let parsed: Vec<_> = texts.iter().map(|text| CommandText::parse((*text).to_owned()).unwrap()).collect();
        let all = || {
            parsed.iter().map(|command| {
                let request = Request { command, shell: Shell::Bash, cwd: "/work", workspaces: &workspaces };
                policy.judge(black_box(&request)).verdict
            })
        };
        group.bench_function(format!("{name}, {} texts", texts.len()), |bencher| {
            bencher.iter(|| all().max());
        });
    }
    group.finish();
}

fn canonical_forms(criterion: &mut Criterion) {
    let plan = plan(1);
    criterion.bench_function("canonical form of a plan", |bencher| bencher.iter(|| canonical::plan(black_box(&plan))));
    criterion.bench_function("digest of a plan", |bencher| bencher.iter(|| canonical::plan_digest(black_box(&plan))));
    let event = Event {
        id: EventId::new(1),
        ts: Timestamp::from_millis(NOW),
        plan: Some(plan.id.clone()),
        plan_rev: Some(1),
        actor: Actor::System,
        body: EventBody::PlanExpired,
    };
    criterion.bench_function("leaf of an event", |bencher| bencher.iter(|| canonical::leaf(black_box(&event))));
}

/// The complete subtrees of a log, in memory.
#[derive(Default)]
struct Kept(HashMap<(u8, u64), Hash>);

impl Nodes for Kept {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        Ok(self.0.get(&(level, index)).copied().unwrap())
    }
}

fn tree(criterion: &mut Criterion) {
    let (mut kept, mut size, leaf) = (Kept::default(), 0, leaf_hash(&[b'x'; 300]));
    criterion.bench_function("leaf appended to the tree", |bencher| {
        bencher.iter(|| {
            let Ok(made) = append(&kept, size, black_box(leaf));
            kept.0.extend(made.into_iter().map(|(level, index, hash)| ((level, index), hash)));
            size += 1;
        });
    });
}

/// One plan after the other, so each pays for a whole commit and its wait for the disk.
fn propose(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = Store::open(StoreConfig { runtime: folder.path().to_owned(), output_keep: 1 << 20 }).unwrap();
    let policy = Policy::builtin(Strictness::Ask).unwrap();
    let mut number = 0;
    criterion.bench_function("plan stored, durably", |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                new_plan(plan(number), &policy, number)
            },
            |new| runtime.block_on(store.propose(new)).unwrap(),
            BatchSize::SmallInput,
        );
    });
    runtime.block_on(store.close());
}

fn plan(number: u64) -> Plan {
    Plan {
        kind: PlanKind::Command,
        id: PlanId::new(Timestamp::from_millis(NOW), number),
        project: Name::default_project(),
        agent: Name::parse("robot").unwrap(),
        command: CommandText::parse(commands::PLAN.to_owned()).unwrap(),
        shell: Shell::Bash,
        cwd: WorkingDir::parse("/work".to_owned()).unwrap(),
        env: BTreeMap::new(),
        stdin: None,
        tty: false,
        timeout: Timeout::DEFAULT,
        target: Name::local_target(),
        profile: ProfileName::workspace(),
        nonce: Nonce::new(u128::from(number)),
    }
}

fn new_plan(plan: Plan, policy: &Policy, number: u64) -> NewPlan {
    let workspaces = ["/work".to_owned()];
    let request = Request { command: &plan.command, shell: Shell::Bash, cwd: "/work", workspaces: &workspaces };
    let at = Timestamp::from_millis(NOW);
    NewPlan {
        digest: canonical::plan_digest(&plan),
        dedupe: canonical::plan_dedupe_digest(&plan),
        equal: EqualPending::StaysApart,
        note: None,
        judgement: policy.judge(&request),
        measurement: None,
        expires_at: Timestamp::from_millis(NOW + 3_600_000),
        pending_cap: u32::MAX,
        cool_down: CoolDown { denials: 3, window: Duration::from_secs(3600) },
        idempotency: None,
        cause: Cause { actor: Actor::System, at, entropy: Entropy(u128::from(number)) },
        plan,
    }
}

criterion_group!(hot, judge, canonical_forms, tree, propose);
criterion_main!(hot);
