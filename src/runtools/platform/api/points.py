"""The named points at which the api can be made to kill itself; tests go through all of them.

Each lies between two steps that are not one transaction. After it the wish is in the database, and
either the host has not been asked, or its answer has not been taken in, or the caller has none.
"""

from __future__ import annotations

from runtools.platform.kit.crash import crash_point

API_CRASH_POINTS: tuple[str, ...] = (
    "api.idempotency.begun",  # the key is known, nothing else
    "api.idempotency.answered",  # the caller has its answer, which is not remembered
    "api.audit.unanswered",  # what was asked for is done, its line does not say how it was answered
    "api.create.written",  # the wish is there, the host knows nothing
    "api.create.asked",  # the host has made it, the answer is lost
    "api.recover.written",
    "api.fork.written",
    "api.fork.asked",
    "api.pause.written",
    "api.resume.written",
    "api.destroy.written",
    "api.act.asked",  # pause, resume, destroy: done by the host, the wish still open
    "api.snapshot.written",
    "api.snapshot.asked",
    "api.snapshot.dropping",
    "api.build.written",
    "api.template.dropping",
    "api.deploy.written",  # the deploy is wished for, nobody is at it
    "api.deploy.made",  # its sandbox is there, and not set up
    "api.deploy.set_up",  # its setup has run, and is not kept
    "api.deploy.taken_over",  # the new sandbox stands, the old one is still there
    "api.deploy.changed",  # done by the host, not written down
    "api.deploy.destroyed",
    "api.deploy.noted",  # one change is done, the next is not begun
    "api.deploy.stumbled",  # it has failed and not been tidied up after
    "api.run.written",  # the run is there, nobody has been told
    "api.run.appended",  # events are in the transaction, which is not committed
    "api.run.taken",  # it has a lease, and its worker does not know
    "api.run.placed",  # its sandbox is there, and not written down
    "api.report.taken",  # a report is a row and a ledger line, nobody has been told
)

_KNOWN = frozenset(API_CRASH_POINTS)


def reach(name: str) -> None:
    """Die here if a test wants it. A name that is not in the table is a mistake of ours."""
    assert name in _KNOWN, name  # noqa: S101 - a typo here would make a test empty
    crash_point(name)
