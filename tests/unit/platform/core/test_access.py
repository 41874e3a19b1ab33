from __future__ import annotations

import pytest

from runtools.platform.core import access


@pytest.mark.parametrize(
    ("held", "needed", "may"),
    [
        ([], "secret:reveal", True),
        (["*"], "secret:reveal", True),
        (["secret:*"], "secret:reveal", True),
        (["secret:reveal"], "secret:reveal", True),
        (["secret:read", "secret:write"], "secret:reveal", False),
        (["sandbox:*"], "secret:reveal", False),
        (["secrets:*"], "secret:reveal", False),
        (["sandbox:read"], "sandbox:write", False),
    ],
)
def test_scopes_cover_what_they_say(held, needed, may):
    assert access.covers(held, needed) is may


@pytest.mark.parametrize(
    ("asked", "held", "is_within"),
    [
        ([], [], True),
        (["sandbox:read"], [], True),
        ([], ["*"], True),
        ([], ["sandbox:*"], False),
        (["*"], ["sandbox:*"], False),
        (["sandbox:*"], ["sandbox:*"], True),
        (["sandbox:read"], ["sandbox:*"], True),
        (["sandbox:*"], ["sandbox:read"], False),
        (["files:*"], ["files:read", "files:write"], True),
        (["sandbox:read", "secret:read"], ["sandbox:*"], False),
    ],
)
def test_no_key_makes_one_that_may_do_more(asked, held, is_within):
    assert access.within(asked, held) is is_within


def test_what_does_not_exist_is_named_with_what_looks_like_it():
    wrong = access.unknown(["sandbox:read", "sandboxes:read", "x"])
    assert sorted(wrong) == ["sandboxes:read", "x"]
    assert "sandbox:read" in wrong["sandboxes:read"]
