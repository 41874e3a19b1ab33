from __future__ import annotations

import asyncio
import contextlib
import stat
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from runtools.errors import Conflict, InvalidRequest, Unavailable, WrongMasterKey
from runtools.platform.api import schema
from runtools.platform.api.keys.first import ensure_first
from runtools.platform.api.secrets import store
from runtools.platform.api.vault import rules, service
from runtools.platform.api.vault import store as vault_store
from runtools.platform.api.vault.vault import Vault
from runtools.platform.boot.keyring import Keyring, open_vault, rekey
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database
from runtools.platform.kit.sealing import MasterKey
from runtools.testing import postgres

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def cluster():
    """A server."""
    with postgres.cluster() as server:
        yield server


@pytest.fixture(params=postgres.ENGINES)
async def db(request, tmp_path):
    """A database with the schema in it."""
    (tmp_path / "api").mkdir()
    url = f"sqlite:///{tmp_path}/api/x.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("cluster")
        url = server.url(server.create())
    made = Database(url)
    await schema.upgrade(made)
    yield made
    await made.close()


async def keep(db, vault, name, value):
    """A secret of the first org."""
    org_id, _ = await ensure_first(db, CLOCK)
    now = CLOCK.now()
    secret = store.Secret(f"sec_{name}", org_id, name, "custom", "all", None, 1, now, now)

    def write(conn):
        sealed = vault.seal(conn, value, store.LABEL, org_id, name)
        store.add(conn, secret, sealed)

    await db.write(write)


async def kept(db, vault):
    """Name and value of every secret, and the ids of the keys that seal them."""
    org_id, _ = await ensure_first(db, CLOCK)
    values, keys = {}, set()
    for secret in await db.read(store.page, org_id, None, "", 10_000):
        _, value = await db.read(store.value, org_id, secret.name)
        values[secret.name] = vault.open(value, store.LABEL, org_id, secret.name)
        keys.add(value.key_id)
    return values, keys


def silent(conn, holder_id, since):
    """A process has said nothing for that much longer."""
    held = vault_store.holders
    its = held.c.id == holder_id
    seen_at = conn.scalar(select(held.c.seen_at).where(its))
    conn.execute(held.update().where(its).values(seen_at=seen_at - since))


@contextlib.asynccontextmanager
async def there(db, vault, name):
    """A process with its keys, which says at short intervals that it is there."""
    holder = await service.joined(db, vault, name)

    async def stay(holder):
        while True:
            holder = await service.say(db, vault, holder)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(stay(holder))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
        await db.write(vault_store.let_go, holder.id)


def wait_for_lock(conn):
    """Until another transaction of this database waits for what this one holds."""
    ask = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
    deadline = CLOCK.monotonic() + 60
    while conn.scalar(ask) == 0:
        assert CLOCK.monotonic() < deadline


class TestFirstStart:
    async def test_a_key_is_made_that_its_owner_alone_reads(self, db, tmp_path):
        settings = Settings(home=tmp_path)
        await open_vault(settings, db, CLOCK)
        file = tmp_path / "api" / "master.key"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        before = file.read_bytes()
        await open_vault(settings, db, CLOCK)
        assert file.read_bytes() == before

    async def test_a_lost_key_is_not_replaced(self, db, tmp_path):
        settings = Settings(home=tmp_path)
        await open_vault(settings, db, CLOCK)
        file = tmp_path / "api" / "master.key"
        file.unlink()
        with pytest.raises(Unavailable, match="cannot be read"):
            await open_vault(settings, db, CLOCK)
        assert not file.exists()

    async def test_a_wrong_key_is_refused_and_nothing_is_written(self, db, tmp_path):
        settings = Settings(home=tmp_path)
        await keep(db, await open_vault(settings, db, CLOCK), "A", "1")
        known = await db.read(vault_store.known)
        wrong = Settings(home=tmp_path, master_key=MasterKey.new().text())
        with pytest.raises(WrongMasterKey, match=known[0].id):
            await open_vault(wrong, db, CLOCK)
        assert await db.read(vault_store.known) == known
        assert (await kept(db, await open_vault(settings, db, CLOCK)))[0] == {"A": "1"}


