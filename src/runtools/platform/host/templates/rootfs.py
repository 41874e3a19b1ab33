"""Building the root file system of a template, step by step.

Order matters for safety: whatever this module itself writes or reads below the root happens before
the first line of a stranger's script has run there, for a script could lay links that lead out.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import runtools.guest
from runtools.platform.host.templates import mirrors
from runtools.platform.host.templates.buildlog import BuildLog
from runtools.platform.host.templates.chroot import TIED, run_inside
from runtools.platform.host.templates.laying import lay, link
from runtools.platform.host.templates.recipes import BUN, NPM, Recipe
from runtools.platform.kit import process

_SKIPPED = "check/empty,download/empty,essential/unlink,cleanup/apt/cache,cleanup/apt/lists"
_LEFT_OUT = ("doc/*", "man/*", "info/*", "locale/*", "lintian/*", "bug/*")
_ARCHIVES = "var/cache/apt/archives"
_AGENT = "usr/lib/runtools/runtools"

# Units that have no use in a machine whose disks, network, clock and identity come from outside, or
# that would wake an idle one. Each costs an emulated CPU tens of milliseconds at boot.
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "systemd-tmpfiles-clean.timer"),
    *("getty.target", "getty@tty1.service", "serial-getty@ttyS0.service", "console-getty.service"),
    *("systemd-random-seed.service", "systemd-machine-id-commit.service", "tmp.mount"),
    *("systemd-firstboot.service", "systemd-hwdb-update.service", "systemd-pstore.service"),
    *("systemd-journal-flush.service", "systemd-journal-catalog-update.service"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
    *("systemd-update-done.service", "ldconfig.service", "systemd-remount-fs.service"),
    *("systemd-udev-trigger.service", "systemd-udev-settle.service", "systemd-logind.service"),
    *("kmod-static-nodes.service", "systemd-tmpfiles-setup-dev-early.service"),
    *("systemd-tmpfiles-setup-dev.service", "systemd-sysusers.service"),
    *("systemd-binfmt.service", "systemd-modules-load.service", "systemd-networkd.service"),
    *("systemd-timesyncd.service", "systemd-resolved.service", "systemd-boot-update.service"),
    *("dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *(
        "sys-kernel-config.mount",
        "sys-fs-fuse-connections.mount",
        "proc-sys-fs-binfmt_misc.automount",
    ),
    *("systemd-ask-password-console.path", "systemd-ask-password-wall.path", "remote-fs.target"),
    *("ssh.service", "ssh.socket", "systemd-bsod.service", "systemd-quotacheck-root.service"),
)
_GENERATORS_OFF = (
    *(
        "cryptsetup",
        "debug",
        "fstab",
        "getty",
        "gpt-auto",
        "hibernate-resume",
        "import",
        "integritysetup",
    ),
    *(
        "rc-local",
        "run",
        "ssh",
        "system-update",
        "tpm2",
        "veritysetup",
        "factory-reset",
        "bless-boot",
    ),
)
_WANTED = {
    "sysinit.target.wants": ("runtools-agent.service",),
    "sockets.target.wants": ("runtools-ssh.socket",),
}


@dataclass(frozen=True, slots=True)
class Boot:
    """What boots a root: a kernel image, a folder of its modules, a static busybox."""

    kernel: Path
    modules: Path
    busybox: Path


async def install(
    root: Path, recipe: Recipe, extra: list[str], cache: Path, mirror: str, log: BuildLog
) -> None:
    """Fill an empty folder with the recipe's packages and ``extra``."""
    sources = mirrors.machine_sources()
    lines = mirrors.archive_lines(
        recipe.distribution, recipe.suite, recipe.components, mirror=mirror, sources=sources
    )
    for line in lines or ["the bootstrapper's own default archive"]:
        log.line(f"from {line}")
    packages = list(dict.fromkeys([*recipe.packages, *extra]))
    argv = [*TIED, "mmdebstrap", "--mode=root", "--variant=essential"]
    argv += [f"--include={','.join(packages)}"]
    argv += [f"--components={','.join(recipe.components)}"]
    argv += ['--aptopt=Acquire::Retries "3"', '--aptopt=Acquire::Languages "none"']
    argv += [f'--aptopt=Acquire::http::Proxy "{proxy}"' for proxy in await _proxies()]
    if extra:
        # Names that nobody has are found in seconds, and not after everything else is installed.
        log.line(f"looking for {' '.join(extra)}")
        simulated = [*argv, "--simulate", "--format=null", recipe.suite, "-", *lines]
        await process.stream(simulated, log.line)
    archives = root / _ARCHIVES
    (archives / "partial").mkdir(parents=True)
    for package in cache.glob("*.deb"):
        (archives / package.name).hardlink_to(package)
    argv += ["--format=directory", "--verbose", f"--skip={_SKIPPED}"]
    argv += [f"--dpkgopt=path-exclude=/usr/share/{pattern}" for pattern in _LEFT_OUT]
    argv += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    await process.stream([*argv, recipe.suite, root, *lines], _Counting(log).line)
    (root / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)


