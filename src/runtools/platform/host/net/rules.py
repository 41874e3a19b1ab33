"""The firewall of a namespace as text for ``nft -f``. Pure.

What a sandbox may not reach is said twice, by rules that do not depend on each other: in its own
namespace, and on the host for all cables of the installation (`cables`). Whoever flushes the host's
ruleset takes the second away; the first still stands, and `firewall` puts the second back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from runtools.guest import protocol
from runtools.platform.core.egress import Policy
from runtools.platform.host.net.names import TAP, UPLINK
from runtools.sdk.shapes.egress import RefusalReason

GUEST = "10.0.2.15"
GUEST_MAC = "52:54:00:12:34:56"
GATEWAY = protocol.HOST  # the agent inside admits no other caller
# The same in every namespace: a clone that wakes in another one still knows its gateway's.
GATEWAY_MAC = "52:54:00:12:34:02"

# Where no sandbox may go: this host, private and shared ranges, link-local (and with it the metadata
# services of clouds), documentation (some use it as private; 203.0.113.0/24 is left out, it stands for
# the internet in tests), benchmarks (our own cables), multicast, reserved, broadcast.
CLOSED = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "224.0.0.0/3",
)
# Azure's platform services, metadata among them, have a public address.
CLOSED_HOSTS = ("168.63.129.16",)

CLOSED_ELEMENTS = ", ".join((*CLOSED, *CLOSED_HOSTS))

_CLOSED = tuple(IPv4Network(net) for net in (*CLOSED, *CLOSED_HOSTS))
_GLOBAL_V6 = IPv6Network("2000::/3")

TABLE = "sandbox"
PINNED = "pinned"
PINS = 4096
RELAY_PORT = 3129
# Where content networks serve many names at one address, by HTTP or TLS.
_CHECKED = "80, 443, 2052, 2053, 2082, 2083, 2086, 2087, 2095, 2096, 8080, 8443, 8880"
# A packet that begins a QUIC connection, on whatever port: a long header, and a version that servers
# speak (1, 2, drafts of both, Google's, Meta's, Microsoft's). Others cannot be told from RTP, DNS and
# noise, whose first bit is as often set; and whoever begins with one must go on with one of these.
_QUIC = tuple(
    f"meta l4proto udp @th,64,1 1 @th,72,{bits} {version}"
    for version, bits in (
        *(("0x00000001", 32), ("0x6b3343cf", 32), ("0x709a50c4", 32), ("0xff0000", 24)),
        *(("0xff0200", 24), ("0x5130", 16), ("0x5430", 16), ("0xfaceb0", 24), ("0xabcd", 16)),
    )
)

# Refused packets that are told to the host, for the log; of more than that it learns the number.
LOG_GROUP = 1
LOGGED_RATE = 50
LOGGED_BURST = 100
COUNTED: tuple[RefusalReason, ...] = (
    "closed_range",
    "internet_off",
    "not_allowed",
    "quic",
    "too_many",
)

# What the packets bear that begin a flow too many.
_OVER = "0x0000f10f"
# Of the flows that a sandbox may have at once, so many parts may begin in a second, and in a burst. TCP
# that was closed counts no more, and lingers on the host.
_RATE_SHARE = 16
_BURST_SHARE = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may take of the network; 0: no limit.

    Attributes:
        mbit: millions of bits a second, each way.
        packets: packets a second that it may send.
        connections: flows that it may have at once, UDP and pings included.
    """

    mbit: int = 0
    packets: int = 0
    connections: int = 0


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Known:
    """Addresses that an admitted name has led to: for how many seconds more new flows may go there;

    0: only flows that are there already.
    """

    address: IPv4Address
    seconds: int


def guard(limits: Limits) -> str:
    """What no policy changes, in every namespace: the guest's frames, and how many flows it may have.

    Only its own MAC, only IPv4 from its own address, and ARP for it; no tag of a VLAN, the empty one
    included, which the kernel would take off. Flows are counted here, for a table that is loaded
    again counts anew; what is over is marked, and refused by the policy's table.
    """
    return f"""\
table netdev guard {{
  chain tap {{
    type filter hook ingress device "{TAP}" priority 0; policy drop;
    ether type {{ 8021q, 8021ad }} drop
    {_packets(limits.packets)}
    ether saddr {GUEST_MAC} ip saddr {GUEST} accept
    ether saddr {GUEST_MAC} arp saddr ether {GUEST_MAC} arp saddr ip {GUEST} accept
  }}
}}
table ip flows {{
  chain counted {{
    type filter hook prerouting priority mangle - 1; policy accept;
    {_connections(limits.connections)}
  }}
}}
"""


