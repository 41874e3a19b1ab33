"""Whose build is next."""

from __future__ import annotations

from runtools.platform.host.templates.turns import Turn, Turns


def order_of(turns: Turns, asked: list[Turn]) -> list[int]:
    """In which order turns come, each ended at once."""
    left, order = list(asked), []
    while left:
        (one,) = [turn for turn in left if turn.come.done()]
        order.append(asked.index(one))
        left.remove(one)
        turns.end(one)
    return order


class TestTurns:
    async def test_of_one_org_in_the_order_asked(self) -> None:
        turns = Turns()
        asked = [turns.ask("a") for _ in range(4)]
        assert [before for _, before in asked] == [0, 1, 2, 3]
        assert order_of(turns, [turn for turn, _ in asked]) == [0, 1, 2, 3]

    async def test_another_org_comes_next_however_many_the_first_has(self) -> None:
        turns = Turns()
        asked = [turns.ask(org) for org in ("a", "a", "a", "b", "b", "c")]
        assert [before for _, before in asked] == [0, 1, 2, 1, 3, 2]
        assert order_of(turns, [turn for turn, _ in asked]) == [0, 3, 5, 1, 4, 2]

    async def test_who_had_a_turn_lately_waits_for_who_had_not(self) -> None:
        turns = Turns()
        first, _ = turns.ask("b")
        turns.end(first)
        asked = [turns.ask(org)[0] for org in ("a", "a", "b", "c")]
        assert order_of(turns, asked) == [0, 3, 2, 1]

    async def test_who_waits_no_more_is_passed_over(self) -> None:
        turns = Turns()
        asked = [turns.ask(org)[0] for org in ("a", "b", "b", "a")]
        turns.end(asked[1])
        asked[2].come.cancel()  # its task was cancelled, and has not said so yet
        turns.end(asked[0])
        assert asked[3].come.done()
        turns.end(asked[2])
        turns.end(asked[3])
        assert turns.ask("b")[1] == 0
