"""How the API is served."""

from __future__ import annotations

from runtools.platform.boot.api import provider_keys, server_config
from runtools.platform.kit.config import Settings


async def _app(scope: object, receive: object, send: object) -> None: ...


def test_the_server_itself_believes_no_header_about_addresses() -> None:
    config = server_config(_app, Settings())
    config.load()
    assert config.loaded_app is _app


def test_line_ends_of_the_environments_keys_are_no_part_of_them() -> None:
    given = {"OPENAI_API_KEY": "sk-x\r\n", "EXA_API_KEY": " k ", "XAI_API_KEY": "\n", "HOME": "/"}
    assert provider_keys(given) == {"OPENAI_API_KEY": "sk-x", "EXA_API_KEY": "k"}
