"""What the port promises, of the memory adapter and of a real node; and what only HTTP can do to the real one."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from headway.adapters.elasticsearch import ElasticsearchIndex
from headway.adapters.memory_search import MemorySearch
from headway.clock import HOUR_US, parse_instant_us
from headway.errors import ContractViolation, TransientFailure
from headway.ports import Between, Created, Document, FieldKind, IndexTemplate, SearchIndex
from tests.search_world import Answer, SearchNode, proxy_before, running_node

NINE_US = parse_instant_us("2013-07-01T09:00:00Z", field="nine")
FIELDS: dict[str, FieldKind] = {
    "name": "keyword",
    "said": "text",
    "minutes": "long",
    "degrees": "double",
    "late": "boolean",
    "at": "date",
    "bytes": "stored",
}


@pytest.fixture(params=["memory", pytest.param("node", marks=pytest.mark.integration)])
def index(request: pytest.FixtureRequest) -> Iterator[SearchIndex]:
    if request.param == "memory":
        yield MemorySearch()
        return
    node: SearchNode = request.getfixturevalue("search_node")
    client = ElasticsearchIndex(node.url)
    yield client
    client.close()


@pytest.fixture
def stem() -> str:
    """A stem of index names of this test alone, as the node is shared."""
    return f"t{uuid.uuid4().hex[:12]}"


def template(stem: str, **fields: FieldKind) -> IndexTemplate:
    return IndexTemplate(name=stem, pattern=f"{stem}-*", fields=FIELDS | fields)


def document(stem: str, name: str, *, day: str = "2013.07.01", **fields: Any) -> Document:
    return Document(f"{stem}-{day}", name, {"name": name, **fields})


def test_a_document_is_created_once_and_the_first_write_wins(index: SearchIndex, stem: str) -> None:
    index.put_template(template(stem))
    index.create([document(stem, "a", minutes=1)])

    again = index.create([document(stem, "a", minutes=2), document(stem, "b", minutes=3)])

    assert Created(created=1, known=1, refused=()) == again
    found = {each.id: each.fields for each in index.scan(f"{stem}-*", fields=["minutes"])}
    assert found == {"a": {"minutes": 1}, "b": {"minutes": 3}}


def test_an_id_twice_in_one_call_is_one_document(index: SearchIndex, stem: str) -> None:
    index.put_template(template(stem))

    created = index.create([document(stem, "a", minutes=1), document(stem, "a", minutes=2)])

    assert (created.created, created.known, index.count(f"{stem}-*")) == (1, 1, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"minutes": 1.5},
        {"minutes": "1"},
        {"minutes": 2**63},
        {"minutes": "late"},
        {"degrees": "warm"},
        {"late": "perhaps"},
        {"at": "yesterday"},
        {"name": {"first": "a"}},
        {"unknown": 1},
    ],
    ids=str,
)
def test_what_the_mapping_does_not_hold_is_refused_with_its_reason_and_alone(
    index: SearchIndex, stem: str, fields: dict[str, Any]
) -> None:
    index.put_template(template(stem))
    bad = Document(f"{stem}-2013.07.01", "bad", {"name": "bad", **fields})

    created = index.create([document(stem, "a"), bad, document(stem, "b")])

    assert (created.created, created.known, len(created.refused)) == (2, 0, 1)
    assert created.refused[0].document is bad
    assert next(iter(fields)) in created.refused[0].reason
    assert {"a", "b"} == {each.id for each in index.scan(f"{stem}-*", fields=[])}


@pytest.mark.parametrize(
    "fields",
    [
        {"minutes": -(2**63)},
        {"degrees": 3},
        {"at": "2013-07-01T09:00:00.123456Z"},
        {"name": "n" * 70_000},
        {"said": "word " * 20_000},
        {"bytes": "x" * 250_000},
    ],
    ids=["long", "double", "instant", "term", "text", "stored"],
)
def test_what_is_at_the_edge_is_held_as_it_was_given(index: SearchIndex, stem: str, fields: dict[str, Any]) -> None:
    index.put_template(template(stem))

    created = index.create([Document(f"{stem}-2013.07.01", "edge", fields)])

    assert Created(created=1, known=0, refused=()) == created
    (found,) = index.scan(f"{stem}-*", fields=list(fields))
    assert fields == found.fields


def test_a_new_field_reaches_the_indexes_that_are_there(index: SearchIndex, stem: str) -> None:
    """A contract gains a field at noon: today's index was made this morning, and strict."""
    index.put_template(template(stem))
    index.create([document(stem, "a")])

    index.put_template(template(stem, gate="keyword"))

    assert not index.create([document(stem, "b", gate="B22")]).refused