async def fetch_boot(root: Path, recipe: Recipe, work: Path, log: BuildLog) -> Boot:
    """Fetch kernel and busybox and unpack them; the modules also into the root.

    They are not installed: a guest's own upgrade would then build a kernel that nothing boots.
    """
    found = await _dependency(root, recipe.kernel, "linux-image-")
    wanted = [found, *await _optional(root, found, "linux-modules-"), "busybox-static"]
    archives = root / _ARCHIVES
    before = set(archives.glob("*.deb"))
    await run_inside(root, ["apt-get", "download", *wanted], log.line, cwd=f"/{_ARCHIVES}")
    unpacked = work / "boot"
    for name in wanted:
        newest = max(
            (p for p in archives.glob(f"{name}_*.deb")), key=lambda p: (p not in before, p.name)
        )
        await process.run(["dpkg-deb", "-x", newest, unpacked])
    kernel = next((unpacked / "boot").glob("vmlinuz-*"))
    version = kernel.name.removeprefix("vmlinuz-")
    inside = next(p for p in (unpacked / "usr/lib/modules", unpacked / "lib/modules") if p.is_dir())
    target = root / "usr/lib/modules"
    await asyncio.to_thread(shutil.copytree, inside, target, symlinks=True, dirs_exist_ok=True)
    await run_inside(root, ["depmod", version], log.line)
    busybox = next(
        p for p in (unpacked / "usr/bin/busybox", unpacked / "bin/busybox") if p.exists()
    )
    log.line(f"kernel {version}")
    return Boot(kernel, target / version, busybox)


def keep_packages(root: Path, cache: Path) -> None:
    """Move the downloaded packages to the cache.

    Afterwards none is left below the root: a cached file that a script could write to would poison
    every later build.
    """
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    for package in (root / _ARCHIVES).glob("*.deb"):
        kept = cache / package.name
        if kept.exists():
            package.unlink()
        else:
            package.rename(kept)


async def add_tools(root: Path, log: BuildLog) -> None:
    """Npm and Bun, from the npm registry."""
    modules = "/usr/local/lib/node_modules"
    npm = ["corepack", NPM, "install", "--global", "--prefix=/usr/local", "--ignore-scripts"]
    quiet = ["--no-fund", "--no-audit", "--no-update-notifier"]
    env = {"HOME": "/tmp", "COREPACK_HOME": "/tmp/corepack", "COREPACK_ENABLE_DOWNLOAD_PROMPT": "0"}  # noqa: S108 - inside
    await run_inside(root, [*npm, *quiet, NPM, BUN], log.line, env=env)
    await run_inside(root, ["mv", f"{modules}/{BUN}/bin/bun", "/usr/local/bin/bun"], log.line)
    await run_inside(root, ["ln", "-s", "bun", "/usr/local/bin/bunx"], log.line)
    await run_inside(root, ["rm", "-r", f"{modules}/{BUN.partition('/')[0]}"], log.line)
    for tool in ("node", "npm", "bun"):
        log.line(f"{tool}:")
        await run_inside(root, [tool, "--version"], log.line)


