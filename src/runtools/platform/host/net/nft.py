"""``nft``: rules put in force as one transaction, and read back.

The program now and then dies of a signal while others change the ruleset (version 1.0.6 jumps to
address 0). What it was given is then in force as a whole or not at all, and our texts begin by removing
what they replace, so it is asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from runtools.platform.kit import process
from runtools.platform.kit.process import CommandFailed, Completed

log = logging.getLogger(__name__)

_MOST_DEATHS = 3


async def apply(text: str, namespace: str | None = None) -> None:
    """Put rules in force, in a network namespace or on the host.

    Raises:
        CommandFailed: they are refused.
    """
    await ask(["-f", "-"], namespace, text.encode())


async def ask(
    words: Sequence[str],
    namespace: str | None = None,
    stdin: bytes | None = None,
    *,
    check: bool = True,
) -> Completed:
    """Run it to its end.

    Raises:
        CommandFailed: it ended with an error and ``check`` is set, or died again and again.
    """
    inside = [] if namespace is None else ["ip", "netns", "exec", namespace]
    argv = [*inside, "nft", *words]
    deaths = 0
    # A signal is a negative code, behind `ip netns exec` too: that becomes the program.
    while (done := await process.run(argv, stdin=stdin, check=False)).code < 0:
        deaths += 1
        log.warning("nft died of signal %d", -done.code)
        if deaths == _MOST_DEATHS:
            break
    if done.code < 0 or (check and done.code != 0):
        raise CommandFailed(argv, done.code, done.stderr or done.stdout)
    return done
