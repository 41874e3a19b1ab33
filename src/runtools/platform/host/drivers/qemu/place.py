"""What the driver keeps of one machine below its folder, and who may write it.

    vmm/             root's, 0700
      lock           held (flock) by the holder as long as it lives
      qmp            the VMM's control socket
      run.json       how the present or latest VMM was started
      state          devices of a suspended machine; it is complete when it is here
      state.json     the fingerprint that it was saved with
      initrd         what a cold boot begins with, while it begins
      start.log      what went wrong before the holder came up
      held/          root's, 0700: the holder's working folder
        pid exit console* messages*      see `holder`
      box/           the VMM user's, 0711: its working folder
        ram          the machine's memory

A VMM sees nothing of this but ``box`` and the files that are handed to it (`view`). Files in the box are
read with care: a guest that has taken its VMM over may have put links there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtools.platform.core.ports.driver import Machine
from runtools.platform.kit import files

_SMALL = 64 << 10
_CONSOLE = ("console.2", "console.1", "console")  # oldest first
_MESSAGES = ("messages.2", "messages.1", "messages")
_OF_THE_HOLDER = ("pid", "exit", *_MESSAGES, "console.pipe", "messages.pipe")
_OF_THE_VMM = ("state.new", "ram.new")


class Occupied(Exception):
    """Something of an earlier VMM of the machine is still there."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a VMM was started: what its saved states depend on, and whether its RAM is its own."""

    fingerprint: Mapping[str, str]
    private: bool


@dataclass(frozen=True, slots=True)
class Pids:
    """Who belongs to a VMM, as the holder wrote it down."""

    vmm: int
    holder: int


