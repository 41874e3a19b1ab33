from __future__ import annotations

from runtools.platform.kit.passwords import Passwords

PASSWORD = "a password of Ann's"


class TestCheck:
    async def test_a_hash_fits_its_password_alone(self) -> None:
        passwords = Passwords(memory_kb=8, rounds=1)
        kept = await passwords.hash(PASSWORD)
        assert kept.startswith("$argon2id$")
        assert PASSWORD not in kept
        assert kept != await passwords.hash(PASSWORD)
        assert await passwords.check(kept, PASSWORD)
        assert not await passwords.check(kept, PASSWORD + " ")
        assert not await passwords.check("no hash", PASSWORD)

    async def test_nobody_is_checked_like_somebody(self) -> None:
        passwords, seen = Passwords(memory_kb=8, rounds=1), []
        kept = await passwords.hash(PASSWORD)
        inner = passwords._same
        passwords._same = lambda kept, given: seen.append(kept) or inner(kept, given)  # type: ignore[method-assign]
        assert not await passwords.check(None, PASSWORD)
        assert not await passwords.check(kept, "wrong")
        pretended, real = seen
        assert pretended.split("$")[:4] == real.split("$")[:4]  # the same work

    async def test_of_nobody_no_password_is_right(self) -> None:
        passwords = Passwords(memory_kb=8, rounds=1)
        passwords._same = lambda kept, given: True  # type: ignore[method-assign]
        assert not await passwords.check(None, PASSWORD)

    async def test_other_parameters_make_it_old(self) -> None:
        kept = await Passwords(memory_kb=8, rounds=1).hash(PASSWORD)
        assert Passwords(memory_kb=16, rounds=1).is_old(kept)
        assert not Passwords(memory_kb=8, rounds=1).is_old(kept)
