"""How the API is served."""

from __future__ import annotations

from runtools.platform.boot.api import server_config
from runtools.platform.kit.config import Settings


async def _app(scope: object, receive: object, send: object) -> None: ...


def test_the_server_itself_believes_no_header_about_addresses() -> None:
    config = server_config(_app, Settings())
    config.load()
    assert config.loaded_app is _app
