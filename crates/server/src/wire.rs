//! What clients see of the domain's types. Converted by hand: the domain may change, the wire may not.
//!
//! Each answer is one struct: what is serialised and what `/openapi.json` says of it cannot drift apart.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use provara_domain::{
    DecisionKind, DecisionMethod, Digest, EnvName, Limit, Limits, Measured, MeasuredScript, Note, PathName, PlanKind,
    Role, ScriptContent, ScriptFound, ScriptText, ScriptUse, Severity, Shell, SpawnFailure, Status, Verdict,
};
use provara_gateway::{Explanation, Gateway, PlanRecord, RunRecord, TokenRecord};
use serde::Serialize;
use utoipa::ToSchema;

use crate::openapi::words;

/// A range of bytes of the command's text, end excluded, on character borders.
#[derive(Serialize, ToSchema)]
pub(crate) struct Span {
    start: usize,
    end: usize,
}

impl From<&provara_domain::Span> for Span {
    fn from(span: &provara_domain::Span) -> Self {
        Self { start: span.start, end: span.end }
    }
}

/// One reason of a judgement.
#[derive(Serialize, ToSchema)]
pub(crate) struct Reason<'a> {
    /// The rule's id, or one of the engine's own (`opaque`, `limit`, `unknown_command`, …).
    rule: &'a str,
    category: &'a str,
    #[schema(schema_with = words::verdict)]
    verdict: Verdict,
    #[schema(schema_with = words::severity)]
    severity: Severity,
    /// For the approver, in plain words.
    text: &'a str,
    /// The bytes it speaks of; null where it speaks of the whole command.
    #[schema(required)]
    span: Option<Span>,
}

/// Which policy judged.
#[derive(Serialize, ToSchema)]
pub(crate) struct PolicyVersion<'a> {
    version: &'a str,
    /// The digest of every rule file and setting that can change a verdict.
    #[schema(schema_with = words::digest)]
    digest: &'a str,
}

impl<'a> From<&'a provara_domain::PolicyVersion> for PolicyVersion<'a> {
    fn from(known: &'a provara_domain::PolicyVersion) -> Self {
        Self { version: &known.version, digest: known.digest.as_str() }
    }
}

/// What policy says about a command: the strictest verdict of all parts, with every reason.
#[derive(Serialize, ToSchema)]
pub(crate) struct Judgement<'a> {
    #[schema(schema_with = words::verdict)]
    verdict: Verdict,
    #[schema(schema_with = words::severity)]
    severity: Severity,
    reasons: Vec<Reason<'a>>,
    policy: PolicyVersion<'a>,
}

impl<'a> From<&'a provara_domain::Judgement> for Judgement<'a> {
    fn from(judgement: &'a provara_domain::Judgement) -> Self {
        let reasons = judgement.reasons.iter().map(|reason| Reason {
            rule: &reason.rule,
            category: &reason.category,
            verdict: reason.verdict,
            severity: reason.severity,
            text: &reason.text,
            span: reason.span.as_ref().map(Span::from),
        });
        Self {
            verdict: judgement.verdict,
            severity: judgement.severity,
            reasons: reasons.collect(),
            policy: (&judgement.policy).into(),
        }
    }
}

/// What people answered to the same agent's equal plans lately.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeniedBefore<'a> {
    /// How often they denied it within the cool-down's window.
    #[schema(minimum = 1, maximum = 1000)]
    count: u32,
    /// When last, RFC 3339.
    #[schema(format = DateTime)]
    last_at: String,
    /// The approver's words then.
    #[schema(required)]
    reason: Option<&'a str>,
}

impl<'a> From<&'a provara_gateway::DeniedBefore> for DeniedBefore<'a> {
    fn from(known: &'a provara_gateway::DeniedBefore) -> Self {
        Self { count: known.count, last_at: known.last_at.rfc3339(), reason: known.reason.as_deref() }
    }
}

/// A plan that was queued: the documented fields and ours.
#[derive(Serialize, ToSchema)]
pub(crate) struct Queued<'a> {
    pending_id: &'a str,
    /// Always true; a plan that policy denies is answered with 403.
    queued: bool,
    command: &'a str,
    #[schema(schema_with = words::state)]
    state: Status,
    /// SHA-256 of the plan's canonical form; send it with the approval to approve exactly this.
    #[schema(schema_with = words::digest)]
    digest: &'a str,
    judgement: Judgement<'a>,
    /// Null unless people denied the same lately.
    #[schema(required)]
    denied_before: Option<DeniedBefore<'a>>,
    /// When it expires undecided, RFC 3339.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Where to look at it.
    url: String,
}

impl<'a> Queued<'a> {
    pub(crate) fn new(record: &'a PlanRecord, url: String) -> Self {
        Self {
            pending_id: record.plan.id.as_str(),
            queued: true,
            command: record.plan.command.as_str(),
            state: record.status,
            digest: record.digest.as_str(),
            judgement: (&record.judgement).into(),
            denied_before: record.denied_before.as_ref().map(DeniedBefore::from),
            expires_at: record.expires_at.rfc3339(),
            url,
        }
    }
}

