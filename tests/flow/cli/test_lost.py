"""Commands whose answer is lost on its way: what it held is in no repeat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.flow.cli.conftest import Cli

from runtools.testing.scripted_api import KEY, Failure, ScriptedApi

_AT = "2026-11-23T12:00:00Z"
_KEY: dict[str, Any] = {
    "id": "key_2",
    "name": "ci",
    "prefix": "rt_live_a",
    "key": None,
    "createdAt": _AT,
    "lastUsedAt": None,
    "revokedAt": None,
}
_INVITATION: dict[str, Any] = {
    "id": "inv_1",
    "email": "a@example.org",
    "role": "member",
    "operator": False,
    "state": "open",
    "link": None,
    "createdBy": "key_1",
    "createdAt": _AT,
    "expiresAt": _AT,
}
_WEBHOOK: dict[str, Any] = {
    "id": "whk_1",
    "url": "https://1.1.1.1/",
    "events": [],
    "description": "",
    "secret": None,
    "enabled": True,
    "disabledReason": None,
    "createdAt": _AT,
}
_ORG: dict[str, Any] = {
    "id": "org_2",
    "name": "Acme",
    "current": False,
    "createdAt": _AT,
    "invitation": _INVITATION,
}
# The command, where it asks, what its repeat is answered, and the command that helps.
LOST = (
    ("auth keys create ci", "/v1/api-keys", _KEY, "auth keys rotate key_2"),
    ("auth keys rotate key_1", "/v1/api-keys/key_1/rotate", _KEY, "auth keys rotate key_2"),
    ("invite create a@example.org", "/v1/invitations", _INVITATION, "invite revoke inv_1"),
    ("webhook create https://1.1.1.1/", "/v1/webhooks", _WEBHOOK, "webhook delete whk_1"),
    ("org create Acme --admin a@example.org", "/v1/orgs", _ORG, "org create NAME --admin a@"),
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedApi]:
    with ScriptedApi(tmp_path_factory.mktemp("api")) as running:
        yield running


def answered(answer: dict[str, Any]) -> dict[str, Any]:
    """The first answer, which holds the secret."""
    if "invitation" in answer:
        return answer | {"invitation": answered(answer["invitation"])}
    secret = next(name for name in ("key", "link", "secret") if name in answer)
    return answer | {secret: "shown"}


@pytest.mark.parametrize(("command", "path", "answer", "helps"), LOST)
def test_a_secret_whose_answer_was_lost_is_said_to_be(
    cli: Cli, api: ScriptedApi, tmp_path: Path, command: str, path: str, answer: Any, helps: str
) -> None:
    api.reset(tmp_path)
    api.fixed[f"POST {path}"] = answer
    env = {"RUNTOOLS_API_URL": api.url, "RUNTOOLS_API_KEY": KEY}
    api.failures.append(Failure(cut=True))
    done = cli(*command.split(), **env)
    assert (done.code, done.out) == (1, b""), done.err
    assert f"{answer['id']} was made, but the answer that held the " in done.err
    assert f"runtools {helps}" in done.err
    assert len({seen.headers.get("idempotency-key") for seen in api.seen}) == 1
    data = cli(*command.split(), "--json", **env)
    assert (data.code, data.data["id"]) == (1, answer["id"])
    assert f"runtools {helps}" in data.err
    api.fixed[f"POST {path}"] = answered(answer)
    held = cli(*command.split(), **env)
    assert held.code == 0
    assert "shown" in held.text
    assert "lost" not in held.err