class TestSources:
    def test_setting_file_and_program_give_the_same(self, tmp_path):
        key = MasterKey.new()
        (tmp_path / "key").write_text(key.text() + "\n")
        for settings in (
            Settings(master_key=key.text()),
            Settings(master_key_file=str(tmp_path / "key")),
            Settings(master_key_command=f"cat {tmp_path}/key"),
        ):
            assert Keyring(settings)() == [key]
            assert key.text() not in repr(settings)

    def test_two_sources_are_one_too_many(self, tmp_path):
        with pytest.raises(InvalidRequest, match="several places"):
            Keyring(Settings(master_key="x", master_key_file="y"))

    @pytest.mark.parametrize("command", ["false", "no-such-program-xyz", "printf secret-half", "'"])
    def test_a_program_that_fails_is_said_without_what_it_printed(self, command):
        with pytest.raises((Unavailable, InvalidRequest)) as caught:
            Keyring(Settings(master_key_command=command))()
        assert "secret-half" not in str(caught.value)


class TestRekey:
    async def test_everything_opens_with_the_new_key_alone(self, db, tmp_path):
        settings = Settings(home=tmp_path)
        vault = await open_vault(settings, db, CLOCK)
        wanted = {f"N{n}": f"value {n}" for n in range(250)}
        for name, value in wanted.items():
            await keep(db, vault, name, value)
        (old,) = Keyring(settings)()
        await rekey(settings, db, CLOCK)
        (new,) = Keyring(settings)()
        assert new.id != old.id
        assert await kept(db, await open_vault(settings, db, CLOCK)) == (wanted, {new.id})
        assert [known.id for known in await db.read(vault_store.known)] == [new.id]

    async def test_a_process_that_runs_meanwhile_seals_with_the_new_key_and_reads_all(
        self, db, tmp_path
    ):
        settings = Settings(home=tmp_path)
        running = await open_vault(settings, db, CLOCK)
        await keep(db, running, "OLD", "1")
        await rekey(settings, db, CLOCK)
        await keep(db, running, "NEW", "2")
        (new,) = Keyring(settings)()
        assert await kept(db, running) == ({"OLD": "1", "NEW": "2"}, {new.id})

    async def test_who_seals_in_the_very_moment_seals_with_the_new_key(
        self, db, tmp_path, monkeypatch
    ):
        """The switch is written and not yet committed while another transaction asks for the key."""
        settings = Settings(home=tmp_path)
        running = await open_vault(settings, db, CLOCK)
        await keep(db, running, "OLD", "1")
        switch, loop, beside = vault_store.make_current, asyncio.get_running_loop(), []

        def slowly(conn, *given):
            switch(conn, *given)
            writing = asyncio.run_coroutine_threadsafe(keep(db, running, "NEW", "2"), loop)
            beside.append(writing)
            if not db.sqlite:
                wait_for_lock(conn)

        monkeypatch.setattr(vault_store, "make_current", slowly)
        await rekey(settings, db, CLOCK)
        await asyncio.wrap_future(beside[0])
        (new,) = Keyring(settings)()
        assert await kept(db, running) == ({"OLD": "1", "NEW": "2"}, {new.id})

    @pytest.mark.parametrize("broken", ["written", "switched", "half", "retired"])
    async def test_broken_off_anywhere_it_is_readable_and_can_be_finished(
        self, db, tmp_path, monkeypatch, broken
    ):
        settings = Settings(home=tmp_path)
        vault = await open_vault(settings, db, CLOCK)
        wanted = {f"N{n}": f"value {n}" for n in range(150)}
        for name, value in wanted.items():
            await keep(db, vault, name, value)
        (old,) = Keyring(settings)()

        class Dead(Exception):
            pass

        def dies(*_):
            raise Dead

        resealed = []

        def once(*args):
            if resealed:
                raise Dead
            resealed.append(args)
            return reseal(*args)

        reseal = vault_store.reseal
        with monkeypatch.context() as patch:
            if broken == "written":
                patch.setattr(vault_store, "make_current", dies)
            elif broken == "switched":
                patch.setattr(vault_store, "reseal", dies)
            elif broken == "half":
                patch.setattr(vault_store, "reseal", once)
            else:
                patch.setattr(vault_store, "retire", dies)
            with pytest.raises(Dead):
                await rekey(settings, db, CLOCK)
        assert (await kept(db, await open_vault(settings, db, CLOCK)))[0] == wanted
        await keep(db, vault, "MEANWHILE", "too")
        await rekey(settings, db, CLOCK)
        (new,) = Keyring(settings)()
        assert new.id != old.id
        values, keys = await kept(db, await open_vault(settings, db, CLOCK))
        assert (values, keys) == ({**wanted, "MEANWHILE": "too"}, {new.id})

    async def test_keys_from_elsewhere_are_changed_there_first(self, db, tmp_path):
        old, new = MasterKey.new(), MasterKey.new()
        await keep(db, await open_vault(Settings(master_key=old.text()), db, CLOCK), "A", "1")
        with pytest.raises(InvalidRequest, match="newest master key"):
            await rekey(Settings(master_key=old.text()), db, CLOCK)
        both = Settings(master_key=f"{new.text()},{old.text()}")
        await rekey(both, db, CLOCK)
        vault = await open_vault(Settings(master_key=new.text()), db, CLOCK)
        assert await kept(db, vault) == ({"A": "1"}, {new.id})

    async def test_one_that_not_every_process_has_is_refused_by_name(self, db, tmp_path):
        """Two machines with a file each and a third that was given a setting, all over one database."""
        old, new = MasterKey.new(), MasterKey.new()
        files = [tmp_path / "one.key", tmp_path / "two.key"]
        for file in files:
            file.write_text(old.text())
        rings = [Settings(master_key_file=str(file)) for file in files]
        vaults = [await open_vault(ring, db, CLOCK) for ring in rings]
        await keep(db, vaults[0], "A", "1")
        files[0].write_text(f"{new.text()}\n{old.text()}")
        async with there(db, vaults[0], "one"), there(db, vaults[1], "two"):
            given = Settings(master_key=old.text())
            async with there(db, await open_vault(given, db, CLOCK), "three"):
                with pytest.raises(Conflict, match=f"{new.id} is not known to three; two "):
                    await rekey(rings[0], db, CLOCK)
                for vault in vaults:
                    assert await kept(db, vault) == ({"A": "1"}, {old.id})
            files[1].write_text(f"{new.text()}\n{old.text()}")
            await rekey(rings[0], db, CLOCK)
            for file in files:
                file.write_text(new.text())
            for vault in vaults:
                assert await kept(db, vault) == ({"A": "1"}, {new.id})

    async def test_what_was_refused_is_needed_by_nobody(self, db, tmp_path):
        old, new = MasterKey.new(), MasterKey.new()
        running = await open_vault(Settings(master_key=old.text()), db, CLOCK)
        async with there(db, running, "one"):
            with pytest.raises(Conflict, match="one"):
                await rekey(Settings(master_key=f"{new.text()},{old.text()}"), db, CLOCK)
        assert await db.read(vault_store.coming) is None
        await open_vault(Settings(master_key=old.text()), db, CLOCK)

    async def test_who_was_killed_holds_nothing_up_for_ever(self, db, tmp_path):
        old, new = MasterKey.new(), MasterKey.new()
        vault = await open_vault(Settings(master_key=old.text()), db, CLOCK)
        dead = await service.joined(db, vault, "dead")
        both = Settings(master_key=f"{new.text()},{old.text()}")
        with pytest.raises(Conflict, match="dead"):
            await (await open_vault(both, db, CLOCK)).rekey(db, schema.SEALED, CLOCK.now())
        await db.write(silent, dead.id, rules.ALIVE)
        await rekey(both, db, CLOCK)
        await db.write(vault_store.let_go, dead.id)

    @pytest.mark.parametrize("db", postgres.ENGINES[1:], indirect=True)
    async def test_clocks_that_differ_deceive_nobody(self, db, monkeypatch):
        """One whose machine is an hour behind is there, whatever its clock says."""
        old, new = MasterKey.new(), MasterKey.new()
        vault = await open_vault(Settings(master_key=old.text()), db, CLOCK)
        behind = CLOCK.now() - timedelta(hours=1)
        with monkeypatch.context() as patch:
            patch.setattr(SystemClock, "now", lambda _: behind)
            await service.joined(db, vault, "behind")
        with pytest.raises(Conflict, match="behind"):
            await (
                await open_vault(Settings(master_key=f"{new.text()},{old.text()}"), db, CLOCK)
            ).rekey(db, schema.SEALED, CLOCK.now())

    async def test_who_says_nothing_is_waited_for(self, db, tmp_path):
        """One whose beat comes late has the key by then."""
        old, new = MasterKey.new(), MasterKey.new()
        file = tmp_path / "key"
        file.write_text(f"{old.text()}")
        running = await open_vault(Settings(master_key_file=str(file)), db, CLOCK)
        holder = await service.joined(db, running, "slow")
        file.write_text(f"{new.text()}\n{old.text()}")
        asked = asyncio.create_task(rekey(Settings(master_key_file=str(file)), db, CLOCK))
        while await db.read(vault_store.coming) is None:
            await asyncio.sleep(0.01)
        assert not asked.done()
        await service.say(db, running, holder)
        assert await asked == 0

    async def test_one_whose_look_takes_long_is_there_meanwhile(self, db, tmp_path, monkeypatch):
        """Its last word is old, and the program that gives the keys hangs."""
        old, new = MasterKey.new(), MasterKey.new()
        vault = await open_vault(Settings(master_key=old.text()), db, CLOCK)
        holder = await service.joined(db, vault, "slow")
        both = Settings(master_key=f"{new.text()},{old.text()}")
        await (await open_vault(both, db, CLOCK)).announce(db, CLOCK.now())
        loop, seen = asyncio.get_running_loop(), []
        await db.write(silent, holder.id, rules.ALIVE)

        def hangs(_self, key_id):
            there = db.read(vault_store.holding, timedelta(seconds=30))
            seen.extend(asyncio.run_coroutine_threadsafe(there, loop).result(30))
            raise WrongMasterKey(key_id)

        monkeypatch.setattr(Vault, "look_for", hangs)
        said = await service.say(db, vault, holder)
        assert [(one.name, one.looked_for) for one in seen] == [("slow", None)]
        assert said.looked_for == new.id
        assert await service.say(db, vault, said) is said  # it is not looked for all the time
        assert len(seen) == 1

    async def test_who_joins_in_the_very_moment_needs_the_new_key(self, db, tmp_path, monkeypatch):
        """The switch is written and not yet committed while a process joins."""
        old, new = MasterKey.new(), MasterKey.new()
        joining = await open_vault(Settings(master_key=old.text()), db, CLOCK)
        switch, loop, beside = vault_store.make_current, asyncio.get_running_loop(), []

        def slowly(conn, *given):
            switch(conn, *given)
            joins = service.joined(db, joining, "late")
            beside.append(asyncio.run_coroutine_threadsafe(joins, loop))
            if not db.sqlite:
                wait_for_lock(conn)

        monkeypatch.setattr(vault_store, "make_current", slowly)
        await rekey(Settings(master_key=f"{new.text()},{old.text()}"), db, CLOCK)
        with pytest.raises(WrongMasterKey, match=new.id):
            await asyncio.wrap_future(beside[0])
        assert await db.read(vault_store.holding, rules.ALIVE) == []

    async def test_what_does_not_open_stops_it_before_the_old_key_goes(self, db, tmp_path):
        settings = Settings(home=tmp_path)
        vault = await open_vault(settings, db, CLOCK)
        await keep(db, vault, "A", "1")

        def spoil(conn):
            conn.execute(store.secrets.update().values(sealed="AA==:AA==:AA=="))

        await db.write(spoil)
        with pytest.raises(WrongMasterKey, match="does not open"):
            await rekey(settings, db, CLOCK)
        assert len(Keyring(settings)()) == 2
