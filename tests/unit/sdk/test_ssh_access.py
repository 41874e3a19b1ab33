"""What a platform says of SSH stands in files and on command lines of the caller's machine."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from runtools.sdk.shapes.ssh_access import SshAccess

GOOD: dict[str, Any] = {
    "sandboxId": "sandbox-4f0c9k2m1x7q",
    "user": "sandbox-4f0c9k2m1x7q",
    "host": "ssh.example.org",
    "port": 2222,
    "hostKeys": ["ssh-ed25519 AAAAC3Nz+/=="],
}


def test_a_good_one_is_taken() -> None:
    for host in ("ssh.example.org", "127.0.0.1", "::1", "localhost"):
        assert SshAccess.model_validate(GOOD | {"host": host}).host == host


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("user", "x\nProxyCommand touch /tmp/evil"),
        ("user", "-oProxyCommand=evil"),
        ("host", "-oProxyCommand=evil"),
        ("host", "x\n    ProxyCommand evil"),
        ("host", "a b"),
        ("host", ""),
        ("port", 0),
        ("hostKeys", ["* ssh-ed25519 AAAA"]),
        ("hostKeys", ["ssh-ed25519 AAAA\n* ssh-ed25519 BBBB"]),
    ],
)
def test_what_would_be_more_than_a_word_is_refused(field: str, said: object) -> None:
    with pytest.raises(ValidationError):
        SshAccess.model_validate(GOOD | {field: said})
