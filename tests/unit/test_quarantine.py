"""The crash journal finds the record that kills, and condemns nobody for one accident."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from headway.ports import Message
from streaming.quarantine import Quarantine


def messages(offsets: Sequence[int], *, partition: int = 0) -> list[Message]:
    return [Message("in", partition, offset, b"k", b"v", (), 0) for offset in offsets]


def die_with(journal: Path, batch: Sequence[Message], *, hung: bool = False) -> None:
    """Leave what SIGKILL leaves: the file as it is while the batch is in hand."""
    quarantine = Quarantine(journal)
    with quarantine.in_hand(batch):
        if hung:
            quarantine.note_hang()
        left = journal.read_bytes()
    quarantine.close()
    journal.write_bytes(left)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "enricher-0.json"


def test_a_clean_end_leaves_no_suspicion(journal: Path) -> None:
    batch = messages(range(10))
    for _ in range(5):
        quarantine = Quarantine(journal)
        with quarantine.in_hand(batch):
            pass
        quarantine.close()

    assert not Quarantine(journal).is_suspect(batch)


def test_an_exception_is_no_death(journal: Path) -> None:
    batch = messages(range(10))
    for _ in range(5):
        quarantine = Quarantine(journal)
        with pytest.raises(ValueError, match="handled"), quarantine.in_hand(batch):
            raise ValueError("handled")
        quarantine.close()

    assert not Quarantine(journal).is_suspect(batch)


def test_after_one_death_a_batch_is_handled_as_usual(journal: Path) -> None:
    die_with(journal, messages(range(10)))

    assert Quarantine(journal).parts_of(messages(range(10))) == [messages(range(10))]


def test_after_two_deaths_the_suspects_are_taken_one_by_one_and_others_together(journal: Path) -> None:
    die_with(journal, messages(range(5, 8)))
    die_with(journal, messages(range(5, 8)))
    batch = messages(range(10))

    parts = Quarantine(journal).parts_of(batch)

    assert [[m.offset for m in part] for part in parts] == [[0, 1, 2, 3, 4], [5], [6], [7], [8, 9]]


def test_deaths_over_other_records_do_not_add_up(journal: Path) -> None:
    die_with(journal, messages(range(10)))
    die_with(journal, messages(range(10, 20)))
    die_with(journal, messages(range(10), partition=1))

    assert not Quarantine(journal).is_suspect([*messages(range(20)), *messages(range(10), partition=1)])


def test_a_record_alone_in_hand_at_two_deaths_is_condemned_and_no_other(journal: Path) -> None:
    for _ in range(2):
        die_with(journal, messages(range(10)))
    die_with(journal, messages([3]))
    assert not any(Quarantine(journal).is_condemned(each) for each in messages(range(10)))
    die_with(journal, messages([3]))

    quarantine = Quarantine(journal)

    assert [m.offset for m in messages(range(10)) if quarantine.is_condemned(m)] == [3]


def test_what_was_committed_is_acquitted(journal: Path) -> None:
    for _ in range(2):
        die_with(journal, messages(range(10)))
    quarantine = Quarantine(journal)

    quarantine.note_done(messages(range(10)))
    quarantine.close()

    assert not Quarantine(journal).is_suspect(messages(range(10)))


def test_suspicion_outlives_a_clean_restart_until_the_records_are_done(journal: Path) -> None:
    for _ in range(2):
        die_with(journal, messages(range(10)))
    Quarantine(journal).close()

    assert Quarantine(journal).is_suspect(messages(range(10)))


def test_a_hang_counts_as_two_deaths(journal: Path) -> None:
    die_with(journal, messages(range(10)), hung=True)
    assert Quarantine(journal).is_suspect(messages(range(10)))

    die_with(journal, messages([3]), hung=True)

    assert Quarantine(journal).is_condemned(messages([3])[0])


def test_a_torn_journal_is_no_evidence(journal: Path) -> None:
    journal.parent.mkdir()
    journal.write_bytes(b'{"in_hand": {"in/0": [0,')

    assert not Quarantine(journal).is_suspect(messages(range(10)))


def test_a_shorter_note_is_read_as_it_is_although_a_longer_one_stood_there(journal: Path) -> None:
    quarantine = Quarantine(journal)
    with quarantine.in_hand([m for p in range(50) for m in messages(range(1000), partition=p)]):
        pass
    quarantine.close()

    assert not Quarantine(journal).is_suspect(messages(range(1000)))
