"""Webhooks against a real receiver that takes, fails, hangs or redirects: in order, at least once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import insert, select, text

from runtools.errors import Unavailable
from runtools.platform.api.hosts import follow
from runtools.platform.api.sandboxes import settle
from runtools.platform.api.schema import metadata
from runtools.platform.api.webhooks import sender, store
from runtools.platform.api.webhooks.sender import Sender
from runtools.platform.api.webhooks.tables import Delivery
from runtools.platform.api.webhooks.tables import deliveries as outbox
from runtools.platform.api.webhooks.tables import webhooks as hooks
from runtools.platform.boot.keyring import rekey
from runtools.platform.core.ids import new_id
from runtools.platform.kit.db import Database, Transaction
from runtools.testing import api_world, postgres
from runtools.testing.api_world import PATIENCE_SECONDS, World, holds
from runtools.webhooks import WebhookEvent, verify

OWN = "127.0.0.0/8"


class Receiver:
    """An HTTP server that does what ``script`` says of each event; `got` has what it accepted."""

    def __init__(self) -> None:
        self.secret = ""
        self.asked: list[WebhookEvent] = []
        self.got: list[WebhookEvent] = []
        self.script: Callable[[WebhookEvent], int] = lambda _: 200
        self.hang = asyncio.Event()
        self.hang.set()
        self.url = ""
        self.open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = await reader.readexactly(int(headers["Content-Length"]))
            event = verify(self.secret, headers, body)
            self.asked.append(event)
            await self.hang.wait()
            status = self.script(event)
            if status < 300:
                self.got.append(event)
            extra = "Location: http://127.0.0.1:1/\r\n" if 300 <= status < 400 else ""
            writer.write(f"HTTP/1.1 {status} X\r\n{extra}Content-Length: 0\r\n\r\n".encode())
            await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self.open.discard(writer)

    def types(self, sandbox: str | None = None) -> list[str]:
        return [
            event.type
            for event in self.got
            if sandbox is None or event.data.get("sandbox", {}).get("id") == sandbox
        ]


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?token=quiet"
    yield made
    made.hang.set()
    server.close()
    # Else a connection that is open still would be a warning in whichever test comes next.
    await holds(lambda: not made.open)


@pytest_asyncio.fixture
async def world(any_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with api_world.world(Database(any_url), tmp_path, outbound_allow=OWN) as made:
        yield made


@pytest_asyncio.fixture
async def hook(world: World, receiver: Receiver) -> dict[str, Any]:
    answer = await world.http.post("/v1/webhooks", json={"url": receiver.url})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()["data"]
    receiver.secret = made["secret"]
    return made


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of hundredths of a second."""
    monkeypatch.setattr(sender, "PAUSES_SECONDS", (0.01,) * 3)


