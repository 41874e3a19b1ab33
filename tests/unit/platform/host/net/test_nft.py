"""nft that dies of a signal is asked again, and one that refuses is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtools.platform.host.net import nft
from runtools.platform.kit import process
from runtools.platform.kit.process import CommandFailed


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, which does what the file `does` says."""
    program = tmp_path / "nft"
    program.write_text(f"#!/bin/sh\ncat >>{tmp_path}/given\n. {tmp_path}/does\n")
    program.chmod(0o755)
    around = {**process.PLAIN_ENV, "PATH": f"{tmp_path}:{process.PLAIN_ENV['PATH']}"}
    monkeypatch.setattr(process, "PLAIN_ENV", around)
    monkeypatch.setenv("PATH", around["PATH"])  # where the program is looked for
    return tmp_path


def does(folder: Path, script: str) -> None:
    (folder / "does").write_text(script)


async def test_it_is_given_the_same_again(stand_in: Path) -> None:
    does(stand_in, f"[ -f {stand_in}/died ] && exit 0; touch {stand_in}/died; kill -SEGV $$")
    await nft.apply("add table inet t\n")
    assert (stand_in / "given").read_text() == "add table inet t\n" * 2


async def test_one_that_always_dies(stand_in: Path) -> None:
    does(stand_in, "kill -SEGV $$")
    with pytest.raises(CommandFailed, match="-11"):
        await nft.apply("x\n")
    assert (stand_in / "given").read_text() == "x\n" * 3


async def test_a_refusal_is_final(stand_in: Path) -> None:
    does(stand_in, "echo no such table >&2; exit 1")
    with pytest.raises(CommandFailed, match="no such table"):
        await nft.apply("x\n")
    assert (await nft.ask(["list"], check=False)).code == 1
    assert (stand_in / "given").read_text() == "x\n"
