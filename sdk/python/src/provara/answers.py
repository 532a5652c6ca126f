"""What the server answers with, as types. They are plain dicts; a newer server may put more in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

State = Literal[
    "pending",
    "approved",
    "running",
    "finished",
    "lost",
    "denied",
    "blocked",
    "expired",
    "withdrawn",
    "superseded",
    "cancelled",
]


class Reason(TypedDict, total=False):
    """One rule's word on a command."""

    rule: str
    category: str
    verdict: Literal["allow", "ask", "deny"]
    severity: str
    text: str
    span: Any


class Judgement(TypedDict, total=False):
    """Policy's verdict with its reasons."""

    verdict: Literal["allow", "ask", "deny"]
    severity: str
    reasons: list[Reason]
    policy: Any


class DeniedBefore(TypedDict):
    """What people answered to equal plans of the same agent lately."""

    count: int
    last_at: str
    reason: str | None


class Queued(TypedDict):
    """The answer to a plan."""

    pending_id: str
    queued: bool
    command: str
    state: State
    digest: str
    judgement: Judgement
    denied_before: DeniedBefore | None
    expires_at: str
    url: str


class Secret(TypedDict):
    """A secret that stands in a command, by the rule that knows it."""

    rule: str
    span: Any


class PendingPlan(TypedDict):
    """A plan that waits for a person."""

    pending_id: str
    kind: str
    project: str
    command: str
    secrets: list[Secret]
    cwd: str
    timeout_s: int
    note: str | None
    ts: float
    queued_at: str
    expires_at: str
    agent: str
    shell: str
    env: dict[str, str]
    stdin_b64: str | None
    tty: bool
    target: str
    profile: str
    nonce: str
    digest: str
    state: State
    revision: int
    erased_at: str | None
    judgement: Judgement
    denied_before: DeniedBefore | None


class Decision(TypedDict):
    """What a person decided."""

    decision: str
    approver: str
    method: str
    profile: str | None
    decision_digest: str
    reason: str | None
    at: str


class Run(TypedDict, total=False):
    """An execution. The output is there where one plan was asked for, and not in lists."""

    run_id: str
    started_at: str
    timeout_s: int
    duration_ms: int | None
    outcome: dict[str, Any] | None
    exit_code: int | None
    enforced: Any
    usage: dict[str, int | None] | None
    written: dict[str, Any]
    stdout_bytes: int
    stderr_bytes: int
    redactions: int
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool


class Command(PendingPlan):
    """A plan with what became of it."""

    superseded_by: str | None
    origin: Any
    decision: Decision | None
    run: Run | None


class Status(TypedDict):
    """What anybody may know of the server."""

    ok: bool
    pending_count: int
    denied_count: int
    token_required: bool
    single_token: bool
    version: str


class Health(TypedDict):
    """The server's health; a person's token sees more than these."""

    status: str
    uptime_seconds: float
    memory_mb: float
    pending_count: int
    runs_count: int
    timestamp: str


class PlanOptions(TypedDict, total=False):
    """What a plan may say beside its command. None is the same as not saying it."""

    note: str | None
    cwd: str | None
    timeout_s: int | None
    shell: str | None
    env: dict[str, str] | None
    stdin: str | bytes | None
    target: str | None
    profile: str | None
    expires_s: int | None
    dedupe: bool | None
    idempotency_key: str | None


@dataclass(frozen=True)
class RunResult:
    """What became of a command that ran."""

    pending_id: str
    run_id: str
    state: str
    """`finished`, or `lost` when the server died while it ran and nobody can say how it ended."""
    outcome: str | None
    """`exited`, `signalled`, `timed_out`, `cancelled`, `spawn_failed`, `limit_exceeded`; None when lost."""
    exit_code: int | None
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)
    truncated: bool
    """Whether the server holds more output than it put into this answer."""
    command: Command = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.exit_code == 0


@dataclass(frozen=True)
class Event:
    """An entry of the log. `id` is its position."""

    id: int
    type: str
    data: dict[str, Any]
