"""The documented tool: one function that queues a command for a person's approval.

`BASE` and `TOKEN` are read from the environment at each use, so that it does not matter whether it is set before or
after the import. Assigning to `hub_tool.BASE` or `hub_tool.TOKEN` wins over the environment.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from provara._address import DEFAULT_BASE
from provara._visible import visible_line
from provara.client import ProvaraClient

if TYPE_CHECKING:
    from provara.answers import Queued

    BASE: str
    TOKEN: str

__all__ = ["plan"]

# Enough to ask again when an answer was lost; being told to wait is the caller's to know.
_PATIENCE = 0.5


def plan(
    command: str,
    note: str | None = None,
    cwd: str | None = None,
    timeout_s: int = 300,
    *,
    allow_insecure: bool = False,
) -> Queued:
    """Queues `command` and returns at once; `pending_id` names it from then on.

    Raises `httpx.HTTPStatusError` when the server refuses it and `httpx.ConnectError` when there is none.
    """
    _say(f"[QUEUE] {visible_line(command)}")
    base, token = (globals().get(name) or __getattr__(name) for name in ("BASE", "TOKEN"))
    with ProvaraClient(base, token, patience=_PATIENCE, allow_insecure=allow_insecure) as client:
        return client.plan(command, note=note, cwd=cwd, timeout_s=timeout_s)


def _say(line: str) -> None:
    """A terminal that lacks a character is no reason not to queue the command."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding))


def __getattr__(name: str) -> str:
    if name == "BASE":
        return os.environ.get("AGENT_HUB_BASE") or DEFAULT_BASE
    if name == "TOKEN":
        return os.environ.get("AGENT_HUB_TOKEN", "")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
