"""Reads the source, one unit of work at a time: own connection, one locked snapshot, always ended. Judging what was read is left to others.

Which rows exist is said by `predicate.LiveRows` alone; no statement here reaches a vector on another way.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any, Final

import numpy as np
import psycopg
import sqlalchemy as sa
from numpy.typing import NDArray
from psycopg import sql
from sqlalchemy.dialects import postgresql

from vectorindex_indexer import predicate
from vectorindex_indexer.catalogue import Layout, describe_columns, read_layout, tables_of
from vectorindex_indexer.config import IndexSpec, SourceSpec, TableName
from vectorindex_indexer.connect import Connector, statement_error
from vectorindex_indexer.ddl import Columns
from vectorindex_indexer.deadline import Deadline
from vectorindex_indexer.digest import EMPTY, NULL_MARKER, Digest, digest_spec
from vectorindex_indexer.errors import NullSumError, SourceError
from vectorindex_indexer.names import SourceReason
from vectorindex_indexer.predicate import Column, LiveRows, Within, between, compile_statement, everywhere
from vectorindex_indexer.rows import AsOf, Heads, Range, Rows, Survey, Totals
from vectorindex_indexer.wire import RowParser, parse_heads

LOCK_SECONDS: Final = 5
"""Longest wait for the lock on a table. Long enough for ordinary DDL; a longer wait would queue writers of DDL behind us."""

CATALOGUE_SECONDS: Final = 30.0
"""Longest wait for the catalogue alone."""

SAMPLE_ROWS: Final = 100
"""Rows whose width is looked at first. When all have one other width, the spec is wrong and not the rows."""

OTHER_MODELS: Final = 5
"""How many other model keys are named when ours matches nothing."""

IDS_PER_READ: Final = 20_000

_FEW_RANGES: Final = 16  # up to here, ranges are read one by one where an index serves them


class Source:
    """The rows of one VectorIndex in Postgres. Holds no connection; safe to use from several threads."""

    def __init__(self, spec: SourceSpec, index: IndexSpec, connector: Connector) -> None:
        self.spec = spec
        self.index = index
        self._connector = connector
        self._width_seen_in = ""  # fingerprint of the catalogue in which a row of the right width was seen

    @property
    def identity(self) -> str:
        """Name the source for people."""
        address = self.spec.postgres
        return f"{address.host}:{address.port}/{address.database} {self.spec.table}"

    @contextlib.contextmanager
    def unit(self, *, seconds: float) -> Iterator["Unit"]:
        """Open a unit of work: own connection, one read-only snapshot of locked tables, at most `seconds` long.

        However the block is left, the transaction is rolled back and the connection closed. Everything that goes wrong
        with Postgres, here or in a method of the unit, is raised as SourceError.
        """
        connection = self._connector.open()
        deadline = Deadline(connection, seconds)
        try:
            yield self._begin(connection, deadline)
        finally:
            # In the middle of a COPY that nobody reads on, a rollback would wait for ever; closing ends the transaction as well.
            if connection.info.transaction_status is not psycopg.pq.TransactionStatus.ACTIVE:
                with contextlib.suppress(psycopg.Error):
                    connection.rollback()
            connection.close()
            deadline.cancel()

    def look_up_columns(self) -> Columns:
        """Return what the catalogue says of the tables. Takes no right on them. Digest columns need not be there yet."""
        spec = dataclasses.replace(self.spec, digest_columns=None)
        with contextlib.closing(self._connector.open()) as connection:
            deadline = Deadline(connection, CATALOGUE_SECONDS)
            try:
                with _Guard(deadline, str(spec.table)):
                    _set_limits(connection, deadline.seconds)
                    return describe_columns(read_layout(connection, spec, self.index))
            finally:
                deadline.cancel()

    def _begin(self, connection: psycopg.Connection, deadline: Deadline) -> "Unit":
        guard = _Guard(deadline, " and ".join(map(str, tables_of(self.spec))))
        with guard:
            _set_limits(connection, deadline.seconds)
            for table in tables_of(self.spec):
                with _Guard(deadline, str(table)):
                    _lock(connection, table)
            in_recovery = connection.execute("SHOW in_hot_standby").fetchone() == ("on",)
            layout = read_layout(connection, self.spec, self.index)
            as_of = _read_as_of(connection, in_recovery, layout.fingerprint)
        unit = Unit(connection, guard, self, layout, as_of)
        if self._width_seen_in != layout.fingerprint and unit.check_width():
            self._width_seen_in = layout.fingerprint
        return unit


class Unit:
    """What can be read in one snapshot. Made by `Source.unit`, and of no use after its block."""

    def __init__(self, connection: psycopg.Connection, guard: "_Guard", source: "Source", layout: Layout, as_of: AsOf) -> None:
        self._connection = connection
        self._guard = guard
        self._spec = spec = source.spec
        self._index = source.index
        self._layout = layout
        self._live = LiveRows(spec, layout.deleted)
        self.as_of = as_of
        self.vector_type = layout.vectors.type
        self.digest_spec = digest_spec("int8", layout.vectors.type, self._live.fingerprint)

    def survey(self, _: int = 0) -> Survey:
        """Count what is live, and what there is besides."""
        live, matching = self._counts()
        table = self._live.table
        metadata_matching, metadata_any = self._metadata_counts()
        return Survey(
            live=live,
            matching=matching,
            total_any=matching > 0 or self._exists(sa.select(sa.literal_column("1")).select_from(table)),
            other_models=() if matching else self._other_models(),
            suffix_match=None if matching else self._suffix_match(),
            metadata_matching=metadata_matching,
            metadata_any=metadata_any,
        )

    has_stamps = True
    has_stored_digests = False

    @property
    def id_index(self) -> bool:
        """Whether an index serves ranges of ids."""
        return self._layout.id_index

    def totals(self, bounds: NDArray[np.int64], one: Range) -> Totals:
        """Count rows and add up stamps of each bucket.

        `bounds`: the inner boundaries, ascending, each the first id of a bucket; n of them make n + 1 buckets.
        """
        live = self._live.relation(_within(one))
        bucket = sa.func.width_bucket(live.c.id, _bigints(bounds)).label("bucket")
        query = sa.select(bucket, sa.func.count(), sa.func.count(live.c.stamp), sa.func.sum(live.c.stamp)).group_by(bucket)
        counts = np.zeros(len(bounds) + 1, np.int64)
        sums = np.zeros(len(bounds) + 1, np.uint64)
        for at, count, stamped, total in self._fetch(query):
            counts[at] = count
            sums[at] = _exact(count, stamped, total) % (1 << 64)
        return Totals(counts, sums, None)

    def digests(self, ranges: Sequence[Range]) -> list[Digest]:
        """Digest the content of ranges from the bytes themselves. The ranges must not overlap."""
        if len(ranges) <= _FEW_RANGES and (self._layout.id_index or len(ranges) == 1):
            return [self._digest_of(_within(one)) for one in ranges]
        return self._digests_in_one_pass(ranges)

    def digest_without(self, one: Range, excluded_id: Any) -> Digest:
        """Digest a range as if one id weren't there: a check that can see must see the difference."""
        within = _within(one)
        return self._digest_of(lambda column: sa.and_(within(column), column != sa.literal(excluded_id, sa.BigInteger)))

    def heads(self, one: Range) -> Heads:
        """Read id, stamp and digest of each row of a range."""
        live = self._live.relation(_within(one))
        digest = sa.func.substr(self._sha256(live), 1, 16).label("digest")
        return parse_heads(self._copy(sa.select(live.c.id, live.c.stamp, digest).order_by(live.c.key, digest)))

    def rows(self, ids: NDArray[np.int64]) -> Rows:
        """Read all rows of the given ids."""
        wanted = np.unique(ids)
        parts: list[Rows] = []
        for start in range(0, len(wanted), IDS_PER_READ):
            some = wanted[start : start + IDS_PER_READ].tolist()
            parts += self._read(predicate.any_of(some), IDS_PER_READ)
        return Rows.concatenate(parts, self._index.dimension)

    def stream(self, one: Range, chunk_rows: int = 50_000) -> Iterator[Rows]:
        """Read all rows of a range in pieces, ordered by id. The rows of one id are always in one piece."""
        return self._read(_within(one), chunk_rows)

    def check_width(self) -> bool:
        """Look at the width of some rows; tell whether one was right. Raise SourceError when all have one other width."""
        live = self._live.relation(everywhere)
        sample = sa.select(sa.func.octet_length(self._wire(live)).label("width")).limit(sa.literal_column(str(SAMPLE_ROWS)))
        counts = [row[0] for row in self._fetch(sa.select(sample.subquery().c.width)) if row[0] is not None]
        vectors = self._layout.vectors
        widths = set(counts)
        if len(widths) == 1 and vectors.wire_bytes not in widths:
            raise SourceError(
                SourceReason.DIMENSION_MISMATCH,
                f"column {self._spec.vector_column!r} of table {self._spec.table}: expected dimension {vectors.dimension}, "
                f"got {vectors.dimension_of(widths.pop())} (all of the first {len(counts)} live rows)",
            )
        return vectors.wire_bytes in widths

    # --- counting ---

    def _counts(self) -> tuple[int, int]:
        rows = self._live
        if rows.metadata is None:  # one pass; a FILTER that asks the metadata would be run for each row
            both = sa.select(sa.func.count().filter(rows.clause), sa.func.count()).select_from(rows.table).where(rows.key)
            ((live, matching),) = self._fetch(both)
            return live, matching
        ((live,),) = self._fetch(sa.select(sa.func.count()).select_from(rows.table).where(rows.clause))
        ((matching,),) = self._fetch(sa.select(sa.func.count()).select_from(rows.table).where(rows.key))
        return live, matching

    def _metadata_counts(self) -> tuple[int | None, bool]:
        rows = self._live
        if rows.metadata is None:
            return None, False
        one: Column = sa.literal_column("1")
        belongs = sa.exists(sa.select(one).select_from(rows.table).where(rows.metadata_of_row(), rows.key).correlate(rows.metadata))
        some = sa.select(one).select_from(rows.metadata).where(rows.metadata_keyed(), belongs).limit(sa.literal_column("1000"))
        ((matching,),) = self._fetch(sa.select(sa.func.count()).select_from(some.subquery()))
        return matching, matching > 0 or self._exists(sa.select(one).select_from(rows.metadata))

    def _other_models(self) -> tuple[str, ...]:
        """Name the first model keys of the table, jumping from one to the next: with an index, no scan."""
        if self._spec.model_column is None:
            return ()
        column = self._live.table.c[self._spec.model_column]
        found: list[str] = []
        query = sa.select(sa.func.min(column)).select_from(self._live.table)
        while len(found) < OTHER_MODELS:
            ((key,),) = self._fetch(query.where(column > sa.literal(found[-1], sa.Text)) if found else query)
            if key is None:
                break
            found.append(key)
        return tuple(sorted(found))

    def _suffix_match(self) -> str | None:
        if self._spec.model_column is None or self._spec.model is None:
            return None
        column = self._live.table.c[self._spec.model_column]
        shorter, colon, _ = self._spec.model.rpartition(":")
        while colon:
            one: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(self._live.table)
            if self._exists(one.where(column == sa.literal(shorter, sa.Text))):
                return shorter
            shorter, colon, _ = shorter.rpartition(":")
        return None

    def _exists(self, query: "sa.Select[Any]") -> bool:
        ((found,),) = self._fetch(sa.select(sa.exists(query)))
        return bool(found)

    # --- content ---

    def _wire(self, live: sa.Subquery) -> Column:
        """Make the expression of the bytes that a vector has on the wire."""
        vectors = self._layout.vectors
        if vectors.type == "bytea":
            return live.c.vector
        schema = getattr(sa.func, sa.quoted_name(vectors.schema, quote=True))
        return sa.cast(schema.vector_send(live.c.vector), postgresql.BYTEA)

    def _sha256(self, live: sa.Subquery) -> Column:
        marker: Column = sa.literal_column(f"'\\x{NULL_MARKER.hex()}'::bytea")
        content = sa.func.int8send(live.c.id).op("||")(sa.func.coalesce(self._wire(live), marker))
        return sa.func.sha256(content)

    def _digest_of(self, within: Within) -> Digest:
        live = self._live.relation(within)
        hashed = _fenced(sa.select(self._hex(live)))
        (sums,) = self._fetch(sa.select(*_sums(hashed)))
        return _digest_of_sums(*sums)

    def _digests_in_one_pass(self, ranges: Sequence[Range]) -> list[Digest]:
        """Digest many ranges by one read of the table, which needs no index."""
        bounds = sorted({bound for one in ranges for bound in (one.low, one.high) if bound is not None})
        buckets = [0 if one.low is None else bounds.index(one.low) + 1 for one in ranges]
        live = self._live.relation(_hull(ranges))
        bucket = sa.func.width_bucket(live.c.id, _bigints(bounds)).label("bucket")
        wanted = sa.literal(buckets, postgresql.ARRAY(sa.Integer))
        hashed = _fenced(sa.select(bucket, self._hex(live)).where(bucket.element == sa.any_(wanted)))
        found = self._fetch(sa.select(hashed.c.bucket, *_sums(hashed)).group_by(hashed.c.bucket))
        digests = {at: _digest_of_sums(*sums) for at, *sums in found}
        return [digests.get(at, EMPTY) for at in buckets]

    def _hex(self, live: sa.Subquery) -> sa.Label[Any]:
        return sa.func.encode(self._sha256(live), sa.literal_column("'hex'")).label("hex")

    def _read(self, within: Within, chunk_rows: int) -> Iterator[Rows]:
        live = self._live.relation(within)
        query = sa.select(live.c.id, live.c.stamp, live.c.vector).order_by(live.c.key)
        return RowParser(self._layout.vectors, self._index.metric).parse(self._copy(query), chunk_rows)

    # --- talking to Postgres ---

    def _fetch(self, query: sa.ClauseElement) -> list[tuple[Any, ...]]:
        text, values = compile_statement(query)
        with self._guard, self._connection.cursor(binary=True) as cursor:
            return cursor.execute(text.encode(), values).fetchall()

    def _copy(self, query: sa.ClauseElement) -> Iterator[bytes]:
        text, values = compile_statement(query)
        command = f"COPY ({text}) TO STDOUT (FORMAT binary)".encode()
        with self._guard, self._connection.cursor() as cursor, cursor.copy(command, values) as copy:
            for block in copy:
                yield bytes(block)


