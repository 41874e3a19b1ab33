"""Loading a project: its files run in a process of their own, which can neither hang nor end ours."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from runtools.errors import ProjectInvalid
from runtools.project.folder import CONFIG, PLURALS, Folder
from runtools.project.problems import Problem
from runtools.sdk.shapes.definitions import (
    DEFINITIONS,
    MAX_DEFINITIONS,
    Definition,
    Kind,
    kind_of,
)

LOAD_SECONDS = 30.0
# For the process to begin at all, which is no fault of the files; and to say where it is.
_BEGIN_SECONDS = 60.0
_TELL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Defined:
    """A definition and where it stands."""

    definition: Definition
    file: str
    line: int

    @property
    def kind(self) -> Kind:
        """What it defines."""
        return kind_of(self.definition)

    @property
    def slug(self) -> str:
        """What it is known by."""
        return self.definition.slug


def load(folder: Folder, seconds: float = LOAD_SECONDS) -> list[Defined]:
    """Run every file of a project and return what they define, tools and sandboxes before agents.

    What the files print goes to our stderr.

    Args:
        folder: the project.
        seconds: how long all of them together may take.

    Raises:
        ProjectInvalid: something is wrong with it; ``details["problems"]`` has each ``file``, ``line``,
            ``field`` and ``message``.
    """
    defined: list[Defined] = []
    problems: list[Problem] = []
    for said in _run(folder.root, seconds):
        if "problem" in said:
            problems.append(Problem(**said["problem"]))
        else:
            shape = DEFINITIONS[said["kind"]]
            definition = shape.model_validate(said["definition"])
            defined.append(Defined(definition, said["file"], said["line"]))
    problems += [*_twice(defined), *_too_many(folder, defined), *_missing(folder)]
    if problems:
        problems.sort(key=lambda problem: (problem.file, problem.line or 0))
        raise ProjectInvalid(
            "\n".join(map(str, problems)),
            details={"problems": [problem.to_wire() for problem in problems]},
        )
    return defined


def _twice(defined: list[Defined]) -> Iterator[Problem]:
    first: dict[tuple[Kind, str], Defined] = {}
    for one in defined:
        other = first.setdefault((one.kind, one.slug), one)
        if other is not one:
            field = "name" if one.kind == "tool" else "slug"
            message = f"{other.file}:{other.line} defines {one.kind} {one.slug!r} already"
            yield Problem(one.file, one.line, field, message)


def _too_many(folder: Folder, defined: list[Defined]) -> Iterator[Problem]:
    for kind, count in Counter(one.kind for one in defined).items():
        if count > MAX_DEFINITIONS:
            message = f"{count} definitions of one kind, more than {MAX_DEFINITIONS} of a project"
            yield Problem(f"{folder.of(kind).relative_to(folder.root)}/", None, None, message)


def _missing(folder: Folder) -> Iterator[Problem]:
    """A folder that is named and not there is a slip: what lies elsewhere would seem to be gone."""
    for kind, plural in PLURALS.items():
        top = folder.of(kind)
        if plural in folder.settings.folders.model_fields_set and not top.is_dir():
            name = top.relative_to(folder.root)
            yield Problem(CONFIG, None, f"tool.runtools.folders.{plural}", f"there is no {name}/")


def _run(root: Path, seconds: float) -> Iterator[dict[str, Any]]:
    """What the loading process says, line by line; a problem at the end if it does not come to its end."""
    reading, writing = os.pipe()
    words = [sys.executable, "-P", "-m", "runtools.project.child", str(root), str(writing)]
    with (
        os.fdopen(reading, "rb", buffering=0) as pipe,
        subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=[writing],
            start_new_session=True,
        ) as child,
    ):
        os.close(writing)
        at, line = "", None
        lines = _Lines(pipe.fileno(), monotonic() + _BEGIN_SECONDS)
        try:
            for said in lines:
                if "done" in said:
                    return
                if not at:
                    lines.deadline = monotonic() + seconds
                if "loading" in said:
                    at = said["loading"]
                else:
                    yield said
            how = _ended(child.wait(max(0.0, lines.deadline - monotonic())))
        except (TimeoutError, subprocess.TimeoutExpired):
            how = f"still runs after {seconds:g} s"
            at, line = _where(child, lines) or (at, None)
        finally:
            # Whatever the files started goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    yield {"problem": Problem(at or str(root), line, None, how).to_wire()}


def _where(child: subprocess.Popen[bytes], lines: _Lines) -> tuple[str, int] | None:
    """Which line of the project runs, where Python can tell it."""
    lines.deadline = monotonic() + _TELL_SECONDS
    child.send_signal(signal.SIGUSR1)
    with contextlib.suppress(TimeoutError):
        for said in lines:
            if "at" in said:
                file, line = said["at"]
                return file, line
    return None


def _ended(code: int) -> str:
    by = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"ended the process that loads it, with {by}"


class _Lines:
    """What the loading process says, until a deadline, which may be moved; TimeoutError then."""

    def __init__(self, fd: int, deadline: float) -> None:
        self.deadline = deadline
        self._fd = fd
        self._rest = b""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._fd, selectors.EVENT_READ)
            while True:
                left = self.deadline - monotonic()
                if left <= 0 or not selector.select(left):
                    raise TimeoutError
                piece = os.read(self._fd, 65536)
                if not piece:
                    return
                *lines, self._rest = (self._rest + piece).split(b"\n")
                yield from map(json.loads, lines)