class Place:
    """The driver's files of one machine."""

    def __init__(self, machine: Machine) -> None:
        self.folder = machine.folder / "vmm"
        self.box = self.folder / "box"
        self.held = self.folder / "held"
        self.qmp = self.folder / "qmp"
        self.state = self.folder / "state"
        self.start_log = self.folder / "start.log"
        self._run = self.folder / "run.json"
        self._machine = machine

    @property
    def ram(self) -> Path:
        """The machine's own memory; not there while it runs on another's."""
        return self.box / "ram"

    @property
    def initrd(self) -> Path:
        """What a cold boot begins with, the boot's token in it."""
        return self.folder / "initrd"

    @property
    def console_pipe(self) -> Path:
        """Where the VMM writes its console, and its holder reads it."""
        return self.held / "console.pipe"

    @property
    def used_state(self) -> Path:
        """A saved state on which virtual CPUs are being let run."""
        return self.folder / "state.used"

    @property
    def fresh_state(self) -> Path:
        """Where the VMM writes its devices, before they count."""
        return self.box / "state.new"

    def make_folders(self) -> None:
        """Make the folders."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.held.mkdir(mode=0o700, exist_ok=True)
        self.box.mkdir(mode=0o700, exist_ok=True)
        os.chown(self.box, self._machine.uid, self._machine.uid)
        self.box.chmod(
            0o711
        )  # a holder, which is no root that may pass everywhere, begins the VMM there

    def prepare(self) -> None:
        """Make ready for a new VMM: take away what an earlier one left of itself (not what it saved)."""
        self.make_folders()
        for name in _OF_THE_HOLDER:
            (self.held / name).unlink(missing_ok=True)
        for name in _OF_THE_VMM:
            (self.box / name).unlink(missing_ok=True)
        self.start_log.unlink(missing_ok=True)
        self._turn_console()
        for name in ("console.pipe", "messages.pipe"):
            os.mkfifo(self.held / name, 0o600)
        # The VMM opens its console by name, to write it; its messages are handed to it open.
        os.chown(self.console_pipe, -1, self._machine.uid)
        self.console_pipe.chmod(0o620)

    def _turn_console(self) -> None:
        """Begin a new console file where the one that is there has some size."""
        older, old, present = (self.held / name for name in _CONSOLE)
        with contextlib.suppress(FileNotFoundError):
            if present.lstat().st_size > _SMALL:
                if old.exists():
                    old.rename(older)
                present.rename(old)

    def take(self) -> int:
        """The lock, as an open file that a new holder is to inherit.

        Raises:
            Occupied: an earlier one still has it.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(fd)
            raise Occupied(f"a VMM of {self._machine.id} is still there") from exc
        return fd

    def occupied(self) -> bool:
        """Whether a holder is there. A VMM that was taken over may be left without one."""
        if not self.folder.exists():
            return False
        try:
            os.close(self.take())
        except Occupied:
            return True
        return False

    def owner(self) -> int | None:
        """The user of the present or latest VMM, which a stray `Machine` need not know."""
        return owner(self._machine.folder)

    def pids(self) -> Pids | None:
        """What the holder wrote; None while it has not come that far."""
        words = self._told("pid").split()
        if len(words) != 2 or not all(word.isdigit() for word in words):
            return None
        return Pids(*(int(word) for word in words))

    def exit_status(self) -> int | None:
        """The VMM's exit status as a shell sees it, where the holder wrote it down."""
        text = self._told("exit").strip()
        return int(text) if text.isdigit() and len(text) <= 3 else None

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Open a plain file in the box, and nothing else that bears its name.

        Raises:
            OSError: it is not there, or it is a link, a pipe or a folder.
        """
        return self._open(self.box / name, flags)

    def open_state(self) -> int:
        """Open the saved devices, which the VMM wrote: nothing but a plain file.

        Raises:
            OSError: it is not there, or it is something else.
        """
        return self._open(self.state, os.O_RDONLY)

    def _open(self, path: Path, flags: int) -> int:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"{path.name} of {self._machine.id} is no plain file")
        return fd

    def _told(self, name: str, limit: int = _SMALL) -> str:
        """The end of a file of the holder; nothing where there is none."""
        try:
            fd = self._open(self.held / name, os.O_RDONLY)
        except OSError:
            return ""
        with os.fdopen(fd, "rb") as file:
            size = os.fstat(fd).st_size
            file.seek(max(0, size - limit))
            return file.read(limit).decode(errors="replace")

    def console(self, lines: int, limit: int = 1 << 20) -> list[str]:
        """The last lines of the console, oldest first."""
        text = "".join(self._told(name, limit) for name in _CONSOLE)
        return text[-limit:].replace("\r\n", "\n").splitlines()[-lines:]

    def messages(self) -> list[str]:
        """What the VMM, or what was to start it, said last."""
        said = "".join(self._told(name) for name in _MESSAGES)
        if self.start_log.exists():
            said += self.start_log.read_text(errors="replace")[-_SMALL:]
        return said.splitlines()

    def note_run(self, run: Run) -> None:
        """Write down how a VMM is about to be started."""
        facts = {"fingerprint": dict(run.fingerprint), "private": run.private}
        _write(self._run, facts)

    def run(self) -> Run:
        """How the present or latest VMM was started."""
        found = json.loads(self._run.read_text())
        return Run(found["fingerprint"], found["private"])

    def used(self) -> bool:
        """Whether a VMM was ever about to be started here."""
        return self._run.exists()

    def keep_state(self, fingerprint: Mapping[str, str]) -> None:
        """Declare that what the VMM has just saved is complete, with what it depends on."""
        _write(self.folder / "state.json", {"fingerprint": dict(fingerprint)})
        self.fresh_state.rename(self.state)

    def forget(self) -> None:
        """Take away memory, saved devices and console: another life begins."""
        for path in (self.state, self.used_state, self.ram, *(self.held / n for n in _CONSOLE)):
            path.unlink(missing_ok=True)

    def state_fingerprint(self) -> Mapping[str, str]:
        """What the saved state depends on."""
        found: Mapping[str, str] = json.loads((self.folder / "state.json").read_text())[
            "fingerprint"
        ]
        return found


def owner(folder: Path) -> int | None:
    """The user of the present or latest VMM in a machine's folder."""
    try:
        return (folder / "vmm/box").lstat().st_uid
    except FileNotFoundError:
        return None


def _write(path: Path, value: Mapping[str, object]) -> None:
    files.write_atomic(path, json.dumps(value).encode(), durable=False)
