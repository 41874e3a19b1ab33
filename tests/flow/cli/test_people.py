"""Signing in, and the people of an org, as commands."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from tests.flow.cli.conftest import Cli, Platform

PASSWORD = "a password of Bob's"


@pytest.fixture
def alone(cli: Cli, tmp_path: Path) -> Cli:
    """A command line that knows the platform and has no key."""
    env = {name: value for name, value in cli.env.items() if name != "RUNTOOLS_API_KEY"}
    return Cli(env | {"XDG_CONFIG_HOME": str(tmp_path / "config")}, cli.folder, cli.zygote)


class Browser:
    """A browser of somebody who comes by an invitation."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"Origin": url}, trust_env=False)
        self._cookies: dict[str, str] = {}

    def post(self, path: str, **form: str) -> httpx.Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        answer = self._http.post(path, content=urlencode(form), headers={"Cookie": cookie})
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self._cookies[name] = value
        return answer

    def close(self) -> None:
        self._http.close()


def login(alone: Cli, browser: Browser) -> str:
    """`runtools login` by the browser; what it printed."""
    argv = [sys.executable, "-c", "import sys; from runtools.cli import main; sys.exit(main())"]
    with subprocess.Popen(
        [*argv, "login", "--no-browser", "--json"],
        env=alone.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stderr is not None
        said = command.stderr.readline() + command.stderr.readline()
        code = re.search(r"code  ([A-Z]{4}-[A-Z]{4})", said)
        assert code, said
        assert "/login" in said
        assert "laptop" not in said
        assert browser.post("/login", code=code[1]).status_code == 200
        done = browser.post("/login/answer", code=code[1], answer="yes")
        assert "Your command line is in" in done.text
        out, err = command.communicate(timeout=60)
    assert command.returncode == 0, err
    return out


def test_from_an_invitation_to_work_and_out_again(
    cli: Cli, alone: Cli, platform: Platform, tmp_path: Path
) -> None:
    assert "runtools login" in alone("auth", "status").err
    made = cli.ok("invite", "create", "bob@example.org", "--role", "admin", "--json").data
    link = made["link"]
    browser = Browser(platform.url)
    assert browser.post("/invite", code=link.partition("#")[2]).status_code == 303
    assert browser.post("/invite/join", name="Bob", password=PASSWORD).status_code == 303
    me = json.loads(login(alone, browser))
    browser.close()
    assert me["user"]["email"] == "bob@example.org"

    file = tmp_path / "config" / "runtools" / "logins.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["current"] == platform.url

    status = alone.ok("auth", "status").text
    assert "bob@example.org" in status
    assert "runtools login" in status
    assert "bob@example.org" in alone.ok("member", "list").text
    assert "accepted" in alone.ok("invite", "list").text
    assert "(current)" in alone.ok("org", "list").text
    assert "(here)" in alone.ok("auth", "sessions", "list").text
    refused = alone("org", "create", "Another")
    assert (refused.code, "operator" in refused.err) == (1, True)

    other = cli.ok("org", "create", "Second", "--admin", "bob2@example.org", "--json").data
    assert other["invitation"]["link"].startswith("http")
    missing = alone("auth", "switch", other["id"])
    assert (missing.code, "no organisation" in missing.err) == (1, True)
    link = other["invitation"]["link"].encode()
    assert "Second" in alone.ok("invite", "accept", stdin=link + b"\n").text
    assert "Second" in alone.ok("auth", "status").text
    alone.ok("auth", "switch", me["orgId"])

    nothing = alone("invite", "accept", stdin=b"http://x/invite#rt_invite_nobody\n")
    assert (nothing.code, "unknown" in nothing.err) == (1, True)
    assert "stdin held no link" in alone("invite", "accept").err
    last = alone("org", "leave")
    assert (last.code, "last Admin" in last.err) == (1, True)
    assert alone.ok("logout").err.startswith("signed out")
    assert "runtools login" in alone("auth", "status").err


def test_a_key_can_be_kept_too(alone: Cli, platform: Platform) -> None:
    done = alone("login", "--api-key", "--json", stdin=platform.key.encode() + b"\n")
    assert done.code == 0, done.err
    assert done.data["kind"] == "key"
    assert platform.key not in done.text + done.err
    alone.ok("sandbox", "list")
    wrong = alone("login", "--api-key", stdin=b"rt_live_nobody")
    assert (wrong.code, "unknown" in wrong.err) == (1, True)
    alone.ok("sandbox", "list")  # what was kept is still there
    alone.ok("logout")
    assert alone("sandbox", "list").code == 1
    assert alone("logout").code == 1


def test_an_invitation_is_taken_back(cli: Cli) -> None:
    made = cli.ok("invite", "create", "eve@example.org", "--json").data
    cli.ok("invite", "revoke", made["id"])
    states = {one["email"]: one["state"] for one in cli.ok("invite", "list", "--json").data}
    assert states["eve@example.org"] == "revoked"
