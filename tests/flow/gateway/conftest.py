"""The gateway is tested on the loop that it runs on."""

from __future__ import annotations

from runtools.testing.gateway_loop import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
