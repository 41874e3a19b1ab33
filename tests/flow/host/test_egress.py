"""What a host makes of egress policies, over a network that notes them."""

from __future__ import annotations

import pytest

from runtools.errors import Conflict, InvalidRequest, NotFound, SandboxStopped, Unavailable
from runtools.platform.core.egress import OPEN, SHUT, policy
from runtools.platform.core.ports.network import Refusal
from runtools.sdk.shapes.egress import Egress, EgressRules

RULES = EgressRules(allow=["example.org"])
CHANGED = policy(True, ["changed.org"], [])
CHANGE = Egress(allow=["changed.org"])


def in_force(world, box):
    """The policy of the sandbox's network."""
    return world.network.policies[world.box(box).record.life.slot]


async def test_it_is_born_with_its_policy(world):
    assert in_force(world, await world.create()) == OPEN
    assert in_force(world, await world.create(internet=False)) == SHUT
    ruled = await world.create(egress=RULES)
    assert in_force(world, ruled) == policy(True, ["example.org"], [])


async def test_a_change_is_in_force_at_once(world, box):
    await world.host.set_egress(box, 1, CHANGE)
    assert in_force(world, box) == CHANGED


async def test_an_older_change_is_refused_with_what_is_in_force(world, box):
    await world.host.set_egress(box, 2, CHANGE)
    with pytest.raises(Conflict) as refused:
        await world.host.set_egress(box, 1, Egress(internet=False))
    assert refused.value.details == {"egress_generation": 2}
    assert in_force(world, box) == CHANGED


async def test_a_paused_one_wakes_under_the_new_one(world, box):
    await world.pause(box)
    await world.host.set_egress(box, 1, CHANGE)
    assert world.look(box).state == "paused"
    await world.resume(box)
    assert in_force(world, box) == CHANGED


async def test_it_outlives_a_restart_and_is_put_in_force_again(world, settings):
    box = await world.create()
    await world.host.set_egress(box, 3, CHANGE)
    await world.host.stop()
    world.__init__(settings)
    await world.host.start()
    assert in_force(world, box) == CHANGED
    with pytest.raises(Conflict):
        await world.host.set_egress(box, 2, Egress())
    assert in_force(world, box) == CHANGED


async def test_a_rollback_does_not_take_it_back(world, box):
    kept = await world.snapshot(box)
    await world.host.set_egress(box, 1, CHANGE)
    await world.rollback(box, kept)
    assert in_force(world, box) == CHANGED


async def test_children_inherit_it_and_begin_a_log_of_their_own(world, box):
    await world.host.set_egress(box, 1, CHANGE)
    world.box(box).refusals.add(Refusal("not_allowed", "dns", "evil.net"))
    forked = await world.fork(box)
    child = forked.children[0].sandbox_id
    assert in_force(world, child) == CHANGED
    assert (await world.host.egress_log(child)).refusals == []
    assert len((await world.host.egress_log(box)).refusals) == 1


async def test_its_log_outlives_it(world, box):
    world.box(box).refusals.add(Refusal("not_allowed", "dns", "evil.net"))
    await world.destroy(box)
    assert [one.name for one in (await world.host.egress_log(box)).refusals] == ["evil.net"]


async def test_what_cannot_be_done_says_so(world, box, monkeypatch):
    with pytest.raises(NotFound):
        await world.host.set_egress("sandbox-zzzzzzzzzzzz", 1, CHANGE)
    with pytest.raises(InvalidRequest, match=r"allow\.0"):
        await world.host.set_egress(box, 1, Egress(allow=["not a name"]))
    assert in_force(world, box) == OPEN

    async def broken(*_):
        raise Unavailable("nft is gone")

    with monkeypatch.context() as patch:
        patch.setattr(world.network, "change", broken)
        with pytest.raises(Unavailable):
            await world.host.set_egress(box, 1, CHANGE)
    await world.host.set_egress(box, 1, CHANGE)  # a repeat of the same generation
    assert in_force(world, box) == CHANGED
    await world.destroy(box)
    with pytest.raises(SandboxStopped):
        await world.host.set_egress(box, 2, CHANGE)
