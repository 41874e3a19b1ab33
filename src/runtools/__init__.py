"""RunTools: a self-hosted platform for AI agents that work in real machines of their own.

Everything public is importable from here; names are loaded on first use, so that ``import runtools``
itself costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from runtools.version import __version__

if TYPE_CHECKING:
    from runtools.errors import RunToolsError
    from runtools.project.define import Action, define_agent, define_sandbox, define_tool
    from runtools.sdk.client import AsyncRunTools
    from runtools.sdk.sandbox import AsyncSandbox
    from runtools.sdk.shapes import ExecResult
    from runtools.sdk.sync.client import RunTools
    from runtools.sdk.sync.sandbox import Sandbox

__all__ = [
    "Action",
    "AsyncRunTools",
    "AsyncSandbox",
    "ExecResult",
    "RunTools",
    "RunToolsError",
    "Sandbox",
    "__version__",
    "define_agent",
    "define_sandbox",
    "define_tool",
]

_HOMES = {
    "Action": "runtools.project.define",
    "AsyncRunTools": "runtools.sdk.client",
    "AsyncSandbox": "runtools.sdk.sandbox",
    "ExecResult": "runtools.sdk.shapes",
    "RunTools": "runtools.sdk.sync.client",
    "RunToolsError": "runtools.errors",
    "Sandbox": "runtools.sdk.sync.sandbox",
    "define_agent": "runtools.project.define",
    "define_sandbox": "runtools.project.define",
    "define_tool": "runtools.project.define",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'runtools' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
