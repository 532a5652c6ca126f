//! Erasing: what was said and written is gone from the disk, what proves it stays.

use std::fs;

use super::*;

const MARK: &str = "a-word-that-must-go";

/// A plan that carries the mark wherever a plan can, settled by a run that wrote it too.
async fn finished(store: &Store, n: u64, output: &[u8]) -> NewPlan {
    let mut plan = new_plan(n).plan;
    plan.command = CommandText::parse(format!("echo {MARK}")).unwrap();
    plan.env = BTreeMap::from([(EnvName::parse("MARK".into()).unwrap(), MARK.to_owned())]);
    plan.stdin = Some(MARK.repeat(1000).into_bytes());
    let mut new = planned(plan);
    new.note = Some(Note::parse(MARK.into()).unwrap());
    new.equal = EqualPending::Answers;
    let mut reasons = judged(Verdict::Ask).reasons;
    reasons.iter_mut().for_each(|reason| reason.text = MARK.into());
    new.judgement = Judgement::of(reasons, policy());
    new.measurement = Some(measured(MARK));
    store.propose(new.clone()).await.unwrap();
    let mut yes = decision(&new, DecisionKind::Approve, 1);
    (yes.reason, yes.judgement) = (Some(MARK.into()), new.judgement.clone());
    store.decide(&project(), yes).await.unwrap();
    let _ = store.claim(&Name::local_target(), &new.plan.id, run_of(n), cause(2)).await.unwrap();
    let mut writer = store.output_writer(&run_of(n)).unwrap();
    writer.append(Stream::Stdout, output).unwrap();
    writer.append(Stream::Stderr, MARK.as_bytes()).unwrap();
    let path = WrittenPath { path: MARK.as_bytes().to_vec().into(), change: provara_domain::WrittenHow::Created };
    let written = Some(Written { count: 1, paths: vec![path], unseen: vec![] });
    let ran = Ran { written, ..ran(run_of(n), u64::try_from(output.len()).unwrap()) };
    store.record(ran, cause(3)).await.unwrap();
    new
}

fn found_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(found_below(&path));
        } else if fs::read(&path).unwrap().windows(MARK.len()).any(|window| window == MARK.as_bytes()) {
            found.push(path);
        }
    }
    found
}

pub(crate) async fn what_was_said_and_written_is_gone_and_what_proves_it_stays(place: Place) {
    let store = place.open_keeping(1 << 20).unwrap();
    let small = finished(&store, 1, MARK.as_bytes()).await;
    let large = finished(&store, 2, &MARK.repeat(10_000).into_bytes()).await;
    let before = look(&store, &small.plan.id).await;
    let old = store.entries(&project(), Owner::Everyone, 0, 1000).await.unwrap();
    assert!(!found_below(place.folder.path()).is_empty(), "the mark was never on the disk");
    for plan in [&small, &large] {
        let erased = store.erase(&project(), &plan.plan.id, cause(50)).await.unwrap();
        assert_eq!((erased.erased_at, erased.status), (Some(at(50)), Status::Finished));
        let again = store.erase(&project(), &plan.plan.id, cause(51)).await;
        assert!(matches!(again, Err(TransitionError::Conflict { .. })), "{again:?}");
    }
    let after = look(&store, &small.plan.id).await;
    let rules = |record: &PlanRecord| record.judgement.reasons.iter().map(|it| it.rule.clone()).collect::<Vec<_>>();
    assert_eq!((after.digest.clone(), rules(&after)), (before.digest.clone(), rules(&before)));
    assert_eq!(
        (after.plan.cwd.clone(), after.run.clone()),
        (before.plan.cwd, before.run.map(|run| RunRecord { written: None, ..run }))
    );
    let (now, was) = (after.decision.clone().unwrap(), before.decision.unwrap());
    assert_eq!((now.decision, now.digest, now.reason), (was.decision, was.digest, None));
    assert_eq!(store.script_texts(&project(), &small.plan.id).await.unwrap(), []);
    assert_eq!(after.measured, None);
    assert_eq!((after.plan.command.as_str(), after.note, after.plan.stdin), ("[erased]", None, None));
    // The old entries are the same bytes, and each erasure is one more.
    let entries = store.entries(&project(), Owner::Everyone, 0, 1000).await.unwrap();
    assert_eq!(entries.get(..old.len()).unwrap(), old);
    let leaf: serde_json::Value = serde_json::from_slice(&entries.last().unwrap().leaf).unwrap();
    let expected = serde_json::json!({"type": "plan.erased", "body": {"digest": large.digest}});
    assert_eq!((leaf.get("type"), leaf.get("body")), (expected.get("type"), expected.get("body")));
    for n in [1, 2] {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let page = store.read_output(&project(), &run_of(n), stream, 0, 100).await.unwrap();
            assert!(page.bytes.is_empty() && page.ended);
        }
    }
    let whole = sound(&store).await;
    store.close().await;
    drop(store);
    assert_eq!(
        found_below(place.folder.path()),
        Vec::<std::path::PathBuf>::new(),
        "erased words are still on the disk"
    );
    assert_eq!(sound(&place.open()).await, whole);
}

