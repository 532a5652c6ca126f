import httpx
from agents.hub_tool import plan

try:
    result = plan(
        command="Get-Process python",
        note="diagnostic check"
    )
    print(f"Queued: {result['pending_id']}")
except httpx.HTTPStatusError as e:
    if e.response.status_code == 401:
        print("Authentication failed — check AGENT_HUB_TOKEN")
    elif e.response.status_code == 429:
        print("Rate limited — wait and retry")
    else:
        print(f"API error: {e.response.status_code}")
except httpx.ConnectError:
    print("Cannot reach Provara server — is it running?")
