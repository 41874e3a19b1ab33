"""What the soak would see: a byte that is not what it was, in memory, in a file, in what was saved."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtools.platform.core.ports.host import Sizes
from runtools.testing.fake_host import FakeHost
from runtools.testing.integrity import cycles, keeper, saved
from runtools.testing.integrity.known import Known, Mismatch


@pytest.fixture
def known() -> Known:
    return Known.fresh("seed", memory_mb=20, files=3, file_mb=2)


@pytest.fixture
def held(tmp_path: Path, known: Known) -> keeper.Keeper:
    order = json.loads(json.dumps(known.order()))
    return keeper.Keeper(tmp_path, order["memory"], order["files"])


class TestKeeper:
    def test_it_holds_what_it_was_told_to_over_many_turns(self, held, known):
        known = known.met(held.look())
        for turn in range(3):
            known, order = known.turn(f"seed/{turn}")
            known = known.met(held.turn(order["memory"], order["files"]))
        assert known.turns == 3

    def test_a_flipped_bit_in_memory_is_named(self, held, known):
        held._memory[7 * keeper.BLOCK + 12345] ^= 1
        with pytest.raises(Mismatch) as caught:
            known.met(held.look())
        assert [one["block"] for one in caught.value.facts["memory_blocks"]] == [7]

    def test_a_file_that_changed_is_named(self, held, known, tmp_path):
        with (tmp_path / "file-1").open("r+b") as file:
            file.seek(keeper.BLOCK + 1)
            file.write(b"\0\0")
        with pytest.raises(Mismatch) as caught:
            known.met(held.look())
        assert [one["block"] for one in caught.value.facts["file-1"]] == [1]

    def test_a_file_that_lost_its_end_is_named(self, held, known, tmp_path):
        os.truncate(tmp_path / "file-2", keeper.BLOCK)
        with pytest.raises(Mismatch, match="file-2"):
            known.met(held.look())

    def test_a_state_of_an_earlier_turn_is_seen(self, held, known):
        before = held.look()
        after, order = known.turn("seed/1")
        held.turn(order["memory"], order["files"])
        with pytest.raises(Mismatch, match="memory_blocks"):
            after.met(before)

    def test_what_belongs_to_a_sibling_is_seen(self, held, known):
        mine, _ = known.turn("seed/1/parent")
        _, order = known.turn("seed/1/child")
        with pytest.raises(Mismatch, match="memory_blocks"):
            mine.met(held.turn(order["memory"], order["files"]))

    def test_another_process_is_seen(self, held, known):
        known = known.met(held.look())
        with pytest.raises(Mismatch, match="pid"):
            known.met({**held.look(), "pid": os.getpid() + 1})


class TestProgram:
    @pytest.fixture
    def ask(self, tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
        running = subprocess.Popen([sys.executable, keeper.__file__, str(tmp_path)])

        def ask(order: dict[str, Any]) -> dict[str, Any]:
            while not (tmp_path / "answer").exists():
                assert running.poll() is None
            (tmp_path / "order").write_text(json.dumps(order))
            said: dict[str, Any] = json.loads((tmp_path / "answer").read_text())
            return said

        yield ask
        running.kill()
        running.wait()

    def test_it_answers_each_order(self, ask, known):
        known = known.met(ask(known.order()))
        known, order = known.turn("seed/1")
        assert known.met(ask(order)).turns == 1


class TestSaved:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "vmm/box").mkdir(parents=True)
        for name in saved.FILES:
            with (tmp_path / name).open("wb") as file:
                file.truncate(8 << 20)
                file.seek(3 << 20)
                file.write(random.Random(name).randbytes(100_000))
        return tmp_path

    def test_nothing_changed(self, folder):
        found = saved.digests(folder)
        saved.compare(found, saved.digests(folder))
        assert [sorted(blocks) for blocks in found.values()] == [[3]] * 3

    @pytest.mark.parametrize("name", saved.FILES)
    @pytest.mark.parametrize("at", [(3 << 20) + 99_999, 8 << 20, 0])
    def test_one_byte_is_named(self, folder, name, at):
        before = saved.digests(folder)
        with (folder / name).open("r+b") as file:
            file.seek(at)
            file.write(b"\1")
        with pytest.raises(Mismatch) as caught:
            saved.compare(before, saved.digests(folder))
        assert caught.value.facts["megabytes"] == {name: [at >> 20]}

    def test_what_was_there_and_is_zeros_is_named(self, folder):
        before = saved.digests(folder)
        os.truncate(folder / "vmm/box/ram", 1 << 20)
        with pytest.raises(Mismatch, match="ram"):
            saved.compare(before, saved.digests(folder))

    def test_zeros_that_were_a_hole_are_no_change(self, folder):
        before = saved.digests(folder)
        with (folder / "overlay.img").open("r+b") as file:
            file.write(bytes(1 << 20))
        saved.compare(before, saved.digests(folder))


class TestLittleMemory:
    """Of the machine that is forked as one of which little is in use, the soak sees that it is one."""

    @pytest.fixture
    def played(self, tmp_path: Path) -> cycles.Cycles:
        sizes = Sizes(vcpus=1, memory_mb=1024, disk_mb=2048)
        return cycles.Cycles(FakeHost(tmp_path), tmp_path, "tpl_1", sizes, 1, lambda _: None)

    @pytest.mark.parametrize("megabytes", [20, 255])
    def test_so_much_is_little(self, tmp_path, played, known, megabytes):
        in_use(tmp_path, megabytes)
        played._check_small(cycles.Kept("sandbox-1", known))
        assert (played.small_forks, played.small_mb) == (1, megabytes)

    @pytest.mark.parametrize("megabytes", [19, 257])
    def test_more_is_not_nor_less_than_it_holds(self, tmp_path, played, known, megabytes):
        in_use(tmp_path, megabytes)
        with pytest.raises(Mismatch) as caught:
            played._check_small(cycles.Kept("sandbox-1", known))
        assert caught.value.facts["in_use_mb"] == megabytes
        assert played.small_forks == 0


def in_use(home: Path, megabytes: int) -> None:
    """The memory of a machine, of which so much was ever written."""
    file = home / "host/sandboxes/sandbox-1/1" / saved.MEMORY
    file.parent.mkdir(parents=True)
    with file.open("wb") as memory:
        memory.truncate(1 << 30)
        os.posix_fallocate(memory.fileno(), 0, megabytes << 20)
