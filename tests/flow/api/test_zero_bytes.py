"""A zero byte, which PostgreSQL keeps nowhere, is refused wherever it is sent."""

from __future__ import annotations

import httpx
import pytest

from runtools.testing.api_world import World

_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2VXk4Ee2zlY6pO5O4Vz0zZ1zvQbq6sVWx4P3vYwz9k"
ADDRESSES = [
    ("GET", "/v1/sandboxes/%00"),
    ("POST", "/v1/sandboxes/%00/exec"),
    ("DELETE", "/v1/sessions/%00"),
    ("DELETE", "/v1/members/%00"),
    ("DELETE", "/v1/invitations/%00"),
    ("GET", "/v1/projects/%00"),
    ("DELETE", "/v1/ssh-keys/%00"),
    ("DELETE", "/v1/api-keys/%00"),
    ("POST", "/v1/api-keys/%00/rotate"),
    ("GET", "/v1/webhooks/%00"),
    ("GET", "/v1/secrets/%00"),
    ("POST", "/v1/orgs/%00/switch"),
    ("GET", "/v1/audit?resource=%00"),
    ("GET", "/v1/sandboxes?projectId=a%00"),
]
BODIES = [
    ("/v1/api-keys", {"name": "k", "projectId": "\0"}),
    ("/v1/sandboxes", {"projectId": "\0"}),
    ("/v1/ssh-keys", {"label": "k", "publicKey": _KEY, "projectId": "\0"}),
    ("/v1/logins/finish", {"id": "\0", "verifier": "a" * 43}),
]


async def test_in_an_address(any_world: World) -> None:
    person = await any_world.person("admin")
    for http in (any_world.http, person.http):
        for method, path in ADDRESSES:
            answer = await http.request(method, path)
            wanted = 400 if "?" in path else 404
            assert answer.status_code == wanted, (method, path, answer.text)
    await person.http.aclose()


@pytest.mark.parametrize(("path", "body"), BODIES)
async def test_in_a_body(any_world: World, path: str, body: dict) -> None:
    answer = await any_world.http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    fields = answer.json()["error"]["details"]["fields"]
    assert fields[0]["field"] in ("projectId", "id")


async def test_in_a_form(any_world: World) -> None:
    form = {"email": "a\0@example.org", "password": "wrong and long enough"}
    headers = {"Origin": any_world.platform.settings.public_url or any_world.url}
    async with httpx.AsyncClient(base_url=any_world.url, trust_env=False) as http:
        answer = await http.post("/signin", data=form, headers=headers)
    assert answer.status_code < 500, answer.text
