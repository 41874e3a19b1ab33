"""What every process of ours does before its own work."""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import pytest

from runtools.platform.boot import commands
from runtools.platform.kit import log
from runtools.platform.kit.config import Settings


def test_each_may_have_as_many_files_open_as_the_machine_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    seen: list[tuple[int, int]] = []

    async def look(_: Settings, __: argparse.Namespace) -> int:
        seen.append(resource.getrlimit(resource.RLIMIT_NOFILE))
        return 0

    monkeypatch.setenv("RUNTOOLS_HOME", str(tmp_path))
    monkeypatch.setattr(log, "configure", lambda _: None)
    monkeypatch.setitem(commands._COMMANDS, "api", look)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert commands.main(["api"]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert seen == [(before[1], before[1])]
