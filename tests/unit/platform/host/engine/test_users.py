"""Which user a machine is given."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtools.platform.host.engine.engine import Engine


@dataclass
class Users:
    """A driver that knows who still runs."""

    busy: set[int] = field(default_factory=set)

    def vacant(self, uid: int) -> bool:
        return uid not in self.busy


@dataclass
class Box:
    mine: set[int]

    def uids(self) -> set[int]:
        return self.mine


def test_no_user_is_given_out_while_something_runs_as_it():
    """Not even one whose sandbox is gone from the records."""
    engine = Engine.__new__(Engine)
    engine.first_uid, engine.driver = 7000, Users({7001, 7002})
    engine.kept_uids = set()
    engine.actors = {"one": Box({7000})}
    assert engine.free_uid() == 7003
    engine.driver.busy.clear()
    assert engine.free_uid() == 7001
    engine.kept_uids = {7001}
    assert engine.free_uid() == 7002
