"""The process that runs a project's files and says what they define.

``python -P -m runtools.project.child ROOT FD`` writes lines of JSON to the open file FD: ``{"loading":
file}`` before each, then ``{"kind", "file", "line", "definition"}`` and ``{"problem": …}``, at last
``{"done": true}``. Asked by SIGUSR1 while it loads a file, it says where it is: ``{"at": [file, line]}``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType
from typing import TextIO

from runtools.project import actions, source
from runtools.project.define import Call, Collector, Tool
from runtools.project.folder import CONFIG, PLURALS, Folder, definition_files, find
from runtools.project.problems import Problem, of_call, of_failure, relative
from runtools.sdk.shapes.definitions import Definition, Kind, ToolDefinition, to_wire

_ORDER: tuple[Kind, ...] = ("tool", "sandbox", "agent")


class _Loader:
    def __init__(self, folder: Folder, out: TextIO) -> None:
        self._folder = folder
        self._out = out
        self._calls = Collector()
        self._claimed: set[str] = set()
        self._is_loading = False

    def run(self) -> None:
        kinds = [kind for kind in _ORDER if self._claim(kind)]
        with self._calls:
            for kind in kinds:
                for file in definition_files(self._folder.of(kind)):
                    self._say({"loading": relative(self._folder.root, str(file))})
                    self._load(kind, file)
        for call in sorted(self._calls.calls, key=lambda call: _ORDER.index(call.kind)):
            self._tell(call)
        self._say({"done": True})

    def _claim(self, kind: Kind) -> bool:
        """Have the name of a kind's folder stand for the folder, whatever is installed under that name.

        A folder without ``__init__.py`` would give way to any package that has one.
        """
        root, top = self._folder.root, self._folder.of(kind)
        word = top.relative_to(root).parts[0]
        if word in self._claimed or not top.is_dir():
            return True
        if word in sys.stdlib_module_names or word in sys.modules:
            text = f"Python or runtools itself has a module {word!r}: name the folder otherwise"
            self._problem(Problem(CONFIG, None, f"tool.runtools.folders.{PLURALS[kind]}", text))
            return False
        self._claimed.add(word)
        if not (root / word / "__init__.py").is_file():
            spec = ModuleSpec(word, None, is_package=True)
            spec.submodule_search_locations = [str(root / word)]
            sys.modules[word] = importlib.util.module_from_spec(spec)
        return True

    def _load(self, kind: Kind, file: Path) -> None:
        root = self._folder.root
        if not file.resolve().is_relative_to(root):
            self._problem(Problem(relative(root, str(file)), None, None, "it lies elsewhere"))
            return
        words = file.relative_to(root).with_suffix("").parts
        if any("." in word for word in words):
            text = "no module can have a dot in its name: name it otherwise"
            self._problem(Problem(relative(root, str(file)), None, None, text))
            return
        try:
            self._import(".".join(words))
        except BaseException as exc:  # noqa: BLE001 - exit() included: whatever it is, it is told
            if not any(call.error is exc for call in self._calls.calls):
                self._problem(of_failure(root, file, exc))
            return
        if not any(call.file == str(file) for call in self._calls.calls):
            place = relative(root, str(file))
            hint = f"it has no define_{kind}(…); helpers begin with an underscore"
            self._problem(Problem(place, None, None, hint))

    def _import(self, name: str) -> None:
        self._is_loading = True
        try:
            importlib.import_module(name)
        finally:
            self._is_loading = False

    def _tell(self, call: Call) -> None:
        root = self._folder.root
        if call.error is not None:
            for problem in of_call(root, call, call.error):
                self._problem(problem)
        elif not Path(call.file).is_relative_to(self._folder.of(call.kind)):
            wanted = relative(root, str(self._folder.of(call.kind)))
            text = f"define_{call.kind} belongs in {wanted}/"
            self._problem(Problem(relative(root, call.file), call.line, None, text))
        else:
            self._define(call)

    def _define(self, call: Call) -> None:
        root, value = self._folder.root, call.value
        try:
            definition = self._tool(call, value) if isinstance(value, Tool) else value
        except _Refused as exc:
            for problem in of_call(root, call, exc.error, exc.within):
                self._problem(problem)
            return
        assert definition is not None  # noqa: S101 - a call without an error has a value
        place = {"kind": call.kind, "file": relative(root, call.file), "line": call.line}
        self._say({**place, "definition": to_wire(definition)})

    def _tool(self, call: Call, tool: Tool) -> Definition:
        described = {}
        for name, action in tool.actions.items():
            try:
                described[name] = actions.described(action)
            except Exception as exc:  # theirs may raise anything when it is looked at
                raise _Refused(exc, ("actions", name)) from exc
        try:
            code = source.bundle(self._folder.root, Path(call.file))
            return ToolDefinition(**dict(tool.head), actions=described, source=code)
        except (ValueError, OSError) as exc:
            raise _Refused(exc) from None

    def say_where(self, _: int, frame: FrameType | None) -> None:
        """The line of the project that runs, if one does. Whatever else is said is said while none does."""
        root = self._folder.root
        while frame is not None and not Path(frame.f_code.co_filename).is_relative_to(root):
            frame = frame.f_back
        if frame is not None and self._is_loading:
            self._say({"at": [relative(root, frame.f_code.co_filename), frame.f_lineno]})

    def _problem(self, problem: Problem) -> None:
        self._say({"problem": problem.to_wire()})

    def _say(self, line: object) -> None:
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


class _Refused(Exception):
    def __init__(self, error: Exception, within: tuple[str, ...] = ()) -> None:
        super().__init__(str(error))
        self.error = error
        self.within = within


def main(root: str, fd: str) -> None:
    """Load the project at `root`."""
    folder = find(Path(root))
    sys.path.insert(0, str(folder.root))
    sys.dont_write_bytecode = True
    with os.fdopen(int(fd), "w") as out:
        loader = _Loader(folder, out)
        signal.signal(signal.SIGUSR1, loader.say_where)
        loader.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
