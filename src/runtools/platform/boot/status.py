"""`runtools status`: whether the platform answers, asked the way any client asks."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpcore
from pydantic import ValidationError

from runtools.platform.boot import home
from runtools.platform.kit.config import Settings
from runtools.sdk.shapes import Envelope, Health

_ANSWER_SECONDS = 5.0


async def ask(settings: Settings) -> Health | None:
    """What the platform of this home says of itself; None when it does not answer or is not ready."""
    found = await _whoever(settings)
    return found if found is not None and found.install_id == _mine(settings) else None


def _mine(settings: Settings) -> str | None:
    """The install id of the home; None: nothing was ever started in it."""
    try:
        return (settings.home / "install-id").read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


async def _whoever(settings: Settings) -> Health | None:
    url = f"http://{settings.api_host}:{settings.api_port}/readyz"
    try:
        async with asyncio.timeout(_ANSWER_SECONDS), httpcore.AsyncConnectionPool() as http:
            answer = await http.request("GET", url)
    except (httpcore.NetworkError, httpcore.ProtocolError, TimeoutError):
        return None
    try:
        return Envelope[Health].model_validate_json(answer.content).data
    except ValidationError:
        return None  # an error, or something else's answer


async def closed(settings: Settings) -> list[str]:
    """Where nobody listens as the gateway should."""
    doors = (
        ("SSH", settings.ssh_host, settings.ssh_port),
        ("dev URLs", settings.gateway_host, settings.gateway_port),
    )
    return [
        f"{what} at {host}:{port}" for what, host, port in doors if not await _listens(host, port)
    ]


async def _listens(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True


async def until_ready(settings: Settings, seconds: float) -> bool:
    """Wait for the platform to answer and its gateway to listen; False when they did not in time."""
    try:
        async with asyncio.timeout(seconds):
            while await ask(settings) is None or await closed(settings):
                await asyncio.sleep(0.1)
    except TimeoutError:
        return False
    return True


def process_of(settings: Settings, part: str) -> int | None:
    """The process of a part that the supervisor of this home has started; None: there is none now."""
    up = home.holder(settings.run_folder / "up.lock")
    if up is None:
        return None
    words = f"\0runtools.platform\0{part}\0".encode()
    try:
        children = Path(f"/proc/{up}/task/{up}/children").read_text().split()
        return next((int(pid) for pid in children if words in home.command_of(pid)), None)
    except OSError:
        return None


def _what_to_do(settings: Settings) -> str:
    """About a platform that does not answer."""
    if home.holder(home.lock_file(settings)) is None:
        return "runtools up --detach starts it"
    return f"it was started; what it says ({settings.log_folder / 'runtools.log'} when detached) tells why"


async def show(settings: Settings) -> int:
    """Print one line per fact; 0 only when the platform answers and is ready."""
    health = await _whoever(settings)
    where = f"{settings.api_host}:{settings.api_port}"
    if health is None:
        print(f"not ready: no platform answers at {where}", file=sys.stderr)
        print(f"hint:  {_what_to_do(settings)}", file=sys.stderr)
        return 1
    if health.install_id != _mine(settings):
        print(
            f"not ready: another platform ({health.install_id or 'an older one'}) answers at {where}, "
            f"not the one of {settings.home}",
            file=sys.stderr,
        )
        return 1
    print(f"ready    RunTools {health.version} at http://{settings.api_host}:{settings.api_port}")
    worker = process_of(settings, "worker")
    if worker is None:
        print("worker   none runs here: runs of agents wait until one is connected")
    else:
        print(f"worker   process {worker}")
    for place in await closed(settings):
        told = "its gateway does not listen"
        print(f"warning  {told} for {place}; {settings.log_folder / 'runtools.log'} tells why")
    for text in health.warnings:
        print(f"warning  {text}")
    return 0
