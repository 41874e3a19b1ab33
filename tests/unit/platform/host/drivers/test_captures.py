"""A capture's folder, and refusing by name what does not fit."""

from __future__ import annotations

import os

import pytest

from runtools.errors import SnapshotUnfit
from runtools.platform.core.ports.driver import VmmFailed
from runtools.platform.host.drivers.qemu.captures import Capture

PRINT = {"vmm": "10.0.2", "accelerator": "tcg", "memoryMb": "1024"}


@pytest.fixture
def capture(tmp_path):
    made = Capture(tmp_path)
    made.begin()
    os.close(made.create(made.ram))
    return made


def test_one_that_is_complete_and_fits_is_taken(capture):
    capture.complete(PRINT)
    capture.check(PRINT)


def test_what_differs_is_named(capture):
    capture.complete(PRINT)
    with pytest.raises(SnapshotUnfit, match="vmm changed") as caught:
        capture.check({**PRINT, "vmm": "11.0"})
    assert caught.value.details["differs"] == {"vmm": {"saved": "10.0.2", "now": "11.0"}}


def test_one_that_is_not_complete_is_none(capture):
    with pytest.raises(VmmFailed, match="no complete capture"):
        capture.check(PRINT)


@pytest.mark.parametrize("sheet", ["", "{", "[]", '{"version": 1}'])
def test_a_damaged_sheet_is_none(capture, tmp_path, sheet):
    (tmp_path / "capture.json").write_text(sheet)
    with pytest.raises(VmmFailed):
        capture.check(PRINT)


def test_a_new_one_takes_nothing_of_half_an_old_one(capture, tmp_path):
    capture.complete(PRINT)
    again = Capture(tmp_path)
    again.begin()
    assert not again.ram.exists()
    with pytest.raises(VmmFailed):
        again.check(PRINT)


def test_only_root_finds_its_way_to_the_memory(capture):
    assert capture.ram.parent.stat().st_mode & 0o777 == 0o700
