"""The client for a port of a sandbox, where its way there is barred."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from runtools.errors import GuestUnreachable
from runtools.sdk.dev_urls import AsyncDevUrls, AsyncSandboxHttp
from runtools.sdk.shapes import DevUrlLink


class Urls:
    """Makes links to an address."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def link(self, _: int) -> DevUrlLink:
        until = datetime.now(UTC) + timedelta(hours=1)
        return DevUrlLink(url=f"{self._url}/?runtools-link=rt_link_secret", expires_at=until)


async def refused(url: str) -> GuestUnreachable:
    """What it says there."""
    async with AsyncSandboxHttp(cast("AsyncDevUrls", Urls(url)), 3000, "http://api:7700") as http:
        with pytest.raises(GuestUnreachable) as caught:
            await http.get("/a")
    assert "rt_link" not in f"{caught.value} {caught.value.hint}"
    return caught.value


async def test_a_name_that_does_not_resolve_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nobody(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    error = await refused("https://3000-sandbox-a.sandboxes.example.com")
    assert "3000-sandbox-a.sandboxes.example.com does not resolve" in str(error)
    assert "*.sandboxes.example.com must lead to the gateway" in str(error.hint)


async def test_a_gateway_that_is_not_there_is_another_matter() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = await refused(f"http://127.0.0.1:{port}")
    assert "got no answer" in str(error)
    assert "resolve" not in str(error)
