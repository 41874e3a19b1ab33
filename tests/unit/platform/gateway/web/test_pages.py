"""What the gateway answers by itself."""

from __future__ import annotations

from typing import Any

import pytest

from runtools.errors import DeadlineExceeded
from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.gateway.web import pages
from runtools.testing.gateway_world import BOX

URLS = DevUrls.of("http://sandboxes.localhost:7780")


@pytest.mark.parametrize(
    ("details", "title"),
    [
        ({"operation": "pausing"}, "The sandbox is being put to sleep"),
        ({"operation": "queued", "queue": {"place": 3}}, "The sandbox waits to be made"),
        ({"operation": "starting", "queue": None}, "The sandbox is being made"),
        ({"operation": None}, "The sandbox is not ready yet"),
        ({"operation": ["?"]}, "The sandbox is not ready yet"),
        ({}, "The sandbox is not ready yet"),
    ],
)
def test_what_was_waited_for_in_vain_is_called_by_its_name(
    details: dict[str, Any], title: str
) -> None:
    error = DeadlineExceeded("so it stands", details=details)
    page = pages.of_error(error, URLS, BOX, 3000)
    assert (page.status, page.title, page.text) == (504, title, "so it stands")
    assert page.reloads
