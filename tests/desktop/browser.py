"""A real Chromium without a window, told what to do by its own protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import ClientConnection, connect

_SECONDS = 180.0  # what is asked of a page waits for one that a busy server has yet to build
_CODES = {"\n": "Enter", " ": "Space", "/": "Slash", ">": "Period"}


class Browser:
    """One page of a browser.

    Args:
        folder: where its profile lies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._socket: ClientConnection | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Browser:
        program = shutil.which("chromium")
        assert program, "chromium is not installed: ./dev desktop installs it"
        process = subprocess.Popen(
            [
                *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--remote-debugging-port=0", f"--user-data-dir={self._folder}"),
                *("--window-size=1400,900", "--disable-dev-shm-usage", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._stack.callback(process.wait, 30)
        self._stack.callback(process.terminate)
        told = self._folder / "DevToolsActivePort"
        deadline = time.monotonic() + _SECONDS
        while not (told.exists() and told.read_text().strip()):
            assert time.monotonic() < deadline, "the browser did not start"
            time.sleep(0.1)
        port = int(told.read_text().split()[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            [page] = [one for one in json.load(answer) if one["type"] == "page"]
        address = page["webSocketDebuggerUrl"]
        self._socket = self._stack.enter_context(connect(address, max_size=64 << 20))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """One command, and its result."""
        assert self._socket is not None
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv(timeout=_SECONDS))
            if said.get("id") == self._number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result

    def open(self, url: str) -> None:
        """Go to an address."""
        self.tell("Page.navigate", url=url)

    def value(self, script: str) -> Any:
        """What an expression is in the page."""
        return self.tell("Runtime.evaluate", expression=script, returnByValue=True)["result"].get(
            "value"
        )

    def click(self, x: float, y: float) -> None:
        """Press and let go of the left button."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            self.tell("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def press(self, text: str) -> None:
        """Press the keys of a text of small letters and what `_CODES` has; a line feed is Enter."""
        for letter in text:
            # A key without its place on the keyboard is none to the page's client.
            code = _CODES.get(letter, f"Key{letter.upper()}")
            number = 13 if letter == "\n" else ord(letter.upper())
            key = "Enter" if letter == "\n" else letter
            named = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            shown = "\r" if letter == "\n" else letter
            self.tell("Input.dispatchKeyEvent", type="keyDown", text=shown, **named)
            self.tell("Input.dispatchKeyEvent", type="keyUp", **named)

    def picture(self) -> bytes:
        """The page as it is, PNG."""
        return base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"])
