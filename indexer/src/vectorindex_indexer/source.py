"""Reads the source, one unit of work at a time: own connection, one locked snapshot, always ended. Judging what was read is left to others.

Which rows exist is said by `predicate.LiveRows` alone; no statement here reaches a vector on another way.
"""

import contextlib
import dataclasses
import select
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any, Final

import numpy as np
import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects import postgresql

from vectorindex_indexer.catalogue import Layout, describe_columns, read_layout, tables_of
from vectorindex_indexer.config import IndexSpec, SourceSpec, TableName
from vectorindex_indexer.connect import Connector, statement_error
from vectorindex_indexer.ddl import Columns
from vectorindex_indexer.deadline import Deadline
from vectorindex_indexer.digest import EMPTY, NULL_MARKER, Digest, digest_spec
from vectorindex_indexer.errors import NullSumError, SourceError
from vectorindex_indexer.keys import Ids, of_values, value_at
from vectorindex_indexer.keys_sql import Clause, Column, Within, bigint, everywhere, none_of
from vectorindex_indexer.names import SourceReason
from vectorindex_indexer.predicate import compile_statement
from vectorindex_indexer.rows import AsOf, Heads, Range, Rows, Survey, Totals
from vectorindex_indexer.stream import Bytes
from vectorindex_indexer.vectors import VectorType
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

CHUNK_ROWS: Final = 4096
"""Rows in one piece of a stream. Two of them are in memory at a time."""

