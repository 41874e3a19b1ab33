"""What dev URLs are called, and what is no name of one."""

from __future__ import annotations

import pytest

from runtools.platform.core.dev_urls import DevUrls, is_open

BOX = "sandbox-abcdefgh1234"
LOCAL = DevUrls.of("http://sandboxes.localhost:7780")
OWN = DevUrls.of("https://sandboxes.example.com")


def test_a_url_names_its_place() -> None:
    assert LOCAL.url(BOX, 3000) == f"http://3000-{BOX}.sandboxes.localhost:7780"
    assert OWN.url(BOX, 3000) == f"https://3000-{BOX}.sandboxes.example.com"
    for known in (LOCAL, OWN):
        for port in (1, 80, 3000, 65535):
            host = known.url(BOX, port).partition("//")[2]
            assert known.place(host) == (BOX, port)
            assert known.place(host.upper()) == (BOX, port)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "sandboxes.example.com",
        f"{BOX}.sandboxes.example.com",
        f"0-{BOX}.sandboxes.example.com",
        f"03000-{BOX}.sandboxes.example.com",
        f"65536-{BOX}.sandboxes.example.com",
        f"22-{BOX}.sandboxes.example.com",
        f"7709-{BOX}.sandboxes.example.com",
        f"3000-{BOX}x.sandboxes.example.com",
        f"3000-{BOX}.example.com",
        f"3000-{BOX}.sandboxes.example.com.evil.org",
        f"3000-{BOX}.sandboxes.example.com.",
        f"x.3000-{BOX}.sandboxes.example.com",
        f"3000-{BOX}.sandboxes.example.com:x",
        f"user@3000-{BOX}.sandboxes.example.com",
        f"٣000-{BOX}.sandboxes.example.com",
        f"3000-{BOX}.sandboxes.example.com:٣",
        "3000-sandbox-../../../etc.sandboxes.example.com",
    ],
)
def test_what_names_no_place(host: str) -> None:
    assert OWN.place(host) is None


def test_open_ports() -> None:
    assert [port for port in (-1, 0, 1, 21, 22, 23, 7708, 7709, 65535, 65536) if is_open(port)] == [
        1,
        21,
        23,
        7708,
        65535,
    ]


def test_where_secure_cookies_are_kept() -> None:
    assert LOCAL.keeps_secure_cookies
    assert OWN.keeps_secure_cookies
    assert not DevUrls.of("http://sandboxes.lan").keeps_secure_cookies
