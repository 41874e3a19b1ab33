"""The desktop's part of a template: its files, its units, and what comes from elsewhere."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from runtools.platform.api.desktop import service
from runtools.platform.host.templates import desktop
from runtools.platform.host.templates.buildlog import BuildLog
from runtools.platform.host.templates.recipes import MOZILLA, RECIPES
from runtools.platform.kit.clock import SystemClock
from runtools.sdk.shapes.desktop import PORT

HERE = Path(desktop.__file__).parent
SKELETON = HERE / "desktop_skeleton"
PROGRAMS = SKELETON / "usr/lib/runtools-desktop"
UNITS = SKELETON / "etc/systemd/system"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[BuildLog]:
    log = BuildLog(tmp_path / "build.log", SystemClock())
    log.step("set-up", 0.0, 1.0)
    yield log
    log.end()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in (
        "etc/apt/preferences.d",
        "etc/apt/sources.list.d",
        "etc/systemd/system",
        "workspace",
    ):
        (root / name).mkdir(parents=True)
    client = root / "usr/share/novnc"
    client.mkdir(parents=True)
    (client / "vnc.html").write_text("client")
    (client / "index.html").write_text("not ours")
    return root


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is run in the root."""
    commands: list[list[str]] = []

    async def run_inside(_root: Path, argv: list[str], _on_line: Any, **_: Any) -> None:
        commands.append(list(argv))

    monkeypatch.setattr(desktop, "run_inside", run_inside)
    return commands


def unit(path: Path) -> configparser.ConfigParser:
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(path.read_text())
    return found


