"""The way of a request to its server: let in, the sandbox awake, connected; or a page that says why not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from runtools.errors import PortClosed, RunToolsError
from runtools.platform.core.ports.admitting import Verdict
from runtools.platform.gateway.web import pages, visitor
from runtools.platform.gateway.web.admission import BELIEVED_SECONDS, Wish, lasting
from runtools.platform.gateway.web.head import Field, RequestHead
from runtools.platform.gateway.web.pages import Page
from runtools.platform.gateway.web.requests import Request
from runtools.platform.gateway.web.upstream import Upstream

if TYPE_CHECKING:
    from runtools.platform.gateway.web.house import House

log = logging.getLogger(__name__)

_REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class Way(NamedTuple):
    """How a request goes on.

    Attributes:
        more: fields for its answer.
    """

    wish: Wish
    verdict: Verdict
    upstream: Upstream
    more: Sequence[Field] = ()


def is_repeatable(head: RequestHead) -> bool:
    """Whether a request may be sent again that a server may have had already."""
    return head.method in _REPEATABLE and head.length == 0


def known(house: House, head: RequestHead, wish: Wish) -> Way | None:
    """The way, where all that it needs is at hand."""
    verdict = house.admission.known(wish)
    if verdict is None:
        return None
    place = (wish.sandbox_id, wish.port)
    upstream = house.upstreams.idle(place, repeatable=is_repeatable(head), wakes=verdict.wakes)
    return None if upstream is None else Way(wish, verdict, upstream)


async def find(house: House, request: Request, wish: Wish, own: bytes) -> Way | Page:
    """The way, or what is said instead.

    Args:
        own: the target as it came.
    """
    head = request.head
    began = house.clock.monotonic()
    try:
        return await _find(house, head, wish, own, request.peer)
    except RunToolsError as exc:
        page = pages.of_error(exc, house.urls, wish.sandbox_id, wish.port)
        look = (wish.sandbox_id, wish.port, request.peer)
        if page.reloads and visitor.wants_html(head) and not house.reloads.may(look, began):
            page = pages.still(page)
        return page
    except Exception:
        # The edge of a connection: whatever it is, the caller is told and it is logged.
        log.exception("a request to %s failed", wish.sandbox_id)
        return Page(500, "The gateway failed", "Its log says how.")


async def _find(house: House, head: RequestHead, wish: Wish, own: bytes, peer: str) -> Way | Page:
    place = (wish.sandbox_id, wish.port)
    began = house.clock.monotonic()
    verdict = await house.admission.verdict(wish, peer)
    if verdict.answer != "enter":
        return house.page_of_stranger(head, wish, own)
    more: list[Field] = []
    if verdict.cookie is not None:
        kept = visitor.cookie(verdict.cookie, verdict.seconds, house.urls)
        if visitor.is_navigation(head):
            address = house.urls.url(*place) + head.target.decode("latin-1")
            return pages.away(address, [kept])
        more = [kept, visitor.UNSEEN]
    upstream = house.upstreams.idle(place, repeatable=is_repeatable(head), wakes=verdict.wakes)
    if upstream is None:
        house.check_share(wish.sandbox_id, peer)
        if not verdict.wakes:
            await house.admission.waken(wish.sandbox_id)
        try:
            upstream = await house.upstreams.open(place, wakes=verdict.wakes)
        except PortClosed as exc:
            if verdict.public:  # which ports are private is nothing for everybody
                raise PortClosed(str(exc)) from exc
            raise
        if house.clock.monotonic() - began >= BELIEVED_SECONDS:
            # It took a while to wake, perhaps: who may not enter any more does not.
            try:
                again = await house.admission.verdict(lasting(wish, verdict), peer)
            except BaseException:
                upstream.abort()
                raise
            if again.answer != "enter":
                upstream.abort()
                return house.page_of_stranger(head, wish, own)
    return Way(wish, verdict, upstream, more)