/// A secret that stands in a command.
#[derive(Serialize, ToSchema)]
pub(crate) struct Secret {
    /// The id of the rule that knows it, or the name of a secret that the server knows.
    rule: String,
    /// Its bytes.
    span: Span,
}

/// A proposed command with its context: every field of the plan's canonical form is here, each once, so that `digest` can be
/// computed from what is shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct Plan<'a> {
    pending_id: &'a str,
    /// What it proposes to do.
    #[schema(schema_with = words::plan_kind)]
    kind: PlanKind,
    /// The project that it belongs to.
    project: &'a str,
    /// The command, to the byte.
    command: &'a str,
    /// The secrets that stand in the command. They are marked and not hidden: an approver sees what will run.
    secrets: Vec<Secret>,
    cwd: &'a str,
    timeout_s: u32,
    /// What the agent says about it.
    #[schema(required)]
    note: Option<&'a str>,
    /// When it was planned, Unix seconds.
    ts: f64,
    /// When it was planned, RFC 3339.
    #[schema(format = DateTime)]
    queued_at: String,
    /// When it expires undecided, RFC 3339.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Who proposed it.
    agent: &'a str,
    #[schema(schema_with = words::shell)]
    shell: Shell,
    /// Variables that it names; nothing else is inherited but a fixed list.
    #[schema(value_type = BTreeMap<String, String>)]
    env: &'a BTreeMap<EnvName, String>,
    /// What it reads, base64; null is an empty input.
    #[schema(required)]
    stdin_b64: Option<String>,
    /// Whether it gets a terminal.
    tty: bool,
    /// The host that runs it.
    target: &'a str,
    /// The confinement that the agent asks for.
    profile: &'a str,
    /// 128 random bits, hex, that make it different from an equal one.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    nonce: String,
    /// SHA-256 of the plan's canonical form.
    #[schema(schema_with = words::digest)]
    digest: &'a str,
    #[schema(schema_with = words::state)]
    state: Status,
    /// Grows with every change; goes into `revision` when waiting.
    revision: u64,
    /// When an admin, or age, had its command, input and output erased, RFC 3339.
    #[schema(required, format = DateTime)]
    erased_at: Option<String>,
    judgement: Judgement<'a>,
    /// Null unless people had denied the same when it came.
    #[schema(required)]
    denied_before: Option<DeniedBefore<'a>>,
}

impl From<provara_gateway::Finding> for Secret {
    fn from(known: provara_gateway::Finding) -> Self {
        Self { rule: known.rule, span: Span { start: known.range.start, end: known.range.end } }
    }
}

impl<'a> Plan<'a> {
    pub(crate) fn new(record: &'a PlanRecord, gateway: &Gateway) -> Self {
        let plan = &record.plan;
        Self {
            pending_id: plan.id.as_str(),
            kind: plan.kind,
            project: plan.project.as_str(),
            command: plan.command.as_str(),
            secrets: gateway.secrets(record).into_iter().map(Secret::from).collect(),
            cwd: plan.cwd.as_str(),
            timeout_s: plan.timeout.seconds(),
            note: record.note.as_ref().map(Note::as_str),
            ts: record.queued_at.unix_seconds(),
            queued_at: record.queued_at.rfc3339(),
            expires_at: record.expires_at.rfc3339(),
            agent: plan.agent.as_str(),
            shell: plan.shell,
            env: &plan.env,
            stdin_b64: plan.stdin.as_ref().map(|bytes| STANDARD.encode(bytes)),
            tty: plan.tty,
            target: plan.target.as_str(),
            profile: plan.profile.as_str(),
            nonce: plan.nonce.to_string(),
            digest: record.digest.as_str(),
            state: record.status,
            revision: record.revision,
            erased_at: record.erased_at.map(provara_domain::Timestamp::rfc3339),
            judgement: (&record.judgement).into(),
            denied_before: record.denied_before.as_ref().map(DeniedBefore::from),
        }
    }
}

/// What was decided, and by whom.
#[derive(Serialize, ToSchema)]
pub(crate) struct Decision<'a> {
    #[schema(schema_with = words::decision)]
    decision: DecisionKind,
    approver: &'a str,
    #[schema(schema_with = words::method)]
    method: DecisionMethod,
    /// The confinement that was decided on.
    profile: &'a str,
    /// The digest of that profile, which the run has to find; null for a denial.
    #[schema(required, schema_with = words::digest_or_null)]
    profile_sha256: Option<&'a str>,
    /// The bounds that were decided on: `timeout_s`, and the profile's limits that were lowered.
    limits: BTreeMap<&'static str, u64>,
    /// SHA-256 of the decision's own canonical form, as the log has it; the plan's is the plan's `digest`.
    #[schema(schema_with = words::digest)]
    decision_digest: &'a str,
    /// The approver's words for the agent.
    #[schema(required)]
    reason: Option<&'a str>,
    /// When, RFC 3339.
    #[schema(format = DateTime)]
    at: String,
}

