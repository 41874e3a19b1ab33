from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtools import AsyncRunTools, RunTools
from runtools.errors import InvalidRequest, Unauthenticated
from runtools.sdk.settings import DEFAULT_URL, logins_file, platform_environment, resolve

KEPT_URL = "http://127.0.0.1:7811"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    body = {"apiUrl": KEPT_URL, "apiKey": "rt_live_kept"}
    (tmp_path / "client.json").write_text(json.dumps(body))
    return {"RUNTOOLS_HOME": str(tmp_path)}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def keep(config: dict[str, str], current: str, logins: dict[str, str]) -> None:
    file = logins_file(config)
    assert file is not None
    file.parent.mkdir()
    file.write_text(json.dumps({"current": current, "logins": logins}))


class TestFolder:
    """What a project's folder says of where the platform is."""

    def test_it_goes_before_the_last_login_and_a_login_there_is_used(
        self, config: dict[str, str]
    ) -> None:
        keep(config, KEPT_URL, {KEPT_URL: "rt_session_here", "https://rt.test": "rt_session_there"})
        found = resolve(environ=config, folder=lambda: "https://rt.test")
        assert (found.url, found.api_key) == ("https://rt.test", "rt_session_there")

    def test_the_environment_goes_before_it_and_it_is_not_read(self, home: dict[str, str]) -> None:
        def broken() -> str:
            raise InvalidRequest("no TOML")

        assert resolve(environ=home, folder=broken).url == KEPT_URL
        env = {"RUNTOOLS_API_KEY": "rt_live_env", "RUNTOOLS_API_URL": "https://mine.test"}
        found = resolve(environ=env, folder=broken)
        assert (found.url, found.api_key) == ("https://mine.test", "rt_live_env")

    def test_what_was_kept_elsewhere_is_not_sent_there(
        self, home: dict[str, str], config: dict[str, str]
    ) -> None:
        keep(config, KEPT_URL, {KEPT_URL: "rt_session_here"})
        with pytest.raises(Unauthenticated, match=r"no API key") as caught:
            resolve(environ=config, folder=lambda: "https://evil.test")
        assert "rt_session_here" not in str(caught.value)
        assert resolve(environ=home, folder=lambda: "https://evil.test").url == KEPT_URL

    def test_nor_is_the_key_of_the_environment(self, config: dict[str, str]) -> None:
        env = config | {"RUNTOOLS_API_KEY": "rt_live_env"}
        with pytest.raises(Unauthenticated, match=r"https://evil\.test") as caught:
            resolve(environ=env, folder=lambda: "https://evil.test")
        assert "rt_live_env" not in str(caught.value) + str(caught.value.hint)
        keep(config, KEPT_URL, {"https://evil.test": "rt_session_there"})
        found = resolve(environ=env, folder=lambda: "https://evil.test")
        assert found.api_key == "rt_session_there"  # somebody has logged in there

    def test_but_where_it_would_go_anyway_it_goes(self, config: dict[str, str]) -> None:
        env = config | {"RUNTOOLS_API_KEY": "rt_live_env"}
        assert resolve(environ=env, folder=lambda: DEFAULT_URL).api_key == "rt_live_env"
        env |= {"RUNTOOLS_API_URL": "https://rt.test"}
        assert resolve(environ=env, folder=lambda: "https://rt.test").api_key == "rt_live_env"


