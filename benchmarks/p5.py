"""Online read for a prediction (7 views, 31 features, 4 entities): reads/s beside Feast's SDK and bare pipelined reads.

The store holds two real days; every contestant asks for the same flights in the same order, one after the other. That all
give the same values is checked first, flight by flight. Ours is the predictor's read, judged and ready for the vector. The
HTTP and gRPC figures are those of one replica, the load and the store on the same processors.
"""

import itertools
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import children
from benchmarks.feature_doors import compare_doors
from benchmarks.flights_online import fill_with_flights
from benchmarks.frame import Contestant, Plan, Sample, Target, compare
from benchmarks.raw_reads import PipelineRead, SocketRead
from benchmarks.report import outcome
from domains.flights.domain import DOMAIN
from headway.adapters.feast import FeastConfig, LakeTable, feature_store, write_feature_repo
from headway.adapters.feast_registry import apply_views
from headway.adapters.feast_services import service_of
from headway.adapters.redis_online import OnlineReader
from headway.clock import monotonic_s, parse_instant_us
from headway.commands import Outcome, Say
from headway.errors import ContractViolation
from headway.features.services import feature_service
from headway.garbage import spare_long_lived
from headway.local.valkey import valkey_command, valkey_ready
from headway.online_features import OnlineFeatures, ViewsRead
from headway.settings import LOOPBACK
from products.catalogue import find_product

PROJECT = "headway"
PRODUCT = find_product("flight_delay")
AS_OF_US = parse_instant_us("2013-07-01T16:00:00Z", field="as_of")
CHECKED = 300
# The request's other fields, which no view is asked by.
_FLIGHT = {
    "flight": 1545,
    "sched_dep": "2013-07-01T17:00:00Z",
    "sched_arr": "2013-07-01T19:50:00Z",
    "distance_mi": 1400,
}
# What one read took, by the clock of the one who asked; enough for a steady percentile.
_KEPT = 20_000
Values = tuple[Any, ...]  # Any: int, float or None, in the order of the service


def run(plan: Plan, say: Say) -> Outcome:
    """Check that all read the same, then compare."""
    with tempfile.TemporaryDirectory(prefix="headway-p5-") as name, ExitStack() as started:
        folder, port = Path(name), children.free_port()
        command = valkey_command(folder, port)
        started.enter_context(children.child("valkey", command, folder=folder, ready=lambda: valkey_ready(port)))
        url = f"redis://{LOOPBACK}:{port}/0"
        flights = fill_with_flights(url, PROJECT, until_us=AS_OF_US)
        random.Random(5).shuffle(flights)
        say(f"{len(flights):,} flights of two days; Feast begins")
        store = _feast(folder, url)
        ours, feast = Ours(url, flights), FeastRead(store, flights)
        raws = (PipelineRead(url, PROJECT, flights), SocketRead(url, PROJECT, flights))
        started.callback(ours.close)
        spare_long_lived()
        _check_equal(ours, feast, raws, flights, say)
        read = compare(
            "One prediction's features",
            unit="reads/s",
            ours=Contestant(name="headway", measure=ours.measure),
            peers=[
                Contestant(name="Feast SDK", measure=_one_by_one(feast.read)),
                *(Contestant(name=raw.name, measure=_one_by_one(raw.read)) for raw in raws),
            ],
            targets=[
                Target(peer="Feast SDK", at_least=5.0),
                *(Target(peer=raw.name, at_least=0.5) for raw in raws),
            ],
            plan=plan,
            say=say,
        )
        doors = compare_doors(folder, store=f"{LOOPBACK}:{port}", project=PROJECT, flights=flights, plan=plan, say=say)
    return outcome("P5", [read, doors])


