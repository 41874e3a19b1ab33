"""What soaks have shown, part by part: a file that is committed beside what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.noted import circumstances

RESULT = Path(__file__).parents[2] / "bench" / "soak.json"


def keep(part: str, facts: dict[str, Any]) -> None:
    """Put what a part has shown in the place of what it showed before, a failure as well as a success."""
    kept: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    kept[part] = {**circumstances(), **facts}
    RESULT.write_text(json.dumps(dict(sorted(kept.items())), indent=2) + "\n")
