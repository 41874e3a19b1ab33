"""A stranger's script gets a sandbox's network, or does not run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtools.errors import BuildFailed
from runtools.platform.host.templates.buildlog import BuildLog
from runtools.platform.host.templates.script import run_script
from runtools.platform.kit.clock import SystemClock
from runtools.testing.null_network import NullNetwork


@pytest.fixture
def log(tmp_path: Path) -> Iterator[BuildLog]:
    log = BuildLog(tmp_path / "build.log", SystemClock())
    yield log
    log.end()


async def test_never_runs_on_the_machines_own_network(tmp_path: Path, log: BuildLog) -> None:
    network = NullNetwork()
    with pytest.raises(BuildFailed, match="namespaces"):
        await run_script("touch ran", tmp_path, tmp_path, network, log)
    assert not (tmp_path / "ran").exists()
    assert network.taken == set()
