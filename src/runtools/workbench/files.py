"""Files, for a model: reading with line numbers, writing, replacing a text, listing, deleting."""

from __future__ import annotations

import asyncio
import hashlib
import json

from pydantic import Field, model_validator

from runtools.errors import EditUnfit, FileIsDirectory, FileMissing, VersionMismatch
from runtools.sdk import pictures
from runtools.workbench.bench import Bench, absolute
from runtools.workbench.changes import changed, nearest
from runtools.workbench.cut import cut, first_lines
from runtools.workbench.tool import Correctable, Image, Parameters, Result, Tool

MAX_READ_BYTES = 8 * 1024 * 1024
_LOOK_BYTES = 8192
_MAX_PLACES = 10
_MAX_ENTRIES = 1000

Path = Field(min_length=1, max_length=4096, description="Absolute, or relative to /workspace.")


class ReadParameters(Parameters):
    """Which file, and which of its lines."""

    path: str = Path
    start_line: int = Field(1, ge=1, description="The first line to show.")
    end_line: int | None = Field(None, ge=1, description="The last one; default: as many as fit.")

    @model_validator(mode="after")
    def _in_order(self) -> ReadParameters:
        if self.end_line is not None and self.end_line < self.start_line:
            raise ValueError("end_line comes before start_line")
        return self


class WriteParameters(Parameters):
    """A file and all that is to be in it."""

    path: str = Path
    content: str = Field(description="The whole content; an existing file is replaced.")


class EditParameters(Parameters):
    """One text in a file, and what is to stand in its place."""

    path: str = Path
    old: str = Field(min_length=1, description="The exact text to replace, white space included.")
    new: str = Field(description="What stands there afterwards.")
    replace_all: bool = Field(
        False, description="Replace every occurrence; else it must be unique."
    )

    @model_validator(mode="after")
    def _changes(self) -> EditParameters:
        if self.old == self.new:
            raise ValueError("old and new are the same: nothing would change")
        return self


class DeleteParameters(Parameters):
    """What goes."""

    path: str = Path
    recursive: bool = Field(False, description="Also a folder with everything in it.")


class ListParameters(Parameters):
    """Which folder, and how deep."""

    path: str = Field("/workspace", min_length=1, max_length=4096, description="The folder.")
    depth: int = Field(1, ge=1, le=10, description="1: only what lies directly in it.")


async def _bytes(bench: Bench, path: str) -> bytes:
    try:
        return await bench.sandbox.files.read(path, end=MAX_READ_BYTES + 1)
    except FileIsDirectory:
        raise Correctable(f"{path} is a folder: use list_directory") from None


async def _text(bench: Bench, path: str) -> str:
    """The text of a file that a model can work with."""
    return _decoded(path, await _bytes(bench, path))


def _decoded(path: str, data: bytes) -> str:
    if len(data) > MAX_READ_BYTES:
        raise Correctable(
            f"{path} has more than {MAX_READ_BYTES} bytes, too many for this tool: look into it with bash "
            "(sed -n '1,200p', head, tail) or grep"
        )
    try:
        if b"\0" in data[:_LOOK_BYTES]:
            raise ValueError
        return data.decode()
    except ValueError:
        raise Correctable(
            f"{path} is binary ({len(data)} bytes): use bash with file, xxd or a program that reads it"
        ) from None


def _picture(path: str, data: bytes) -> Result | None:
    """A picture that a model can be shown."""
    kind = pictures.kind_of(data)
    if kind is None:
        return None
    if (wrong := pictures.fault(data)) is not None:
        raise Correctable(f"{path} {wrong}: make another of it with bash")
    return Result(f"{path}: {kind}, {len(data)} bytes", images=(Image(kind, data),))


async def _read(bench: Bench, given: ReadParameters) -> str | Result:
    path = absolute(given.path)
    data = await _bytes(bench, path)
    if bench.sees and (picture := _picture(path, data)) is not None:
        return picture
    text = _decoded(path, data)
    if not text:
        return f"[{path} is empty]"
    lines = _lines(text)
    if given.start_line > len(lines):
        raise Correctable(f"{path} has {len(lines)} lines; start_line is beyond them")
    wanted = lines[given.start_line - 1 : given.end_line]
    numbered = [f"{n:>6}\t{line}" for n, line in enumerate(wanted, given.start_line)]
    shown = first_lines(
        numbered, bench.max_characters, "start_line goes on from the last one shown"
    )
    last = given.start_line + len(wanted) - 1
    if last < len(lines):
        shown += f"\n[{path} has {len(lines)} lines]"
    return shown


async def _write(bench: Bench, given: WriteParameters) -> str:
    path = absolute(given.path)
    try:
        before = (await bench.sandbox.files.stat(path)).size
    except FileMissing:
        before = None
    entry = await bench.sandbox.files.write(path, given.content, idempotency_key=bench.key("write"))
    if bench.begun:  # what was there before is not to be known any more
        return f"{path}: written, {entry.size} bytes"
    what = "made" if before is None else f"replaced ({before} bytes before)"
    return f"{path}: {what}, {entry.size} bytes"


