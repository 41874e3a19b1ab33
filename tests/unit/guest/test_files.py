from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtools.guest import files, protocol, unsized
from runtools.guest.problems import Problem

from .conftest import Agent, Talk, until

ROOT = os.geteuid() == 0
KERNELS = ("/proc/kallsyms", "/proc/cpuinfo", "/sys/class/net/lo/mtu")
"""Files that do not say how long they are, the first of them some megabytes long."""


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        ["", "relative", "./a", "/a/../b", "/..", "/a\0b", "/" + "a" * 5000, None, 7, "/\ud800"],
    )
    @pytest.mark.parametrize("do", ["stat", "list", "read", "download"])
    def test_bad_ones_are_refused(self, talk: Talk, do: str, path: object) -> None:
        assert talk.fail(do, path=path) == "invalid_path"

    def test_two_dots_within_a_name_are_fine(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "a..b").touch()
        assert talk.do("stat", path="/a..b")["path"] == "/a..b"


class TestStat:
    def test_tells_of_a_file(self, agent: Agent, talk: Talk) -> None:
        file = agent.root / "f"
        file.write_text("12345")
        file.chmod(0o4751)
        os.utime(file, (1, 1_500_000_000.5))
        told = talk.do("stat", path="/f")
        assert (told["kind"], told["size"], told["mode"]) == ("file", 5, 0o4751)
        assert told["modified"] == 1_500_000_000.5
        assert told["owner"] == file.owner()

    def test_a_symlink_is_itself(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "l").symlink_to("nowhere")
        told = talk.do("stat", path="/l")
        assert (told["kind"], told["target"]) == ("symlink", "nowhere")

    def test_kinds(self, agent: Agent, talk: Talk) -> None:
        os.mkfifo(agent.root / "p")
        assert talk.do("stat", path="/workspace")["kind"] == "directory"
        assert talk.do("stat", path="/p")["kind"] == "other"
        assert talk.fail("stat", path="/missing") == "file_missing"

    def test_an_owner_without_a_name_is_a_number(self, agent: Agent, talk: Talk) -> None:
        if not ROOT:
            pytest.skip("only root can give files away")
        (agent.root / "f").touch()
        os.chown(agent.root / "f", 54321, 54322)
        told = talk.do("stat", path="/f")
        assert (told["owner"], told["group"]) == ("54321", "54322")

    def test_a_name_that_is_no_utf8_is_shown_escaped(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "d").mkdir()
        Path(os.fsdecode(os.fsencode(agent.root / "d") + b"/caf\xe9")).touch()
        assert talk.do("list", path="/d", depth=1)["entries"][0]["path"] == "/d/caf\\xe9"


class TestList:
    def test_depth(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "d/e/f").mkdir(parents=True)
        (agent.root / "d/a").touch()
        assert _paths(talk, "/d", 1) == ["/d/a", "/d/e"]
        assert _paths(talk, "/d", 2) == ["/d/a", "/d/e", "/d/e/f"]
        assert talk.fail("list", path="/d", depth=0) == "invalid_request"

    def test_of_the_root(self, talk: Talk) -> None:
        assert _paths(talk, "/", 1) == ["/etc", "/root", "/workspace"]

    def test_does_not_follow_links(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "d").mkdir()
        (agent.root / "d/loop").symlink_to("..")
        assert _paths(talk, "/d", 9) == ["/d/loop"]

    def test_refusals(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "f").touch()
        assert talk.fail("list", path="/f", depth=1) == "file_not_directory"
        assert talk.fail("list", path="/missing", depth=1) == "file_missing"

    def test_is_bounded_and_says_so(self, agent: Agent, talk: Talk, in_memory: Path) -> None:
        (agent.root / "many").symlink_to(in_memory)
        for i in range(protocol.MAX_ENTRIES + 50):
            os.mknod(agent.root / f"many/{i}")
        told = talk.do("list", path="/many", depth=1)
        assert (len(told["entries"]), told["truncated"]) == (protocol.MAX_ENTRIES, True)

    def test_long_names_are_bounded_by_bytes(
        self, agent: Agent, talk: Talk, in_memory: Path
    ) -> None:
        (agent.root / "long").symlink_to(in_memory)
        for i in range(6500):
            os.mknod(agent.root / "long" / f"{i}{'ä' * 120}")
        os.mknod(agent.root / "long" / "z")
        for i in range(30):
            (agent.root / f"long/{i}{'ü' * 100}").mkdir()
            for k in range(150):
                os.mknod(agent.root / f"long/{i}{'ü' * 100}/{k}{'ö' * 120}")
        told = talk.do("list", path="/long", depth=2)
        assert told["truncated"]
        assert 3000 < len(told["entries"]) < protocol.MAX_ENTRIES


