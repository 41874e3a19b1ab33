"""Making a host's direct answer visible before the caller gets it.

The follower of the host's reports brings the same news in order; it is only waited for. Where it lags
(its stream is broken), the answer is taken in by itself, so that a caller reads its own writes.
"""

from __future__ import annotations

from runtools.platform.api.platform import Platform
from runtools.platform.api.sandboxes.load import until
from runtools.platform.api.sandboxes.observe import observe
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.api.webhooks import store as webhooks
from runtools.platform.core.ports.host import Observed

LAG_SECONDS = 0.5


async def settle(platform: Platform, observed: Observed) -> Record:
    """The row, at least as new as what a host has answered."""
    place = (observed.epoch, observed.seq)
    record = await until(
        platform,
        observed.sandbox_id,
        lambda row: (row.epoch, row.seq) >= place,
        LAG_SECONDS,
    )
    if (record.epoch, record.seq) >= place:
        return record
    taken = await platform.db.write(observe, observed)
    platform.bus.signal(record.id, record.org_id, webhooks.TOPIC)
    return record if taken is None else taken
