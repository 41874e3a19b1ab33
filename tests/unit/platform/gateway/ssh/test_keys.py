"""What the gateway vouches with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from runtools.platform.gateway.ssh import keys


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs openssh-client")
@pytest.mark.parametrize("agents", [False, True])
def test_a_login_is_vouched_for_whatever_the_sandboxes_clock_says(
    tmp_path: Path, agents: bool
) -> None:
    _, certificate = keys.load(tmp_path).certified("who came", agents=agents)
    file = tmp_path / "certificate.pub"
    file.write_bytes(certificate.export_certificate())
    argv = ["ssh-keygen", "-L", "-f", str(file)]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert 'Key ID: "who came"' in said
    assert "Valid: forever" in said
    assert "Principals: \n                root\n" in said
    assert ("permit-agent-forwarding" in said) is agents
    assert "permit-X11-forwarding" not in said


def test_they_are_made_once_and_kept(tmp_path: Path) -> None:
    first, second = keys.load(tmp_path), keys.load(tmp_path)
    assert first.host_lines == second.host_lines
    assert first.authority_line == second.authority_line
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
