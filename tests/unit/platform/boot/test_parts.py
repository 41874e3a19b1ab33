from __future__ import annotations

import os

import pytest

from runtools.errors import InvalidRequest, Unavailable
from runtools.platform.api.callers import parts as known
from runtools.platform.boot import parts
from runtools.platform.boot.people import Person
from runtools.platform.kit.config import Settings
from runtools.platform.kit.crypto import digest

ME = Person("me", os.geteuid(), os.getegid())


@pytest.fixture
def settings(tmp_path):
    made = Settings(home=tmp_path)
    made.run_folder.mkdir()
    return made


class TestMake:
    def test_each_part_is_known_by_a_token_that_its_user_alone_can_read(self, settings):
        parts.make(settings, {"worker": ME, "gateway": ME}, ME)
        for part in ("worker", "gateway"):
            file = settings.token_file(part)
            at = file.stat()
            assert (at.st_mode & 0o777, at.st_uid) == (0o600, ME.uid)
            token = parts.token(settings, part)
            caller = known.of(settings).caller(digest(token))
            assert (caller.kind, caller.id, caller.org_id) == ("part", part, None)
            assert token not in settings.parts_file.read_text()
        assert settings.parts_file.stat().st_mode & 0o777 == 0o600

    def test_another_start_makes_others(self, settings):
        parts.make(settings, {"worker": ME}, ME)
        before = parts.token(settings, "worker")
        parts.make(settings, {"worker": ME}, ME)
        assert known.of(settings).caller(digest(before)) is None

    @pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
    def test_a_token_belongs_to_who_the_part_runs_as(self, settings):
        parts.make(settings, {"worker": Person("other", 12345, 12345)}, ME)
        assert settings.token_file("worker").stat().st_uid == 12345
        assert settings.parts_file.stat().st_uid == ME.uid


class TestToken:
    def test_none_says_who_makes_one(self, settings):
        with pytest.raises(Unavailable, match="has no token") as refused:
            parts.token(settings, "worker")
        assert "part_token_file" in refused.value.hint

    def test_something_else_is_no_token(self, settings):
        settings.token_file("worker").write_text("rt_live_1234567890123456789012345678901234567890")
        with pytest.raises(InvalidRequest) as refused:
            parts.token(settings, "worker")
        assert "rt_live" not in str(refused.value)


class TestElsewhere:
    def test_a_part_on_another_machine_is_known_beside_ours(self, tmp_path, settings):
        parts.make(settings, {"worker": ME}, ME)
        token = "rt_part_" + "x" * 43
        (tmp_path / "theirs").write_text(
            f"# the worker on the other machine\nworker {digest(token)}\n"
        )
        (tmp_path / "token").write_text(token + "\n")
        api = Settings(home=tmp_path, part_digests=str(tmp_path / "theirs"))
        there = Settings(home=tmp_path / "far", part_token_file=str(tmp_path / "token"))
        both = known.of(api)
        assert both.caller(digest(parts.token(there, "worker"))).id == "worker"
        assert both.caller(digest(parts.token(settings, "worker"))).id == "worker"

    @pytest.mark.parametrize("line", ["worker abc", "cook " + "0" * 64, "worker"])
    def test_a_line_that_says_nothing_is_named(self, tmp_path, line):
        (tmp_path / "theirs").write_text(f"\n{line}\n")
        with pytest.raises(InvalidRequest, match="line 2"):
            known.of(Settings(home=tmp_path, part_digests=str(tmp_path / "theirs")))

    def test_a_file_that_is_not_there_is_told(self, tmp_path):
        with pytest.raises(InvalidRequest, match="part_digests"):
            known.of(Settings(home=tmp_path, part_digests=str(tmp_path / "nowhere")))
