"""Every Python block of docs/python.md runs as it stands, with a person at the queue."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

import provara
from agents.hub_tool import plan
from served import Served

REPOSITORY = Path(__file__).parents[3]
GUIDE = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE + README, flags=re.M | re.S)


def test_the_guide_has_its_blocks() -> None:
    assert len(BLOCKS) == 11


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs_as_it_stands(block: str, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_HUB_BASE", server.base)
    monkeypatch.setenv("AGENT_HUB_TOKEN", server.agent_token)
    monkeypatch.setenv("AGENT_HUB_OPERATOR_TOKEN", server.token("operator_token.txt"))
    # The page's placeholder is no token; whoever copies the block puts theirs in.
    code = compile(block.replace("your-token", server.agent_token), "docs/python.md", "exec")
    decides_itself = "OPERATOR_TOKEN" in block
    with server.agent() as agent, contextlib.nullcontext() if decides_itself else server.approver():
        if decides_itself:
            plan_id = agent.plan("uptime")["pending_id"]
        exec(code, {"__name__": "__main__", "plan": plan})
        if decides_itself:
            assert agent.get(plan_id)["state"] == "finished"


def test_every_error_and_method_is_in_the_guide() -> None:
    public = {name for name in vars(provara.ProvaraClient) if not name.startswith("_")} - {"close"}
    errors = {name for name, thing in vars(provara).items() if isinstance(thing, type) and issubclass(thing, Exception)}
    missing = [name for name in sorted(public | (errors - {"AnswerError"})) if f"`{name}" not in GUIDE]
    assert missing == []
    assert set(dir(provara.AsyncProvaraClient)) >= public
