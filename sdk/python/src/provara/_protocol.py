"""The protocol without any I/O: which requests an operation makes and what its answers mean.

An operation is a generator. It yields a `Call` and is sent the response, or thrown the transport's error, or it yields
a `Pause`; what it returns is the operation's answer. The two clients only carry this out.
"""

from __future__ import annotations

import base64
import json
import math
import random
import re
import time
import uuid
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import httpx

from provara import errors
from provara._visible import visible_line
from provara.answers import Command, Event, PlanOptions, RunResult

T = TypeVar("T")

OPEN_STATES = ("pending", "approved", "running")
"""The states from which a plan goes on."""

LONG_POLL = 30.0
# Three heartbeats of the server's.
SILENCE = 45.0
# How often an answer is asked for again where nobody waits for the server to come back.
_REPEATS = 2
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
# A line of an event stream longer than this is not one of ours.
_LONGEST_LINE = 4 << 20
# A message tells what is wrong; it does not carry a megabyte of somebody's command.
_LONGEST_DETAIL = 2000
# Ids go into paths: nothing that could make another path of them.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    with_token: bool = True
    repeatable: bool = False
    """Whether asking twice does no more than asking once."""
    patient: bool = False
    """Whether a server that was there and went away is waited for."""
    extra_time: float = 0.0
    """How much longer than others the answer may take, in seconds."""

    def content(self) -> bytes | None:
        return None if self.body is None else json.dumps(self.body, allow_nan=False).encode("ascii")

    def all_headers(self) -> dict[str, str]:
        given = dict(self.headers)
        if self.body is not None:
            given["content-type"] = "application/json"
        return given


@dataclass(frozen=True)
class Pause:
    """A time in which nothing is asked, in seconds."""

    seconds: float


Step = Call | Pause
Flow = Generator[Step, "httpx.Response | None", T]


# Operations


def plan(command: str, options: PlanOptions, patience: float) -> Flow[Any]:
    body: dict[str, Any] = {"command": command}
    for name, value in options.items():
        if name not in PlanOptions.__annotations__:
            known = ", ".join(PlanOptions.__annotations__)
            raise TypeError(f"a plan has no option `{name}`; it has {known}")
        if value is not None and name != "idempotency_key":
            body[name] = value
    stdin = body.get("stdin")
    if isinstance(stdin, bytes):
        del body["stdin"]
        body["stdin_b64"] = base64.b64encode(stdin).decode("ascii")
    # With a key an answer that was lost can be asked for again, and the command is still queued once.
    key = options.get("idempotency_key") or uuid.uuid4().hex
    if not key.isascii() or not key.isprintable():
        raise errors.ConfigurationError("an idempotency key is printable ASCII; draw one with uuid.uuid4().hex")
    call = Call("POST", "/plan", body=body, headers={"idempotency-key": key}, repeatable=True)
    return (yield from ask(call, patience))


def pending(limit: int, patience: float) -> Flow[Any]:
    return (yield from ask(Call("GET", "/pending", {"limit": str(int(limit))}, repeatable=True), patience))


def status(patience: float) -> Flow[Any]:
    return (yield from ask(Call("GET", "/status", with_token=False, repeatable=True), patience))


def health(patience: float) -> Flow[Any]:
    return (yield from ask(Call("GET", "/health", repeatable=True), patience))


def get(plan_id: str, patience: float) -> Flow[Any]:
    return (yield from ask(Call("GET", f"/commands/{checked_id(plan_id)}", repeatable=True), patience))


def cancel(plan_id: str, patience: float) -> Flow[Any]:
    return (yield from ask(Call("POST", f"/commands/{checked_id(plan_id)}/cancel"), patience))


def deny(plan_id: str, reason: str | None, patience: float) -> Flow[Any]:
    return (yield from ask(Call("POST", f"/deny/{checked_id(plan_id)}", body=_said(reason=reason)), patience))


def approve(
    plan_id: str, said: Mapping[str, Any], *, until_done: bool, timeout: float | None, patience: float
) -> Flow[Any]:
    # The decision is recorded and answered at once; the run is waited for apart, so that a lost connection loses
    # nothing.
    call = Call("POST", f"/approve/{checked_id(plan_id)}", body=_said(**said), headers={"prefer": "respond-async"})
    decided = yield from ask(call, patience)
    if not until_done:
        return decided
    return (yield from wait(plan_id, timeout, patience))


