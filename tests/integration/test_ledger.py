"""The ledger on the real plane: what is deleted behind its back is named, and nothing else."""

import json
import random
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import httpx
import polars as pl
import pytest

from headway.adapters.delta import Lake
from headway.adapters.elasticsearch import ElasticsearchIndex
from headway.cli import main
from headway.search import EVENTS_PATTERN
from headway.settings import Settings
from orchestration.chaos.driver import Schedule
from orchestration.chaos.load import USUAL_MIX, plan_sends
from orchestration.chaos.report import Trial
from orchestration.chaos.running import judge, load_on
from orchestration.chaos.stack import EVENT_PLANE, own_stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
EVENTS = 2_000
SCHEDULE = Schedule(batches_per_s=4, batch_size=50, singles_per_s=4)


def delete_documents(settings: Settings, count: int) -> list[str]:
    """Delete documents of the index and return the ids of their events."""
    index = ElasticsearchIndex(settings.search_url)
    chosen = sorted(index.scan(EVENTS_PATTERN, fields=("id",)), key=lambda found: found.id)[:count]
    index.close()
    for found in chosen:
        answer = httpx.delete(f"{settings.search_url}/{found.index}/_doc/{quote(found.id, safe='')}?refresh=true")
        answer.raise_for_status()
    return sorted(str(found.fields["id"]) for found in chosen)


def delete_lake_file(settings: Settings) -> tuple[str, list[str]]:
    """Delete a file of the lake's events and return its name and the ids of its events."""
    lake = Lake(Path(settings.lake))
    file = min(lake.file_paths("events"))
    ids = pl.read_parquet(file, columns=["id"])["id"].to_list()
    file.unlink()
    return str(file.relative_to(lake.path("events"))), sorted(ids)


def test_deleted_documents_and_a_deleted_lake_file_are_named_event_by_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(test="ledger", short=True, seed=5, mutant=None, say=print)
    sends = list(islice(plan_sends(run="ledger", keys=50, mix=USUAL_MIX, generator=random.Random(5)), EVENTS))
    with own_stack((*EVENT_PLANE, "search"), mutant=None, environment={}, say=print) as settings:
        with load_on(settings, trial, sends, SCHEDULE) as running:
            running.drive.finish()
        before = judge(running).verdict
        documents = delete_documents(settings, 3)
        file, rows = delete_lake_file(settings)
        for name, value in settings.environment().items():
            monkeypatch.setenv(name, value)
        code = main(["ledger", "--json", str(tmp_path / "ledger.json")])
    facts = json.loads((tmp_path / "ledger.json").read_text())

    assert before.held, before.named()
    assert (code, facts["balanced"], facts["lost_files"]) == (1, False, [file])
    named = {what: sorted(each.split(" at ")[0] for each in names) for what, names in facts["named"].items()}
    assert named == {"not-in-search": documents, "not-in-lake": rows}
    assert facts["differences"] == {"not-in-search": 3, "not-in-lake": len(rows)}