/// A script that the command names.
#[derive(Serialize, ToSchema)]
pub(crate) struct Script<'a> {
    /// Its path as the command names it, quotes resolved.
    named: &'a str,
    /// Where the command names it.
    span: Span,
    #[schema(schema_with = words::script_use)]
    how: ScriptUse,
    #[schema(schema_with = words::script_state)]
    state: &'static str,
    /// Its real path, links resolved; null unless bound.
    #[schema(required)]
    path: Option<&'a str>,
    #[schema(schema_with = words::digest_or_null)]
    sha256: Option<&'a str>,
    /// In bytes; null unless bound.
    #[schema(required)]
    size: Option<u64>,
    /// Whether it is text that can be shown; null unless bound.
    #[schema(schema_with = words::script_content)]
    content_kind: Option<ScriptContent>,
    /// Its text, whole and as it was measured; null where it has none to show, and in errors.
    #[schema(required)]
    content: Option<&'a str>,
    /// Why its bytes are not bound; null where they are.
    #[schema(required)]
    why: Option<&'a str>,
}

/// What the machine that will run it measured about a plan. A run differs from none of it, or does not begin. What the
/// scripts read in their turn is not bound.
#[derive(Serialize, ToSchema)]
pub(crate) struct Binding<'a> {
    /// SHA-256 of the binding's canonical form; send it with the approval as `binding_digest` to approve exactly this.
    #[schema(schema_with = words::digest)]
    digest: &'a str,
    runner: &'a str,
    /// The working directory, `device:inode`; null where nothing could be measured.
    #[schema(required)]
    cwd_dev_ino: Option<&'a str>,
    #[schema(schema_with = words::digest_or_null)]
    shell_sha256: Option<&'a str>,
    #[schema(schema_with = words::digest)]
    profile_sha256: &'a str,
    /// Every script that the command names, bound or not.
    scripts: Vec<Script<'a>>,
}

impl<'a> Binding<'a> {
    pub(crate) fn new(measured: &'a Measured, digest: &'a Digest, texts: &'a [ScriptText]) -> Self {
        let binding = &measured.binding;
        Self {
            digest: digest.as_str(),
            runner: binding.runner.as_str(),
            cwd_dev_ino: binding.cwd_dev_ino.as_deref(),
            shell_sha256: binding.shell_sha256.as_ref().map(Digest::as_str),
            profile_sha256: binding.profile_sha256.as_str(),
            scripts: measured.scripts.iter().map(|script| Script::new(script, texts)).collect(),
        }
    }
}

impl<'a> Script<'a> {
    fn new(script: &'a MeasuredScript, texts: &'a [ScriptText]) -> Self {
        let (named, span, how) = (script.named.as_str(), (&script.span).into(), script.how);
        match &script.found {
            ScriptFound::Bound { path, sha256, size, content } => Self {
                named,
                span,
                how,
                state: "bound",
                path: Some(path),
                sha256: Some(sha256.as_str()),
                size: Some(*size),
                content_kind: Some(*content),
                content: texts.iter().find(|known| known.sha256 == *sha256).map(|known| known.text.as_str()),
                why: None,
            },
            ScriptFound::Unbound { why } => Self {
                named,
                span,
                how,
                state: "unbound",
                path: None,
                sha256: None,
                size: None,
                content_kind: None,
                content: None,
                why: Some(why),
            },
        }
    }
}

/// A plan with what became of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Command<'a> {
    #[serde(flatten)]
    plan: Plan<'a>,
    /// The plan that carries an approver's edit of this one.
    #[schema(required)]
    superseded_by: Option<&'a str>,
    /// The plan that this one edits or re-opens.
    #[schema(required)]
    origin: Option<&'a str>,
    #[schema(required)]
    decision: Option<Decision<'a>>,
    #[schema(required)]
    run: Option<Run<'a>>,
    /// What it runs with, as decided, or as it will be unless whoever decides says otherwise; where one plan is looked at,
    /// and a loaded profile is that.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    confinement: Option<PlanConfinement>,
    /// What was measured; null where there was nothing to measure: it names no script, runs in the workspace itself, and no
    /// rule demands more. There for people, where one plan is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Binding<'a>>, required = false)]
    binding: Option<Option<Binding<'a>>>,
}

/// The profile that a plan runs with.
#[derive(Serialize, ToSchema)]
pub(crate) struct PlanConfinement {
    profile: String,
    /// All that it lets a command do, for the approver.
    words: String,
    /// SHA-256 of the profile's canonical form, which a decision binds.
    #[schema(schema_with = words::digest)]
    sha256: String,
    /// The rules of policy that force or forbid profiles for this plan.
    rules: Vec<String>,
}

impl From<provara_gateway::Confinement> for PlanConfinement {
    fn from(known: provara_gateway::Confinement) -> Self {
        let (profile, sha256) = (known.profile.to_string(), known.sha256.to_string());
        Self { profile, words: known.words, sha256, rules: known.rules }
    }
}

