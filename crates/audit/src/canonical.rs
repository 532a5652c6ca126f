//! Canonical forms (RFC 8785) and their digests. What is approved, what is decided and what is logged is these bytes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use provara_domain::{
    Actor, Binding, Change, Changes, Decision, Digest, EnvName, Event, EventBody, EventId, Grants, HomePath, HostPort,
    Name, Network, NodeKind, Plan, PlanId, PlanKind, Profile, ProfileName, Shell, Timestamp, UserName, Verdict,
};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// A value that has no canonical form: a map whose keys are no strings, or a number that is not finite.
#[derive(Debug, thiserror::Error)]
#[error("the value has no canonical JSON form")]
pub struct CanonicalError(#[source] serde_json::Error);

/// Returns the canonical bytes of `value`.
///
/// # Errors
/// When it has none.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    serde_json_canonicalizer::to_vec(value).map_err(CanonicalError)
}

/// Returns the SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

/// Returns the canonical form of a plan.
pub fn plan(plan: &Plan) -> Vec<u8> {
    ordered(&PlanForm::of(plan))
}

/// Returns the digest that a decision on the plan binds.
pub fn plan_digest(it: &Plan) -> Digest {
    sha256(&plan(it))
}

/// Returns the digest of the plan without its id and nonce: equal for plans that would do the same.
pub fn plan_dedupe_digest(plan: &Plan) -> Digest {
    sha256(&ordered(&PlanForm { id: None, nonce: None, ..PlanForm::of(plan) }))
}

/// Returns the canonical form of a decision.
pub fn decision(decision: &Decision) -> Vec<u8> {
    bytes_of(&decision_value(decision))
}

/// Returns the digest of a decision's canonical form.
pub fn decision_digest(it: &Decision) -> Digest {
    sha256(&decision(it))
}

/// Returns the canonical form of a profile: its name and all that it grants, and not who may ask for it.
pub fn profile(profile: &Profile) -> Vec<u8> {
    bytes_of(&profile_value(profile))
}

/// Returns the digest of a profile's canonical form, which a decision binds.
pub fn profile_digest(it: &Profile) -> Digest {
    sha256(&profile(it))
}

/// Returns the digest of a binding's canonical form.
pub fn binding_digest(it: &Binding) -> Digest {
    sha256(&bytes_of(&json!(it)))
}

/// Returns the canonical form of what a preview changed. Sizes are decimal digits: a file may be longer than a number of JSON's
/// is exact, and whoever made it was a command.
pub fn changes(it: &Changes) -> Vec<u8> {
    let listed: Vec<Value> = it.listed.iter().map(change_value).collect();
    bytes_of(&json!({ "v": 1, "changes": listed, "more": it.more, "unread": it.unread }))
}

/// Returns the digest of what a preview changed.
pub fn changes_digest(it: &Changes) -> Digest {
    sha256(&changes(it))
}

fn change_value(change: &Change) -> Value {
    json!({
        "kind": change.kind.as_str(), "mode": change.mode, "path_b64": STANDARD.encode(&change.path),
        "sha256": change.sha256, "size": change.size.map(|size| size.to_string()),
        "target_b64": change.target.as_ref().map(|target| STANDARD.encode(target)),
        "type": change.node.map(NodeKind::as_str),
    })
}

/// Returns the canonical form of an event: a leaf of the tree.
pub fn leaf(event: &Event) -> Vec<u8> {
    ordered(&LeafForm {
        actor: &event.actor,
        body: body(&event.body),
        event_id: event.id,
        plan: event.plan.as_ref(),
        plan_rev: event.plan_rev,
        ts: Seconds(event.ts),
        kind: event.body.kind(),
        v: 1,
    })
}

/// A `Value` holds only strings for keys and finite numbers, so it always has a canonical form.
fn bytes_of(value: &Value) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).unwrap_or_default()
}

/// Writes a form that is canonical as it stands: its fields are declared in the order of their names, its strings are
/// escaped by `serde_json` as RFC 8785 wants, and it holds no number but whole ones and [`Seconds`]. Every plan takes this
/// road twice, and sorting each again would be half of its cost.
fn ordered<T: Serialize>(form: &T) -> Vec<u8> {
    serde_json::to_vec(form).unwrap_or_default()
}

