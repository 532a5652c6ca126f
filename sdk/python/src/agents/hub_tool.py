"""`provara.hub_tool` under its documented name.

This folder has no `__init__.py` of ours: the package openai-agents owns one, and both live in one folder when both are
installed. This name is the same module, so that what is assigned to it, `hub_tool.BASE`, counts.
"""

import sys

import provara.hub_tool
from provara.hub_tool import plan

__all__ = ["plan"]

sys.modules[__name__] = provara.hub_tool
