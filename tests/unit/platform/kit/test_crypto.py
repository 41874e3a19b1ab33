"""Keys, digests and login passwords."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtools.platform.kit import crypto, process


class TestSecrets:
    def test_keys_are_long_and_never_the_same(self) -> None:
        keys = {crypto.new_secret("rt_live_") for _ in range(100)}
        assert len(keys) == 100
        assert all(re.fullmatch(r"rt_live_[A-Za-z0-9_-]{43}", key) for key in keys)

    def test_digests(self) -> None:
        assert crypto.digest("a") == crypto.digest("a") != crypto.digest("b")
        assert crypto.same(crypto.digest("a"), crypto.digest("a"))
        assert not crypto.same(crypto.digest("a"), crypto.digest("b"))

    def test_parts_do_not_run_together(self) -> None:
        assert crypto.keyed_digest("k", b"ab", b"c") != crypto.keyed_digest("k", b"a", b"bc")
        assert crypto.keyed_digest("k", b"a") != crypto.keyed_digest("l", b"a")


class TestLoginHash:
    async def test_it_is_what_a_login_compares(self) -> None:
        hashed = await crypto.login_hash("pässword $HOME 'x'")
        salt = hashed.split("$")[2]
        again = await process.run(
            ["openssl", "passwd", "-6", "-salt", salt, "-stdin"],
            stdin="pässword $HOME 'x'\n".encode(),
        )
        assert again.stdout.decode().strip() == hashed
        assert hashed.startswith("$6$")

    async def test_every_salt_is_fresh(self) -> None:
        assert await crypto.login_hash("same") != await crypto.login_hash("same")

    async def test_the_longest_password_counts_to_its_last_byte(self) -> None:
        longest = "x" * (crypto.MAX_PASSWORD_BYTES - 1)
        hashed = await crypto.login_hash(longest + "a")
        salt = hashed.split("$")[2]
        other = await process.run(
            ["openssl", "passwd", "-6", "-salt", salt, "-stdin"], stdin=f"{longest}b\n".encode()
        )
        assert other.stdout.decode().strip() != hashed

    async def test_the_password_is_on_no_command_line(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[str] = []
        real = process.run

        async def spy(argv: list[str], **rest: object) -> process.Completed:
            seen.extend(argv)
            return await real(argv, **rest)  # type: ignore[arg-type]

        monkeypatch.setattr(process, "run", spy)
        await crypto.login_hash("hunter2hunter2")
        assert "openssl" in seen
        assert "hunter2hunter2" not in seen
        assert Path("/usr/bin/openssl").exists()
