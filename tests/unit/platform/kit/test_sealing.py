from __future__ import annotations

import base64

import pytest

from runtools.errors import InvalidRequest
from runtools.platform.kit.sealing import MasterKey, Unreadable, keys_of


def test_what_is_sealed_opens_in_its_place():
    key = MasterKey.new()
    sealed = key.seal("grüße\n", "secret", "org_a", "NAME")
    iv, text, tag = (base64.b64decode(part) for part in sealed.split(":"))
    assert (len(iv), len(text), len(tag)) == (12, len("grüße\n".encode()), 16)
    assert key.open(sealed, "secret", "org_a", "NAME") == "grüße\n"


def test_each_sealing_is_another():
    key = MasterKey.new()
    assert len({key.seal("same", "p").split(":")[0] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "place",
    [("secret", "org_b", "NAME"), ("secret", "org_a", "OTHER"), ("secret", "org_aNAME"), ()],
)
def test_no_other_place_opens_it(place):
    key = MasterKey.new()
    with pytest.raises(Unreadable):
        key.open(key.seal("v", "secret", "org_a", "NAME"), *place)


def test_no_other_key_opens_it():
    with pytest.raises(Unreadable):
        MasterKey.new().open(MasterKey.new().seal("v", "p"), "p")


@pytest.mark.parametrize("part", [0, 1, 2])
def test_no_changed_byte_goes_unseen(part):
    key = MasterKey.new()
    parts = [bytearray(base64.b64decode(one)) for one in key.seal("value", "p").split(":")]
    parts[part][0] ^= 1
    with pytest.raises(Unreadable):
        key.open(":".join(base64.b64encode(one).decode() for one in parts), "p")


@pytest.mark.parametrize("text", ["", "::", "a:b", "a:b:c:d", "!:!:!", "\u2028"])
def test_garbage_is_unreadable(text):
    with pytest.raises(Unreadable):
        MasterKey.new().open(text, "p")


def test_a_key_has_one_name_and_shows_itself_nowhere():
    key = MasterKey.new()
    assert MasterKey.of(key.material).id == key.id
    assert key.text() not in repr(key)
    assert key.material.hex()[:8] not in key.id


def test_a_ring_is_read_with_the_newest_first():
    new, old = MasterKey.new(), MasterKey.new()
    assert keys_of(f"{new.text()}\n{old.text()}\n", "x") == [new, old]
    assert keys_of(f"{new.text()},{old.text()}", "x") == [new, old]


@pytest.mark.parametrize("text", ["", "\n", "short", base64.b64encode(b"x" * 31).decode()])
def test_what_is_no_key_is_refused_without_quoting_it(text):
    with pytest.raises(InvalidRequest, match="the file") as caught:
        keys_of(text, "the file")
    assert not text.strip() or text not in str(caught.value)