pub(crate) async fn only_what_is_settled_and_old_is_erased(place: Place) {
    let store = place.open();
    let pending = new_plan(1);
    store.propose(pending.clone()).await.unwrap();
    let (ready, run) = (approved(&store, 2).await, running(&store, 3).await);
    for plan in [&pending, &ready, &run] {
        let refused = store.erase(&project(), &plan.plan.id, cause(9)).await;
        assert!(matches!(refused, Err(TransitionError::Conflict { .. })), "{refused:?}");
    }
    let old = finished(&store, 4, b"x").await;
    let denied = new_plan(5);
    store.propose(denied.clone()).await.unwrap();
    store.decide(&project(), decision(&denied, DecisionKind::Deny, 500)).await.unwrap();
    let erasable = async |seconds, limit| store.erasable(&project(), at(seconds), limit).await.unwrap();
    assert_eq!(erasable(3, 9).await, [], "what was last changed at that very moment is not older");
    assert_eq!(erasable(4, 9).await, std::slice::from_ref(&old.plan.id));
    // It came early and was denied late: how long ago it ended is what counts.
    assert_eq!(erasable(501, 9).await, [old.plan.id.clone(), denied.plan.id.clone()]);
    assert_eq!(erasable(501, 1).await, std::slice::from_ref(&old.plan.id));
    assert_eq!(store.erasable(&name("elsewhere"), at(501), 9).await.unwrap(), []);
    store.erase(&project(), &old.plan.id, cause(600)).await.unwrap();
    assert_eq!(erasable(9999, 9).await, [denied.plan.id]);
}

pub(crate) async fn an_erased_plan_is_not_reopened_and_takes_no_late_output(place: Place) {
    let store = place.open();
    let lost = running(&store, 1).await;
    store.lose(&lost.plan.id, cause(3)).await.unwrap();
    store.erase(&project(), &lost.plan.id, cause(4)).await.unwrap();
    let late = store.record(ran(run_of(1), 5), cause(5)).await;
    assert!(matches!(late, Err(TransitionError::Conflict { .. })), "{late:?}");
    let again = store.reopen(&lost.plan.id, new_plan(2)).await;
    assert!(matches!(again, Err(TransitionError::Conflict { .. })), "{again:?}");
    sound(&store).await;
}

pub(crate) async fn output_that_a_crash_kept_from_being_erased_goes_at_the_next_start(place: Place) {
    let store = place.open_keeping(1 << 20).unwrap();
    let plan = finished(&store, 1, &vec![b'x'; 100_000]).await;
    let spool = place.folder.path().join(format!("output/{}.stdout", run_of(1)));
    let kept = place.folder.path().join("kept");
    fs::copy(&spool, &kept).unwrap();
    store.erase(&project(), &plan.plan.id, cause(4)).await.unwrap();
    assert!(!spool.exists());
    drop(store);
    fs::rename(kept, &spool).unwrap();
    let store = place.open();
    assert!(!spool.exists(), "erased output came back");
    sound(&store).await;
}
