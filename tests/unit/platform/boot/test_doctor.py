"""The doctor: every finding names what is there, and every bad one what to do."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
from pathlib import Path
from typing import cast

import pytest

from runtools.platform.boot import doctor, home, packages, people
from runtools.platform.boot.doctor import Finding
from runtools.platform.core.ports.driver import Capabilities, Driver
from runtools.platform.core.ports.host import BuildOrder
from runtools.platform.host.templates.record import Record
from runtools.platform.kit import descriptors, process
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings


class Prober:
    """A driver that was asked what it can do."""

    def __init__(self, accelerator: str) -> None:
        self.accelerator = accelerator

    async def probe(self) -> Capabilities:
        return Capabilities(
            isolation="hardware" if self.accelerator == "kvm" else "emulated",
            accelerator=self.accelerator,
            reason="a guest said so",
            memory_survives=True,
        )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", api_port=0, ssh_port=0, gateway_port=0)


async def look(settings: Settings, name: str, driver: Prober | None = None) -> Finding:
    findings = await doctor.examine(settings, cast("Driver | None", driver))
    return next(finding for finding in findings if finding.name == name)


@pytest.fixture(autouse=True)
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installation is one that everybody can read; finding that out takes a second."""

    async def unprivileged(*_: object) -> people.Person:
        return people.Person("somebody", 1000, 1000)

    monkeypatch.setattr(people, "unprivileged", unprivileged)


class TestOpenFiles:
    @pytest.mark.parametrize(("most", "good"), [(4096, False), (1 << 20, True)])
    async def test_a_low_limit_is_told(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, most: int, good: bool
    ) -> None:
        monkeypatch.setattr(descriptors, "most", lambda: most)
        found = await look(settings, "open files")
        assert (found.ok, str(most) in found.found, bool(found.advice)) == (good, True, not good)


class TestExamine:
    async def test_names_are_single_and_bad_findings_have_advice(self, settings: Settings) -> None:
        findings = await doctor.examine(settings)
        assert len({finding.name for finding in findings}) == len(findings)
        assert all(finding.advice for finding in findings if not finding.ok)

    async def test_changes_nothing(self, settings: Settings) -> None:
        await doctor.examine(settings)
        assert not settings.home.exists()