/// Field by field in the order of RFC 8785, section 3.2.3.
#[derive(Serialize)]
struct PlanForm<'a> {
    agent: &'a Name,
    command_b64: String,
    cwd: &'a str,
    env: &'a BTreeMap<EnvName, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a PlanId>,
    kind: PlanKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    profile: &'a ProfileName,
    project: &'a Name,
    shell: Shell,
    stdin_b64: Option<String>,
    target: &'a Name,
    timeout_s: u32,
    tty: bool,
    v: u8,
}

impl<'a> PlanForm<'a> {
    fn of(plan: &'a Plan) -> Self {
        Self {
            agent: &plan.agent,
            command_b64: STANDARD.encode(plan.command.as_str()),
            cwd: plan.cwd.as_str(),
            env: &plan.env,
            id: Some(&plan.id),
            kind: plan.kind,
            nonce: Some(plan.nonce.to_string()),
            profile: &plan.profile,
            project: &plan.project,
            shell: plan.shell,
            stdin_b64: plan.stdin.as_ref().map(|bytes| STANDARD.encode(bytes)),
            target: &plan.target,
            timeout_s: plan.timeout.seconds(),
            tty: plan.tty,
            v: 1,
        }
    }
}

/// Field by field in the order of RFC 8785, section 3.2.3.
#[derive(Serialize)]
struct LeafForm<'a> {
    actor: &'a Actor,
    body: BodyForm<'a>,
    event_id: EventId,
    plan: Option<&'a PlanId>,
    plan_rev: Option<u64>,
    ts: Seconds,
    #[serde(rename = "type")]
    kind: &'static str,
    v: u8,
}

/// The body of the commonest event, or any other's canonical bytes.
#[derive(Serialize)]
#[serde(untagged)]
enum BodyForm<'a> {
    Queued { digest: &'a Digest, origin: Option<&'a PlanId>, policy: &'a Digest, rules: &'a [String], verdict: Verdict },
    Written(Option<Box<RawValue>>),
}

/// One arm for each kind of event and no `_`: a new kind has to say here what a stranger will read of it.
fn body(body: &EventBody) -> BodyForm<'_> {
    let value = match body {
        EventBody::PlanQueued { digest, verdict, rules, policy, origin } => {
            return BodyForm::Queued { digest, origin: origin.as_ref(), policy, rules, verdict: *verdict };
        }
        EventBody::PlanBlocked { digest, rules, policy } => {
            json!({ "digest": digest, "rules": rules, "policy": policy })
        }
        EventBody::PlanRejudged { verdict, rules, policy } => {
            json!({ "verdict": verdict, "rules": rules, "policy": policy })
        }
        EventBody::PlanRemeasured { binding } => json!({ "binding": binding }),
        EventBody::PlanDecided { decision, decision_digest, policy, profile_change } => {
            let mut fields = json!({
                "decision": decision_value(decision), "decision_digest": decision_digest, "policy": policy,
            });
            // Only where something was changed: an ordinary decision keeps the bytes that it always had.
            if let (Some(change), Some(fields)) = (profile_change, fields.as_object_mut()) {
                fields.insert("profile_change".into(), json!(change));
            }
            fields
        }
        EventBody::PlanSuperseded { by } => json!({ "by": by }),
        EventBody::PlanErased { digest } => json!({ "digest": digest }),
        EventBody::PlanPreviewStarted { profile } => json!({ "profile": profile }),
        EventBody::PlanPreviewed { outcome, changes } => json!({ "outcome": outcome, "changes": changes }),
        EventBody::PlanExtended { timeout_s } => json!({ "timeout_s": timeout_s }),
        EventBody::RunStarted { run } | EventBody::RunCancelRequested { run } | EventBody::RunLost { run } => {
            json!({ "run": run })
        }
        EventBody::RunFinished { run, outcome, enforced, duration_ms, stdout_sha256, stderr_sha256, late } => {
            let mut fields = json!({
                "run": run, "outcome": outcome, "enforced": enforced, "duration_ms": duration_ms,
                "stdout_sha256": stdout_sha256, "stderr_sha256": stderr_sha256,
            });
            // Only where it is so: an ordinary ending keeps the bytes that it always had.
            if let (true, Some(fields)) = (*late, fields.as_object_mut()) {
                fields.insert("late".into(), true.into());
            }
            fields
        }
        EventBody::TokenCreated { token, name, roles } => json!({ "token": token, "name": name, "roles": roles }),
        EventBody::TokenRevoked { token } => json!({ "token": token }),
        EventBody::WorkspaceAdded { path } | EventBody::WorkspaceRemoved { path } => json!({ "path": path }),
        EventBody::ServerStarted { version, policy } => json!({ "version": version, "policy": policy }),
        EventBody::PlanExpired | EventBody::PlanWithdrawn | EventBody::PlanCancelled | EventBody::ServerStopped => {
            Value::Object(Map::new())
        }
    };
    let written = String::from_utf8(bytes_of(&value)).ok();
    BodyForm::Written(written.and_then(|json| RawValue::from_string(json).ok()))
}

