from __future__ import annotations

import re

import pytest

from runtools.platform.core.ids import is_name, is_sandbox_id, new_id, new_sandbox_id


def test_a_sandbox_id_is_a_dns_label_and_a_user_name():
    ids = {new_sandbox_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(
        re.fullmatch(r"[a-z][a-z0-9-]{0,30}[a-z0-9]", one) and is_sandbox_id(one) for one in ids
    )


def test_an_id_carries_its_kind():
    assert re.fullmatch(r"snp_[a-z0-9]{20}", new_id("snp"))


@pytest.mark.parametrize("text", ["a", "web-1", "a" * 63])
def test_names(text):
    assert is_name(text)


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", "A", "a_b", "a" * 64, "ä", "a\n", "a.b", "sandbox-abcdefghijkl"]
)
def test_no_names(text):
    assert not is_name(text)
