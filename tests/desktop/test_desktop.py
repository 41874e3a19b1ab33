"""The desktop itself: a built template, a machine of it, and a real browser before the gateway.

Not among the suite's tests, for a build takes minutes: ``./dev desktop`` runs these. What is to be looked
at lies in ``RT_DESKTOP_OUT`` afterwards.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from tests.desktop.browser import Browser

from runtools import RunTools, errors
from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.real_platform import Platform, eventually

pytestmark = pytest.mark.vm

PNG = b"\x89PNG\r\n\x1a\n"
_DISPLAY = {"DISPLAY": ":1", "XDG_RUNTIME_DIR": "/run/desktop"}
_BUS = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/desktop/bus"}
_STATUS = "curl -s -o /dev/null -w %{http_code} -m 5 --http1.1 http://127.0.0.1:6901/websockify"
_UPGRADE = (
    "-H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' "
    "-H 'Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=='"
)


def out_of(desk: Sandbox, command: str) -> str:
    done = desk.exec(command, timeout_ms=120_000)
    assert done.exit_code == 0, done.stderr
    return done.stdout.strip()


def read(desk: Sandbox, path: str) -> str:
    return desk.exec(["cat", path]).stdout.strip()


@pytest.fixture(scope="module")
def terminal(desk: Sandbox) -> Sandbox:
    """A terminal is open on the desktop, and has the keys."""
    desk.exec(
        ["setsid", "--fork", "xfce4-terminal", "--geometry=100x24+200+120"],
        user="desktop",
        env={**_DISPLAY, **_BUS},
    )
    eventually(
        lambda: any(w.active and "erminal" in w.application for w in desk.desktop.windows()), 180
    )
    return desk


class TestUp:
    def test_it_is_up_in_the_first_moment_of_a_clone(self, desk: Sandbox, out: Path) -> None:
        assert desk.started_from == "warm"
        assert desk.memory_mb == 2048
        picture = desk.desktop.screenshot()
        assert picture.startswith(PNG)
        (out / "fresh.png").write_bytes(picture)
        assert int.from_bytes(picture[16:20]) == 1280
        assert int.from_bytes(picture[20:24]) == 800
        assert len(picture) > 10_000  # more than one colour
        assert out_of(desk, "systemctl is-active runtools-desktop-up") == "active"
        assert out_of(desk, "pgrep -u desktop -c -x plank") == "1"

    def test_nothing_of_it_is_roots_or_on_a_port_but_its_page(self, desk: Sandbox) -> None:
        for program in ("Xtigervnc", "xfce4-session", "xfwm4", "plank", "websockify"):
            assert out_of(desk, f"ps -o user= -p $(pgrep -f -o {program})") == "desktop", program
        assert set(desk.stats().listening_ports) == {22, 6901}
        assert out_of(desk, "ss -ltnH sport = :6901 | awk '{print $4}'") == "127.0.0.1:6901"

    def test_a_page_of_another_origin_gets_no_screen(self, desk: Sandbox) -> None:
        for origin in ("http://evil.example", "null", "http://localhost:3000"):
            assert out_of(desk, f"{_STATUS} {_UPGRADE} -H 'Origin: {origin}' || true") == "403"
        ours = f"{_STATUS} {_UPGRADE} -H 'Origin: http://localhost:6901' || true"
        assert out_of(desk, ours) == "101"


class TestBrowser:
    def test_a_key_pressed_in_the_page_arrives(
        self, terminal: Sandbox, browser: Browser, out: Path
    ) -> None:
        browser.open(terminal.urls.link(6901).url)
        connected = "document.documentElement.classList.contains('noVNC_connected')"
        eventually(lambda: browser.value(connected), 120)
        size = "[...document.querySelectorAll('canvas')].map(c => c.width + 'x' + c.height).join()"
        eventually(lambda: "1280x800" in (browser.value(size) or ""), 60)
        box = "JSON.stringify(document.querySelector('canvas').getBoundingClientRect())"
        assert browser.value(box)
        before = terminal.desktop.screen()

        def clicks() -> bool:
            # The page fades in first, and takes no click while it does.
            browser.click(700, 450)
            now = terminal.desktop.screen()
            return (now.x, now.y) != (before.x, before.y)

        eventually(clicks, 60)
        browser.press("echo page > /tmp/page\n")
        eventually(lambda: read(terminal, "/tmp/page") == "page", 120)
        (out / "page.png").write_bytes(browser.picture())
        assert browser.value("location.hostname").startswith(f"6901-{terminal.id}.")
        assert "runtools-link" not in browser.value("location.href")
        browser.open("about:blank")  # what nobody looks at need not be drawn


class TestActs:
    def test_typing_keys_and_pointer(self, terminal: Sandbox) -> None:
        desk = terminal.desktop
        desk.click(700, 300)
        desk.type("printf %s plain > /tmp/plain\n")
        eventually(lambda: read(terminal, "/tmp/plain") == "plain", 60)
        desk.keys(
            "e", "c", "h", "o", "space", "h", "i", "space", "shift+.", "/", *"tmp/keys", "enter"
        )
        eventually(lambda: read(terminal, "/tmp/keys") == "hi", 60)
        desk.move(33, 44)
        screen = desk.screen()
        assert (screen.x, screen.y) == (33, 44)
        with pytest.raises(errors.OffScreen):
            desk.click(1280, 10)

    def test_windows_are_where_they_are_shown(self, terminal: Sandbox) -> None:
        before = next(w for w in terminal.desktop.windows() if "erminal" in w.application)
        x, y = before.x + before.width // 2, before.y - 10  # its title
        terminal.desktop.drag(x, y, x - 60, y - 40)  # away from the edges that windows snap to

        def moved() -> bool:
            now = next(w for w in terminal.desktop.windows() if w.id == before.id)
            return (now.x - before.x, now.y - before.y) == (-60, -40)

        eventually(moved, 60)

    def test_the_clipboard(self, terminal: Sandbox) -> None:
        text = "zwei Zeilen\nund ✓ " + "x" * 100_000
        terminal.desktop.set_clipboard(text)
        assert terminal.desktop.clipboard() == text

    def test_it_sleeps_and_goes_on(self, terminal: Sandbox) -> None:
        terminal.pause()
        assert terminal.desktop.screenshot().startswith(PNG)
        assert any("erminal" in w.application for w in terminal.desktop.windows())

    def test_an_address_opens_in_the_browser(self, terminal: Sandbox, out: Path) -> None:
        page = "<title>Hello from inside</title><h1 style='font:5em sans-serif'>It works.</h1>"
        terminal.files.write("/srv/index.html", page)
        terminal.processes.start(["python3", "-m", "http.server", "8000", "-d", "/srv"])
        eventually(lambda: 8000 in terminal.stats().listening_ports)
        terminal.desktop.open("http://127.0.0.1:8000/")

        def is_shown() -> bool:
            # While a browser starts on a busy machine, a look at the windows may not be done in its time.
            with contextlib.suppress(errors.DeadlineExceeded):
                return any("Hello from inside" in w.title for w in terminal.desktop.windows())
            return False

        eventually(is_shown, 600)
        (out / "browser.png").write_bytes(terminal.desktop.screenshot())


class TestEnds:
    def test_a_screen_that_was_ended_comes_back(self, platform: Platform) -> None:
        with platform.rt.sandboxes.create("desktop-debian") as sandbox:
            sandbox.exec(["systemctl", "mask", "--now", "--runtime", "runtools-display"])
            with RunTools(retry_seconds=0) as impatient, pytest.raises(errors.DesktopUnavailable):
                impatient.sandboxes.get(sandbox.id).desktop.screenshot()
            sandbox.exec(["systemctl", "unmask", "--runtime", "runtools-display"])
            sandbox.exec(["systemctl", "start", "runtools-display", "runtools-desktop"])
            eventually(lambda: sandbox.exec(["pgrep", "-x", "plank"]).exit_code == 0, 180)
            assert sandbox.desktop.screenshot().startswith(PNG)
