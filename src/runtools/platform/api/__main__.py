"""Print the OpenAPI document: ``python -m runtools.platform.api > docs/openapi.json``."""

from __future__ import annotations

import json
import sys

from runtools.platform.api.app import without_platform

json.dump(without_platform().openapi(), sys.stdout, indent=1, sort_keys=True)
sys.stdout.write("\n")
