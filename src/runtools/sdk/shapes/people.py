"""Orgs, the people in them, invitations, and where people are signed in."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from runtools.sdk.shapes.account import Role
from runtools.sdk.shapes.base import Request, Shape

MIN_PASSWORD_CHARACTERS = 12
_ALPHABETS = ("LATIN", "GREEK", "CYRILLIC")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = rf"^[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*$"


def _readable(text: str) -> str:
    """A name as it is kept: composed, trimmed, nothing in it that cannot be seen or looks like another."""
    text = unicodedata.normalize("NFKC", text).strip()
    if not any(char.isalnum() for char in text):
        raise ValueError("needs a letter or a digit")
    if any(_is_hidden(char) for char in text):
        raise ValueError("holds a character that cannot be seen")
    for word in text.split():
        alphabets = {found for char in word if (found := _alphabet(char)) is not None}
        if len(alphabets) > 1:
            raise ValueError("mixes letters of several alphabets in a word")
    return text


def _is_hidden(char: str) -> bool:
    return char != " " and unicodedata.category(char)[0] in "CZ"


def _alphabet(char: str) -> str | None:
    first = unicodedata.name(char, "").partition(" ")[0]
    return first if char.isalpha() and first in _ALPHABETS else None


def _composed(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _small(text: str) -> str:
    return text.lower()


Email = Annotated[str, StringConstraints(max_length=254, pattern=_EMAIL), AfterValidator(_small)]
"""An address in ASCII (an international domain in its ``xn--`` form), in small letters."""
OrgName = Annotated[str, StringConstraints(max_length=63), AfterValidator(_readable)]
PersonName = Annotated[str, StringConstraints(max_length=100), AfterValidator(_readable)]
Password = Annotated[
    str,
    StringConstraints(min_length=MIN_PASSWORD_CHARACTERS, max_length=256, pattern=r"^[^\x00]*$"),
    AfterValidator(_composed),
]
Code = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]


class OrgCreate(Request):
    """What `POST /v1/orgs` takes."""

    name: OrgName
    admin_email: Email | None = Field(
        None, description="who is invited as its first Admin; default: the person who asks"
    )


class OrgChange(Request):
    """What `PATCH /v1/org` takes."""

    name: OrgName


class Org(Shape):
    """An org, as one of its people or keys sees it."""

    id: str
    name: str
    role: Role | None = Field(None, description="the person's; null for keys")
    current: bool = Field(description="whether the caller acts in it now")
    created_at: datetime


class Member(Shape):
    """A person in the org."""

    user_id: str
    email: str
    name: str
    role: Role
    joined_at: datetime


class MemberChange(Request):
    """What `PATCH /v1/members/{user_id}` takes."""

    role: Role


class InvitationCreate(Request):
    """What `POST /v1/invitations` takes."""

    email: Email
    role: Role = "member"
    expires_in: str = Field("7d", pattern=r"^[1-9][0-9]?[hd]$", description="24h, 7d; at most 30d")
    operator: bool = Field(
        False, description="makes the person an operator of the whole installation, too"
    )


class Invitation(Shape):
    """An invitation. Its link is shown once, in the answer that makes it."""

    id: str
    email: str
    role: Role
    operator: bool
    state: Literal["open", "accepted", "revoked", "expired"]
    link: str | None = Field(None, repr=False, description="only in the answer that makes it")
    created_by: str
    created_at: datetime
    expires_at: datetime


class OrgCreated(Org):
    """A new org, with the invitation of its first Admin where one was asked for."""

    invitation: Invitation | None = None


class InvitationAccept(Request):
    """What `POST /v1/invitations/accept` takes."""

    code: Code = Field(repr=False)


class PasswordReset(Request):
    """What the page of a link that resets a password takes."""

    code: Code = Field(repr=False)
    password: Password = Field(repr=False)


class Join(Request):
    """What the page of an invitation takes of somebody new."""

    name: PersonName
    password: Password = Field(repr=False)


class PasswordChange(Request):
    """What `POST /v1/me/password` takes."""

    current: str = Field(max_length=1000, repr=False)
    new: Password = Field(repr=False)


class AccountClose(Request):
    """What `POST /v1/me/close` takes."""

    password: str | None = Field(
        None, max_length=1000, repr=False, description="the present one, where the account has one"
    )


class Account(Shape):
    """Somebody who has an account, or had one, as the operator sees it."""

    id: str
    name: str
    email: str | None = Field(description="null once it is closed")
    operator: bool
    has_password: bool = Field(description="false: only an identity provider lets the person in")
    created_at: datetime
    closed_at: datetime | None = None


class AccountChange(Request):
    """What `PATCH /v1/people/{user_id}` takes."""

    operator: bool
    revoke_keys: bool = Field(
        False, description="with the right, API keys that have it and that the person made end, too"
    )


class ResetLink(Shape):
    """A link by which a person sets another password, once."""

    user_id: str
    link: str = Field(repr=False, description="only in the answer that makes it")
    expires_at: datetime


class Identity(Shape):
    """Whom an identity provider vouches for, linked to the account of who is signed in."""

    id: str
    issuer: str
    label: str | None = Field(description="what the provider called it when it was linked")
    created_at: datetime


class Session(Shape):
    """Where a person is signed in."""

    id: str
    place: Literal["browser", "cli"]
    label: str = Field(description="the browser, or the machine of the command line")
    source: str = Field(description="the address that it was made from")
    current: bool
    created_at: datetime
    seen_at: datetime
    expires_at: datetime


class SessionsEnded(Shape):
    """How many sessions were ended."""

    ended: int


class LoginStart(Request):
    """What `POST /v1/logins` takes: a command line asks to be let in by a person in a browser."""

    challenge: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the verifier, in hexadecimal"
    )
    machine: PersonName = Field(description="what the command line's machine is called")


class Login(Shape):
    """A login that waits for its approval: the person types the code at the address."""

    id: str
    code: str
    url: str
    expires_at: datetime
    interval_seconds: float


class LoginFinish(Request):
    """What `POST /v1/logins/finish` takes."""

    id: str = Field(max_length=64, pattern=r"^[^\x00]*$")
    verifier: Code = Field(repr=False)


class LoginResult(Shape):
    """What became of a login. Who knows the verifier gets the same token again within ten minutes."""

    state: Literal["waiting", "approved"]
    token: str | None = Field(None, repr=False)
