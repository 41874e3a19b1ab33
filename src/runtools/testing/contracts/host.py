"""What every host must do: acts on sandboxes, and what can be followed of them.

A test module subclasses `HostContract` (and those in `host_inside`) and gives it a ``hosts`` rig.
"""

from __future__ import annotations

import asyncio

import pytest

from runtools.errors import (
    BuildFailed,
    Conflict,
    IllegalMove,
    NotFound,
    SandboxStopped,
)
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.host import BuildOrder, Child
from runtools.testing.contracts.host_rig import ACTOR, HostRig


class HostActsContract:
    """Create, pause, resume, snapshot, rollback, fork, destroy."""

    async def test_a_created_sandbox_runs_and_says_how_it_started(self, hosts: HostRig) -> None:
        order = hosts.order()
        seen = await hosts.host.create(order)
        assert (seen.sandbox_id, seen.state, seen.operation) == (order.sandbox_id, "running", None)
        assert (seen.cause, seen.actor) == ("request", ACTOR)
        assert seen.started_from in {"warm", "cold"}
        assert seen.isolation in {"hardware", "emulated"}
        assert seen.timings is not None
        assert seen.timings.total_ms > 0

    async def test_its_environment_is_inside(self, hosts: HostRig) -> None:
        assert await hosts.sh(await hosts.running(), "echo $GREETING") == "hello"

    async def test_a_create_is_done_once(self, hosts: HostRig) -> None:
        order = hosts.order()
        first, second = await asyncio.gather(hosts.host.create(order), hosts.host.create(order))
        assert first.sandbox_id == second.sandbox_id
        assert (await hosts.host.view()).sandboxes_running == 1

    async def test_an_id_is_used_once(self, hosts: HostRig) -> None:
        box = await hosts.running()
        with pytest.raises(Conflict):
            await hosts.host.create(hosts.order(sandbox_id=box))

    async def test_a_paused_sandbox_goes_on_where_it_was(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.sh(box, "echo here > x")
        assert (await hosts.pause(box)).state == "paused"
        assert (await hosts.resume(box)).state == "running"
        assert await hosts.sh(box, "cat x") == "here"

    async def test_what_holds_already_is_no_error(self, hosts: HostRig) -> None:
        box = await hosts.paused()
        assert (await hosts.pause(box)).state == "paused"
        assert (await hosts.resume(box)).state == "running"
        assert (await hosts.resume(box)).state == "running"
        assert (await hosts.destroy(box)).state == "stopped"
        assert (await hosts.destroy(box)).state == "stopped"

    async def test_a_repeated_op_is_answered_and_not_done_again(self, hosts: HostRig) -> None:
        box, op = await hosts.running(), hosts.op()
        first = await hosts.host.pause(box, op, ACTOR)
        await hosts.resume(box)
        again = await hosts.host.pause(box, op, ACTOR)
        assert (again.seq, again.state) == (first.seq, first.state)
        assert await hosts.state(box) == "running"

    async def test_a_paused_one_can_be_recovered_from_and_stays(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.sh(box, "echo kept > x; sync")
        with pytest.raises(IllegalMove):
            await hosts.host.create(hosts.order(recover_from=box))
        await hosts.pause(box)
        seen = await hosts.host.create(hosts.order(recover_from=box))
        assert (seen.state, seen.started_from) == ("running", "recovery")
        assert await hosts.sh(seen.sandbox_id, "cat x") == "kept"
        assert await hosts.state(box) == "paused"
        await hosts.resume(box)
        assert await hosts.sh(box, "cat x") == "kept"

    async def test_what_it_does_is_counted(self, hosts: HostRig) -> None:
        before = await hosts.counts()
        box = await hosts.running()
        await hosts.sh(box, "true")
        await hosts.pause(box)
        await hosts.resume(box)
        await hosts.host.fork(box, hosts.op(), ACTOR, [Child(sandbox_id=hosts.child())])
        after = await hosts.counts()
        creates = "runtools_create_seconds_count"
        grown = {name: after[name] - before.get(name, 0) for name in after}
        assert sum(by for name, by in grown.items() if name.startswith(creates)) in (1, 2)
        assert grown["runtools_exec_seconds_count done"] == 1
        for act in ("pause", "resume", "fork"):
            assert grown[f"runtools_act_seconds_count {act} done"] == 1
        assert not any(box in name for name in after)

    async def test_acts_on_a_sandbox_wait_for_each_other(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await asyncio.gather(hosts.pause(box), hosts.resume(box), hosts.pause(box))
        assert await hosts.state(box) in {"running", "paused"}
        assert await hosts.sh(box, "echo on") == "on"

    async def test_a_destroyed_sandbox_can_be_asked_nothing(self, hosts: HostRig) -> None:
        box = await hosts.destroyed()
        for act in (hosts.pause, hosts.resume, hosts.snapshot):
            with pytest.raises(SandboxStopped):
                await act(box)
        with pytest.raises(SandboxStopped):
            await hosts.exec(box, "true")
        with pytest.raises(SandboxStopped):
            await hosts.host.stats(box)

    async def test_an_end_says_why(self, hosts: HostRig) -> None:
        seen = await hosts.destroy(await hosts.running())
        assert seen.ending is not None
        assert (seen.ending.cause, seen.cause, seen.actor) == ("request", "request", ACTOR)

    async def test_an_id_of_nobody_is_not_found(self, hosts: HostRig) -> None:
        nobody = "sandbox-nobody000000"
        for act in (hosts.pause, hosts.resume, hosts.destroy, hosts.snapshot):
            with pytest.raises(NotFound):
                await act(nobody)
        with pytest.raises(NotFound):
            await hosts.exec(nobody, "true")
        with pytest.raises(NotFound):
            await hosts.host.settled(nobody, 1)
        with pytest.raises(NotFound):
            await hosts.host.console(nobody, 1)
        with pytest.raises(NotFound):
            await hosts.host.set_limits(nobody, 1, None)
        with pytest.raises(NotFound):
            await hosts.host.hand_over(nobody, "org_other")

    async def test_its_limits_can_be_changed_while_it_is_there(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.host.set_limits(box, 600, 6000)
        assert (await hosts.exec(box, "true")).exit_code == 0
        await hosts.destroy(box)
        with pytest.raises(SandboxStopped):
            await hosts.host.set_limits(box, 600, None)

    async def test_it_can_be_handed_over_to_another_org(self, hosts: HostRig) -> None:
        box = await hosts.paused()
        await hosts.host.hand_over(box, "org_other")
        assert (await hosts.host.order(box)).org_id == "org_other"
        assert await hosts.state(box) == "paused"
        await hosts.destroy(box)
        with pytest.raises(SandboxStopped):
            await hosts.host.hand_over(box, "org_third")

    # --- snapshots and forks ---

    async def test_a_rollback_brings_the_kept_files_back(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.sh(box, "echo one > x")
        kept = await hosts.snapshot(box)
        for _ in range(2):
            await hosts.sh(box, "echo two > x; touch y")
            seen = await hosts.host.rollback(box, hosts.op(), ACTOR, kept)
            assert (seen.state, seen.operation) == ("running", None)
            assert await hosts.sh(box, "cat x; ls") == "one\nx"

    async def test_a_rollback_of_a_paused_sandbox(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.sh(box, "echo one > x")
        kept = await hosts.snapshot(box)
        await hosts.sh(box, "echo two > x")
        await hosts.pause(box)
        seen = await hosts.host.rollback(box, hosts.op(), ACTOR, kept)
        assert seen.state == "paused"
        assert await hosts.sh(box, "cat x") == "one"

    async def test_a_dropped_snapshot_is_gone(self, hosts: HostRig) -> None:
        box = await hosts.running()
        kept = await hosts.snapshot(box)
        await hosts.host.drop_snapshot(kept)
        with pytest.raises(NotFound):
            await hosts.host.rollback(box, hosts.op(), ACTOR, kept)
        with pytest.raises(NotFound):
            await hosts.host.drop_snapshot(kept)

    async def test_snapshots_end_with_their_sandbox(self, hosts: HostRig) -> None:
        box = await hosts.running()
        kept = await hosts.snapshot(box)
        await hosts.destroy(box)
        with pytest.raises(NotFound):
            await hosts.host.drop_snapshot(kept)

    @pytest.mark.parametrize("state", ["running", "paused"])
    async def test_children_are_copies_of_their_own(self, hosts: HostRig, state: str) -> None:
        box = await hosts.running()
        await hosts.sh(box, "echo mine > x")
        if state == "paused":
            await hosts.pause(box)
        children = [Child(sandbox_id=hosts.child()) for _ in range(2)]
        made = await hosts.host.fork(box, hosts.op(), ACTOR, children)
        assert [child.sandbox_id for child in made.children] == [c.sandbox_id for c in children]
        assert {child.started_from for child in made.children} == {"fork"}
        assert await hosts.state(box) == state
        one, two = (child.sandbox_id for child in children)
        await hosts.sh(one, "echo other > x")
        assert await hosts.sh(two, "cat x") == "mine"
        assert await hosts.sh(box, "cat x") == "mine"
        await hosts.destroy(box)
        assert await hosts.sh(one, "cat x") == "other"

    async def test_a_fork_is_done_once(self, hosts: HostRig) -> None:
        box, op, children = await hosts.running(), hosts.op(), [Child(sandbox_id=hosts.child())]
        first = await hosts.host.fork(box, op, ACTOR, children)
        assert await hosts.host.fork(box, op, ACTOR, children) == first
        assert (await hosts.host.view()).sandboxes_running == 2


class HostReportsContract:
    """What was observed, in order and without loss."""

    async def test_every_step_of_a_life_is_told_in_order(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.pause(box)
        await hosts.destroy(box)
        seen = await hosts.follow(0, 0, lambda s: s[-1].state == "stopped")
        epoch = seen[-1].epoch
        whole = await hosts.follow(epoch, 0, lambda s: s[-1].state == "stopped")
        mine = [report for report in whole if report.sandbox_id == box]
        states = [report.state for report in mine]
        assert [s for n, s in enumerate(states) if n == 0 or states[n - 1] != s] == [
            "creating",
            "running",
            "paused",
            "stopped",
        ]
        assert {report.operation for report in mine} >= {"pausing", None}
        assert [r.seq for r in whole] == sorted({r.seq for r in whole})

    async def test_a_follower_goes_on_where_it_was(self, hosts: HostRig) -> None:
        box = await hosts.running()
        last = (await hosts.host.settled(box, hosts.patience)).seq
        epoch = (await hosts.host.settled(box, hosts.patience)).epoch
        following = asyncio.create_task(
            hosts.follow(epoch, last, lambda s: s[-1].state == "paused")
        )
        await hosts.pause(box)
        seen = await following
        assert seen[0].seq > last
        assert {report.sandbox_id for report in seen} == {box}

    async def test_a_foreign_epoch_gets_the_latest_of_every_sandbox_first(
        self, hosts: HostRig
    ) -> None:
        one, two = await hosts.paused(), await hosts.running()
        seen = await hosts.follow(
            10**6, 0, lambda s: {report.sandbox_id for report in s} >= {one, two}
        )
        assert {r.sandbox_id: r.state for r in seen} == {one: "paused", two: "running"}
        assert len(seen) == 2

    async def test_settled_waits_for_what_is_under_way(self, hosts: HostRig) -> None:
        box = await hosts.running()
        pausing = asyncio.create_task(hosts.pause(box))
        seen = await hosts.host.settled(box, hosts.patience)
        await pausing
        assert seen.operation is None


class HostTemplatesContract:
    """Builds and space."""

    def _order(self, **changes: object) -> BuildOrder:
        fields: dict[str, object] = {
            "version_id": new_id("tpl"),
            "slug": "mine",
            "version": 1,
            "recipe": "base-debian",
            "apt": [],
            "run": None,
        }
        return BuildOrder.model_validate({**fields, **changes})

    async def test_a_build_is_followed_to_its_end(self, hosts: HostRig) -> None:
        order = self._order()
        await hosts.host.build(order)
        lines = [line async for line in hosts.host.build_log(order.version_id, 0)]
        built = await hosts.host.built(order.version_id)
        assert (built.state, built.error) == ("ready", None)
        assert [line.n for line in lines] == list(range(1, len(lines) + 1))
        rest = [line async for line in hosts.host.build_log(order.version_id, 2)]
        assert rest == lines[2:]

    async def test_a_repeat_says_how_it_stands(self, hosts: HostRig) -> None:
        order = self._order()
        await hosts.host.build(order)
        assert (await hosts.host.build(order)).version_id == order.version_id

    async def test_what_nobody_ordered_is_not_found(self, hosts: HostRig) -> None:
        with pytest.raises(NotFound):
            await hosts.host.built("tpl_nobody")
        with pytest.raises(NotFound):
            [line async for line in hosts.host.build_log("tpl_nobody", 0)]

    async def test_nothing_is_made_from_a_template_of_nobody(self, hosts: HostRig) -> None:
        with pytest.raises((NotFound, BuildFailed)):
            await hosts.host.create(hosts.order(template_version_id="tpl_nobody"))

    async def test_a_dropped_template_is_gone(self, hosts: HostRig) -> None:
        order = self._order()
        await hosts.host.build(order)
        [line async for line in hosts.host.build_log(order.version_id, 0)]
        await hosts.host.drop_template(order.version_id)
        with pytest.raises(NotFound):
            await hosts.host.built(order.version_id)

    async def test_one_that_is_dropped_while_it_is_built_is_built_no_more(
        self, hosts: HostRig
    ) -> None:
        order, following = self._order(run="sleep 1000"), self._order(version=2)
        await hosts.host.build(order)
        log = hosts.host.build_log(order.version_id, 0)
        first = await anext(log)
        async with asyncio.timeout(60):
            await hosts.host.drop_template(order.version_id)
            rest = [line async for line in log]
        assert [line.n for line in [first, *rest]] == list(range(1, len(rest) + 2))
        with pytest.raises(NotFound):
            await hosts.host.built(order.version_id)
        with pytest.raises(Conflict, match="was deleted before its build began"):
            await hosts.host.build(order)  # an order that was on its way meanwhile
        await hosts.host.build(following)
        [line async for line in hosts.host.build_log(following.version_id, 0)]
        assert (await hosts.host.built(following.version_id)).state == "ready"

    async def test_what_each_takes_is_told(self, hosts: HostRig) -> None:
        made = await hosts.running()
        await hosts.snapshot(made)
        sizes = {one.sandbox_id: one.size_bytes for one in await hosts.host.stored()}
        assert sizes[made] > 0
        await hosts.host.destroy(made, "op-end", "test")
        left = {one.sandbox_id: one.size_bytes for one in await hosts.host.stored()}
        assert left.get(made, 0) < sizes[made]

    async def test_space_is_accounted_for(self, hosts: HostRig) -> None:
        await hosts.running()
        use = await hosts.host.disk_use()
        assert use.total_bytes > use.free_bytes > 0
        assert use.sandboxes_bytes > 0
        pruned = await hosts.host.prune(ended=True, warm=False)
        assert (pruned.ended_sandboxes, pruned.warm_snapshots) == (0, 0)

    async def test_a_host_says_who_it_is(self, hosts: HostRig) -> None:
        before = await hosts.host.view()
        await hosts.running()
        await hosts.paused()
        after = await hosts.host.view()
        assert after.alive
        assert after.id == before.id
        assert (after.sandboxes_running, after.sandboxes_paused) == (1, 1)
