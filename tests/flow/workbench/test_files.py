"""Files for a model: what it is shown, and what it is told where something cannot be done."""

from __future__ import annotations

import pytest
from tests.flow.workbench.conftest import Call

from runtools.workbench.bench import Bench
from runtools.workbench.files import MAX_READ_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def at(request: pytest.FixtureRequest) -> str:
    """A path of the test's own."""
    return f"/workspace/{abs(hash(request.node.nodeid))}/file.txt"


class TestRead:
    async def test_lines_are_numbered(self, call: Call, bench: Bench, at: str) -> None:
        await bench.sandbox.files.write(at, "one\ntwo\x0cstill two\n\nfour\n")
        result = await call("read_file", path=at)
        assert result.text == "     1\tone\n     2\ttwo\x0cstill two\n     3\t\n     4\tfour"

    async def test_a_range(self, call: Call, bench: Bench, at: str) -> None:
        await bench.sandbox.files.write(at, "\n".join(map(str, range(1, 101))))
        result = await call("read_file", path=at, start_line=98, end_line=99)
        assert result.text == f"    98\t98\n    99\t99\n[{at} has 100 lines]"
        beyond = await call("read_file", path=at, start_line=101)
        assert beyond.failed
        assert "has 100 lines" in beyond.text

    async def test_a_long_one_is_shown_as_far_as_it_fits(
        self, call: Call, bench: Bench, at: str
    ) -> None:
        await bench.sandbox.files.write(at, "word\n" * 1000)
        result = await call("read_file", path=at)
        shown = result.text.count("\tword")
        assert f"[{1000 - shown} more lines; start_line goes on" in result.text
        assert len(result.text) < 2300

    async def test_of_a_long_line_is_said_how_much_is_missing(
        self, call: Call, bench: Bench, at: str
    ) -> None:
        await bench.sandbox.files.write(at, "x" * 10_000 + "\nlast")
        result = await call("read_file", path=at)
        missing = 10_000 - result.text.count("x")
        assert f"[{missing} characters of this line left out here; bash with cut -c" in result.text
        assert "[1 more lines; start_line goes on" in result.text

    async def test_what_cannot_be_read_says_why(self, call: Call, bench: Bench, at: str) -> None:
        await bench.sandbox.files.write(at, b"\x7fELF\0\1")
        assert "is binary (6 bytes)" in (await call("read_file", path=at)).text
        await bench.sandbox.files.write(at, b"\xff\xfe")
        assert "is binary" in (await call("read_file", path=at)).text
        assert "use list_directory" in (await call("read_file", path="/workspace")).text
        assert "file_missing" in (await call("read_file", path="none/such")).text
        await bench.sandbox.files.write(at, b"x" * (MAX_READ_BYTES + 1))
        assert "too many for this tool" in (await call("read_file", path=at)).text
        await bench.sandbox.files.write(at, b"")
        assert (await call("read_file", path=at)).text == f"[{at} is empty]"


class TestWrite:
    async def test_it_says_what_became_of_it(self, call: Call, bench: Bench, at: str) -> None:
        made = await call("write_file", path=at, content="héllo\n")
        assert made.text == f"{at}: made, 7 bytes"
        again = await call("write_file", path=at, content="")
        assert again.text == f"{at}: replaced (7 bytes before), 0 bytes"
        assert await bench.sandbox.files.read(at) == b""

    async def test_a_relative_path_lies_in_the_workspace(self, call: Call, bench: Bench) -> None:
        await call("write_file", path="relative/x", content="1")
        assert await bench.sandbox.files.read("/workspace/relative/x") == b"1"


class TestEdit:
    async def test_one_occurrence_and_the_difference(
        self, call: Call, bench: Bench, at: str
    ) -> None:
        await bench.sandbox.files.write(at, "a\r\nb = 1\r\nc\r\n")
        result = await call("edit_file", path=at, old="b = 1", new="b = 2")
        assert await bench.sandbox.files.read(at) == b"a\r\nb = 2\r\nc\r\n"
        assert "-b = 1\r\n+b = 2\r" in result.text

    async def test_several_are_named_by_line(self, call: Call, bench: Bench, at: str) -> None:
        await bench.sandbox.files.write(at, "x\ny\nx\n")
        refused = await call("edit_file", path=at, old="x", new="z")
        assert refused.failed
        assert "2 times" in refused.text
        assert "lines 1, 3" in refused.text
        done = await call("edit_file", path=at, old="x", new="z", replace_all=True)
        assert done.text.startswith(f"{at}: 2 replaced")
        assert await bench.sandbox.files.read(at) == b"z\ny\nz\n"

    @pytest.mark.parametrize(
        ("old", "why"),
        [
            ("def f( x ):\n    return x", "only the white space differs"),
            ("def f(y):", "Line 1 is like its first: 'def f(x):'"),
            ("nothing of the kind", "read_file shows what it holds"),
        ],
    )
    async def test_none_is_explained(
        self, call: Call, bench: Bench, at: str, old: str, why: str
    ) -> None:
        await bench.sandbox.files.write(at, "def f(x):\n\treturn x\n")
        if "white space" in why:
            old = "def f(x):\n    return x"
        refused = await call("edit_file", path=at, old=old, new="1")
        assert refused.failed
        assert why in refused.text
        assert await bench.sandbox.files.read(at) == b"def f(x):\n\treturn x\n"

    async def test_what_would_grow_without_end_is_refused(
        self, call: Call, bench: Bench, at: str
    ) -> None:
        await bench.sandbox.files.write(at, "a" * 10_000)
        refused = await call("edit_file", path=at, old="a", new="b" * 10_000, replace_all=True)
        assert refused.failed
        assert "would have 100000000 bytes" in refused.text
        assert await bench.sandbox.files.read(at) == b"a" * 10_000

    async def test_what_would_change_nothing_is_refused(self, call: Call, at: str) -> None:
        assert (await call("edit_file", path=at, old="a", new="a")).failed


class TestFolders:
    async def test_list_and_delete(self, call: Call, bench: Bench, at: str) -> None:
        folder = at.rpartition("/")[0]
        await bench.sandbox.files.write(f"{folder}/sub/deep.txt", "12")
        await bench.sandbox.files.write(at, "1")
        flat = await call("list_directory", path=folder)
        assert flat.text.splitlines() == ["file.txt  1 bytes", "sub/"]
        deep = await call("list_directory", path=folder, depth=2)
        assert "sub/deep.txt  2 bytes" in deep.text
        refused = await call("delete_file", path=folder)
        assert refused.failed
        await call("delete_file", path=folder, recursive=True)
        assert "file_missing" in (await call("list_directory", path=folder)).text
