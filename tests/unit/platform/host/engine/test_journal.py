"""The journal: a record comes back as it was, or not at all."""

from __future__ import annotations

import json

import pytest
from tests.unit.platform.host.engine.worlds import entry, record

from runtools.platform.core.states import Act, State
from runtools.platform.host.engine import journal, ledger
from runtools.platform.host.engine.journal import JournalUnreadable, UnderWay


def test_a_record_comes_back_as_it_was(tmp_path):
    journal.save(tmp_path, record())
    assert journal.load(tmp_path) == record()


def test_of_what_is_to_end_a_list_of_before_is_read(tmp_path):
    journal.save(tmp_path, record(to_end={"prc_1": 3}))
    fields = json.loads((tmp_path / "machine.json").read_text())
    assert fields["to_end"] == {"prc_1": 3}
    (tmp_path / "machine.json").write_text(json.dumps({**fields, "to_end": ["prc_1", "prc_2"]}))
    assert journal.load(tmp_path) == record(to_end={"prc_1": 0, "prc_2": 0})


def test_its_file_is_nobody_elses(tmp_path):
    journal.save(tmp_path, record())
    assert (tmp_path / "machine.json").stat().st_mode & 0o777 == 0o600


def test_no_journal_is_no_record(tmp_path):
    assert journal.load(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "{}", '{"sandbox_id": 3}', "\0" * 100])
def test_a_damaged_journal_is_told_from_none(tmp_path, text):
    (tmp_path / "machine.json").write_text(text)
    with pytest.raises(JournalUnreadable):
        journal.load(tmp_path)


def test_secrets_are_not_shown():
    assert "hidden" not in repr(record())
    assert "token='token'" not in repr(record())


@pytest.mark.parametrize(
    ("under_way", "shown"),
    [
        (None, None),
        (UnderWay(Act.CREATE, "", ""), "starting"),
        (UnderWay(Act.CREATE, "", "", queued=True), "queued"),
        (UnderWay(Act.ROLLBACK, "", ""), "rolling_back"),
    ],
)
def test_the_act_under_way_is_shown(under_way, shown):
    assert record(under_way=under_way).observed(3, 4).operation == shown


def test_a_disk_is_kept_unless_it_was_destroyed():
    assert record(state=State.STOPPED).keeps_disk
    assert not record(state=State.STOPPED, destroyed=True).keeps_disk
    assert not record(state=State.STOPPED, life=None).keeps_disk
    assert not record().keeps_disk


def test_the_ledger_grows_by_lines(tmp_path):
    for seq in (1, 2):
        ledger.append(tmp_path, entry(seq))
    assert ledger.read(tmp_path) == [entry(1), entry(2)]


def test_a_torn_last_line_is_left_out(tmp_path):
    ledger.append(tmp_path, entry(1))
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"seq": 2, "at"')
    assert ledger.read(tmp_path) == [entry(1)]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_the_entry_that_a_crash_kept_from_the_ledger_is_added(tmp_path, written):
    for seq in range(1, written + 1):
        ledger.append(tmp_path, entry(seq))
    ledger.mend(tmp_path, entry(2))
    assert ledger.read(tmp_path)[-1] == entry(2)
    assert len(ledger.read(tmp_path)) == max(1, min(2, written + 1))


@pytest.mark.parametrize("torn", ['{"seq": 2, "at"', "\0" * 300])
def test_what_a_power_loss_has_torn_is_cut_before_another_is_added(tmp_path, torn):
    ledger.append(tmp_path, entry(1))
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write(torn)
    ledger.mend(tmp_path, entry(2))
    ledger.append(tmp_path, entry(3))
    assert ledger.read(tmp_path) == [entry(1), entry(2), entry(3)]
