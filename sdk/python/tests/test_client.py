"""The client against a real server: plan, wait, decide, events, and what goes wrong."""

from __future__ import annotations

import http.server
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import pytest

import provara
from provara import ProvaraClient
from provara._protocol import EventFeed
from served import Served, until

T = TypeVar("T")


def in_background(work: Callable[[], T]) -> Callable[[], T]:
    """Starts `work` and returns what waits for its answer, or raises its error."""
    done: dict[str, Any] = {}

    def run() -> None:
        try:
            done["answer"] = work()
        except BaseException as error:  # noqa: BLE001, RUF100 - it is raised again below
            done["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def answer() -> T:
        thread.join(60)
        assert not thread.is_alive(), "it never ended"
        if "error" in done:
            raise done["error"]
        return done["answer"]  # type: ignore[no-any-return]

    return answer


def test_a_command_is_planned_approved_run_and_read(server: Served) -> None:
    with server.agent() as agent, server.approver():
        result = agent.run("echo out; echo err >&2; exit 3", note="three", timeout=60)
    assert (result.state, result.outcome, result.exit_code) == ("finished", "exited", 3)
    assert (result.stdout, result.stderr, result.ok, result.truncated) == ("out\n", "err\n", False, False)
    assert result.command["note"] == "three"


def test_every_option_of_a_plan_arrives(server: Served) -> None:
    with server.agent() as agent, server.approver():
        result = agent.run("cat; echo $X", stdin=b"\xc3\xbc\n", env={"X": "1"}, shell="bash", timeout_s=7, timeout=60)
        assert (result.stdout, result.command["timeout_s"]) == ("ü\n1\n", 7)
        with pytest.raises(TypeError, match="no option `timeoutt`"):
            agent.plan("true", timeoutt=1)  # type: ignore[call-arg]


def test_a_no_is_told_with_its_reason(server: Served) -> None:
    with server.agent() as agent, server.approver(lambda op, plan: op.deny(plan["pending_id"], "not on Fridays")):
        with pytest.raises(provara.Denied, match="not on Fridays") as said:
            agent.run("make install", timeout=60)
    assert (said.value.state, said.value.reason) == ("denied", "not on Fridays")


def test_a_withdrawn_plan_did_not_run(server: Served) -> None:
    with server.agent() as agent:
        plan_id = agent.plan("make later")["pending_id"]
        waiting = in_background(lambda: agent.wait(plan_id, timeout=60))
        assert agent.cancel(plan_id)["state"] == "withdrawn"
        assert waiting()["state"] == "withdrawn"
        with server.approver(lambda _, plan: agent.cancel(plan["pending_id"])):
            with pytest.raises(provara.NotRun, match="withdrawn; plan it again"):
                agent.run("make later", timeout=60)


def test_waiting_follows_an_edit(server: Served) -> None:
    def edit(operator: ProvaraClient, plan: provara.PendingPlan) -> None:
        if plan["command"] == "echo wrong":
            token = {"x-agent-token": server.token("operator_token.txt")}
            url = f"{server.base}/edit/{plan['pending_id']}"
            httpx.post(url, json={"command": "echo right"}, headers=token, trust_env=False).raise_for_status()
        else:
            operator.approve(plan["pending_id"])

    with server.agent() as agent, server.approver(edit):
        result = agent.run("echo wrong", timeout=60)
    assert (result.stdout, result.command["command"]) == ("right\n", "echo right")


def test_waiting_gives_up_when_told_to(server: Served) -> None:
    with server.agent() as agent:
        plan_id = agent.plan("make waiting")["pending_id"]
        begun = time.monotonic()
        with pytest.raises(provara.WaitTimeout, match=r"still pending after 0\.3 s") as gave_up:
            agent.wait(plan_id, timeout=0.3)
        assert time.monotonic() - begun < 10
        assert (gave_up.value.pending_id, gave_up.value.state) == (plan_id, "pending")
        agent.cancel(plan_id)


def test_an_approver_sees_decides_and_waits(server: Served) -> None:
    with server.agent() as agent, server.operator() as operator:
        queued = agent.plan("echo hello")
        assert queued["pending_id"] in [plan["pending_id"] for plan in operator.pending()]
        done = operator.approve(queued["pending_id"], queued["digest"], "fine", timeout=60)
        run = done["run"]
        assert run is not None
        assert (done["state"], run["stdout"]) == ("finished", "hello\n")
        decision = done["decision"]
        assert decision is not None
        assert decision["reason"] == "fine"
        assert "confinement" in operator.health()
        assert agent.health()["status"] == "healthy"
        assert agent.status()["ok"] is True
        assert agent.policy_check("rm -rf /")["verdict"] == "deny"
        assert "facts" not in agent.policy_check("ls")


def test_a_digest_is_computed_from_what_is_shown(server: Served) -> None:
    with server.agent() as agent, server.operator() as operator:
        odd = "printf '%s' \"\u202e\U0001f600\t\x7f\x01\""
        queued = agent.plan(
            odd, env={"B": "\x1b\u2028", "A": "\\"}, stdin=b"\x00\xff", timeout_s=9, note="no part of it"
        )
        (shown,) = [plan for plan in operator.pending() if plan["pending_id"] == queued["pending_id"]]
        for plan in (shown, operator.get(queued["pending_id"]), agent.get(queued["pending_id"])):
            assert provara.verify_digest(plan) == provara.plan_digest(plan) == queued["digest"]
        forged: list[tuple[str, object]] = [
            ("command", odd + " "),
            ("command", 7),
            ("cwd", "/"),
            ("env", {}),
            ("stdin_b64", None),
            ("tty", True),
            ("timeout_s", 3600),
            ("profile", "host"),
            ("project", "other"),
            ("agent", "other"),
            ("nonce", "0" * 32),
            ("pending_id", "20250115_143022_a1b2c3d4"),
            ("digest", "sha256:" + "0" * 64),
            ("erased_at", "2026-01-01T00:00:00Z"),
        ]
        for field, other in forged:
            with pytest.raises(provara.DigestMismatch):
                provara.verify_digest({**shown, field: other})
        for field in ("nonce", "project", "digest", "command"):
            with pytest.raises(provara.DigestMismatch):
                provara.verify_digest({name: value for name, value in shown.items() if name != field})
        denied = operator.deny(queued["pending_id"])
        assert denied["decision"] is not None
        assert denied["decision"]["decision_digest"] != denied["digest"] == provara.verify_digest(denied)


def test_refusals_have_their_own_errors(server: Served) -> None:
    with server.agent() as agent, server.operator() as operator:
        with pytest.raises(provara.PolicyDenied, match="mend the command") as denied:
            agent.plan("rm -rf /")
        assert denied.value.judgement["verdict"] == "deny"
        assert denied.value.reasons
        assert denied.value.pending_id
        assert denied.value.response.status_code == 403
        with pytest.raises(provara.Forbidden, match="use a token that has this right"):
            agent.approve(agent.plan("true")["pending_id"])
        with pytest.raises(provara.Forbidden):
            operator.plan("true")
        with pytest.raises(provara.NotFound, match="its own plans only"):
            agent.get("20250115_143022_a1b2c3d4")
        with pytest.raises(provara.InvalidRequest, match=r"timeout_s: .*; mend the fields") as invalid:
            agent.plan("ls", timeout_s=0)
        assert invalid.value.faults[0]["loc"] == ["body", "timeout_s"]
        with pytest.raises(provara.InvalidRequest):
            agent.plan("\ud800")
        plan_id = agent.plan("true")["pending_id"]
        with pytest.raises(provara.Conflict) as conflict:
            operator.approve(plan_id, "sha256:" + "0" * 64)
        assert conflict.value.code == "digest_mismatch"
        operator.deny(plan_id)
        with pytest.raises(provara.Conflict, match="decide anew") as conflict:
            operator.approve(plan_id)
        assert conflict.value.state == "denied"
    for token in ("", "pv_agent_wrong"):
        with ProvaraClient(server.base, token) as nobody, pytest.raises(provara.AuthenticationError) as unknown:
            nobody.pending()
        assert isinstance(unknown.value, httpx.HTTPStatusError)
        assert str(unknown.value).endswith("check AGENT_HUB_TOKEN")


def test_an_other_agents_plan_is_not_there(server: Served) -> None:
    headers = {"x-agent-token": server.token("operator_token.txt")}
    made = httpx.post(f"{server.base}/tokens", json={"name": "other", "roles": ["agent"]}, headers=headers)
    with server.agent() as agent, ProvaraClient(server.base, made.json()["token"]) as other:
        plan_id = agent.plan("true")["pending_id"]
        for ask in (other.get, other.cancel, other.wait):
            with pytest.raises(provara.NotFound):
                ask(plan_id)
        assert other.pending() == []


@pytest.mark.parametrize("plan_id", ["", "..", "../status", "a/b", "a?b", "a\n", "x" * 129])
def test_what_is_no_id_is_never_sent(server: Served, plan_id: str) -> None:
    with server.operator() as operator:
        for ask in (operator.get, operator.cancel, operator.approve, operator.deny, operator.wait):
            with pytest.raises(provara.ConfigurationError):
                ask(plan_id)


def test_the_same_key_queues_once(server: Served) -> None:
    with server.agent() as agent:
        first, second = (agent.plan("make once", idempotency_key="the same") for _ in range(2))
        assert first["pending_id"] == second["pending_id"]
        assert agent.plan("make once")["pending_id"] != first["pending_id"]
        with pytest.raises(provara.InvalidRequest) as other_body:
            agent.plan("make twice", idempotency_key="the same")
        assert other_body.value.code == "idempotency_mismatch"


def test_a_full_bucket_is_waited_for_or_told() -> None:
    limited = Served(RATE_LIMIT_REQUESTS="2", RATE_LIMIT_WINDOW_SECONDS="2")
    try:
        with limited.agent(patience=0.0) as hasty, limited.agent(patience=30.0) as patient:
            with pytest.raises(provara.RateLimited, match="wait and ask again") as full:
                for _ in range(3):
                    hasty.pending()
            assert full.value.retry_after in (1.0, 2.0)
            begun = time.monotonic()
            assert patient.pending() == []
            assert time.monotonic() - begun < 20
    finally:
        limited.close()


def test_a_lost_answer_does_not_queue_twice(own_server: Served) -> None:
    """The server's answer is dropped on the way, once; the client asks again with the key that it drew."""
    port = int(own_server.base.rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def lose_one_then_pass() -> None:
            for lose in (True, False):
                client, _ = listener.accept()
                with client, socket.create_connection(("127.0.0.1", port)) as server:
                    server.sendall(whole_request(client))
                    answer = server.recv(65536)
                    if not lose:
                        client.sendall(answer)

        threading.Thread(target=lose_one_then_pass, daemon=True).start()
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with ProvaraClient(base, own_server.agent_token) as agent:
            queued = agent.plan("make once only")
    with own_server.agent() as agent:
        assert [plan["pending_id"] for plan in agent.pending()] == [queued["pending_id"]]


def whole_request(client: socket.socket) -> bytes:
    received = b""
    while True:
        received += client.recv(65536)
        head, end, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return received


def test_nobody_there_is_said_at_once() -> None:
    begun = time.monotonic()
    with ProvaraClient("http://127.0.0.1:1", "x") as agent:
        for ask in (agent.status, agent.pending, lambda: agent.plan("ls"), lambda: next(agent.events())):
            with pytest.raises(provara.CannotConnect, match="provara serve") as nobody:
                ask()
            assert isinstance(nobody.value, httpx.ConnectError)
    assert time.monotonic() - begun < 10


def test_waiting_outlasts_a_restart_and_not_an_end(own_server: Served) -> None:
    with own_server.agent() as agent, own_server.agent(patience=1.0) as hasty:
        plan_id = agent.plan("echo still here")["pending_id"]
        waiting = in_background(lambda: agent.wait(plan_id, timeout=60))
        gave_up = in_background(lambda: hasty.wait(plan_id))
        until("both waiting", lambda: established(own_server) >= 2)
        own_server.kill()
        with pytest.raises(provara.CannotConnect):
            gave_up()
        own_server.restart()
        with own_server.operator() as operator:
            operator.approve(plan_id)
        run = waiting()["run"]
        assert run is not None
        assert run["stdout"] == "still here\n"


def established(server: Served) -> int:
    """How many connections the server holds."""
    port = f"{int(server.base.rsplit(':', 1)[1]):04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        lines = [line.split() for line in table]
    return sum(1 for line in lines if line[1].endswith(f":{port}") and line[3] == "01")


def test_events_go_on_across_restarts_with_nothing_lost_or_doubled(
    own_server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[provara.Event] = []
    began = threading.Event()
    feed = EventFeed.feed

    def watched(self: EventFeed, chunk: bytes) -> list[provara.Event]:
        found = feed(self, chunk)
        began.set()
        return found

    monkeypatch.setattr(EventFeed, "feed", watched)
    with own_server.agent() as reader, own_server.agent() as agent:
        events = reader.events(types=["plan.queued"])

        def read() -> None:
            for event in events:
                seen.append(event)
                if len(seen) == 6:
                    return

        reading = in_background(read)
        # This reader was told of nothing yet; it must not miss what happens while it is away.
        assert began.wait(10), "the stream began without a place to resume from"
        own_server.kill()
        own_server.restart()
        for n in range(3):
            agent.plan(f"make {n}")
        until("three events", lambda: len(seen) >= 3)
        own_server.kill()
        own_server.restart()
        for n in range(3, 6):
            agent.plan(f"make {n}")
        reading()
        stored = [event.id for event in first(agent, 6)]
    assert [event.id for event in seen] == stored
    assert {event.type for event in seen} == {"plan.queued"}


def first(agent: ProvaraClient, count: int) -> list[provara.Event]:
    events = agent.events(since=0, types=["plan.queued"])
    found = [next(events) for _ in range(count)]
    events.close()
    return found


def test_a_wrong_token_ends_the_events(server: Served) -> None:
    with ProvaraClient(server.base, "pv_agent_wrong") as nobody, pytest.raises(provara.AuthenticationError):
        next(nobody.events())


def test_no_error_and_no_repr_tells_the_token(server: Served) -> None:
    secret = "pv_agent_very_secret_indeed"
    told: list[str] = []
    for base in (server.base, "http://127.0.0.1:1"):
        with ProvaraClient(base, secret) as agent:
            told += [repr(agent), repr(vars(agent)), repr(agent._address), repr(agent._address.auth)]
            for ask in (agent.pending, lambda a=agent: next(a.events()), lambda a=agent: a.plan("ls")):
                with pytest.raises(httpx.HTTPError) as failed:
                    ask()
                error: BaseException | None = failed.value
                while error is not None:
                    told += [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
                    request = error.request if isinstance(error, httpx.HTTPError) else None
                    told += [repr(request.headers), repr(dict(request.headers))] if request else []
                    response = getattr(error, "response", None)
                    told += [repr(dict(response.request.headers))] if response is not None else []
                    error = error.__cause__ or error.__context__
    assert [text for text in told if secret in text] == []


def test_a_redirect_is_not_followed_with_the_token() -> None:
    asked: list[str] = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(307)
            self.send_header("location", "/other")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        with ProvaraClient(f"http://127.0.0.1:{elsewhere.server_port}", "x") as agent:
            with pytest.raises(provara.UnexpectedAnswer, match="a redirect is not followed"):
                agent.pending()
        elsewhere.shutdown()
    assert asked == ["/pending?limit=50"]


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ("http://example.org:8787", "plain http"),
        ("http://10.0.0.1", "plain http"),
        ("http://127.0.0.1.example.org", "plain http"),
        ("ftp://127.0.0.1", "no http or https"),
        ("127.0.0.1:8787", "no http or https"),
        ("", "no http or https"),
        ("http://user:secret@127.0.0.1", "more than host"),
        ("http://127.0.0.1/?x=1", "more than host"),
        ("http://127.0.0.1:x", "no URL"),
        ("http://a\x00b", "no URL"),
    ],
)
def test_an_address_that_would_leak_or_cannot_work_is_refused(base: str, why: str) -> None:
    with pytest.raises(provara.ConfigurationError, match=why) as refused:
        ProvaraClient(base, "x")
    assert "secret" not in str(refused.value)


def test_good_addresses_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for base in ("http://127.0.0.1:8787/", "http://localhost", "http://[::1]:1", "https://example.org/provara/"):
        ProvaraClient(base, "x").close()
    ProvaraClient("http://example.org", "x", allow_insecure=True).close()
    monkeypatch.setenv("AGENT_HUB_BASE", "http://127.0.0.2:1")
    with ProvaraClient() as agent:
        assert repr(agent) == "ProvaraClient('http://127.0.0.2:1')"
    with pytest.raises(provara.ConfigurationError, match="the token has characters") as refused:
        ProvaraClient(token="secret\nx-evil: 1")
    assert "secret" not in str(refused.value)


def test_a_proxy_of_the_environment_never_sees_the_token(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with server.agent() as agent:
        assert agent.status()["ok"] is True
