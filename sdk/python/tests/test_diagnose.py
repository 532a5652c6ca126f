"""The diagnostic agent of examples/ at work against a real server."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

from provara import PendingPlan, ProvaraClient
from served import Served, approve

AGENT = Path(__file__).parents[3] / "examples" / "diagnose.py"


def diagnose(server: Served, *arguments: str) -> tuple[int, str, str]:
    environment = {"PATH": os.environ["PATH"], "AGENT_HUB_TOKEN": server.agent_token, "PYTHONUTF8": "1"}
    command = [sys.executable, str(AGENT), "--base", server.base, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_it_looks_and_tells_what_it_found(server: Served) -> None:
    with server.approver():
        code, out, err = diagnose(server, "--disk-full", "101", "--memory-low", "0")
    assert (code, err) == (0, ""), out
    findings = out.partition("== Findings\n")[2]
    assert " - disk: every file system is below 101 %\n" in findings
    assert " % is available\n" in findings
    assert "processor: " in findings
    assert "network: ports open to every interface: " in findings
    assert "MemTotal:" in out


def test_it_follows_up_on_what_it_finds(server: Served) -> None:
    asked: list[str] = []

    def note_and_approve(operator: ProvaraClient, plan: PendingPlan) -> None:
        asked.append(plan["command"])
        approve(operator, plan)

    with server.approver(note_and_approve):
        code, out, err = diagnose(server, "--disk-full", "0", "--memory-low", "101")
    assert err == ""
    assert any(command.startswith("du -xk --max-depth=1 /") for command in asked), out
    assert any(command.startswith("ps -eo pid,rss,comm") for command in asked), out
    assert "% full\n" in out.partition("== Findings\n")[2]
    assert code in (0, 1)


def test_a_no_is_an_answer(server: Served) -> None:
    def no_memory(operator: ProvaraClient, plan: PendingPlan) -> None:
        if "meminfo" in plan["command"]:
            operator.deny(plan["pending_id"], "not\x1b[2J today")
        else:
            approve(operator, plan)

    with server.approver(no_memory):
        code, out, _ = diagnose(server, "--disk-full", "101")
    assert code == 1
    assert " - memory: not looked at; a person said no: not\\x1b[2J today\n" in out
    assert " - network: ports open" in out


def test_nobody_at_the_queue_is_told_and_leaves_nothing_behind(server: Served) -> None:
    code, out, _ = diagnose(server, "--patience", "0.1")
    assert code == 1
    assert out.count("no answer in 0.1 s\n   ") + out.count("; no answer in 0.1 s") == 4
    with server.agent() as agent:
        assert agent.pending() == []


def test_no_server_is_one_line(server: Served) -> None:
    code, out, err = diagnose(server, "--base", "http://127.0.0.1:1")
    assert (code, out.count("Findings"), err.count("\n")) == (2, 0, 1)
    assert "provara serve" in err


def test_what_it_reads_it_reads_right() -> None:
    names: dict[str, Any] = runpy.run_path(str(AGENT))
    table = "head\n/dev/a 10 9 1 90% /a b\ntmpfs 10 10 0 100% /run\n/dev/c 1 1 0 99% /c\n- - - - - /proc\n"
    assert names["full_mounts"](table, 90) == [("/c", 99), ("/a b", 90)]
    assert names["available_percent"]("MemTotal: 200 kB\nMemAvailable: 50 kB\n") == 25
    assert names["available_percent"]("MemTotal: 0 kB\nMemAvailable: 50 kB\n") is None
    listening = "head\n 0: 00000000:1F90 0:0 0A\n 1: 0100007F:0016 0:0 0A\n 2: 00000000:0050 0:0 01\n"
    assert names["listening_to_all"](listening) == [8080]
