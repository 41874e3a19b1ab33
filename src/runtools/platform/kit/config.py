"""Settings of one platform: the only module that reads the environment (with the SDK's settings).

A setting comes from the environment (``RUNTOOLS_<NAME>``), else from ``config.toml`` in the home,
else from the default below. A name that no setting bears is refused, so a typo is not lost.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from runtools.errors import InvalidRequest

DEFAULT_HOME = Path("/var/lib/runtools")
# Read by the SDK and the CLI, or by tests; no settings of the platform.
_FOREIGN = {"RUNTOOLS_API_KEY", "RUNTOOLS_API_URL"}

# A name or IPv4 address, or an IPv6 address in brackets; then perhaps a port.
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+))(?::([0-9]{1,5}))?")

Accelerator = Literal["auto", "kvm", "tcg"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one platform.

    Attributes:
        home: where everything the platform keeps lies.
        api_host, api_port: where the API listens.
        ssh_host, ssh_port: where the gateway listens for SSH.
        ssh_address: how people reach it, ``host`` or ``host:port``; empty: where it listens.
        ssh_per_source, ssh_per_sandbox: SSH connections at once from one address, and to one sandbox.
        ssh_agents: ``allowed``: sandboxes may use the SSH agent of who logs in with ``ssh -A``.
        gateway_host, gateway_port: where the gateway listens for dev URLs.
        gateway_tls_cert, gateway_tls_key: certificate chain and key (PEM files) that it serves them
            with; empty: without TLS.
        dev_url: the address below which browsers find dev URLs: of a domain of their own, or empty.
        accelerator: ``auto`` probes KVM by a guest that must answer; the others are believed.
        require_isolation: ``hardware`` refuses to run sandboxes under emulation.
        memory_factor: how much of a sandbox's memory is counted against the host's, 0 to 1.
        memory_mb: memory that sandboxes may take in all; 0: the host's total less one eighth.
        max_sandboxes: how many may run at once.
        disk_headroom_mb: free disk below which nothing is started and sandboxes are paused.
        recover_hours: how long the disk of a sandbox that ended by itself is kept.
        network_mbit: millions of bits a second that one sandbox may send, and receive; 0: no limit.
        network_packets: packets a second that one sandbox may send; 0: no limit.
        network_connections: flows that one sandbox may have at once; 0: no limit.
        warm_mb: bytes (in MB) that warm snapshots may take before the least recently used goes.
        limit_sandboxes, limit_vcpus, limit_memory_mb, limit_disk_mb, limit_snapshots: what an org may
            have at once, where the operator has not said otherwise of it; 0: no limit.
        limit_agent_tokens, limit_agent_cents: what its runs may spend on models in a calendar month.
        rate_limit: requests that an org may make in a minute, at one api process; 0: no limit.
        limit_open_requests: requests that an org may have open at once at one api process, streams and
            terminals included; 0: no limit.
        rate_limit_failed: tries without a good key from one address in a minute; 0: no limit.
        default_template: what a create without a template gets.
        build_minutes: how long the build of a template may take from when its turn comes; 0: no limit.
        limit_builds: builds that an org may have under way or waiting; 0: no limit.
        mirror: package mirror for template builds; empty: the one this machine's apt uses.
        kasmvnc: address or file of KasmVNC's package, for the recipes named after it.
        database_url: SQLAlchemy URL; empty: SQLite in the home.
        master_key, master_key_file, master_key_command: where the master key of sealed values comes from
            (base64 of 32 bytes; several with the newest first): the value itself, a file, or a program
            that prints it. At most one; without any, a file in the home, made at the first start.
        audit_days: how long the audit log is kept.
        worker_slots: how many runs of agents a worker drives at once.
        outbound_allow: networks (CIDR, separated by commas) that URLs of users (webhooks, model endpoints)
            may lead to though they are not public, and without TLS.
        trusted_proxies: networks (CIDR, separated by commas) of proxies whose
            ``X-Forwarded-For`` is believed.
        public_url: the address at which people's browsers find the API, behind a proxy for one; empty:
            http://localhost and its port.
        oidc_issuer, oidc_client_id, oidc_client_secret: an OpenID Connect provider that people may sign
            in by; oidc_name: what pages call it.
        password_memory_kb, password_rounds: what a hash of a password costs (argon2id).
        session_idle_hours: after how long without use a person has to sign in again.
        session_days: after how long in any case.
        service_user: who the unprivileged processes run as where root calls; empty: `runtools`.
        part_digests: a file of the digests of tokens of parts on other machines, for the api.
        part_token_file: where a part on another machine finds its token; empty: in the home.
        metrics_token: what ``/metrics`` is read with; empty: one that is made at the first start.
        otlp_endpoint: collector of traces (OTLP over HTTP); empty: there are none.
        otlp_headers: what it is sent along, ``name=value`` with commas; a secret.
        crash_at: (tests) the named point at which a process kills itself.
    """

    home: Path = DEFAULT_HOME
    api_host: str = "127.0.0.1"
    api_port: int = 7700
    ssh_host: str = "127.0.0.1"
    ssh_port: int = 2222
    ssh_address: str = ""
    ssh_per_source: int = 64
    ssh_per_sandbox: int = 64
    ssh_agents: Literal["refused", "allowed"] = "refused"
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 7780
    gateway_tls_cert: str = ""
    gateway_tls_key: str = ""
    dev_url: str = ""
    accelerator: Accelerator = "auto"
    require_isolation: Literal["any", "hardware"] = "any"
    memory_factor: float = 0.5
    memory_mb: int = 0
    max_sandboxes: int = 256
    disk_headroom_mb: int = 2048
    recover_hours: float = 24.0
    network_mbit: int = 1000
    network_packets: int = 100_000
    network_connections: int = 4096
    warm_mb: int = 16_384
    limit_sandboxes: int = 0
    limit_vcpus: int = 0
    limit_memory_mb: int = 0
    limit_disk_mb: int = 0
    limit_snapshots: int = 0
    limit_agent_tokens: int = 0
    limit_agent_cents: int = 0
    rate_limit: int = 60_000
    limit_open_requests: int = 1_000
    rate_limit_failed: int = 600
    default_template: str = "base-debian"
    build_minutes: int = 120
    limit_builds: int = 16
    mirror: str = ""
    kasmvnc: str = ""
    database_url: str = ""
    master_key: str = field(default="", repr=False)
    master_key_file: str = ""
    master_key_command: str = ""
    audit_days: int = 365
    trusted_proxies: str = ""
    public_url: str = ""
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret: str = field(default="", repr=False)
    oidc_name: str = "single sign-on"
    password_memory_kb: int = 65_536
    password_rounds: int = 3
    session_idle_hours: int = 168
    session_days: int = 30
    service_user: str = ""
    part_digests: str = ""
    part_token_file: str = ""
    worker_slots: int = 20
    outbound_allow: str = ""
    metrics_token: str = field(default="", repr=False)
    otlp_endpoint: str = ""
    otlp_headers: str = field(default="", repr=False)
    crash_at: str = ""

    @property
    def session_idle(self) -> timedelta:
        """How long a session lasts without use."""
        return timedelta(hours=self.session_idle_hours)

    @property
    def host_home(self) -> Path:
        """What the host part keeps: machines, snapshots, templates. Root's alone."""
        return self.home / "host"

    @property
    def api_home(self) -> Path:
        """What the api part keeps: its database."""
        return self.home / "api"

    @property
    def metrics_token_file(self) -> Path:
        """What ``/metrics`` is read with, unless a setting says."""
        return self.api_home / "metrics-token"

    @property
    def gateway_home(self) -> Path:
        """What the gateway keeps: the keys that it is known by and vouches with."""
        return self.home / "gateway"

    @property
    def ssh_place(self) -> tuple[str, int]:
        """Host and port at which people reach the gateway by SSH."""
        if not self.ssh_address:
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.ssh_host, self.ssh_host)
            return host, self.ssh_port
        found = _ADDRESS.fullmatch(self.ssh_address)
        if found is None or not 0 < int(found[3] or 22) < 65_536:
            raise InvalidRequest(
                f"setting ssh_address is no host or host:port: {self.ssh_address!r}"
            )
        return found[1] or found[2], int(found[3] or 22)

    @property
    def run_folder(self) -> Path:
        """Sockets and pid files."""
        return self.home / "run"

    @property
    def browser_url(self) -> str:
        """The address at which people's browsers find the API."""
        return self.public_url.rstrip("/") or f"http://localhost:{self.api_port}"

    @property
    def dev_url_base(self) -> str:
        """The address below which dev URLs are, one label deeper."""
        scheme = "https" if self.gateway_tls_cert else "http"
        return self.dev_url or f"{scheme}://sandboxes.localhost:{self.gateway_port}"

    @property
    def parts_file(self) -> Path:
        """The digests of the tokens of this machine's parts."""
        return self.run_folder / "parts"

    def token_file(self, part: str) -> Path:
        """Where a part finds its token."""
        chosen = self.part_token_file
        return Path(chosen) if chosen else self.run_folder / f"{part}.token"

    @property
    def log_folder(self) -> Path:
        """Logs of the detached platform."""
        return self.home / "logs"

    @property
    def reach_socket(self) -> Path:
        """Where the gateway gets streams into sandboxes from the host part."""
        return self.run_folder / "reach.sock"

    @property
    def host_socket(self) -> Path:
        """Where the host part listens for the api part."""
        return self.run_folder / "host.sock"

    @property
    def own_url(self) -> str:
        """Where this machine reaches the API; one that listens everywhere does so on the loopback."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.api_host, self.api_host)
        return (
            f"http://[{host}]:{self.api_port}" if ":" in host else f"http://{host}:{self.api_port}"
        )

    @property
    def client_file(self) -> Path:
        """API URL and admin key for the CLI and SDK of the person who started the platform."""
        return self.home / "client.json"


def environment() -> Mapping[str, str]:
    """The process's environment, for those who hand parts of it on to children."""
    return os.environ


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force.

    Raises:
        InvalidRequest: an unknown name or a value of the wrong form; the message names it.
    """
    env = os.environ if environ is None else environ
    home = Path(env.get("RUNTOOLS_HOME", str(DEFAULT_HOME))).absolute()
    values: dict[str, Any] = {}
    file = home / "config.toml"
    if file.exists():
        values.update(_from_file(file))
    prefix = "RUNTOOLS_"
    for key, text in env.items():
        if key.startswith(prefix) and key not in _FOREIGN:
            values[key.removeprefix(prefix).lower()] = text
    values["home"] = home
    return _typed(values)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"{file} is not valid TOML: {exc}") from exc


_PORTS = {"http": 80, "https": 443}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "accelerator": ("auto", "kvm", "tcg"),
    "require_isolation": ("any", "hardware"),
    "ssh_agents": ("refused", "allowed"),
}
_KINDS = {int: "a whole number", float: "a number"}


def _unknown(name: str, known: Collection[str]) -> InvalidRequest:
    alike = difflib.get_close_matches(name, known, n=3)
    said = f"did you mean {' or '.join(alike)}? " if alike else ""
    return InvalidRequest(f"unknown setting {name!r}", hint=f"{said}docs/settings.md lists them")


def _typed(values: Mapping[str, Any]) -> Settings:
    defaults: dict[str, Any] = {f.name: f.default for f in fields(Settings)}
    typed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in defaults:
            raise _unknown(name, defaults)
        kind = type(defaults[name])
        convert: Callable[[Any], Any] = Path if name == "home" else kind
        try:
            typed[name] = convert(value)
        except (TypeError, ValueError) as exc:
            raise InvalidRequest(
                f"setting {name} must be {_KINDS.get(kind, 'a path')}: {value!r}"
            ) from exc
        if name in _CHOICES and typed[name] not in _CHOICES[name]:
            raise InvalidRequest(f"setting {name} must be one of {', '.join(_CHOICES[name])}")
        if kind in _KINDS and not typed[name] >= 0:  # nor is it "nan"
            raise InvalidRequest(f"setting {name} must not be below 0: {value!r}")
    for name in ("public_url", "dev_url"):
        if typed.get(name):
            typed[name] = _origin(name, typed[name])
    return Settings(**typed)


def _origin(name: str, url: str) -> str:
    """The address as browsers write it, in small letters and without the usual port."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _no_origin(name, url) from None
    if not host or not _is_origin(parts):
        raise _no_origin(name, url)
    shown = f"[{host}]" if ":" in host else host
    usual = port is None or port == _PORTS[parts.scheme]
    return f"{parts.scheme}://{shown}" if usual else f"{parts.scheme}://{shown}:{port}"


def _no_origin(name: str, url: str) -> InvalidRequest:
    return InvalidRequest(
        f"setting {name} must be the address of a server alone: {url!r}",
        hint="it looks like https://runtools.example.com",
    )


def _is_origin(parts: SplitResult) -> bool:
    more = parts.path.rstrip("/") or parts.query or parts.fragment or "@" in parts.netloc
    return parts.scheme in _PORTS and parts.netloc.isascii() and not more
