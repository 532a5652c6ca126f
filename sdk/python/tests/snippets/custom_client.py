import httpx

class ProvaraClient:
    def __init__(self, base_url="http://127.0.0.1:8787", token=""):
        self.base = base_url.rstrip("/")
        self.headers = {"X-Agent-Token": token}
        self.client = httpx.Client(timeout=15)

    def plan(self, command, **kwargs):
        r = self.client.post(
            f"{self.base}/plan",
            headers=self.headers,
            json={"command": command, **kwargs}
        )
        r.raise_for_status()
        return r.json()

    def pending(self, limit=50):
        r = self.client.get(
            f"{self.base}/pending",
            headers=self.headers,
            params={"limit": limit}
        )
        r.raise_for_status()
        return r.json()

    def status(self):
        r = self.client.get(f"{self.base}/status")
        r.raise_for_status()
        return r.json()
