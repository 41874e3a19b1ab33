"""What is said where nft refuses, and where it dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtools.platform.host.net import nft
from runtools.platform.kit import process
from runtools.platform.kit.process import CommandFailed


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The text of a program of that name, which is found before the real one."""
    program = tmp_path / "nft"
    program.touch(0o755)
    around = {**process.PLAIN_ENV, "PATH": f"{tmp_path}:{process.PLAIN_ENV['PATH']}"}
    monkeypatch.setattr(process, "PLAIN_ENV", around)
    monkeypatch.setenv("PATH", around["PATH"])  # where the program is looked for
    return program


async def test_it_is_given_the_rules(stand_in: Path) -> None:
    stand_in.write_text(f"#!/bin/sh\ncat >{stand_in}.given\n")
    await nft.apply("add table inet t\n")
    assert Path(f"{stand_in}.given").read_text() == "add table inet t\n"


async def test_its_refusal_is_quoted(stand_in: Path) -> None:
    stand_in.write_text("#!/bin/sh\necho no such table >&2; exit 1\n")
    with pytest.raises(CommandFailed, match="no such table"):
        await nft.apply("x\n")
    assert (await nft.ask(["list"], check=False)).code == 1


async def test_its_death_is_explained_and_is_no_answer(stand_in: Path) -> None:
    stand_in.write_text("#!/bin/sh\nkill -SEGV $$\n")
    with pytest.raises(CommandFailed, match="bring the package nftables up"):
        await nft.ask(["list"], check=False)
