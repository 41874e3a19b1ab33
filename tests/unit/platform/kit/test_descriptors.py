"""How many files a process may have open."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from runtools.platform.kit import descriptors


@pytest.fixture
def lowered() -> Iterator[int]:
    """A limit that may be raised; the hard one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_it_is_raised_to_what_may_be(lowered: int) -> None:
    assert descriptors.most() == lowered
    for _ in range(2):
        descriptors.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (lowered, lowered)
