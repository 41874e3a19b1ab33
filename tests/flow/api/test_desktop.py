"""Desktops through the api: what is run in the sandbox for each act, and what is refused before that."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from runtools import AsyncRunTools, errors
from runtools.platform.api.desktop.service import ENVIRONMENT
from runtools.platform.api.idempotency import edge
from runtools.sdk.sandbox import AsyncSandbox
from runtools.sdk.shapes.desktop import MAX_CLIPBOARD_BYTES
from runtools.sdk.shapes.inside import ExecRequest, ExecResult
from runtools.testing.api_world import World, holds
from runtools.testing.fake_worker import fake_worker
from runtools.testing.run_stage import Stage
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.records import deployed
from runtools.workbench.bench import Bench
from runtools.workbench.desktop import DESKTOP
from runtools.workbench.tool import Result

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
SCREEN = "1280 800\nX=10\nY=20\nSCREEN=0\nWINDOW=5\n"
TERMINAL = {
    "id": 7,
    "title": "Terminal",
    "application": "Xfce4-terminal",
    "x": -4,
    "y": 30,
    "width": 640,
    "height": 480,
    "active": True,
    "minimized": False,
}


def ended(
    order: ExecRequest, stdout: bytes = b"", stderr: str = "", code: int | None = 0, **more: Any
) -> ExecResult:
    assert order.process_id is not None
    plain: dict[str, Any] = {
        "process_id": order.process_id,
        "stdout": base64.b64encode(stdout).decode(),
        "stderr": base64.b64encode(stderr.encode()).decode(),
        "encoding": "base64",
        "exit_code": code,
        "signal": None,
        "duration_ms": 1.0,
        "timed_out": False,
        "truncated": False,
    }
    return ExecResult(**(plain | more))


class Machine:
    """Plays the inside of a desktop: notes what is run, and answers as the programs there do."""

    def __init__(self) -> None:
        self.run: list[ExecRequest] = []
        self.answers: dict[str, ExecResult | Exception | dict[str, Any]] = {}
        self.clipboard = b""

    def script(self, order: ExecRequest) -> ExecResult:
        assert isinstance(order.command, list)
        name = order.command[0].rpartition("/")[2]
        self.run.append(order)
        said = self.answers.get(name)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, dict):
            return ended(order, **said)
        if "getdisplaygeometry" in order.command:
            return ended(order, SCREEN.encode())
        if name == "scrot":
            return ended(order, PICTURE)
        if name == "windows":
            return ended(order, json.dumps([TERMINAL]).encode())
        if name == "xclip" and "-in" in order.command:
            self.clipboard = base64.b64decode(order.stdin or "")
        elif name == "xclip":
            return ended(order, self.clipboard)
        return ended(order)

    @property
    def acts(self) -> list[list[str]]:
        """What was run, but for the looks at the screen."""
        commands = [one.command for one in self.run if isinstance(one.command, list)]
        return [one for one in commands if "getdisplaygeometry" not in one]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest_asyncio.fixture
async def rt(world: World) -> AsyncIterator[AsyncRunTools]:
    async with AsyncRunTools(api_key=world.key, url=world.url, retry_seconds=0) as made:
        yield made


@pytest_asyncio.fixture
async def box(world: World, rt: AsyncRunTools, machine: Machine) -> AsyncSandbox:
    """A sandbox with a desktop."""
    await world.build("desktop-debian")
    world.host.script = machine.script
    return await rt.sandboxes.create("desktop-debian")


async def refused(
    box: AsyncSandbox, what: str, body: dict[str, Any], http: httpx.AsyncClient
) -> dict[str, Any]:
    answer = await http.post(f"/v1/sandboxes/{box.id}/desktop/{what}", json=body)
    assert answer.status_code in (400, 413), answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


class TestLooks:
    async def test_the_screen(self, box: AsyncSandbox, machine: Machine) -> None:
        screen = await box.desktop.screen()
        assert (screen.width, screen.height, screen.x, screen.y) == (1280, 800, 10, 20)
        assert screen.port == 6901
        [order] = machine.run
        assert (order.user, order.env, order.cwd) == ("desktop", dict(ENVIRONMENT), "/")

    async def test_a_picture_is_the_bytes_that_came(
        self, box: AsyncSandbox, world: World, machine: Machine
    ) -> None:
        assert await box.desktop.screenshot() == PICTURE
        # Its program opens the pipe by name, which only the pipe's own user may.
        assert machine.run[-1].user == "root"
        answer = await world.http.get(f"/v1/sandboxes/{box.id}/desktop/screenshot")
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"

    async def test_what_is_no_picture_is_not_passed_on(
        self, box: AsyncSandbox, machine: Machine
    ) -> None:
        machine.answers["scrot"] = {"stdout": b"<script>alert(1)</script>"}
        with pytest.raises(errors.GuestMisbehaved):
            await box.desktop.screenshot()

    async def test_half_a_picture_is_none(self, box: AsyncSandbox, machine: Machine) -> None:
        machine.answers["scrot"] = {"stdout": PICTURE, "truncated": True}
        with pytest.raises(errors.TooLarge):
            await box.desktop.screenshot()

    async def test_the_windows(self, box: AsyncSandbox) -> None:
        [window] = await box.desktop.windows()
        assert (window.title, window.application, window.active) == (
            "Terminal",
            "Xfce4-terminal",
            True,
        )
        assert (window.x, window.y, window.width, window.height) == (-4, 30, 640, 480)

    async def test_windows_that_are_none(self, box: AsyncSandbox, machine: Machine) -> None:
        for said in (b"", b"[{}]", b'{"id": 1}', b"\xff"):
            machine.answers["windows"] = {"stdout": said}
            with pytest.raises(errors.GuestMisbehaved):
                await box.desktop.windows()

    async def test_a_screen_that_is_none(self, box: AsyncSandbox, machine: Machine) -> None:
        for said in (b"", b"0 0\nX=1\nY=1\n", b"9 9", b"99999 1\nX=1\nY=1\n"):
            machine.answers["xdotool"] = {"stdout": said}
            with pytest.raises(errors.GuestMisbehaved):
                await box.desktop.screen()


class TestPointer:
    async def test_acts_are_argument_lists(self, box: AsyncSandbox, machine: Machine) -> None:
        desk = box.desktop
        await desk.move(0, 799)
        await desk.click(5, 6)
        await desk.click(button="right", count=2)
        await desk.drag(1, 2, 101, 202)
        await desk.scroll(3, x=7, y=8)
        await desk.scroll(-2, -1)
        click = ["click", "--repeat"]
        assert machine.acts == [
            ["xdotool", "mousemove", "0", "799"],
            ["xdotool", "mousemove", "5", "6", *click, "1", "--delay", "60", "1"],
            ["xdotool", *click, "2", "--delay", "60", "3"],
            [
                *("xdotool", "mousemove", "1", "2", "mousedown", "1", "sleep", "0.1"),
                *("mousemove", "51", "102", "sleep", "0.1"),
                *("mousemove", "101", "202", "sleep", "0.1", "mouseup", "1"),
            ],
            ["xdotool", "mousemove", "7", "8", *click, "3", "--delay", "20", "5"],
            [
                *("xdotool", *click, "2", "--delay", "20", "4"),
                *(*click, "1", "--delay", "20", "6"),
            ],
        ]

    async def test_off_the_screen(self, box: AsyncSandbox, machine: Machine) -> None:
        for x, y in ((1280, 0), (0, 800), (65535, 65535)):
            for act in (
                box.desktop.move(x, y),
                box.desktop.click(x, y),
                box.desktop.drag(1, 1, x, y),
                box.desktop.drag(x, y, 1, 1),
                box.desktop.scroll(1, x=x, y=y),
            ):
                with pytest.raises(errors.OffScreen) as caught:
                    await act
                assert caught.value.details == {"x": x, "y": y, "width": 1280, "height": 800}
        assert machine.acts == []

    async def test_half_a_place(self, box: AsyncSandbox, world: World) -> None:
        for what, more in (("click", {}), ("scroll", {"down": 1})):
            error = await refused(box, what, {"x": 1, **more}, world.http)
            assert error["details"]["fields"][0]["field"] == "y"

    async def test_a_repeat_clicks_once(self, box: AsyncSandbox, machine: Machine) -> None:
        for _ in range(2):
            await box.desktop.click(1, 1, idempotency_key="k1")
        assert len(machine.acts) == 1

    async def test_what_was_done_is_not_done_again_after_a_lost_answer(
        self, box: AsyncSandbox, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The answer got lost before it was kept: the sandbox knows the act by its id."""

        def lost(point: str) -> None:
            if point == "api.idempotency.answered":
                raise ConnectionError("killed here")

        monkeypatch.setattr(edge, "reach", lost)
        for _ in range(2):
            await box.desktop.type("once", idempotency_key="k2")
        assert len(machine.acts) == 1
        await box.desktop.type("once", idempotency_key="k3")
        assert len(machine.acts) == 2


