"""What every process of ours does before its own work."""

from __future__ import annotations

import argparse
import resource
from collections.abc import Mapping
from pathlib import Path

import pytest

from runtools.platform.boot import commands, up
from runtools.platform.kit import log
from runtools.platform.kit.config import Settings


def test_each_may_have_as_many_files_open_as_the_machine_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    seen: list[tuple[int, int]] = []

    async def look(_: Settings, __: argparse.Namespace) -> int:
        seen.append(resource.getrlimit(resource.RLIMIT_NOFILE))
        return 0

    monkeypatch.setenv("RUNTOOLS_HOME", str(tmp_path))
    monkeypatch.setattr(log, "configure", lambda _: None)
    monkeypatch.setitem(commands._COMMANDS, "api", look)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert commands.main(["api"]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert seen == [(before[1], before[1])]


@pytest.mark.parametrize("how", ["foreground", "detached"])
def test_a_certificate_that_up_is_given_is_the_setting_of_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    seen: list[tuple[Settings, Mapping[str, str]]] = []

    async def start(settings: Settings, environ: Mapping[str, str], **_: bool) -> int:
        seen.append((settings, environ))
        return 0

    monkeypatch.setenv("RUNTOOLS_HOME", str(tmp_path))
    monkeypatch.setenv("RUNTOOLS_GATEWAY_TLS_CERT", "/etc/other.pem")
    monkeypatch.setattr(log, "configure", lambda _: None)
    monkeypatch.setattr(up, how, start)
    monkeypatch.chdir(tmp_path)
    words = ["--detach"] if how == "detached" else []
    assert commands.main(["up", *words]) == 0
    assert commands.main(["up", *words, "--tls-cert", "a.pem", "--tls-key", "/b.key"]) == 0
    assert [one.gateway_tls_cert for one, _ in seen] == ["/etc/other.pem", f"{tmp_path}/a.pem"]
    assert seen[1][0].gateway_tls_key == "/b.key"
    assert seen[1][0].dev_url_base == "https://sandboxes.localhost:7780"
    told = up.child_env(*seen[1])
    assert told["RUNTOOLS_GATEWAY_TLS_CERT"] == f"{tmp_path}/a.pem"
    assert told["RUNTOOLS_GATEWAY_TLS_KEY"] == "/b.key"
