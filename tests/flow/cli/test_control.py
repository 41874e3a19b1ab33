"""Keys, secrets, projects, orgs and what is written down of them, as people type it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.flow.cli.conftest import Cli, Done

from runtools import RunTools
from runtools.testing.tenancy.records import public_key


def refused(done: Done, *said: str, code: int = 1) -> str:
    """It says what happened and, where it can, what to do next; nothing is on stdout."""
    assert (done.code, done.out) == (code, b""), (done.code, done.out, done.err)
    assert "Traceback" not in done.err
    for word in said:
        assert word in done.err, done.err
    if code == 1:
        assert done.err.startswith("error: "), done.err
    return done.err


def as_json(done: Done) -> dict[str, Any]:
    """The error as a program reads it."""
    assert (done.code, done.out) == (1, b""), done.err
    error: dict[str, Any] = json.loads(done.err)["error"]
    assert {"code", "message"} <= set(error)
    return error


@pytest.fixture
def small(cli: Cli, rt: RunTools) -> Iterator[Cli]:
    """With a key that may look at sandboxes and nothing else."""
    key = rt.api_keys.create("small", scopes=["sandbox:read"])
    yield Cli(cli.env | {"RUNTOOLS_API_KEY": key.key or ""}, cli.folder, cli.zygote)
    rt.api_keys.revoke(key.id)


class TestSecrets:
    def test_from_stdin_to_its_end(self, cli: Cli) -> None:
        name = "CONTROL_A"
        made = cli.ok("secret", "set", name, "--category", "custom", stdin=b"first\r\nline\n")
        assert made.text == f"{name} (version 1)\n"
        shown = cli.ok("secret", "get", name, "--reveal")
        assert (shown.out, shown.err) == (b"first\r\nline\n", "")  # one line end goes, and no more
        assert cli.ok("secret", "rotate", name, "--json", stdin=b"other").data["version"] == 2
        revealed = cli.ok("secret", "get", name, "--reveal", "--json").data
        assert (revealed["value"], revealed["category"]) == ("other", "custom")
        for words in (("list",), ("list", "--json"), ("get", name), ("get", name, "--json")):
            told = cli.ok("secret", *words)
            assert name in told.text
            assert "other" not in told.text
        assert cli.ok("secret", "list", "--category", "tool", "--json").data == []
        refused(cli("secret", "delete", name), "would be lost", "--force")
        cli.ok("secret", "delete", name, "--force")
        for end in (b"", b"\n", b"\r\n"):
            cli.ok("secret", "set", name, stdin=b"sk-key" + end)
            assert cli.ok("secret", "get", name, "--reveal", "--json").data["value"] == "sk-key"
        refused(cli("secret", "set", name, stdin=b"sk-key\n\n"), "sent in a header", "line end")
        cli.ok("secret", "delete", name, "--force")
        refused(cli("secret", "get", name), f"no secret '{name}'", "runtools secret list")

    def test_bad_input(self, cli: Cli, small: Cli) -> None:
        refused(cli("secret", "rotate", "CONTROL_NONE", stdin=b"x"), "no secret", "secret list")
        assert as_json(cli("secret", "get", "CONTROL_NONE", "--json"))["code"] == "not_found"
        refused(cli("secret", "set", "CONTROL_B"), "stdin held no value", "printf")
        refused(cli("secret", "set", "CONTROL_B", stdin=b"\xff\xfe"), "no text in UTF-8", "base64")
        refused(cli("secret", "set", "a name", stdin=b"x"), "name")
        refused(cli("secret", "set", "CONTROL_B", stdin=b"x" * 70_000), "value")
        refused(cli("secret", "set", "CONTROL_B", "--scope", "pets"), "pets", code=2)
        told = refused(small("secret", "list"), "secret:read", "runtools auth keys create")
        assert "value" not in told
        refused(small("secret", "get", "CONTROL_B", "--reveal"), "secret:reveal")


class TestKeys:
    def test_from_making_to_revoking(self, cli: Cli) -> None:
        made = cli.ok("auth", "keys", "create", "ci", "--scope", "sandbox:*", "--expires-in", "30d")
        key = made.text.strip()
        assert re.fullmatch(r"rt_live_\S{43}", key)
        assert "nobody can show it again" in made.err
        key_id = made.err.partition(";")[0]
        mine = Cli(cli.env | {"RUNTOOLS_API_KEY": key}, cli.folder, cli.zygote)
        status = mine.ok("auth", "status", "--json").data
        assert (status["keyId"], status["scopes"]) == (key_id, ["sandbox:*"])
        listed = cli.ok("auth", "keys", "list")
        assert key not in listed.text
        assert key_id in listed.text
        # What it may not do it cannot have another do for it.
        refused(mine("auth", "keys", "create", "more"), "api-key:write")
        turned = cli.ok("auth", "keys", "rotate", key_id, "--expires-in", "7d", "--json").data
        assert turned["key"] != key
        kept = cli.ok("auth", "keys", "list", "--json").data
        assert turned["expiresAt"] < next(one["expiresAt"] for one in kept if one["id"] == key_id)
        refused(mine("sandbox", "list"), "API key", "revoked")
        fresh = Cli(cli.env | {"RUNTOOLS_API_KEY": turned["key"]}, cli.folder, cli.zygote)
        fresh.ok("sandbox", "list")
        cli.ok("auth", "keys", "revoke", turned["id"])
        refused(fresh("sandbox", "list"), "API key")
        refused(cli("auth", "keys", "rotate", key_id), "revoked", "make a new one")
        test = cli.ok("auth", "keys", "create", "try", "--test", "--json").data
        assert test["key"].startswith("rt_test_")
        cli.ok("auth", "keys", "revoke", test["id"], "--made")

    def test_bad_input(self, cli: Cli) -> None:
        create = ("auth", "keys", "create", "x")
        refused(cli(*create, "--scope", "sandbx:read"), "sandbx:read", "did you mean")
        refused(cli(*create, "--expires-in", "soon"), "expiresIn")
        refused(cli(*create, "--expires-in", "900y"), "ten years")
        refused(cli(*create, "--project", "nowhere"), "nowhere")
        refused(cli("auth", "keys", "revoke", "key_none"), "no API key")
        refused(cli("auth", "keys", "create"), "NAME", code=2)


class TestSshKeys:
    def test_they_are_added_listed_and_removed(self, cli: Cli) -> None:
        line = public_key("control").encode()
        made = cli.ok("ssh-key", "add", "laptop-c", "-f", "-", stdin=line)
        assert made.text.startswith("SHA256:")
        assert made.text.strip() in cli.ok("ssh-key", "list").text.replace("\n", "")
        assert line.decode().split()[1] in cli.ok("ssh-key", "get", "laptop-c").text
        assert cli.ok("ssh-key", "get", "laptop-c", "--json").data["label"] == "laptop-c"
        refused(cli("ssh-key", "add", "again", "-f", "-", stdin=line), "laptop-c")
        (cli.folder / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        refused(cli("ssh-key", "add", "mine", "-f", "id"), "private key; it was not sent", ".pub")
        refused(cli("ssh-key", "add", "mine", "-f", "nowhere.pub"), "nowhere.pub")
        refused(cli("ssh-key", "add", "mine", "-f", "-", stdin=b"ssh-rsa AAAA"), "publicKey")
        cli.ok("ssh-key", "remove", "laptop-c")
        refused(cli("ssh-key", "remove", "laptop-c"), "laptop-c")
        refused(cli("ssh-key", "get", "laptop-c"), "laptop-c")


class TestProjects:
    def test_they_group_and_forbid_nothing(self, cli: Cli) -> None:
        project = cli.ok("project", "create", "shop-c", "--color", "#112233").text.strip()
        assert project.startswith("prj_")
        box = cli.ok("sandbox", "create", "--name", "box-c", "--json").data["id"]
        cli.ok("project", "move", "shop-c", "--sandbox", "box-c")
        found = cli.ok("sandbox", "list", "--project", "shop-c", "--json").data
        assert [one["id"] for one in found] == [box]
        refused(cli("project", "delete", "shop-c"), "not empty", "--move-to")
        refused(cli("project", "create", "shop-c"), "shop-c")
        refused(cli("project", "move", "shop-c", "--sandbox", "nobody-c"), "nobody-c")
        refused(cli("project", "rename", "shop-c"), "NAME", code=2)
        refused(cli("project", "create", "other-c", "--color", "red"), "color")
        cli.ok("project", "rename", "shop-c", "store-c")
        cli.ok("project", "delete", "store-c", "--move-to", "default")
        refused(cli("project", "get", "store-c"), "store-c")
        refused(cli("project", "delete", "default"), "default project")
        cli.ok("sandbox", "destroy", box)


class TestOrgs:
    def test_limits_usage_and_the_audit_log(self, cli: Cli) -> None:
        before = cli.ok("org", "limits", "--json").data
        shown = cli.ok("org", "limits", "--sandboxes", "1", "--json").data
        assert shown["limits"]["sandboxes"] == 1
        running = before["used"]["sandboxes"]
        made = [cli("sandbox", "create", "--json") for _ in range(max(0, 1 - running) + 1)]
        refusal = as_json(made[-1])
        assert (refusal["code"], refusal["details"]["limit"]) == ("quota_exceeded", "sandboxes")
        cli.ok("org", "limits", "--sandboxes", "default")
        for done in made[:-1]:
            cli.ok("sandbox", "destroy", done.data["id"])
        refused(cli("org", "limits", "--sandboxes", "many"), "a number, or default", code=2)
        refused(cli("org", "limits", "--org", "org_none"), "org_none")
        used = cli.ok("usage", "--group", "org", "--json").data
        assert [row["runningMs"] >= 0 for row in used] == [True]
        assert cli.ok("usage", "--csv").text.startswith("sandbox_id,name,project_id,day,")
        refused(cli("usage", "--from", "yesterday"), "yesterday", code=2)
        lines = cli.ok("audit", "--action", "limits.change", "--json").data
        assert [line["status"] for line in lines[:2]] == [200, 200]
        assert {line["source"] for line in lines} == {"127.0.0.1"}
        assert "limits.change" in cli.ok("audit", "--lines", "5").text
        refused(cli("audit", "--lines", "0"), "--lines", code=2)

    def test_who_may_not(self, cli: Cli, small: Cli) -> None:
        refused(small("audit"), "audit:read")
        refused(small("org", "create", "Mine"), "platform:write")
        refused(small("member", "list"), "org:read")
        refused(small("invite", "create", "a@example.org"), "org:write")
        refused(small("sandbox", "create"), "sandbox:create")
        refused(small("auth", "switch", "org_none"), "runtools login")
        refused(cli("invite", "create", "no address"), "email")
        refused(cli("invite", "create", "a@example.org", "--expires-in", "90d"), "30 days")
        refused(cli("member", "role", "usr_none", "admin"), "usr_none")
        refused(cli("people", "close", "usr_none"), "usr_none")


def test_what_the_machine_refuses_is_said(cli: Cli) -> None:
    """A file where a folder is to be."""
    (cli.folder / "file").write_text("")
    refused(cli("init", "file"), "is no folder")
    refused(cli("init", "file/below"), "Not a directory")


def test_a_file_above_that_may_not_be_read_stops_a_deploy_alone(cli: Cli) -> None:
    (cli.folder / "pyproject.toml").mkdir()  # root may read every file
    assert "no agent" in refused(cli("agent", "get", "nobody"), "nobody")
    refused(cli("deploy"), "pyproject.toml cannot be read")
