"""What an OpenID Connect provider says of itself, where that is no use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from runtools.errors import Unauthenticated
from runtools.platform.api.identities.provider import Provider
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings

GOOD = {
    "authorization_endpoint": "https://idp.example/auth",
    "token_endpoint": "https://idp.example/token",
    "jwks_uri": "https://idp.example/keys",
}


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """A provider that says what its ``said`` is."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Says) as made:
        Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


class Says(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        said: bytes = self.server.said  # type: ignore[attr-defined]
        self.wfile.write(said)

    def log_message(self, *args: Any) -> None:
        """Nothing."""


def provider(server: ThreadingHTTPServer, said: Any) -> Provider:
    issuer = f"http://127.0.0.1:{server.server_port}"
    body = {"issuer": issuer, **said} if isinstance(said, dict) else said
    server.said = json.dumps(body).encode()  # type: ignore[attr-defined]
    return Provider(Settings(oidc_issuer=issuer, oidc_client_id="us"), SystemClock())


@pytest.mark.parametrize(
    "said",
    [
        [],
        "text",
        {},
        GOOD | {"authorization_endpoint": None},
        GOOD | {"jwks_uri": 7},
        {"token_endpoint": "x"},
    ],
)
async def test_a_document_that_is_none_is_refused(server: ThreadingHTTPServer, said: Any) -> None:
    asked = provider(server, said)
    with pytest.raises(Unauthenticated, match="discovery"):
        await asked.address("https://us.example/back", "state", "secret")


@pytest.mark.parametrize("methods", [None, 7, ["client_secret_post"]])
async def test_one_with_its_addresses_is_taken(server: ThreadingHTTPServer, methods: Any) -> None:
    asked = provider(server, GOOD | {"token_endpoint_auth_methods_supported": methods})
    address = await asked.address("https://us.example/back", "state", "secret")
    assert address.startswith("https://idp.example/auth?")
