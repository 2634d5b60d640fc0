"""The search index on any node that speaks Elasticsearch's API (Elasticsearch 8, OpenSearch 2), over plain HTTP.

Uses only what both have: composable templates, ``_bulk`` with ``op_type=create``, ``_search`` with a scroll. A bulk
request is many requests: it answers 200 while items in it failed, each for its own reason, so every item is looked at.

What bites: a node answers 400 for a document it will never take *and* for a full cluster ("this action would add
[2] shards"). Only what names the document is refused; the rest is ours to mend and waits.
"""

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from headway.adapters.elasticsearch_bulk import Line, Verdict, batches, bulk_line, verdict_of
from headway.clock import format_us, monotonic_s
from headway.errors import ContractViolation, PermanentFailure, TransientFailure
from headway.ports import Between, Created, Document, FieldKind, Found, IndexTemplate, Refused

# An overloaded node needs seconds, and a job that waits longer than this is not polling its log.
PATIENCE_S = 5.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
_TIMEOUT = httpx.Timeout(30.0, connect=2.0)
_PAGE = 1000
_KEEP_SCROLL = "1m"
# No index yet is no error: there are no documents.
_IF_ANY = "ignore_unavailable=true"
_BUSY = frozenset({429, 502, 503, 504})
_JSON = {"content-type": "application/json"}
_LINES = {"content-type": "application/x-ndjson"}

# Longer terms would be refused by Lucene; these stay in the document and are not found by their value.
_KEYWORD_CHARS = 1024
_MAPPINGS: Mapping[FieldKind, Mapping[str, object]] = {
    "keyword": {"type": "keyword", "ignore_above": _KEYWORD_CHARS},
    "text": {"type": "text"},
    "long": {"type": "long", "coerce": False},
    "double": {"type": "double", "coerce": False},
    "boolean": {"type": "boolean"},
    "date": {"type": "date", "format": "strict_date_optional_time"},
    "stored": {"type": "keyword", "index": False, "doc_values": False},
}
_SETTINGS = {
    "number_of_shards": 1,
    # One copy as soon as there is a second node to hold it; alone, none, and health stays green.
    "auto_expand_replicas": "0-1",
    "refresh_interval": "1s",
    # Acknowledged means on disk: offsets are committed on the strength of it.
    "translog.durability": "request",
}


@dataclass
class _Tally:
    created: int = 0
    known: int = 0
    refused: list[Refused] = field(default_factory=list)