class TestResolve:
    def test_takes_what_up_wrote(self, home: dict[str, str]) -> None:
        found = resolve(environ=home)
        assert (found.url, found.api_key) == (KEPT_URL, "rt_live_kept")

    def test_the_environment_goes_before_the_file(self, home: dict[str, str]) -> None:
        env = home | {"RUNTOOLS_API_KEY": "rt_live_env", "RUNTOOLS_API_URL": "https://rt.test"}
        found = resolve(environ=env)
        assert (found.url, found.api_key) == ("https://rt.test", "rt_live_env")

    def test_arguments_go_before_the_environment(self, home: dict[str, str]) -> None:
        env = home | {"RUNTOOLS_API_KEY": "rt_live_env", "RUNTOOLS_API_URL": "https://rt.test"}
        found = resolve("rt_live_arg", "http://localhost:1/base/", environ=env)
        assert (found.url, found.api_key) == ("http://localhost:1/base", "rt_live_arg")

    def test_a_key_alone_goes_to_the_default_address(self, tmp_path: Path) -> None:
        env = {"RUNTOOLS_HOME": str(tmp_path / "none"), "RUNTOOLS_API_KEY": "rt_live_env"}
        assert resolve(environ=env).url == DEFAULT_URL

    def test_a_kept_key_is_not_sent_elsewhere(self, home: dict[str, str]) -> None:
        with pytest.raises(Unauthenticated, match=r"belongs to http://127\.0\.0\.1:7811") as caught:
            resolve(url="http://elsewhere.test", environ=home)
        assert "rt_live_kept" not in str(caught.value)

    def test_a_login_goes_before_the_kept_key_of_the_same_platform(
        self, home: dict[str, str], config: dict[str, str]
    ) -> None:
        keep(config, KEPT_URL, {KEPT_URL: "rt_session_mine", "https://rt.test": "rt_session_there"})
        found = resolve(environ=home | config)
        assert (found.url, found.api_key) == (KEPT_URL, "rt_session_mine")
        assert found.source == "runtools login"
        there = resolve(url="https://rt.test", environ=home | config)
        assert there.api_key == "rt_session_there"

    def test_a_login_goes_nowhere_else(self, home: dict[str, str], config: dict[str, str]) -> None:
        keep(config, "https://rt.test", {"https://rt.test": "rt_session_there"})
        with pytest.raises(Unauthenticated, match="no API key for"):
            resolve(url="https://else.test", environ=home | config)
        assert resolve(environ=home | config).url == KEPT_URL  # RUNTOOLS_HOME is set

    def test_the_last_login_says_where_without_a_home(self, config: dict[str, str]) -> None:
        keep(config, "https://rt.test", {"https://rt.test": "rt_session_there"})
        found = resolve(environ=config)
        assert (found.url, found.api_key) == ("https://rt.test", "rt_session_there")

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", '{"current": 1, "logins": {}}', '{"current": null, "logins": {"a": 1}}'],
    )
    def test_a_broken_file_of_logins_is_named(self, config: dict[str, str], text: str) -> None:
        file = logins_file(config)
        assert file is not None
        file.parent.mkdir()
        file.write_text(text)
        with pytest.raises(InvalidRequest, match=r"logins\.json is not what"):
            resolve(environ=config)

    def test_no_key_says_where_one_may_be_put(self, tmp_path: Path) -> None:
        with pytest.raises(Unauthenticated, match=r"client\.json does not exist"):
            resolve(environ={"RUNTOOLS_HOME": str(tmp_path)})

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"apiUrl": 1}', '{"apiUrl": "http://x"}'])
    def test_a_broken_file_is_named(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "client.json").write_text(text)
        with pytest.raises(InvalidRequest, match=r"client\.json is not what"):
            resolve(environ={"RUNTOOLS_HOME": str(tmp_path)})

    @pytest.mark.parametrize(
        "url", ["x", "ftp://x", "http://", "http://u:p@x", "http://x?y", "http://x:port"]
    )
    def test_bad_addresses_are_refused(self, url: str) -> None:
        with pytest.raises(InvalidRequest, match="address"):
            resolve("k", url, environ={})

    @pytest.mark.parametrize("key", ["a b", "kéy", "a\nb", " \n"])
    def test_bad_keys_are_refused_unshown(self, key: str) -> None:
        with pytest.raises(InvalidRequest, match="malformed") as caught:
            resolve(key, "http://x", environ={})
        assert key not in str(caught.value)

    def test_an_ipv6_address_keeps_its_brackets(self) -> None:
        assert resolve("k", "http://[::1]:7700", environ={}).url == "http://[::1]:7700"


@pytest.mark.parametrize("kind", [RunTools, AsyncRunTools])
def test_no_repr_shows_the_key(kind: type[RunTools] | type[AsyncRunTools]) -> None:
    client = kind("rt_live_secret", "http://127.0.0.1:1")
    shown = repr(client) + repr(resolve("rt_live_secret", "http://x", environ={}))
    assert "secret" not in shown
    assert "127.0.0.1:1" in shown


def test_sudo_lets_the_platforms_settings_through_but_no_key() -> None:
    env = {"RUNTOOLS_HOME": "/x", "RUNTOOLS_API_KEY": "k", "RUNTOOLS_API_URL": "u", "PATH": "/bin"}
    assert platform_environment(env) == ["RUNTOOLS_HOME"]


def test_logins_that_may_not_be_read_are_not_taken_for_none(
    config: dict[str, str], home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(config, KEPT_URL, {KEPT_URL: "rt_live_mine"})
    read = Path.read_text

    def closed(self: Path) -> str:
        if self.name == "logins.json":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_text", closed)
    with pytest.raises(InvalidRequest, match="may not be read"):
        resolve(environ=home | config)
    env = home | config | {"RUNTOOLS_API_KEY": "rt_live_env"}
    assert resolve(environ=env).api_key == "rt_live_env"