_ZERO: Final[Column] = sa.literal_column("0")
_ONE: Final[Column] = sa.literal_column("1")
_NO_DIGEST: Final[Column] = sa.literal_column("decode(repeat('00', 16), 'hex')")


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
        self._spec = source.spec
        self._index = source.index
        self._layout = layout
        self._keys = layout.keys
        self._live = layout.live_rows(source.spec)
        self.as_of = as_of
        self.id_kind = layout.keys.kind
        self.id_index = layout.id_index  # an index serves ranges of ids
        self.vector_type = layout.vectors.type
        self.digest_spec = digest_spec(self.id_kind, layout.vectors.type, self._live.fingerprint)

    @property
    def has_stamps(self) -> bool:
        """Tell whether the rows have versions; those of a view have none."""
        return self._layout.has_versions

    @property
    def has_stored_digests(self) -> bool:
        """Tell whether Postgres keeps the digests of rows in columns."""
        return self._layout.stored is not None

    def count_live(self) -> int:
        """Count the live rows."""
        return self._count(self._live.clause)

    def survey(self, live: int) -> Survey:
        """Tell what there is beside the `live` rows that were counted."""
        rows = self._live
        matching = live or self._count(rows.key)
        metadata_matching, metadata_any = self._look_at_metadata()
        return Survey(
            live=live,
            matching=matching,
            total_any=matching > 0 or self._exists(sa.select(_ONE).select_from(rows.table)),
            other_models=() if matching else self._other_models(),
            suffix_match=None if matching else self._suffix_match(),
            metadata_matching=metadata_matching,
            metadata_any=metadata_any,
        )

    def totals(self, bounds: Ids, one: Range) -> Totals:
        """Count the rows of each bucket in a range, and add up their stamps or, where Postgres stores them, their digests.

        `bounds`: the boundaries inside the range, ascending, each the first id of a bucket; n of them make n + 1 buckets.

        A stored digest is what Postgres made of a row when it was written. It proves nothing of the bytes that lie there now, nor that the
        column holds what it should. So it must be compared with what `digests` or `heads` make of the bytes of the same bucket, wherever
        they are asked for in the same unit, and with the ledger's, which a replica made itself of what it received. Where only the stored
        ones differ from the bytes, the columns are wrong, and nothing that rests on them may be called proven.
        """
        stored = self._layout.stored
        if stored is None:
            return self._stamp_totals(bounds, one)
        # To go from range to range is twice as fast as to look for the bucket of each row, but only in an index that has all that is asked
        # for; where metadata is asked as well, it might be read as a whole for each range.
        by_range = stored.has_index and self._live.metadata is None and bounds.size > 0
        digests = self._stored_by_range(bounds, one) if by_range else self._stored_by_bucket(bounds, one)
        return Totals(np.array([digest.count for digest in digests], np.int64), None, digests)

    def digests(self, ranges: Sequence[Range]) -> list[Digest]:
        """Digest the content of ranges from the bytes themselves. The ranges must ascend and not overlap."""
        runs = list(_runs(ranges)) if self.id_index else [list(ranges)]
        return [digest for run in runs for digest in self._digests_in_one_pass(run)]

    def digest_without(self, one: Range, excluded_id: int | bytes) -> Digest:
        """Digest a range as if one id weren't there: a check that can see must see the difference."""
        within = self._within(one)
        others = none_of(self._keys.any_of(of_values([excluded_id], self.id_kind)))
        return self._digest_of(lambda column: sa.and_(within(column), others(column)))

    def heads(self, one: Range) -> Heads:
        """Read id, stamp and digest of each row of a range."""
        live = self._live.relation(self._within(one))
        digest = sa.func.substr(self._sha256(live), 1, 16).label("digest")
        query = sa.select(self._keys.short(live.c.id), live.c.stamp, digest).order_by(live.c.key, digest)
        return parse_heads(self._copy(query), self.id_kind)

    def rows(self, ids: Ids) -> Rows:
        """Read all rows of the given ids."""
        wanted = np.unique(ids)
        parts: list[Rows] = []
        for start in range(0, len(wanted), IDS_PER_READ):
            within = self._keys.any_of(wanted[start : start + IDS_PER_READ])
            parts += self._read(within, IDS_PER_READ, digests=True)
        return Rows.concatenate(parts, self._index.dimension, self.id_kind)

    def stream(self, one: Range, chunk_rows: int = CHUNK_ROWS, *, digests: bool = True) -> Iterator[Rows]:
        """Read all rows of a range in pieces.

        Where an index serves ranges, they come in the order of ids, and the rows of one id are always in one piece. Else they come
        as they lie in the table, each piece in order by itself: to sort whole rows would cost more than all the rest.
        """
        if self.id_index:
            return self._read(self._within(one), chunk_rows, digests=digests)
        return self._read(self._within(one), chunk_rows, digests=digests, repeated=self._find_repeated(one))

    def next_range(self, after: int | bytes | None, rows: int) -> tuple[Range, bool]:
        """Return the range from `after` on (None: from the lowest id) that holds about so many live rows, and whether it is the last."""
        key = self._live.relation(self._within(Range(after, None))).c.key
        ((end,),) = self._fetch(sa.select(sa.select(key).order_by(key).offset(_number(rows)).limit(_ONE).scalar_subquery()))
        end = self._of_python(end)
        if end is not None and end == after:  # one id that occurs as often as that
            ((end,),) = self._fetch(sa.select(sa.func.min(key)).where(key > self._keys.value(after)))
            end = self._of_python(end)
        return Range(after, end), end is None

    def sample_ids(self, count: int) -> Ids:
        """Return ids of so many live rows, drawn at random, in order; fewer where there are fewer."""
        live = self._live.relation(everywhere)
        drawn = sa.select(live.c.key, live.c.id).order_by(sa.func.random()).limit(_number(count)).subquery("drawn")
        query = sa.select(self._keys.short(drawn.c.id), bigint(_ZERO), _NO_DIGEST).order_by(drawn.c.key)
        return np.unique(parse_heads(self._copy(query), self.id_kind).ids)

    def check_width(self) -> bool:
        """Look at the width of some rows; tell whether one was right. Raise SourceError when all have one other width."""
        live = self._live.relation(everywhere)
        sample = sa.select(self._width(live).label("width")).limit(_number(SAMPLE_ROWS))
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

    # --- adding up

    def _stamp_totals(self, bounds: Ids, one: Range) -> Totals:
        live = self._live.relation(self._within(one))
        placed = _fenced(sa.select(self._bucket(live, bounds), live.c.stamp))
        sums = [sa.func.count(placed.c.stamp), sa.func.sum(placed.c.stamp)] if self.has_stamps else []
        counts = np.zeros(len(bounds) + 1, np.int64)
        stamps = np.zeros(len(bounds) + 1, np.uint64)
        for at, count, *summed in self._fetch(sa.select(placed.c.bucket, sa.func.count(), *sums).group_by(placed.c.bucket)):
            counts[at] = count
            if summed:
                stamps[at] = _exact(count, *summed) % (1 << 64)
        return Totals(counts, stamps if self.has_stamps else None, None)

    def _stored_by_bucket(self, bounds: Ids, one: Range) -> list[Digest]:
        live = self._live.relation(self._within(one))
        bucket = self._bucket(live, bounds)
        found = {at: _stored_digest(*sums) for at, *sums in self._fetch(sa.select(bucket, *_stored_sums(live)).group_by(bucket))}
        return [found.get(at, EMPTY) for at in range(len(bounds) + 1)]

    def _stored_by_range(self, bounds: Ids, one: Range) -> list[Digest]:
        first, last = (value_at(bounds, place, self.id_kind) for place in (0, bounds.size - 1))
        return [
            *self._stored_by_bucket(bounds[:0], Range(one.low, first)),
            *self._stored_between(bounds),
            *self._stored_by_bucket(bounds[:0], Range(last, one.high)),
        ]

    def _stored_between(self, bounds: Ids) -> Iterator[Digest]:
        """Add up what lies between each boundary and the next."""
        low: Column = sa.literal_column("bucket.low")
        high: Column = sa.literal_column("bucket.high")
        edges = sa.func.unnest(self._keys.array(bounds[:-1]), self._keys.array(bounds[1:]))
        buckets = edges.table_valued("low", "high", with_ordinality="place").render_derived("bucket")
        live = self._live.relation(lambda column: sa.and_(self._keys.ordered(column) >= low, self._keys.ordered(column) < high))
        sums = sa.select(*_stored_sums(live)).lateral("sums")
        query = sa.select(*sums.c).select_from(buckets.join(sums, sa.true())).order_by(buckets.c.place)
        return (_stored_digest(*found) for found in self._fetch(query))

    # --- counting

    def _count(self, clause: Clause) -> int:
        ((count,),) = self._fetch(sa.select(sa.func.count()).select_from(self._live.table).where(clause))
        return int(count)

    def _look_at_metadata(self) -> tuple[int | None, bool]:
        rows = self._live
        if rows.metadata is None:
            return None, False
        belongs = sa.exists(sa.select(_ONE).select_from(rows.table).where(rows.metadata_of_row(), rows.key).correlate(rows.metadata))
        matching = self._exists(sa.select(_ONE).select_from(rows.metadata).where(rows.metadata_keyed(), belongs))
        return int(matching), matching or self._exists(sa.select(_ONE).select_from(rows.metadata))

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
            if self._exists(sa.select(_ONE).select_from(self._live.table).where(column == sa.literal(shorter, sa.Text))):
                return shorter
            shorter, colon, _ = shorter.rpartition(":")
        return None

    def _exists(self, query: "sa.Select[Any]") -> bool:
        ((found,),) = self._fetch(sa.select(sa.exists(query)))
        return bool(found)

    def _find_repeated(self, one: Range) -> Ids:
        """Return the ids that more than one live row has. Only ids are sorted or hashed for it."""
        live = self._live.relation(self._within(one))
        repeated = sa.select(live.c.id).group_by(live.c.id).having(sa.func.count() > _ONE).subquery("repeated")
        query = sa.select(self._keys.short(repeated.c.id), bigint(_ZERO), _NO_DIGEST).order_by(self._keys.ordered(repeated.c.id))
        return parse_heads(self._copy(query), self.id_kind).ids

    # --- content

    def _within(self, one: Range) -> Within:
        """Narrow a read to a range."""
        return self._keys.between(one.low, one.high)

    def _bucket(self, live: sa.Subquery, bounds: Ids) -> sa.Label[Any]:
        if not bounds.size:
            return sa.cast(_ZERO, sa.Integer).label("bucket")
        return sa.func.width_bucket(live.c.key, self._keys.array(bounds)).label("bucket")

    def _wire(self, live: sa.Subquery) -> Column:
        """Make the expression of the bytes that a vector has on the wire."""
        vectors = self._layout.vectors
        if vectors.send_function is None:
            return live.c.vector
        schema = getattr(sa.func, sa.quoted_name(vectors.schema, quote=True))
        return sa.cast(getattr(schema, vectors.send_function)(live.c.vector), postgresql.BYTEA)

    def _width(self, live: sa.Subquery) -> Column:
        """Make the expression of the bytes that a vector should have on the wire, by the number of its elements."""
        vectors = self._layout.vectors
        if vectors.type is not VectorType.FLOAT4_ARRAY:
            return sa.func.octet_length(self._wire(live))
        elements = sa.func.cardinality(live.c.vector)  # NULLs among them have no bytes
        return elements * _number(vectors.element_bytes) + _number(len(vectors.header))

    def _sha256(self, live: sa.Subquery) -> Column:
        marker: Column = sa.literal_column(f"'\\x{NULL_MARKER.hex()}'::bytea")
        return sa.func.sha256(self._keys.bytes(live.c.id).op("||")(sa.func.coalesce(self._wire(live), marker)))

    def _digest_of(self, within: Within) -> Digest:
        live = self._live.relation(within)
        hashed = _fenced(sa.select(self._hex(live)))
        (sums,) = self._fetch(sa.select(*_sums(hashed)))
        return _digest_of_sums(*sums)

    def _digests_in_one_pass(self, ranges: Sequence[Range]) -> list[Digest]:
        """Digest ranges by one read of all that lies from the first to the last."""
        if len(ranges) < 2:
            return [self._digest_of(self._within(one)) for one in ranges]
        bounds = sorted({bound for one in ranges for bound in (one.low, one.high) if bound is not None})
        places = {bound: at + 1 for at, bound in enumerate(bounds)}
        buckets = [0 if one.low is None else places[one.low] for one in ranges]
        live = self._live.relation(self._within(Range(ranges[0].low, ranges[-1].high)))
        bucket = self._bucket(live, of_values(bounds, self.id_kind))
        query = sa.select(bucket, self._hex(live))
        if len(list(_runs(ranges))) > 1:  # only where there are gaps: Postgres takes this for very few rows, and would join them as such
            query = query.where(bucket.element == sa.any_(sa.literal(buckets, postgresql.ARRAY(sa.Integer))))
        hashed = _fenced(query)
        found = self._fetch(sa.select(hashed.c.bucket, *_sums(hashed)).group_by(hashed.c.bucket))
        digests = {at: _digest_of_sums(*sums) for at, *sums in found}
        return [digests.get(at, EMPTY) for at in buckets]

    def _hex(self, live: sa.Subquery) -> sa.Label[Any]:
        return sa.func.encode(self._sha256(live), sa.literal_column("'hex'")).label("hex")

    def _read(self, within: Within, chunk_rows: int, *, digests: bool, repeated: Ids | None = None) -> Iterator[Rows]:
        live = self._live.relation(within)
        query = sa.select(self._keys.whole(live.c.id), live.c.stamp, live.c.vector)
        ordered = query.order_by(live.c.key) if repeated is None else query
        parser = RowParser(self._layout.vectors, self._index.metric, self.id_kind)
        return parser.parse(self._copy(ordered), chunk_rows, digests=digests, repeated=repeated)

    def _of_python(self, value: int | str | uuid.UUID | None) -> int | bytes | None:
        """Return an id as psycopg gives it in our form."""
        match value:
            case uuid.UUID():
                return value.bytes
            case str():
                return value.encode()
        return value

    # --- talking to Postgres

    def _fetch(self, query: sa.ClauseElement) -> list[tuple[Any, ...]]:
        text, values = compile_statement(query)
        with self._guard, self._connection.cursor(binary=True) as cursor:
            return cursor.execute(text.encode(), values).fetchall()

    def _copy(self, query: sa.ClauseElement) -> Iterator[Bytes]:
        text, values = compile_statement(query)
        command = f"COPY ({text}) TO STDOUT (FORMAT binary)".encode()
        with self._guard, self._connection.cursor() as cursor, cursor.copy(command, values):
            yield from _receive(self._connection)