class ElasticsearchIndex:
    """One client; opens its connection at the first call. ``url`` may carry user and password."""

    def __init__(
        self, url: str, *, patience_s: float = PATIENCE_S, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT)
        self._patience_s = patience_s
        self._sleep = sleep

    def put_template(self, template: IndexTemplate) -> None:
        """See `headway.ports.SearchIndex.put_template`."""
        properties = {name: _MAPPINGS[kind] for name, kind in template.fields.items()}
        mappings = {"dynamic": "strict", "properties": properties}
        body = {
            "index_patterns": [template.pattern],
            "priority": 100,
            "template": {"settings": {"index": _SETTINGS}, "mappings": mappings},
        }
        self._ask("PUT", f"/_index_template/{template.name}", body)
        if not self.indexes(template.pattern):
            return
        try:
            self._ask("PUT", f"/{template.pattern}/_mapping", {"properties": properties})
        except PermanentFailure as refusal:
            raise ContractViolation(
                f"search indexes {template.pattern}: one that is there has a field of another kind ({refusal}); "
                "give the new kind a new name, or drop the index"
            ) from refusal

    def create(self, documents: Sequence[Document]) -> Created:
        """See `headway.ports.SearchIndex.create`."""
        tally = _Tally()
        for batch in batches([bulk_line(document) for document in documents]):
            self._create(batch, tally)
        return Created(created=tally.created, known=tally.known, refused=tuple(tally.refused))

    def known(self, pattern: str, ids: Collection[str], *, outside: Collection[str] = ()) -> frozenset[str]:
        """See `headway.ports.SearchIndex.known`."""
        if not ids:
            return frozenset()
        pattern = ",".join([pattern, *(f"-{index}" for index in sorted(outside))])
        self._refresh(pattern)
        wanted = sorted(ids)
        found: set[str] = set()
        for start in range(0, len(wanted), _PAGE):
            query = {"ids": {"values": wanted[start : start + _PAGE]}}
            found.update(hit.id for hit in self._scroll(pattern, query, ()))
        return frozenset(found)

    def scan(self, pattern: str, *, fields: Sequence[str], between: Between | None = None) -> Iterator[Found]:
        """See `headway.ports.SearchIndex.scan`."""
        query: dict[str, object] = {"match_all": {}}
        if between is not None:
            bounds = {"gte": format_us(between.start_us), "lt": format_us(between.end_us)}
            query = {"range": {between.field: bounds}}
        self._refresh(pattern)
        return self._scroll(pattern, query, fields)

    def count(self, pattern: str) -> int:
        """See `headway.ports.SearchIndex.count`."""
        self._refresh(pattern)
        return int(self._ask("GET", f"/{pattern}/_count?{_IF_ANY}")["count"])

    def indexes(self, pattern: str) -> list[str]:
        """See `headway.ports.SearchIndex.indexes`."""
        return sorted(self._ask("GET", f"/{pattern}/_settings/index.uuid?{_IF_ANY}"))

    def drop(self, index: str) -> None:
        """See `headway.ports.SearchIndex.drop`."""
        if "*" in index or "," in index:
            raise ContractViolation(f"search: got {index!r} to drop, wanted one index, named in full")
        self._ask("DELETE", f"/{index}?{_IF_ANY}")

    def close(self) -> None:
        """See `headway.ports.SearchIndex.close`."""
        self._http.close()

    def _create(self, batch: Sequence[Line], tally: _Tally) -> None:
        """Write one batch; what the node cannot take now is sent again, alone, until patience ends."""
        started_s = monotonic_s()
        pending, attempt = list(batch), 0
        while pending:
            pending, why, wanted_s = self._bulk(pending, tally)
            if not pending:
                return
            wait_s = max(wanted_s, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**attempt) * random.uniform(0.5, 1.0))
            attempt += 1
            left_s = self._patience_s - (monotonic_s() - started_s)
            if left_s <= 0:
                raise TransientFailure(
                    f"search: {len(pending)} of {len(batch)} documents not taken in {attempt} attempts and "
                    f"{self._patience_s:.0f} s ({why}); what was taken stays, repeat"
                )
            self._sleep(min(wait_s, left_s))

    def _bulk(self, lines: Sequence[Line], tally: _Tally) -> tuple[list[Line], str, float]:
        """Send once; return what to send again, why, and the seconds the node asks to wait."""
        path = "/_bulk?filter_path=items.create.status,items.create.error"
        try:
            answer = self._http.post(path, content=b"".join(line.bytes for line in lines), headers=_LINES)
        except httpx.TransportError as error:
            return list(lines), f"{type(error).__name__}: {error}", 0.0
        if answer.status_code == 413:
            return self._halved(lines, tally)
        if answer.status_code in _BUSY:
            return list(lines), _said(answer), _retry_after_s(answer)
        if answer.status_code != 200:
            raise _failure(answer)
        again: list[Line] = []
        why = ""
        for line, item in zip(lines, orjson.loads(answer.content)["items"], strict=True):
            verdict, reason = verdict_of(item["create"])
            if verdict is Verdict.CREATED:
                tally.created += 1
            elif verdict is Verdict.KNOWN:
                tally.known += 1
            elif verdict is Verdict.REFUSED:
                tally.refused.append(Refused(line.document, reason))
            else:
                again.append(line)
                why = reason
        return again, why, 0.0

    def _halved(self, lines: Sequence[Line], tally: _Tally) -> tuple[list[Line], str, float]:
        if len(lines) == 1:
            reason = f"{len(lines[0].bytes)} bytes are more than the node takes in one request"
            tally.refused.append(Refused(lines[0].document, reason))
            return [], "", 0.0
        middle = len(lines) // 2
        halves = [self._bulk(half, tally) for half in (lines[:middle], lines[middle:])]
        return [line for again, _, _ in halves for line in again], halves[-1][1], max(wait for _, _, wait in halves)

    def _scroll(self, pattern: str, query: object, fields: Sequence[str]) -> Iterator[Found]:
        """Read as of this call, pages later. A scroll, as it is the one stable long read that both products share."""
        body = {"size": _PAGE, "query": query, "_source": list(fields) or False, "sort": ["_doc"]}
        # A shard that is not there would otherwise make the answer shorter, and say so in a count nobody reads.
        asked = f"{_IF_ANY}&allow_partial_search_results=false&scroll={_KEEP_SCROLL}"
        return self._pages(self._ask("POST", f"/{pattern}/_search?{asked}", body))

    def _pages(self, page: dict[str, Any]) -> Iterator[Found]:
        try:
            while hits := page["hits"]["hits"]:
                for hit in hits:
                    yield Found(hit["_index"], hit["_id"], hit.get("_source", {}))
                body = {"scroll": _KEEP_SCROLL, "scroll_id": page["_scroll_id"]}
                page = self._ask("POST", "/_search/scroll", body)
        finally:
            if "_scroll_id" in page:  # absent when there was no index to read
                self._let_go(page["_scroll_id"])

    def _let_go(self, scroll_id: str) -> None:
        """Free a scroll. It ends by itself soon, and Elasticsearch answers 404 for one that has nothing left to free."""
        content = orjson.dumps({"scroll_id": scroll_id})
        with suppress(httpx.TransportError):
            self._http.request("DELETE", "/_search/scroll", content=content, headers=_JSON)

    def _refresh(self, pattern: str) -> None:
        self._ask("POST", f"/{pattern}/_refresh?{_IF_ANY}")

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # Any: JSON as the API documents it
        content = None if body is None else orjson.dumps(body)
        try:
            answer = self._http.request(method, path, content=content, headers=_JSON if content else None)
        except httpx.TransportError as error:
            raise TransientFailure(f"search: {method} {path}: {type(error).__name__}: {error}; repeat") from error
        if not answer.is_success:
            raise _failure(answer)
        return orjson.loads(answer.content)


def _failure(answer: httpx.Response) -> TransientFailure | PermanentFailure:
    said = f"search: {answer.request.method} {answer.request.url.path}: {_said(answer)}"
    if answer.status_code in _BUSY or answer.status_code >= 500:
        return TransientFailure(f"{said}; repeat")
    return PermanentFailure(said)


def _said(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.text[:500]}"


def _retry_after_s(answer: httpx.Response) -> float:
    wanted = answer.headers.get("retry-after", "")
    return float(wanted) if wanted.isdecimal() else 0.0
