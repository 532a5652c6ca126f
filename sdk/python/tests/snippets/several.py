commands = [
    ("whoami", "identity check"),
    ("hostname", "hostname check"),
    ("Get-Date", "timestamp check"),
]

pending_ids = []
for cmd, note in commands:
    result = plan(command=cmd, note=note)
    pending_ids.append(result["pending_id"])
    print(f"Queued {cmd}: {result['pending_id']}")