async def _edit(bench: Bench, given: EditParameters) -> str:
    path = absolute(given.path)
    before = await _text(bench, path)
    if bench.begun and (once := await _edited(bench, path, before)) is not None:
        return once
    after, said = await asyncio.to_thread(_replaced, path, before, given, bench.max_characters)
    if bench.act is not None:
        note = {"before": _digest(before), "after": _digest(after), "said": said}
        await bench.sandbox.files.write(bench.file(f"edits/{bench.act}"), json.dumps(note))
    try:
        await bench.sandbox.files.edit(
            path,
            given.old,
            given.new,
            occurrences=before.count(given.old),
            idempotency_key=bench.key("edit"),
        )
    except EditUnfit:
        raise Correctable(
            f"{path} was changed meanwhile, nothing is replaced: read it again"
        ) from None
    except VersionMismatch:  # of a template from before there were edits
        await bench.sandbox.files.write(path, after)
    return said


def _replaced(path: str, before: str, given: EditParameters, most: int) -> tuple[str, str]:
    """The text afterwards, and what is said of it. In a thread: others wait for the loop."""
    count = before.count(given.old)
    if count == 0:
        raise Correctable(f"{path} does not hold that text{nearest(before, given.old)}")
    if count > 1 and not given.replace_all:
        raise Correctable(
            f"that text stands {count} times in {path} ({_places(before, given.old)}): add lines around "
            "it until it is unique, or set replace_all"
        )
    size = len(before.encode()) + count * (len(given.new.encode()) - len(given.old.encode()))
    if size > MAX_READ_BYTES:
        raise Correctable(
            f"{path} would have {size} bytes afterwards; this tool writes at most {MAX_READ_BYTES}"
        )
    after = before.replace(given.old, given.new)
    diff = changed(before, given.old, given.new, most)
    shown = cut(diff, most, "read_file shows the file as it is now")
    return after, f"{path}: {count} replaced\n{shown}"


async def _edited(bench: Bench, path: str, now: str) -> str | None:
    """What was said of this edit, where it was made before; None: it was not."""
    try:
        note = json.loads(await bench.sandbox.files.read(bench.file(f"edits/{bench.act}")))
        before, after, said = note["before"], note["after"], str(note["said"])
    except (FileMissing, ValueError, KeyError, TypeError):
        return None
    if _digest(now) in (before, after):
        return said if _digest(now) == after else None
    raise Correctable(f"{path} was changed meanwhile: read_file shows whether this edit is in it")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _lines(text: str) -> list[str]:
    """As editors and compilers count them; `str.splitlines` knows eleven kinds of line ends."""
    return text.removesuffix("\n").split("\n")


def _places(text: str, old: str) -> str:
    at = text.find(old)
    lines: list[int] = []
    while at >= 0 and len(lines) <= _MAX_PLACES:
        lines.append(text.count("\n", 0, at) + 1)
        at = text.find(old, at + len(old))
    shown = ", ".join(map(str, lines[:_MAX_PLACES]))
    return f"lines {shown}{' …' if len(lines) > _MAX_PLACES else ''}"


async def _delete(bench: Bench, given: DeleteParameters) -> str:
    path = absolute(given.path)
    key = bench.key("delete")
    await bench.sandbox.files.remove(path, recursive=given.recursive, idempotency_key=key)
    return f"{path} is deleted"


async def _list(bench: Bench, given: ListParameters) -> str:
    path = absolute(given.path)
    listing = await bench.sandbox.files.list(path, depth=given.depth)
    entries = listing.entries[:_MAX_ENTRIES]
    base = path.rstrip("/") + "/"
    lines: list[str] = []
    for entry in entries:
        name = entry.path.removeprefix(base)
        if entry.kind == "directory":
            lines.append(f"{name}/")
        elif entry.kind == "symlink":
            lines.append(f"{name} -> {entry.target}")
        else:
            lines.append(f"{name}  {entry.size} bytes")
    if not lines:
        return f"[{path} is empty]"
    if listing.truncated or len(listing.entries) > len(entries):
        lines.append("[there is more; list a folder below, or use file_search]")
    return first_lines(lines, bench.max_characters, "list a folder below, or use file_search")


READ_FILE = Tool(
    "read_file",
    "Read a text file of the sandbox with line numbers. Long files are shown from start_line on as far as "
    "they fit. Fails for folders, binary files and files of more than 8 MiB.",
    ReadParameters,
    _read,
    changes=False,
)
WRITE_FILE = Tool(
    "write_file",
    "Write a file of the sandbox; folders above it are made, an existing file is replaced whole. To change "
    "a part of one use edit_file.",
    WriteParameters,
    _write,
)
EDIT_FILE = Tool(
    "edit_file",
    "Replace one exact text in a file by another. Fails, and says why, where the text is not there or "
    "stands there more than once. Returns the difference. Leave out the line numbers of read_file.",
    EditParameters,
    _edit,
)
DELETE_FILE = Tool(
    "delete_file",
    "Delete a file, an empty folder, or with recursive: true a folder with everything in it.",
    DeleteParameters,
    _delete,
    loses=True,
)
LIST_DIRECTORY = Tool(
    "list_directory",
    "List a folder of the sandbox: folders end in /, files have their size.",
    ListParameters,
    _list,
    changes=False,
)
