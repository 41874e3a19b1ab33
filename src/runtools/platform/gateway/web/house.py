"""What all visits share, and what is looked at from time to time: who takes too long, who may not stay."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Protocol
from urllib.parse import quote

from runtools.errors import RateLimited, RunToolsError
from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.core.ports.admitting import Admitting
from runtools.platform.core.ports.reach import Reach
from runtools.platform.gateway.web import pages, visitor
from runtools.platform.gateway.web.admission import Admission, Wish
from runtools.platform.gateway.web.head import RequestHead
from runtools.platform.gateway.web.pages import UNKNOWN, Page
from runtools.platform.gateway.web.reloads import Reloads
from runtools.platform.gateway.web.upstream import Upstreams
from runtools.platform.kit import http, rates
from runtools.platform.kit.clock import Clock

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
_GONE_SECONDS: Final = 2.0
MOST_VISITS: Final = 10_000
# Two connections each, a quarter as many that wait to be used again, and some for everything else.
FILES_OF_A_VISIT: Final = 2.5
MOST_OF_A_SOURCE: Final = 2_000
MOST_TO_A_SANDBOX: Final = 500  # of an address; a host takes twice as many to one sandbox
MOST_FAREWELLS: Final = 256  # that are told that there is no room, at once
_Place = tuple[str, str]  # a sandbox, and whom who asks is counted to
_SHARES: Final = 16  # one of which an address may have of all, when all ask for something


class Guest(Protocol):
    """A connection that is counted.

    Attributes:
        source: the address that it comes from.
        wish: what it was let in by, where it was.
        is_idle: no request of it is under way.
    """

    source: str
    wish: Wish | None

    @property
    def is_idle(self) -> bool:
        """See above."""
        ...

    def look(self, now: float) -> None:
        """End what takes too long."""
        ...

    def limit(self) -> None:
        """The org that it visits has limits to keep from now on."""
        ...

    def abort(self) -> None:
        """Break it off."""
        ...


class House:
    """One gateway's dev URLs.

    Args:
        sign_in: the api's page that lets a browser in, or empty.
        proxies: whose ``X-Forwarded-For`` is believed.
        most: connections at once.
    """

    def __init__(
        self,
        urls: DevUrls,
        admitting: Admitting,
        reach: Reach,
        clock: Clock,
        *,
        sign_in: str = "",
        proxies: Sequence[IPv4Network | IPv6Network] = (),
        most: int = MOST_VISITS,
    ) -> None:
        self.urls = urls
        self.clock = clock
        self.admission = Admission(admitting, clock)
        self.upstreams = Upstreams(reach, most // 4)
        self.reloads = Reloads(clock.monotonic)
        self._sign_in = sign_in
        self._proxies = proxies
        self._most = most
        self._visits: dict[Guest, str] = {}  # with whom each is counted to
        self._sent_away = 0  # that are being told that there is no room
        self._of: dict[str, dict[Guest, None]] = {}  # the same, by whom; the oldest first
        # Of those on which something is asked, or another talk is.
        self._places: dict[Guest, _Place] = {}
        self._at: dict[_Place, int] = {}  # how many are there
        self._asking: asyncio.Task[None] | None = None
        self._is_busy = False  # everybody asks for something; after a look it is looked for anew

    # --- visits ---

    def enter(self, visit: Guest) -> bool:
        """Count a visit; False: there is no room for it."""
        source = rates.source(visit.source)
        of_source = len(self._of.get(source, ()))
        if of_source >= MOST_OF_A_SOURCE and not self._is_proxy(visit.source):
            return False
        if len(self._visits) >= self._most and not self._make_room(source):
            return False
        self._count(visit, source)
        return True

    def _make_room(self, source: str) -> bool:
        """Break somebody off for one from there, so that few addresses cannot keep all others out.

        That is who asks for nothing: the oldest from where most are. Where all ask for something, it is
        the oldest of an address that has more than its share, whatever that asks for: by a trusted proxy,
        of the address that it names.
        """
        gone = self._idle()
        if gone is None:
            largest, its = max(self._of.items(), key=lambda one: len(one[1]))
            if len(its) > self._most // _SHARES and source != largest:
                gone = next(iter(its))
        if gone is None:
            return False
        self.leave(gone)
        _break_off(gone)
        return True

    def _idle(self) -> Guest | None:
        if self._is_busy:
            return None
        by_size = sorted(self._of.values(), key=len, reverse=True)
        found = next((one for its in by_size for one in its if one.is_idle), None)
        self._is_busy = found is None
        return found

    def say_farewell(self) -> bool:
        """Whether one more may be told that there is no room; else it is dropped without a word."""
        self._sent_away += 1
        return self._sent_away <= MOST_FAREWELLS

    def leave(self, visit: Guest) -> None:
        """Count it off."""
        self.has_asked(visit)
        self._count_off(visit)

    def left(self) -> None:
        """One that had no room is gone."""
        self._sent_away -= 1

    def asks(self, visit: Guest, sandbox_id: str, peer: str) -> None:
        """It wants to a sandbox, until `has_asked`, or until it leaves.

        Args:
            peer: the address of who asks, by a trusted proxy too.
        """
        whose = rates.source(peer)
        place = self._places[visit] = sandbox_id, whose
        self._at[place] = self._at.get(place, 0) + 1
        if self._visits.get(visit, whose) != whose:
            self._count_off(visit)
            self._count(visit, whose)

    def has_asked(self, visit: Guest) -> None:
        """It wants nowhere for now."""
        place = self._places.pop(visit, None)
        if place is None:
            return
        self._at[place] -= 1
        if not self._at[place]:
            del self._at[place]

    def check_share(self, sandbox_id: str, peer: str) -> None:
        """Keep one address from taking up all that a host lets to one sandbox, through proxies too.

        Args:
            peer: the address of who asks. A proxy that does not say for whom it does has all.

        Raises:
            RateLimited: it has its share.
        """
        there = self._at.get((sandbox_id, rates.source(peer)), 0)
        if there > MOST_TO_A_SANDBOX and not self._is_proxy(peer):
            raise RateLimited(
                f"{MOST_TO_A_SANDBOX} connections from one address to {sandbox_id} are open already",
                hint="close some of them",
            )

    def peer(self, source: str, head: RequestHead) -> str:
        """The address of who asks, by a trusted proxy too."""
        if not self._proxies:
            return source
        fields = [(low, value) for _, value, low in head.fields]
        return http.peer({"client": (source, 0), "headers": fields}, self._proxies)

    async def look_on(self) -> None:
        """Look at all of them, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.look()
            except Exception:  # the next look finds what this one did not
                log.exception("looking at visits failed")

    def look(self) -> None:
        """End what takes too long, and what may not stay any more."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_who_stays())
        self._is_busy = False
        now = asyncio.get_running_loop().time()
        for visit in list(self._visits):
            try:
                visit.look(now)
            except Exception:  # it keeps nobody from being looked at
                log.exception("looking at a connection from %s failed", visit.source)
                _break_off(visit)
        self.upstreams.sweep()
        self.reloads.sweep()

    async def _ask_who_stays(self) -> None:
        wishes = list({one.wish for one in self._visits if one.wish is not None})
        if not wishes:
            return
        try:
            stays = await self.admission.stays(wishes)
        except RunToolsError as exc:
            log.warning("cannot ask who may stay: %s", exc)
            return
        except Exception:  # likewise
            log.exception("cannot ask who may stay")
            return
        said = dict(zip(wishes, stays, strict=True))
        for visit in list(self._visits):
            stay = None if visit.wish is None else said.get(visit.wish)
            if stay is not None and not stay.may:
                _break_off(visit)
            elif stay is not None and not stay.wakes:
                visit.limit()

    async def close(self) -> None:
        """Break everything off, and see it gone."""
        if self._asking is not None:
            self._asking.cancel()
        for visit in list(self._visits):
            _break_off(visit)
        self.upstreams.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GONE_SECONDS):
                while self._visits:
                    await asyncio.sleep(0)

    # --- pages ---

    def page_of_nobody(self, _: RequestHead) -> Page:
        """For a host that names no sandbox and port."""
        return UNKNOWN

    def page_of_stranger(self, head: RequestHead, wish: Wish, own: bytes) -> Page:
        """For who may not enter, or asks for what is not there: the answer does not tell which.

        A person is sent to sign in, whatever there is; who comes back from there in vain is not again, nor
        is a frame in somebody's page.
        """
        shown = wish.shown
        tried = shown.link is not None or shown.key is not None
        if self._sign_in and visitor.is_window(head) and not tried:
            to = self.urls.url(wish.sandbox_id, wish.port) + own.decode("latin-1")
            return pages.away(f"{self._sign_in}?to={quote(to, safe='')}")
        return UNKNOWN

    def _count(self, visit: Guest, whose: str) -> None:
        self._visits[visit] = whose
        self._of.setdefault(whose, {})[visit] = None

    def _count_off(self, visit: Guest) -> None:
        whose = self._visits.pop(visit, None)
        if whose is not None:
            del self._of[whose][visit]
            if not self._of[whose]:
                del self._of[whose]

    def _is_proxy(self, source: str) -> bool:
        return http.is_in(source, self._proxies)


def _break_off(visit: Guest) -> None:
    try:
        visit.abort()
    except Exception:  # one of several: what fails with it is no matter of the others
        log.exception("breaking off a connection from %s failed", visit.source)