/// Unix seconds as ECMAScript writes a number, which has no `.0`. A time in whole milliseconds is far from the sizes that it
/// would write with an exponent.
struct Seconds(Timestamp);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.as_millis();
        if millis % 1000 == 0 {
            return serializer.serialize_i64(millis / 1000);
        }
        serializer.serialize_f64(self.0.unix_seconds())
    }
}

fn profile_value(profile: &Profile) -> Value {
    let Grants { files, network, environment, limits, user } = profile.grants();
    let paths: Map<String, Value> =
        files.paths().map(|(path, access)| (path.as_str().to_owned(), access.as_str().into())).collect();
    let homes: Vec<&str> = files.homes().map(HomePath::as_str).collect();
    let network = match network {
        Network::None => json!({ "kind": "none" }),
        Network::Loopback => json!({ "kind": "loopback" }),
        Network::Hosts(hosts) => {
            json!({ "kind": "hosts", "hosts": hosts.iter().map(HostPort::as_str).collect::<Vec<_>>() })
        }
        Network::All => json!({ "kind": "all" }),
        Network::Host => json!({ "kind": "host" }),
    };
    json!({
        "v": 1,
        "name": profile.name(),
        "files": {
            "everywhere": files.everywhere().as_str(),
            "workspace": files.workspace().as_str(),
            "tmp": files.tmp().as_str(),
            "paths": paths,
            "hidden_in_homes": homes,
        },
        "network": network,
        "environment": environment,
        "limits": limits,
        "user": user.as_ref().map(UserName::as_str),
    })
}

fn decision_value(decision: &Decision) -> Value {
    json!({
        "v": 1,
        "plan": decision.plan,
        "digest": decision.digest,
        "binding": decision.binding,
        "decision": decision.decision,
        "profile": decision.profile,
        "limits": decision.limits,
        "approver": decision.approver,
        "method": decision.method,
        "nonce": decision.nonce.to_string(),
        "ts": decision.ts.unix_seconds(),
    })
}

#[cfg(test)]
mod tests {
    use provara_domain::{
        Access, AskedBy, Binding, ChangeKind, CommandText, DecisionKind, DecisionMethod, Enforced, Files, Limits,
        Nonce, Outcome, ProfilePath, Resource, ResourceLimits, RunId, Timeout, Tmp, WorkingDir,
    };

    use super::*;

