"""The stream scorer's read on a real store: killed, the stream is held back; back, it goes on; away for long, it degrades."""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from headway.adapters.redis_online import OnlineReader, OnlineRow, OnlineWriter
from headway.clock import HOUR_US
from headway.errors import DependencyDown
from headway.local.valkey import valkey_command, valkey_ready
from headway.predictions import ServedView
from streaming.due_reads import OnlineReads
from tests.free_ports import free_port
from tests.scoring_world import DUE_US
from tests.server_process import ServerProcess
from tests.serving_world import FLIGHT, flight, product

# redis-py warns about its own deprecations.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.integration]
PROJECT = "due"
REQUEST = product().parse_request(flight())


@dataclass
class Valkey(ServerProcess):
    """A server that may be killed and started again."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process = subprocess.Popen(valkey_command(self.folder, self.port), stdout=subprocess.DEVNULL)
        self.wait_until_ready(timeout_s=30.0, log=self.folder)

    def ready(self) -> bool:
        return valkey_ready(self.port)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path, free_port())
    server.start()
    yield server
    server.stop()


def fill(url: str) -> None:
    with closing(OnlineWriter(url, PROJECT)) as writer:
        for view in product().feature_views.values():
            features = product().use(view.qualified).features
            row_us = DUE_US - HOUR_US
            values = {name: row_us if name.startswith("last_at") else 3 for name in features}
            keys = {key: str(FLIGHT[key]) for key in view.keys}
            writer.write(
                [OnlineRow(view=view.online_name, keys=keys, event_timestamp_us=row_us, revision=1, values=values)]
            )
            writer.write_watermarks(view.online_name, {0: DUE_US // 1000}, 1)


def views_of(reads: OnlineReads, count: int = 1) -> list[tuple[ServedView, ...]]:
    return [read.views for read in reads.read([REQUEST] * count, [DUE_US] * count)]


def test_many_questions_are_read_as_one_is(valkey: Valkey) -> None:
    fill(valkey.url)
    with closing(OnlineReads(product(), OnlineReader(valkey.url, PROJECT))) as reads:
        [alone] = views_of(reads)
        many = views_of(reads, 1_200)

    assert {view.row_time_us for view in alone} == {DUE_US - HOUR_US}
    assert many == [alone] * 1_200


def test_a_store_that_dies_holds_the_stream_back_until_it_answers_again(valkey: Valkey) -> None:
    fill(valkey.url)
    with closing(OnlineReads(product(), OnlineReader(valkey.url, PROJECT), patience_s=60)) as reads:
        before = views_of(reads)
        valkey.kill()
        with pytest.raises(DependencyDown, match="online store is down"):
            views_of(reads)
        valkey.start()
        fill(valkey.url)

        assert views_of(reads) == before


def test_a_store_that_stays_away_degrades_and_says_so(valkey: Valkey) -> None:
    with closing(OnlineReads(product(), OnlineReader(valkey.url, PROJECT), patience_s=0)) as reads:
        valkey.kill()
        [read] = reads.read([REQUEST], [DUE_US])
        valkey.start()

    assert (read.degraded, read.as_of_us, {view.values for view in read.views}) == (True, DUE_US, {None})
