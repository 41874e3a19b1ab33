"""The token that opens ``/metrics``: the operator's, and no API key.

The numbers count over all orgs, so that no key of an org may see them; and where a proxy stands before the
api every caller seems to be on this machine, so that coming from here is worth nothing.
"""

from __future__ import annotations

from runtools.errors import InvalidRequest
from runtools.platform.kit.config import Settings
from runtools.platform.kit.crypto import new_secret
from runtools.platform.kit.files import write_atomic

_LEAST = 16


def of(settings: Settings) -> str:
    """The setting, else what lies in the home; made where nothing does.

    Raises:
        InvalidRequest: it is too short to be one.
    """
    file = settings.metrics_token_file
    given = settings.metrics_token
    if not given and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, new_secret("rt_metrics_").encode())
    token = given or file.read_text().strip()
    if len(token) < _LEAST:
        raise InvalidRequest(
            f"the metrics token has fewer than {_LEAST} characters",
            hint=f"make a longer one, or remove setting and {file.name} to have one made",
        )
    return token
