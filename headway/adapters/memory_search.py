"""The search index in memory: refuses, keeps and forgets as a node does; for tests, and for runs without a node."""

import re
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from headway.clock import parse_instant_us
from headway.errors import ContractViolation, InputRejected, TransientFailure
from headway.ports import Between, Created, Document, FieldKind, Found, IndexTemplate, Refused

_INT64 = range(-(2**63), 2**63)
_INDEX_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]*$")


class MemorySearch:
    """Holds documents in dictionaries. ``away`` makes it unreachable until it is set back."""

    def __init__(self) -> None:
        self.away = False
        self._templates: dict[str, IndexTemplate] = {}
        self._mappings: dict[str, dict[str, FieldKind]] = {}
        self._documents: dict[str, dict[str, Document]] = {}

    def put_template(self, template: IndexTemplate) -> None:
        """See `headway.ports.SearchIndex.put_template`."""
        self._reach()
        for index in self.indexes(template.pattern):
            mapping = self._mappings[index]
            for name, kind in template.fields.items():
                if mapping.setdefault(name, kind) != kind:
                    raise ContractViolation(
                        f"search index {index}: field {name!r} is {mapping[name]}, wanted {kind}; "
                        "give the new kind a new name, or drop the index"
                    )
        self._templates[template.name] = template

    def create(self, documents: Sequence[Document]) -> Created:
        """See `headway.ports.SearchIndex.create`."""
        self._reach()
        created = known = 0
        refused: list[Refused] = []
        for document in documents:
            if not _INDEX_NAME.match(document.index):
                raise ContractViolation(f"search index {document.index!r}: wanted lower case letters, digits, . _ -")
            held = self._opened(document.index)
            if document.id in held:
                known += 1
            elif (reason := self._refusal(document)) is not None:
                refused.append(Refused(document, reason))
            else:
                held[document.id] = document
                created += 1
        return Created(created=created, known=known, refused=tuple(refused))

    def known(self, pattern: str, ids: Collection[str], *, outside: Collection[str] = ()) -> frozenset[str]:
        """See `headway.ports.SearchIndex.known`."""
        self._reach()
        asked = set(self.indexes(pattern)) - set(outside)
        return frozenset(one for one in ids for index in asked if one in self._documents[index])

    def scan(self, pattern: str, *, fields: Sequence[str], between: Between | None = None) -> Iterator[Found]:
        """See `headway.ports.SearchIndex.scan`."""
        self._reach()
        found = [
            Found(index, document.id, {name: document.fields[name] for name in fields if name in document.fields})
            for index in self.indexes(pattern)
            for document in self._documents[index].values()
            if between is None or _lies(document, between)
        ]
        return iter(found)

    def count(self, pattern: str) -> int:
        """See `headway.ports.SearchIndex.count`."""
        self._reach()
        return sum(len(self._documents[index]) for index in self.indexes(pattern))

    def indexes(self, pattern: str) -> list[str]:
        """See `headway.ports.SearchIndex.indexes`."""
        self._reach()
        return sorted(index for index in self._documents if fnmatchcase(index, pattern))

    def drop(self, index: str) -> None:
        """See `headway.ports.SearchIndex.drop`."""
        self._reach()
        self._documents.pop(index, None)
        self._mappings.pop(index, None)

    def remove(self, index: str, id: str) -> None:  # noqa: A002  # the document's own word
        """Take one document away, as a disk or a hand might; the ledger has to notice."""
        del self._documents[index][id]

    def close(self) -> None:
        """Nothing to release."""

    def _reach(self) -> None:
        if self.away:
            raise TransientFailure("search: the index is away; repeat")

    def _opened(self, index: str) -> dict[str, Document]:
        if index not in self._documents:
            fits = [template for template in self._templates.values() if fnmatchcase(index, template.pattern)]
            self._mappings[index] = dict(fits[0].fields) if fits else {}
            self._documents[index] = {}
        return self._documents[index]

    def _refusal(self, document: Document) -> str | None:
        mapping = self._mappings[document.index]
        for name, value in document.fields.items():
            if name not in mapping:
                return f"[{name}]: not a field of {document.index}"
            if not _holds(mapping[name], value):
                return f"[{name}]: got {value!r}, which is no {mapping[name]}"
        return None


def _holds(kind: FieldKind, value: Any) -> bool:  # Any: JSON
    match kind:
        case "long":
            return type(value) is int and value in _INT64
        case "double":
            return type(value) in (int, float)
        case "boolean":
            return type(value) is bool
        case "date":
            return type(value) is str and _is_instant(value)
        case "keyword" | "text" | "stored":
            return not isinstance(value, (dict, list))


def _is_instant(text: str) -> bool:
    try:
        parse_instant_us(text, field="date")
    except InputRejected:
        return False
    return True


def _lies(document: Document, between: Between) -> bool:
    instant = document.fields.get(between.field)
    if instant is None:
        return False
    return between.start_us <= parse_instant_us(instant, field=between.field) < between.end_us
