"""The online store killed, and silent, under the feature API: every answer says so, and it comes back by itself."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from headway.adapters.redis_online import OnlineRow, OnlineWriter
from headway.adapters.redis_views import OnlineViews
from headway.errors import TransientFailure
from headway.features.online import FeatureReader, Keys, OnlineRows, OnlineView, ReadRows, StoredRow
from headway.features.readiness import ViewState
from headway.local.valkey import valkey_command, valkey_ready
from serving.grpc_server import RETRY_TRAILER
from tests.feature_replica import NOON_US, PROJECT, Client, reader_of, running_replica
from tests.feature_world import KEYS, SERVICE, backfilled, fill
from tests.free_ports import free_port
from tests.server_process import ServerProcess

# redis-py warns about its own deprecations.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.integration]

WITHIN_S = 30.0


@dataclass
class Valkey(ServerProcess):
    folder: Path
    port: int

    def start(self) -> None:
        command = valkey_command(self.folder, self.port)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.wait_until_ready(timeout_s=WITHIN_S, log=self.folder)

    def ready(self) -> bool:
        return valkey_ready(self.port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path, free_port())
    server.start()
    yield server
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGCONT)
    server.stop()


class TakesAwayForMissing:
    """The planted bug: a store that does not answer is an entity without a row."""

    def __init__(self, reader: FeatureReader) -> None:
        self._reader = reader

    def over(self, views: Sequence[OnlineView]) -> ReadRows:
        found = self._reader.over(views)
        empty = tuple(StoredRow((None,) * len(view.features), None) for view in views)
        last: list[tuple[ViewState, ...]] = []

        async def read(rows: Sequence[Keys]) -> OnlineRows:
            try:
                answer = await found(rows)
            except TransientFailure:
                return OnlineRows(last[0], [empty for _ in rows])
            last[:] = [answer.states]
            return answer

        return read

    async def close(self) -> None:
        await self._reader.close()


class StaysAway(TakesAwayForMissing):
    """The planted bug: once the store was away, it is never asked again."""

    def over(self, views: Sequence[OnlineView]) -> ReadRows:
        found = self._reader.over(views)
        gone: list[TransientFailure] = []

        async def read(rows: Sequence[Keys]) -> OnlineRows:
            if gone:
                raise TransientFailure("online store: it was away") from gone[0]
            try:
                return await found(rows)
            except TransientFailure as error:
                gone.append(error)
                raise

        return read


@dataclass(frozen=True, kw_only=True)
class Outage:
    """What clients were told before, during and after; ``back`` is whether the answer of before came again."""

    before: dict[str, Any]
    during: list[tuple[int, str | None, str]]
    over_grpc: tuple[grpc.StatusCode, str | None]
    ready: int
    back: bool

    def offences(self) -> list[str]:
        found = [f"answered {each} while the store was away" for each in self.during if each != TOLD]
        found += [] if self.over_grpc == (grpc.StatusCode.UNAVAILABLE, "1") else [f"gRPC said {self.over_grpc}"]
        found += [] if self.ready == 200 else ["was not ready, as if it were its own fault"]
        return found + ([] if self.back else ["did not come back by itself"])


def fill_with_a_flight(redis_url: str) -> None:
    """Write a row of every view for the flight that is asked for."""
    with closing(OnlineWriter(redis_url, PROJECT)) as writer, closing(OnlineViews(redis_url, PROJECT)) as views:
        fill(writer)
        backfilled(writer, views, watermark_us=NOON_US)


TOLD = (503, "1", "urn:headway:problem:store-unavailable")


def kill(server: Valkey) -> Callable[[], None]:
    server.kill()
    return server.start


def silence(server: Valkey) -> Callable[[], None]:
    assert server.process is not None
    pid = server.process.pid
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


FAULTS = {"killed": kill, "silent": silence}


def outage(
    valkey: Valkey, fault: str, reader: Callable[[FeatureReader], FeatureReader], *, back_within_s: float
) -> Outage:
    fill_with_a_flight(valkey.url)
    with running_replica(reader(reader_of(valkey.url))) as client:
        status, _, before = client.post([KEYS])
        assert status == 200, before
        assert before["rows"][0]["origin_delay.v1"]["status"] == "present"
        mend = FAULTS[fault](valkey)
        assert not valkey_ready(valkey.port), "the fault did not happen"
        during = []
        for _ in range(5):
            status, headers, document = client.post([KEYS])
            during.append((status, headers.get("retry-after"), document.get("type", "none")))
        over_grpc = refused_over_grpc(client)
        ready = client.get("/readyz")
        mend()
        deadline_s = time.monotonic() + back_within_s
        while not (back := client.post([KEYS])[::2] == (200, before)) and time.monotonic() < deadline_s:
            time.sleep(0.05)
    return Outage(before=before, during=during, over_grpc=over_grpc, ready=ready, back=back)


def refused_over_grpc(client: Client) -> tuple[grpc.StatusCode, str | None]:
    try:
        client.call([KEYS])
    except grpc.RpcError as refused:
        call: Any = refused  # grpc has no types
        return call.code(), dict(call.trailing_metadata()).get(RETRY_TRAILER)
    return grpc.StatusCode.OK, None


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_store_that_is_away_is_told_with_when_to_try_again_and_it_comes_back_by_itself(
    valkey: Valkey, fault: str
) -> None:
    found = outage(valkey, fault, lambda reader: reader, back_within_s=WITHIN_S)

    assert found.offences() == []


def test_an_api_that_takes_a_store_that_is_away_for_missing_entities_is_caught(valkey: Valkey) -> None:
    found = outage(valkey, "killed", TakesAwayForMissing, back_within_s=WITHIN_S)

    assert found.offences()[0].startswith("answered (200, None, 'none') while the store was away")


def test_an_api_that_does_not_come_back_is_caught(valkey: Valkey) -> None:
    found = outage(valkey, "killed", StaysAway, back_within_s=1.0)

    assert found.offences() == ["did not come back by itself"]


def test_what_is_written_after_the_store_came_back_is_served(valkey: Valkey) -> None:
    """A reader that kept an answer would pass the outage and serve the past."""
    fill_with_a_flight(valkey.url)
    view = SERVICE.served[0]
    with running_replica(reader_of(valkey.url)) as client:
        before = client.post([KEYS])[2]["rows"][0][view.name]
        valkey.kill()
        assert client.post([KEYS])[0] == 503
        valkey.start()
        values = {**dict.fromkeys(view.view.columns), "count_1h": 99}
        keys = {key: str(KEYS[key]) for key in view.view.keys}
        row = OnlineRow(view=view.view.online_name, keys=keys, event_timestamp_us=NOON_US, revision=7, values=values)
        with closing(OnlineWriter(valkey.url, PROJECT)) as writer:
            writer.write([row])
        after = client.post([KEYS])[2]["rows"][0][view.name]

    assert (before["values"]["count_1h"] != 99, after["values"]["count_1h"]) == (True, 99)
