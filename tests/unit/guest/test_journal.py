from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtools.guest.journal import Journal, digest
from runtools.guest.problems import Problem


def never() -> bool:
    return False


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


class TestRepeats:
    def test_are_answered(self, folder: str) -> None:
        journal = Journal(folder)
        assert journal.begin("a", "d")
        journal.end("a", b"answer")
        assert not journal.begin("a", "d")
        assert journal.answer("a", never) == b"answer"

    def test_of_another_request_are_refused(self, folder: str) -> None:
        journal = Journal(folder)
        journal.begin("a", digest(b"one"))
        with pytest.raises(Problem) as caught:
            journal.begin("a", digest(b"two"))
        assert caught.value.code == "idempotency_mismatch"

    def test_wait_for_the_end(self, folder: str) -> None:
        journal = Journal(folder)
        journal.begin("a", "d")
        answers: list[bytes | None] = []
        thread = threading.Thread(target=lambda: answers.append(journal.answer("a", never)))
        thread.start()
        journal.end("a", b"late")
        thread.join(10)
        assert answers == [b"late"]

    def test_give_up_when_nobody_waits_any_more(self, folder: str) -> None:
        journal = Journal(folder)
        journal.begin("a", "d")
        assert journal.answer("a", lambda: True) is None

    def test_of_what_was_abandoned_begin_anew(self, folder: str) -> None:
        journal = Journal(folder)
        journal.begin("a", "d")
        journal.abandon("a")
        assert journal.answer("a", never) is None
        assert journal.begin("a", "d")


class TestAfterARestart:
    def test_answers_are_there(self, folder: str) -> None:
        before = Journal(folder)
        for i in range(5):
            before.begin(f"{i}", f"d{i}")
            before.end(f"{i}", b"\n{}\0" * i + b"!")
        after = Journal(folder)
        assert not after.begin("3", "d3")
        assert after.answer("3", never) == b"\n{}\0" * 3 + b"!"
        with pytest.raises(Problem, match="another request"):
            after.begin("3", "d")

    def test_what_was_under_way_is_lost(self, folder: str) -> None:
        before = Journal(folder)
        before.begin("a", "d", {"group": "g"})
        before.amend("a", {"pid": 7})
        after = Journal(folder)
        assert after.lost() == {"a": {"group": "g", "pid": 7}}
        after.tell("a", {"running": True})
        with pytest.raises(Problem) as caught:
            after.answer("a", never)
        assert caught.value.code == "outcome_unknown"
        assert caught.value.details == {"running": True, "pid": 7}

    def test_what_was_abandoned_is_free(self, folder: str) -> None:
        before = Journal(folder)
        before.begin("a", "d")
        before.abandon("a")
        assert Journal(folder).begin("a", "d")

    @given(st.data())
    def test_a_torn_end_loses_no_earlier_answer(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        folder = tmp_path_factory.mktemp("j")
        before = Journal(str(folder))
        before.begin("a", "d")
        before.end("a", b"first")
        segment = next(folder.iterdir())
        whole = segment.stat().st_size
        before.begin("b", "d")
        before.end("b", b"second" * 20)
        cut = data.draw(st.integers(whole, segment.stat().st_size - 1))
        with segment.open("r+b") as file:
            file.truncate(cut)
        after = Journal(str(folder))
        assert after.answer("a", never) == b"first"
        if after.begin("b", "d"):
            return
        with pytest.raises(Problem, match="nobody saw"):
            after.answer("b", never)

    @pytest.mark.parametrize(
        "rubbish", [b"\0\0\0", b"{}\n", b"[]\n", b'{"t":"end","id":"x"}\n', b"7\n"]
    )
    def test_rubbish_does_not_stop_it(self, folder: str, rubbish: bytes) -> None:
        Path(folder).mkdir()
        (Path(folder) / "1").write_bytes(rubbish)
        (Path(folder) / "notes.txt").write_bytes(rubbish)
        assert Journal(folder).begin("a", "d")


class TestBounds:
    def test_old_answers_go_but_are_known_to_have_been_given(self, folder: str) -> None:
        journal = Journal(folder, max_bytes=8 << 20)
        for i in range(10):
            journal.begin(f"{i}", "d")
            journal.end(f"{i}", bytes(2 << 20))
        size = sum(f.stat().st_size for f in Path(folder).iterdir())
        assert size <= (8 << 20) + (3 << 20)
        assert not journal.begin("0", "d")
        with pytest.raises(Problem) as caught:
            journal.answer("0", never)
        assert caught.value.details == {"done": True}
        assert journal.answer("9", never) == bytes(2 << 20)

    def test_ids_are_bounded_too(self, folder: str) -> None:
        journal = Journal(folder, max_ids=10)
        journal.begin("running", "d")
        for i in range(30):
            journal.begin(f"{i}", "d")
            journal.end(f"{i}", b"x")
        assert journal.begin("0", "d")
        assert not journal.begin("29", "d")
        assert not journal.begin("running", "d")

    def test_what_runs_outlives_the_segment_it_began_in(self, folder: str) -> None:
        journal = Journal(folder, max_bytes=4 << 20)
        journal.begin("long", "d", {"group": "g"})
        for i in range(10):
            journal.begin(f"{i}", "d")
            journal.end(f"{i}", bytes(2 << 20))
        assert Journal(folder).lost() == {"long": {"group": "g"}}
