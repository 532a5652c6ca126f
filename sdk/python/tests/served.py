"""A real server of the real binary, in a folder of its own, ended with the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from provara import Conflict, PendingPlan, ProvaraClient

START_SECONDS = 30
HERE = Path(__file__).parent


def binary() -> str:
    named = os.environ.get("PROVARA_BIN")
    built = HERE.parents[2] / "target" / "debug" / "provara"
    found = named or (str(built) if built.exists() else None)
    assert found, "build the server first (`cargo build -p provara-cli`), or name it in PROVARA_BIN"
    return found


class Served:
    """One server. Its tokens are in its runtime folder."""

    def __init__(self, **settings: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="provara-python-"))
        # The user that commands run as has to get through to the workspace.
        self.root.chmod(0o755)
        self._settings = settings
        self.start()

    def start(self, port: str = "0") -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "AGENT_HUB_ROOT": str(self.root),
            "AGENT_HUB_PORT": port,
            "AGENT_HUB_OPERATOR_TOKEN_FILE": "1",
            "AGENT_HUB_RATE_LIMIT_REQUESTS": "100000",
            **{f"AGENT_HUB_{name}": value for name, value in self._settings.items()},
        }
        address = self.root / "runtime" / "address"
        address.unlink(missing_ok=True)
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen([binary(), "serve"], env=environment, stdin=subprocess.DEVNULL, stderr=log)
        until("the server's address", lambda: address.exists() and address.read_text().endswith("\n"), self)
        self.base = address.read_text().strip()

    def log(self) -> str:
        return (self.root / "server.log").read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Comes back at the same address."""
        self.start(self.base.rsplit(":", 1)[1])

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def token(self, name: str) -> str:
        return (self.root / "runtime" / name).read_text().strip()

    @property
    def agent_token(self) -> str:
        return self._settings.get("TOKEN") or self.token("agent_hub_token.txt")

    def agent(self, patience: float = 30.0) -> ProvaraClient:
        return ProvaraClient(self.base, self.agent_token, patience=patience)

    def operator(self) -> ProvaraClient:
        return ProvaraClient(self.base, self.token("operator_token.txt"))

    @contextlib.contextmanager
    def approver(self, decide: Callable[[ProvaraClient, PendingPlan], object] | None = None) -> Iterator[None]:
        """A person at the queue: decides on whatever comes, approving unless told otherwise."""
        done = threading.Event()

        def work() -> None:
            with self.operator() as operator:
                while not done.is_set():
                    for plan in operator.pending():
                        # The plan may have ended meanwhile.
                        with contextlib.suppress(Conflict):
                            (decide or approve)(operator, plan)
                    done.wait(0.02)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def approve(operator: ProvaraClient, plan: PendingPlan) -> None:
    operator.approve(plan["pending_id"], plan["digest"], until_done=False)


def until(what: str, seen: Callable[[], bool], server: Served | None = None) -> None:
    """Looks until it is seen, and says what was missing."""
    deadline = time.monotonic() + START_SECONDS
    while not seen():
        assert time.monotonic() < deadline, f"never seen: {what}\n{server.log() if server else ''}"
        time.sleep(0.01)
