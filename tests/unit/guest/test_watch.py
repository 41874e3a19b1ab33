"""Watching folders: what is told, in which order, and that nothing is lost without a word."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtools.guest import watches, watchtree
from runtools.guest.files import temporary
from runtools.guest.inotify import Event, Inotify
from runtools.guest.paths import Root
from runtools.guest.problems import Problem
from runtools.guest.watches import Watches
from runtools.guest.watchtree import Change, Tree

from .conftest import Agent, until

Told = tuple[str, str, str | None, bool]


class Reader:
    """Follows one folder, which is ``/t`` of a root of its own."""

    def __init__(self, root: Path, recursive: bool = True) -> None:
        self.top = root / "t"
        self.watches = Watches(Root(str(root)))
        self.recursive = recursive
        self.last: int = self.poll(None)["last"]

    def poll(self, after: int | None, seconds: float = 0.0, scope: str = "s") -> dict[str, Any]:
        return self.watches.poll(scope, "/t", self.recursive, after, seconds, lambda: False)

    def until(self, *last: Told) -> list[Told]:
        """All that is told up to these, one after the other."""
        told: list[Told] = []
        end = time.monotonic() + 20
        while tuple(told[-len(last) :]) != last:
            assert time.monotonic() < end, told
            answer = self.poll(self.last, 0.1)
            assert not answer["lost"]
            self.last = answer["last"]
            told += [(c["kind"], c["path"], c["source"], c["folder"]) for c in answer["changes"]]
        return told

    def rest(self) -> list[Told]:
        """All that is told until a mark, which is made now."""
        (self.top / "mark").mkdir()
        return self.until(("create", "/t/mark", None, True))[:-1]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "t").mkdir()
    return tmp_path / "t"


@pytest.fixture
def reader(top: Path) -> Reader:
    return Reader(top.parent)


def kinds(told: list[Told]) -> list[tuple[str, str]]:
    return [(kind, path) for kind, path, _, _ in told]


class TestOneFolder:
    def test_a_file_from_its_first_to_its_last(self, reader: Reader) -> None:
        file = reader.top / "a"
        file.write_text("1")
        assert kinds(reader.until(("change", "/t/a", None, False))) == [
            ("create", "/t/a"),
            ("change", "/t/a"),
        ]
        file.chmod(0o600)
        reader.until(("change", "/t/a", None, False))
        file.rename(reader.top / "b")
        assert reader.until(("move", "/t/b", "/t/a", False))
        (reader.top / "b").unlink()
        reader.until(("delete", "/t/b", None, False))

    def test_what_is_held_open_is_told_while_it_is_written(self, reader: Reader) -> None:
        with (reader.top / "log").open("w", buffering=1) as log:
            reader.until(("create", "/t/log", None, False))
            for n in range(3):
                log.write(f"{n}\n")
                reader.until(("change", "/t/log", None, False))

    def test_changes_that_nobody_was_told_of_are_one(self, reader: Reader) -> None:
        for n in range(500):
            (reader.top / "a").write_text(str(n))
        told = kinds(reader.rest())
        assert set(told) == {("create", "/t/a"), ("change", "/t/a")}
        assert len(told) < 20

    def test_a_change_is_not_withheld_from_who_came_later(self, reader: Reader) -> None:
        (reader.top / "a").write_text("1")
        until(lambda: len(reader.poll(reader.last)["changes"]) == 2)
        fresh = reader.poll(None)["last"]  # knows of nothing before this
        (reader.top / "a").write_text("2")
        until(lambda: bool(reader.poll(fresh)["changes"]))
        assert reader.poll(fresh)["changes"][0]["kind"] == "change"

    def test_names_of_any_bytes(self, reader: Reader) -> None:
        top = os.fsencode(reader.top)
        Path(os.fsdecode(top + b"/\xff\n")).mkdir()
        Path(os.fsdecode(top + b"/\xff\n/\xfe")).touch()
        told = kinds(reader.rest())
        assert told[:2] == [("create", "/t/\\xff\n"), ("create", "/t/\\xff\n/\\xfe")]

    def test_below_it_counts_only_when_asked_for(self, top: Path) -> None:
        (top / "d").mkdir()
        reader = Reader(top.parent, recursive=False)
        (top / "d/inner").touch()
        (top / "e").mkdir()
        (top / "e/inner").touch()
        assert ("create", "/t/e") in kinds(told := reader.rest())
        assert not [path for _, path in kinds(told) if path.endswith("inner")]

    def test_content_that_is_not_in_place_yet_is_not_told(self, reader: Reader) -> None:
        half = Path(temporary(str(reader.top / "a")))
        half.write_text("x")
        half.rename(reader.top / "a")
        assert reader.rest() == [("create", "/t/a", None, False)]


class TestFolders:
    def test_what_is_made_at_once_with_its_folder(self, reader: Reader) -> None:
        wanted = set()
        for n in range(30):
            deep = reader.top / f"{n}/a/b"
            deep.mkdir(parents=True)
            (deep / "file").touch()
            wanted |= {f"/t/{n}", f"/t/{n}/a", f"/t/{n}/a/b", f"/t/{n}/a/b/file"}
        created = [path for kind, path in kinds(reader.rest()) if kind == "create"]
        assert sorted(created) == sorted(wanted)  # each once

    def test_a_folder_moved_within_takes_all_along(self, reader: Reader) -> None:
        (reader.top / "a/b").mkdir(parents=True)
        reader.rest()
        (reader.top / "a").rename(reader.top / "z")
        (reader.top / "z/b/file").write_text("x")
        told = reader.until(("change", "/t/z/b/file", None, False))
        assert told[0] == ("move", "/t/z", "/t/a", True)
        assert kinds(told[1:]) == [("create", "/t/z/b/file"), ("change", "/t/z/b/file")]

    def test_the_border(self, reader: Reader, tmp_path: Path) -> None:
        (tmp_path / "out/d").mkdir(parents=True)
        (tmp_path / "out/d/file").touch()
        (tmp_path / "out").rename(reader.top / "in")
        told = reader.until(("create", "/t/in/d/file", None, False))
        assert kinds(told) == [("create", f"/t/in{rest}") for rest in ("", "/d", "/d/file")]
        (reader.top / "in").rename(tmp_path / "out")
        (tmp_path / "out/d/file").write_text("nobody's business now")
        assert reader.rest() == [("delete", "/t/in", None, True)]

    def test_a_tree_that_is_removed(self, reader: Reader) -> None:
        (reader.top / "a/b").mkdir(parents=True)
        reader.until(("create", "/t/a/b", None, True))
        shutil.rmtree(reader.top / "a")
        assert kinds(reader.rest()) == [("delete", "/t/a/b"), ("delete", "/t/a")]

    def test_links_are_not_followed(self, reader: Reader, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (reader.top / "link").symlink_to(tmp_path / "out")
        reader.until(("create", "/t/link", None, False))
        (tmp_path / "out/file").touch()
        assert reader.rest() == []

    def test_names_that_are_used_again_at_once(self, reader: Reader) -> None:
        """The path of an event may lead to another folder by the time it is looked at."""
        stop = threading.Event()

        def churn() -> None:
            for n in range(60):
                (reader.top / "a").mkdir()
                (reader.top / "a").rename(reader.top / f"b{n}")
            stop.set()

        thread = threading.Thread(target=churn)
        thread.start()
        thread.join()
        assert stop.is_set()
        reader.rest()
        for n in range(60):
            (reader.top / f"b{n}/file").touch()
        created = [path for kind, path in kinds(_upto(reader, "end")) if kind == "create"]
        assert [f"/t/b{n}/file" for n in range(60)] == created[:-1]

    def test_random_work_told_is_the_tree_that_is_there(self, reader: Reader) -> None:
        """Whoever keeps his own picture by what he is told has the right one in the end."""
        _work(reader.top, 400)
        picture: dict[str, bool] = {}
        for kind, path, source, folder in _upto(reader, "end"):
            if kind == "create":
                picture[path] = folder
            elif kind == "delete":
                picture = {p: f for p, f in picture.items() if not _within(p, path)}
            elif kind == "move":
                assert source is not None
                moved = {p: f for p, f in picture.items() if _within(p, source)}
                picture = {p: f for p, f in picture.items() if not _within(p, path)}
                for old, is_folder in moved.items():
                    picture.pop(old, None)
                    picture[path + old.removeprefix(source)] = is_folder
        there = {f"/t/{p.relative_to(reader.top)}": p.is_dir() for p in reader.top.rglob("*")}
        assert picture == there


class TestWhatTakesAPlace:
    """Something moves to where another was found a moment ago, before the kernel's word was read."""

    @pytest.fixture
    def between(self, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
        """Acts that are done before the second reading of the kernel's queue."""
        acts: list[Callable[[], None]] = []
        read, count = Inotify.read, 0

        def reading(queue: Inotify) -> list[Event]:
            nonlocal count
            count += 1
            for act in acts if count == 2 else ():
                act()
            return read(queue)

        monkeypatch.setattr(Inotify, "read", reading)
        return acts

    def test_a_watched_folder_over_an_empty_one(
        self, top: Path, between: list[Callable[[], None]]
    ) -> None:
        (top / "Y").mkdir()
        tree = Tree(os.fsencode(top), True, lambda: 1000)
        tree.arm()
        between.append(lambda: (top / "Y").rename(top / "a" / "X"))
        (top / "a" / "X").mkdir(parents=True)
        moved = Change("move", os.fsencode(top / "a" / "X"), os.fsencode(top / "Y"), True)
        assert tree.changes()[-1] == moved
        (top / "a" / "X" / "new").mkdir()
        assert tree.wait(5, -1)
        assert [one.path for one in tree.changes()] == [os.fsencode(top / "a" / "X" / "new")]
        tree.close()

    def test_a_stranger_over_an_empty_one(
        self, top: Path, tmp_path: Path, between: list[Callable[[], None]]
    ) -> None:
        (tmp_path / "Y" / "in").mkdir(parents=True)
        tree = Tree(os.fsencode(top), True, lambda: 1000)
        tree.arm()
        between.append(lambda: (tmp_path / "Y").rename(top / "a" / "X"))
        (top / "a" / "X").mkdir(parents=True)
        assert Change("create", os.fsencode(top / "a/X/in"), None, True) in tree.changes()
        (top / "a" / "X" / "in" / "new").mkdir()
        assert tree.wait(5, -1)
        assert [one.path for one in tree.changes()] == [os.fsencode(top / "a/X/in/new")]
        tree.close()

    def test_a_file_over_one_that_was_read_meanwhile(
        self, top: Path, between: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The tree is so busy that the changes are handed on before the queue is empty."""
        tree = Tree(os.fsencode(top), True, lambda: 1000)
        tree.arm()
        between.append((top / "noise").touch)
        (top / "a").mkdir()
        (top / "a" / "f").write_text("old")
        now = time.monotonic
        clock = iter([now(), now(), now(), now() + 60])
        with monkeypatch.context() as patched:
            patched.setattr(watchtree.time, "monotonic", lambda: next(clock))
            told = [one.path for one in tree.changes()]
        assert os.fsencode(top / "a" / "f") in told
        (top / "tmp").write_text("new")
        (top / "tmp").rename(top / "a" / "f")
        assert tree.wait(5, -1)
        moved = Change("move", os.fsencode(top / "a" / "f"), os.fsencode(top / "tmp"), False)
        assert moved in tree.changes()
        tree.close()


class TestLoss:
    def test_who_comes_back_misses_nothing(self, reader: Reader) -> None:
        for n in range(20):
            (reader.top / str(n)).mkdir()
        until(lambda: len(reader.poll(reader.last)["changes"]) == 20)
        assert len(reader.poll(reader.last + 15)["changes"]) == 5

    def test_what_is_no_longer_kept_is_said_to_be_lost(
        self, reader: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watches, "MAX_KEPT", 10)
        for n in range(20):
            (reader.top / str(n)).mkdir()
        until(lambda: reader.poll(reader.last)["lost"])
        until(lambda: reader.poll(reader.last)["last"] == reader.last + 20)
        assert len(reader.poll(reader.last + 10)["changes"]) == 10

    def test_numbers_of_an_earlier_watch_are_lost(self, reader: Reader) -> None:
        (reader.top / "a").mkdir()
        reader.until(("create", "/t/a", None, True))
        again = Reader(reader.top.parent)  # as after a restart of the agent
        assert again.poll(reader.last)["lost"]
        assert again.last > reader.last

    def test_a_number_from_the_future_is_lost(self, reader: Reader) -> None:
        assert reader.poll(reader.last + 1)["lost"]

    def test_a_copy_of_the_machine_begins_anew(self, reader: Reader) -> None:
        assert reader.poll(reader.last, scope="another machine")["lost"]

    def test_the_folder_itself_goes(self, reader: Reader) -> None:
        reader.top.rmdir()
        reader.until(("delete", "/t", None, True))
        with pytest.raises(Problem, match=r"no such file|gone") as caught:
            reader.poll(reader.last, 5)
        assert caught.value.code == "file_missing"

    def test_a_kernel_queue_that_ran_over(self, tmp_path: Path) -> None:
        agent = Agent(tmp_path / "m").start()
        top = agent.root / "t"
        top.mkdir()
        try:
            talk = agent.talk()
            last = talk.do("watch", path="/t", scope="s")["last"]
            assert agent.process is not None
            os.kill(_child(agent), signal.SIGSTOP)
            tasks = Path(f"/proc/{_child(agent)}/task")
            until(lambda: all(" T " in (t / "stat").read_text() for t in tasks.iterdir()))
            for n in range(9000):  # two events each, more than the kernel holds
                (top / str(n)).mkdir()
                (top / str(n)).rmdir()
            os.kill(_child(agent), signal.SIGCONT)
            seen: list[str] = []
            end = time.monotonic() + 20
            while "overflow" not in seen:
                assert time.monotonic() < end, len(seen)
                answer = talk.do("watch", path="/t", scope="s", after=last, wait_ms=5000)
                last = answer["last"]
                seen += ["overflow"] if answer["lost"] else [c["kind"] for c in answer["changes"]]
            paths: list[str] = []
            for n in range(200):  # and it goes on, once the kernel's backlog is through
                (top / f"after{n}").mkdir()
                if "/t/after0" in paths or f"/t/after{n - 1}" in paths:
                    break
                assert time.monotonic() < end
                answer = talk.do("watch", path="/t", scope="s", after=last, wait_ms=500)
                last = answer["last"]
                paths += [c["path"] for c in answer["changes"]]
        finally:
            agent.stop()


class TestBounds:
    @pytest.mark.parametrize(
        ("path", "code"),
        [
            ("/none", "file_missing"),
            ("/t/file", "file_not_directory"),
            ("/t/link", "file_not_directory"),
            ("t", "invalid_path"),
            ("/t/../t", "invalid_path"),
        ],
    )
    def test_what_cannot_be_watched(self, top: Path, path: str, code: str) -> None:
        (top / "file").touch()
        (top / "link").symlink_to(top)
        with pytest.raises(Problem) as caught:
            Watches(Root(str(top.parent))).poll("s", path, True, None, 0, lambda: False)
        assert caught.value.code == code

    def test_watches_are_bounded_and_each_lost_one_is_said(self, top: Path) -> None:
        many, threads = Watches(Root(str(top.parent))), threading.active_count()
        lasts = []
        for n in range(watches.MAX_WATCHES + 40):
            (top / str(n)).mkdir()
            lasts.append(many.poll("s", f"/t/{n}", True, None, 0, lambda: False)["last"])
        until(lambda: threading.active_count() <= threads + watches.MAX_WATCHES)
        assert many.poll("s", "/t/0", True, lasts[0], 0, lambda: False)["lost"]
        assert not many.poll("s", f"/t/{n}", True, lasts[n], 0, lambda: False)["lost"]
        many.poll("another", "/t", True, None, 0, lambda: False)
        until(lambda: threading.active_count() <= threads + 1)

    def test_more_folders_than_may_be(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watches, "MAX_FOLDERS", 10)
        reader = Reader(top.parent)
        for n in range(12):
            (top / str(n)).mkdir()
        with pytest.raises(Problem, match="folders are watched below") as caught:
            reader.until(("create", "/t/never", None, True))
        assert caught.value.code == "too_large"
        with pytest.raises(Problem, match="without recursive"):
            raise Problem("", str(caught.value.hint))

    def test_equal_paths_share_one(self, top: Path) -> None:
        many = Watches(Root(str(top.parent)))
        for path in ("/t", "/t/", "//t", "/./t"):
            many.poll("s", path, True, None, 0, lambda: False)
        assert len(many._watches) == 1

    def test_one_without_readers_ends(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watches, "KEEP_SECONDS", 0.2)
        threads = threading.active_count()
        Reader(top.parent)
        until(lambda: threading.active_count() == threads)


def _child(agent: Agent) -> int:
    assert agent.process is not None
    return agent.process.pid


def _upto(reader: Reader, name: str) -> list[Told]:
    (reader.top / name).mkdir()
    return reader.until(("create", f"/t/{name}", None, True))


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _work(top: Path, steps: int) -> None:
    chance = random.Random(int(os.environ.get("RT_TEST_SEED", "7")))
    for n in range(steps):
        folders = [top, *(p for p in top.rglob("*") if p.is_dir())]
        files = [p for p in top.rglob("*") if p.is_file()]
        into = chance.choice(folders)
        match chance.randrange(6):
            case 0 | 1:
                (into / f"d{n}").mkdir()
            case 2:
                (into / f"f{n}").write_text("x")
            case 3 if files:
                chance.choice(files).unlink()
            case 4 if len(folders) > 1:
                moved = chance.choice(folders[1:])
                if not into.is_relative_to(moved):
                    moved.rename(into / f"m{n}")
            case 5 if len(folders) > 5:
                shutil.rmtree(chance.choice(folders[1:]))
