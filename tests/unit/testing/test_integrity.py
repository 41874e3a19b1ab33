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

from runtools.testing.integrity import keeper, saved
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
