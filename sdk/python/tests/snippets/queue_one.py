from agents.hub_tool import plan

result = plan(
    command="Get-Process python",
    note="Checking running Python processes",
    cwd=None,
    timeout_s=300
)
