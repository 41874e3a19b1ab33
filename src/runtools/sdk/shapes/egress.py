"""What a sandbox may reach, and what it was refused, as the API shows and takes it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from runtools.sdk.shapes.base import Request, Shape

RefusalReason = Literal[
    "internet_off",  # the policy's switch is off
    "closed_range",  # a private, link-local, metadata or otherwise closed address
    "not_allowed",  # the policy does not admit the address or the name
    "quic",  # QUIC, on any port of UDP, while names rule: it cannot be checked
    "private_answer",  # the name's nameserver gave a closed address
    "encrypted_hello",  # TLS with an encrypted second hello, or noise that looks like one (ECH)
    "unreadable",  # on a port of HTTP or TLS, with a beginning that tells no name
    "host_full",  # more connections than its share, while those of all fill the host
    "too_many",  # more names, connections or questions than one sandbox may have
]
RefusalProtocol = Literal["dns", "tcp", "udp", "icmp", "other"]

MAX_RULES = 512
Rule = Annotated[str, StringConstraints(max_length=260)]
Rules = Annotated[list[Rule], Field(max_length=MAX_RULES)]


class EgressRules(Request, defer_build=True):
    """Which of the public addresses a sandbox reaches: what `allow` matches and `deny` does not.

    An entry is `*` (everything), an IPv4 address or network, a name, or `*.name` (all below it).
    """

    allow: Rules = Field(default_factory=lambda: ["*"])
    deny: Rules = Field(default_factory=list)


class Egress(EgressRules):
    """A sandbox's egress policy: the rules, and the switch over them."""

    internet: bool = Field(True, description="false: nothing leaves, DNS included")


class EgressChange(Request, defer_build=True):
    """What `PATCH /v1/sandboxes/{id}/egress` takes: what is left out stays as it is."""

    internet: bool | None = None
    allow: Rules | None = None
    deny: Rules | None = None


class EgressRefusal(Shape, defer_build=True):
    """Something that a sandbox wanted to reach and was not let, with how often.

    A line with neither name nor address counts what came too fast to be told one by one.
    """

    reason: RefusalReason
    protocol: RefusalProtocol
    name: str | None
    address: str | None
    port: int | None
    count: int
    hint: str | None = Field(None, description="what to do about it, where it may surprise")
    first_at: datetime
    last_at: datetime


class EgressLog(Shape, defer_build=True):
    """What a sandbox was refused, the latest first."""

    refusals: list[EgressRefusal]
    forgotten: int = Field(description="refusals that fell out of the log because it is full")