class TestKeys:
    async def test_a_text_goes_by_stdin(self, box: AsyncSandbox, machine: Machine) -> None:
        await box.desktop.type("-n Hello\tto $HOME\n")
        order = machine.run[-1]
        assert order.command == ["xdotool", "type", "--delay", "8", "--file", "-"]
        assert base64.b64decode(order.stdin or "").decode() == "-n Hello\tto $HOME\n"

    async def test_control_characters_are_refused(
        self, box: AsyncSandbox, machine: Machine
    ) -> None:
        for text in ("a\x1bb", "\0", "\r", "\x7f", "\x85"):
            with pytest.raises(errors.InvalidRequest, match="control character"):
                await box.desktop.type(text)
        assert machine.run == []

    async def test_letters_that_are_on_no_key_are_refused(
        self, box: AsyncSandbox, machine: Machine
    ) -> None:
        for text in ("Grüße", "你好", "5 €"):
            with pytest.raises(errors.InvalidRequest, match="on no key") as caught:
                await box.desktop.type(text)
            assert "clipboard" in (caught.value.hint or "")
        assert machine.run == []

    async def test_too_long_a_text(self, box: AsyncSandbox, world: World) -> None:
        error = await refused(box, "type", {"text": "x" * 4001}, world.http)
        assert error["code"] == "invalid_request"

    async def test_chords(self, box: AsyncSandbox, machine: Machine) -> None:
        await box.desktop.keys("ctrl+shift+t", "enter")
        assert machine.acts == [["xdotool", "key", "--delay", "20", "ctrl+shift+t", "Return"]]

    async def test_an_unknown_key_is_named(self, box: AsyncSandbox, machine: Machine) -> None:
        with pytest.raises(errors.InvalidRequest, match="no key warp") as caught:
            await box.desktop.keys("enter", "ctrl+warp")
        assert caught.value.details["fields"][0]["field"] == "keys.1"
        assert machine.run == []


