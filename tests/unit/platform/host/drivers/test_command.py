"""The command line of a VMM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runtools.platform.core.ports.driver import Machine, Slot
from runtools.platform.host.drivers.qemu.command import (
    GUEST_MAC,
    Handed,
    arguments,
    name,
)
from runtools.platform.host.net import rules

MACHINE = Machine(
    id="sandbox-abcdefghijkl",
    folder=Path("/home/sandbox"),
    vcpus=2,
    memory_mb=1024,
    base=Path("/templates/base.erofs"),
    kernel=Path("/templates/kernel"),
    initrd=Path("/templates/initrd"),
    overlay=Path("/home/sandbox/overlay.img"),
    uid=70_000,
    slot=Slot("rt-abcdef-0", "tap0", 0),
    boot_token="a secret",
)
OWN = Handed(tap=12, qmp=13, private=False)
PRIVATE = replace(OWN, private=True)
COLD = "console=ttyS0"


def after(words: list[str], option: str) -> list[str]:
    return [words[n + 1] for n, word in enumerate(words) if word == option]


def guest_sees(words: list[str]) -> list[str]:
    """What a saved state depends on: machine and devices, in their order."""
    return [
        *after(words, "-machine"),
        *after(words, "-device"),
        *after(words, "-m"),
        *after(words, "-smp"),
        *after(words, "-global"),
    ]


class TestArguments:
    def test_a_restored_guest_finds_the_devices_of_the_cold_boot(self):
        cold = arguments(MACHINE, "tcg", OWN, COLD)
        assert guest_sees(cold) == guest_sees(arguments(MACHINE, "tcg", PRIVATE, None))

    def test_own_memory_is_shared_with_the_file(self):
        ram = after(arguments(MACHINE, "tcg", OWN, None), "-object")[0]
        assert "mem-path=/ram," in ram
        assert "share=on" in ram
        assert "size=1024M" in ram

    def test_anothers_memory_is_only_read(self):
        ram = after(arguments(MACHINE, "tcg", PRIVATE, None), "-object")[0]
        assert "share=off,readonly=on,rom=off" in ram

    def test_all_four_seccomp_filters_are_on(self):
        (sandbox,) = after(arguments(MACHINE, "kvm", OWN, None), "-sandbox")
        for part in ("obsolete", "elevateprivileges", "spawn", "resourcecontrol"):
            assert f"{part}=deny" in sandbox

    def test_only_a_cold_boot_reads_a_kernel(self):
        assert after(arguments(MACHINE, "tcg", OWN, COLD), "-kernel") == ["/kernel"]
        restored = arguments(MACHINE, "tcg", OWN, None)
        assert after(restored, "-incoming") == ["defer"]
        assert not after(restored, "-kernel")

    def test_virtual_cpus_never_run_before_they_are_told(self):
        assert "-S" in arguments(MACHINE, "tcg", OWN, COLD)
        assert "-S" in arguments(MACHINE, "tcg", PRIVATE, None)

    def test_the_base_cannot_be_written(self):
        base, overlay = after(arguments(MACHINE, "tcg", OWN, None), "-blockdev")
        assert "read-only=on" in base
        assert base.endswith("=/base")
        assert "read-only" not in overlay

    def test_no_path_of_the_host_and_no_secret_is_on_it(self):
        line = " ".join(arguments(MACHINE, "tcg", PRIVATE, COLD))
        for hidden in ("/home/", "/templates/", "a secret"):
            assert hidden not in line

    @pytest.mark.parametrize(("accelerator", "cpu"), [("tcg", "max"), ("kvm", "host")])
    def test_the_cpu_fits_the_accelerator(self, accelerator, cpu):
        words = arguments(MACHINE, accelerator, OWN, None)
        assert after(words, "-cpu") == [cpu]
        assert after(words, "-accel")[0].startswith(accelerator)

    def test_a_process_is_known_by_the_machines_name(self):
        assert name(MACHINE.id) in arguments(MACHINE, "tcg", OWN, None)


def test_the_network_lets_the_guests_own_mac_out():
    assert rules.GUEST_MAC == GUEST_MAC
