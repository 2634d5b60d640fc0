"""The flights' feature service over any online store: rows to ask about, and questions that every door refuses alike."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from headway.adapters.feast_layout import Value
from headway.adapters.redis_online import OnlineRow, WriteCounts
from headway.clock import HOUR_US, parse_instant_us
from headway.features.online import Keys, OnlineRows, OnlineView, ReadRows
from headway.features.services import FeatureService, ServedFeatures, feature_service
from products.catalogue import find_product
from serving.feature_answers import FeatureLimits

AS_OF = "2013-07-01T14:00:00Z"
AS_OF_US = parse_instant_us(AS_OF, field="as_of")
ROW_US = AS_OF_US - HOUR_US
KEYS: dict[str, str | None] = {"origin": "EWR", "carrier": "UA", "dest": "IAH", "tail": "N14228"}
ELSEWHERE: dict[str, str | None] = {"origin": "LGA", "carrier": "B6", "dest": "BOS", "tail": "N00000"}
SERVICE: FeatureService = feature_service(find_product("flight_delay"))
LIMITS = FeatureLimits(rows=8, body_bytes=4_096, budget_s=5.0, rows_in_flight=16)
KEY_WORDS = "origin, carrier, dest, tail, each a text or null"


class Writer(Protocol):
    def write(self, rows: Sequence[OnlineRow]) -> WriteCounts: ...
    def write_watermarks(self, view: str, watermarks_ms: Mapping[int, int], partition_count: int) -> None: ...


class Marks(Protocol):
    def mark_bootstrapped(self, view: str, *, digest: str, until_us: int) -> None: ...


class Store(Protocol):
    def over(self, views: Sequence[OnlineView]) -> ReadRows: ...


class Reader:
    """A store as replicas hold one: what was asked is kept, and it can be away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: list[Sequence[Keys]] = []
        self.away: Exception | None = None

    def over(self, views: Sequence[OnlineView]) -> ReadRows:
        found = self._store.over(views)

        async def read(rows: Sequence[Keys]) -> OnlineRows:
            self.asked.append(rows)
            if self.away is not None:
                raise self.away
            return await found(rows)

        return read

    async def close(self) -> None:
        pass


def stored_values(served: ServedFeatures) -> dict[str, Value]:
    """A value for every column of the view, some of them null; those served are different from each other."""
    columns = served.view.columns
    return {
        name: None if place % 5 == 3 else place + 1 if dtype == "int64" else place + 0.25
        for place, (name, dtype) in enumerate(columns.items())
    }


def fill(store: Writer, keys: Mapping[str, str | None] = KEYS, *, at_us: int = ROW_US) -> None:
    """Write a row of every view for the entities of one row of keys."""
    store.write(
        [
            OnlineRow(
                view=served.view.online_name,
                keys={key: str(keys[key]) for key in served.view.keys},
                event_timestamp_us=at_us,
                revision=1,
                values=stored_values(served),
            )
            for served in SERVICE.served
            if None not in [keys[key] for key in served.view.keys]
        ]
    )


def backfilled(store: Writer, marks: Marks, *, watermark_us: int = AS_OF_US) -> None:
    """Have every view known up to an instant, and marked as computed by its definition."""
    for served in SERVICE.served:
        store.write_watermarks(served.view.online_name, {0: watermark_us // 1000}, 1)
        marks.mark_bootstrapped(served.view.online_name, digest=served.view.digest, until_us=ROW_US)


# (what is asked, status, kind, words of the detail): the same over HTTP and gRPC.
REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"rows": []}, 400, "invalid-question", "rows: got none, wanted 1 to 8"),
    ({"rows": [KEYS] * 9}, 413, "too-large", "rows: got 9, wanted at most 8; ask in parts"),
    ({"rows": [{"origin": "EWR"}]}, 400, "invalid-question", f"rows[0].carrier: missing, wanted {KEY_WORDS}"),
    (
        {"rows": [KEYS, {**KEYS, "gate": "A1"}]},
        400,
        "invalid-question",
        f"rows[1].gate: got a key the service has not, wanted {KEY_WORDS}",
    ),
    ({"rows": [{**KEYS, "tail": 14228}]}, 400, "invalid-question", "rows[0].tail: got a number, wanted a text or null"),
    ({"rows": [{**KEYS, "dest": True}]}, 400, "invalid-question", "rows[0].dest: got a boolean, wanted a text or null"),
    ({"rows": [{**KEYS, "dest": ["x"]}]}, 400, "invalid-question", "rows[0].dest: got a list, wanted a text or null"),
    (
        {"rows": [KEYS], "as_of": "2013-07-01T12:59:59Z"},
        409,
        "as-of-in-the-past",
        "origin_delay.v1 of {'origin': 'EWR'}",
    ),
    (
        {"rows": [KEYS], "service": "nobody"},
        404,
        "no-such-service",
        "service: got 'nobody', wanted one of flight_delay",
    ),
]
