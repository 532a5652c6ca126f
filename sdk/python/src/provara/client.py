"""The client for ordinary code."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, cast

import httpx

from provara import _protocol as protocol
from provara import errors
from provara._address import Address
from provara.answers import (
    Command,
    Event,
    Health,
    Judgement,
    PendingPlan,
    PlanOptions,
    Queued,
    RunResult,
    Status,
)

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

T = TypeVar("T")


class ProvaraClient:
    """Talks to one Provara server with one token.

    `base_url` and `token` come from `AGENT_HUB_BASE` and `AGENT_HUB_TOKEN` when not given. `timeout` bounds each
    request, `patience` how long a call may pause altogether before it gives up on a server that is full or away; both
    are in seconds. Plain http to another machine is refused unless `allow_insecure`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 15.0,
        patience: float = 30.0,
        allow_insecure: bool = False,
    ) -> None:
        self._address = Address(base_url, token, allow_insecure=allow_insecure)
        self._timeout, self._patience = timeout, patience
        # A proxy of the environment would read a token that goes over plain http.
        self._http = httpx.Client(timeout=timeout, trust_env=self._address.is_https, follow_redirects=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes every connection."""
        self._http.close()

    # For agents

    def plan(self, command: str, **options: Unpack[PlanOptions]) -> Queued:
        """Queues `command` for a person's decision and returns at once."""
        return cast(Queued, self._do(protocol.plan(command, options, self._patience)))

    def run(self, command: str, *, timeout: float | None = None, **options: Unpack[PlanOptions]) -> RunResult:
        """Queues `command` and waits for what becomes of it; `timeout` is for the waiting alone.

        Raises `Denied` when a person said no, `NotRun` when it ended otherwise without a run, `WaitTimeout`.
        """
        return self._do(protocol.run(command, options, timeout, self._patience))

    def wait(self, plan_id: str, timeout: float | None = None) -> Command:
        """Returns the plan once it has ended, or the one that an approver put in its place. Outlasts a restart."""
        return cast(Command, self._do(protocol.wait(plan_id, timeout, self._patience)))

    def get(self, plan_id: str) -> Command:
        """Returns the plan as it is now, with its output so far."""
        return cast(Command, self._do(protocol.get(plan_id, self._patience)))

    def cancel(self, plan_id: str) -> Command:
        """Withdraws a plan that waits, ends one that runs."""
        return cast(Command, self._do(protocol.cancel(plan_id, self._patience)))

    def policy_check(self, command: str, *, shell: str | None = None, cwd: str | None = None) -> Judgement:
        """Returns what policy would say, without planning anything."""
        return cast(Judgement, self._do(protocol.policy_check(command, shell, cwd, self._patience)))

    def events(self, since: int | None = None, types: Iterable[str] | None = None) -> Generator[Event, None, None]:
        """Yields the log's entries after position `since`, or from now on, without end.

        It comes back by itself where it was when the connection ends, and misses and repeats nothing. Closing the
        generator, or leaving the loop, ends the stream.
        """
        feed = protocol.EventFeed(since, types, self._patience)
        while not self._http.is_closed:
            call = feed.call()
            fault: errors.ProvaraError | None = None
            try:
                with self._opened(call) as response:
                    if response.is_success:
                        for chunk in response.iter_bytes():
                            yield from feed.feed(chunk)
                    else:
                        response.read()
                        fault = protocol.fault_of(response)
            except httpx.TransportError as error:
                fault = protocol.transport_fault(call, error)
            time.sleep(feed.pause(fault))

    # For anybody

    def status(self) -> Status:
        """Returns what anybody may know of the server. No token is sent."""
        return cast(Status, self._do(protocol.status(self._patience)))

    def health(self) -> Health:
        """Returns the server's health."""
        return cast(Health, self._do(protocol.health(self._patience)))

    def pending(self, limit: int = 50) -> list[PendingPlan]:
        """Returns what waits for a person, newest first."""
        return cast("list[PendingPlan]", self._do(protocol.pending(limit, self._patience)))

    # For people

    def approve(
        self,
        plan_id: str,
        digest: str | None = None,
        reason: str | None = None,
        *,
        profile: str | None = None,
        until_done: bool = True,
        timeout: float | None = None,
    ) -> Command:
        """Approves the plan and returns it once it has ended, or at once where `until_done` is false.

        With the `digest` of what was looked at, nothing else can be approved in its place.
        """
        said = {"digest": digest, "reason": reason, "profile": profile}
        flow = protocol.approve(plan_id, said, until_done=until_done, timeout=timeout, patience=self._patience)
        return cast(Command, self._do(flow))

    def deny(self, plan_id: str, reason: str | None = None) -> Command:
        """Denies the plan; the agent gets the reason."""
        return cast(Command, self._do(protocol.deny(plan_id, reason, self._patience)))

    # The transport

    def _do(self, flow: protocol.Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                if isinstance(step, protocol.Pause):
                    time.sleep(step.seconds)
                    step = flow.send(None)
                    continue
                try:
                    response = self._send(step)
                except httpx.TransportError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(response)
        except StopIteration as end:
            return cast(T, end.value)
        finally:
            flow.close()

    def _send(self, call: protocol.Call) -> httpx.Response:
        return self._http.request(
            call.method,
            self._address.base + call.path,
            params=dict(call.params),
            content=call.content(),
            headers=call.all_headers(),
            auth=self._address.auth if call.with_token else None,
            timeout=httpx.Timeout(self._timeout, read=self._timeout + call.extra_time),
        )

    def _opened(self, call: protocol.Call) -> AbstractContextManager[httpx.Response]:
        return self._http.stream(
            call.method,
            self._address.base + call.path,
            params=dict(call.params),
            headers=call.all_headers(),
            auth=self._address.auth,
            timeout=httpx.Timeout(self._timeout, read=protocol.SILENCE),
        )