class TestChanges:
    def test_mkdir_makes_parents_and_may_be_there(self, agent: Agent, talk: Talk) -> None:
        told = talk.do("mkdir", id="a", path="/a/b/c", mode=0o700)
        assert (told["kind"], told["mode"]) == ("directory", 0o700)
        assert talk.do("mkdir", id="b", path="/a/b/c", mode=0o755)["mode"] == 0o700
        (agent.root / "f").touch()
        assert talk.fail("mkdir", id="c", path="/f") == "file_exists"
        assert talk.fail("mkdir", id="d", path="/f/x") == "file_not_directory"
        assert talk.fail("mkdir", id="e", path="/f/x/y") == "file_not_directory"

    def test_edits_at_once_lose_nothing(self, agent: Agent) -> None:
        (agent.root / "f").write_text("".join(f"<{n}>\n" for n in range(8)))

        def one(n: int) -> None:
            talk = agent.talk()
            for step in range(10):
                old, new = f"<{n}{'+' * step}>", f"<{n}{'+' * (step + 1)}>"
                talk.do("edit", id=f"{n}.{step}", path="/f", old=old, new=new)

        threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (agent.root / "f").read_text() == "".join(f"<{n}{'+' * 10}>\n" for n in range(8))
        assert [p.name for p in agent.root.iterdir() if p.name.startswith(".f")] == []

    def test_an_edit_is_answered_and_not_done_again(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "f").write_text("a")
        first = talk.do("edit", id="a", path="/f", old="a", new="aa", occurrences=0)
        agent.restart()
        again = agent.talk().do("edit", id="a", path="/f", old="a", new="aa", occurrences=0)
        assert (again, (agent.root / "f").read_text()) == (first, "aa")

    def test_what_cannot_be_edited(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "f").write_bytes(b"a" * (8 << 20))
        (agent.root / "link").symlink_to("f")
        os.mkfifo(agent.root / "pipe")
        before = sorted(p.name for p in agent.root.iterdir())
        for code, fields in (
            ("file_missing", {"path": "/none"}),
            ("file_is_directory", {"path": "/root"}),
            ("file_error", {"path": "/pipe"}),
            ("edit_unfit", {"old": "b"}),
            ("edit_unfit", {"occurrences": 2}),
            ("too_large", {"new": "a" * 101, "occurrences": 0}),
            ("invalid_request", {"old": ""}),
            ("invalid_request", {"old": 7}),
            ("invalid_request", {"new": "\ud800"}),
            ("invalid_request", {"occurrences": -1}),
        ):
            wish = {"path": "/f", "old": "a" * 100, "new": "b", "id": "x", **fields}
            said = talk.ask(
                {"do": "edit", **wish, "id": f"{code}.{before.index('f')}.{len(str(wish))}"}
            )
            assert said["error"]["code"] == code, (said, wish)
        assert sorted(p.name for p in agent.root.iterdir()) == before
        talk.do("edit", id="l", path="/link", old="a" * (8 << 20 >> 3), new="", occurrences=8)
        assert (agent.root / "f").read_bytes() == b""
        assert (agent.root / "link").is_symlink()

    def test_chmod(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "f").touch()
        assert talk.do("chmod", id="a", path="/f", mode=0o600)["mode"] == 0o600
        assert talk.fail("chmod", id="b", path="/missing", mode=0o600) == "file_missing"
        assert talk.fail("chmod", id="c", path="/f") == "invalid_request"

    def test_remove(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "d/e").mkdir(parents=True)
        (agent.root / "d/l").symlink_to("/etc")
        assert talk.fail("remove", id="a", path="/d") == "file_is_directory"
        assert talk.do("remove", id="b", path="/d", recursive=True) == {}
        assert not (agent.root / "d").exists()
        assert talk.fail("remove", id="c", path="/d") == "file_missing"
        assert talk.fail("remove", id="d", path="/", recursive=True) == "invalid_path"
        assert talk.fail("remove", id="e", path="//.", recursive=True) == "invalid_path"

    def test_remove_of_a_link_leaves_what_it_points_to(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "d").mkdir()
        (agent.root / "l").symlink_to("d")
        talk.do("remove", id="a", path="/l", recursive=True)
        assert (agent.root / "d").is_dir()

    @pytest.mark.parametrize("do", ["move", "copy"])
    def test_move_and_copy(self, agent: Agent, talk: Talk, do: str) -> None:
        (agent.root / "a").write_text("new")
        (agent.root / "b").write_text("old")
        assert talk.fail(do, id="1", source="/a", target="/b") == "file_exists"
        assert talk.do(do, id="2", source="/a", target="/b", overwrite=True)["path"] == "/b"
        assert (agent.root / "b").read_text() == "new"
        assert (agent.root / "a").exists() == (do == "copy")
        assert talk.fail(do, id="3", source="/missing", target="/c") == "file_missing"
        assert talk.fail(do, id="4", source="/b", target="/no/parent") == "file_missing"
        assert talk.fail(do, id="5", source="/b", target="/workspace", overwrite=True) == (
            "file_is_directory"
        )

    @pytest.mark.parametrize("do", ["move", "copy"])
    def test_not_into_itself(self, agent: Agent, talk: Talk, do: str) -> None:
        (agent.root / "d").mkdir()
        assert talk.fail(do, id="1", source="/d", target="/d/e") == "invalid_path"
        assert talk.fail(do, id="2", source="/d", target="/d", overwrite=True) == "invalid_path"

    def test_copy_of_a_tree_keeps_what_it_is(self, agent: Agent, talk: Talk) -> None:
        tree = agent.root / "d"
        (tree / "e").mkdir(parents=True)
        (tree / "e/f").write_text("x")
        (tree / "e/f").chmod(0o640)
        os.utime(tree / "e/f", (1, 1_500_000_000))
        (tree / "l").symlink_to("e/f")
        talk.do("copy", id="1", source="/d", target="/c")
        copied = agent.root / "c"
        assert (copied / "l").readlink() == Path("e/f")
        found = (copied / "e/f").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o640, 1_500_000_000)

    def test_copy_of_the_kernels_files(self, agent: Agent) -> None:
        for number, path in enumerate(KERNELS):
            files.copy_bytes(path, str(agent.root / f"copy-{number}"))
            assert (agent.root / f"copy-{number}").read_bytes() == Path(path).read_bytes()

    def test_a_nest_of_folders(self, agent: Agent, talk: Talk) -> None:
        """Deeper than Python can call itself."""
        nest = "/".join(["d"] * 1300)
        path = agent.root / "a"
        for _ in range(13):
            path = path / "/".join(["d"] * 100)
            path.mkdir(parents=True)
        (path / "end").write_text("there")
        talk.do("copy", id="1", source="/a", target="/b")
        assert (agent.root / "b" / nest / "end").read_text() == "there"
        talk.do("remove", id="2", path="/a", recursive=True)
        talk.do("remove", id="3", path="/b", recursive=True)
        assert _names(agent) == {"etc", "root", "workspace"}

    def test_copy_keeps_holes(self, agent: Agent, talk: Talk) -> None:
        with (agent.root / "sparse").open("wb") as file:
            file.truncate(2 << 30)
            file.seek(1 << 30)
            file.write(b"middle")
        talk.do("copy", id="1", source="/sparse", target="/copy")
        copied = (agent.root / "copy").stat()
        assert copied.st_size == 2 << 30
        assert copied.st_blocks * 512 < 1 << 20
        with (agent.root / "copy").open("rb") as file:
            file.seek(1 << 30)
            assert file.read(6) == b"middle"

    def test_copy_of_what_is_no_file_leaves_nothing(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "d").mkdir()
        os.mkfifo(agent.root / "d/p")
        assert talk.fail("copy", id="1", source="/d", target="/c") == "file_error"
        assert sorted(p.name for p in agent.root.iterdir()) == ["d", "etc", "root", "workspace"]