    fn example() -> Plan {
        Plan {
            kind: PlanKind::Command,
            id: PlanId::parse("20261124_002227_00000000000000aa").unwrap(),
            project: Name::default_project(),
            agent: Name::parse("robot").unwrap(),
            command: CommandText::parse("echo \u{202e}hi ".into()).unwrap(),
            shell: Shell::Bash,
            cwd: WorkingDir::parse("/srv/wörk".into()).unwrap(),
            env: BTreeMap::from([
                (EnvName::parse("B".into()).unwrap(), "2".into()),
                (EnvName::parse("A".into()).unwrap(), "1\n".into()),
            ]),
            stdin: Some(vec![0, 255]),
            tty: false,
            timeout: Timeout::DEFAULT,
            target: Name::local_target(),
            profile: ProfileName::workspace(),
            nonce: Nonce::new(1),
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_a_preview_changed_has_one_form_whatever_its_names_are() {
        let file = Change {
            path: b"n\xffw".to_vec(),
            kind: ChangeKind::Created,
            node: Some(NodeKind::File),
            mode: Some(0o644),
            size: Some(u64::MAX),
            sha256: None,
            target: None,
        };
        let link = Change { node: Some(NodeKind::Link), size: None, target: Some(b"\"".to_vec()), ..file.clone() };
        let all = Changes { listed: vec![file, link], more: 2, unread: 1 };
        let expected = concat!(
            r#"{"changes":[{"kind":"created","mode":420,"path_b64":"bv93","sha256":null,"size":"18446744073709551615","#,
            r#""target_b64":null,"type":"file"},{"kind":"created","mode":420,"path_b64":"bv93","sha256":null,"size":null,"#,
            r#""target_b64":"Ig==","type":"link"}],"more":2,"unread":1,"v":1}"#
        );
        assert_eq!(String::from_utf8(changes(&all)).unwrap(), expected);
        assert_eq!(changes_digest(&all), sha256(expected.as_bytes()));
    }

    #[test]
    fn a_plans_bytes_are_fixed() {
        assert_eq!(
            text(plan(&example())),
            r#"{"agent":"robot","command_b64":"ZWNobyDigK5oaSA=","cwd":"/srv/wörk","env":{"A":"1\n","B":"2"},"id":"20261124_002227_00000000000000aa","kind":"command","nonce":"00000000000000000000000000000001","profile":"workspace","project":"default","shell":"bash","stdin_b64":"AP8=","target":"local","timeout_s":300,"tty":false,"v":1}"#
        );
    }

    #[test]
    fn a_decisions_bytes_are_fixed() {
        let it = Decision {
            plan: example().id,
            digest: plan_digest(&example()),
            binding: None,
            decision: DecisionKind::Approve,
            profile: ProfileName::workspace(),
            limits: Limits { timeout_s: 300, resources: ResourceLimits::default() },
            approver: Name::parse("operator").unwrap(),
            method: DecisionMethod::Token,
            nonce: Nonce::new(2),
            ts: Timestamp::from_millis(1_795_479_747_123),
        };
        let digest = plan_digest(&example());
        assert_eq!(
            text(decision(&it)),
            format!(
                r#"{{"approver":"operator","binding":null,"decision":"approve","digest":"{digest}","limits":{{"timeout_s":300}},"method":"token","nonce":"00000000000000000000000000000002","plan":"20261124_002227_00000000000000aa","profile":"workspace","ts":1795479747.123,"v":1}}"#
            )
        );
    }

    #[test]
    fn a_decision_that_lowers_limits_says_so_and_binds_the_profile() {
        let limits = ResourceLimits::default().with(Resource::Memory, 1 << 30).unwrap();
        let profile_sha256 = profile_digest(&Profile::read_only());
        let runner = Name::local_target();
        let binding = Binding {
            runner,
            cwd_dev_ino: None,
            shell_sha256: None,
            scripts: Vec::new(),
            profile_sha256: profile_sha256.clone(),
        };
        let it = Decision {
            plan: example().id,
            digest: plan_digest(&example()),
            binding: Some(binding),
            decision: DecisionKind::Approve,
            profile: Profile::read_only().name().clone(),
            limits: Limits { timeout_s: 300, resources: limits },
            approver: Name::parse("operator").unwrap(),
            method: DecisionMethod::Token,
            nonce: Nonce::new(2),
            ts: Timestamp::from_millis(1_795_479_747_123),
        };
        let written = text(decision(&it));
        let bound = format!(
            r#""binding":{{"cwd_dev_ino":null,"profile_sha256":"{profile_sha256}","runner":"local","scripts":[],"shell_sha256":null}}"#
        );
        assert!(written.contains(&bound), "{written}");
        assert!(written.contains(r#""limits":{"resources":{"memory":1073741824},"timeout_s":300}"#), "{written}");
    }

    #[test]
    fn a_profiles_bytes_are_fixed_and_do_not_say_who_may_ask() {
        let files = Files::new(
            Access::Hidden,
            Access::Write,
            Tmp::Private,
            [(ProfilePath::parse("/usr").unwrap(), Access::Read)],
            [HomePath::parse("~/.ssh").unwrap()],
        );
        let grants = Grants {
            files,
            network: Network::Hosts([HostPort::parse("example.org:443").unwrap()].into()),
            environment: [EnvName::parse("LANG".into()).unwrap()].into(),
            limits: ResourceLimits::default().with(Resource::Cpu, 60).unwrap(),
            user: Some(UserName::parse("build").unwrap()),
        };
        let named = |asked_by| Profile::new(ProfileName::new(Name::parse("docs").unwrap()), grants.clone(), asked_by);
        assert_eq!(
            text(profile(&named(AskedBy::Agents))),
            r#"{"environment":["LANG"],"files":{"everywhere":"hidden","hidden_in_homes":["~/.ssh"],"paths":{"/usr":"read"},"tmp":"private","workspace":"write"},"limits":{"cpu_s":60},"name":"docs","network":{"hosts":["example.org:443"],"kind":"hosts"},"user":"build","v":1}"#
        );
        assert_eq!(profile_digest(&named(AskedBy::Agents)), profile_digest(&named(AskedBy::PeopleOnly)));
        let all = Profile::builtin().map(|profile| profile_digest(&profile));
        for (n, digest) in all.iter().enumerate() {
            assert!(all.iter().skip(n + 1).all(|other| other != digest));
        }
    }

    #[test]
    fn a_leafs_bytes_are_fixed_and_whole_seconds_have_no_fraction() {
        let event = Event {
            id: EventId::new(3),
            ts: Timestamp::from_millis(1_795_479_747_000),
            plan: Some(example().id),
            plan_rev: Some(2),
            actor: Actor::System,
            body: EventBody::PlanExpired,
        };
        assert_eq!(
            text(leaf(&event)),
            r#"{"actor":{"kind":"system"},"body":{},"event_id":"00000000000000000000000000000003","plan":"20261124_002227_00000000000000aa","plan_rev":2,"ts":1795479747,"type":"plan.expired","v":1}"#
        );
    }

    #[test]
    fn an_ending_says_late_only_where_it_is() {
        let ended = |late| {
            let digest = sha256(b"");
            let finished = EventBody::RunFinished {
                run: RunId::parse("20261124_002227_00000000000000ab").unwrap(),
                outcome: Outcome::Exited { code: 0 },
                enforced: Enforced { profile: "workspace".into(), mechanisms: Vec::new() },
                duration_ms: 5,
                stdout_sha256: digest.clone(),
                stderr_sha256: digest,
                late,
            };
            text(ordered(&body(&finished)))
        };
        let empty = sha256(b"");
        let expected = |late| {
            format!(
                r#"{{"duration_ms":5,"enforced":{{"mechanisms":[],"profile":"workspace"}},{late}"outcome":{{"code":0,"kind":"exited"}},"run":"20261124_002227_00000000000000ab","stderr_sha256":"{empty}","stdout_sha256":"{empty}"}}"#
            )
        };
        assert_eq!(ended(false), expected(""));
        assert_eq!(ended(true), expected(r#""late":true,"#));
    }

    /// What is written in order must be what RFC 8785 would have made of it, whatever the strings and times hold.
    #[test]
    fn what_is_written_in_order_is_canonical() {
        let odd: String =
            (0..0x500u32).chain([0x2028, 0x2029, 0xfeff, 0xffff, 0x1f600]).filter_map(char::from_u32).collect();
        let names = ["_", "A", "Z_", "a", "B2", "aa"].map(|name| (EnvName::parse(name.into()).unwrap(), odd.clone()));
        let odd_plan =
            Plan { env: BTreeMap::from(names), cwd: WorkingDir::parse("/a\u{7f}\"\\b".into()).unwrap(), ..example() };
        assert_eq!(plan(&odd_plan), to_bytes(&PlanForm::of(&odd_plan)).unwrap());
        let digest = plan_digest(&odd_plan);
        for millis in [0, 1, 10, 999, 1000, 1_795_479_747_100, 1_795_479_747_000, 9_007_199_254_740_991, -1, -1500] {
            for origin in [None, Some(example().id)] {
                let event = Event {
                    id: EventId::new(u128::MAX),
                    ts: Timestamp::from_millis(millis),
                    plan: Some(example().id),
                    plan_rev: Some(u64::from(u32::MAX)),
                    actor: Actor::System,
                    body: EventBody::PlanQueued {
                        digest: digest.clone(),
                        verdict: Verdict::Ask,
                        rules: vec![odd.clone(), String::new()],
                        policy: digest.clone(),
                        origin,
                    },
                };
                let written = leaf(&event);
                let read: Value = serde_json::from_slice(&written).unwrap();
                assert_eq!(written, to_bytes(&read).unwrap());
            }
        }
    }

    #[test]
    fn plans_that_would_do_the_same_share_a_dedupe_digest_only() {
        let other = Plan { nonce: Nonce::new(9), id: PlanId::new(Timestamp::from_millis(0), 1), ..example() };
        assert_ne!(plan_digest(&example()), plan_digest(&other));
        assert_eq!(plan_dedupe_digest(&example()), plan_dedupe_digest(&other));
        let different = Plan { shell: Shell::Sh, ..example() };
        assert_ne!(plan_dedupe_digest(&example()), plan_dedupe_digest(&different));
    }
}