/// A profile that commands can run with.
#[derive(Serialize, ToSchema)]
pub(crate) struct Profile<'a> {
    name: &'a str,
    /// All that it lets a command do.
    words: String,
    /// SHA-256 of its canonical form.
    #[schema(schema_with = words::digest)]
    sha256: String,
    /// Whether an agent may ask for it. Whoever decides may choose any.
    agents_may_ask: bool,
    /// Its canonical form.
    #[schema(value_type = words::AnyObject)]
    canonical: serde_json::Value,
}

impl<'a> From<&'a provara_gateway::LoadedProfile<'a>> for Profile<'a> {
    fn from(known: &'a provara_gateway::LoadedProfile<'a>) -> Self {
        Self {
            name: known.profile.name().as_str(),
            words: known.profile.words(),
            sha256: known.sha256.to_string(),
            agents_may_ask: known.profile.asked_by() == provara_domain::AskedBy::Agents,
            canonical: serde_json::from_slice(&known.canonical).unwrap_or_default(),
        }
    }
}

impl<'a> Command<'a> {
    pub(crate) fn new(record: &'a PlanRecord, gateway: &Gateway) -> Self {
        Self::with_output(record, gateway, None)
    }

    /// A plan with its run's output as text.
    pub(crate) fn with_output(record: &'a PlanRecord, gateway: &Gateway, texts: Option<Texts>) -> Self {
        let decision = record.decision.as_ref().map(|known| Decision {
            decision: known.decision.decision,
            approver: known.decision.approver.as_str(),
            method: known.decision.method,
            profile: known.decision.profile.as_str(),
            profile_sha256: known.decision.binding.as_ref().map(|bound| bound.profile_sha256.as_str()),
            limits: limits(known.decision.limits),
            decision_digest: known.digest.as_str(),
            reason: known.reason.as_deref(),
            at: known.decision.ts.rfc3339(),
        });
        Self {
            plan: Plan::new(record, gateway),
            superseded_by: record.superseded_by.as_ref().map(|id| id.as_str()),
            origin: record.origin.as_ref().map(|id| id.as_str()),
            decision,
            run: record.run.as_ref().map(|run| Run::new(run, texts)),
            confinement: None,
            binding: None,
        }
    }

    /// The same, with what it runs with.
    pub(crate) fn confined(self, known: Option<provara_gateway::Confinement>) -> Self {
        Self { confinement: known.map(PlanConfinement::from), ..self }
    }

    /// The same with what was measured.
    pub(crate) fn bound(self, binding: Option<Binding<'a>>) -> Self {
        Self { binding: Some(binding), ..self }
    }
}

fn limits(known: Limits) -> BTreeMap<&'static str, u64> {
    let lowered = known.resources.limited().map(|(resource, most)| (resource.as_str(), most)).collect::<Vec<_>>();
    std::iter::once(("timeout_s", u64::from(known.timeout_s))).chain(lowered).collect()
}

/// How a run ended.
#[derive(Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Outcome<'a> {
    /// The shell ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal that was not ours ended the shell.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// It was ended at its time-out.
    TimedOut,
    /// It was ended because somebody asked for it.
    Cancelled,
    /// It was never started.
    SpawnFailed {
        #[schema(schema_with = words::spawn_failure)]
        failure: SpawnFailure,
        /// What was missing and what the operator can do.
        message: &'a str,
    },
    /// It went over a bound of its profile.
    LimitExceeded {
        #[schema(schema_with = words::limit)]
        limit: Limit,
    },
}

impl<'a> From<&'a provara_domain::Outcome> for Outcome<'a> {
    fn from(outcome: &'a provara_domain::Outcome) -> Self {
        use provara_domain::Outcome as Known;
        match outcome {
            Known::Exited { code } => Self::Exited { code: *code },
            Known::Signalled { signal } => Self::Signalled { signal: *signal },
            Known::TimedOut => Self::TimedOut,
            Known::Cancelled => Self::Cancelled,
            Known::SpawnFailed { failure, message } => Self::SpawnFailed { failure: *failure, message },
            Known::LimitExceeded { limit } => Self::LimitExceeded { limit: *limit },
        }
    }
}

/// One means of confinement that was asked for.
#[derive(Serialize, ToSchema)]
pub(crate) struct Mechanism<'a> {
    /// `landlock`, `seccomp`, `user`, `mount_namespace`, …
    name: &'a str,
    /// Whether it really held.
    held: bool,
    /// Its version, or why it did not hold.
    detail: &'a str,
}

fn mechanisms(known: &[provara_domain::Mechanism]) -> Vec<Mechanism<'_>> {
    known.iter().map(|one| Mechanism { name: &one.name, held: one.held, detail: &one.detail }).collect()
}

/// The confinement that really held.
#[derive(Serialize, ToSchema)]
pub(crate) struct Enforced<'a> {
    profile: &'a str,
    mechanisms: Vec<Mechanism<'a>>,
}

