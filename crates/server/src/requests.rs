//! What request bodies hold, as `/openapi.json` tells it. `Fields` reads them; a test compares the two.
#![expect(dead_code, reason = "documents what `Fields` reads")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

use crate::openapi::words;

/// A command to be judged and decided on.
#[derive(ToSchema)]
pub(crate) struct PlanRequest {
    /// To the byte what will run.
    #[schema(min_length = 1, max_length = 10_000)]
    command: String,
    /// Where it runs; the workspace by default. It must lie in a workspace.
    #[schema(max_length = 500)]
    cwd: Option<String>,
    /// Seconds that it may run.
    #[schema(minimum = 1, maximum = 3600, default = 300)]
    timeout_s: Option<u32>,
    /// For the approver.
    #[schema(max_length = 1000)]
    note: Option<String>,
    /// The shell that reads it; `bash` by default.
    #[schema(schema_with = words::shell_or_null, required = false)]
    shell: Option<String>,
    /// The host that runs it.
    #[schema(schema_with = words::name_or_null, required = false)]
    target: Option<String>,
    /// The confinement that is asked for.
    #[schema(schema_with = words::name_or_null, required = false)]
    profile: Option<String>,
    /// Variables for it. Nothing else is inherited but a fixed list.
    env: Option<BTreeMap<String, String>>,
    /// What it reads, as text. Wins over `stdin_b64`.
    #[schema(max_length = 1_048_576)]
    stdin: Option<String>,
    /// What it reads, base64.
    #[schema(max_length = 1_048_576)]
    stdin_b64: Option<String>,
    /// Seconds until it expires undecided; 7 days by default.
    #[schema(minimum = 1, maximum = 2_592_000)]
    expires_s: Option<u32>,
    /// Whether an equal plan of yours that still waits is answered instead of a new one.
    #[schema(default = false)]
    dedupe: Option<bool>,
}

/// An approval.
#[derive(ToSchema)]
pub(crate) struct ApproveRequest {
    /// The plan's digest as you saw it: with another one the answer is 409 and nothing runs.
    #[schema(schema_with = words::digest_or_null, required = false)]
    digest: Option<String>,
    /// The binding's digest as you saw it: with another one the answer is 409 and nothing runs.
    #[schema(schema_with = words::digest_or_null, required = false)]
    binding_digest: Option<String>,
    /// For the record and the agent.
    #[schema(max_length = 1000)]
    reason: Option<String>,
    /// Another confinement than the plan would run with. One that allows more, or cannot be compared, needs a `reason`.
    #[schema(schema_with = words::name_or_null, required = false)]
    profile: Option<String>,
    /// The profile's digest as you saw it: with another one the answer is 409 and nothing runs.
    #[schema(schema_with = words::digest_or_null, required = false)]
    profile_sha256: Option<String>,
    /// Fewer seconds than the plan's.
    #[schema(minimum = 1, maximum = 3600)]
    timeout_s: Option<u32>,
    /// Seconds of processor time. This and the following are at most what the profile allows.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    cpu_s: Option<u64>,
    /// Bytes of memory.
    #[schema(minimum = 16_777_216, maximum = 9_007_199_254_740_991_i64)]
    memory: Option<u64>,
    /// Processes at a time.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    processes: Option<u64>,
    /// Open files of each process.
    #[schema(minimum = 16, maximum = 9_007_199_254_740_991_i64)]
    open_files: Option<u64>,
    /// Bytes of each file.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    file_size: Option<u64>,
    /// Bytes of output.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    output: Option<u64>,
}

/// A denial.
#[derive(ToSchema)]
pub(crate) struct DenyRequest {
    /// For the record and the agent.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// What to change; the rest stays.
#[derive(ToSchema)]
pub(crate) struct EditRequest {
    #[schema(min_length = 1, max_length = 10_000)]
    command: Option<String>,
    #[schema(max_length = 500)]
    cwd: Option<String>,
    #[schema(minimum = 1, maximum = 3600)]
    timeout_s: Option<u32>,
    #[schema(max_length = 1000)]
    note: Option<String>,
}

/// A longer time-out.
#[derive(ToSchema)]
pub(crate) struct ExtendRequest {
    /// Counted from the run's start.
    #[schema(minimum = 1, maximum = 3600)]
    timeout_s: u32,
}

/// A question to policy.
#[derive(ToSchema)]
pub(crate) struct CheckRequest {
    #[schema(min_length = 1, max_length = 10_000)]
    command: String,
    #[schema(schema_with = words::shell_or_null, required = false)]
    shell: Option<String>,
    #[schema(max_length = 500)]
    cwd: Option<String>,
}

/// What to erase: either of both, never both.
#[derive(ToSchema)]
pub(crate) struct EraseRequest {
    /// The `pending_id` of one settled plan.
    #[schema(min_length = 1, max_length = 100)]
    plan: Option<String>,
    /// A day, `2026-01-31`, UTC: what settled before it.
    #[schema(min_length = 10, max_length = 10, format = Date)]
    before: Option<String>,
}

/// A token to be made.
#[derive(ToSchema)]
pub(crate) struct TokenRequest {
    /// Its holder. Needed, unless the token replaces one.
    #[schema(schema_with = words::name_or_null, required = false)]
    name: Option<String>,
    /// What the holder may do. An agent may do nothing else. Needed, unless the token replaces one.
    #[schema(schema_with = words::roles_or_null, required = false)]
    roles: Option<Vec<String>>,
    /// The `id` of the token whose place it takes, with its name and roles.
    #[schema(min_length = 1, max_length = 64)]
    replaces: Option<String>,
}

/// A folder that commands may run in.
#[derive(ToSchema)]
pub(crate) struct WorkspaceRequest {
    /// Absolute, existing, and named as the kernel names it.
    #[schema(min_length = 1, max_length = 500)]
    path: String,
}