class TestRead:
    def test_ranges(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "f").write_bytes(b"0123456789")
        assert talk.read("/f")[1] == b"0123456789"
        assert talk.read("/f", 3, 6)[1] == b"345"
        head, data = talk.read("/f", 8, 99)
        assert (head["start"], head["end"], data) == (8, 10, b"89")
        head, data = talk.read("/f", 50)
        assert (head["start"], head["end"], data) == (10, 10, b"")
        assert talk.read("/f", 6, 2)[1] == b""
        assert talk.fail("read", path="/f", start=-1) == "invalid_request"

    def test_large_and_sparse(self, agent: Agent, talk: Talk) -> None:
        with (agent.root / "f").open("wb") as file:
            file.truncate(2 << 30)
            file.seek(0, os.SEEK_END)
            file.write(b"end")
        head, data = talk.read("/f", 2 << 30)
        assert (head["entry"]["size"], data) == ((2 << 30) + 3, b"end")
        assert len(talk.read("/f", 0, 5 << 20)[1]) == 5 << 20

    def test_refusals(self, agent: Agent, talk: Talk) -> None:
        os.mkfifo(agent.root / "p")
        assert talk.fail("read", path="/p") == "file_error"
        assert talk.fail("read", path="/etc") == "file_is_directory"
        assert talk.fail("read", path="/missing") == "file_missing"

    def test_a_file_that_claims_to_be_empty_is_read(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "status").symlink_to("/proc/self/status")
        head, data = talk.read("/status")
        assert data.startswith(b"Name:")
        assert head["entry"]["size"] == head["end"] == len(data)

    @pytest.mark.parametrize("path", KERNELS)
    def test_the_kernels_files_are_read_whole(self, agent: Agent, talk: Talk, path: str) -> None:
        (agent.root / "f").symlink_to(path)
        head, data = talk.read("/f")
        assert head["entry"]["size"] == head["end"] == len(data)
        assert data == Path(path).read_bytes()
        assert talk.read("/f", 1, 3)[1] == data[1:3]

    def test_one_that_holds_too_much_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unsized, "MOST", 10)
        with (
            Path("/proc/self/status").open("rb") as file,
            pytest.raises(Problem, match="more than"),
        ):
            unsized.content(file.fileno(), "/proc/self/status")

    def test_one_that_shrinks_meanwhile_ends_with_an_error(self, agent: Agent, talk: Talk) -> None:
        with (agent.root / "f").open("wb") as file:
            file.truncate(64 << 20)
        talk.do("read", path="/f")
        os.truncate(agent.root / "f", 0)
        while (frame := talk.frame())[0] == protocol.BYTES:
            pass
        assert b"became shorter" in frame[1]
        assert talk.do("ping") == {}


