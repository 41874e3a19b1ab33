"""What stands for a person's browser: it notes what it was started with, and where that leads."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """#!{python}
import http.client, sys
from pathlib import Path
from urllib.parse import urlsplit
folder, address = Path({folder!r}), sys.argv[1]
(folder / "started-with").write_text(address)
url = urlsplit(address)
if url.hostname == "127.0.0.1":
    asked = http.client.HTTPConnection(url.netloc, timeout=20)
    asked.request("GET", url.path)
    (folder / "led-to").write_text(asked.getresponse().headers["Location"])
"""


@dataclass(frozen=True)
class Browser:
    """One that lies in a folder.

    Attributes:
        env: by which programs find it.
    """

    folder: Path
    env: dict[str, str]

    @property
    def started_with(self) -> str:
        """What every user of the machine sees."""
        return (self.folder / "started-with").read_text()

    @property
    def led_to(self) -> str:
        """Where the page leads that it was started with."""
        return (self.folder / "led-to").read_text()


def browser(folder: Path) -> Browser:
    """Make one."""
    program = folder / "browser"
    program.write_text(_SCRIPT.format(python=sys.executable, folder=str(folder)))
    program.chmod(0o700)
    return Browser(folder, {"BROWSER": f"{program} %s"})
