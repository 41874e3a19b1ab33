"""The host's side of the firewall: our own table, and our way through other people's.

Other software may have a chain at the hook *forward* that drops what it does not know (Docker's policy
does). An accept in our table does not help there, so rules for our cables alone, marked with our
table's name, are put into those chains, and taken out again at the end. They open nothing else: what
passes them went through our table.

Whoever reloads the machine's ruleset takes ours away, or empties it. The kernel tells of every change
of the ruleset; a table that is not as it was loaded is put back within milliseconds. What guests make come
and go in sets is no such change: else they would have the host list its rules as often as they like.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from runtools.platform.host.net import cables, crowd, nft
from runtools.platform.host.net.crowd import Crowd, Told
from runtools.platform.host.net.names import Names
from runtools.platform.host.net.netlink import Changes
from runtools.platform.kit import process

log = logging.getLogger(__name__)

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_SETTLE_SECONDS = 0.1


class Firewall:
    """The rules of one installation on the host."""

    def __init__(self, names: Names, addresses: IPv4Network, sandboxes: int, told: Told) -> None:
        """``sandboxes``: among how many what the machine can remember of flows is shared out.

        ``told`` hears of whose are refused for the sake of all.
        """
        self._sandboxes = sandboxes
        self._names = names
        self._addresses = addresses
        self._crowd = Crowd(names, told)
        self._loaded: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._changes: Changes | None = None

    async def up(self) -> None:
        """Put the rules in force and keep them there.

        Raises:
            CommandFailed: nftables refuses them.
        """
        self._changes = Changes(self._names.table, cables.PASSING)
        try:
            await self._pass_through(await self._load())
        except BaseException:
            self._changes.close()
            self._crowd.close()
            raise
        if _FORWARD.read_text().strip() != "1":
            _FORWARD.write_text("1")
        self._tasks = [
            asyncio.create_task(self._watch(self._changes), name="firewall"),
            asyncio.create_task(self._look(), name="connections of all sandboxes"),
        ]

    async def down(self) -> None:
        """Take all of them away."""
        await self.rest()
        for family, table, chain, handle in self._passages(await _ruleset()):
            await _quietly("delete", "rule", family, table, chain, "handle", str(handle))
        await _quietly("delete", "table", "inet", self._names.table)

    async def rest(self) -> None:
        """Leave them in force without keeping watch: machines go on while the platform is down."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._changes is not None:
            self._changes.close()
        self._crowd.close()

    def note(self) -> None:
        """Tell how many were refused for the sake of all since it was told last."""
        self._crowd.note()

    async def _load(self) -> dict[str, Any]:
        """Put our table in force; returns the ruleset with it."""
        flows = cables.pace(crowd.tracked(), self._sandboxes)
        self.note()  # while the platform was down, too
        await nft.apply(cables.table(self._names, self._addresses, flows))
        self._crowd.begin(flows)
        found = await _ruleset()
        self._loaded = _content(found, self._names.table)
        return found

    async def _look(self) -> None:
        while True:
            try:
                self.note()
                await self._crowd.look()
            except Exception:
                # The edge of a loop that must not end, whatever the kernel says.
                log.exception("connections of all sandboxes could not be looked at")
            await asyncio.sleep(crowd.SECONDS)

    async def _watch(self, changes: Changes) -> None:
        while True:
            await changes.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            changes.drain()
            try:
                await self._mend()
            except Exception:
                # The edge of a loop that must not end, whatever others have put into the ruleset.
                log.exception("the firewall could not be looked after")

    async def _mend(self) -> None:
        """Put back what somebody took away, and pass through chains that are new."""
        found = await _ruleset()
        if _content(found, self._names.table) != self._loaded:
            log.warning("somebody changed the firewall; the rules of the sandboxes are put back")
            found = await self._load()
        await self._pass_through(found)

    async def _pass_through(self, found: dict[str, Any]) -> None:
        """Have packets of ours accepted by others' chains that would drop them unseen."""
        present = {(family, table, chain) for family, table, chain, _ in self._passages(found)}
        for family, table, chain, position in _strangers(found, self._names.table):
            if (family, table, chain) in present:
                continue
            mine, mark = f'"{self._names.veths}"', f'comment "{self._names.table}"'
            coming = f"oifname {mine} ct state established,related counter accept {mark}"
            leaving = f"iifname {mine} counter accept {mark}"
            text = "".join(
                f"{position} rule {family} {table} {chain} {rule}\n" for rule in (coming, leaving)
            )
            await nft.apply(text)
            log.info("sandboxes pass through the firewall chain %s %s %s", family, table, chain)

    def _passages(self, found: dict[str, Any]) -> list[tuple[str, str, str, int]]:
        """Our rules in others' chains."""
        return [
            (rule["family"], rule["table"], rule["chain"], rule["handle"])
            for rule in _items(found, "rule")
            if rule.get("comment") == self._names.table
        ]


async def taken() -> list[IPv4Network]:
    """The addresses that installations on this machine have taken for their cables."""
    return [
        IPv4Network((element["prefix"]["addr"], element["prefix"]["len"]))
        for one in _items(await _ruleset(), "set")
        if one["table"].startswith("runtools_") and one["name"] == cables.TAKEN
        for element in one.get("elem", ())
    ]


async def _ruleset() -> dict[str, Any]:
    done = await nft.ask(["-j", "-a", "list", "ruleset"])
    found: dict[str, Any] = json.loads(done.stdout or b"{}")
    return found


def _items(ruleset: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    for item in ruleset.get("nftables", ()):
        if kind in item:
            yield item[kind]


def _content(ruleset: dict[str, Any], table: str) -> list[str]:
    """All that is in the table of that name of ours, in a form that can be compared.

    What comes and goes in sets is not.
    """
    return sorted(
        json.dumps({kind: _lasting(what)}, sort_keys=True)
        for item in ruleset.get("nftables", ())
        for kind, what in item.items()
        if what.get("family") == "inet" and table in (what.get("table"), what.get("name"))
    )


def _lasting(what: dict[str, Any]) -> dict[str, Any]:
    passing = {"handle", "elem"} if what.get("name") in cables.PASSING else {"handle"}
    return {key: value for key, value in what.items() if key not in passing}


def _strangers(ruleset: dict[str, Any], own: str) -> Iterator[tuple[str, str, str, str]]:
    """Chains of others that drop forwarded packets they do not know, and where a rule of ours goes:

    after theirs where the chain's policy drops, before them where its last rule does.
    """
    for chain in _items(ruleset, "chain"):
        table = chain["table"]
        if chain.get("hook") != "forward" or chain["family"] not in ("ip", "inet"):
            continue
        if table == own or table.startswith("runtools_"):
            continue
        last = [
            rule["expr"]
            for rule in _items(ruleset, "rule")
            if (rule["family"], rule["table"], rule["chain"])
            == (chain["family"], table, chain["name"])
        ][-1:]
        verdicts = [key for expr in last for part in expr for key in part]
        if verdicts and verdicts[-1] in ("drop", "reject") and _unconditional(last[0]):
            yield chain["family"], table, chain["name"], "insert"
        elif chain.get("policy") == "drop":
            yield chain["family"], table, chain["name"], "add"


def _unconditional(expressions: list[dict[str, Any]]) -> bool:
    return all(key in ("counter", "log", "drop", "reject") for one in expressions for key in one)


async def _quietly(*words: str) -> None:
    with contextlib.suppress(process.CommandFailed):
        await nft.ask(words)
