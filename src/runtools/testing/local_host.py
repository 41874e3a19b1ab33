"""A whole host over local machines: the real service, with fakes only below it."""

from __future__ import annotations

from typing import cast

from runtools.platform.host.service import HostService
from runtools.platform.host.templates.service import Templates
from runtools.platform.host.templates.warm import Warm
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.tracing import OFF, Tracing
from runtools.testing.local_driver import LocalDriver
from runtools.testing.local_template import LocalTemplates
from runtools.testing.local_warm import LocalWarm
from runtools.testing.null_network import NullNetwork

FIRST_UID = 0x4000_0000


def local_host(
    settings: Settings, clock: Clock | None = None, tracing: Tracing = OFF
) -> HostService:
    """A host service, not started yet."""
    driver = LocalDriver()
    templates = LocalTemplates(settings.host_home / "templates", clock=clock)
    warm = LocalWarm(settings.host_home / "warm", driver)
    return HostService(
        settings,
        driver,
        NullNetwork(),
        cast("Templates", templates),
        cast("Warm", warm),
        FIRST_UID,
        clock,
        tracing,
    )