async def set_up(root: Path, log: BuildLog) -> None:
    """Our own files: configuration, masks, the agent."""
    with resources.as_file(resources.files(__package__).joinpath("skeleton")) as skeleton:
        lay(skeleton, root)
    units = root / "etc/systemd/system"
    for unit in _MASKED:
        link(units / unit, "/dev/null")
    for name in _GENERATORS_OFF:
        link(root / f"etc/systemd/system-generators/systemd-{name}-generator", "/dev/null")
    for folder, names in _WANTED.items():
        for name in names:
            link(units / folder / name, f"../{name}")
    link(units / "default.target", "/usr/lib/systemd/system/multi-user.target")
    (root / "workspace").mkdir(exist_ok=True)
    await add_agent(root, log)


async def add_agent(root: Path, log: BuildLog) -> None:
    """Put the guest agent in, compiled for the root's own Python."""
    home = root / _AGENT
    shutil.rmtree(home, ignore_errors=True)
    source = Path(runtools.guest.__file__).parent
    shutil.copytree(source, home / "guest", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "__init__.py").write_text('"""The part of RunTools that lives inside a sandbox."""\n')
    command = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    await run_inside(root, [*command, f"/{_AGENT}"], log.line)


async def forget_identity(root: Path, log: BuildLog) -> None:
    """Remove what a script may have left that no two machines may share, and what apt fetched.

    Done inside the root, where a link leads nowhere else.
    """
    # There and empty: without it the service manager would take every start for the very first.
    await run_inside(root, ["rm", "-rf", "/etc/machine-id"], log.line)
    await run_inside(root, ["install", "-m", "444", "/dev/null", "/etc/machine-id"], log.line)
    for folder, pattern in (
        ("/etc/ssh", "ssh_host_*"),
        ("/var/lib/apt/lists", "*"),
        ("/var/cache/apt", "*"),
    ):
        find = ["find", folder, "-type", "f", "-name", pattern, "-delete"]
        await run_inside(root, find, log.line)


def clean(root: Path) -> None:
    """Empty what is mounted or volatile in a running system. Follows no link."""
    for name in ("dev", "proc", "sys", "run", "tmp", "boot"):
        folder = root / name
        if folder.is_symlink() or not folder.is_dir():
            folder.unlink(missing_ok=True)
            folder.mkdir()
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    (root / "tmp").chmod(0o1777)


class _Counting:
    """Passes the bootstrapper's lines on and reads from them how far it is."""

    _TOTAL = re.compile(r"(\d+) newly installed")

    def __init__(self, log: BuildLog) -> None:
        self._log = log
        self._total = 400
        self._done = 0

    def line(self, text: str) -> None:
        if match := self._TOTAL.search(text):
            self._total = max(int(match[1]), 1)
        if text.startswith(("Get:", "Unpacking ", "Setting up ")):
            self._done += 1
            self._log.part(self._done / (3 * self._total))
        if text.strip():
            self._log.line(text)


async def _proxies() -> list[str]:
    """The proxy through which this machine's apt reaches its mirror, if any."""
    argv = ["apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy"]
    return (await process.run(argv)).stdout.decode().split()[:1]


async def _dependency(root: Path, package: str, prefix: str) -> str:
    found = await _optional(root, package, prefix)
    if not found:
        raise LookupError(f"{package} depends on no {prefix}…")
    return found[0]


async def _optional(root: Path, package: str, prefix: str) -> list[str]:
    lines: list[str] = []
    await run_inside(root, ["apt-cache", "depends", "--important", package], lines.append)
    names = [line.split()[-1] for line in lines if line.strip().startswith("Depends:")]
    return [name for name in names if name.startswith(prefix)][:1]
