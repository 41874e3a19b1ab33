"""Ranges of user ids: one per home, whoever comes first."""

from __future__ import annotations

import shutil

import pytest

from runtools.errors import Conflict
from runtools.platform.boot import doctor, uids
from runtools.platform.kit.config import Settings


@pytest.fixture(autouse=True)
def claims(tmp_path, monkeypatch):
    monkeypatch.setattr(uids, "CLAIMS", tmp_path / "run/uids")
    return tmp_path / "run/uids"


def make(tmp_path, name):
    settings = Settings(home=tmp_path / name)
    settings.host_home.mkdir(parents=True)
    return settings


def test_a_home_keeps_its_range(tmp_path, claims):
    mine = make(tmp_path, "mine")
    first = uids.claim(mine, "abcdef")
    assert first >= uids.FLOOR
    assert first + uids.SIZE <= 2**31
    assert uids.claim(mine, "another") == first
    shutil.rmtree(claims)  # the machine was restarted
    assert uids.claim(mine, "another") == first


def test_two_whose_ids_fall_together_get_ranges_of_their_own(tmp_path):
    mine, other = make(tmp_path, "mine"), make(tmp_path, "other")
    first, second = uids.claim(mine, "abcdef"), uids.claim(other, "abcdef")
    assert abs(first - second) >= uids.SIZE
    assert uids.claim(mine, "abcdef") == first


def test_the_copy_of_a_home_is_refused_by_name(tmp_path):
    mine = make(tmp_path, "mine")
    uids.claim(mine, "abcdef")
    shutil.copytree(mine.home, tmp_path / "copy")
    with pytest.raises(Conflict, match=f"the platform at {mine.home}"):
        uids.claim(Settings(home=tmp_path / "copy"), "abcdef")


def test_a_home_that_was_moved_takes_its_range_along(tmp_path):
    mine = make(tmp_path, "mine")
    first = uids.claim(mine, "abcdef")
    mine.home.rename(tmp_path / "moved")
    assert uids.claim(Settings(home=tmp_path / "moved"), "abcdef") == first


def test_the_last_range_is_followed_by_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(uids, "RANGES", 2)
    firsts = {uids.claim(make(tmp_path, name), "abcdef") for name in ("mine", "other")}
    assert firsts == {uids.FLOOR, uids.FLOOR + uids.SIZE}


async def test_the_doctor_names_who_has_it(tmp_path):
    mine = make(tmp_path, "mine")
    uids.claim(mine, "abcdef")
    assert "alone" in (await doctor._users(mine)).found
    shutil.copytree(mine.home, tmp_path / "copy")
    finding = await doctor._users(Settings(home=tmp_path / "copy"))
    assert (finding.ok, finding.level) == (False, "error")
    assert str(mine.home) in finding.found
