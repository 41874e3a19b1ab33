from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtools.guest import protocol
from runtools.guest.protocol import BYTES, END, HEADER, JSON, BadFrame

LIMITS = {JSON: protocol.MAX_JSON, BYTES: protocol.MAX_BYTES, END: protocol.MAX_END}


@given(st.sampled_from([JSON, BYTES, END]), st.binary(max_size=5000))
def test_a_frame_tells_its_kind_and_length(kind: int, payload: bytes) -> None:
    frame = protocol.frame(kind, payload)
    assert protocol.parse_header(frame[: HEADER.size]) == (kind, len(payload))
    assert frame[HEADER.size :] == payload


@given(st.binary(min_size=5, max_size=5))
def test_any_five_bytes_are_a_bounded_header_or_refused(data: bytes) -> None:
    try:
        kind, length = protocol.parse_header(data)
    except BadFrame:
        length, kind = HEADER.unpack(data)
        assert kind not in LIMITS or length > LIMITS[kind]
    else:
        assert length <= LIMITS[kind]


@given(st.binary(max_size=3 * protocol.CHUNK))
def test_a_body_comes_back_from_its_frames(data: bytes) -> None:
    stream = b"".join(protocol.body_frames(data))
    parts = []
    while True:
        kind, length = protocol.parse_header(stream[: HEADER.size])
        payload = stream[HEADER.size : HEADER.size + length]
        stream = stream[HEADER.size + length :]
        if kind == END:
            break
        parts.append(payload)
    assert (b"".join(parts), stream) == (data, b"")


@pytest.mark.parametrize("kind", LIMITS)
def test_a_frame_beyond_its_bound_is_neither_made_nor_read(kind: int) -> None:
    with pytest.raises(BadFrame):
        protocol.frame(kind, bytes(LIMITS[kind] + 1))
    with pytest.raises(BadFrame):
        protocol.parse_header(HEADER.pack(LIMITS[kind] + 1, kind))


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([1], 1),
        ([2, 1], 2),
        ([3, 2, 1], 3),
        ([7, 1, 0], 1),
        ([7, 8], None),
        ([], None),
        ("1", None),
        (None, None),
    ],
)
def test_the_newest_common_version_is_chosen(offered: object, chosen: int | None) -> None:
    assert protocol.choose_version(offered) == chosen