async def deliveries(world: World, hook: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await world.http.get(f"/v1/webhooks/{hook['id']}/deliveries?limit=100")
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def shown(world: World, hook: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await world.http.get(f"/v1/webhooks/{hook['id']}")).json()["data"]
    return found


LIFE = [
    "sandbox.created",
    "sandbox.started",
    "sandbox.paused",
    "sandbox.resumed",
    "sandbox.stopped",
]


async def live(world: World) -> str:
    """A whole life."""
    box: str = (await world.create())["id"]
    for act, state in (("pause", "paused"), ("resume", "running")):
        answer = await world.http.post(f"/v1/sandboxes/{box}/{act}")
        assert answer.json()["data"]["state"] == state, answer.text
    answer = await world.http.delete(f"/v1/sandboxes/{box}")
    assert answer.json()["data"]["state"] == "stopped", answer.text
    return box


async def _somebody_waits(db: Database) -> bool:
    found = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    return bool(await db.read(lambda conn: conn.scalar(found)))


class TestDelivery:
    async def test_a_life_is_told_signed_and_in_order(
        self, world: World, receiver: Receiver, hook: dict[str, Any]
    ) -> None:
        boxes = await asyncio.gather(*(live(world) for _ in range(3)))
        await holds(lambda: len(receiver.got) >= 15)
        for box in boxes:
            assert receiver.types(box) == LIFE
        assert len({event.id for event in receiver.got}) == 15
        ended = receiver.got[-1].data
        assert ended["sandbox"]["state"] == "stopped"
        assert ended["actor"].startswith("key_")
        await holds(lambda: _all_delivered(world, hook))

    async def test_all_is_told_when_reports_are_read_long_after_the_answers(
        self,
        world: World,
        receiver: Receiver,
        hook: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The caller sees what the host answered; what it means to others comes in order."""
        box = (await world.create())["id"]
        await world.heard()
        read, gate = follow.take_in, asyncio.Event()

        async def lagging(*said: Any) -> None:
            await gate.wait()
            await read(*said)

        monkeypatch.setattr(settle, "LAG_SECONDS", 0.01)
        monkeypatch.setattr(follow, "take_in", lagging)
        url = f"/v1/sandboxes/{box}"
        keep = await world.http.post(f"{url}/snapshots", json={"name": "s"})
        assert keep.status_code == 201
        for act, body, state in (
            ("pause", {}, "paused"),
            ("resume", {}, "running"),
            ("rollback", {"to": "s"}, "running"),
        ):
            answer = await world.http.post(f"{url}/{act}", json=body)
            assert (answer.status_code, answer.json()["data"]["state"]) == (200, state)
        answer = await world.http.delete(url)
        assert answer.json()["data"]["state"] == "stopped"
        assert (await world.get(box))["state"] == "running", "nobody has read of it yet"
        gate.set()
        await holds(lambda: len(receiver.types(box)) == 7)
        acts = ["snapshotted", "paused", "resumed", "rolled_back", "stopped"]
        assert receiver.types(box) == LIFE[:2] + [f"sandbox.{act}" for act in acts]
        assert [line for line in await world.why(box) if line["state"] == "stopped"] != []

    @pytest.mark.usefixtures("soon")
    async def test_who_fails_is_asked_again_and_later_events_wait(
        self, world: World, receiver: Receiver, hook: dict[str, Any]
    ) -> None:
        answers = [500, 302, 429]
        receiver.script = lambda _: answers.pop() if answers else 200
        box = await live(world)
        await holds(lambda: len(receiver.got) == 5)
        assert receiver.types(box) == LIFE
        assert len({event.id for event in receiver.asked[:4]}) == 1  # the same id each time
        await holds(lambda: _all_delivered(world, hook))
        first = (await deliveries(world, hook))[-1]
        assert first["attempts"] == 4

    async def test_one_that_hangs_is_given_up_and_holds_nobody_up(
        self,
        world: World,
        receiver: Receiver,
        hook: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(sender, "ATTEMPT_SECONDS", 0.2)
        receiver.hang.clear()
        await live(world)  # the api is as quick as ever
        await holds(lambda: _errors(world, hook, "no answer within 0.2 s"))
        assert (await shown(world, hook))["enabled"]

    @pytest.mark.usefixtures("soon")
    async def test_persistent_failure_disables_with_a_reason(
        self, world: World, receiver: Receiver, hook: dict[str, Any]
    ) -> None:
        receiver.script = lambda _: 302
        await live(world)
        await holds(lambda: _disabled(world, hook))
        reason = (await shown(world, hook))["disabledReason"]
        assert "4 attempts" in reason
        assert "redirects are not followed" in reason
        assert {one["state"] for one in await deliveries(world, hook)} == {"failed"}
        count = len(await deliveries(world, hook))
        await live(world)
        assert len(await deliveries(world, hook)) == count  # nothing is kept for it
        receiver.script = lambda _: 200
        await world.http.post(f"/v1/webhooks/{hook['id']}/enable")
        box = await live(world)
        await holds(lambda: receiver.types(box) == LIFE)

    async def test_nothing_waits_for_one_that_is_disabled_meanwhile(
        self, world: World, hook: dict[str, Any]
    ) -> None:
        written, go_on = threading.Event(), threading.Event()
        event = store.Event(
            org_id=world.org,
            sandbox_id="sandbox-000000000000",
            type="sandbox.created",
            ledger_id=1,
            at=world.platform.clock.now(),
            cause="request",
            actor="nobody",
            look="{}",
        )

        def announce(conn: Transaction) -> None:
            store.announce(conn, event)
            written.set()
            assert go_on.wait(20)

        telling = asyncio.create_task(world.platform.db.write(announce))
        await asyncio.to_thread(written.wait, 20)
        disable = world.platform.db.write(
            store.disable, hook["id"], "for a test", world.platform.clock.now()
        )
        disabling = asyncio.ensure_future(disable)
        await asyncio.wait({disabling}, timeout=0.3)  # it must not be over before the other is
        go_on.set()
        await asyncio.gather(telling, disabling)
        assert {one["state"] for one in await deliveries(world, hook)} == {"failed"}

    async def test_one_that_is_deleted_while_it_is_told(
        self, world: World, hook: dict[str, Any]
    ) -> None:
        db = world.platform.db
        written, go_on = threading.Event(), threading.Event()
        news = store.News(world.org, "run.completed", world.platform.clock.now(), "{}")

        def tell(conn: Transaction) -> None:
            store.tell(conn, news)
            written.set()
            assert go_on.wait(PATIENCE_SECONDS)

        telling = asyncio.create_task(db.write(tell))
        await asyncio.to_thread(written.wait, PATIENCE_SECONDS)
        path = f"/v1/webhooks/{hook['id']}"
        deleting = asyncio.create_task(world.http.delete(path))
        if not db.sqlite:  # there one transaction waits for the other anyway
            await holds(lambda: _somebody_waits(db))
        go_on.set()
        await telling
        assert (await deleting).status_code == 200
        assert (await world.http.get(path)).status_code == 404

    # On SQLite one transaction waits for the other anyway.
    @pytest.mark.parametrize("any_url", postgres.ENGINES[1:], indirect=True)
    async def test_one_that_is_deleted_while_its_last_attempt_is_noted(
        self,
        world: World,
        receiver: Receiver,
        hook: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Neither waits for what the other has: the webhook comes before its deliveries."""
        db, report = world.platform.db, store.report
        noted, go_on = threading.Event(), threading.Event()

        def slowly(*given: Any, **more: Any) -> bool:
            mine = report(*given, **more)
            noted.set()
            assert go_on.wait(PATIENCE_SECONDS)
            return mine

        monkeypatch.setattr(store, "report", slowly)
        receiver.script = lambda _: 410
        await world.create()
        assert await asyncio.to_thread(noted.wait, PATIENCE_SECONDS)
        deleting = asyncio.create_task(world.http.delete(f"/v1/webhooks/{hook['id']}"))
        await holds(lambda: _somebody_waits(db))
        go_on.set()
        answer = await deleting
        assert answer.status_code == 200, answer.text
        assert (await world.http.get(f"/v1/webhooks/{hook['id']}")).status_code == 404
        assert "deadlock" not in caplog.text

    async def test_nothing_is_sent_to_one_that_is_deleted_meanwhile(
        self, world: World, hook: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put_once = store.put_once

        def deleted(conn: Transaction, delivery: Delivery) -> Any:
            store.remove(conn, world.org, hook["id"])
            return put_once(conn, delivery)

        monkeypatch.setattr(store, "put_once", deleted)
        answer = await world.http.post(f"/v1/webhooks/{hook['id']}/test")
        assert answer.status_code == 404, answer.text

    async def test_one_that_is_gone_is_disabled_at_once(
        self, world: World, receiver: Receiver, hook: dict[str, Any]
    ) -> None:
        receiver.script = lambda _: 410
        await world.create()
        await holds(lambda: _disabled(world, hook))
        assert "410" in (await shown(world, hook))["disabledReason"]

    async def test_two_attempts_that_give_it_up_at_once_do_not_wait_for_each_other(
        self, world: World, hook: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        db, now = world.platform.db, world.platform.clock.now()
        mine = await db.read(store.find, world.org, hook["id"])
        assert mine is not None
        rows = [
            replace(waiting(mine.id, n, now), lease="lse_test", leased_until=now + sender.LEASE)
            for n in range(2)
        ]
        await db.write(lambda conn: conn.execute(insert(outbox), [asdict(row) for row in rows]))
        report, both = store.report, threading.Barrier(2)

        def together(*said: Any, **more: Any) -> bool:
            done = report(*said, **more)
            with contextlib.suppress(
                threading.BrokenBarrierError
            ):  # as it should: one after the other
                both.wait(0.3)
            return done

        monkeypatch.setattr(store, "report", together)
        gone = sender.Outcome(410, "answered 410")
        await asyncio.gather(
            *(sender.settle(world.platform, mine, row, "lse_test", gone, 1) for row in rows)
        )
        assert {one["state"] for one in await deliveries(world, hook)} == {"failed"}
        assert await _disabled(world, hook)

    async def test_only_the_events_that_it_wants(self, world: World, receiver: Receiver) -> None:
        body = {"url": receiver.url, "events": ["sandbox.stopped"]}
        made = (await world.http.post("/v1/webhooks", json=body)).json()["data"]
        receiver.secret = made["secret"]
        await live(world)
        await holds(lambda: receiver.got)
        assert [one["type"] for one in await deliveries(world, made)] == ["sandbox.stopped"]


class TestFairness:
    async def test_receivers_whose_first_event_waits_hold_nobody_up(
        self, world: World, receiver: Receiver, hook: dict[str, Any]
    ) -> None:
        """More of them than are looked at in one round, each with a second event behind the first."""
        now = world.platform.clock.now()
        mine = await world.platform.db.read(store.find, world.org, hook["id"])
        assert mine is not None

        def fill(conn: Transaction) -> None:
            for _ in range(sender._AT_ONCE + 1):
                held_up = replace(mine, id=new_id("whk"), op=new_id("opn"))
                store.add(conn, held_up, most=1000)
                head = replace(waiting(held_up.id, 0, now), attempts=6)
                rows = [replace(head, next_at=now + timedelta(hours=2))]
                rows.append(replace(waiting(held_up.id, 0, now), ledger_id=2))
                conn.execute(insert(outbox), [asdict(row) for row in rows])

        await world.platform.db.write(fill)
        box = await live(world)
        await holds(lambda: receiver.types(box) == LIFE)

    async def test_receivers_that_hang_take_the_room_of_nobody(
        self,
        world: World,
        receiver: Receiver,
        hook: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """As many as two orgs may have, the receiver's own one of them."""
        monkeypatch.setattr(sender, "ATTEMPT_SECONDS", 1.0)
        deaf = socket.create_server(("127.0.0.1", 0), backlog=1000)  # accepts nothing
        body = {"url": f"http://127.0.0.1:{deaf.getsockname()[1]}/"}
        with deaf:
            await self._beside_deaf_ones(world, receiver, hook, body)

    async def _beside_deaf_ones(
        self, world: World, receiver: Receiver, hook: dict[str, Any], body: dict[str, str]
    ) -> None:
        async with await world.stranger() as theirs:
            for http, count in ((world.http, 19), (theirs, 20)):
                for _ in range(count):
                    assert (await http.post("/v1/webhooks", json=body)).status_code == 201
            now = world.platform.clock.now()

            def fill(conn: Transaction) -> None:
                hung = hooks.c.id != hook["id"]
                ids = [row.id for row in conn.execute(select(hooks.c.id).where(hung))]
                rows = [waiting(one, n, now) for one in ids for n in range(20)]
                conn.execute(insert(outbox), [asdict(row) for row in rows])

            await world.platform.db.write(fill)
            box = await live(world)
            await holds(lambda: receiver.types(box) == LIFE)

    async def test_orgs_take_turns(self, world: World, hook: dict[str, Any]) -> None:
        now = world.platform.clock.now() + timedelta(hours=1)
        async with await world.stranger() as theirs:
            body = {"url": "http://127.0.0.1:1/"}
            other = (await theirs.post("/v1/webhooks", json=body)).json()["data"]["id"]
        mine = await world.platform.db.read(store.find, world.org, hook["id"])
        assert mine is not None
        more = [replace(mine, id=new_id("whk"), op=new_id("opn")) for _ in range(3)]

        def found(conn: Transaction) -> list[list[str]]:
            for one in more:
                store.add(conn, one, most=1000)
            ids = [*(one.id for one in more), other]
            rows = [asdict(waiting(one, n, now - timedelta(0, 9 - n))) for n, one in enumerate(ids)]
            conn.execute(insert(outbox), rows)
            some = [store.due(conn, now, 3), store.due(conn, now, 9, [world.org])]
            some.append(store.due(conn, now, 9, [more[0].id]))
            conn.rollback()  # the sender is to have none of it
            return [[one.webhook_id for one in few] for few in some]

        turns, theirs_alone, without_one = await world.platform.db.write(found)
        assert turns == [more[0].id, other, more[1].id]
        assert theirs_alone == [other]
        assert without_one == [more[1].id, other, more[2].id]


def waiting(webhook_id: str, sandbox: int, since: datetime) -> Delivery:
    """An event that has waited since then."""
    return Delivery(
        id=new_id("dlv"),
        webhook_id=webhook_id,
        event_id=new_id("evt"),
        type="sandbox.paused",
        body="{}",
        created_at=since,
        sandbox_id=f"sandbox-{sandbox:012}",
        ledger_id=1,
        next_at=since,
    )


class TestSeveralProcesses:
    async def test_two_senders_send_each_event_once(
        self, world: World, receiver: Receiver, hook: dict[str, Any]
    ) -> None:
        others = [Sender(world.platform) for _ in range(3)]
        boxes = [asyncio.create_task(live(world)) for _ in range(4)]
        while not all(box.done() for box in boxes) or len(receiver.got) < 20:
            await asyncio.gather(*(one.round() for one in others))
            await asyncio.sleep(0.01)
        assert len({event.id for event in receiver.asked}) == len(receiver.asked) == 20
        for box in boxes:
            assert receiver.types(await box) == LIFE

    async def test_a_crash_between_sending_and_noting_sends_again_under_the_same_id(
        self,
        world: World,
        receiver: Receiver,
        hook: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        real, died = sender.settle, []

        async def dying(*args: Any) -> None:
            if not died:
                died.append(args)
                raise asyncio.CancelledError
            await real(*args)

        monkeypatch.setattr(sender, "settle", dying)
        monkeypatch.setattr(sender, "LEASE", sender.LEASE / 120)
        box = (await world.create())["id"]
        await holds(lambda: len(receiver.asked) >= 3)
        first, again = receiver.asked[:2]
        assert first.id == again.id
        assert receiver.types(box)[1:] == LIFE[:2]
        await holds(lambda: _all_delivered(world, hook))


class TestRoutes:
    async def test_the_secret_is_shown_once(
        self, world: World, receiver: Receiver, hook: dict[str, Any]
    ) -> None:
        assert hook["secret"].startswith("whsec_")
        assert (await shown(world, hook))["secret"] is None
        assert hook["secret"] not in (await world.http.get("/v1/webhooks")).text
        key = {"Idempotency-Key": "once"}
        body = {"url": receiver.url}
        first = await world.http.post("/v1/webhooks", json=body, headers=key)
        again = await world.http.post("/v1/webhooks", json=body, headers=key)
        assert first.json()["data"]["id"] == again.json()["data"]["id"]
        assert again.json()["data"]["secret"] is None

    async def test_the_secret_lies_nowhere_in_the_clear_and_outlives_another_master_key(
        self,
        world: World,
        receiver: Receiver,
        hook: dict[str, Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        platform = world.platform
        tables = await platform.db.read(
            lambda conn: [
                str(conn.execute(table.select()).all()) for table in metadata.sorted_tables
            ]
        )
        assert hook["id"] in str(tables)
        assert hook["secret"] not in str(tables)
        assert await rekey(platform.settings, platform.db, platform.clock) == 0
        sent = await world.http.post(f"/v1/webhooks/{hook['id']}/test")
        assert sent.json()["data"]["state"] == "delivered"  # the receiver has verified it
        assert hook["secret"] not in caplog.text

    async def test_a_secret_that_was_changed_in_the_database_signs_nothing(
        self, world: World, receiver: Receiver, hook: dict[str, Any]
    ) -> None:
        spoilt = hooks.update().values(sealed="AA==:AA==:AA==")
        await world.platform.db.write(lambda conn: conn.execute(spoilt))
        sent = (await world.http.post(f"/v1/webhooks/{hook['id']}/test")).json()["data"]
        assert sent["state"] == "failed"
        assert "does not open with the master key" in sent["error"]
        assert receiver.asked == []

    async def test_a_test_is_sent_and_told(
        self, world: World, receiver: Receiver, hook: dict[str, Any]
    ) -> None:
        path = f"/v1/webhooks/{hook['id']}/test"
        sent = (await world.http.post(path)).json()["data"]
        assert (sent["state"], sent["status"], sent["type"]) == ("delivered", 200, "webhook.test")
        receiver.script = lambda _: 503
        sent = (await world.http.post(path)).json()["data"]
        assert (sent["state"], sent["error"]) == ("failed", "answered 503")
        assert (await shown(world, hook))["enabled"]

    async def test_a_delivery_can_be_sent_again(
        self, world: World, receiver: Receiver, hook: dict[str, Any]
    ) -> None:
        await world.create()
        await holds(lambda: _all_delivered(world, hook))
        old = (await deliveries(world, hook))[-1]
        path = f"/v1/webhooks/{hook['id']}/deliveries/{old['id']}/redeliver"
        key = {"Idempotency-Key": "again"}
        first = (await world.http.post(path, headers=key)).json()["data"]
        assert (await world.http.post(path, headers=key)).json()["data"] == first
        await holds(lambda: len(receiver.got) == 3)
        assert receiver.got[-1].id == receiver.got[0].id == first["eventId"]
        missing = await world.http.post(path.replace(old["id"], "dlv_none"))
        assert missing.status_code == 404

    async def test_deleting_ends_it(
        self, world: World, receiver: Receiver, hook: dict[str, Any]
    ) -> None:
        await live(world)
        assert (await world.http.delete(f"/v1/webhooks/{hook['id']}")).status_code == 200
        assert (await world.http.get(f"/v1/webhooks/{hook['id']}")).status_code == 404
        await live(world)

    async def test_other_orgs_see_nothing(self, world: World, hook: dict[str, Any]) -> None:
        async with await world.stranger() as theirs:
            assert (await theirs.get("/v1/webhooks")).json()["data"] == []
            path = f"/v1/webhooks/{hook['id']}"
            asked: list[httpx.Response] = [
                await theirs.get(path),
                await theirs.delete(path),
                await theirs.get(f"{path}/deliveries"),
                *[await theirs.post(f"{path}/{act}") for act in ("test", "enable")],
                await theirs.post(f"{path}/deliveries/dlv_x/redeliver"),
            ]
            assert {answer.status_code for answer in asked} == {404}

    @pytest.mark.parametrize(
        "url",
        [
            "http://10.0.0.1/", "https://169.254.169.254/latest", "https://[::1]/", "file:///etc",
            "https://u:p@127.0.0.1/", "https://no-such-name.invalid/", "", "x" * 3000,
            "https://a..b/", "https://.com/", f"https://{'a' * 64}.com/", "https://[::1%25eth0]/",
        ],
    )  # fmt: skip
    async def test_bad_urls_are_refused(self, world: World, url: str) -> None:
        answer = await world.http.post("/v1/webhooks", json={"url": url})
        assert answer.status_code == 400
        assert answer.json()["error"]["details"]["fields"][0]["field"] == "url"

    async def test_there_may_be_so_many(self, world: World, receiver: Receiver) -> None:
        body = {"url": receiver.url}
        answers = await asyncio.gather(
            *(world.http.post("/v1/webhooks", json=body) for _ in range(24))
        )
        assert sorted(answer.status_code for answer in answers) == [201] * 20 + [409] * 4
        assert len((await world.http.get("/v1/webhooks")).json()["data"]) == 20

    async def test_one_that_another_process_makes_at_the_same_moment(
        self, world: World, hook: dict[str, Any]
    ) -> None:
        db = world.platform.db
        [made] = await db.read(store.all_of, world.org)
        assert made.id == hook["id"]
        with pytest.raises(Unavailable, match="under way"):
            await db.write(store.add, replace(made, id=new_id("whk")), 20)

    async def test_unknown_events_are_refused(self, world: World, receiver: Receiver) -> None:
        body = {"url": receiver.url, "events": ["sandbox.exploded"]}
        assert (await world.http.post("/v1/webhooks", json=body)).status_code == 400


async def test_a_restart_sends_what_was_left(
    any_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    """The outbox is written with the event: whoever comes next finds it."""
    async with api_world.world(Database(any_url), tmp_path, outbound_allow=OWN) as first:
        made = (await first.http.post("/v1/webhooks", json={"url": receiver.url})).json()["data"]
        receiver.secret, key, host = made["secret"], first.key, first.host
        receiver.script = lambda _: 500
        await first.create()
        await holds(lambda: receiver.asked)
    receiver.script = lambda _: 200
    db, clock = Database(any_url), first.platform.clock
    settings = first.platform.settings
    async with (
        api_world.serving(db, {api_world.HOST_ID: host}, clock, settings) as (url, _),
        api_world.client(url, key) as http,
    ):
        path = f"/v1/webhooks/{made['id']}/deliveries"
        waiting = (await http.get(path)).json()["data"]
        assert [one["state"] for one in waiting] == ["pending", "pending"]
        await holds(lambda: len(receiver.got) == 2, 90)
        assert receiver.types() == LIFE[:2]


async def _all_delivered(world: World, hook: dict[str, Any]) -> bool:
    return all(one["state"] == "delivered" for one in await deliveries(world, hook))


async def _errors(world: World, hook: dict[str, Any], error: str) -> bool:
    return any(one["error"] == error for one in await deliveries(world, hook))


async def _disabled(world: World, hook: dict[str, Any]) -> bool:
    return not (await shown(world, hook))["enabled"]
