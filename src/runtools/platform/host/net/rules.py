"""The firewall as text for ``nft -f``: the host's table, and the one in each namespace. Pure.

What a sandbox may not reach is said twice, by rules that do not depend on each other: in its own
namespace, and on the host for all cables of the installation. Whoever flushes the host's ruleset takes
the second away; the first still stands, and `firewall` puts the second back.
"""

from __future__ import annotations

from ipaddress import IPv4Network

from runtools.platform.host.net.names import TAP, UPLINK, Names

GUEST = "10.0.2.15"
GUEST_MAC = "52:54:00:12:34:56"
GATEWAY = "10.0.2.2"
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

# The set in a host's table that says which addresses an installation has taken.
CABLES = "cables"


def host(names: Names, cables: IPv4Network) -> str:
    """The host's table; loading it again replaces what is there as a whole."""
    mine = names.veths
    return f"""\
table inet {names.table}
delete table inet {names.table}
table inet {names.table} {{
  set closed {{
    type ipv4_addr; flags interval; auto-merge
    elements = {{ {_elements()} }}
  }}
  set {CABLES} {{
    type ipv4_addr; flags interval
    elements = {{ {cables} }}
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
    ip saddr != @{CABLES} drop
    ip daddr @closed drop
    oifname "{mine}" drop
    tcp flags syn tcp option maxseg size set rt mtu
    accept
  }}
  chain coming {{
    meta nfproto != ipv4 drop
    tcp flags syn tcp option maxseg size set rt mtu
    ct state established,related accept
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @{CABLES} oifname != "{mine}" masquerade
  }}
}}
"""


def namespace() -> str:
    """The tables of a namespace, the same in all of them.

    The guest's frames are looked at before anything else: only its own MAC, only IPv4 from its own
    address, and ARP for it. Of the namespace itself it reaches the resolver, and may ping it.
    """
    return f"""\
table netdev guard {{
  chain tap {{
    type filter hook ingress device "{TAP}" priority 0; policy drop;
    ether saddr {GUEST_MAC} ip saddr {GUEST} accept
    ether saddr {GUEST_MAC} arp saddr ether {GUEST_MAC} arp saddr ip {GUEST} accept
  }}
}}
table ip sandbox {{
  set closed {{
    type ipv4_addr; flags interval; auto-merge
    elements = {{ {_elements()} }}
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "{TAP}" ct state established,related accept
    iifname "{TAP}" ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname "{TAP}" ip daddr {GATEWAY} icmp type echo-request limit rate 10/second accept
    iifname "{UPLINK}" ct state established,related accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname "{TAP}" ip daddr @closed reject with icmp type admin-prohibited
    iifname "{TAP}" oifname "{UPLINK}" accept
    iifname "{UPLINK}" oifname "{TAP}" ct state established,related accept
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{UPLINK}" masquerade
  }}
}}
"""


def _elements() -> str:
    return ", ".join((*CLOSED, *CLOSED_HOSTS))
