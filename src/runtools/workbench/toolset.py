"""All tools that work in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtools.workbench.bench import Bench
from runtools.workbench.files import DELETE_FILE, EDIT_FILE, LIST_DIRECTORY, READ_FILE, WRITE_FILE
from runtools.workbench.reaching import GET_DEV_URL
from runtools.workbench.search import FILE_SEARCH, GREP
from runtools.workbench.shell import BASH
from runtools.workbench.tool import Tool

TOOLS: Mapping[str, Tool[Bench, Any]] = {
    tool.name: tool
    for tool in (
        BASH,
        READ_FILE,
        EDIT_FILE,
        WRITE_FILE,
        DELETE_FILE,
        LIST_DIRECTORY,
        FILE_SEARCH,
        GREP,
        GET_DEV_URL,
    )
}
