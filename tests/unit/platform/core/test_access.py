from __future__ import annotations

import pytest

from runtools.platform.core import access

EVERYTHING = access.of_key([])


@pytest.mark.parametrize(
    ("held", "needed", "may"),
    [
        ([], "secret:reveal", False),
        (["*"], "secret:reveal", True),
        (["secret:*"], "secret:reveal", True),
        (["secret:reveal"], "secret:reveal", True),
        (["secret:read", "secret:write"], "secret:reveal", False),
        (["sandbox:*"], "secret:reveal", False),
        (["secrets:*"], "secret:reveal", False),
        (["sandbox:read"], "sandbox:write", False),
        (["*"], "platform:read", False),
        (["platform:read"], "platform:read", True),
        (["platform:read"], "platform:write", False),
        (["platform:*"], "platform:write", True),
        (["platform:*"], "sandbox:read", False),
        (["*", "platform:*"], "worker:link", False),
        (["*", "platform:*"], "gateway:admit", False),
        (["worker:link"], "worker:link", True),
        (["worker:link"], "gateway:admit", False),
    ],
)
def test_scopes_cover_what_they_say(held, needed, may):
    assert access.covers(frozenset(held), needed) is may


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
        (["platform:*"], ["*"], False),
        (["platform:read"], ["*"], False),
        (["platform:*"], ["*", "platform:read"], False),
        (["*", "platform:read"], ["*", "platform:*"], True),
        ([], ["*", "platform:*"], True),
    ],
)
def test_no_key_makes_one_that_may_do_more(asked, held, is_within):
    """As keys name them: without any, everything in the org."""
    assert access.within(access.of_key(asked), access.of_key(held)) is is_within


def test_who_holds_nothing_may_do_nothing():
    nobody = access.of_person(None, operator=False)
    assert nobody == frozenset()
    assert not any(access.covers(nobody, scope) for scope in access.SCOPES)
    assert not access.within(EVERYTHING, nobody)


def test_what_parts_may_do_can_be_given_to_nobody():
    assert set(access.PARTS.values()) & access.SCOPES == set()
    assert set(access.unknown(access.PARTS.values())) == set(access.PARTS.values())
    held = [*access.ROLES.values(), access.OPERATOR, EVERYTHING]
    assert not any(access.covers(one, scope) for one in held for scope in access.PARTS.values())


class TestRoles:
    def test_they_are_made_of_scopes_that_exist(self):
        assert all(scopes <= access.SCOPES for scopes in access.ROLES.values())

    def test_an_admin_may_do_everything_in_the_org_and_nothing_beyond(self):
        admin = access.of_person("admin", operator=False)
        beyond = {s for s in access.SCOPES if not access.covers(admin, s)}
        assert beyond == {"platform:read", "platform:write", "platform:*"}

    @pytest.mark.parametrize(
        "scope",
        ["org:write", "secret:reveal", "audit:read", "webhook:write", "platform:read", "*"],
    )
    def test_a_member_may_not(self, scope):
        member = access.of_person("member", operator=False)
        assert not access.covers(member, scope)
        assert not access.within(frozenset({scope}), member)

    def test_a_member_makes_no_key_of_an_admin(self):
        assert not access.within(EVERYTHING, access.ROLES["member"])
        assert access.within(frozenset({"sandbox:*", "agent:run"}), access.ROLES["member"])

    def test_the_operators_right_goes_with_the_person_and_not_with_the_role(self):
        assert access.covers(access.of_person("member", operator=True), "platform:write")
        assert access.covers(access.of_person(None, operator=True), "platform:write")
        assert not access.covers(access.of_person(None, operator=True), "sandbox:read")


def test_what_does_not_exist_is_named_with_what_looks_like_it():
    wrong = access.unknown(["sandbox:read", "sandboxes:read", "x"])
    assert sorted(wrong) == ["sandboxes:read", "x"]
    assert "sandbox:read" in wrong["sandboxes:read"]
