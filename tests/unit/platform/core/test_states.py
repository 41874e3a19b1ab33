from __future__ import annotations

import pytest

from runtools.errors import IllegalMove, SandboxStopped
from runtools.platform.core.states import MOVES, Act, State, check, is_settled

LEGAL = {
    (Act.CREATE, State.CREATING): State.RUNNING,
    (Act.PAUSE, State.RUNNING): State.PAUSED,
    (Act.RESUME, State.PAUSED): State.RUNNING,
    (Act.SNAPSHOT, State.RUNNING): None,
    (Act.SNAPSHOT, State.PAUSED): None,
    (Act.ROLLBACK, State.RUNNING): None,
    (Act.ROLLBACK, State.PAUSED): None,
    (Act.FORK, State.RUNNING): None,
    (Act.FORK, State.PAUSED): None,
    (Act.DESTROY, State.CREATING): State.STOPPED,
    (Act.DESTROY, State.RUNNING): State.STOPPED,
    (Act.DESTROY, State.PAUSED): State.STOPPED,
    (Act.RECOVER, State.STOPPED): None,
    (Act.RECOVER, State.PAUSED): None,
}
EVERY = [(act, state) for act in Act for state in State]


def test_every_act_has_a_move():
    assert set(MOVES) == set(Act)


@pytest.mark.parametrize(("act", "state"), [pair for pair in EVERY if pair in LEGAL])
def test_a_legal_move_leads_where_the_table_says(act, state):
    assert check(act, state, "sandbox-x").to == LEGAL[act, state]


@pytest.mark.parametrize(("act", "state"), [pair for pair in EVERY if pair not in LEGAL])
def test_every_other_move_is_refused_by_name(act, state):
    wanted = SandboxStopped if state is State.STOPPED else IllegalMove
    with pytest.raises(wanted, match=f"cannot {act} sandbox-x"):
        check(act, state, "sandbox-x")


@pytest.mark.parametrize(
    ("act", "state"),
    [(Act.PAUSE, State.PAUSED), (Act.RESUME, State.RUNNING), (Act.DESTROY, State.STOPPED)],
)
def test_an_act_whose_result_holds_is_settled(act, state):
    assert [s for s in State if is_settled(act, s)] == [state]
