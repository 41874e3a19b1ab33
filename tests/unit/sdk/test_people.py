"""What may be the name and the address of a person."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from runtools.sdk.shapes.people import InvitationCreate, OrgCreate, PasswordChange


class TestNames:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("Acme", "Acme"),
            ("  Acme  ", "Acme"),
            ("Café Ünal 7", "Café Ünal 7"),
            ("Cafe\u0301", "Café"),
            ("\uff21\uff43\uff4d\uff45", "Acme"),
            ("Яндекс", "Яндекс"),
            ("株式会社 Acme", "株式会社 Acme"),
            ("Команда Acme", "Команда Acme"),
        ],
    )
    def test_kept_composed_and_trimmed(self, given: str, kept: str) -> None:
        assert OrgCreate(name=given).name == kept

    @pytest.mark.parametrize(
        "name",
        [
            "",
            " ",
            "-",
            "a\nb",
            "a\x00b",
            "a\u202eb",
            "a\u200bb",
            "a\ufeffb",
            "a\u2028b",
            "\u0410cme",  # the first letter is Cyrillic
            "Acm\u0435",  # the last one is
            "G\u03bf\u03bfgle",  # Greek omicrons
            "x" * 64,
            "\ud800x",
        ],
    )
    def test_what_deceives_is_refused(self, name: str) -> None:
        with pytest.raises(ValidationError):
            OrgCreate(name=name)


class TestEmails:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("Ann@Example.ORG", "ann@example.org"),
            ("a.b+c@xn--mnchen-3ya.example", "a.b+c@xn--mnchen-3ya.example"),
            ("root@localhost", "root@localhost"),
        ],
    )
    def test_kept_in_one_form(self, given: str, kept: str) -> None:
        assert InvitationCreate(email=given).email == kept

    @pytest.mark.parametrize(
        "email",
        [
            "",
            "ann",
            "@example.org",
            "ann@",
            "ann@-x.org",
            "ann@example..org",
            "a b@example.org",
            "ann@example.org\n",
            "\u0430nn@example.org",  # Cyrillic
            "ann@ex\u0430mple.org",
            "ann@example.org\x00",
            "x" * 65 + "@example.org",
            "ann@" + "x" * 260,
        ],
    )
    def test_look_alikes_and_garbage_are_refused(self, email: str) -> None:
        with pytest.raises(ValidationError):
            InvitationCreate(email=email)


class TestPasswords:
    def test_the_same_letters_are_the_same_password(self) -> None:
        one = PasswordChange(current="x", new="Cafe\u0301 au lait 12")
        other = PasswordChange(current="x", new="Café au lait 12")
        assert one.new == other.new

    @pytest.mark.parametrize("new", ["", "short", "x" * 11, "x" * 257, "x" * 12 + "\x00"])
    def test_short_long_and_broken_ones_are_refused(self, new: str) -> None:
        with pytest.raises(ValidationError) as refused:
            PasswordChange(current="x", new=new)
        assert "current" not in str(refused.value)

    def test_no_repr_shows_one(self) -> None:
        shown = repr(PasswordChange(current="present secret", new="another secret one"))
        assert "secret" not in shown