def namespace(policy: Policy, known: Sequence[Known] = ()) -> str:
    """The table of a namespace under a policy; loading it again replaces what is there as a whole.

    Of the namespace itself the guest reaches the resolver, and may ping it. What it says there on
    connections that are not there is no wish of its own: a clone remembers those of its original.

    A flow that the policy has admitted bears its mark, and is not looked at again. Under the next
    policy, which has another mark, it is judged anew: so a change cuts what is not admitted any more.
    Where names rule, the ports of HTTP and TLS go to the relay, which judges them by what they say;
    what began under another policy gets no word to it unless it may go on.
    """
    return _table(policy, known, mark_of(policy))


def _table(policy: Policy, known: Sequence[Known], mark: int) -> str:
    return f"""\
table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
  set closed {{
    type ipv4_addr; flags interval; auto-merge
    elements = {{ {CLOSED_ELEMENTS} }}
  }}
  set allowed {{
    type ipv4_addr; flags interval; auto-merge
    {_having(map(str, policy.allowed))}
  }}
  set denied {{
    type ipv4_addr; flags interval; auto-merge
    {_having(map(str, policy.denied))}
  }}
  set {PINNED} {{
    type ipv4_addr; flags timeout; size {PINS}
    {_having(f"{one.address} timeout {one.seconds}s" for one in known if one.seconds)}
  }}
  set known {{
    type ipv4_addr
    {_having(str(one.address) for one in known)}
  }}
{_counters()}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "{TAP}" ct status dnat tcp dport {RELAY_PORT} goto relayed
    iifname "{TAP}" ct state established,related accept
    iifname "{TAP}" ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname "{TAP}" ip daddr {GATEWAY} icmp type echo-request limit rate 10/second accept
    iifname "{TAP}" ip daddr {GATEWAY} icmp type echo-request drop
    iifname "{TAP}" tcp flags & (fin | syn | rst | ack) != syn drop
    iifname "{TAP}" goto closed_range
    iifname "{UPLINK}" ct state established,related accept
    iifname "lo" accept
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname "{UPLINK}" ip daddr @closed drop
  }}
  chain counted {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "{TAP}" meta mark {_OVER} goto too_many
  }}
  chain divert {{
    type nat hook prerouting priority dstnat; policy accept;
    {_diverted(policy)}
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname "{TAP}" ip daddr @closed goto closed_range
{_forward(policy, mark)}
  }}
{_judged(policy, mark)}
{_relayed(policy, mark)}
{"".join(map(_refusing, COUNTED[:-1]))}  chain too_many {{
    {_logging("too_many")}
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{UPLINK}" masquerade
  }}
}}
"""


def is_closed(address: IPv4Address | IPv6Address) -> bool:
    """Whether no sandbox may go there, whatever its policy."""
    if isinstance(address, IPv6Address):
        return address not in _GLOBAL_V6
    return any(address in net for net in _CLOSED)


def mark_of(policy: Policy) -> int:
    """The mark of the flows that a policy has admitted; another one for every other policy.

    And where other rules are made of the policy than by the version before: what that had in force is not.
    """
    said = repr((policy.internet, policy.allow, policy.deny)) + _table(policy, (), 0)
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:4]) or 1


def in_force(policy: Policy) -> str:
    """The name of a chain that is there while the policy is in force."""
    return _named(mark_of(policy))


def _named(mark: int) -> str:
    return f"policy_{mark:08x}"


def _forward(policy: Policy, mark: int) -> str:
    if policy.is_plain:
        # Nothing is to be decided, and nothing is: not even marked.
        lines = [
            f'iifname "{TAP}" oifname "{UPLINK}" accept',
            f'iifname "{UPLINK}" oifname "{TAP}" ct state established,related accept',
        ]
    elif not policy.internet:
        lines = [f'iifname "{TAP}" goto internet_off']
    else:
        lines = [
            *_quic(policy),
            f"ct mark {mark:#010x} accept",
            f'iifname "{TAP}" oifname "{UPLINK}" goto judged',
            f'iifname "{UPLINK}" oifname "{TAP}" ct state established,related goto judged',
        ]
    return "\n".join(f"    {line}" for line in lines)