def test_a_field_that_changes_its_kind_is_refused_where_it_is_declared(index: SearchIndex, stem: str) -> None:
    index.put_template(template(stem))
    index.create([document(stem, "a", minutes=1)])

    with pytest.raises(ContractViolation, match="minutes"):
        index.put_template(template(stem, minutes="keyword"))


def test_a_scan_gives_every_document_of_an_interval_over_many_pages_and_days(index: SearchIndex, stem: str) -> None:
    index.put_template(template(stem))
    documents = [
        document(stem, f"n{n}", day=f"2013.07.0{1 + n % 2}", at=f"2013-07-01T{n // 1000:02}:30:00Z", minutes=n)
        for n in range(3500)
    ]
    assert index.create(documents).created == 3500

    hour = Between(field="at", start_us=NINE_US - 8 * HOUR_US, end_us=NINE_US - 6 * HOUR_US)
    found = list(index.scan(f"{stem}-*", fields=["minutes"], between=hour))

    assert set(range(1000, 3000)) == {each.fields["minutes"] for each in found}
    assert len(found) == 2000
    assert index.count(f"{stem}-*") == 3500
    assert [f"{stem}-2013.07.01", f"{stem}-2013.07.02"] == index.indexes(f"{stem}-*")


def test_what_is_known_is_found_in_every_index_of_the_pattern_at_once(index: SearchIndex, stem: str) -> None:
    index.put_template(template(stem))
    index.create([document(stem, "a"), document(stem, "b", day="2013.07.02")])

    assert {"a", "b"} == index.known(f"{stem}-*", ["a", "b", "c"])
    assert {"a"} == index.known(f"{stem}-*", ["a", "b", "c"], outside=[f"{stem}-2013.07.02", f"{stem}-2013.07.09"])


def test_an_index_that_is_not_there_holds_nothing(index: SearchIndex, stem: str) -> None:
    assert list(index.scan(f"{stem}-*", fields=[])) == []
    assert frozenset() == index.known(f"{stem}-*", ["a"])
    assert index.count(f"{stem}-*") == 0
    index.drop(f"{stem}-2013.07.01")


def test_a_dropped_index_is_gone_and_its_neighbour_stays(index: SearchIndex, stem: str) -> None:
    index.put_template(template(stem))
    index.create([document(stem, "a"), document(stem, "b", day="2013.07.02")])

    index.drop(f"{stem}-2013.07.01")

    assert [each.id for each in index.scan(f"{stem}-*", fields=[])] == ["b"]


def test_an_index_that_is_away_is_a_reason_to_repeat() -> None:
    away = MemorySearch()
    away.away = True
    nowhere = ElasticsearchIndex("http://127.0.0.1:1", patience_s=0.3)
    for index in (away, nowhere):
        with pytest.raises(TransientFailure, match="repeat"):
            index.create([document("t", "a")])
        with pytest.raises(TransientFailure, match="repeat"):
            index.put_template(template("t"))
        index.close()


def is_bulk(path: str) -> bool:
    return path.startswith("/_bulk")


def bulk_ids(body: bytes) -> list[str]:
    return [orjson.loads(line)["create"]["_id"] for line in body.splitlines()[::2]]


def bulk(url: str, body: bytes) -> list[Any]:
    answer = httpx.post(f"{url}/_bulk", content=body, headers={"content-type": "application/x-ndjson"})
    return list(answer.json()["items"])


@pytest.mark.integration
def test_items_that_a_busy_node_rejects_are_sent_again_alone(search_node: SearchNode, stem: str) -> None:
    """A 200 that holds two 429s, as a full thread pool answers."""
    rejected = {"status": 429, "error": {"type": "rejected_execution_exception", "reason": "queue is full"}}

    def take_two(_method: str, path: str, body: bytes) -> Answer | None:
        if not is_bulk(path) or len(bulk_ids(body)) < 4:
            return None
        taken = bulk(search_node.url, b"\n".join(body.splitlines()[:4]) + b"\n")
        return Answer(200, orjson.dumps({"items": [*taken, {"create": rejected}, {"create": rejected}]}))

    with proxy_before(search_node.url, take_two) as proxy:
        client = ElasticsearchIndex(proxy.url)
        client.put_template(template(stem))
        created = client.create([document(stem, name) for name in "abcd"])
        client.close()

    assert [bulk_ids(body) for _, path, body in proxy.seen if is_bulk(path)] == [["a", "b", "c", "d"], ["c", "d"]]
    assert Created(created=4, known=0, refused=()) == created


