"""What an edit is said to change: all of it, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtools.workbench import changes

TEXT = st.text("ab\n", max_size=30)


def applied(before: str, old: str, new: str) -> str:
    """The text after the places that are told of were changed."""
    lines, now, at = before.split("\n"), list[str](), 0
    for first, was, then in changes._places(before, old, new):
        assert lines[first : first + len(was)] == was
        now += [*lines[at:first], *then]
        at = first + len(was)
    return "\n".join(now + lines[at:])


@given(TEXT, st.text("ab\n", min_size=1, max_size=4), st.text("abc\n", max_size=4))
def test_it_is_what_replacing_does(before: str, old: str, new: str) -> None:
    assert applied(before, old, new) == before.replace(old, new)


def test_it_is_shown_with_the_lines_around_it() -> None:
    shown = changes.changed("1\n2\n3\n4\n5\n6\n7\n8\n", "5", "five\nV", 1000)
    assert shown.split("\n") == [
        "@@ line 5, now 5 @@", " 2", " 3", " 4", "-5", "+five", "+V", " 6", " 7", " 8",
    ]  # fmt: skip


def test_large_files_are_no_square() -> None:
    """Each would take minutes by likeness of all lines, or by scanning a line anew for each place."""
    like = ("ab" * 150 + "\n") * 20_000
    assert "is like its first" in changes.nearest(like, "ab" * 149 + "b")
    assert changes.nearest(like, "x" * 5000) == ". read_file shows what it holds"
    one_line = changes.changed("ab" * 500_000, "a", "c", 1000)
    assert one_line.count("c") == 500_000
