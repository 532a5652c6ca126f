import os
import httpx

BASE = os.environ.get("AGENT_HUB_BASE", "http://127.0.0.1:8787")
TOKEN = os.environ.get("AGENT_HUB_TOKEN", "")

def plan(command, note=None, cwd=None, timeout_s=300):
    print(f"[QUEUE] {command}")
    r = httpx.post(
        f"{BASE}/plan",
        headers={"X-Agent-Token": TOKEN},
        json={
            "command": command,
            "note": note,
            "cwd": cwd,
            "timeout_s": timeout_s
        },
        timeout=15,
    )
    r.raise_for_status()
    return r.json()
