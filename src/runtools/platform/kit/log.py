"""Readable log lines on stderr: time, level, part, message."""

from __future__ import annotations

import logging
import sys


def configure(part: str, level: int = logging.INFO) -> None:
    """Log to stderr under the part's name; libraries speak from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname).1s {part:<5} %(message)s", "%H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("runtools").setLevel(level)
