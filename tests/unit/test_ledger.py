from headway.ledger import Place, RawRecord, settle


def record(partition: int, offset: int, name: str) -> RawRecord:
    return RawRecord(Place(partition, offset), ("/source", name))


def test_a_clean_stretch_balances_with_letters_and_duplicates_apart() -> None:
    raw = [record(0, 0, "a"), record(0, 2, "b"), record(0, 3, "a"), record(1, 0, "c")]

    ledger = settle(raw, enriched=[Place(0, 0), Place(1, 0)], letters=[Place(0, 2)], lake=[Place(0, 0), Place(1, 0)])

    assert (ledger.raw, ledger.enriched, ledger.letters, ledger.duplicates) == (4, 2, 1, 1)
    assert ledger.balanced


def test_a_record_that_became_nothing_is_named_as_lost_once_later_ones_were_dealt_with() -> None:
    raw = [record(0, 0, "a"), record(0, 1, "b"), record(0, 2, "c")]

    ledger = settle(raw, enriched=[Place(0, 0), Place(0, 2)], letters=[], lake=[Place(0, 0), Place(0, 2)])

    assert [lost.place for lost in ledger.lost] == [Place(0, 1)]
    assert not ledger.balanced


def test_a_record_at_the_end_is_in_flight_and_not_lost() -> None:
    ledger = settle([record(0, 0, "a"), record(0, 1, "b")], enriched=[Place(0, 0)], letters=[], lake=[Place(0, 0)])

    assert (ledger.in_flight, ledger.lost) == (1, ())
    assert not ledger.balanced


def test_effects_without_a_cause_and_double_effects_are_named() -> None:
    ledger = settle([record(0, 0, "a")], enriched=[Place(0, 0)], letters=[Place(0, 0), Place(0, 9)], lake=[Place(0, 0)])

    assert ledger.twice == (Place(0, 0),)
    assert ledger.invented == (Place(0, 9),)


def test_the_lake_is_compared_by_place_in_both_directions() -> None:
    raw = [record(0, 0, "a"), record(0, 1, "b")]

    ledger = settle(raw, enriched=[Place(0, 0), Place(0, 1)], letters=[], lake=[Place(0, 1), Place(0, 7)])

    assert ledger.not_in_lake == (Place(0, 0),)
    assert ledger.surplus_in_lake == (Place(0, 7),)
