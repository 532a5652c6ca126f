import os
os.environ["AGENT_HUB_TOKEN"] = "your-token"

from agents.hub_tool import plan

# Agent decides to check system status
result = plan(
    command="Get-Service | Where-Object Status -eq Running | Measure-Object",
    note="Counting running services"
)

print(f"Command queued: {result['pending_id']}")
# Human reviews and approves/denies via UI or API
