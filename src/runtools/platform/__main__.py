"""``python -m runtools.platform COMMAND``: what the CLI starts for commands on the machine itself."""

from __future__ import annotations

import sys

from runtools.platform.boot.commands import main

sys.exit(main(sys.argv[1:]))