class TestClipboard:
    async def test_there_and_back(self, box: AsyncSandbox, machine: Machine) -> None:
        await box.desktop.set_clipboard("one\ntwo ✓")
        assert machine.acts[-1] == ["xclip", "-selection", "clipboard", "-in"]
        assert await box.desktop.clipboard() == "one\ntwo ✓"

    async def test_an_empty_one(self, box: AsyncSandbox, machine: Machine) -> None:
        stderr = "Error: target UTF8_STRING not available\n"
        machine.answers["xclip"] = {"stderr": stderr, "code": 1}
        assert await box.desktop.clipboard() == ""

    async def test_too_much_either_way(self, box: AsyncSandbox, machine: Machine) -> None:
        with pytest.raises(errors.TooLarge, match="the clipboard takes"):
            await box.desktop.set_clipboard("ä" * (MAX_CLIPBOARD_BYTES // 2 + 1))
        assert machine.run == []
        machine.answers["xclip"] = {"stdout": b"x", "truncated": True}
        with pytest.raises(errors.TooLarge, match="holds more"):
            await box.desktop.clipboard()


class TestOpen:
    async def test_an_address(self, box: AsyncSandbox, machine: Machine) -> None:
        await box.desktop.open("https://example.org/a?b=c#d")
        assert machine.acts == [["setsid", "--fork", "firefox-esr", "https://example.org/a?b=c#d"]]

    async def test_what_is_no_address(self, box: AsyncSandbox, machine: Machine) -> None:
        for url in (
            *("--help", "file:///etc/passwd", "javascript:alert(1)", "about:config", "//x"),
            *("https://", "http://a b", "http://a\nb", "http://x:99999/", "chrome://settings"),
        ):
            with pytest.raises(errors.InvalidRequest):
                await box.desktop.open(url)
        assert machine.run == []


class TestNone:
    async def test_a_sandbox_without_one(self, world: World, rt: AsyncRunTools) -> None:
        box = await rt.sandboxes.create()
        await box.pause()
        with pytest.raises(errors.NoDesktop, match="base-debian, which has no desktop"):
            await box.desktop.screenshot()
        assert (await box.refresh()).state == "paused"  # it was not woken for nothing

    async def test_own_templates_of_the_recipe_have_one(
        self, world: World, rt: AsyncRunTools, machine: Machine
    ) -> None:
        await world.build("mine", recipe="desktop-debian", apt=["gimp"])
        world.host.script = machine.script
        box = await rt.sandboxes.create("mine")
        assert (await box.desktop.screen()).width == 1280
        assert box.memory_mb == 2048

    async def test_one_that_does_not_answer(self, box: AsyncSandbox, machine: Machine) -> None:
        for answer in (
            {"stderr": "Error: Can't open display: (null)\n\x1b[31mred\n", "code": 1},
            errors.InvalidRequest("there is no user 'desktop' inside"),
            errors.FileMissing("no program xdotool"),
        ):
            machine.answers["xdotool"] = answer
            for act in (
                box.desktop.screenshot(),
                box.desktop.click(1, 1),
                box.desktop.set_clipboard("x"),
                box.desktop.open("https://example.org"),
            ):
                with pytest.raises(errors.DesktopUnavailable) as caught:
                    await act
                assert "\x1b" not in caught.value.message
        assert machine.acts == []  # nothing was begun

    async def test_one_that_hangs(self, box: AsyncSandbox, machine: Machine) -> None:
        machine.answers["xclip"] = {"code": None, "signal": 9, "timed_out": True}
        with pytest.raises(errors.DeadlineExceeded):
            await box.desktop.clipboard()

    async def test_one_that_has_ended(self, box: AsyncSandbox) -> None:
        await box.destroy()
        with pytest.raises(errors.SandboxStopped):
            await box.desktop.screenshot()

    async def test_a_paused_one_is_woken(self, box: AsyncSandbox, world: World) -> None:
        await box.pause()
        assert await box.desktop.screenshot() == PICTURE
        await world.becomes(box.id, state="running")


class TestWho:
    def asks(self, ref: str) -> Iterable[tuple[str, str, Any]]:
        path = f"/v1/sandboxes/{ref}/desktop"
        yield from (
            ("GET", path + end, None) for end in ("", "/screenshot", "/clipboard", "/windows")
        )
        yield "POST", f"{path}/move", {"x": 1, "y": 1}
        yield "POST", f"{path}/click", {}
        yield "POST", f"{path}/drag", {"x": 1, "y": 1, "toX": 2, "toY": 2}
        yield "POST", f"{path}/scroll", {"down": 1}
        yield "POST", f"{path}/type", {"text": "x"}
        yield "POST", f"{path}/keys", {"keys": ["a"]}
        yield "POST", f"{path}/clipboard", {"text": "x"}
        yield "POST", f"{path}/open", {"url": "https://example.org"}

    async def test_a_stranger_finds_nothing(
        self, box: AsyncSandbox, world: World, machine: Machine
    ) -> None:
        async with await world.stranger() as stranger:
            theirs = [await stranger.request(m, p, json=b) for m, p, b in self.asks(box.id)]
            nobodys = [
                await stranger.request(m, p, json=b)
                for m, p, b in self.asks("sandbox-zzzzzzzzzzzz")
            ]
        for one, none in zip(theirs, nobodys, strict=True):
            assert one.status_code == none.status_code == 404
            assert one.json()["error"]["message"] == none.json()["error"]["message"].replace(
                "sandbox-zzzzzzzzzzzz", box.id
            )
        assert machine.run == []

    async def test_a_key_that_may_look_may_not_act(self, box: AsyncSandbox, world: World) -> None:
        body = {"name": "looks", "scopes": ["sandbox:read"]}
        key = (await world.http.post("/v1/api-keys", json=body)).json()["data"]["key"]
        async with AsyncRunTools(api_key=key, url=world.url, retry_seconds=0) as rt:
            desk = (await rt.sandboxes.get(box.id)).desktop
            assert await desk.screenshot() == PICTURE
            with pytest.raises(errors.Forbidden):
                await desk.click(1, 1)

    async def test_what_is_typed_is_in_no_audit_line(self, box: AsyncSandbox, world: World) -> None:
        await box.desktop.type("hunter2-typed")
        await box.desktop.set_clipboard("hunter2-held")
        lines: list[Any] = []

        async def both() -> bool:
            lines[:] = (await world.http.get("/v1/audit?limit=100")).json()["data"]
            return {"desktop.type", "desktop.fill_clipboard"} <= {one["action"] for one in lines}

        await holds(both)
        assert "hunter2" not in json.dumps(lines)


class TestAgents:
    async def test_a_run_is_told_whether_its_sandbox_has_one(
        self, box: AsyncSandbox, world: World
    ) -> None:
        org = Org(world, world.org, "amber", world.http)
        sandboxes = [{"slug": "desk", "template": "desktop-debian"}, {"slug": "plain"}]
        agents = [
            {"slug": "free", "name": "A", "model": "demo"},
            {"slug": "at-desk", "name": "A", "model": "demo", "sandbox": "desk"},
            {"slug": "at-plain", "name": "A", "model": "demo", "sandbox": "plain"},
        ]
        await deployed(org, sandboxes=sandboxes, agents=agents)
        plain = await world.create()
        async with fake_worker(world.url, world.token("worker"), slots=50) as worker:
            stage = Stage(world, org, worker)
            for agent, sandbox_id, has in (
                ("free", None, False),
                ("free", box.id, True),
                ("free", plain["id"], False),
                ("at-desk", None, True),
                ("at-plain", None, False),
            ):
                more = {} if sandbox_id is None else {"sandboxId": sandbox_id}
                run, given = await stage.taken(agent=agent, **more)
                assert given.has_desktop is has, (agent, sandbox_id)
                await worker.finish(run)

    async def test_tools_of_models(self, box: AsyncSandbox, machine: Machine) -> None:
        machine.answers["scrot"] = {"stdout": png(2, 2)}

        async def call(name: str, **given: Any) -> Result:
            return await DESKTOP[name].call(
                Bench(box, "talk", act=f"run_1.{name}", sees=True), given
            )

        seen = await call("desktop_screenshot")
        assert seen.text == "1280 x 800 pixels, the pointer is at (10, 20)"
        [image] = seen.images
        assert (image.media_type, image.data) == ("image/png", png(2, 2))
        assert (await call("desktop_click", x=5, y=6)).text == "clicked"
        for _ in range(2):  # made again after a crash
            assert not (await call("desktop_type", text="hi")).failed
        assert len([one for one in machine.acts if "type" in one]) == 1
        windows = await call("desktop_windows")
        assert windows.text == "Terminal (Xfce4-terminal) 640 x 480 at (-4, 30), active"
        off = await call("desktop_move", x=9000, y=1)
        assert off.failed
        assert "off_screen" in off.text
        assert (await call("desktop_keys", keys=["hyperspace"])).failed
        blind = await DESKTOP["desktop_screenshot"].call(Bench(box, "talk"), {})
        assert blind.failed

    async def test_what_is_no_whole_picture_is_shown_to_no_model(
        self, box: AsyncSandbox, machine: Machine
    ) -> None:
        machine.answers["scrot"] = {"stdout": PICTURE}
        result = await DESKTOP["desktop_screenshot"].call(Bench(box, "talk", sees=True), {})
        assert result.failed
        assert result.images == ()


def png(width: int, height: int) -> bytes:
    """A black picture."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return len(data).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes((8, 0, 0, 0, 0))
    rows = zlib.compress(bytes(width + 1) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


async def test_memory_is_what_a_desktop_needs(box: AsyncSandbox, rt: AsyncRunTools) -> None:
    assert box.memory_mb == 2048
    assert (await rt.sandboxes.create()).memory_mb == 1024
    assert (await rt.sandboxes.create("desktop-debian", memory_mb=1536)).memory_mb == 1536
