"""A talk with an agent at a terminal: what is typed while it works is said to it, and none is lost."""

from __future__ import annotations

import codecs
import os
import readline
import select
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from runtools.cli import output, words
from runtools.cli.sandbox import terminal
from runtools.errors import RunEnded, RunToolsError

_PROMPT: Final = "> "
_BACK, _RETURN = "\x7f\b", "\r\n"
_FORGET = "\x15"  # Ctrl-U, as at a prompt
_SHOWN = 200


class Typed:
    """What a person types. While a run is shown it is drawn below it; otherwise it is a line to edit.

    Attributes:
        text: what is typed and not said yet.
    """

    def __init__(self) -> None:
        self.text = ""
        self._late: list[str] = []  # said to a run that had ended by then
        self._keys = Keys()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What is typed so far."""
        if self.text:
            yield Text.assemble((_PROMPT, "cyan"), words.harmless(self.text[-_SHOWN:]))

    def message(self) -> str | None:
        """The next one; None: the person is done. What came too late for the run before it comes first."""
        if self._late:
            text, self._late = "\n".join(self._late), []
            output.note(f"{_PROMPT}{words.harmless(text)}")
            return text
        try:
            return self._line()
        except (EOFError, KeyboardInterrupt):
            output.note("")
            return None

    def finish(self, say: Callable[[str], object]) -> None:
        """Have a line that is begun finished and said, so that its end answers nothing that is asked."""
        if not self.text.strip():
            return
        output.note("first the line that you have begun:")
        try:
            text = self._line()
        except EOFError:
            return
        if text.strip():
            self._say(text, say)

    @contextmanager
    def heard(self, say: Callable[[str], object]) -> Iterator[None]:
        """Have each line said, as long as this lasts; the terminal shows keys no more by itself."""
        fd = sys.stdin.fileno()
        silent = termios.tcgetattr(fd)
        silent[3] &= ~(termios.ICANON | termios.ECHO)
        ended, end = os.pipe()
        thread = threading.Thread(target=self._hear, args=(fd, ended, say), daemon=True)
        with terminal.given_back(fd):
            termios.tcsetattr(fd, termios.TCSANOW, silent)
            thread.start()
            try:
                yield
            finally:
                os.write(end, b".")
                thread.join()
                os.close(ended)
                os.close(end)

    def _line(self) -> str:
        """A line, which begins with what is typed already."""
        begun, self.text = self.text, ""
        readline.set_startup_hook(lambda: readline.insert_text(begun))
        try:
            return input(_PROMPT)
        finally:
            readline.set_startup_hook(None)

    def _hear(self, fd: int, ended: int, say: Callable[[str], object]) -> None:
        while True:
            ready, _, _ = select.select([fd, ended], [], [])
            if fd not in ready:  # it has ended, and all that was typed until then is heard
                return
            try:
                typed = os.read(fd, 4096)
            except OSError:
                return
            if not typed:
                return
            for key in self._keys.of(typed):
                self._press(key, say)

    def _press(self, key: str, say: Callable[[str], object]) -> None:
        if key in _RETURN:
            text, self.text = self.text, ""
            if text.strip():
                self._say(text, say)
        elif key in _BACK:
            self.text = self.text[:-1]
        elif key == _FORGET:
            self.text = ""
        elif key.isprintable():
            self.text += key

    def _say(self, text: str, say: Callable[[str], object]) -> None:
        try:
            say(text)
        except RunEnded:
            self._late.append(text)
        except RunToolsError as error:
            self.text = text
            output.note(f"not said: {words.harmless(error.message)}")


class Keys:
    """The keys of what comes from a terminal: letters of any length, and no cursor keys and the like."""

    def __init__(self) -> None:
        self._letters = codecs.getincrementaldecoder("utf-8")("replace")
        self._escape = ""

    def of(self, typed: bytes) -> Iterator[str]:
        """Those of the next piece."""
        for key in self._letters.decode(typed):
            if self._escape:
                self._escape += key
                # ESC alone with a key; ESC O with one; ESC [ up to a letter or a tilde.
                head = self._escape[1]
                is_over = len(self._escape) > 2 if head == "O" else head != "["
                if is_over or (len(self._escape) > 2 and "@" <= key <= "~"):
                    self._escape = ""
            elif key == "\x1b":
                self._escape = key
            else:
                yield key
