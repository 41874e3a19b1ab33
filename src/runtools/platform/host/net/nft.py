"""``nft``: rules put in force as one transaction, and read back.

A version that meets what a newer one has left in the kernel (from a container, or before a downgrade) may
die of a signal whatever it is asked: 1.0.6 does so. Who sees that is told what it means.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtools.platform.kit import process
from runtools.platform.kit.process import CommandFailed, Completed

_UNREADABLE = (
    "it died, as it does where another version has left rules that this one cannot read; "
    "bring the package nftables up to that version, or remove those rules with it"
)


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
        CommandFailed: it died, or it ended with an error and ``check`` is set.
    """
    inside = [] if namespace is None else ["ip", "netns", "exec", namespace]
    argv = [*inside, "nft", *words]
    done = await process.run(argv, stdin=stdin, check=False)
    # A signal is a negative code, behind `ip netns exec` too: that becomes the program.
    if done.code < 0:
        raise CommandFailed(argv, done.code, _UNREADABLE.encode())
    if check and done.code != 0:
        raise CommandFailed(argv, done.code, done.stderr or done.stdout)
    return done
