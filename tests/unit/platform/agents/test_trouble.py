"""What failures of providers mean."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_ai import exceptions as theirs

from runtools.platform.agents.answer import Cut
from runtools.platform.agents.trouble import MOST_TRIES, Empty, pause, understood
from runtools.platform.core.ports.worker import ModelAccess
from runtools.platform.kit.outbound import Refused

ASKED = ModelAccess(provider="openai", api_id="m")


def http(kind: type[Any], status: int, after: float | None = None) -> theirs.ModelHTTPError:
    """A failure as an adapter raises it."""
    return theirs.ModelHTTPError.for_category(
        kind, status_code=status, model_name="m", retry_after=after
    )


@pytest.mark.parametrize(
    ("failure", "then", "code"),
    [
        (http(theirs.ModelRateLimitError, 429), "again", "model_rate_limited"),
        (http(theirs.ModelOverloadedError, 529), "again", "model_overloaded"),
        (theirs.ModelHTTPError(500, "m", "x"), "again", "model_unavailable"),
        (theirs.ModelHTTPError(408, "m", "x"), "again", "model_unavailable"),
        (theirs.ModelConnectionError("m", "x"), "again", "model_unavailable"),
        (theirs.UnexpectedModelBehavior("x"), "again", "model_misbehaved"),
        (Empty(), "again", "model_empty"),
        (Cut(), "again", "model_unavailable"),
        (ConnectionResetError(), "again", "model_unavailable"),
        (http(theirs.ModelQuotaExceededError, 402), "give_up", "model_quota_exceeded"),
        (http(theirs.ModelAuthenticationError, 401), "give_up", "model_unauthorized"),
        (http(theirs.ModelNotFoundError, 404), "give_up", "model_not_found"),
        (theirs.ModelHTTPError(422, "m", "x"), "give_up", "model_rejected"),
        (theirs.UserError("Tool 'x': its schema"), "give_up", "model_rejected"),
        (theirs.ContentFilterError("x"), "give_up", "model_refused"),
        (ZeroDivisionError("x"), "give_up", "model_failed"),
        (http(theirs.ModelContextWindowExceededError, 400), "shorten", "context_overflow"),
        (
            theirs.ModelHTTPError(400, "m", "maximum context length is 8192"),
            "shorten",
            "context_overflow",
        ),
    ],
)
def test_each_has_its_meaning(failure: Exception, then: str, code: str) -> None:
    trouble = understood(failure, ASKED)
    assert (trouble.then, trouble.error.code) == (then, code)
    assert trouble.error.message


class TestPauses:
    def test_they_grow_and_end(self) -> None:
        trouble = understood(Cut(), ASKED)
        bounds = [(0.5, 1), (1, 2), (2, 4), (4, 8), (8, 16)]
        for tries, (least, most) in enumerate(bounds, 1):
            assert least <= (pause(trouble, tries) or 0) <= most
        assert pause(trouble, MOST_TRIES) is None

    def test_what_the_provider_asks_for_counts(self) -> None:
        asked = understood(http(theirs.ModelRateLimitError, 429, after=7), ASKED)
        assert 7 <= (pause(asked, 1) or 0) <= 7.5

    def test_but_nobody_waits_for_hours(self) -> None:
        asked = understood(http(theirs.ModelRateLimitError, 429, after=3600), ASKED)
        assert pause(asked, 1) is None
        assert "asks to wait 3600 s" in str(asked.error.hint)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "no such field"}}, "no such field"),
        ({"message": "no such field", "type": "x"}, "no such field"),
        ('{"object": "error", "message": "no such field"}', "no such field"),
        ({"detail": "no such field"}, "no such field"),
        ({"error": "no such field"}, "no such field"),
        ("<html>no</html>", "<html>no</html>"),
    ],
)
def test_a_provider_is_told_of_in_its_own_words(body: Any, words: str) -> None:
    found = understood(theirs.ModelHTTPError(400, "m", body), ASKED).error.message
    assert found == f"status 400: {words}"


def test_the_key_is_in_no_message() -> None:
    keyed = ASKED.model_copy(update={"api_key": "sk-1"})
    said = understood(theirs.ModelHTTPError(400, "m", "key sk-1 is bad"), keyed).error.message
    assert "sk-1" not in said


class TestAddressesThatMayNotBeSpokenTo:
    """Which comes packed into what a provider's client raises."""

    def failure(self) -> theirs.ModelAPIError:
        try:
            raise theirs.ModelAPIError("m", "Connection error.") from Refused(
                "10.0.0.1 is not public"
            )
        except theirs.ModelAPIError as failure:
            return failure

    def test_an_endpoint_is_not_asked_again(self) -> None:
        endpoint = ASKED.model_copy(update={"base_url": "http://10.0.0.1/v1"})
        trouble = understood(self.failure(), endpoint)
        assert (trouble.then, trouble.error.code) == ("give_up", "endpoint_refused")
        assert trouble.error.message == "10.0.0.1 is not public"

    def test_a_provider_whose_name_is_not_found_at_the_moment_is(self) -> None:
        assert understood(self.failure(), ASKED).then == "again"