/// What all processes of a run used of the machine. What the host cannot count is null.
#[derive(Serialize, ToSchema)]
#[schema(as = RunUsage)]
pub(crate) struct Usage<'a> {
    /// Processor time, user and system together.
    cpu_ms: u64,
    /// The most memory that the largest process held.
    largest_process_bytes: u64,
    /// The most memory that all had together, their private folders included. Counted by a control group alone.
    #[schema(required)]
    memory_peak_bytes: Option<u64>,
    /// What had to be read from disks.
    disk_read_bytes: u64,
    /// What had to be written to disks.
    disk_written_bytes: u64,
    /// The most processes at a time. Counted by a control group alone.
    #[schema(required)]
    processes_peak: Option<u64>,
    /// What passed through the proxy and what that refused; null where the profile has none.
    #[schema(required)]
    network: Option<NetworkUse<'a>>,
}

/// What a run's network was used for.
#[derive(Serialize, ToSchema)]
pub(crate) struct NetworkUse<'a> {
    destinations: Vec<Traffic<'a>>,
    /// What was refused, by destination and reason: the first 64 of them.
    refusals: Vec<Refused<'a>>,
    /// How many refusals there were in all.
    refused: u64,
}

/// The traffic with one destination.
#[derive(Serialize, ToSchema)]
pub(crate) struct Traffic<'a> {
    /// `name:port`, or null for all beyond the first 64 together.
    #[schema(required)]
    destination: Option<&'a str>,
    connections: u64,
    /// Bytes that went there.
    sent: u64,
    /// Bytes that came back.
    received: u64,
}

/// One kind of refusal.
#[derive(Serialize, ToSchema)]
pub(crate) struct Refused<'a> {
    /// `name:port`, or null where none was named.
    #[schema(required)]
    destination: Option<&'a str>,
    reason: &'a str,
    count: u64,
}

impl<'a> From<&'a provara_domain::NetworkUse> for NetworkUse<'a> {
    fn from(used: &'a provara_domain::NetworkUse) -> Self {
        let traffic = |it: &'a provara_domain::Traffic| Traffic {
            destination: it.destination.as_deref(),
            connections: it.connections,
            sent: it.sent,
            received: it.received,
        };
        let refused = |it: &'a provara_domain::Refused| Refused {
            destination: it.destination.as_deref(),
            reason: &it.reason,
            count: it.count,
        };
        Self {
            destinations: used.destinations.iter().map(traffic).collect(),
            refusals: used.refusals.iter().map(refused).collect(),
            refused: used.refused,
        }
    }
}

impl<'a> From<&'a provara_domain::Usage> for Usage<'a> {
    fn from(used: &'a provara_domain::Usage) -> Self {
        Self {
            cpu_ms: used.cpu_ms,
            largest_process_bytes: used.largest_process_bytes,
            memory_peak_bytes: used.memory_peak_bytes,
            disk_read_bytes: used.disk_read_bytes,
            disk_written_bytes: used.disk_written_bytes,
            processes_peak: used.processes_peak,
            network: used.network.as_ref().map(NetworkUse::from),
        }
    }
}

/// What changed below the workspace while a run went on, by the run or by somebody else who may write there.
#[derive(Serialize, ToSchema)]
#[schema(as = RunWritten)]
pub(crate) struct Written<'a> {
    /// How many paths were found; more than are listed where there are many.
    count: u64,
    paths: Vec<WrittenPath<'a>>,
    /// Why there may be more that nobody found; empty where all is known.
    #[schema(value_type = Vec<String>, inline)]
    unseen: Vec<&'static str>,
}

/// One path below the workspace.
#[derive(Serialize, ToSchema)]
pub(crate) struct WrittenPath<'a> {
    /// Relative to the workspace, which itself is `.`; what is not UTF-8 is replaced.
    path: Cow<'a, str>,
    /// All of it, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    path_b64: Option<String>,
    /// `created`, `changed`, or `folder`: one that changed with nothing in it that explains it, as where something is gone.
    change: &'static str,
}

impl<'a> From<&'a provara_domain::Written> for Written<'a> {
    fn from(found: &'a provara_domain::Written) -> Self {
        let paths = found.paths.iter().map(|found| {
            let change = found.change.as_str();
            match &found.path {
                PathName::Text(path) => WrittenPath { path: path.as_str().into(), path_b64: None, change },
                PathName::Bytes(path) => {
                    WrittenPath { path: String::from_utf8_lossy(path), path_b64: Some(STANDARD.encode(path)), change }
                }
            }
        });
        let unseen = found.unseen.iter().map(|why| why.as_str()).collect();
        Self { count: found.count, paths: paths.collect(), unseen }
    }
}