@pytest.mark.integration
def test_a_node_that_says_when_to_come_back_is_left_alone_until_then(search_node: SearchNode, stem: str) -> None:
    answers = iter([Answer(429, headers=(("retry-after", "7"),)), Answer(503)])
    waited: list[float] = []

    def busy_twice(_method: str, path: str, _body: bytes) -> Answer | None:
        return next(answers, None) if is_bulk(path) else None

    with proxy_before(search_node.url, busy_twice) as proxy:
        client = ElasticsearchIndex(proxy.url, patience_s=60, sleep=waited.append)
        client.put_template(template(stem))
        created = client.create([document(stem, "a")])
        client.close()

    assert created.created == 1
    assert [wait_s >= 7 for wait_s in waited] == [True, False]


@pytest.mark.integration
def test_a_node_out_of_memory_is_busy_and_its_documents_are_not_letters(search_node: SearchNode, stem: str) -> None:
    """A real 429: the node's own circuit breaker, set so low that no request of 2 kB fits."""
    limit = "network.breaker.inflight_requests.limit"
    client = ElasticsearchIndex(search_node.url, patience_s=0.5)
    client.put_template(template(stem))
    documents = [document(stem, "a", bytes="x" * 4000)]

    httpx.put(f"{search_node.url}/_cluster/settings", json={"transient": {limit: "2kb"}}).raise_for_status()
    try:
        with pytest.raises(TransientFailure, match=r"429.*circuit_breaking_exception"):
            client.create(documents)
    finally:
        httpx.put(f"{search_node.url}/_cluster/settings", json={"transient": {limit: None}}).raise_for_status()

    assert client.create(documents).created == 1
    client.close()


@pytest.mark.integration
def test_a_full_cluster_is_ours_to_mend_and_no_letter(search_node: SearchNode, stem: str) -> None:
    """The node says 400, as for a bad document, when no shard is left for tomorrow's index."""
    limit = "cluster.max_shards_per_node"
    client = ElasticsearchIndex(search_node.url, patience_s=0.5)
    client.put_template(template(stem))

    client.create([document(stem, "a")])
    httpx.put(f"{search_node.url}/_cluster/settings", json={"transient": {limit: 1}}).raise_for_status()
    try:
        with pytest.raises(TransientFailure, match="this action would add"):
            client.create([document(stem, "b", day="2013.07.02"), document(stem, "c", day="2013.07.03")])
    finally:
        httpx.put(f"{search_node.url}/_cluster/settings", json={"transient": {limit: None}}).raise_for_status()

    assert client.create([document(stem, "b", day="2013.07.02")]).created == 1
    client.close()


@pytest.mark.integration
def test_a_body_the_node_finds_too_large_is_halved_down_to_the_one_that_is(search_node: SearchNode, stem: str) -> None:
    def small_door(_method: str, path: str, body: bytes) -> Answer | None:
        return Answer(413) if is_bulk(path) and len(body) > 3000 else None

    documents = [document(stem, f"n{n}", bytes="x" * 500) for n in range(20)]
    giant = document(stem, "giant", bytes="x" * 5000)
    with proxy_before(search_node.url, small_door) as proxy:
        client = ElasticsearchIndex(proxy.url)
        client.put_template(template(stem))
        created = client.create([*documents[:7], giant, *documents[7:]])
        client.close()

    assert (created.created, created.known) == (20, 0)
    assert [giant] == [refused.document for refused in created.refused]
    assert "bytes" in created.refused[0].reason


@pytest.mark.integration
def test_an_answer_lost_on_its_way_makes_no_second_copy(search_node: SearchNode, stem: str) -> None:
    lost = iter([True])

    def lose_the_answer(_method: str, path: str, body: bytes) -> Answer | None:
        if not is_bulk(path) or not next(lost, False):
            return None
        assert [item["create"]["status"] for item in bulk(search_node.url, body)] == [201, 201]
        return Answer(502)

    with proxy_before(search_node.url, lose_the_answer) as proxy:
        client = ElasticsearchIndex(proxy.url)
        client.put_template(template(stem))
        created = client.create([document(stem, "a"), document(stem, "b")])
        assert Created(created=0, known=2, refused=()) == created
        assert client.count(f"{stem}-*") == 2
        client.close()


@pytest.mark.integration
@pytest.mark.long
def test_what_was_acknowledged_outlives_a_killed_node(tmp_path: Path, stem: str) -> None:
    with running_node(tmp_path / "search") as node:
        client = ElasticsearchIndex(node.url, patience_s=60)
        client.put_template(template(stem))
        assert client.create([document(stem, f"n{n}", minutes=n) for n in range(2000)]).created == 2000

        node.kill()
        node.spawn()
        later = client.create([document(stem, f"n{n}", minutes=n) for n in range(1900, 2100)])

        assert Created(created=100, known=100, refused=()) == later
        assert client.count(f"{stem}-*") == 2100
        client.close()
