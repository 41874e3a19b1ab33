"""What a sandbox may reach: the one place that decides. Pure, standard library only.

A policy is a switch and two lists. The sandbox reaches what ``allow`` matches and ``deny`` does not;
with the switch off, nothing. An entry is

    *                 everything
    203.0.113.0/24    addresses: IPv4, with or without a prefix length
    example.org       this name
    *.example.org     every name below it, at any depth, but not itself

The order of entries means nothing, and `deny` always wins. A name is resolved only if an entry allows it:
under addresses alone none is. As soon as an entry is a name, names rule: an address is reached only if an
allowed name led to it, or an entry of addresses allows it. ``*`` is then every name, because an address
alone does not tell whose it is. Where names do not rule, what a connection calls itself says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Network, collapse_addresses

EVERYTHING = "*"
MAX_RULES = 512
MAX_RULE_LENGTH = 260

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NAME_LENGTH = 253


class BadRule(ValueError):
    """An entry that means nothing. ``list_name`` and ``index`` say which."""

    def __init__(self, list_name: str, index: int, problem: str) -> None:
        super().__init__(f"{list_name}.{index}: {problem}")
        self.list_name = list_name
        self.index = index
        self.problem = problem


@dataclass(frozen=True, slots=True)
class _Names:
    """Names that a list matches."""

    exact: frozenset[str]
    below: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.exact or self.below)

    def match(self, name: str) -> bool:
        if name in self.exact:
            return True
        rest = name
        while self.below and (dot := rest.find(".")) >= 0:
            rest = rest[dot + 1 :]
            if rest in self.below:
                return True
        return False


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, made by `policy`.

    Attributes:
        internet: the switch.
        allow, deny: the entries, in their plain form and sorted, as they are shown.
        allowed, denied: the addresses among them.
    """

    internet: bool = True
    allow: tuple[str, ...] = (EVERYTHING,)
    deny: tuple[str, ...] = ()
    allowed: tuple[IPv4Network, ...] = field(default=(), compare=False)
    denied: tuple[IPv4Network, ...] = field(default=(), compare=False)
    _allowed_names: _Names = field(default=_Names(frozenset(), frozenset()), compare=False)
    _denied_names: _Names = field(default=_Names(frozenset(), frozenset()), compare=False)

    @property
    def everything(self) -> bool:
        """Whether ``*`` is allowed."""
        return EVERYTHING in self.allow

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to decide: every public address is reached."""
        return self.internet and self.everything and not self.deny and not self.by_name

    @property
    def by_name(self) -> bool:
        """Whether names rule: some entry is one."""
        return self.internet and bool(self._allowed_names or self._denied_names)

    @property
    def denies_names(self) -> bool:
        """Whether a name can be refused at an address that is allowed as such."""
        return bool(self._denied_names)

    def admits_name(self, name: str) -> bool:
        """Whether a name (lower case, no dot at its end) may be resolved and spoken to."""
        if not self.internet or self._denied_names.match(name):
            return False
        return self.everything or self._allowed_names.match(name)

    @property
    def admits_riddles(self) -> bool:
        """Whether questions may be asked that are for no name that can be read."""
        return self.internet and self.everything and not self.by_name

    def admits_address(self, address: IPv4Address) -> bool:
        """Whether an address may be reached of which nobody knows a name."""
        if not self.internet or any(address in net for net in self.denied):
            return False
        if self.everything and not self.by_name:
            return True
        return any(address in net for net in self.allowed)

    def admits(self, address: IPv4Address, name: str | None) -> bool:
        """Whether a connection may go to an address under a name that it gives itself.

        That the name led to the address is for the caller to know.
        """
        if name is None or not self.by_name:
            return self.admits_address(address)
        if self._denied_names.match(name) or any(address in net for net in self.denied):
            return False
        return self.admits_name(name) or self.admits_address(address)


def policy(internet: bool, allow: Sequence[str], deny: Sequence[str]) -> Policy:
    """The policy of entries as a user wrote them.

    Raises:
        BadRule: one means nothing.
    """
    allowed, allowed_names, everything = _sorted_out("allow", allow)
    denied, denied_names, _ = _sorted_out("deny", deny)
    star = [EVERYTHING] if everything else []
    return Policy(
        internet,
        (*star, *map(_plain, allowed), *_shown(allowed_names)),
        (*map(_plain, denied), *_shown(denied_names)),
        allowed,
        denied,
        allowed_names,
        denied_names,
    )


def domain(text: str) -> str | None:
    """A domain name in its plain form: lower case, ASCII, no dot at its end; None where it is none."""
    text = text.lower().removesuffix(".")
    if not text.isascii():
        try:
            text = text.encode("idna").decode("ascii").lower()
        except UnicodeError:
            return None
    labels = text.split(".")
    if len(text) > _NAME_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    # 10.1, 1.2.3.4 and 0x7f.1 are addresses to many a program, and top-level names have letters.
    return text if re.fullmatch(r"(?!0x)[a-z0-9_-]*[a-z][a-z0-9_-]*", labels[-1]) else None


def _sorted_out(
    list_name: str, entries: Sequence[str]
) -> tuple[tuple[IPv4Network, ...], _Names, bool]:
    if len(entries) > MAX_RULES:
        raise BadRule(list_name, MAX_RULES, f"more than {MAX_RULES} entries")
    nets: list[IPv4Network] = []
    exact, below, everything = set(), set(), False
    for index, entry in enumerate(entries):
        text = entry.strip()
        try:
            net = _net(text, list_name)
            if net is not None:
                nets += net
            elif text == EVERYTHING:
                everything = _star(list_name)
            elif text.startswith("*."):
                below.add(_domain(text[2:]))
            else:
                exact.add(_domain(text))
        except ValueError as exc:
            raise BadRule(list_name, index, str(exc)) from None
    merged = tuple(collapse_addresses(nets))
    return merged, _Names(frozenset(exact), frozenset(below)), everything


def _star(list_name: str) -> bool:
    if list_name == "deny":
        raise ValueError("* here would close everything: set internet to false instead")
    return True


def _net(text: str, list_name: str) -> list[IPv4Network] | None:
    """Addresses, if the entry is meant as such; those of IPv6 are refused anyway."""
    if ":" in text:
        try:
            IPv6Network(text)
        except ValueError:
            raise ValueError(_problem(text)) from None
        if list_name == "allow":
            raise ValueError("an IPv6 network: sandboxes reach IPv4 alone")
        return []
    if not re.fullmatch(r"[0-9./]+", text):
        return None
    try:
        return [IPv4Network(text)]
    except AddressValueError:
        raise ValueError(_problem(text)) from None
    except ValueError as exc:
        raise ValueError(f"{text[:60]!r}: {exc}"[:200]) from None


def _domain(text: str) -> str:
    name = None if len(text) > MAX_RULE_LENGTH else domain(text)
    if name is None:
        raise ValueError(_problem(text))
    return name


def _problem(text: str) -> str:
    return (
        f"{text[:60]!r} is no address, no network such as 203.0.113.0/24, "
        "and no name such as example.org or *.example.org"
    )


def _plain(net: IPv4Network) -> str:
    return str(net.network_address) if net.prefixlen == 32 else str(net)


def _shown(names: _Names) -> Iterable[str]:
    return sorted([*names.exact, *(f"*.{name}" for name in names.below)])


OPEN = Policy()
"""Every public address."""

SHUT = Policy(internet=False)
"""Nothing, names included."""