def policy_check(command: str, shell: str | None, cwd: str | None, patience: float) -> Flow[Any]:
    body = _said(command=command, shell=shell, cwd=cwd)
    return (yield from ask(Call("POST", "/policy/check", body=body, repeatable=True), patience))


def wait(plan_id: str, timeout: float | None, patience: float) -> Flow[Any]:
    """Looks until the plan has ended, and at the plan that took its place where an approver edited it."""
    deadline = None if timeout is None else time.monotonic() + timeout
    asked_for, passed = plan_id, {plan_id}
    revision: int | None = None
    while True:
        left = LONG_POLL if deadline is None else min(LONG_POLL, max(0.0, deadline - time.monotonic()))
        params = {"wait": str(math.ceil(left))}
        if revision is not None:
            params["revision"] = str(revision)
        path = f"/commands/{checked_id(plan_id)}"
        call = Call("GET", path, params, repeatable=True, patient=True, extra_time=LONG_POLL)
        record = yield from ask(call, patience if deadline is None else min(patience, left))
        state = record.get("state")
        if state == "superseded" and record.get("superseded_by"):
            plan_id, revision = record["superseded_by"], None
            if plan_id in passed:
                return record
            passed.add(plan_id)
            continue
        if state not in OPEN_STATES:
            return record
        if deadline is not None and time.monotonic() >= deadline:
            message = f"plan {plan_id} is still {state} after {timeout:g} s; wait for it again, or cancel it"
            raise errors.WaitTimeout(message, asked_for, state)
        revision = record.get("revision")


def run(command: str, options: PlanOptions, timeout: float | None, patience: float) -> Flow[RunResult]:
    queued = yield from plan(command, options, patience)
    return result_of((yield from wait(queued["pending_id"], timeout, patience)))


def result_of(record: Command) -> RunResult:
    """Returns what became of a plan that ran; raises `NotRun` where it did not."""
    run, plan_id, state = record["run"], record["pending_id"], record["state"]
    if run is None:
        if state == "denied":
            decision = record["decision"]
            said = decision["reason"] if decision else None
            because = f": {_bounded(said)}" if isinstance(said, str) and said else ""
            advice = "plan something else, or ask them why"
            raise errors.Denied(f"plan {plan_id} was denied by a person{because}; {advice}", record)
        why = {
            "blocked": "policy denies it now; mend the command and plan it again",
            "expired": "nobody answered in time; plan it again when somebody is there",
            "withdrawn": "it was withdrawn; plan it again if it is still wanted",
            "cancelled": "it was cancelled before it began; plan it again if it is still wanted",
        }
        raise errors.NotRun(
            f"plan {plan_id} did not run: {why.get(state, f'it is {state}; look at it with get()')}", record
        )
    outcome = run.get("outcome")
    return RunResult(
        pending_id=plan_id,
        run_id=run["run_id"],
        state=state,
        outcome=outcome.get("kind") if outcome else None,
        exit_code=run.get("exit_code"),
        stdout=run.get("stdout", ""),
        stderr=run.get("stderr", ""),
        truncated=bool(run.get("stdout_truncated") or run.get("stderr_truncated")),
        command=record,
    )


