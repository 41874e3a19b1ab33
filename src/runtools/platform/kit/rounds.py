"""The edge of a loop that must not end: what fails a round of it is logged, and the next one is tried."""

from __future__ import annotations

import logging
from types import TracebackType

from runtools.errors import Unavailable


class Rounds:
    """Enclose each round of one loop in it.

    While something is not there (`Unavailable`: a database that is restarted, say) nothing new is to be
    said of it: one line tells when that began, and one when it is over. All else is logged with where it
    came from.
    """

    def __init__(self, log: logging.Logger, name: str) -> None:
        self._log = log
        self._name = name
        self._is_held_up = False

    def __enter__(self) -> None:
        """A round begins."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """It is over: whether what ended it is dealt with."""
        if isinstance(error, Unavailable):
            if not self._is_held_up:
                self._log.warning("%s is held up: %s", self._name, error)
            self._is_held_up = True
            return True
        if error is None and self._is_held_up:
            self._log.warning("%s goes on", self._name)
            self._is_held_up = False
        if isinstance(error, Exception):
            self._log.error("%s failed", self._name, exc_info=error)
            return True
        return False