def _receive(connection: psycopg.Connection) -> Iterator[memoryview]:
    """Give what a COPY sends, as it comes.

    The same as to iterate over psycopg's Copy, but in less time: this is done for each row.
    """
    raw = connection.pgconn
    arrival = select.poll()
    arrival.register(raw.socket, select.POLLIN)
    get = raw.get_copy_data
    while True:
        size, block = get(1)  # 1: don't wait inside of it, where every other thread would wait, too
        if size > 0:
            yield block
        elif size == 0:
            arrival.poll()
            raw.consume_input()
        else:
            break
    while raw.is_busy():
        arrival.poll()
        raw.consume_input()
    while (result := raw.get_result()) is not None:
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)


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


def _stored_sums(live: sa.Subquery) -> list[Column]:
    """Make the columns of a stored digest: rows, rows that have one, and the sums of both halves as exact integers."""
    first, second = live.c.first, live.c.second
    stored = sa.func.least(sa.func.count(first), sa.func.count(second))
    return [sa.func.count().label("rows"), stored.label("stored"), sa.func.sum(first).label("high"), sa.func.sum(second).label("low")]


def _stored_digest(count: int, stored: int, high: int | None, low: int | None) -> Digest:
    if count != stored:
        raise NullSumError(f"{count - stored} live rows have no digest in the digest columns")
    return _digest_of_sums(count, stored, high, low)


def _digest_of_sums(count: int, hashed: int, high: int | None, low: int | None) -> Digest:
    return Digest.of_sums(count, _exact(count, hashed, high), _exact(count, hashed, low))


def _exact(count: int, summed: int, total: int | None) -> int:
    """Take a sum for what it is: of all rows counted. Two sums that are NULL must not pass for equal."""
    if count != summed or (count and total is None):
        raise NullSumError(f"Postgres counted {count} rows, but summed up {summed} of them")
    return int(total or 0)


def _runs(ranges: Sequence[Range]) -> Iterator[list[Range]]:
    """Part ranges where there is something between two of them: each run can be read at once, and nothing else with it."""
    run: list[Range] = []
    for one in ranges:
        if run and (one.low is None or one.low != run[-1].high):
            yield run
            run = []
        run.append(one)
    if run:
        yield run


def _number(value: int) -> Column:
    return sa.literal_column(str(value))
