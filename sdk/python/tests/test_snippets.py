"""Every snippet of the documented page, unchanged, against a real server."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import httpx
import pytest

import agents.hub_tool
from agents.hub_tool import plan
from served import Served

SNIPPETS = Path(__file__).parent / "snippets"
GUIDE = Path(__file__).parents[3] / "docs" / "python.md"


@pytest.fixture
def environment(server: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setenv("AGENT_HUB_BASE", server.base)
    monkeypatch.setenv("AGENT_HUB_TOKEN", server.agent_token)
    return server


def snippet(name: str, **names: Any) -> dict[str, Any]:
    return runpy.run_path(str(SNIPPETS / name), init_globals=names)


def queued(server: Served, plan_id: str) -> Any:
    with server.agent() as agent:
        return agent.get(plan_id)


def test_one_command_is_queued_as_documented(environment: Served, capsys: pytest.CaptureFixture[str]) -> None:
    result = snippet("queue_one.py")["result"]
    assert capsys.readouterr().out == "[QUEUE] Get-Process python\n"
    assert (result["queued"], result["command"]) == (True, "Get-Process python")
    record = queued(environment, result["pending_id"])
    assert (record["state"], record["note"], record["timeout_s"]) == (
        "pending",
        "Checking running Python processes",
        300,
    )


def test_the_whole_documented_sdk_works_against_this_server(environment: Served) -> None:
    result = snippet("whole_sdk.py")["plan"]("uname -a", note="its own code")
    assert queued(environment, result["pending_id"])["note"] == "its own code"


def test_a_token_set_in_the_code_counts(
    environment: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = (SNIPPETS / "basic.py").read_text(encoding="utf-8")
    monkeypatch.setenv("AGENT_HUB_TOKEN", "wrong before")
    filled_in = tmp_path / "basic.py"
    filled_in.write_text(text.replace("your-token", environment.agent_token), encoding="utf-8")
    result = runpy.run_path(str(filled_in))["result"]
    assert f"Command queued: {result['pending_id']}" in capsys.readouterr().out
    record = queued(environment, result["pending_id"])
    assert record["command"] == "Get-Service | Where-Object Status -eq Running | Measure-Object"


def test_the_placeholder_itself_is_refused(environment: Served) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        snippet("basic.py")
    assert refused.value.response.status_code == 401


def test_errors_are_told_apart_as_documented(
    environment: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> str:
        snippet("error_handling.py")
        return capsys.readouterr().out.splitlines()[-1]

    assert said().startswith("Queued: 20")
    monkeypatch.setenv("AGENT_HUB_TOKEN", "pv_agent_wrong")
    assert said() == "Authentication failed — check AGENT_HUB_TOKEN"
    monkeypatch.setenv("AGENT_HUB_TOKEN", environment.agent_token)
    monkeypatch.setenv("AGENT_HUB_BASE", "http://127.0.0.1:1")
    assert said() == "Cannot reach Provara server — is it running?"
    limited = Served(RATE_LIMIT_REQUESTS="1", RATE_LIMIT_WINDOW_SECONDS="600")
    try:
        monkeypatch.setenv("AGENT_HUB_BASE", limited.base)
        monkeypatch.setenv("AGENT_HUB_TOKEN", limited.agent_token)
        assert said().startswith("Queued: 20")
        assert said() == "Rate limited — wait and retry"
    finally:
        limited.close()


def test_several_commands_are_queued(environment: Served, capsys: pytest.CaptureFixture[str]) -> None:
    ids = snippet("several.py", plan=plan)["pending_ids"]
    assert [queued(environment, plan_id)["command"] for plan_id in ids] == ["whoami", "hostname", "Get-Date"]
    assert f"Queued Get-Date: {ids[-1]}" in capsys.readouterr().out


def test_the_documented_custom_client_works(environment: Served) -> None:
    client = snippet("custom_client.py")["ProvaraClient"](environment.base + "/", environment.agent_token)
    result = client.plan("uptime", note="custom", timeout_s=5)
    first = client.pending(limit=1)
    assert [(p["pending_id"], p["timeout_s"]) for p in first] == [(result["pending_id"], 5)]
    assert client.status()["ok"] is True
    client.client.close()


def test_the_guide_shows_the_snippets_as_they_are() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    missing = [
        path.name
        for path in sorted(SNIPPETS.glob("*.py"))
        if f"```python\n{path.read_text(encoding='utf-8')}```" not in guide
    ]
    assert missing == []


def test_settings_are_read_when_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_tool: Any = agents.hub_tool
    assert (hub_tool.BASE, hub_tool.TOKEN) == ("http://127.0.0.1:8787", "")
    monkeypatch.setenv("AGENT_HUB_BASE", "http://127.0.0.1:9")
    assert hub_tool.BASE == "http://127.0.0.1:9"
    with pytest.raises(AttributeError):
        _ = hub_tool.NONE


def test_an_assigned_base_wins(environment: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_HUB_BASE", "http://127.0.0.1:1")
    monkeypatch.setattr(agents.hub_tool, "BASE", environment.base, raising=False)
    assert plan("uptime")["queued"] is True


def test_what_is_printed_has_no_control_characters(environment: Served, capsys: pytest.CaptureFixture[str]) -> None:
    plan("echo a\u202e\u200b\x1b[2K\nsecond")
    assert capsys.readouterr().out == "[QUEUE] echo a⟦U+202E⟧⟦U+200B⟧⟦U+001B⟧[2K⟦U+000A⟧second\n"