/// An execution. Output is there where one run is looked at, and not in lists.
#[derive(Serialize, ToSchema)]
pub(crate) struct Run<'a> {
    run_id: &'a str,
    #[schema(format = DateTime)]
    started_at: String,
    timeout_s: u32,
    /// Null while it runs, and where it is lost.
    #[schema(required)]
    duration_ms: Option<u64>,
    /// Null while it runs, and where it is lost.
    #[schema(required)]
    outcome: Option<Outcome<'a>>,
    /// Null unless the shell ended by itself.
    #[schema(required)]
    exit_code: Option<i32>,
    #[schema(required)]
    enforced: Option<Enforced<'a>>,
    /// Null while it runs, where it is lost, and where it never began.
    #[schema(required)]
    usage: Option<Usage<'a>>,
    /// Where one run is looked at, and it began and ended: what changed below its workspace meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    written: Option<Written<'a>>,
    /// How many bytes the command wrote, kept or not.
    stdout_bytes: u64,
    /// How many bytes the command wrote, kept or not.
    stderr_bytes: u64,
    /// How many secrets were replaced by `[redacted:RULE]` in what it wrote, before anything kept it; 0 while it runs.
    redactions: u64,
    /// The first MiB as text; what is not UTF-8 is replaced here and whole in `/runs/{id}/output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stdout_truncated: Option<bool>,
    /// The first MiB as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stderr_truncated: Option<bool>,
}

/// A run's output as text, each with whether more was written than is told.
pub(crate) struct Texts {
    pub(crate) stdout: (String, bool),
    pub(crate) stderr: (String, bool),
}

impl<'a> Run<'a> {
    pub(crate) fn new(run: &'a RunRecord, texts: Option<Texts>) -> Self {
        let written = texts.as_ref().and(run.written.as_ref()).map(Written::from);
        let (stdout, stderr) = texts.map(|texts| (texts.stdout, texts.stderr)).unzip();
        let (stdout, stdout_truncated) = stdout.unzip();
        let (stderr, stderr_truncated) = stderr.unzip();
        let enforced = run.enforced.as_ref();
        Self {
            run_id: run.id.as_str(),
            started_at: run.started_at.rfc3339(),
            timeout_s: run.timeout.seconds(),
            duration_ms: run.duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
            outcome: run.outcome.as_ref().map(Outcome::from),
            exit_code: run.outcome.as_ref().and_then(provara_domain::Outcome::exit_code),
            enforced: enforced
                .map(|held| Enforced { profile: &held.profile, mechanisms: mechanisms(&held.mechanisms) }),
            usage: run.usage.as_ref().map(Usage::from),
            written,
            stdout_bytes: run.stdout_bytes,
            stderr_bytes: run.stderr_bytes,
            redactions: run.redactions,
            stdout,
            stdout_truncated,
            stderr,
            stderr_truncated,
        }
    }
}

/// What a plan did in a throw-away copy of its workspace.
#[derive(Serialize, ToSchema)]
pub(crate) struct Preview<'a> {
    pending_id: &'a str,
    /// SHA-256 of the plan's canonical form; send it with the approval to approve exactly this.
    #[schema(schema_with = words::digest)]
    digest: &'a str,
    duration_ms: u64,
    outcome: Outcome<'a>,
    /// Null unless the shell ended by itself.
    #[schema(required)]
    exit_code: Option<i32>,
    enforced: Enforced<'a>,
    /// How many secrets were replaced by `[redacted:RULE]` in what it wrote.
    redactions: u64,
    /// The first MiB as text; what is not UTF-8 is replaced.
    stdout: String,
    stdout_truncated: bool,
    /// The first MiB as text.
    stderr: String,
    stderr_truncated: bool,
    /// What is not as it was, by the bytes of its path: the first thousand.
    changes: Vec<Change<'a>>,
    /// How many more there are.
    more: u64,
    /// How many files and folders could not be read to the end: there may be more changes than are told.
    unread: u64,
    /// SHA-256 of the canonical form of `changes`, `more` and `unread`, as the log has it.
    #[schema(schema_with = words::digest)]
    changes_sha256: &'a str,
}

/// One path that is not as it was.
#[derive(Serialize, ToSchema)]
pub(crate) struct Change<'a> {
    /// `created`, `changed`, `deleted` with all that was in it, or `replaced`: another folder, what is in it listed as new.
    kind: &'static str,
    /// Below the workspace; what is not UTF-8 is replaced.
    path: String,
    /// The same to the byte.
    path_b64: String,
    /// `file`, `folder`, `link` or `special`; of what was deleted, what it was, null where that could not be seen any more.
    #[serde(rename = "type")]
    #[schema(required)]
    node: Option<&'static str>,
    /// Permission bits; null where it was deleted.
    #[schema(required)]
    mode: Option<u32>,
    /// Bytes of a file, as decimal digits: it may be longer than numbers of JSON are exact.
    #[schema(required)]
    size: Option<String>,
    /// SHA-256 of a file's bytes; null where they could not be read.
    #[schema(required)]
    sha256: Option<&'a str>,
    /// Where a link leads; what is not UTF-8 is replaced.
    #[schema(required)]
    target: Option<String>,
    /// The same to the byte.
    #[schema(required)]
    target_b64: Option<String>,
}

