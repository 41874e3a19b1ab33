"""What is said of an end, and of a start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runtools.platform.core.ports.driver import Exit
from runtools.platform.host.engine import pressure
from runtools.platform.host.engine.phases import Phases
from runtools.platform.host.engine.words import how_it_ended, tail
from runtools.platform.kit.tracing import OFF
from runtools.sdk.shapes.inside import Stats
from runtools.testing.clock import ManualClock


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (Exit(0, None), "powered off or restarted from inside"),
        (Exit(1, None, (), ("out of ideas",)), "ended with code 1: out of ideas"),
        (Exit(None, 9), "SIGKILL (somebody on the host, or the kernel when memory ran out)"),
        (Exit(None, 7), "SIGBUS (the host's disk was full)"),
        (Exit(None, 250), "ended by signal 250"),
        (Exit(None, None), "nobody saw how it ended"),
        (Exit(None, None, stuck="QEMU says x"), "could not go on and was ended: QEMU says x"),
        (Exit(None, 9, out_of_memory="it took all"), "ran out of memory: it took all"),
    ],
)
def test_an_end_is_told_in_words(end, said):
    assert said in how_it_ended(end)


def test_a_console_is_bounded_both_ways():
    kept = tail(["x" * 10_000] * 1000)
    assert (len(kept), len(kept[0])) == (20, 400)


def test_memory_pressure_names_the_guest_and_its_age():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    stats = Stats(
        cpu_percent=0,
        memory_used_bytes=980 << 20,
        memory_total_bytes=1024 << 20,
        disk_used_bytes=0,
        disk_total_bytes=0,
        uptime_seconds=0,
        processes=1,
        listening_ports=[],
        measured_at=now - timedelta(seconds=12),
    )
    assert "the guest used 980 of 1024 MB 12 s before" in pressure.words(None, stats, now)


def test_phases_add_up():
    clock = ManualClock()
    phases = Phases(clock, OFF)
    clock.advance(0.010)
    phases.mark("queue")
    clock.advance(0.020)
    phases.connected()
    clock.advance(0.030)
    phases.connected()  # a second connection ends nothing
    phases.mark("first_byte")
    clock.advance(0.040)
    told = phases.timings()
    assert (told.queue_ms, told.agent_ms, told.first_byte_ms, told.total_ms) == (10, 20, 30, 100)
