"""Next.js and Vite as they are, behind dev URLs in a real browser: what is edited shows, on the same page.

No machine is in it: the servers are this machine's, and the gateway is the real one. It is no part of the
suite for its browser, and for some hundred megabytes that npm fetches.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.desktop.browser import Browser
from tests.vm.conftest import free_port

from runtools.testing.gateway_world import BOX, gateway
from runtools.testing.node import NODE
from runtools.testing.real_platform import eventually

pytestmark = pytest.mark.vm

WANTED = Path(__file__).with_name("dev_servers")
TITLE = "document.querySelector('#title')?.textContent"
COUNT = "document.querySelector('#more')?.textContent"
CLICK = "document.querySelector('#more')?.click()"
SAID = "document.querySelector('#said')?.textContent"


@pytest.fixture(scope="module")
def project(pytestconfig: pytest.Config) -> Path:
    """A folder with both servers and a small application for each; kept for the next run."""
    home = Path(os.environ.get("RT_TEST_HOME", "/var/lib/runtools-desktop")) / "dev-servers"
    lock, installed = home / "package-lock.json", home / "node_modules/.package-lock.json"
    is_same = lock.exists() and lock.read_bytes() == (WANTED / lock.name).read_bytes()
    shutil.copytree(WANTED, home, dirs_exist_ok=True)
    if not (is_same and installed.exists()):
        npm = [sys.executable, "-m", "runtools.testing.node"]
        capture = pytestconfig.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            sys.stderr.write("\nnpm fetches Next.js and Vite: half a minute, ten at most\n")
            words = ["ci", "--prefix", str(home), "--no-fund", "--no-audit", "--loglevel=error"]
            subprocess.run([*npm, *words], check=True, timeout=600)
    return home


@contextmanager
def serving(folder: Path, program: str, *words: str) -> Iterator[None]:
    """A development server of the project."""
    argv = [str(NODE), str(folder / "node_modules" / program), *words]
    env = {**os.environ, "NEXT_TELEMETRY_DISABLED": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def edited_while_looked_at(browser: Browser, url: str, file: Path) -> None:
    """The page comes by itself once the server listens, and shows an edit without being loaded anew."""
    browser.open(url)
    eventually(lambda: browser.value(TITLE) == "before", 180)

    def counts() -> bool:
        browser.value(CLICK)
        return browser.value(COUNT) not in (None, "0")

    eventually(counts, 120)
    browser.value("window.sameAsBefore = true")
    count, text = browser.value(COUNT), file.read_text()
    try:
        file.write_text(text.replace("before", "after"))
        eventually(lambda: browser.value(TITLE) == "after", 120)
        assert browser.value("window.sameAsBefore") is True
        assert browser.value(COUNT) == count
    finally:
        file.write_text(text)


def says(browser: Browser, url: str) -> None:
    """A form that the server takes only from a page of its own origin."""
    browser.open(url)
    eventually(lambda: browser.value(SAID) == "-", 180)

    def is_said() -> bool:
        browser.value(CLICK)
        return bool(browser.value(SAID) == "hello")

    eventually(is_said, 60)


@pytest.mark.parametrize("how", ["--turbopack", "--webpack"])
async def test_next(project: Path, browser: Browser, how: str) -> None:
    port = free_port()
    async with gateway() as gate:
        gate.admitting.public.add((BOX, port))
        url = f"http://{gate.host(port)}/"
        where = ("dev", how, "-p", str(port), "-H", "127.0.0.1")
        with serving(project, "next/dist/bin/next", *where):
            await asyncio.to_thread(edited_while_looked_at, browser, url, project / "app/page.js")
            await asyncio.to_thread(says, browser, f"{url}form")


async def test_vite(project: Path, browser: Browser) -> None:
    port = free_port()
    async with gateway() as gate:
        gate.admitting.public.add((BOX, port))
        with serving(project, "vite/bin/vite.js", "--port", str(port), "--strictPort"):
            url = f"http://{gate.host(port)}/"
            await asyncio.to_thread(edited_while_looked_at, browser, url, project / "word.js")
