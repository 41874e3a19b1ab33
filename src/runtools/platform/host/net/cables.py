"""The host's table as text for ``nft -f``: what comes from cables, and what all may take together. Pure.

What the host remembers of flows is shared out (`pace`). Whatever the others do, each cable may begin so
many in a minute, and have so many open. What is beyond that is for whoever comes first, as long as the host
has room; that it has is said by an element of a set which runs out: there is none while nobody looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from runtools.platform.host.net.names import Names
from runtools.platform.host.net.rules import CLOSED_ELEMENTS

# The set in a host's table that says which addresses an installation has taken.
TAKEN = "cables"
# Which cables begin flows within their share, which have how many open, and how often one was refused.
WITHIN, HELD, OVER = "within", "held", "over"
# Whether there is room beyond the shares.
ROOM = "room"
PASSING = (WITHIN, HELD, OVER, ROOM)
"""Sets whose elements come and go while the table stays as it is."""

# The host remembers a closed TCP connection, and UDP that was answered, for so long.
_LINGER_SECONDS = 120
# A share may be used up at once after so long without use.
_SAVED_SECONDS = 20
_LEAST_HELD = 8


@dataclass(frozen=True, slots=True)
class Pace:
    """How many flows cables may begin and have.

    Attributes:
        each: in a minute by each of them, whatever the others do.
        others: in a second by all of them together, beyond that.
        held: open at once of each of them, whatever the others do.
        room: more than that may be open while the host remembers fewer than so many.
    """

    each: int
    others: int
    held: int
    room: int


def pace(tracked: int, sandboxes: int) -> Pace:
    """Whatever comes from cables, a quarter of what a host can remember is left to the host.

    An eighth of it is shared out for flows that are open among the sandboxes that it may run, and a quarter
    for what lingers of closed ones. Beyond the shares nothing begins once three eighths are full, of
    whatever it be; what lingers of that, at the pace of all together, does not fill so much alone.
    """
    quarter = tracked // 4
    each = quarter * 60 // ((_LINGER_SECONDS + _SAVED_SECONDS) * sandboxes)
    return Pace(
        each=max(each, 1),
        others=max(quarter // _LINGER_SECONDS, 5),
        held=max(tracked // 8 // sandboxes, _LEAST_HELD),
        room=tracked * 3 // 8,
    )


def table(names: Names, cables: IPv4Network, flows: Pace) -> str:
    """The host's table; loading it again replaces what is there as a whole."""
    mine = names.veths
    saved = max(flows.each * _SAVED_SECONDS // 60, 1)
    by_cable = f"type ipv4_addr; size {cables.num_addresses}; flags dynamic"
    return f"""\
table inet {names.table}
delete table inet {names.table}
table inet {names.table} {{
  set closed {{
    type ipv4_addr; flags interval; auto-merge
    elements = {{ {CLOSED_ELEMENTS} }}
  }}
  set {TAKEN} {{
    type ipv4_addr; flags interval
    elements = {{ {cables} }}
  }}
  set {WITHIN} {{
    {by_cable}
  }}
  set {HELD} {{
    {by_cable}
  }}
  set {OVER} {{
    {by_cable}
  }}
  set {ROOM} {{
    typeof meta nfproto; flags timeout
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept;
    iifname "{mine}" drop
  }}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    iifname "{mine}" goto leaving
    oifname "{mine}" goto coming
  }}
  chain leaving {{
    meta nfproto != ipv4 drop
    ip saddr != @{TAKEN} drop
    ip daddr @closed drop
    oifname "{mine}" drop
    ct state new ct status and confirmed == 0 jump begun
    tcp flags syn tcp option maxseg size set rt mtu
    accept
  }}
  chain begun {{
    update @{WITHIN} {{ ip saddr limit rate {flows.each}/minute burst {saved} packets }} goto open
    meta nfproto @{ROOM} limit rate {flows.others}/second burst {flows.others} packets goto open
    goto over
  }}
  chain open {{
    update @{HELD} {{ ip saddr ct count over {flows.held} }} goto beyond
  }}
  chain beyond {{
    meta nfproto @{ROOM} return
    goto over
  }}
  chain over {{
    update @{OVER} {{ ip saddr counter }} drop
  }}
  chain coming {{
    meta nfproto != ipv4 drop
    tcp flags syn tcp option maxseg size set rt mtu
    ct state established,related accept
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @{TAKEN} oifname != "{mine}" masquerade
  }}
}}
"""  # noqa: S608 - the language of nftables


def room(names: Names, seconds: int) -> str:
    """There is room beyond the shares for so many seconds from now; 0: there is none any more.

    Whether the element is there nobody knows: added, it is; taken away and added again, it lives anew.
    """
    there = f"element inet {names.table} {ROOM} {{ ipv4"
    lines = [f"add {there} }}", f"delete {there} }}"]
    if seconds:
        lines.append(f"add {there} timeout {seconds}s }}")
    return "".join(f"{line}\n" for line in lines)
