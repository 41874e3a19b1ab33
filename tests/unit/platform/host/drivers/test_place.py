"""A machine's files, some of which its VMM may have replaced."""

from __future__ import annotations

import os

import pytest

from runtools.platform.host.drivers.qemu.place import Occupied, Pids, Place, Run


def test_folders_are_nobody_elses(place):
    assert place.folder.stat().st_mode & 0o777 == 0o700
    assert place.held.stat().st_mode & 0o777 == 0o700
    assert place.box.stat().st_mode & 0o777 == 0o711


class TestLock:
    def test_is_one_vmms(self, place):
        fd = place.take()
        assert place.occupied()
        with pytest.raises(Occupied):
            place.take()
        os.close(fd)
        assert not place.occupied()

    def test_is_kept_by_whoever_inherits_it(self, place):
        fd = place.take()
        inherited = os.dup(fd)
        os.close(fd)
        assert place.occupied()
        os.close(inherited)
        assert not place.occupied()

    def test_of_a_machine_that_was_never_started_is_free(self, machine):
        assert not Place(machine).occupied()
        assert Place(machine).pids() is None
        assert not Place(machine).used()


class TestWhatTheHolderWrites:
    def test_is_read(self, place):
        (place.held / "pid").write_text("123 120\n")
        (place.held / "exit").write_text("137\n")
        assert place.pids() == Pids(vmm=123, holder=120)
        assert place.exit_status() == 137

    @pytest.mark.parametrize("text", ["", "1", "1 x", "1 2 3", "-1 2"])
    def test_is_not_believed_in_another_form(self, place, text):
        (place.held / "pid").write_text(text)
        (place.held / "exit").write_text(f"{text} x")
        assert place.pids() is None
        assert place.exit_status() is None

    def test_is_gone_before_the_next_vmm(self, place):
        (place.held / "pid").write_text("123 120\n")
        (place.held / "exit").write_text("0\n")
        place.prepare()
        assert place.pids() is None
        assert place.exit_status() is None


class TestTraps:
    """What a VMM that a guest has taken over may leave for us to read."""

    def test_a_link_is_not_followed(self, place, tmp_path):
        (tmp_path / "secret").write_text("1 2")
        place.ram.symlink_to(tmp_path / "secret")
        place.state.symlink_to(tmp_path / "secret")
        for opening in (lambda: place.open("ram"), place.open_state):
            with pytest.raises(OSError, match="symbolic links"):
                opening()

    def test_a_pipe_does_not_hold_us_up(self, place):
        os.mkfifo(place.ram)
        with pytest.raises(OSError, match="no plain file"):
            place.open("ram")

    def test_what_it_writes_is_not_taken_for_its_holders_word(self, place):
        for name in ("pid", "exit", "console", "messages"):
            (place.box / name).write_text("1 2")
        assert place.pids() is None
        assert place.exit_status() is None
        assert place.console(10) == place.messages() == []

    def test_a_box_that_it_closed_is_opened_again(self, place):
        place.box.chmod(0)
        place.prepare()
        assert place.box.stat().st_mode & 0o777 == 0o711

    def test_endless_messages_are_read_in_part(self, place):
        with (place.held / "messages").open("wb") as file:
            file.truncate(1 << 40)
        assert len("".join(place.messages())) <= 1 << 18


class TestConsole:
    def test_goes_over_its_files_in_order(self, place):
        (place.held / "console.2").write_text("one\ntwo\n")
        (place.held / "console.1").write_text("three\r\nfo")
        (place.held / "console").write_text("ur\nfive")
        assert place.console(100) == ["one", "two", "three", "four", "five"]
        assert place.console(2) == ["four", "five"]

    def test_of_nothing_is_nothing(self, place):
        assert place.console(10) == []

    def test_is_kept_through_a_resume_and_stays_within_bounds(self, place):
        for life in range(20):
            with (place.held / "console").open("a") as file:
                file.write(f"life {life}\n" + "x" * 100_000 + "\n")
            place.prepare()
        kept = sum(path.stat().st_size for path in place.held.glob("console*") if path.is_file())
        assert kept < 1 << 20
        assert "life 19" in place.console(1000)


class TestNotes:
    def test_how_it_was_started(self, place):
        run = Run({"vmm": "10.0"}, private=True)
        place.note_run(run)
        assert place.run() == run
        assert place.used()

    def test_a_state_counts_when_it_is_kept(self, place):
        place.fresh_state.write_bytes(b"devices")
        assert not place.state.exists()
        place.keep_state({"vmm": "10.0"})
        assert place.state.read_bytes() == b"devices"
        assert place.state_fingerprint() == {"vmm": "10.0"}

    def test_another_life_begins_with_nothing(self, place):
        place.fresh_state.write_bytes(b"devices")
        place.keep_state({})
        place.ram.write_bytes(b"ram")
        place.forget()
        assert not place.state.exists()
        assert not place.ram.exists()
