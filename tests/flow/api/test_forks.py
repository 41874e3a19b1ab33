"""What its maker is told of a fork of which not all came to run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtools import AsyncRunTools, AsyncSandbox
from runtools.errors import SandboxStopped
from runtools.platform.core.ports.driver import VmmFailed
from runtools.testing.local_driver import LocalDriver
from runtools.testing.local_platform import local_platform


@pytest_asyncio.fixture
async def parent(tmp_path: Path) -> AsyncIterator[AsyncSandbox]:
    async with local_platform(tmp_path) as (url, key), AsyncRunTools(key, url) as rt:
        yield await rt.sandboxes.create(name="parent")


def fails(monkeypatch: pytest.MonkeyPatch, which: set[int]) -> None:
    """Of the clones to come, those of these numbers fail."""
    real, asked = LocalDriver.clone, []

    async def clone(self, machine, capture):  # type: ignore[no-untyped-def]
        asked.append(machine.id)
        if len(asked) in which:
            raise VmmFailed("the reason that matters")
        await real(self, machine, capture)

    monkeypatch.setattr(LocalDriver, "clone", clone)


async def test_none(parent: AsyncSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, {1, 2})
    with pytest.raises(SandboxStopped, match="the reason that matters"):
        await parent.fork(2, name="kid")
    assert len(await parent.fork(2, name="kid")) == 2


async def test_some(parent: AsyncSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, {2})
    with pytest.raises(SandboxStopped, match="1 of 3 children never came to run") as failed:
        await parent.fork(3, name="kid")
    details = failed.value.details
    (why,) = details["failed"].values()
    assert "the reason that matters" in why
    assert len(details["running"]) == 2
    assert all(each in str(failed.value.hint) for each in details["running"])