def environment() -> dict[str, str]:
    lines = (PROGRAMS / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


class TestFiles:
    def test_all_that_runs_is_the_users_own(self) -> None:
        for file in UNITS.glob("*.service"):
            assert unit(file)["Service"]["User"] == desktop.USER, file.name

    def test_acts_find_the_session(self) -> None:
        assert service.ENVIRONMENT.items() <= environment().items()
        assert service.USER == desktop.USER
        assert (SKELETON / service._WINDOWS.lstrip("/")).is_file()

    def test_the_screen_is_reached_by_its_owners_socket_alone(self) -> None:
        words = unit(UNITS / "runtools-display.service")["Service"]["ExecStart"].split()
        told = dict(pairwise(words))
        assert (told["-rfbport"], told["-rfbunixmode"], told["-nolisten"]) == ("-1", "0600", "tcp")

    def test_the_page_is_on_loopback_and_takes_no_strangers_page(self) -> None:
        words = unit(UNITS / "runtools-desktop-web.service")["Service"]["ExecStart"].split()
        assert words[-1] == f"127.0.0.1:{PORT}"
        assert "--auth-plugin=ExpectOrigin" in words
        assert f"--auth-source=http://localhost:{PORT}" in words
        screen = unit(UNITS / "runtools-display.service")["Service"]["ExecStart"].split()
        socket = screen[screen.index("-rfbunixpath") + 1]
        assert f"--unix-target={socket}" in words

    def test_the_browser_sends_no_hello_that_a_policy_by_name_refuses(self) -> None:
        said = (SKELETON / "etc/firefox-esr/ech.js").read_text()
        assert 'pref("security.tls.ech.grease_probability", 0);' in said
        assert 'pref("network.dns.echconfig.enabled", false);' in said

    def test_configuration_can_be_read(self) -> None:
        for file in SKELETON.rglob("*.xml"):
            ElementTree.fromstring(file.read_text())
        json.loads((SKELETON / "etc/firefox/policies/policies.json").read_text())
        for file in (*SKELETON.rglob("*.dockitem"), *SKELETON.rglob("*.override")):
            assert unit(file).sections()

    def test_the_dock_names_what_is_on_it(self) -> None:
        override = (
            SKELETON / "usr/share/glib-2.0/schemas/90_runtools.gschema.override"
        ).read_text()
        for item in SKELETON.rglob("*.dockitem"):
            assert f"'{item.name}'" in override

    def test_programs_are_programs(self) -> None:
        for name in desktop._RUN[1:]:
            text = (PROGRAMS / name).read_text()
            assert text.startswith("#!/")
            if "sh\n" in text[:20]:
                subprocess.run(["bash", "-n", PROGRAMS / name], check=True)
            else:
                compile(text, name, "exec")


class TestSetUp:
    async def test_a_user_files_and_services(
        self, root: Path, inside: list[list[str]], log: BuildLog
    ) -> None:
        await desktop.set_up(root, RECIPES["desktop-debian"], log)
        [user] = [words for words in inside if words[0] == "useradd"]
        assert user[-1] == "desktop"
        assert "root" not in user
        wanted = {
            link.name for link in (root / "etc/systemd/system/multi-user.target.wants").iterdir()
        }
        assert wanted == {file.name for file in UNITS.glob("*.service")}
        for name in desktop._RUN[1:]:
            assert (root / "usr/lib/runtools-desktop" / name).stat().st_mode & 0o111
        web = root / "usr/lib/runtools-desktop/web"
        assert (web / "vnc.html").readlink() == Path("/usr/share/novnc/vnc.html")
        assert "vnc.html?autoconnect" in (web / "index.html").read_text()
        assert ["chown", "-hR", "desktop:desktop", "/home/desktop"] in inside

    async def test_kasmvnc_is_the_screen_and_the_page(
        self, root: Path, inside: list[list[str]], log: BuildLog
    ) -> None:
        shutil.rmtree(root / "usr/share/novnc")
        await desktop.set_up(root, RECIPES["desktop-debian-kasmvnc"], log)
        units = root / "etc/systemd/system"
        assert not (units / "runtools-desktop-web.service").exists()
        assert not (units / "multi-user.target.wants/runtools-desktop-web.service").is_symlink()
        words = unit(units / "runtools-display.service")["Service"]["ExecStart"].split()
        told = dict(pairwise(words))
        assert (told["-websocketPort"], told["-interface"]) == (str(PORT), "127.0.0.1")


class TestForeign:
    async def test_an_archive_is_bound_to_its_key_and_its_packages(
        self, root: Path, inside: list[list[str]], log: BuildLog, tmp_path: Path
    ) -> None:
        await desktop.add_foreign(root, RECIPES["desktop-ubuntu"], "", tmp_path, log)
        source = (root / "etc/apt/sources.list.d/mozilla.list").read_text()
        assert source == (
            "deb [signed-by=/etc/apt/keyrings/mozilla.asc] https://packages.mozilla.org/apt mozilla main\n"
        )
        assert (
            (root / "etc/apt/keyrings/mozilla.asc")
            .read_bytes()
            .startswith(b"-----BEGIN PGP PUBLIC")
        )
        pinned = (root / "etc/apt/preferences.d/mozilla").read_text()
        assert pinned.startswith("Package: firefox-esr\nPin: origin packages.mozilla.org\n")
        assert [words[0:2] for words in inside] == [["apt-get", "update"], ["apt-get", "install"]]
        assert inside[1][-1] == "firefox-esr"

    def test_the_key_is_the_one_that_mozilla_names(self, tmp_path: Path) -> None:
        if shutil.which("gpg") is None:
            pytest.skip("gpg is not installed")
        home = tmp_path / "gpg"
        home.mkdir(mode=0o700)
        done = subprocess.run(
            ["gpg", "--homedir", home, "--with-colons", "--show-keys", HERE / "keys" / MOZILLA.key],
            capture_output=True,
            check=True,
            text=True,
        )
        prints = [line.split(":")[9] for line in done.stdout.splitlines() if line.startswith("fpr")]
        assert prints == ["35BAA0B33E9EB396F59CA838C0BA5CE6DC6315A3"]

    async def test_a_file_that_is_no_kasmvnc(
        self, root: Path, inside: list[list[str]], log: BuildLog, tmp_path: Path
    ) -> None:
        recipe = RECIPES["desktop-debian-kasmvnc"]
        package = made_package(tmp_path, "cowsay")
        with pytest.raises(ValueError, match="no package of KasmVNC"):
            await desktop.add_foreign(root, recipe, str(package), tmp_path, log)
        assert inside == []

    async def test_a_file_that_is_one(
        self, root: Path, inside: list[list[str]], log: BuildLog, tmp_path: Path
    ) -> None:
        package = made_package(tmp_path, "kasmvncserver")
        recipe = replace(RECIPES["desktop-debian-kasmvnc"], archives=())
        await desktop.add_foreign(root, recipe, str(package), tmp_path, log)
        assert inside == [[*desktop._INSTALL, "/run/kasmvnc.deb"]]
        assert "Package: kasmvncserver Version: 1.0" in log.texts("set-up")

    async def test_others_take_nothing_from_elsewhere(
        self, root: Path, inside: list[list[str]], log: BuildLog, tmp_path: Path
    ) -> None:
        for slug in ("base-debian", "base-ubuntu", "desktop-debian"):
            await desktop.add_foreign(root, RECIPES[slug], "/nowhere", tmp_path, log)
        assert inside == []


def made_package(folder: Path, name: str) -> Path:
    """A package of Debian's form, with nothing in it."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    lines = [
        f"Package: {name}",
        "Version: 1.0",
        "Architecture: all",
        "Maintainer: t <t@example.org>",
    ]
    (tree / "DEBIAN/control").write_text("\n".join([*lines, "Description: test", ""]))
    target = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--build", tree, target], check=True, capture_output=True)
    return target
