"""The set-up: what is missing is installed, what is there is left alone, and failures speak."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runtools.errors import Forbidden, InvalidRequest
from runtools.platform.boot import packages, setup
from runtools.platform.boot.packages import QEMU, SYSTEMS, System, is_at_least, this_system
from runtools.platform.host.templates.mirrors import Source, parse_deb822
from runtools.platform.kit import process
from runtools.platform.kit.process import Completed

BOOKWORM = SYSTEMS["debian", "12"]
TRIXIE = SYSTEMS["debian", "13"]


class Machine:
    """A machine whose package manager only writes down what it is told."""

    def __init__(self, system: System, release_qemu: str, backports_qemu: str = "") -> None:
        self.system = system
        self.installed: dict[str, str] = {}
        self.qemu = {"release": release_qemu, "backports": backports_qemu}
        self.sources = [Source("http://mirror.example/debian", "bookworm", ("main",))]
        self.asked: list[list[str]] = []
        self.failure: list[str] = []

    async def run(self, argv: Sequence[str | Path], **kwargs: Any) -> Completed:
        words = [str(word) for word in argv]
        if words[0] == "dpkg-query":
            rows = [f"{k} installed {v}" for k, v in self.installed.items() if k in words]
            return Completed(0, "\n".join(rows).encode(), b"")
        if words[:2] == ["apt-cache", "policy"]:
            return Completed(0, f"  Candidate: {self.qemu['release']}\n".encode(), b"")
        assert words[0] == "dpkg", words
        return await _really_run(argv, **kwargs)

    async def stream(
        self, argv: Sequence[str | Path], on_line: Callable[[str], None], **_: Any
    ) -> int:
        words = [str(word) for word in argv]
        self.asked.append(words)
        if self.failure and words[1] == "install":
            for line in self.failure:
                on_line(line)
            return 100
        if words[1] == "install":
            where = "backports" if "--target-release" in words else "release"
            for name in set(words) & set(self.system.packages):
                self.installed[name] = self.qemu[where] if name == QEMU else "1.0"
        return 0

    def complete(self) -> None:
        self.installed = dict.fromkeys(self.system.packages, "1.0") | {QEMU: "1:10.0.2"}


_really_run = process.run


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """A fresh Debian 12 as root."""
    machine = Machine(BOOKWORM, "1:7.2+dfsg-7", "1:10.0.2+ds-2~bpo12+1")
    monkeypatch.setattr(process, "run", machine.run)
    monkeypatch.setattr(process, "stream", machine.stream)
    monkeypatch.setattr(setup, "this_system", lambda: machine.system)
    monkeypatch.setattr(setup, "machine_sources", lambda: machine.sources)
    monkeypatch.setattr(setup, "_BACKPORTS", tmp_path / "backports.sources")
    monkeypatch.setattr(setup, "_has_service_user", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return machine


@pytest.fixture
def said() -> list[str]:
    return []


class TestNothingMissing:
    async def test_asks_the_package_manager_for_nothing(
        self, machine: Machine, said: list[str]
    ) -> None:
        machine.complete()
        await setup.setup(said.append)
        assert machine.asked == []
        assert said == ["Debian 12: everything is installed"]

    async def test_needs_no_root(
        self, machine: Machine, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.complete()
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        await setup.setup(said.append)


class TestInstall:
    async def test_old_release_takes_qemu_alone_from_backports(
        self, machine: Machine, said: list[str], tmp_path: Path
    ) -> None:
        await setup.setup(said.append)
        installs = [words for words in machine.asked if words[1] == "install"]
        assert installs[0][-3:] == ["--target-release", "bookworm-backports", QEMU]
        assert "--target-release" not in installs[1]
        assert QEMU not in installs[1]
        assert machine.installed[QEMU].startswith("1:10")
        (source,) = parse_deb822((tmp_path / "backports.sources").read_text())
        assert source == Source("http://mirror.example/debian", "bookworm-backports", ("main",))

    async def test_known_backports_are_not_added_again(
        self, machine: Machine, said: list[str], tmp_path: Path
    ) -> None:
        machine.sources.append(Source("http://other.example/debian", "bookworm-backports", ()))
        await setup.setup(said.append)
        assert not (tmp_path / "backports.sources").exists()
        assert machine.installed[QEMU].startswith("1:10")

    async def test_an_old_qemu_is_missing_too(self, machine: Machine, said: list[str]) -> None:
        machine.complete()
        machine.installed[QEMU] = "1:7.2+dfsg-7"
        await setup.setup(said.append)
        assert [w[-1] for w in machine.asked if w[1] == "install"] == [QEMU]

    async def test_new_release_takes_all_at_once(
        self, machine: Machine, said: list[str], tmp_path: Path
    ) -> None:
        machine.system = TRIXIE
        machine.qemu["release"] = "1:10.0.7"
        await setup.setup(said.append)
        installs = [words for words in machine.asked if words[1] == "install"]
        assert len(installs) == 1
        assert set(TRIXIE.packages) <= set(installs[0])
        assert not (tmp_path / "backports.sources").exists()

    async def test_one_that_is_there_is_not_named(self, machine: Machine, said: list[str]) -> None:
        machine.complete()
        del machine.installed["zstd"]
        await setup.setup(said.append)
        (install,) = [words for words in machine.asked if words[1] == "install"]
        assert set(install) & set(BOOKWORM.packages) == {"zstd"}


class TestRefusals:
    async def test_without_root_it_says_what_is_missing(
        self, machine: Machine, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.complete()
        del machine.installed["nftables"]
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(Forbidden, match="missing: nftables") as caught:
            await setup.setup(said.append)
        assert caught.value.hint == "runtools setup"
        assert machine.asked == []

    async def test_quotes_the_package_manager(self, machine: Machine, said: list[str]) -> None:
        machine.failure = ["Reading package lists...", "E: Unable to locate package mmdebstrap"]
        with pytest.raises(setup.SetupFailed, match="Unable to locate package mmdebstrap"):
            await setup.setup(said.append)

    async def test_no_archive_for_backports(self, machine: Machine, said: list[str]) -> None:
        machine.sources = []
        with pytest.raises(setup.SetupFailed, match="no archive of Debian 12"):
            await setup.setup(said.append)

    async def test_another_kind_of_machine(
        self, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        with pytest.raises(InvalidRequest, match="x86-64"):
            await setup.setup(said.append)


class TestSystem:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ('NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="12"\n', "Debian 12"),
            ('ID=debian\nVERSION_ID="13"\n', "Debian 13"),
            ('ID=ubuntu\nVERSION_ID="24.04"\n', "Ubuntu 24.04"),
        ],
    )
    def test_known(self, tmp_path: Path, text: str, name: str) -> None:
        (tmp_path / "os-release").write_text(text)
        assert this_system(tmp_path / "os-release").name == name

    @pytest.mark.parametrize("text", ["", "ID=fedora\nVERSION_ID=42\n", "ID=debian\n"])
    def test_unknown_ones_are_told_what_to_install(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "os-release").write_text(text)
        with pytest.raises(InvalidRequest, match="does not know") as caught:
            this_system(tmp_path / "os-release")
        assert "mmdebstrap" in (caught.value.hint or "")


async def test_versions_are_compared_as_the_package_manager_does() -> None:
    assert await is_at_least("1:8.2.2+ds-0ubuntu1", packages.QEMU_VERSION)
    assert await is_at_least("1:10.0.2+ds-2+deb13u1~bpo12+1", packages.QEMU_VERSION)
    assert not await is_at_least("1:7.2+dfsg-7", packages.QEMU_VERSION)