def _quic(policy: Policy) -> list[str]:
    """Every packet is asked, those of admitted flows too: the first of one may be anything."""
    if not policy.by_name:
        return []
    who = f'iifname "{TAP}"' + ("" if policy.denies_names else " ip daddr != @allowed")
    return [f"{who} {packet} goto quic" for packet in _QUIC]


def _judged(policy: Policy, mark: int) -> str:
    """Judged is where the flow was first sent to, whichever way a packet of it goes."""
    there = "ct original ip daddr"
    lines = [f"{there} @denied goto not_allowed"]
    if policy.everything and not policy.by_name:
        lines.append("goto admitted")
    elif policy.by_name:
        addressed = f"{there} @allowed goto admitted"
        checked = [
            f"meta l4proto tcp ct original proto-dst {{ {_CHECKED} }} goto not_allowed",
            "meta l4proto udp ct original proto-dst 443 goto quic",
        ]
        # Where names are denied, addresses that are allowed are checked for them, too.
        lines += [*checked, addressed] if policy.denies_names else [addressed, *checked]
        lines += [
            f"ct state new ip daddr @{PINNED} goto admitted",
            f"ct state established,related {there} @known goto admitted",
            "goto not_allowed",
        ]
    else:
        lines += [f"{there} @allowed goto admitted", "goto not_allowed"]
    body = "\n".join(f"    {line}" for line in lines)
    return f"""\
  chain {_named(mark)} {{
  }}
  chain admitted {{
    ct mark set {mark:#010x} accept
  }}
  chain judged {{
{body}
  }}"""


def _relayed(policy: Policy, mark: int) -> str:
    """What the guest sends to the relay. That tells of refusals; what comes too late is counted here."""
    there = "ct original ip daddr"
    if not policy.internet:
        lines = []
    elif policy.everything and not policy.by_name:
        lines = [f"{there} != @denied goto admitted"]
    else:
        lines = [f"ct mark {mark:#010x} accept", f"{there} @denied goto cut"]
        lines += [f"{there} @allowed goto admitted"]
        lines += [f"{there} @{PINNED} goto admitted"]
        lines += [f"ct state established,related {there} @known goto admitted"]
    reason = "not_allowed" if policy.internet else "internet_off"
    body = "\n".join(f"    {line}" for line in [*lines, "goto cut"])
    return f"""\
  chain cut {{
    counter name "{reason}"
    reject with tcp reset
  }}
  chain relayed {{
{body}
  }}"""


def _diverted(policy: Policy) -> str:
    """What goes to the relay: what may be meant for an admitted name. The rest is refused at once."""
    if not policy.by_name:
        return ""
    checked = f'iifname "{TAP}" tcp dport {{ {_CHECKED} }} ip daddr != @closed ip daddr != @denied'
    lines = [f"{checked} ip daddr @{PINNED} redirect to :{RELAY_PORT}"]
    if policy.denies_names:
        lines.append(f"{checked} ip daddr @allowed redirect to :{RELAY_PORT}")
    else:
        lines.insert(0, f'iifname "{TAP}" ip daddr @allowed return')
    return "\n    ".join(lines)


def _refusing(reason: str) -> str:
    return f"""\
  chain {reason} {{
    iifname "{UPLINK}" drop
    {_logging(reason)}
    ct state established meta l4proto tcp reject with tcp reset
    reject with icmp type admin-prohibited
  }}
"""


def _logging(reason: str) -> str:
    rate = f"limit rate {LOGGED_RATE}/second burst {LOGGED_BURST} packets"
    told = f'{rate} log prefix "{reason}" group {LOG_GROUP} snaplen 64'
    return f'counter name "{reason}"\n    {told}'


def _counters() -> str:
    return "\n".join(f"  counter {reason} {{ }}" for reason in COUNTED)


def _packets(limit: int) -> str:
    return (
        f"limit rate over {limit}/second burst {max(limit // 10, 5)} packets drop" if limit else ""
    )


def _connections(limit: int) -> str:
    if not limit:
        return ""
    # A flow's first packet alone: a guest may go on for long before anybody answers.
    new = f'iifname "{TAP}" ct state new ct status and confirmed == 0'
    rate = f"{max(limit // _RATE_SHARE, 50)}/second burst {max(limit // _BURST_SHARE, 100)} packets"
    return f"""\
{new} ct count over {limit} meta mark set {_OVER}
    {new} limit rate over {rate} meta mark set {_OVER}"""


def _having(elements: Iterable[str]) -> str:
    text = ", ".join(elements)
    return f"elements = {{ {text} }}" if text else ""