class Ours:
    """The predictor's read on an event loop of its own, as a replica has it."""

    def __init__(self, url: str, flights: Sequence[dict[str, str]]) -> None:
        import uvloop

        self._loop = uvloop.new_event_loop()
        self._reader = OnlineReader(url, PROJECT)
        self._features = OnlineFeatures(PRODUCT, self._reader)
        self._requests = [PRODUCT.request_from({**_FLIGHT, **flight}) for flight in flights]

    def measure(self, seconds: float) -> Sample:
        """Read one after the other for so long."""
        return self._loop.run_until_complete(self._measure(seconds))

    def read(self, place: int) -> Values:
        """The values of one flight."""
        return tuple(value for view in self._at(place).views for value in view.values or ())

    def _at(self, place: int) -> ViewsRead:
        return self._loop.run_until_complete(self._features.now(self._requests[place], AS_OF_US))

    async def _measure(self, seconds: float) -> Sample:
        timed = Timed(seconds)
        for request in itertools.cycle(self._requests):
            read = await self._features.now(request, AS_OF_US)
            if read.degraded:
                timed.errors += 1
            if timed.over():
                break
        return timed.sample()

    def close(self) -> None:
        """Release the connection."""
        self._loop.run_until_complete(self._reader.close())
        self._loop.close()


class FeastRead:
    """Feast's SDK at its best: the service as an object, the registry in memory, rows as Python values."""

    name = "Feast SDK"

    def __init__(self, store: Any, flights: Sequence[dict[str, str]]) -> None:  # Any: Feast is imported when it begins
        self._store, self._service, self._flights = store, store.get_feature_service(PRODUCT.name), flights
        self._names = [reference.replace(":", "__") for reference in service_of(PRODUCT)]

    def read(self, place: int) -> Values:
        """The values of one flight."""
        found = self._store.get_online_features(
            self._service, entity_rows=[self._flights[place % len(self._flights)]], full_feature_names=True
        ).to_dict()
        return tuple(found[name][0] for name in self._names)


@dataclass
class Timed:
    """Counts reads and keeps how long each took, until the window is over."""

    seconds: float
    errors: int = 0

    def __post_init__(self) -> None:
        self._began_s = self._last_s = monotonic_s()
        self._took_s: list[float] = []
        self._count = 0

    def over(self) -> bool:
        """Note that one is done; whether the window is over."""
        now_s = monotonic_s()
        self._count += 1
        if len(self._took_s) < _KEPT:
            self._took_s.append(now_s - self._last_s)
        self._last_s = now_s
        return now_s - self._began_s >= self.seconds

    def sample(self) -> Sample:
        """Give the rate and the percentiles."""
        cuts = statistics.quantiles(self._took_s, n=100) if len(self._took_s) > 1 else [0.0] * 99
        facts = {"p50_us": cuts[49] * 1e6, "p99_us": cuts[98] * 1e6}
        return Sample(value=self._count / (self._last_s - self._began_s), errors=self.errors, facts=facts)


def _one_by_one(read: Callable[[int], object]) -> Callable[[float], Sample]:
    def measure(seconds: float) -> Sample:
        timed = Timed(seconds)
        for place in itertools.count():
            read(place)
            if timed.over():
                break
        return timed.sample()

    return measure


def _feast(folder: Path, url: str) -> Any:  # Any: Feast's store
    config = FeastConfig(project=PROJECT, repo_dir=folder / "feast", redis_url=url, offline="lake")
    store = feature_store(config)
    write_feature_repo(config)
    tables = {view.online_name: LakeTable(path=str(folder / "unread"), version=None) for view in DOMAIN.views}
    apply_views(store, DOMAIN.views, tables, {PRODUCT.name: service_of(PRODUCT)})
    return store


def _check_equal(
    ours: Ours,
    feast: FeastRead,
    raws: Sequence[PipelineRead | SocketRead],
    flights: Sequence[dict[str, str]],
    say: Say,
) -> None:
    """Compare what everybody reads; an entity without a row is null for Feast as it is in the store."""
    service = feature_service(PRODUCT)
    for place in range(min(CHECKED, len(flights))):
        mine, theirs = ours.read(place), feast.read(place)
        for name, found in (("Feast SDK", theirs), *((raw.name, raw.values(place)) for raw in raws)):
            if repr(found) != repr(mine):
                differing = [
                    (reference, one, other)
                    for reference, one, other in zip(service.references, mine, found, strict=True)
                    if repr(one) != repr(other)
                ]
                raise ContractViolation(f"{flights[place]}: ours and {name} differ in {differing[:3]}")
    say(f"all read the same {len(service.references)} values of {min(CHECKED, len(flights))} flights")
