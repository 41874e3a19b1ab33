"""Tools beside the sandbox: what a model is told where a key is not to be had."""

from __future__ import annotations

import pytest

from runtools.errors import NotFound, RunToolsError, SecretUnfit, Unavailable
from runtools.platform.agents.tools.around import WEB_SEARCH, Around
from runtools.platform.kit.outbound import Outbound


async def told(failure: RunToolsError) -> str:
    async def secret(name: str) -> str:
        raise failure

    outbound = Outbound()
    try:
        said = await WEB_SEARCH.call(Around(secret, outbound), {"query": "x"})
    finally:
        outbound.close()
    assert said.failed
    return said.text


async def test_a_key_that_is_missing_is_asked_for() -> None:
    said = await told(NotFound("the org has no secret 'EXA_API_KEY'"))
    assert "an Exa key is needed" in said


@pytest.mark.parametrize(
    "failure",
    [Unavailable("the api does not answer"), SecretUnfit("EXA_API_KEY is odd", hint="set it anew")],
)
async def test_one_that_is_there_is_not(failure: RunToolsError) -> None:
    said = await told(failure)
    assert str(failure) in said
    assert "is needed" not in said
