//! Killed at any moment, a server loses nothing that it acknowledged.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

const FOLDER: &str = "PROVARA_TEST_KILLED_FOLDER";
const ROUND: &str = "PROVARA_TEST_KILLED_ROUND";
const ROUNDS: u64 = 12;
/// A child that nobody kills ends by itself.
const MOST: u64 = 20_000;

/// The test is its own child: started again with a folder in its environment, it proposes until it is killed.
#[test]
fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    if let (Some(folder), Ok(round)) = (std::env::var_os(FOLDER), std::env::var(ROUND)) {
        return propose_until_killed(Path::new(&folder), round.parse().unwrap());
    }
    let place = Place::sqlite();
    let mut random = seed();
    let (mut acknowledged, mut erased) = (BTreeSet::new(), BTreeSet::new());
    for round in 1..=ROUNDS {
        let mut child = child(place.folder.path(), round);
        // Some die before their first commit, some after hundreds; the pause puts the moment anywhere within a commit.
        let after = usize::try_from(next(&mut random) % 400).unwrap();
        let pause = Duration::from_micros(next(&mut random) % 3000);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let id = |raw: &str| PlanId::parse(raw).unwrap();
        let mut told = lines.filter_map(|line| match line.split_once(' ')? {
            ("stored", raw) => Some((false, id(raw))),
            ("erased", raw) => Some((true, id(raw))),
            _ => None,
        });
        let mut hear = |(erasure, id)| {
            let said = if erasure { &mut erased } else { &mut acknowledged };
            said.insert(id);
        };
        told.by_ref().take(after).for_each(&mut hear);
        std::thread::sleep(pause);
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died counts as said.
        told.for_each(&mut hear);
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let store = place.open();
            let whole = sound(&store).await;
            // An erasure is whole or did not happen; what was said to be erased is.
            for record in &whole.plans {
                let empty = record.plan.command.as_str() == "[erased]";
                assert_eq!(empty, record.erased_at.is_some(), "round {round} erased half of {}", record.plan.id);
                assert!(empty || !erased.contains(&record.plan.id), "round {round} brought {} back", record.plan.id);
            }
            let stored: BTreeSet<_> = whole.plans.into_iter().map(|plan| plan.plan.id).collect();
            let missing: Vec<_> = acknowledged.difference(&stored).collect();
            assert!(missing.is_empty(), "round {round} lost {missing:?}");
        });
    }
    assert!(erased.len() > 20, "only {} plans were erased: the kills prove little", erased.len());
    assert!(acknowledged.len() > 200, "only {} plans were stored at all: the kills prove little", acknowledged.len());
}

/// Where the moments come from; `PROVARA_TEST_SEED` repeats them.
fn seed() -> u64 {
    let given = std::env::var("PROVARA_TEST_SEED").ok().map(|raw| raw.parse().unwrap());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()) << 32 | 0x9e37_79b9);
    eprintln!("PROVARA_TEST_SEED={seed}");
    seed
}

/// Xorshift: enough to pick moments.
const fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn child(folder: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::what_was_acknowledged_survives_a_kill_at_any_moment", "--nocapture"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn propose_until_killed(folder: &Path, round: u64) {
    let place = StoreConfig { runtime: folder.to_owned(), output_keep: 20 };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(place).unwrap();
        let proposers: Vec<_> = (0..16)
            .map(|lane| {
                let store = store.clone();
                tokio::spawn(async move {
                    for n in 0..MOST / 16 {
                        let mut new = new_plan(round * 1_000_000 + lane * 10_000 + n);
                        new.cause.entropy = Entropy(u128::from(round) << 64 | u128::from(lane << 32 | n));
                        new.pending_cap = u32::MAX;
                        // Some are decided at once, so that commits hold more than one kind of change.
                        let deny = (n % 4 == 0).then(|| decision(&new, DecisionKind::Deny, 1));
                        store.propose(new).await.unwrap();
                        let id = PlanId::new(at(0), round * 1_000_000 + lane * 10_000 + n);
                        // One write a line: a kill leaves whole lines or none.
                        std::io::stdout().lock().write_all(format!("stored {id}\n").as_bytes()).unwrap();
                        if let Some(mut deny) = deny {
                            deny.cause.entropy =
                                Entropy(u128::from(round) << 64 | u128::from(lane << 32 | n) | 1 << 63);
                            let mut erase = deny.cause.clone();
                            erase.entropy.0 |= 1 << 62;
                            store.decide(&project(), deny).await.unwrap();
                            store.erase(&project(), &id, erase).await.unwrap();
                            std::io::stdout().lock().write_all(format!("erased {id}\n").as_bytes()).unwrap();
                        }
                    }
                })
            })
            .collect();
        for proposer in proposers {
            proposer.await.unwrap();
        }
    });
}
