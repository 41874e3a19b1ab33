"""What people see: no wider than 80 columns, and nothing from a sandbox steers the terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from rich.console import Console, RenderableType

from runtools.cli import (
    egress_looks,
    figure_looks,
    sandbox_looks,
    template_looks,
    webhook_looks,
    why_looks,
)
from runtools.sdk import shapes
from runtools.sdk.shapes.egress import RefusalReason

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
EVIL = "\x1b[2Jevil"


def sandbox(**more: Any) -> shapes.Sandbox:
    return shapes.Sandbox.model_validate(
        {
            "id": "sandbox-4f0c9k2m1x7q",
            "name": "a-rather-long-name",
            "state": "stopped",
            "operation": None,
            "template": "base-debian",
            "template_version": 12,
            "project_id": None,
            "parent_id": "sandbox-4f0c9k2m1x70",
            "tags": {"[red]team": "a", "purpose": "x" * 100},
            "env_names": ["A", "B"],
            "vcpus": 2,
            "memory_mb": 1024,
            "disk_mb": 2048,
            "internet": False,
            "idle_timeout_seconds": 0,
            "max_lifetime_seconds": 3600,
            "isolation": "emulated",
            "host_id": "hst_1",
            "started_from": "cold",
            "timings": {"total_ms": 6100},
            "queue": None,
            "durable": True,
            "ending": {
                "cause": "vmm_exit",
                "reason": EVIL,
                "console_tail": [EVIL, "Kernel panic - " + "y" * 200],
                "memory_pressure": "some avg10=42",
                "recoverable_until": NOW,
            },
            "created_at": NOW,
            "started_at": NOW,
            "paused_at": NOW,
            "stopped_at": NOW,
        }
        | more
    )


def drawn(what: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=80, markup=False, highlight=False).print(what)
    return out.getvalue()


TEMPLATE = shapes.Template(
    id="bld_1",
    slug="base-ubuntu",
    version=3,
    recipe="base-ubuntu",
    state="failed",
    progress=0.4,
    step="packages",
    tested=False,
    is_default=True,
    size_bytes=1 << 30,
    error=EVIL + " no such package " * 9,
    created_at=NOW,
    finished_at=None,
)
STATS = shapes.Stats(
    cpu_percent=180.0,
    memory_used_bytes=1 << 29,
    memory_total_bytes=1 << 30,
    disk_used_bytes=0,
    disk_total_bytes=0,
    uptime_seconds=4000,
    processes=9,
    listening_ports=list(range(3000, 3040)),
    measured_at=NOW,
)
DISK = shapes.DiskUse(
    total_bytes=1 << 40,
    free_bytes=1 << 39,
    templates_bytes=1 << 31,
    warm_bytes=1 << 30,
    sandboxes_bytes=0,
    snapshots_bytes=5,
    ended_bytes=1 << 20,
)
SNAPSHOT = shapes.Snapshot(
    id="snp_mi00ah7uzoksxh3o9s0q",
    sandbox_id="sandbox-1",
    name="n" * 30,
    template="base-debian",
    template_version=1,
    size_bytes=1 << 30,
    standstill_ms=3,
    created_at=NOW,
)
ENTRY = shapes.LedgerEntry(
    seq=1,
    at=NOW,
    sandbox_id="sandbox-1",
    state="stopped",
    operation=None,
    cause="vmm_exit",
    actor="platform",
    detail={"ending": {"reason": EVIL}, "note": "[bold]z" * 30},
)


def point(minutes: float, **more: Any) -> shapes.StatsPoint:
    figures = {
        "at": NOW - timedelta(minutes=minutes),
        "seconds": 10.0,
        "cpu_percent": 100.0 - minutes,
        "memory_bytes": 900 << 20,
        "disk_bytes": 3 << 30,
        "received_bytes": 999 << 20,
        "sent_bytes": 0,
        "guest_memory_used_bytes": None,
        "guest_disk_used_bytes": None,
    }
    return shapes.StatsPoint.model_validate(figures | more)


HOOK = shapes.Webhook(
    id="whk_4f0c9k2m1x7q4f0c9k2m",
    url="https://a.example/" + "x" * 200,
    events=["sandbox.stopped"],
    description=EVIL,
    secret="whsec_" + "A" * 43 + "=",
    enabled=False,
    disabled_reason="9 attempts over a day failed; the last: " + EVIL,
    created_at=NOW,
)
DELIVERY = shapes.WebhookDelivery(
    id="dlv_4f0c9k2m1x7q4f0c9k2m",
    webhook_id=HOOK.id,
    event_id="evt_4f0c9k2m1x7q4f0c9k2m",
    type="sandbox.rolled_back",
    sandbox_id="sandbox-4f0c9k2m1x7q",
    state="pending",
    attempts=2,
    status=None,
    error=EVIL,
    created_at=NOW,
    next_attempt_at=NOW,
    finished_at=None,
)
REASONS = get_args(RefusalReason)
POLICY = shapes.Egress(
    internet=False, allow=["*"], deny=["x" * 60 + ".example.org", "192.0.2.0/24"] * 3
)


def refusal(reason: str, **more: Any) -> shapes.EgressRefusal:
    facts = {
        "reason": reason,
        "protocol": "tcp",
        "name": EVIL + ".long" * 20,
        "address": "192.0.2.200",
        "port": 65535,
        "count": 1 << 31,
        "hint": f"do something about {reason} " * 5,
        "first_at": NOW,
        "last_at": NOW,
    }
    return shapes.EgressRefusal.model_validate(facts | more)


REFUSED = shapes.EgressLog(
    refusals=[
        *map(refusal, REASONS),
        refusal("too_many", protocol="other", name=None, address=None, port=None),
    ],
    forgotten=3,
)
HOUR = shapes.StatsHistory(
    interval_seconds=10,
    since=NOW - timedelta(hours=1),
    until=NOW,
    points=[point(50, cpu_percent=None), point(30), point(0)],
    gaps=[
        shapes.StatsGap(
            since=NOW - timedelta(minutes=29),
            until=NOW - timedelta(minutes=1),
            reason="not_watched",
        )
    ],
)


def test_an_hour_shows_bars_where_there_are_figures_and_dots_elsewhere() -> None:
    shown = drawn(figure_looks.stats_history(HOUR))
    cpu = next(line for line in shown.splitlines() if line.startswith("cpu"))
    assert cpu.split()[1] == "·" * 14 + "▆" + "·" * 14 + "█"
    assert "now 100 %, at most 100 %" in cpu
    assert "not known" in shown
    assert "not watched" in shown


@pytest.mark.parametrize(
    "what",
    [
        sandbox_looks.sandboxes(
            [sandbox(), sandbox(name=None, state="running", operation="rolling_back")]
        ),
        sandbox_looks.sandbox(sandbox()),
        sandbox_looks.sandbox(sandbox(state="paused", ending=None)),
        sandbox_looks.sandbox(
            sandbox(
                state="creating", queue={"position": 3, "estimated_wait_seconds": 20}, timings=None
            )
        ),
        sandbox_looks.sandbox(
            sandbox(
                state="creating",
                queue={"position": 3, "estimated_wait_seconds": None},
                timings=None,
            )
        ),
        sandbox_looks.snapshots([SNAPSHOT]),
        figure_looks.stats(STATS),
        figure_looks.stats_history(HOUR),
        webhook_looks.webhooks([HOOK]),
        webhook_looks.webhook(HOOK),
        webhook_looks.deliveries([DELIVERY]),
        figure_looks.stats_history(HOUR.model_copy(update={"points": []})),
        egress_looks.egress(POLICY),
        egress_looks.egress(POLICY, REFUSED),
        egress_looks.egress(None, REFUSED),
        egress_looks.egress(None, shapes.EgressLog(refusals=[], forgotten=0)),
        figure_looks.disk(DISK),
        template_looks.templates([TEMPLATE]),
        template_looks.template([TEMPLATE]),
        why_looks.why(sandbox(), [ENTRY]),
    ],
)
def test_all_looks_fit_and_are_harmless(what: RenderableType) -> None:
    shown = drawn(what)
    assert shown.strip()
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown


def test_a_name_longer_than_a_line_hides_neither_how_often_nor_why() -> None:
    one = refusal("not_allowed", name="b" * 63 + ".long" * 20, count=12)
    head, row, *_ = drawn(
        egress_looks.egress(None, shapes.EgressLog(refusals=[one], forgotten=0))
    ).split("\n")
    assert head.split() == ["LAST", "TIMES", "TO", "WHAT"]
    assert row.split()[2] == "12"
    assert "tcp, not" in row


@pytest.mark.parametrize("reason", REASONS)
def test_every_refusal_is_told_in_words(reason: str) -> None:
    """Where it went, how often and why: no reason without words of its own."""
    one = refusal(reason, name="b.org", address="192.0.2.7", port=443, count=12, hint=None)
    shown = " ".join(
        drawn(egress_looks.egress(None, shapes.EgressLog(refusals=[one], forgotten=0))).split()
    )
    assert "b.org" in shown
    assert "192.0.2.7:443" in shown
    assert " 12 " in shown
    assert reason not in shown
    assert "tcp, " in shown


def test_empty_lists_say_what_to_do() -> None:
    assert "sandbox create" in drawn(sandbox_looks.sandboxes([]))
    assert "template build" in drawn(template_looks.templates([]))
    assert "no snapshots" in drawn(sandbox_looks.snapshots([]))


def test_markup_in_names_is_shown_as_it_is() -> None:
    assert "[red]team=a" in drawn(sandbox_looks.sandbox(sandbox()))


def test_why_ends_with_what_is_left_to_do() -> None:
    shown = drawn(why_looks.why(sandbox(), [ENTRY]))
    assert "runtools sandbox recover a-rather-long-name" in " ".join(shown.split())
    assert "Kernel panic" in shown
