"""Generate the sync client from the async one: ``python scripts/generate_sync.py [--check]``.

The async modules are the source; ``src/runtools/sdk/sync/`` is made from them by replacing words,
then formatted by ruff. ``--check`` writes nothing and fails when what is there is not what would be
made; a test runs it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src/runtools/sdk"
TARGET = SOURCE / "sync"
MODULES = (
    "agents",
    "audit",
    "breaks",
    "client",
    "deploys",
    "desktop",
    "dev_urls",
    "egress",
    "files",
    "keys",
    "limits",
    "models",
    "orgs",
    "people",
    "processes",
    "projects",
    "runs",
    "sandbox",
    "sandboxes",
    "secrets",
    "sessions",
    "ssh",
    "ssh_keys",
    "templates",
    "transport",
    "usage",
    "webhooks",
)

# Order matters: names with a rule of their own come before the general ones.
RULES = [
    (rf"\bruntools\.sdk\.({'|'.join(MODULES)})\b", r"runtools.sdk.sync.\1"),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAwaitable,", ""),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\baclosing\b", "closing"),
    (r"\basynccontextmanager, contextmanager\b", "contextmanager"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\bhandle_async_request\b", "handle_request"),
    (r"\baclose\b", "close"),
    (r"\banext\b", "next"),
    (r"\baread\b", "read"),
    (r"\baiter_stream\b", "iter_stream"),
    (r"\basync_(\w+)", r"sync_\1"),
    (r"\bAsyncGenerator\[(.+), None\]", r"Generator[\1, None, None]"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsync([A-Z]\w*)", r"\1"),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"Safe to share between tasks", "Safe to share between threads"),
]

HEADER = "# Generated from {source} by scripts/generate_sync.py: edit that, then run it.\n"


def main() -> int:
    """Generate, or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    drifted = {path: text for path, text in _generated().items() if _differs(path, text)}
    for path, text in drifted.items():
        print("differs:" if check else "written:", path.relative_to(ROOT))
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return 1 if check and drifted else 0


def _generated() -> dict[Path, str]:
    made = {
        TARGET / "__init__.py": (
            '"""The sync client, generated from the async one by scripts/generate_sync.py."""\n'
        )
    }
    for module in MODULES:
        source = SOURCE / f"{module}.py"
        text = source.read_text()
        for pattern, replacement in RULES:
            text = re.sub(pattern, replacement, text)
        header = HEADER.format(source=f"sdk/{source.name}")
        made[TARGET / source.name] = _formatted(header + text, source.name)
    return made


def _formatted(text: str, name: str) -> str:
    ruff = str(Path(sys.executable).with_name("ruff"))
    place = ["--stdin-filename", str(TARGET / name), "-"]
    known = 'lint.isort.known-first-party=["runtools"]'
    fix = [
        "check",
        "--quiet",
        "--fix",
        "--unsafe-fixes",
        "--select",
        "I,F401,UP028",
        "--config",
        known,
    ]
    sorted_ = _run([ruff, *fix, *place], text)
    return _run([ruff, "format", "--quiet", *place], sorted_)


def _run(command: list[str], text: str) -> str:
    done = subprocess.run(
        command, input=text, text=True, capture_output=True, cwd=ROOT, check=False
    )
    if done.returncode != 0 and not done.stdout:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text() != text


if __name__ == "__main__":
    sys.exit(main())