class TestVirtualisation:
    async def test_hardware(self, settings: Settings) -> None:
        found = await look(settings, "virtualisation", Prober("kvm"))
        assert found == Finding("virtualisation", True, "warning", "kvm: a guest said so")

    async def test_emulation_warns_and_says_why(self, settings: Settings) -> None:
        found = await look(settings, "virtualisation", Prober("tcg"))
        assert (found.ok, found.level) == (False, "warning")
        assert "tcg: a guest said so" in found.found

    async def test_an_ordinary_user_is_told_how_it_is_looked_at(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refused(_: Prober) -> Capabilities:
            raise PermissionError(13, "Permission denied", "accelerator.json")

        monkeypatch.setattr(Prober, "probe", refused)
        found = await look(settings, "virtualisation", Prober("kvm"))
        assert (found.level, found.found) == ("info", "not checked without root")
        assert "sudo" in found.advice


class TestDisk:
    async def test_too_little_is_an_error(self, settings: Settings) -> None:
        cramped = dataclasses.replace(settings, disk_headroom_mb=1 << 40)
        found = await look(cramped, "disk")
        assert (found.ok, found.level) == (False, "error")

    async def test_names_the_folder_that_is_there(self, settings: Settings) -> None:
        assert str(settings.home.parent) in (await look(settings, "disk")).found


class TestPorts:
    async def test_free(self, settings: Settings) -> None:
        assert (await look(settings, "ports")).ok

    @pytest.mark.parametrize("part", ["api", "ssh", "gateway"])
    async def test_taken_by_a_stranger(self, settings: Settings, part: str) -> None:
        async with await serve(b"HTTP/1.0 200 OK\r\n\r\nhello") as server:
            port = port_of(server)
            taken = dataclasses.replace(settings, **{f"{part}_port": port})
            found = await look(taken, "ports")
        assert (found.ok, found.level) == (False, "error")
        assert f"127.0.0.1:{port}: Address already in use" in found.found
        assert found.advice.endswith(f"set RUNTOOLS_{part.upper()}_PORT")

    async def test_taken_by_the_platform_itself(self, settings: Settings) -> None:
        settings.home.mkdir()
        settings.client_file.write_text("{}")
        async with await serve(b"HTTP/1.0 200 OK\r\nX-Request-Id: req_1\r\n\r\n{}") as server:
            taken = dataclasses.replace(settings, api_port=port_of(server))
            found = await look(taken, "ports")
        assert found.ok
        assert "the platform listens" in found.found


class TestLeastPrivilege:
    async def test_an_installation_nobody_else_can_read(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def bare(*_: object) -> people.Person:
            return people.Person("root", 0, 0, bare=True)

        monkeypatch.setattr(people, "unprivileged", bare)
        found = await look(settings, "least privilege")
        assert (found.ok, found.level) == (False, "warning")
        assert "can write root's files" in found.found


class TestTemplate:
    async def test_not_built(self, settings: Settings) -> None:
        found = await look(settings, "template")
        assert found.advice == "runtools template build base-debian"

    async def test_what_cannot_be_listed_is_not_said_to_be_missing(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (settings.host_home / "templates").mkdir(parents=True)
        monkeypatch.setattr(os, "access", lambda *_: False)
        assert (await look(settings, "template")).found == "not checked without root"

    @pytest.mark.parametrize(("state", "ok"), [("ready", True), ("failed", False)])
    async def test_built(self, settings: Settings, state: str, ok: bool) -> None:
        folder = settings.host_home / "templates/tpl_a"
        folder.mkdir(parents=True)
        order = BuildOrder(
            version_id="tpl_a",
            slug="base-debian",
            version=3,
            recipe="base-debian",
            apt=[],
            run=None,
        )
        record = Record(order=order, created_at=SystemClock().now())
        record.model_copy(update={"state": state}).keep(folder)
        found = await look(settings, "template")
        assert found.ok is ok
        assert ("version 3" in found.found) is ok


class TestQemu:
    @pytest.mark.parametrize(
        ("version", "ok"), [("10.0.2 (Debian 1:10)", True), ("8.2.0", True), ("7.2.19", False)]
    )
    async def test_version(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, version: str, ok: bool
    ) -> None:
        async def run(*_: object, **__: object) -> process.Completed:
            return process.Completed(0, f"QEMU emulator version {version}\nmore".encode(), b"")

        monkeypatch.setattr(process, "run", run)
        found = await doctor._qemu()
        assert found.ok is ok
        assert ("setup" in found.advice) is not ok


class TestPackages:
    async def test_missing_ones_are_named(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def missing(_: object) -> list[str]:
            return ["mmdebstrap"]

        monkeypatch.setattr(packages, "missing", missing)
        monkeypatch.setattr(packages, "this_system", lambda: packages.SYSTEMS["debian", "12"])
        found = await look(settings, "packages")
        assert (found.ok, found.level) == (False, "error")
        assert "mmdebstrap" in found.found


class TestShow:
    @pytest.mark.parametrize(("level", "code"), [("error", 1), ("warning", 0), ("info", 0)])
    async def test_only_errors_fail(
        self,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        level: doctor.Level,
        code: int,
    ) -> None:
        async def examine(*_: object) -> list[Finding]:
            return [Finding("good", True, "error", "fine"), Finding("x", False, level, "bad", "do")]

        monkeypatch.setattr(doctor, "examine", examine)
        assert await doctor.show(settings) == code
        text = capsys.readouterr().out
        assert "✓ good  fine" in text
        assert "→ do" in text
        wrong = "keeps the platform from running: x"
        assert text.splitlines()[-1] == (wrong if code else "the platform can run here")


async def test_root_is_found_or_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    found = await doctor._root()
    assert (found.ok, found.level) == (False, "error")


async def serve(reply: bytes) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(reply)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


class TestWorker:
    async def test_a_platform_that_is_down_has_none(self, settings: Settings) -> None:
        found = await look(settings, "worker")
        assert found.ok
        assert "down" in found.found

    async def test_one_that_is_missing_is_told(self, settings: Settings) -> None:
        settings.run_folder.mkdir(parents=True)
        with home.lock(settings.run_folder / "up.lock", "a platform"):
            found = await look(settings, "worker")
        assert not found.ok
        assert "runs of agents wait" in found.advice
