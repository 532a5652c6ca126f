"""`agents.hub_tool` beside openai-agents, which owns `agents/__init__.py`: real environments, both orders."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
# The real package, pinned like everything that the checks install.
BESIDE = "openai-agents==0.24.0"


def run(*arguments: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AGENT_HUB_", "PYTHON"))}
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=environment, cwd="/")
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, PROJECT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_the_tool_and_leaves_the_folder_to_others(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if name.startswith("agents/")} == {"agents/hub_tool.py"}
    assert {"provara/__init__.py", "provara/py.typed", "provara/hub_tool.py"} <= names


USE = """
import agents.hub_tool, provara.hub_tool
from agents.hub_tool import plan
assert agents.hub_tool is provara.hub_tool
assert plan is provara.hub_tool.plan
print(agents.__spec__.origin)
"""
USE_BOTH = USE + "import agents; assert isinstance(agents.Agent(name='x').name, str)"


def test_the_tool_is_found_alone_before_and_after_openai_agents(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")

    run(*pip, "install", "--no-compile", wheel)
    assert run(python, "-c", USE) == "None", "alone, `agents` is a namespace of nobody"

    run(*pip, "install", "--no-compile", BESIDE)
    assert run(python, "-c", USE_BOTH).endswith("agents/__init__.py")

    # Ours goes and comes back: now it is the later one.
    run(*pip, "uninstall", "--yes", "provara")
    run(python, "-c", "import agents; agents.Agent")
    run(*pip, "install", "--no-compile", wheel)
    assert run(python, "-c", USE_BOTH).endswith("agents/__init__.py")

    run(*pip, "uninstall", "--yes", "openai-agents")
    assert run(python, "-c", USE) == "None"
