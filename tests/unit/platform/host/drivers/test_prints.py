"""What a saved state depends on: each thing that changes is told by its own name, and it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from runtools.errors import SnapshotUnfit
from runtools.platform.core.ports.driver import Machine
from runtools.platform.host.drivers.qemu import prints
from runtools.platform.host.drivers.qemu.captures import check_same
from runtools.platform.host.drivers.qemu.prints import fingerprint
from runtools.platform.host.drivers.qemu.probe import Choice

Both = tuple[Machine, Choice]
CHOICE = Choice("kvm", "a tiny guest runs in it", "10.0.2", "EPYC 1a2b3c4d")
KERNEL = bytes(range(256)) * 4096


@pytest.fixture
def whole(machine: Machine) -> Machine:
    """A machine whose template is there."""
    machine.kernel.write_bytes(KERNEL)
    machine.base.write_bytes(b"base")
    return machine


def another_kernel(machine: Machine, choice: Choice) -> Both:
    """As long, and other bytes all over, as after an update."""
    machine.kernel.write_bytes(KERNEL[::-1])
    return machine, choice


def longer_kernel(machine: Machine, choice: Choice) -> Both:
    machine.kernel.write_bytes(KERNEL + KERNEL)
    return machine, choice


def another_base(machine: Machine, choice: Choice) -> Both:
    machine.base.write_bytes(b"larger base")
    return machine, choice


CHANGES: list[tuple[str, Callable[[Machine, Choice], Both]]] = [
    ("vmm", lambda machine, choice: (machine, replace(choice, vmm="10.0.3"))),
    ("accelerator", lambda machine, choice: (machine, replace(choice, accelerator="tcg"))),
    ("cpu", lambda machine, choice: (machine, replace(choice, host_cpu="Xeon 1a2b3c4d"))),
    ("kernel", another_kernel),
    ("kernel", longer_kernel),
    ("base", another_base),
    ("vcpus", lambda machine, choice: (replace(machine, vcpus=2), choice)),
    ("memoryMb", lambda machine, choice: (replace(machine, memory_mb=1024), choice)),
]


def test_what_has_not_changed_fits(whole: Machine) -> None:
    saved = fingerprint(whole, CHOICE)
    whole.kernel.write_bytes(KERNEL)  # built anew, the same
    other_place = replace(whole, id="n", overlay=whole.folder / "elsewhere", boot_token="u")
    check_same("it", saved, fingerprint(other_place, replace(CHOICE, reason="another")))


@pytest.mark.parametrize(("key", "change"), CHANGES)
def test_what_changed_is_named_and_nothing_else(
    whole: Machine, key: str, change: Callable[[Machine, Choice], Both]
) -> None:
    saved = fingerprint(whole, CHOICE)
    now = fingerprint(*change(whole, CHOICE))
    with pytest.raises(
        SnapshotUnfit, match=f"the saved state does not fit any more: {key} changed"
    ) as told:
        check_same("the saved state", saved, now)
    assert told.value.details == {"differs": {key: {"saved": saved[key], "now": now[key]}}}


def test_another_layout_of_devices_is_named(
    whole: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = fingerprint(whole, CHOICE)
    monkeypatch.setattr(prints, "LAYOUT", "another")
    with pytest.raises(SnapshotUnfit, match=": machine changed"):
        check_same("it", saved, fingerprint(whole, CHOICE))


def test_nothing_that_is_told_is_left_unchanged_here(whole: Machine) -> None:
    changed = {key for key, _ in CHANGES} | {"machine"}
    assert fingerprint(whole, CHOICE).keys() == changed
