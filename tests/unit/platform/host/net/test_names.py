"""Names and addresses of slots."""

from __future__ import annotations

from ipaddress import IPv4Network as Net

import pytest

from runtools.platform.host.net import ranges
from runtools.platform.host.net.names import Names

NAMES = Names("abc123")


@pytest.mark.parametrize("index", [0, 7, 1023])
def test_a_number_is_found_again_in_its_names(index):
    assert NAMES.index_of(NAMES.namespace(index)) == index
    assert NAMES.index_of(NAMES.veth(index)) == index
    assert len(NAMES.veth(index)) <= 15  # what a kernel allows


@pytest.mark.parametrize("name", ["rt-abc124-1", "rtabc1241", "rt-abc123-", "rtabc123", "eth0"])
def test_other_names_are_not_ours(name):
    assert NAMES.index_of(name) is None


class TestRanges:
    def test_an_installation_looks_at_the_same_place_again(self):
        assert ranges.choose("abc123", []) == ranges.choose("abc123", [])

    def test_what_is_used_is_left_alone(self):
        first = ranges.choose("abc123", [])
        second = ranges.choose("abc123", [first])
        inside = ranges.choose("abc123", [Net((first[5], 32)), second])
        assert len({first, second, inside}) == 3

    def test_a_default_route_uses_nothing(self):
        assert ranges.choose("abc123", [Net("0.0.0.0/0")]) == ranges.choose("abc123", [])

    def test_when_all_is_used_it_says_so(self):
        with pytest.raises(ranges.NoRange):
            ranges.choose("abc123", [ranges.POOL])

    def test_slots_have_addresses_of_their_own(self):
        net = ranges.choose("abc123", [])
        ends = [ranges.ends(net, index) for index in range(ranges.SLOTS)]
        assert len({address for pair in ends for address in pair}) == 2 * ranges.SLOTS
        assert all(host in net and mine in net for host, mine in ends)

    def test_a_range_is_known_by_any_of_its_addresses(self):
        net = ranges.choose("abc123", [])
        assert ranges.containing(str(net[77])) == net
        assert ranges.containing("10.0.0.1") is None

    def test_the_next_free_number(self):
        assert ranges.next_free([0, 1, 3], -1) == 2
        assert ranges.next_free([0, 1, 3], 2) == 4
        assert ranges.next_free([0, 1, 3], ranges.SLOTS - 1) == 2
        assert ranges.next_free([n for n in range(ranges.SLOTS) if n != 7], 7) == 7
        with pytest.raises(ranges.NoRange):
            ranges.next_free(range(ranges.SLOTS), 5)