impl<'a> Preview<'a> {
    pub(crate) fn new(preview: &'a provara_gateway::Preview) -> Self {
        let seen = &preview.seen;
        let text = |told: &provara_gateway::Told| String::from_utf8_lossy(&told.bytes).into_owned();
        Self {
            pending_id: preview.record.plan.id.as_str(),
            digest: preview.record.digest.as_str(),
            duration_ms: u64::try_from(seen.duration.as_millis()).unwrap_or(u64::MAX),
            outcome: (&seen.outcome).into(),
            exit_code: seen.outcome.exit_code(),
            enforced: Enforced { profile: &seen.enforced.profile, mechanisms: mechanisms(&seen.enforced.mechanisms) },
            redactions: preview.redactions,
            stdout: text(&preview.stdout),
            stdout_truncated: preview.stdout.truncated,
            stderr: text(&preview.stderr),
            stderr_truncated: preview.stderr.truncated,
            changes: seen.changes.listed.iter().map(Change::from).collect(),
            more: seen.changes.more,
            unread: seen.changes.unread,
            changes_sha256: preview.changes_sha256.as_str(),
        }
    }
}

impl<'a> From<&'a provara_domain::Change> for Change<'a> {
    fn from(change: &'a provara_domain::Change) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            kind: change.kind.as_str(),
            path: text(&change.path),
            path_b64: STANDARD.encode(&change.path),
            node: change.node.map(provara_domain::NodeKind::as_str),
            mode: change.mode,
            size: change.size.map(|size| size.to_string()),
            sha256: change.sha256.as_ref().map(provara_domain::Digest::as_str),
            target: change.target.as_deref().map(text),
            target_b64: change.target.as_ref().map(|target| STANDARD.encode(target)),
        }
    }
}

/// What became of an approved plan: the documented fields and ours.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ran<'a> {
    #[serde(flatten)]
    run: Run<'a>,
    pending_id: &'a str,
    cwd: &'a str,
    command: &'a str,
    #[schema(schema_with = words::state)]
    state: Status,
}

impl<'a> Ran<'a> {
    pub(crate) fn new(record: &'a PlanRecord, run: &'a RunRecord, texts: Texts) -> Self {
        Self {
            run: Run::new(run, Some(texts)),
            pending_id: record.plan.id.as_str(),
            cwd: record.plan.cwd.as_str(),
            command: record.plan.command.as_str(),
            state: record.status,
        }
    }
}

/// A judgement with how it came about.
#[derive(Serialize, ToSchema)]
pub(crate) struct Explained<'a> {
    judgement: Judgement<'a>,
    /// Every command that was found, unwrapped ones after what wraps them.
    commands: Vec<ReadCommand<'a>>,
    /// The rules that were asked.
    tried: Vec<Tried<'a>>,
}

/// A judgement; for people with how it came about.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Checked<'a> {
    Judgement(Judgement<'a>),
    Explained(Explained<'a>),
}

/// One command that was found.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReadCommand<'a> {
    /// The program as written, quotes and escapes resolved.
    program: &'a str,
    args: &'a [String],
    /// Operator and target of each.
    #[schema(value_type = Vec<Vec<String>>)]
    redirections: &'a [(String, String)],
    /// The variables that it sets.
    assignments: &'a [String],
    span: Span,
    /// How many wrappers and scripts hide it.
    depth: u32,
}

/// One rule that was asked.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tried<'a> {
    rule: &'a str,
    matched: bool,
}

impl<'a> From<&'a Explanation> for Explained<'a> {
    fn from(known: &'a Explanation) -> Self {
        let commands = known.commands.iter().map(|command| ReadCommand {
            program: &command.program,
            args: &command.args,
            redirections: &command.redirections,
            assignments: &command.assignments,
            span: (&command.span).into(),
            depth: command.depth,
        });
        let tried = known.tried.iter().map(|tried| Tried { rule: &tried.rule, matched: tried.matched });
        Self { judgement: (&known.judgement).into(), commands: commands.collect(), tried: tried.collect() }
    }
}

/// The policy in force.
#[derive(Serialize, ToSchema)]
pub(crate) struct PolicyInForce<'a> {
    pub(crate) policy: PolicyVersion<'a>,
    pub(crate) rules: Vec<Rule<'a>>,
}

/// A rule.
#[derive(Serialize, ToSchema)]
pub(crate) struct Rule<'a> {
    pub(crate) id: &'a str,
    pub(crate) category: &'a str,
    #[schema(schema_with = words::severity)]
    pub(crate) severity: Severity,
    #[schema(schema_with = words::verdict)]
    pub(crate) verdict: Verdict,
    /// The shells that it speaks of.
    #[schema(schema_with = words::shells)]
    pub(crate) shells: &'a [Shell],
    pub(crate) reason: &'a str,
    /// What it matches runs with this profile or a tighter one.
    #[schema(required)]
    pub(crate) force_profile: Option<&'a str>,
    /// What it matches runs with none of these.
    pub(crate) forbid_profiles: Vec<&'a str>,
    /// What it matches is approved only where all that it names is bound.
    pub(crate) demand_binding: bool,
    pub(crate) examples: Examples<'a>,
}

