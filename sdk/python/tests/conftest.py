from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from served import Served


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AGENT_HUB_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """One server for the tests of a file; each looks at its own plans only."""
    served = Served()
    yield served
    served.close()


@pytest.fixture
def own_server() -> Iterator[Served]:
    """A server that a test may kill."""
    served = Served()
    yield served
    served.close()