class TestWrite:
    def test_a_new_file_with_its_parents(self, agent: Agent, talk: Talk) -> None:
        told = talk.write("a", "/new/deep/f", b"content")["ok"]
        assert (told["path"], told["size"], told["mode"]) == ("/new/deep/f", 7, 0o644)
        assert (agent.root / "new/deep/f").read_bytes() == b"content"

    def test_replace_keeps_mode_and_owner(self, agent: Agent, talk: Talk) -> None:
        file = agent.root / "f"
        file.write_text("old content")
        file.chmod(0o750)
        if ROOT:
            os.chown(file, 1234, 1235)
        told = talk.write("a", "/f", b"new")["ok"]
        assert (told["mode"], file.read_bytes()) == (0o750, b"new")
        if ROOT:
            assert (told["owner"], told["group"]) == ("1234", "1235")

    def test_mode_is_set_when_given(self, talk: Talk) -> None:
        assert talk.write("a", "/f", b"", mode=0o600)["ok"]["mode"] == 0o600

    def test_through_a_symlink(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "real").write_text("old")
        (agent.root / "link").symlink_to("real")
        talk.write("a", "/link", b"new")
        assert (agent.root / "link").is_symlink()
        assert (agent.root / "real").read_text() == "new"

    def test_append(self, agent: Agent, talk: Talk) -> None:
        talk.write("a", "/f", b"one ", how="append")
        talk.write("b", "/f", b"two", how="append")
        assert (agent.root / "f").read_bytes() == b"one two"

    def test_what_others_append_meanwhile_stays(self, agent: Agent, talk: Talk) -> None:
        file = agent.root / "f"
        file.write_text("old ")
        other = agent.talk()
        assert other.ask({"do": "write", "id": "a", "path": "/f", "how": "append"}) == {"go": True}
        other.sock.sendall(protocol.frame(protocol.BYTES, bytes(1 << 20)))
        talk.write("b", "/f", b"answered ", how="append")
        with file.open("a") as inside:
            inside.write("a line of a program")
        other.close()
        until(lambda: _names(agent) == {"f", "etc", "root", "workspace"})
        assert file.read_text() == "old answered a line of a program"

    def test_a_full_disk_takes_no_part_of_what_is_appended(
        self, agent: Agent, talk: Talk, full_disk: Path
    ) -> None:
        (full_disk / "f").write_text("old")
        (agent.root / "small").symlink_to(full_disk)
        free = os.statvfs(full_disk)
        size = free.f_bavail * free.f_bsize * 2 // 3  # it fits once, not twice
        said = talk.write("a", "/small/f", bytes(size), how="append")
        assert said["error"]["code"] == "disk_full"
        assert [p.name for p in full_disk.iterdir()] == ["f"]
        assert (full_disk / "f").read_text() == "old"

    def test_a_repeat_is_answered_without_a_body(self, agent: Agent, talk: Talk) -> None:
        first = talk.write("a", "/f", b"one", how="append")
        assert talk.write("a", "/f", b"one", how="append") == first
        assert (agent.root / "f").read_bytes() == b"one"

    def test_megabytes(self, agent: Agent, talk: Talk) -> None:
        data = os.urandom(20 << 20)
        talk.write("a", "/f", data)
        assert (agent.root / "f").read_bytes() == data

    @pytest.mark.parametrize("how", ["replace", "append"])
    def test_what_breaks_off_changes_nothing(self, agent: Agent, talk: Talk, how: str) -> None:
        (agent.root / "f").write_text("old")
        other = agent.talk()
        request = {"do": "write", "id": "a", "path": "/f", "how": how}
        assert other.ask(request) == {"go": True}
        other.sock.sendall(protocol.frame(protocol.BYTES, bytes(1 << 20)))
        other.close()
        until(lambda: _names(agent) == {"f", "etc", "root", "workspace"})
        until(lambda: (agent.root / "f").read_text() == "old")
        # Nothing was done, so the id is free.
        assert talk.write("a", "/f", b"new", how="replace" if how == "replace" else how)["ok"]

    def test_refusals_come_before_the_body(self, agent: Agent, talk: Talk) -> None:
        os.mkfifo(agent.root / "p")
        (agent.root / "f").touch()
        for n, (path, code) in enumerate(
            [
                ("/etc", "file_is_directory"),
                ("/p", "file_error"),
                ("/f/x", "file_not_directory"),
                ("/" + "a" * 300, "invalid_path"),
            ]
        ):
            assert talk.fail("write", id=f"{n}", path=path) == code
        assert talk.fail("write", id="x", path="/f", how="insert") == "invalid_request"

    def test_a_full_disk_is_said_and_leaves_the_old_file(
        self, agent: Agent, talk: Talk, full_disk: Path
    ) -> None:
        (full_disk / "f").write_text("old")
        (agent.root / "small").symlink_to(full_disk)
        said = talk.write("a", "/small/f", bytes(8 << 20))
        assert said["error"]["code"] == "disk_full"
        assert [p.name for p in full_disk.iterdir()] == ["f"]
        assert (full_disk / "f").read_text() == "old"
        assert talk.do("ping") == {}


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder where many files are made fast."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    if not ROOT:
        pytest.skip("only root can mount")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _names(agent: Agent) -> set[str]:
    return {p.name for p in agent.root.iterdir()}


def _paths(talk: Talk, path: str, depth: int) -> list[str]:
    return [e["path"] for e in talk.do("list", path=path, depth=depth)["entries"]]
