"""What a policy admits, and what is no policy."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtools.platform.core.egress import MAX_RULES, OPEN, SHUT, BadRule, Policy, domain, policy

A = IPv4Address("203.0.113.7")
B = IPv4Address("8.8.8.8")


def made(allow: list[str], deny: list[str] | None = None) -> Policy:
    return policy(True, allow, deny or [])


class TestNames:
    @pytest.mark.parametrize(
        ("rule", "name", "admitted"),
        [
            ("example.org", "example.org", True),
            ("EXAMPLE.org.", "example.org", True),
            ("example.org", "www.example.org", False),
            ("*.example.org", "www.example.org", True),
            ("*.example.org", "a.b.example.org", True),
            ("*.example.org", "example.org", False),
            ("*.example.org", "badexample.org", False),
            ("example.org", "example.org.evil.net", False),
            ("*.org", "example.org", True),
            ("bücher.example", "xn--bcher-kva.example", True),
            ("_dmarc.example.org", "_dmarc.example.org", True),
        ],
    )
    def test_are_allowed(self, rule, name, admitted):
        assert made([rule]).admits_name(name) is admitted

    def test_deny_wins(self):
        both = made(["*.example.org"], ["evil.example.org"])
        assert both.admits_name("good.example.org")
        assert not both.admits_name("evil.example.org")

    @pytest.mark.parametrize("allow", [[], ["203.0.113.0/24"], ["0.0.0.0/0"]])
    def test_none_is_under_addresses_alone(self, allow):
        assert not made(allow).admits_name("example.org")
        assert not made(allow).admits_riddles

    def test_everything_is_under_the_star(self):
        assert OPEN.admits_name("example.org")
        assert OPEN.admits_riddles
        assert made(["*"], ["203.0.113.7"]).admits_name("example.org")
        assert not made(["*"], ["evil.net"]).admits_riddles

    def test_without_internet_none_is(self):
        assert not policy(False, ["example.org"], []).admits_name("example.org")


class TestAddresses:
    def test_all_are_reached_by_default(self):
        assert OPEN.is_plain
        assert OPEN.admits_address(A)
        assert not OPEN.by_name

    def test_none_are_without_internet(self):
        assert not SHUT.admits_address(A)
        assert not SHUT.is_plain

    def test_of_a_list(self):
        some = made(["203.0.113.0/24"])
        assert some.admits_address(A)
        assert not some.admits_address(B)

    def test_denied_ones_are_not(self):
        some = made(["*"], ["203.0.113.7"])
        assert not some.admits_address(A)
        assert some.admits_address(B)
        assert not some.admits(A, "example.org")

    def test_where_a_name_is_a_rule_none_is_reached_without_one(self):
        assert not made(["*"], ["evil.net"]).admits_address(A)
        assert made(["*", "203.0.113.7"], ["evil.net"]).admits_address(A)


class TestConnections:
    def test_a_name_must_be_allowed(self):
        some = made(["*.example.org"])
        assert some.admits(A, "www.example.org")
        assert not some.admits(A, "evil.net")
        assert not some.admits(A, None)

    def test_an_allowed_address_needs_no_name(self):
        some = made(["example.org", "203.0.113.0/24"])
        assert some.admits(A, None)
        assert some.admits(A, "whatever.net")
        assert not some.admits(B, "whatever.net")

    @pytest.mark.parametrize("name", [None, "example.org", "evil.net"])
    def test_where_names_do_not_rule_the_address_alone_counts(self, name):
        assert made(["203.0.113.0/24"]).admits(A, name)
        assert not made(["203.0.113.0/24"]).admits(B, name)
        assert not made([]).admits(A, name)
        assert made(["*"], ["203.0.113.7"]).admits(B, name)
        assert not made(["*"], ["203.0.113.7"]).admits(A, name)
        assert not SHUT.admits(A, name)

    def test_a_denied_name_is_refused_at_an_allowed_address(self):
        assert not made(["*", "203.0.113.0/24"], ["evil.net"]).admits(A, "evil.net")


class TestGarbage:
    @pytest.mark.parametrize(
        "rule",
        [
            *("", " ", ".", "..", "a..b", "-a.org", "a-.org", "exa mple.org", "http://example.org"),
            *("example.org/x", "example.org:443", "*", "*.*", "a.*.org", "*example.org", "**"),
            *("1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4/33", "1.2.3.4/24", "0x7f.1", "127.1"),
            *("::1/129", "x" * 300, "a." * 200 + "org", "\x00.org", "ex\nample.org", "ex*.org"),
        ],
    )
    def test_is_refused_by_place(self, rule):
        if rule == "*":
            with pytest.raises(BadRule, match="internet to false"):
                made(["*"], ["*"])
            return
        with pytest.raises(BadRule) as caught:
            made(["example.org", rule])
        assert (caught.value.list_name, caught.value.index) == ("allow", 1)
        assert len(str(caught.value)) < 300

    def test_ipv6_may_be_denied_which_it_is_anyway(self):
        assert made(["*"], ["2001:db8::/32"]).deny == ()
        with pytest.raises(BadRule, match="IPv4 alone"):
            made(["2001:db8::/32"])

    def test_too_many_are_refused(self):
        made([f"h{n}.example.org" for n in range(MAX_RULES)])
        with pytest.raises(BadRule, match="more than"):
            made([f"h{n}.example.org" for n in range(MAX_RULES + 1)])

    @given(st.lists(st.text(max_size=40), max_size=4))
    def test_whatever_comes_is_a_policy_or_a_bad_rule(self, rules):
        try:
            found = made(rules)
        except BadRule:
            return
        assert policy(True, found.allow, found.deny) == found

    @given(st.text(max_size=80))
    def test_a_domain_is_its_own_plain_form(self, text):
        name = domain(text)
        assert name is None or domain(name) == name


def test_the_shown_form_is_plain_and_stands_for_the_same():
    found = made(["B.org", "*.a.org", "203.0.113.9", "203.0.113.0/25"], ["Evil.net"])
    assert found.allow == ("203.0.113.0/25", "*.a.org", "b.org")
    assert found.deny == ("evil.net",)
    assert policy(True, found.allow, found.deny) == found
