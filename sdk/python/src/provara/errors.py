"""What can go wrong. Every message ends in what to do next, and none holds the token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx


class ProvaraError(Exception):
    """The base of all errors of this package."""


class ConfigurationError(ProvaraError, ValueError):
    """A setting or an argument cannot be used; nothing was sent."""


class DigestMismatch(ProvaraError, ValueError):
    """What is shown of a plan is not what its digest binds."""


class CannotConnect(ProvaraError, httpx.ConnectError):
    """No server answers."""


class ConnectionLost(ProvaraError, httpx.TransportError):
    """The connection ended before the answer came. What was asked for may have been done."""


class AnswerTimeout(ConnectionLost, httpx.TimeoutException):
    """The server took the request and did not answer in time. What was asked for may have been done."""


class AnswerError(ProvaraError, httpx.HTTPStatusError):
    """The server answered, and not with what was asked for.

    `code` and `request_id` are the server's; `detail` is its text or, for `InvalidRequest`, its list of faults.
    """

    def __init__(self, message: str, response: httpx.Response, body: Mapping[str, Any]) -> None:
        super().__init__(message, request=response.request, response=response)
        self.status_code = response.status_code
        self.body = dict(body)
        self.detail: Any = body.get("detail")
        self.code: str | None = _text(body.get("code"))
        self.request_id: str | None = _text(body.get("request_id"))


class AuthenticationError(AnswerError):
    """401: no token, or one that is not known or was revoked."""


class Forbidden(AnswerError):
    """403: not this token's to do."""


class PolicyDenied(AnswerError):
    """403: policy denies the command, and nobody is asked. `reasons` say why, so that it can be mended."""

    def __init__(self, message: str, response: httpx.Response, body: Mapping[str, Any]) -> None:
        super().__init__(message, response, body)
        judgement = body.get("judgement")
        self.judgement: dict[str, Any] = judgement if isinstance(judgement, dict) else {}
        self.reasons: list[dict[str, Any]] = [r for r in self.judgement.get("reasons", []) if isinstance(r, dict)]
        self.pending_id: str | None = _text(body.get("pending_id"))


class NotFound(AnswerError):
    """404: it does not exist, or belongs to another agent."""


class Conflict(AnswerError):
    """409: the plan is not in a state for that. `state` is what was found, where the server says it."""

    def __init__(self, message: str, response: httpx.Response, body: Mapping[str, Any]) -> None:
        super().__init__(message, response, body)
        self.state: str | None = _text(body.get("state"))


class InvalidRequest(AnswerError):
    """413, 422: the server cannot take the request. `faults` has `loc` and `msg` for each field at fault."""

    def __init__(self, message: str, response: httpx.Response, body: Mapping[str, Any]) -> None:
        super().__init__(message, response, body)
        detail = self.detail if isinstance(self.detail, list) else []
        self.faults: list[dict[str, Any]] = [fault for fault in detail if isinstance(fault, dict)]


class Frozen(AnswerError):
    """423: a person stopped everything."""


class RateLimited(AnswerError):
    """429: too many requests, streams or pending plans. `retry_after` is in seconds."""

    def __init__(self, message: str, response: httpx.Response, body: Mapping[str, Any]) -> None:
        super().__init__(message, response, body)
        self.retry_after: float | None = retry_after(response)


class ServerUnavailable(AnswerError):
    """5xx: the server cannot do it now."""


class UnexpectedAnswer(AnswerError):
    """Something answers that does not speak as Provara does."""


class WaitTimeout(ProvaraError, TimeoutError):
    """`wait` or `run` gave up; the plan goes on. `state` was the last one seen."""

    def __init__(self, message: str, pending_id: str, state: str | None) -> None:
        super().__init__(message)
        self.pending_id = pending_id
        self.state = state


class NotRun(ProvaraError):
    """The plan ended without a run. `command` is its record, `state` how it ended."""

    def __init__(self, message: str, command: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.command = dict(command)
        self.pending_id: str | None = _text(command.get("pending_id"))
        self.state: str | None = _text(command.get("state"))


class Denied(NotRun):
    """A person said no. `reason` is theirs, where they gave one."""

    def __init__(self, message: str, command: Mapping[str, Any]) -> None:
        super().__init__(message, command)
        decision = command.get("decision")
        self.reason: str | None = _text(decision.get("reason")) if isinstance(decision, dict) else None


def retry_after(response: httpx.Response) -> float | None:
    """Returns how long the server asks to wait, in seconds; a date in the header is not read."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None  # noqa: PLR2004


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
