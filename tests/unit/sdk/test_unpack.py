"""Folders from a sandbox whose root is hostile."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtools.errors import GuestMisbehaved, InvalidRequest, RunToolsError, TooLarge
from runtools.sdk import unpack as module
from runtools.sdk.local import Transfer
from runtools.sdk.unpack import unpack


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"", **fields: int
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    head = info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
    return head + data + bytes(-len(data) % 512)


def link(name: str, target: str) -> bytes:
    return member(name, tarfile.SYMTYPE, target)


def folder(name: str) -> bytes:
    return member(name, tarfile.DIRTYPE)


END = bytes(1024)
LIMIT = 1 << 20


def take(into: Path, *members: bytes, size: int = 1000, limit: int = LIMIT) -> Transfer:
    data = b"".join(members) + END
    chunks = (data[i : i + size] for i in range(0, len(data), size))
    return unpack(chunks, into, max_bytes=limit, on_progress=None)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("mine")
    return tmp_path / "into"


def tree(path: Path) -> set[str]:
    return {str(found.relative_to(path)) for found in path.rglob("*")}


class TestHonest:
    def test_the_top_folder_becomes_the_target(self, into: Path) -> None:
        done = take(into, folder("app"), folder("app/d"), member("app/d/f", data=b"x" * 700))
        assert tree(into) == {"d", "d/f"}
        assert (done.entries, done.size_bytes, done.skipped) == (3, 700, [])

    def test_what_was_packed_comes_back(self, into: Path, tmp_path: Path) -> None:
        source = tmp_path / "app"
        (source / "a/b").mkdir(parents=True)
        (source / "a/b/x").write_bytes(b"y" * 3000)
        (source / "a/up").symlink_to("../z")
        (source / os.fsdecode(b"\xff")).touch()
        unpack(iter([_prefixed(source)]), into, max_bytes=LIMIT, on_progress=None)
        assert tree(into) == tree(source)
        assert (into / "a/up").readlink() == Path("../z")

    def test_modes_are_kept_but_never_more_than_the_owner_may_write(self, into: Path) -> None:
        take(into, member("a/run", mode=0o7777), member("a/secret", mode=0o000))
        assert (into / "run").stat().st_mode & 0o7777 == 0o755
        assert (into / "secret").stat().st_mode & 0o7777 == 0o600

    def test_it_merges_and_replaces(self, into: Path) -> None:
        take(into, member("a/x", data=b"old"), member("a/y", data=b"y"))
        take(into, member("a/x", data=b"new"))
        assert (into / "x").read_text() == "new"
        assert (into / "y").read_text() == "y"

    def test_hard_links_within_stay_linked(self, into: Path) -> None:
        take(into, member("a/x", data=b"x"), member("a/y", tarfile.LNKTYPE, "a/x"))
        assert (into / "x").stat().st_ino == (into / "y").stat().st_ino

    def test_progress_is_told(self, into: Path) -> None:
        told: list[int] = []
        data = member("a/x", data=b"x" * 2000) + END
        unpack(iter([data]), into, max_bytes=LIMIT, on_progress=told.append)
        assert told[-1] == 2000

    def test_links_that_stay_inside(self, into: Path) -> None:
        take(
            into,
            link("a/b/up", "../c"),
            link("a/c", "./e/../d"),
            folder("a/e"),
            member("a/d", data=b"d"),
        )
        assert (into / "b/up").read_text() == "d"


def _prefixed(source: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(source, "app")
    return out.getvalue()


class TestHostile:
    @pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a/b/../../../x"])
    def test_names_that_lead_outside_end_it(self, into: Path, name: str) -> None:
        with pytest.raises(GuestMisbehaved, match="cannot be"):
            take(into, member(name, data=b"evil"))

    @pytest.mark.parametrize(
        "target",
        ["/etc/passwd", "../outside", "b/../../outside", "/", "..", "b/../..", "x" * 5000],
    )
    def test_links_that_lead_outside_are_left_out_and_told(self, into: Path, target: str) -> None:
        done = take(into, member("a/ok", data=b"x"), link("a/evil", target))
        assert tree(into) == {"ok"}
        assert [one.path for one in done.skipped] == ["evil"]

    def test_nothing_is_written_through_a_link_of_the_archive(self, into: Path) -> None:
        done = take(into, link("a/d", ".."), member("a/d/outside", data=b"evil"))
        assert (into.parent / "outside").read_text() == "mine"
        assert done.skipped

    def test_nor_through_one_that_was_there(self, into: Path) -> None:
        into.mkdir()
        (into / "d").symlink_to("..")
        with pytest.raises(InvalidRequest):
            take(into, member("a/d/outside", data=b"evil"))
        assert (into.parent / "outside").read_text() == "mine"

    def test_nor_into_the_file_a_link_points_to(self, into: Path) -> None:
        into.mkdir()
        (into / "x").symlink_to("../outside")
        take(into, member("a/x", data=b"evil"))
        assert (into.parent / "outside").read_text() == "mine"
        assert not (into / "x").is_symlink()

    def test_a_chain_of_links_that_ends_outside(self, into: Path) -> None:
        # Read word for word, `x` stays inside; followed, `deep/er/link` is the top and `..` leaves it.
        done = take(into, link("a/deep/er/link", "../.."), link("a/x", "deep/er/link/.."))
        assert [one.path for one in done.skipped] == ["x"]
        assert not (into / "x").is_symlink()

    def test_a_chain_over_a_link_that_was_there(self, into: Path) -> None:
        into.mkdir()
        (into / "old").symlink_to("/")
        done = take(into, link("a/x", "old/etc"))
        assert [one.path for one in done.skipped] == ["x"]

    def test_links_in_a_circle(self, into: Path) -> None:
        done = take(into, link("a/x", "y"), link("a/y", "x"))
        assert {one.path for one in done.skipped} == {"x", "y"}

    @pytest.mark.parametrize("target", ["a/none", "../outside", "/etc/passwd", "a"])
    def test_hard_links_to_what_did_not_come(self, into: Path, target: str) -> None:
        try:
            done = take(into, member("a/x", tarfile.LNKTYPE, target))
        except GuestMisbehaved:
            return
        assert [one.path for one in done.skipped] == ["x"]

    def test_a_hard_link_does_not_lead_outside_by_a_link(self, into: Path) -> None:
        into.mkdir()
        (into / "d").symlink_to("..")
        done = take(into, member("a/x", tarfile.LNKTYPE, "a/d/outside"))
        assert [one.path for one in done.skipped] == ["x"]

    @pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"Z"])
    def test_devices_are_not_made(self, into: Path, kind: bytes) -> None:
        done = take(into, member("a/dev", kind), member("a/x"))
        assert "x" in tree(into)
        assert "dev" not in {f for f in tree(into) if not (into / f).is_file()}
        assert kind == b"Z" or [one.path for one in done.skipped] == ["dev"]

    def test_bytes_are_bounded(self, into: Path) -> None:
        with pytest.raises(TooLarge, match="1000 bytes"):
            take(into, member("a/x", data=b"x" * 600), member("a/y", data=b"x" * 600), limit=1000)

    def test_a_size_that_is_a_lie(self, into: Path) -> None:
        with pytest.raises(TooLarge):
            take(into, member("a/x", size=1 << 50))
        with pytest.raises(GuestMisbehaved, match="sound tar"):
            take(into, member("a/x", size=900_000))

    def test_entries_are_bounded(self, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_ENTRIES", 3)
        with pytest.raises(TooLarge, match="3 entries"):
            take(into, *[folder(f"a/{n}") for n in range(4)])

    @pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
    def test_headers_without_end_are_not_held(self, into: Path, kind: bytes) -> None:
        pulled = 0

        def endless() -> Iterator[bytes]:
            nonlocal pulled
            yield member("a", kind, size=(1 << 33) - 1)
            while True:
                pulled += 1 << 16
                yield bytes(1 << 16)

        with pytest.raises(GuestMisbehaved, match="without end"):
            unpack(endless(), into, max_bytes=LIMIT, on_progress=None)
        assert pulled < 4 << 20

    def test_headers_of_headers(self, into: Path) -> None:
        nested = member("a", tarfile.XHDTYPE, data=b"11 path=a/b\n") * 5000
        with pytest.raises(GuestMisbehaved):
            take(into, nested, member("a/x"))

    def test_the_depth_is_bounded(self, into: Path) -> None:
        with pytest.raises(GuestMisbehaved):
            take(into, folder("a/" * 300))

    def test_what_is_no_folder(self, into: Path) -> None:
        with pytest.raises(GuestMisbehaved, match="not one of a folder"):
            take(into, member("file", data=b"x"))

    @pytest.mark.parametrize("data", [b"", b"x" * 100, b"\xff" * 2000, b"<html>" * 200])
    def test_what_is_no_tar(self, into: Path, data: bytes) -> None:
        with pytest.raises(GuestMisbehaved, match="sound tar"):
            unpack(iter([data]), into, max_bytes=LIMIT, on_progress=None)

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([0, 1, 2, 5, 156, 157, 265, 124, 135, 148, 329, 512, 700]),
                st.binary(min_size=1, max_size=12),
            ),
            max_size=4,
        )
    )
    def test_any_damage_ends_in_a_typed_error_or_inside(
        self, tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, bytes]]
    ) -> None:
        base = tmp_path_factory.mktemp("fuzz")
        data = bytearray(
            folder("a") + member("a/x", data=b"x" * 100) + link("a/l", "x") + member("a/y") + END
        )
        for place, patch in damage:
            data[place : place + len(patch)] = patch
        with suppress(RunToolsError):
            unpack(iter([bytes(data)]), base / "into", max_bytes=LIMIT, on_progress=None)
        assert {found.name for found in base.iterdir()} <= {"into"}
