"""What a caller gets to see of a host's direct answer.

The follower of the host's reports brings the same news in order, and it alone writes them down: a report
that was taken in ahead of those before it would make late news of them, which nobody is told of (an
event of its own for what was done, for one). So the follower is waited for. Where it lags for long (its
stream is broken), the answer goes to the caller alone: what others see, names and limits among it, comes
with the reports.
"""

from __future__ import annotations

from runtools.platform.api.platform import Platform
from runtools.platform.api.sandboxes.load import until
from runtools.platform.api.sandboxes.observe import as_seen
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.core.ports.host import Observed

# Longer than a stream that broke takes to be followed again.
LAG_SECONDS = 5.0


async def settle(platform: Platform, observed: Observed) -> Record:
    """The row, or what it will be: at least as new as what a host has answered."""
    place = (observed.epoch, observed.seq)
    record = await until(
        platform,
        observed.sandbox_id,
        lambda row: (row.epoch, row.seq) >= place,
        LAG_SECONDS,
    )
    return as_seen(record, observed)
