"""Token buckets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtools.platform.kit.rates import MOST, Buckets, source
from runtools.testing.clock import ManualClock


@given(
    st.integers(1, 600),
    st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200),
)
def test_never_more_than_a_bucket_and_what_has_filled(most: int, pauses: list[float]) -> None:
    clock = ManualClock()
    buckets = Buckets(clock, most)
    began, taken = clock.monotonic(), 0
    for pause in pauses:
        clock.advance(pause)
        standing, wait = buckets.take("org")
        taken += not wait
        passed = clock.monotonic() - began
        assert taken <= most + passed * most / 60 + 1e-6
        assert standing is not None
        assert 0 <= standing.remaining <= most
        assert standing.reset >= clock.now().timestamp()
        if wait:
            clock.advance(wait + 1e-6)
            assert buckets.take("org")[1] == 0
            taken += 1


def test_names_have_buckets_of_their_own() -> None:
    buckets = Buckets(ManualClock(), 1)
    assert buckets.take("one")[1] == 0
    assert buckets.take("one")[1] == 60
    assert buckets.take("other")[1] == 0


def test_without_a_limit_nobody_is_counted() -> None:
    assert Buckets(ManualClock(), 0).take("org") == (None, 0.0)


def test_memory_is_bounded() -> None:
    buckets = Buckets(ManualClock(), 10)
    for n in range(MOST + 50):
        buckets.take(str(n))
    assert len(vars(buckets)["_levels"]) == MOST


def test_a_network_of_one_customer_is_one_source() -> None:
    assert source("2001:db8::1") == source("2001:db8::ffff:2") == "2001:db8::/64"
    assert source("2001:db8:0:1::1") != source("2001:db8::1")
    assert source("192.0.2.1") == "192.0.2.1"
    assert source("-") == "-"
