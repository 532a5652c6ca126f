"""A plan's digest, computed from what an answer shows: whoever decides need not believe the server about it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from provara.errors import DigestMismatch

# Of the canonical form, what an answer shows under the same name.
_AS_SHOWN = ("kind", "project", "agent", "shell", "cwd", "env", "stdin_b64", "tty", "timeout_s", "target", "profile")


def plan_digest(plan: Mapping[str, Any]) -> str:
    """Returns the digest of the plan as shown by `pending` or `get`: what an approver's decision binds.

    A note, a judgement and times are no part of a plan.
    """
    form = {name: plan[name] for name in _AS_SHOWN}
    form["v"] = 1
    form["id"] = plan["pending_id"]
    form["nonce"] = plan["nonce"]
    form["command_b64"] = base64.b64encode(plan["command"].encode()).decode()
    # RFC 8785: for these names, texts and whole numbers it is sorted keys and no spaces.
    text = json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def verify_digest(plan: Mapping[str, Any]) -> str:
    """Returns the plan's digest once it was found to be that of every field shown, and raises `DigestMismatch` else.

    Show a person the fields of this very answer, and approve with what this returns: then nothing else can run.
    """
    if plan.get("erased_at") is not None:
        raise DigestMismatch("the plan was erased, so its digest cannot be computed; the log keeps it")
    try:
        computed = plan_digest(plan)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DigestMismatch(
            "the answer does not show a whole plan; ask `pending` or `get` of a newer server"
        ) from error
    if computed != plan.get("digest"):
        raise DigestMismatch(
            "the plan's digest is not that of what is shown; do not approve it, and look at the server"
        )
    return computed
