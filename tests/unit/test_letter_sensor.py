"""What Dagster shows of letters: their causes, when there are new ones."""

import warnings
from pathlib import Path
from typing import Any

import dagster as dg

from assets.names import LAKE_LETTERS
from assets.resources import LakeResource
from headway.adapters.delta import Lake
from headway.letter_table import letter_rows, letters_table
from headway.letters import Letter, letter_of
from headway.ports import Message
from headway.topics import EVENTS_ENRICHED_LETTERS
from orchestration.letter_sensor import letters_sensor


def file(lake: Lake, *details: str) -> None:
    letters = []
    for offset, detail in enumerate(details):
        letter = Letter(reason="schema-violation", detail=detail, stage="enricher", original=b"{}", path="$.data.x|y`z")
        record = letter.to_record(EVENTS_ENRICHED_LETTERS)
        message = Message(record.topic, 0, offset, None, record.value, record.headers, 1_372_690_800_000 + offset)
        letters.append((message, letter_of(message)))
    lake.create(letters_table())
    lake.append("letters", letter_rows(letters))


def tick(root: Path, cursor: str | None) -> Any:  # Any: a result or a reason to skip
    with dg.DagsterInstance.ephemeral() as instance, warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        context = dg.build_sensor_context(
            instance=instance, cursor=cursor, resources={"lake": LakeResource(root=str(root))}
        )
        return letters_sensor().evaluate_tick(context)


def test_letters_are_observed_by_cause_when_there_are_new_ones(tmp_path: Path) -> None:
    nothing = tick(tmp_path, None)
    file(Lake(tmp_path), "x: got 1, wanted 2", "x: got 7, wanted 2", "unknown field `y`")

    first = tick(tmp_path, None)
    again = tick(tmp_path, first.cursor)

    assert "no letters table yet" in nothing.skip_message
    assert "no new letters" in again.skip_message
    [observed] = first.asset_events
    assert observed.asset_key == LAKE_LETTERS
    assert (observed.metadata["letters"].value, observed.metadata["causes"].value) == (3, 2)
    table = observed.metadata["by cause"].md_str.splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| 2", "| 1"]
    assert "$.data.x y z" in table[2]
    assert "events.enriched.dlq-0-1" in table[2]
