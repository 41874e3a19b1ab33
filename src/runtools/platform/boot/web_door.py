"""Dev URLs, wired: what the gateway serves them with."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from runtools.platform.boot import parts
from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.gateway.reach import HostReach
from runtools.platform.gateway.web.asking import Api
from runtools.platform.gateway.web.certificate import Certificate
from runtools.platform.gateway.web.house import FILES_OF_A_VISIT, MOST_VISITS, House
from runtools.platform.gateway.web.server import listening
from runtools.platform.kit import descriptors
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.outbound import networks

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def dev_urls(settings: Settings) -> AsyncIterator[None]:
    """Serve dev URLs."""
    files = settings.gateway_tls_cert, settings.gateway_tls_key
    secured = Certificate(*files) if settings.gateway_tls_cert else None
    open_files = descriptors.most()
    most = min(MOST_VISITS, int(open_files / FILES_OF_A_VISIT))
    if most < MOST_VISITS:
        log.warning("of %d open files that it may have: %d connections at once", open_files, most)
    async with Api(settings.own_url, parts.token(settings, "gateway")) as api:
        house = House(
            DevUrls.of(settings.dev_url_base),
            api,
            HostReach(settings.reach_socket),
            SystemClock(),
            sign_in=f"{settings.browser_url}/open",
            proxies=networks(settings.trusted_proxies, "trusted_proxies"),
            most=most,
        )
        async with listening(house, settings.gateway_host, settings.gateway_port, secured):
            where = f"{settings.gateway_host}:{settings.gateway_port}"
            log.info("dev URLs on %s: %s", where, settings.dev_url_base)
            yield