def _said(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def checked_id(plan_id: str) -> str:
    """Returns the id, if it is one."""
    if not isinstance(plan_id, str) or not _ID.fullmatch(plan_id):
        raise errors.ConfigurationError("this is no plan's id; use the `pending_id` that plan() returned")
    return plan_id


# One question, asked again where that is safe


def ask(call: Call, patience: float) -> Flow[Any]:
    """Returns the answer's JSON, or raises what is wrong. Pauses for `patience` seconds altogether, and no longer."""
    paused, backoff, repeats = 0.0, Backoff(), 0
    was_there = False
    while True:
        cause: httpx.TransportError | None = None
        try:
            response = cast(httpx.Response, (yield call))
        except httpx.TransportError as error:
            fault, cause = transport_fault(call, error), error
        else:
            found = fault_of(response)
            if found is None:
                return answer_of(response)
            fault = found
        was_there = was_there or not isinstance(fault, errors.CannotConnect)
        pause = None
        if isinstance(fault, errors.RateLimited):
            # Refused before anything was done, so that even a decision may be sent again.
            pause = fault.retry_after if fault.retry_after is not None else backoff.next()
        elif _worth_repeating(call, fault, was_there=was_there, repeats=repeats):
            pause, repeats = backoff.next(), repeats + 1
            if isinstance(fault, errors.ServerUnavailable):
                pause = max(pause, errors.retry_after(fault.response) or 0.0)
        if pause is None or paused + pause > patience:
            raise fault from cause
        paused += pause
        yield Pause(pause)


def _worth_repeating(call: Call, fault: errors.ProvaraError, *, was_there: bool, repeats: int) -> bool:
    if not call.repeatable or not (call.patient or repeats < _REPEATS):
        return False
    if isinstance(fault, errors.CannotConnect):
        return call.patient and was_there
    return isinstance(fault, errors.ConnectionLost | errors.ServerUnavailable)


class Backoff:
    """Pauses that grow, each by chance so that many clients do not come back at once."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE

    def next(self) -> float:
        pause, self._next = self._next, min(self._next * 2, _LONGEST_PAUSE)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, guards nothing

    def reset(self) -> None:
        self._next = _FIRST_PAUSE


# What answers mean


def transport_fault(call: Call, error: httpx.TransportError) -> errors.ProvaraError:
    """Returns our error for the transport's."""
    request = error.request
    where = visible_line(f"{request.url.scheme}://{request.url.netloc.decode('ascii', 'replace')}")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        advice = "start it with `provara serve`, or set AGENT_HUB_BASE"
        text = f"no server answers at {where} ({_bounded(str(error))}); {advice}"
        return errors.CannotConnect(text, request=request)
    again = "ask again" if call.repeatable else "look with get() whether it was done before asking again"
    if isinstance(error, httpx.TimeoutException):
        return errors.AnswerTimeout(f"the server at {where} did not answer in time; {again}", request=request)
    return errors.ConnectionLost(f"the connection to {where} ended before the answer; {again}", request=request)


_NEXT_STEP: dict[int, str] = {
    401: "check AGENT_HUB_TOKEN",
    403: "use a token that has this right",
    404: "check the id; an agent sees its own plans only",
    409: "look at the plan with get() and decide anew",
    413: "send less",
    422: "mend the fields that are named",
    423: "wait until a person lifts the stop",
    429: "wait and ask again",
}
_NOT_FOUND, _REDIRECTS, _SERVER_FAULTS = 404, range(300, 400), range(500, 600)
_KINDS: dict[int, type[errors.AnswerError]] = {
    401: errors.AuthenticationError,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.InvalidRequest,
    422: errors.InvalidRequest,
    423: errors.Frozen,
    429: errors.RateLimited,
}


def fault_of(response: httpx.Response) -> errors.AnswerError | None:
    """Returns what is wrong, if anything is."""
    if response.is_success:
        return None
    body = _object(response)
    status, text = response.status_code, _detail(body)
    said = f"{status} {text}".rstrip()
    if status in _REDIRECTS:
        advice = "a redirect is not followed with a token; set AGENT_HUB_BASE to the address that it names"
        return errors.UnexpectedAnswer(f"{said}: {advice}".lstrip(), response, body)
    if status in _SERVER_FAULTS:
        advice = "try again later, and see the server's log if it stays so"
        return errors.ServerUnavailable(f"{said}; {advice}", response, body)
    kind = _KINDS.get(status)
    if kind is None or not body:
        advice = "is AGENT_HUB_BASE really Provara?"
        return (kind or errors.UnexpectedAnswer)(f"{said}; {advice}", response, body)
    if body.get("code") == "policy_denied":
        return errors.PolicyDenied(f"{said}; mend the command and plan it again", response, body)
    return kind(f"{said}; {_NEXT_STEP[status]}", response, body)


def answer_of(response: httpx.Response) -> Any:
    """Returns the JSON of a success."""
    try:
        return response.json()
    except ValueError:
        text = f"{response.status_code} with an answer that is no JSON; is AGENT_HUB_BASE really Provara?"
        raise errors.UnexpectedAnswer(text, response, {}) from None


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _detail(body: Mapping[str, Any]) -> str:
    detail = body.get("detail")
    if isinstance(detail, list):
        faults = (fault for fault in detail if isinstance(fault, dict))
        detail = "; ".join(f"{_location(fault.get('loc'))}: {fault.get('msg')}" for fault in faults)
    return _bounded(detail) if isinstance(detail, str) else ""


def _location(loc: object) -> str:
    parts = [str(part) for part in loc] if isinstance(loc, list) else []
    return ".".join(parts[1:] or parts) or "request"


def _bounded(text: str) -> str:
    text = text if len(text) <= _LONGEST_DETAIL else text[:_LONGEST_DETAIL] + "…"
    return visible_line(text)


# Events


class EventFeed:
    """Makes events of the bytes of a stream, and knows where to resume when it breaks."""

    def __init__(self, since: int | None, types: Iterable[str] | None, patience: float) -> None:
        self._last = since
        self._types = None if types is None else ",".join([types] if isinstance(types, str) else types)
        self._patience, self._paused = patience, 0.0
        self._backoff = Backoff()
        self._was_there = False
        self._begin()

    def call(self) -> Call:
        """Returns the request that goes on where the last stream ended."""
        self._begin()
        params = {} if self._types is None else {"types": self._types}
        headers = {"accept": "text/event-stream"}
        if self._last is not None:
            headers["last-event-id"] = str(self._last)
        return Call("GET", "/events", params, headers=headers, repeatable=True, patient=True)

    def _begin(self) -> None:
        self._rest = bytearray()
        self._id: str | None = None
        self._type, self._data = "", list[str]()
        self._lines = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """Returns the events that `chunk` completes."""
        self._was_there = True
        self._rest += chunk
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        if len(rest) > _LONGEST_LINE:
            raise errors.ProvaraError("the event stream has a line without end; is AGENT_HUB_BASE really Provara?")
        return [event for line in lines if (event := self._line(line.decode("utf-8", "replace").rstrip("\r")))]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        self._lines += 1
        name, _, value = line.partition(":")
        if not name and self._lines > 1:
            self._alive()
        value = value.removeprefix(" ")
        if name == "id":
            self._id = value
        elif name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        return None

    def _dispatch(self) -> Event | None:
        given, kind, text = self._id, self._type, "\n".join(self._data)
        self._id, self._type, self._data = None, "", []
        position = int(given) if given is not None and given.isascii() and given.isdigit() else None
        if position is None:
            # A notice without a place in the log, such as that the server lets this reader go.
            return None
        if self._last is not None and position <= self._last:
            return None
        self._last = position
        if not text:
            return None
        self._alive()
        try:
            data = json.loads(text)
        except ValueError:
            raise errors.ProvaraError(f"event {position} is no JSON; is AGENT_HUB_BASE really Provara?") from None
        return Event(position, kind, data if isinstance(data, dict) else {"value": data})

    def _alive(self) -> None:
        """A stream that only begins, again and again, has not come back."""
        self._paused = 0.0
        self._backoff.reset()

    def _may_pass(self, fault: errors.ProvaraError) -> bool:
        if isinstance(fault, errors.CannotConnect):
            return self._was_there
        return isinstance(fault, errors.ConnectionLost | errors.RateLimited | errors.ServerUnavailable)

    def pause(self, fault: errors.ProvaraError | None) -> float:
        """Returns how long to wait before coming back; raises `fault` where that makes no sense."""
        if fault is not None and not self._may_pass(fault):
            raise fault
        pause = self._backoff.next()
        if isinstance(fault, errors.RateLimited | errors.ServerUnavailable):
            pause = max(pause, errors.retry_after(fault.response) or 0.0)
        if self._paused + pause > self._patience:
            gone = errors.ProvaraError("the event stream ends as soon as it begins; see the server's log")
            raise fault or gone
        self._paused += pause
        return pause
