"""The rules as text, and other people's chains."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from runtools.platform.core.egress import OPEN, SHUT, Policy, policy
from runtools.platform.host.net import cables, firewall, ranges, rules
from runtools.platform.host.net.names import Names

NAMES = Names("abc123")
CABLES = ranges.choose("abc123", [])
PACE = cables.pace(262_144, 256)
ACCEPT, DROP = {"accept": None}, {"drop": None}


@pytest.mark.parametrize("address", ["10.1.2.3", "169.254.169.254", "100.100.100.100", "127.0.0.1"])
def test_what_is_closed(address):
    assert any(IPv4Address(address) in IPv4Network(net) for net in rules.CLOSED)


@pytest.mark.parametrize("address", ["1.1.1.1", "9.9.9.9", "172.32.0.1", "203.0.113.1"])
def test_what_is_open(address):
    assert not any(IPv4Address(address) in IPv4Network(net) for net in rules.CLOSED)


def test_our_cables_are_closed_to_sandboxes():
    assert any(CABLES.subnet_of(IPv4Network(net)) for net in rules.CLOSED)


def test_the_host_says_it_and_the_namespace_says_it():
    for text in (cables.table(NAMES, CABLES, PACE), rules.namespace(OPEN)):
        assert all(net in text for net in (*rules.CLOSED, *rules.CLOSED_HOSTS))


def test_a_second_load_replaces_the_first():
    text = cables.table(NAMES, CABLES, PACE)
    assert text.index("delete table inet runtools_abc123") < text.index("chain input")


def ruleset(*expressions: dict[str, object], policy: str, **chain: str) -> dict[str, object]:
    where = {"family": "ip", "table": "filter"} | chain
    return {
        "nftables": [
            {"metainfo": {}},
            {"chain": {**where, "name": "FORWARD", "hook": "forward", "policy": policy}},
            *({"rule": {**where, "chain": "FORWARD", "expr": [one]}} for one in expressions),
        ]
    }


@pytest.mark.parametrize(
    ("found", "position"),
    [
        (ruleset(policy="accept"), None),
        (ruleset(policy="drop"), "add"),
        (ruleset(DROP, ACCEPT, policy="drop"), "add"),
        (ruleset(ACCEPT, DROP, policy="accept"), "insert"),
        (ruleset(ACCEPT, {"reject": {}}, policy="drop"), "insert"),
        (ruleset(policy="drop", table="runtools_abc123"), None),
        (ruleset(policy="drop", table="runtools_other1"), None),
        (ruleset(policy="drop", family="ip6"), None),
        ({"nftables": []}, None),
    ],
    ids=[
        *("accepts", "drops by policy", "drops by policy after rules", "drops at its end"),
        *("rejects at its end", "ours", "another installation's", "IPv6", "none"),
    ],
)
def test_a_way_through_other_chains(found, position):
    ways = [way[3] for way in firewall._strangers(found, NAMES.table)]
    assert ways == ([position] if position else [])


@pytest.mark.parametrize("address", ["::1", "fe80::1", "fc00::1", "::ffff:8.8.8.8", "ff02::1"])
def test_what_is_closed_of_ipv6(address):
    assert rules.is_closed(IPv6Address(address))
    assert not rules.is_closed(IPv6Address("2606:4700::1111"))


def test_a_policy_without_rules_costs_nothing():
    """No mark, no set that is looked into but the closed ranges, no relay."""
    text = rules.namespace(OPEN)
    forward = text.split("chain forward {")[1].split("}")[0]
    assert forward.count("accept") == 2
    assert "judged" not in forward
    assert "redirect" not in text


@pytest.mark.parametrize(
    ("rule", "relayed"),
    [
        (OPEN, False),
        (SHUT, False),
        (policy(True, ["203.0.113.0/24"], ["203.0.113.9"]), False),
        (policy(True, ["example.org"], []), True),
        (policy(True, ["*"], ["example.org"]), True),
        (policy(False, ["example.org"], []), False),
    ],
)
def test_the_relay_is_for_names_alone(rule: Policy, relayed: bool):
    assert ("redirect to" in rules.namespace(rule)) is relayed


@pytest.mark.parametrize(
    "names", [[], ["good.example.org"]], ids=["addresses alone", "beside a name"]
)
def test_packets_meet_as_many_rules_under_200_addresses_as_under_one(names):
    def met(count: int) -> list[str]:
        found = [f"203.0.{n // 2}.{n % 2 * 128}/26" for n in range(count)]
        rule = policy(True, [*names, *found], found[:-1])
        lines = rules.namespace(rule).splitlines()
        mark = f"{rules.mark_of(rule):08x}"
        return [line.replace(mark, "MARK") for line in lines if "elements" not in line]

    assert [line for line in met(200) if line.strip()] == [line for line in met(2) if line.strip()]
    # And what was admitted once is looked up in no set again: its mark is the first thing looked at.
    forward = "\n".join(met(200)).split("chain forward {")[1].split("}")[0]
    assert forward.index("ct mark 0xMARK accept") < forward.index("goto judged")


def test_every_policy_has_a_mark_of_its_own():
    some = [OPEN, SHUT, policy(True, ["a.org"], []), policy(True, ["*"], ["a.org"])]
    assert len({rules.mark_of(one) for one in some}) == len(some)
    assert rules.mark_of(policy(True, ["B.org", "a.org"], [])) == rules.mark_of(
        policy(True, ["a.org", "b.org"], [])
    )


def test_other_rules_for_the_same_policy_are_not_taken_for_those_in_force(
    monkeypatch: pytest.MonkeyPatch,
):
    named = policy(True, ["a.org"], [])
    before = rules.in_force(named)
    assert f"chain {before} {{" in rules.namespace(named)
    monkeypatch.setattr(rules, "_CHECKED", "443")
    assert rules.in_force(named) != before


def test_a_table_that_was_changed_is_told_from_one_that_was_not():
    found = ruleset(ACCEPT, policy="drop", family="inet", table=NAMES.table)
    again = ruleset(ACCEPT, policy="drop", family="inet", table=NAMES.table)
    for item in again["nftables"]:
        for what in item.values():
            what["handle"] = 99
    emptied = ruleset(policy="drop", family="inet", table=NAMES.table)
    content = [firewall._content(one, NAMES.table) for one in (found, again, emptied)]
    assert content[0] == content[1] != content[2]


@pytest.mark.parametrize(("tracked", "sandboxes"), [(262_144, 256), (262_144, 8), (65_536, 256)])
def test_what_comes_from_all_cables_leaves_a_quarter_of_the_hosts_table(tracked, sandboxes):
    pace = cables.pace(tracked, sandboxes)
    lingering = pace.each * (120 + 20) / 60 * sandboxes
    assert pace.room + (pace.held * sandboxes) + lingering <= tracked * 3 / 4
    assert pace.others * 120 < pace.room, "what lingers of some takes no room from the others"


def test_a_table_in_which_packets_were_counted_is_as_it_was():
    counted = {"family": "inet", "table": NAMES.table, "name": cables.OVER, "handle": 1}
    before, after = ({"nftables": [{"set": one}]} for one in (counted, {**counted, "elem": [1]}))
    assert firewall._content(before, NAMES.table) == firewall._content(after, NAMES.table)