/// What a rule promises about itself, checked whenever it is loaded.
#[derive(Serialize, ToSchema)]
pub(crate) struct Examples<'a> {
    #[serde(rename = "match")]
    pub(crate) matching: &'a [String],
    #[serde(rename = "no_match")]
    pub(crate) not_matching: &'a [String],
}

/// Counts and version.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerStatus {
    pub(crate) ok: bool,
    pub(crate) pending_count: u64,
    /// Denied by somebody, or blocked by policy.
    pub(crate) denied_count: u64,
    pub(crate) token_required: bool,
    /// Whether one token both proposes and decides, so that nothing stops an agent from approving its own plans.
    pub(crate) single_token: bool,
    pub(crate) version: &'static str,
}

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health<'a> {
    pub(crate) status: &'static str,
    pub(crate) uptime_seconds: f64,
    pub(crate) memory_mb: f64,
    pub(crate) pending_count: u64,
    pub(crate) runs_count: u64,
    #[schema(format = DateTime)]
    pub(crate) timestamp: String,
    /// What this host can enforce; for people only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) confinement: Option<Confinement<'a>>,
}

/// What this host was found able to enforce.
#[derive(Serialize, ToSchema)]
pub(crate) struct Confinement<'a> {
    /// The user that commands run as.
    run_as: &'a str,
    mechanisms: Vec<Mechanism<'a>>,
    /// Why commands cannot be confined here, where that is so.
    #[schema(required)]
    problem: Option<&'a str>,
    /// Every loaded profile.
    profiles: Vec<TriedProfile<'a>>,
}

/// Whether this host can hold a profile.
#[derive(Serialize, ToSchema)]
pub(crate) struct TriedProfile<'a> {
    name: &'a str,
    /// Why commands are not run under it here, where that is so. Tried once, when somebody first asked.
    #[schema(required)]
    problem: Option<&'a str>,
}

impl<'a> Confinement<'a> {
    pub(crate) fn new(known: &'a provara_gateway::HostReport, tried: &'a [provara_gateway::TriedProfile]) -> Self {
        let profile = |it: &'a provara_gateway::TriedProfile| TriedProfile {
            name: it.name.as_str(),
            problem: it.problem.as_deref(),
        };
        Self {
            run_as: &known.run_as,
            mechanisms: mechanisms(&known.mechanisms),
            problem: known.problem.as_deref(),
            profiles: tried.iter().map(profile).collect(),
        }
    }
}

/// The signed head of the log.
#[derive(Serialize, ToSchema)]
pub(crate) struct Checkpoint {
    /// A signed note.
    pub(crate) checkpoint: String,
    /// The key that checks it. Keep it where this server cannot reach it: only an old copy shows a forgery.
    pub(crate) key: String,
}

/// Proofs that entries are in the log.
#[derive(Serialize, ToSchema)]
pub(crate) struct Inclusion {
    pub(crate) size: u64,
    /// The root hash of a log of that size, hex.
    pub(crate) root: String,
    pub(crate) entries: Vec<Included>,
}

/// One entry with its proof.
#[derive(Serialize, ToSchema)]
pub(crate) struct Included {
    pub(crate) position: u64,
    /// Its canonical bytes.
    #[schema(required)]
    pub(crate) leaf: Option<String>,
    /// Hashes from the leaf to the root, hex.
    pub(crate) proof: Vec<String>,
}

/// A proof that a log of one size begins one of another.
#[derive(Serialize, ToSchema)]
pub(crate) struct Consistency {
    pub(crate) old: u64,
    pub(crate) new: u64,
    pub(crate) old_root: String,
    pub(crate) new_root: String,
    pub(crate) proof: Vec<String>,
}

/// What was erased.
#[derive(Serialize, ToSchema)]
pub(crate) struct Erased {
    /// How many plans.
    pub(crate) erased: u64,
    /// Whether there may be more: ask again.
    pub(crate) more: bool,
}

/// A token's record.
#[derive(Serialize, ToSchema)]
pub(crate) struct Token<'a> {
    id: &'a str,
    name: &'a str,
    #[schema(schema_with = words::roles)]
    roles: Vec<&'static str>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(required, format = DateTime)]
    revoked_at: Option<String>,
}

impl<'a> From<&'a TokenRecord> for Token<'a> {
    fn from(record: &'a TokenRecord) -> Self {
        Self {
            id: record.id.as_str(),
            name: record.name.as_str(),
            roles: record.roles.iter().map(Role::as_str).collect(),
            created_at: record.created_at.rfc3339(),
            revoked_at: record.revoked_at.map(provara_domain::Timestamp::rfc3339),
        }
    }
}

/// A new token. The secret stands in no other answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewToken<'a> {
    #[serde(flatten)]
    pub(crate) record: Token<'a>,
    pub(crate) token: String,
}

/// A folder that commands may run in.
#[derive(Serialize, ToSchema)]
pub(crate) struct Workspace {
    pub(crate) path: String,
}
