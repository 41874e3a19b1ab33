"""Each word once, whatever comes twice, late, in another attempt, or not at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtools.platform.api.frontends.speech import Change, Closed, Grown, Opened, Speech
from runtools.sdk.shapes.runs import Delta, Message


def piece(said: str, turn: int = 1, attempt: int = 1) -> Delta:
    return Delta(text=said, turn=turn, attempt=attempt)


def whole(said: str, thinking: str | None = None, turn: int = 1) -> Message:
    return Message(role="assistant", text=said, thinking=thinking, turn=turn)


def shown(changes: list[Change]) -> list[str]:
    """The parts that are shown, checked for their form."""
    parts: dict[str, str] = {}
    is_open: str | None = None
    for change in changes:
        if isinstance(change, Opened):
            assert is_open is None
            assert change.id not in parts
            is_open, parts[change.id] = change.id, ""
        else:
            assert is_open == change.id
            if isinstance(change, Grown):
                assert change.text
                parts[change.id] += change.text
            else:
                assert isinstance(change, Closed)
                is_open = None
    assert is_open is None
    return list(parts.values())


def test_what_was_heard_is_not_said_again() -> None:
    speech = Speech()
    changes = speech.hear("text", piece("Hel")) + speech.hear("text", piece("lo"))
    assert shown(changes + speech.settle(whole("Hello"))) == ["Hello"]


def test_from_the_log_alone() -> None:
    assert shown(Speech().settle(whole("Hello", thinking="Hm."))) == ["Hm.", "Hello"]


def test_who_came_in_the_middle() -> None:
    speech = Speech()
    changes = speech.hear("text", piece("lo"))
    assert shown(changes + speech.settle(whole("Hello"))) == ["lo", "Hello"]


def test_who_is_told_so_waits_for_the_whole() -> None:
    speech = Speech()
    late = Delta(text="lo", turn=1, attempt=1, offset=3)
    assert shown(speech.hear("text", late) + speech.settle(whole("Hello"))) == ["Hello"]


def test_after_a_piece_that_was_lost_nothing_is_shown_until_the_end() -> None:
    speech, changes = Speech(), list[Change]()
    for text, offset in (("Hel", 0), (" wor", 5), ("ld", 9)):
        changes += speech.hear("text", Delta(text=text, turn=1, attempt=1, offset=offset))
    assert shown(changes + speech.settle(whole("Hello world"))) == ["Hello world"]


def test_the_end_was_lost() -> None:
    speech = Speech()
    changes = speech.hear("thinking", piece("H")) + speech.hear("text", piece("Hel"))
    assert shown(changes + speech.settle(whole("Hello", "Hm."))) == ["H", "Hel", "m.", "lo"]


def test_another_attempt_begins_anew_and_the_one_before_is_late() -> None:
    speech = Speech()
    changes = speech.hear("text", piece("Hal"))
    changes += speech.hear("text", piece("Hel", attempt=2))
    changes += speech.hear("text", piece("t!", attempt=1))
    changes += speech.hear("text", piece("lo", attempt=2))
    changes += speech.settle(whole("Hello"))
    changes += speech.hear("text", piece("lo", attempt=2))
    assert shown(changes) == ["Hal", "Hello"]


def test_no_part_of_another_turn_or_attempt_has_its_name() -> None:
    """Who reads on in another stream has an account of parts of its own."""
    names = []
    for turn, attempt in ((1, 1), (1, 2), (2, 1)):
        changes = Speech().hear("text", piece("a", turn, attempt))
        names += [one.id for one in changes if isinstance(one, Opened)]
    assert len(set(names)) == 3


def test_an_answer_without_words() -> None:
    assert shown(Speech().settle(whole(""))) == []


@given(st.lists(st.text(min_size=1, max_size=5), max_size=8), st.sets(st.integers(0, 7)))
def test_nothing_is_missing_at_the_end(pieces: list[str], lost: set[int]) -> None:
    speech = Speech()
    changes: list[Change] = []
    for number, said in enumerate(pieces):
        if number not in lost:
            changes += speech.hear("text", piece(said))
    changes += speech.settle(whole("".join(pieces)))
    parts = shown(changes)
    assert "".join(pieces) in ("".join(parts), parts[-1] if parts else "")
