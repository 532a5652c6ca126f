#!/usr/bin/env python3
"""A diagnostic agent in Python: it looks at a machine through Provara and follows up on what it finds.

    pip install ./sdk/python
    AGENT_HUB_TOKEN=… examples/diagnose.py [--base http://127.0.0.1:8787]

It holds an agent's token and no shell of its own on the machine: each look is a plan that a person decides on. A no is
an answer, and the next look is still worth asking for. Ends with 1 when a look was not possible.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence

import httpx

from provara import Conflict, Denied, NotRun, PolicyDenied, ProvaraClient, ProvaraError, RunResult, WaitTimeout

# What looks like a disk in `df` and is memory or an image that is always full.
NO_DISKS = {"tmpfs", "devtmpfs", "squashfs", "efivarfs"}


class Diagnosis:
    """The looks at one machine, and what they showed."""

    def __init__(self, provara: ProvaraClient, patience: float, disk_full: int, memory_low: int) -> None:
        self.provara, self.patience = provara, patience
        self.disk_full, self.memory_low = disk_full, memory_low
        self.findings: list[str] = []
        self.missed = 0

    def look(self, what: str, why: str, command: str) -> str | None:
        """Returns what the command printed; None where it did not run or could not tell."""
        print(f"\n== {why}")
        result = self.run(command, why)
        if isinstance(result, str) or not result.ok:
            because = result if isinstance(result, str) else ended_how(result)
            print(f"   no result: {shown(because)}")
            self.findings.append(f"{what}: not looked at; {because}")
            self.missed += 1
            return None
        print(shown(result.stdout), end="")
        return result.stdout

    def run(self, command: str, why: str) -> RunResult | str:
        """Returns what became of the command, or why it did not run."""
        try:
            return self.provara.run(command, note=why, timeout_s=60, timeout=self.patience)
        except PolicyDenied as no:
            return f"policy denies it: {'; '.join(str(reason.get('text')) for reason in no.reasons)}"
        except Denied as no:
            return f"a person said no: {no.reason}" if no.reason else "a person said no"
        except NotRun as ended:
            return f"it was not run: {ended.state}"
        except WaitTimeout as late:
            # Nobody wants the answer any more, so nobody should be asked for it; it may have ended this moment.
            with contextlib.suppress(Conflict):
                self.provara.cancel(late.pending_id)
            return f"no answer in {self.patience:g} s"

    def disks(self) -> None:
        table = self.look("disk", "Which file systems are nearly full?", "df -P -k")
        if table is None:
            return
        full = full_mounts(table, self.disk_full)
        if not full:
            self.findings.append(f"disk: every file system is below {self.disk_full} %")
        for mount, percent in full:
            self.findings.append(f"disk: {mount} is {percent} % full")
            # The name came from the machine and goes into a command: quoted, so that it stays a name.
            largest = f"du -xk --max-depth=1 {shlex.quote(mount)} 2>/dev/null | sort -rn | head -n 8"
            self.look(f"what fills {mount}", f"{mount} is {percent} % full: what is large there?", largest)

    def memory(self) -> None:
        text = self.look("memory", "How much memory is available?", "cat /proc/meminfo")
        if text is None:
            return
        percent = available_percent(text)
        if percent is None:
            self.findings.append("memory: the machine does not say how much is available")
            return
        self.findings.append(f"memory: {percent} % is available")
        if percent < self.memory_low:
            why = f"Only {percent} % of memory is available: who uses it?"
            self.look("users of memory", why, "ps -eo pid,rss,comm --sort=-rss | head -n 10")

    def load(self) -> None:
        text = self.look("processor", "What is the load, on how many processors?", "cat /proc/loadavg; nproc")
        if text is None:
            return
        words = text.split()
        try:
            load, processors = float(words[0]), int(words[-1])
        except (IndexError, ValueError):
            self.findings.append("processor: the machine does not say how busy it is")
            return
        # More at work than there are processors means that somebody waits.
        if load <= processors:
            self.findings.append(f"processor: keeps up, load {load} on {processors}")
            return
        self.findings.append(f"processor: load {load} on {processors}, more work than processors")
        why = f"The load is {load} on {processors} processors: who is at work?"
        self.look("busy processes", why, "ps -eo pid,pcpu,comm --sort=-pcpu | head -n 10")

    def ports(self) -> None:
        text = self.look("network", "Which ports listen?", "cat /proc/net/tcp")
        if text is None:
            return
        ports = listening_to_all(text)
        said = ", ".join(map(str, ports)) if ports else "none"
        self.findings.append(f"network: ports open to every interface: {said}")


def full_mounts(table: str, limit: int) -> list[tuple[str, int]]:
    """Returns the mounts of `df -P` that are at `limit` per cent or above, the fullest first."""
    found: dict[str, int] = {}
    for line in table.splitlines()[1:]:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[0] not in NO_DISKS and fields[4].rstrip("%").isdigit():  # noqa: PLR2004
            used = int(fields[4].rstrip("%"))
            if used >= limit:
                found[fields[5]] = used
    return sorted(found.items(), key=lambda item: -item[1])[:5]


def available_percent(meminfo: str) -> int | None:
    """Returns how much of the memory is available."""
    values = {
        name: rest.split()[0]
        for name, _, rest in (line.partition(":") for line in meminfo.splitlines())
        if rest.split()
    }
    try:
        return int(values["MemAvailable"]) * 100 // int(values["MemTotal"])
    except (KeyError, ValueError, ZeroDivisionError):
        return None


def listening_to_all(table: str) -> list[int]:
    """Returns the ports of `/proc/net/tcp` that listen on every address."""
    ports = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == "0A" and fields[1].startswith("00000000:"):  # noqa: PLR2004
            ports.add(int(fields[1].partition(":")[2], 16))
    return sorted(ports)


def ended_how(result: RunResult) -> str:
    if result.state == "lost":
        return "the server died while it ran"
    if result.exit_code is not None:
        return f"it ended with {result.exit_code}"
    return f"it ended by {result.outcome}"


def shown(text: str) -> str:
    """The machine's output is a stranger's: nothing of it may move the cursor of whoever reads this."""
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Looks at a machine through Provara. The token is in AGENT_HUB_TOKEN.")
    parser.add_argument("--base", help="the server's address (AGENT_HUB_BASE, or http://127.0.0.1:8787)")
    parser.add_argument("--patience", type=float, default=600, help="seconds to wait for each decision (600)")
    parser.add_argument("--disk-full", type=int, default=85, help="per cent from which a disk is followed up (85)")
    parser.add_argument("--memory-low", type=int, default=10, help="per cent below which memory is followed up (10)")
    given = parser.parse_args(arguments)
    try:
        with ProvaraClient(given.base) as provara:
            diagnosis = Diagnosis(provara, given.patience, given.disk_full, given.memory_low)
            for look in (diagnosis.disks, diagnosis.memory, diagnosis.load, diagnosis.ports):
                look()
    except (ProvaraError, httpx.HTTPError) as error:
        print(f"diagnose: {error}", file=sys.stderr)
        return 2
    print("\n== Findings")
    for finding in diagnosis.findings:
        print(f" - {shown(finding)}")
    return 1 if diagnosis.missed else 0


if __name__ == "__main__":
    sys.exit(main())
