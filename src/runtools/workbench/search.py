"""Searching, for a model: files by name, lines by what they say. Both are ripgrep in the sandbox."""

from __future__ import annotations

from pydantic import Field

from runtools.sdk.shapes.inside import ExecResult
from runtools.workbench.bench import Bench, absolute
from runtools.workbench.cut import first_lines
from runtools.workbench.tool import Correctable, Parameters, Tool

_SECONDS = 60
_NOTHING, _SOME_UNREADABLE = 1, 2


class FileSearchParameters(Parameters):
    """Which names, and where."""

    pattern: str = Field(
        min_length=1, max_length=1000, description="A glob such as *.py or src/**/test_*.py."
    )
    path: str = Field("/workspace", min_length=1, max_length=4096, description="The folder.")


class GrepParameters(Parameters):
    """Which lines, and where."""

    pattern: str = Field(
        min_length=1, max_length=10_000, description="A regular expression as ripgrep takes it."
    )
    path: str = Field(
        "/workspace", min_length=1, max_length=4096, description="A folder or a file."
    )
    glob: str | None = Field(
        None, max_length=1000, description="Only files of such names, as in *.py."
    )
    ignore_case: bool = Field(False, description="Take capitals and small letters as the same.")
    fixed: bool = Field(False, description="The pattern is plain text, no regular expression.")
    context: int = Field(0, ge=0, le=20, description="How many lines around each to show.")


async def _file_search(bench: Bench, given: FileSearchParameters) -> str:
    path = absolute(given.path)
    words = ["rg", "--files", "--hidden", "--sortr=modified", f"--glob={given.pattern}"]
    found = await _run(bench, [*words, "--glob=!.git/", "--", path])
    if not found:
        return f"no file below {path} matches {given.pattern}; what .gitignore names is left out"
    return first_lines(found, bench.max_characters, "narrow the pattern or the path")


async def _grep(bench: Bench, given: GrepParameters) -> str:
    words = ["rg", "--line-number", "--no-heading", "--with-filename", "--color=never", "--hidden"]
    words += ["--max-columns=500", "--max-columns-preview"]
    if given.glob is not None:
        words.append(f"--glob={given.glob}")
    words.append("--glob=!.git/")  # the last one that matches decides
    if given.ignore_case:
        words.append("--ignore-case")
    if given.fixed:
        words.append("--fixed-strings")
    if given.context:
        words.append(f"--context={given.context}")
    path = absolute(given.path)
    found = await _run(bench, [*words, f"--regexp={given.pattern}", "--", path])
    if not found:
        return f"nothing below {path} matches; what .gitignore names and binary files are left out"
    return first_lines(found, bench.max_characters, "narrow the pattern, the path or the glob")


async def _run(bench: Bench, words: list[str]) -> list[str]:
    done = await bench.sandbox.exec(words, timeout_ms=_SECONDS * 1000)
    lines = _lines(done.stdout_bytes)
    if done.timed_out:
        raise Correctable(f"the search took more than {_SECONDS} s: narrow the path")
    # 2 is also said where a file of many could not be read: what was found is an answer all the same.
    if done.exit_code not in (0, _NOTHING) and not (done.exit_code == _SOME_UNREADABLE and lines):
        raise Correctable(_why(done))
    if done.truncated:
        lines.append("[the search found more than can be taken in: narrow it]")
    return lines


def _lines(output: bytes) -> list[str]:
    text = output.decode(errors="replace").removesuffix("\n")
    return text.split("\n") if text else []


def _why(done: ExecResult) -> str:
    if done.signal is not None:
        return f"the search was ended by signal {done.signal}"
    return (
        done.stderr_bytes.decode(errors="replace").strip()[:1000]
        or f"the search failed with exit code {done.exit_code}"
    )


FILE_SEARCH = Tool(
    "file_search",
    "Find files of the sandbox by a glob on their names, the newest first. What .gitignore names is left "
    "out.",
    FileSearchParameters,
    _file_search,
    changes=False,
)
GREP = Tool(
    "grep",
    "Search what files of the sandbox say, with ripgrep: file, line number and line of each match. What "
    ".gitignore names and binary files are left out.",
    GrepParameters,
    _grep,
    changes=False,
)
