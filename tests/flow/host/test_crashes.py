"""Kill -9 at every named point: the next start makes it whole again, and nothing is lost."""

from __future__ import annotations

import os
import signal

import pytest
from tests.flow.host.conftest import fresh, order, sandbox_id, until
from tests.flow.host.crashing import Daemon, gone_or_refused

from runtools.platform.core.ports.host import Child
from runtools.platform.host.engine.points import CRASH_POINTS

SLEEPER = "sleep 10000 >/dev/null 2>&1 & echo $!"

# What the state of the sandbox may be afterwards, by the act that was cut off.
OUTCOMES = {
    "create": {"running"},
    "pause": {"running", "paused"},
    "resume": {"running", "paused"},
    "snapshot": {"running"},
    "rollback": {"running"},
    "fork": {"running"},
    "child": {"running"},
    "destroy": {"stopped"},
    "end": {"stopped"},
}


class Scene:
    """Two sandboxes, one of which nobody touches, and the act on the other."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.host = daemon, daemon.host
        self.subject = order()
        self.children = [Child(sandbox_id=sandbox_id()) for _ in range(2)]
        self.op, self.snapshot_id = fresh("op"), fresh("snp_")

    @property
    def id(self) -> str:
        return self.subject.sandbox_id

    async def set(self, act: str) -> None:
        """What must be there before the act."""
        self.keeper = (await self.host.create(order())).sandbox_id
        self.pid = await self.daemon.sh(self.keeper, SLEEPER)
        if act == "create":
            return
        await self.host.create(self.subject)
        await self.daemon.sh(self.id, "echo kept > /workspace/x")
        if act == "resume":
            await self.host.pause(self.id, fresh("op"), "key_test")
        if act == "rollback":
            await self.host.snapshot(self.id, fresh("op"), "key_test", self.snapshot_id)
            await self.daemon.sh(self.id, "echo later > /workspace/x")

    def play(self, act: str):
        """The act itself."""
        host, op = self.host, self.op
        match act:
            case "create":
                return host.create(self.subject)
            case "snapshot":
                return host.snapshot(self.id, op, "key_test", self.snapshot_id)
            case "rollback":
                return host.rollback(self.id, op, "key_test", self.snapshot_id)
            case "fork" | "child":
                return host.fork(self.id, op, "key_test", self.children)
            case "end":
                return self._end()
            case _:
                return getattr(host, act)(self.id, op, "key_test")

    async def _end(self):
        os.kill(self.daemon.first_pid(self.id), signal.SIGKILL)

    async def keeper_lives(self) -> None:
        assert await self.daemon.sh(self.keeper, "pgrep sleep") == self.pid


@pytest.fixture
async def daemon(home):
    made = Daemon(home)
    yield made
    await made.close()


# Points that the sandboxes of the scene pass before the one that is meant does.
_PASSED = {"create": 1}


@pytest.mark.parametrize("point", CRASH_POINTS)
async def test_a_kill_at_any_point_is_survived(daemon, point):
    act = point.partition(".")[0]
    scene = Scene(daemon)
    await daemon.start(f"{point}#{_PASSED.get(act, 0) + 1}")
    await scene.set(act)
    said = await gone_or_refused(scene.play(act))
    assert await daemon.dead() == -signal.SIGKILL, f"the act came back with {said}"

    await daemon.start()
    records = await daemon.check()
    await scene.keeper_lives()
    assert records[scene.id].state in OUTCOMES[act]
    if act in ("fork", "child"):
        for child in scene.children:
            assert child.sandbox_id not in records or records[child.sandbox_id].state in (
                "running",
                "stopped",
            )
    if records[scene.id].state != "stopped":
        text = await daemon.sh(scene.id, "cat /workspace/x || true")
        assert text in {"create": {""}, "rollback": {"kept", "later"}}.get(act, {"kept"})
    await _repeat(scene, act)
    await daemon.check()


async def _repeat(scene: Scene, act: str) -> None:
    """The caller asks again with the same op, as one does who got no answer."""
    if act == "end":
        return
    told = await gone_or_refused(scene.play(act))
    if act in ("fork", "child"):
        # Ids of children that came to nothing are used up; that is said instead of made up for.
        assert told in ("done", "unavailable")
    else:
        assert told == "done"
    if act == "rollback":
        assert await scene.daemon.sh(scene.id, "cat /workspace/x") == "kept"
        await scene.daemon.sh(scene.id, "echo after > /workspace/x")
        assert await gone_or_refused(scene.play(act)) == "done"
        assert await scene.daemon.sh(scene.id, "cat /workspace/x") == "after"


async def test_a_create_that_kills_the_host_each_time_is_given_up(daemon):
    wish = order()
    await daemon.start("create.started")
    assert await gone_or_refused(daemon.host.create(wish)) == "cut off"
    await daemon.dead()
    process_died = _until_dead_at_start(daemon, "create.started")
    await process_died
    await daemon.start("create.started")
    records = await daemon.check()
    assert records[wish.sandbox_id].ending.cause == "start_failed"


async def _until_dead_at_start(daemon, point):
    try:
        await daemon.start(point)
    except AssertionError:
        return  # it died before it answered
    await daemon.dead()


async def test_reports_miss_nothing_over_a_kill(daemon):
    await daemon.start()
    wish = order()
    await daemon.host.create(wish)
    await daemon.kill()
    await daemon.start()
    await daemon.host.pause(wish.sandbox_id, fresh("op"), "key_test")
    seen = []

    async def follow():
        async for report in daemon.host.reports(1, 0):
            seen.append((report.epoch, report.state, report.operation))
            if report.state == "paused":
                return

    await until(_once(follow), "the end of the reports")
    assert seen[:2] == [(1, "creating", "starting"), (1, "running", None)]
    assert seen[2:] == [(2, "running", None), (2, "running", "pausing"), (2, "paused", None)]


def _once(act):
    """A condition that does the act, and holds when it has been done."""

    async def condition():
        await act()
        return True

    return condition
