"""Public keys: every common type by OpenSSH's own hand, and all that is none."""

from __future__ import annotations

import base64
import contextlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from runtools.platform.kit.sshkeys import KINDS, MAX_BYTES, BadKey, parse

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIb6lS7YdL2xlkkp6XhLD/j4VxZgq7kVkNcie9wInN+1"


def packed(*parts: bytes) -> bytes:
    """Strings as SSH writes them."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def written(kind: str, *parts: bytes) -> str:
    """A line of such a key."""
    return f"{kind} {base64.b64encode(packed(kind.encode(), *parts)).decode()}"


def of_token(kind: str) -> str:
    """A key that a hardware token would hold."""
    if "ed25519" in kind:
        point = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        return written(kind, point, b"ssh:")
    secret = ec.generate_private_key(ec.SECP256R1())
    point = secret.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return written(kind, b"nistp256", point, b"ssh:")


def keygen(folder: Path, *how: str) -> str:
    """A key that OpenSSH has made."""
    file = folder / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-C", "me@host now", "-f", str(file), *how], check=True
    )
    return file.with_suffix(".pub").read_text()


class TestGood:
    @pytest.mark.parametrize(
        ("how", "kind"),
        [
            (("-t", "ed25519"), "ssh-ed25519"),
            (("-t", "rsa", "-b", "2048"), "ssh-rsa"),
            (("-t", "ecdsa", "-b", "256"), "ecdsa-sha2-nistp256"),
            (("-t", "ecdsa", "-b", "384"), "ecdsa-sha2-nistp384"),
            (("-t", "ecdsa", "-b", "521"), "ecdsa-sha2-nistp521"),
        ],
    )
    def test_openssh_says_the_same(self, tmp_path: Path, how: tuple[str, ...], kind: str) -> None:
        text = keygen(tmp_path, *how)
        key = parse(text)
        assert (key.kind, key.comment, key.line) == (kind, "me@host now", text.strip())
        shown = subprocess.run(
            ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        assert key.fingerprint == shown[1]
        assert key.bits == (2048 if kind == "ssh-rsa" else None)

    @pytest.mark.parametrize("kind", sorted(kind for kind in KINDS if kind.startswith("sk-")))
    def test_keys_of_hardware_tokens(self, tmp_path: Path, kind: str) -> None:
        key = parse(of_token(kind))
        (tmp_path / "key.pub").write_text(key.line + "\n")
        shown = subprocess.run(
            ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        assert (key.kind, key.fingerprint) == (kind, shown[1])

    def test_a_comment_is_no_part_of_what_it_is(self) -> None:
        one, other = parse(ED25519), parse(f"  {ED25519} me \r\n")
        assert one.fingerprint == other.fingerprint
        assert other.line == f"{ED25519} me"


class TestBad:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "ssh-ed25519",
            "nonsense",
            "ssh-ed25519 !!!!",
            ED25519.replace("ssh-ed25519 ", "ssh-rsa "),
            ED25519[:-3],
            ED25519.replace(" ", "  "),
            f"{ED25519} a\n{ED25519} b",
            f"{ED25519} nul\0",
            f'no-pty,command="x" {ED25519}',
            written("ssh-ed25519", b"k" * 31),
            written("ssh-ed25519", b"k" * 32, b"more"),
            written("ecdsa-sha2-nistp256", b"nistp256", b"\4" + b"k" * 64),
            written("ecdsa-sha2-nistp256", b"nistp384", b"\4" + b"k" * 64),
            written("ssh-rsa", b"\1\0\1"),
            "ssh-ed25519 " + "A" * MAX_BYTES,
            "ѕsh-ed25519 " + ED25519.split()[1],  # noqa: RUF001 - a Cyrillic letter
        ],
    )
    def test_what_is_no_key(self, text: str) -> None:
        with pytest.raises(BadKey):
            parse(text)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (written("ssh-dss", b"x"), "DSA"),
            (written("ssh-ed25519-cert-v01@openssh.com", b"x"), "certificate"),
            ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA", "form of OpenSSH"),
            ("PuTTY-User-Key-File-3: ssh-ed25519", "private key"),
        ],
    )
    def test_what_is_refused_by_name(self, text: str, problem: str) -> None:
        with pytest.raises(BadKey, match=problem):
            parse(text)

    def test_a_short_rsa_key(self, tmp_path: Path) -> None:
        with pytest.raises(BadKey, match="1024 bits is too weak"):
            parse(keygen(tmp_path, "-t", "rsa", "-b", "1024"))

    def test_a_private_key_is_never_told_back(self, tmp_path: Path) -> None:
        keygen(tmp_path, "-t", "ed25519")
        secret = (tmp_path / "key").read_text()
        with pytest.raises(BadKey, match="is a private key") as caught:
            parse(secret)
        told = f"{caught.value!r} {caught.value.hint}"
        assert not any(line in told for line in secret.splitlines())

    @given(st.text(max_size=200))
    def test_whatever_is_given_it_is_a_key_or_refused(self, text: str) -> None:
        with contextlib.suppress(BadKey):
            assert parse(text).kind in KINDS
