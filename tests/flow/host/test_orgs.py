"""What a host has for all is shared out among orgs."""

from __future__ import annotations

import asyncio

from tests.flow.host.conftest import until

from runtools.platform.host.guest.holding import ORG_BYTES, SMALL_BYTES

LARGE = f"head -c {2 * SMALL_BYTES} /dev/zero | tr '\\0' x"


async def test_outputs_of_an_org_beyond_its_share_wait_behind_its_own_alone(world, settings):
    one, other = [await world.create(org_id=org) for org in ("org_one", "org_other")]
    child = (await world.fork(one)).children[0].sandbox_id
    for _ in range(2):  # before a restart of the host and after it, through a pause and a resume
        await world.pause(one)
        await world.resume(one)
        share = world.engine.outputs.of("org_one")
        give_back = await share.take(ORG_BYTES)
        asked = [asyncio.ensure_future(world.sh(box, LARGE)) for box in (one, child)]
        await until(lambda: share.waiting == 2)  # noqa: B023 - waited for here
        assert len(await world.sh(other, LARGE)) == 2 * SMALL_BYTES
        assert await world.sh(one, "echo small") == "small"
        give_back()
        assert {len(said) for said in await asyncio.gather(*asked)} == {2 * SMALL_BYTES}
        await world.host.stop()
        world.__init__(settings)
        await world.host.start()


async def test_one_that_is_handed_over_shares_with_its_new_org(world, settings):
    box = await world.create(org_id="org_one")
    await world.host.hand_over(box, "org_other")
    for _ in range(2):
        former, present = (world.engine.outputs.of(org) for org in ("org_one", "org_other"))
        give_back, other_back = await former.take(ORG_BYTES), await present.take(ORG_BYTES)
        asked = asyncio.ensure_future(world.sh(box, LARGE))
        await until(lambda: present.waiting == 1)  # noqa: B023 - waited for here
        other_back()
        assert len(await asked) == 2 * SMALL_BYTES
        give_back()
        await world.host.stop()
        world.__init__(settings)
        await world.host.start()


async def test_those_from_before_orders_named_an_org_do_not_share_with_each_other(world):
    boxes = [await world.create(org_id="") for _ in range(2)]
    give_back = await world.engine.outputs.of("").take(ORG_BYTES)
    for box in boxes:
        assert len(await world.sh(box, LARGE)) == 2 * SMALL_BYTES
    give_back()
    for box in boxes:  # and nothing is kept of them
        await world.destroy(box)
    assert world.engine.outputs._orgs == {}
