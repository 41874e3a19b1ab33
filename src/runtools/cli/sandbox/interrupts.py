"""Signals that this process gets while it waits for a command in a sandbox go to that command.

The first is sent on as it is, so that the command can end as it would in a terminal; the second kills it;
at the third this process waits no more. The call that waits is never broken by the first two: output and
exit code are handed on as at any other end.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from runtools.cli import output
from runtools.cli.session import connected
from runtools.errors import ProcessEnded, RunToolsError

_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENT: Final = 2


@contextmanager
def passing_on(sandbox_id: str, given: str | None = None) -> Iterator[str]:
    """Pass signals on to the command that runs meanwhile under the id that this gives, or was given."""
    from runtools.sdk.wire import new_process_id  # noqa: PLC0415 - takes longer than most commands

    process_id = given or new_process_id()
    came = 0

    def pass_on(number: int, _frame: FrameType | None) -> None:
        nonlocal came
        came += 1
        if came > _PATIENT:
            raise KeyboardInterrupt
        sent = signal.Signals(number if came < _PATIENT else signal.SIGKILL)
        # In a thread: what this one waits for must not be touched.
        threading.Thread(target=_send, args=(sandbox_id, process_id, sent), daemon=True).start()

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        yield process_id
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _send(sandbox_id: str, process_id: str, number: signal.Signals) -> None:
    if number != signal.SIGKILL:
        output.note(f"runtools: {number.name} goes to the command; once more kills it")
    try:
        with connected() as rt:
            rt.sandboxes.get(sandbox_id).signal_exec(process_id, int(number))
    except ProcessEnded:
        return  # its end is on the way here
    except RunToolsError as error:
        output.note(f"runtools: the command could not be told: {error.message}")
