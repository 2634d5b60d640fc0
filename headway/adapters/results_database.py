"""Batch results in PostgreSQL or SQLite, through SQLAlchemy: a transaction for each replacement, pages by key.

Rows lie in the order in which pages are read, so a page costs its own rows however far into the interval it is. What bites:
SQLite lets readers go on beside a writer only with a write-ahead log, which therefore every connection asks for.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError

from headway.drift import Window
from headway.errors import Overtaken, PermanentFailure, TransientFailure
from headway.results import REFUSED_COLUMNS, RESULT_COLUMNS, Place, RefusedRow, Result

# Of one statement: enough that its cost is that of the rows.
_INSERTED_ROWS = 10_000
_LOCK_TIMEOUT_S = 30.0
_TABLES = sa.MetaData()


def _placed(name: str, *columns: sa.Column[Any]) -> sa.Table:
    """Return a table whose rows lie in the order of pages; without a row id SQLite keeps them in the key itself."""
    return sa.Table(
        name,
        _TABLES,
        sa.Column("product", sa.Text, primary_key=True),
        sa.Column("as_of_us", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("model_version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("run_id", sa.Text, nullable=False),
        *columns,
        sqlite_with_rowid=False,
    )


_RESULTS = _placed(
    "batch_results",
    sa.Column("model_digest", sa.Text, nullable=False),
    sa.Column("receipt", sa.Text, nullable=False),
    sa.Column("probability", sa.Double, nullable=False),
    sa.Column("requested_at_us", sa.BigInteger, nullable=False),
)
_REFUSED = _placed("batch_refused", sa.Column("reason", sa.Text, nullable=False))


class ResultsDatabase:
    """The results in one database; its tables are made when they are not there. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        """Connect to ``url``, a database URL of SQLAlchemy.

        Raises:
            PermanentFailure: the URL names a kind of database that is not installed, or is no URL.
            TransientFailure: the database does not answer.
        """
        try:
            self._engine = sa.create_engine(url, pool_pre_ping=True)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise PermanentFailure(
                f"results database: {error}; set HEADWAY_RESULTS_URL to sqlite:///FILE or postgresql+psycopg2://..."
            ) from error
        url_of = self._engine.url
        # Whatever shows it must not show the password.
        self.address = url_of.render_as_string(hide_password=True)
        if self._engine.dialect.name == "sqlite":
            if url_of.database:
                Path(url_of.database).parent.mkdir(parents=True, exist_ok=True)
            event.listen(self._engine, "connect", _prepare_sqlite)
        with _explained(), self._engine.begin() as connection:
            _TABLES.create_all(connection)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def replace(
        self, product: str, window: Window, rows: Iterable[pl.DataFrame], refused: Iterable[pl.DataFrame]
    ) -> int:
        """Make a product's rows of the window exactly these; see `headway.results.Results`."""
        with _explained(), self._engine.begin() as connection:
            for table in (_RESULTS, _REFUSED):
                connection.execute(sa.delete(table).where(_inside(table, product, window)))
            count = _insert(connection, _RESULTS, product, rows, RESULT_COLUMNS)
            _insert(connection, _REFUSED, product, refused, REFUSED_COLUMNS)
        return count

    def page(
        self, product: str, window: Window, *, rows: int, after: Place | None, version: int | None
    ) -> list[Result]:
        """Return the next answers; see `headway.results.Results`."""
        columns = [_RESULTS.c[name] for name in Result.__struct_fields__]
        chosen = _newest() if version is None else _RESULTS.c.model_version == version
        query = _page(_RESULTS, columns, product, window, after=after).where(chosen).limit(rows)
        return [Result(**row) for row in self._read(query)]

    def refused(self, product: str, window: Window, *, rows: int, after: Place | None) -> list[RefusedRow]:
        """Return the next rows that were not answered; see `headway.results.Results`."""
        columns = [_REFUSED.c[name] for name in RefusedRow.__struct_fields__]
        query = _page(_REFUSED, columns, product, window, after=after).limit(rows)
        return [RefusedRow(**row) for row in self._read(query)]

    def _read(self, query: sa.Select[Any]) -> list[dict[str, Any]]:  # Any: a row's own columns
        with _explained(), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def _page(
    table: sa.Table, columns: list[sa.Column[Any]], product: str, window: Window, *, after: Place | None
) -> sa.Select[Any]:
    order = (table.c.as_of_us, table.c.subject, table.c.model_version)
    query = sa.select(*columns).where(_inside(table, product, window)).order_by(*order)
    if after is None:
        return query
    return query.where(sa.tuple_(*order) > sa.tuple_(after.as_of_us, after.subject, after.model_version))


def _inside(table: sa.Table, product: str, window: Window) -> sa.ColumnElement[bool]:
    asked = table.c.as_of_us
    return sa.and_(table.c.product == product, asked >= window.from_us, asked < window.until_us)


def _newest() -> sa.ColumnElement[bool]:
    """Return where no later run has answered the same question; of two in the same instant the greater version."""
    other, mine = _RESULTS.alias("other"), _RESULTS.c
    later = sa.tuple_(other.c.requested_at_us, other.c.model_version) > sa.tuple_(
        mine.requested_at_us, mine.model_version
    )
    same = (getattr(other.c, name) == getattr(mine, name) for name in ("product", "as_of_us", "subject"))
    return ~sa.exists().where(*same, later).correlate(_RESULTS)


def _insert(
    connection: sa.Connection, table: sa.Table, product: str, frames: Iterable[pl.DataFrame], columns: Iterable[str]
) -> int:
    count = 0
    for frame in frames:
        named = frame.select(pl.lit(product).alias("product"), *columns)
        for part in named.iter_slices(_INSERTED_ROWS):
            connection.execute(sa.insert(table), part.to_dicts())
            count += part.height
    return count


def _prepare_sqlite(connection: Any, _record: object) -> None:  # Any: the driver's own connection
    connection.execute(f"PRAGMA busy_timeout = {int(_LOCK_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA journal_mode = WAL")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise Overtaken(f"results database: another has written the same rows ({error.orig}); repeat") from error
    except OperationalError as error:
        raise TransientFailure(f"results database: {error.orig}") from error