def _set_limits(connection: psycopg.Connection, seconds: float) -> None:
    """Begin the transaction, and bound it. SET takes no snapshot yet."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    connection.execute("SET LOCAL row_security = off")  # refuse rather than hide rows
    connection.execute("SET LOCAL search_path = pg_catalog")  # our functions and operators, nobody else's
    milliseconds = max(int(seconds * 1000), 1)
    limits = {
        "statement_timeout": milliseconds,
        "lock_timeout": min(milliseconds, LOCK_SECONDS * 1000),
        "idle_in_transaction_session_timeout": milliseconds,
        "max_parallel_workers_per_gather": 0,  # one unit of work loads at most one core of the server
        "jit": "off",
    }
    for name, value in limits.items():
        connection.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value)))


def _lock(connection: psycopg.Connection, table: TableName) -> None:
    """Lock a table, before the snapshot is taken: LOCK takes none, the first SELECT does.

    A TRUNCATE or rewriting ALTER that commits between a snapshot and the first access would show an empty table.
    """
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(table.schema, table.name)))


class _Guard:
    """Turns errors of psycopg into ours; `what` names the tables that were read."""

    def __init__(self, deadline: Deadline, what: str) -> None:
        self._deadline = deadline
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, psycopg.Error):
            return
        if self._deadline.is_over:
            message = f"no complete answer on {self._what} within {self._deadline.seconds:g} s; the connection was closed"
            raise SourceError(SourceReason.STATEMENT_CANCELLED, message, retryable=True) from None
        raise statement_error(error, self._what) from None


_AS_OF: Final = """
SELECT pg_current_snapshot()::text, pg_snapshot_xmin(pg_current_snapshot())::text,
       (SELECT system_identifier FROM pg_control_system())::text,
       CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
       extract(epoch FROM pg_postmaster_start_time())::text, transaction_timestamp()"""


def _read_as_of(connection: psycopg.Connection, in_recovery: bool, fingerprint: str) -> AsOf:
    (answer,) = connection.execute(_AS_OF).fetchall()
    snapshot, xmin, system, timeline, started, at = answer
    # pg_control_checkpoint() would name the old timeline for minutes after a promotion. A standby can't name its own reliably.
    standby = in_recovery or not timeline
    return AsOf(
        snapshot=f"{xmin}:{xmin}:" if standby else snapshot,  # the in-progress list of a standby is empty or wrong
        incarnation=f"{system}/standby/{started}" if standby else f"{system}/primary/{int(timeline, 16)}",
        fingerprint=fingerprint,
        at=at.astimezone(UTC),
        in_recovery=standby,
    )


def _fenced(query: "sa.Select[Any]") -> sa.Subquery:
    """Keep Postgres from merging a subquery: it would sort whole rows to group them, and hash each twice."""
    return query.offset(sa.literal_column("0")).subquery("hashed")


def _sums(hashed: sa.Subquery) -> list[Column]:
    """Make the columns of a digest: rows, hashed rows, and the sums of both halves as exact integers."""
    high, low = (sa.func.sum(_bits(hashed.c.hex, start)) for start in (1, 17))
    return [sa.func.count(), sa.func.count(hashed.c.hex), high, low]


def _bits(digest: Column, start: int) -> Column:
    """Make the 64-bit integer of 16 hex digits: Postgres before 18 casts bytes to integers no other way."""
    return sa.cast(sa.cast(sa.literal_column("'x'").op("||")(sa.func.substr(digest, start, 16)), postgresql.BIT(64)), sa.BigInteger)


def _digest_of_sums(count: int, hashed: int, high: int | None, low: int | None) -> Digest:
    return Digest.of_sums(count, _exact(count, hashed, high), _exact(count, hashed, low))


def _exact(count: int, summed: int, total: int | None) -> int:
    """Take a sum for what it is: of all rows counted. Two sums that are NULL must not pass for equal."""
    if count != summed or (count and total is None):
        raise NullSumError(f"Postgres counted {count} rows, but summed up {summed} of them")
    return int(total or 0)


def _bigints(values: Sequence[int] | NDArray[np.int64]) -> sa.BindParameter[Any]:
    return sa.literal([int(value) for value in values], postgresql.ARRAY(sa.BigInteger))


def _within(one: Range) -> Within:
    """Narrow a read to a range."""
    return between(one.low, one.high)


def _hull(ranges: Sequence[Range]) -> Within:
    """Narrow to the smallest range that holds all others."""
    lows = [one.low for one in ranges]
    highs = [one.high for one in ranges]
    low = None if None in lows else min(low for low in lows if low is not None)
    high = None if None in highs else max(high for high in highs if high is not None)
    return between(low, high)
