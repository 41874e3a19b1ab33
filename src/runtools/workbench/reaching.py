"""``get_dev_url``: where people find a server that runs in the sandbox."""

from __future__ import annotations

from pydantic import Field

from runtools.workbench.bench import Bench
from runtools.workbench.tool import Parameters, Tool


class DevUrlParameters(Parameters):
    """Which port."""

    port: int = Field(ge=1, le=65_535, description="The port that the server listens on.")


async def _dev_url(bench: Bench, given: DevUrlParameters) -> str:
    made = await bench.sandbox.urls.link(given.port, idempotency_key=bench.act or None)
    return f"{made.url}\n[for the user; it opens as it stands until {made.expires_at:%Y-%m-%d %H:%M} UTC]"


GET_DEV_URL = Tool(
    "get_dev_url",
    "An address at which the user can open a server of the sandbox in a browser; a server on 127.0.0.1 is "
    "reached too. Start the server first.",
    DevUrlParameters,
    _dev_url,
    changes=False,
)
