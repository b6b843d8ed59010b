"""Looks up in Postgres' catalogue whether the digest columns of a source are what they have to be, and what index they have.

That a column is generated and stored says that Postgres keeps it up to date, not what it holds. What it holds is proven by use: a replica
compares the sums of these columns with digests it made itself of the bytes it received, see `source.Unit.totals`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.rows import class_row

from vectorindex_indexer.config import ColumnTombstone, SourceSpec
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.names import SourceReason
from vectorindex_indexer.predicate import DeletedKind

REMEDY: Final = "`vectorindex-indexer sql` prints what is needed"

_FIND_COLUMNS: Final = """
SELECT a.attname::text AS name, a.attnum::int AS number, format_type(a.atttypid, a.atttypmod) AS type, a.attgenerated::text AS generated,
       coalesce(md5(pg_get_expr(d.adbin, d.adrelid)), '') AS expression
FROM pg_catalog.pg_attribute a
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %(oid)s::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY(%(names)s)"""

# The planner takes a partial index only where the live-row predicate implies its clause, and of `NOT deleted` it does not see that.
_HAS_INDEX: Final = """
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
  JOIN pg_catalog.pg_am m ON m.oid = x.relam
  WHERE i.indrelid = %(oid)s::bigint::oid AND i.indisvalid AND m.amname = 'btree'
    AND (i.indkey[0] = %(id)s OR (i.indkey[0] = %(model)s AND i.indkey[1] = %(id)s))
    AND %(first)s = ANY(i.indkey) AND %(second)s = ANY(i.indkey)
    AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) = format(%(only)s, %(deleted)s::text)))"""

_CLAUSES: Final = {DeletedKind.BOOLEAN: "(%I IS FALSE)", DeletedKind.TIMESTAMP: "(%I IS NULL)"}


@dataclass(frozen=True)
class StoredDigests:
    """The digest columns of a table."""

    has_index: bool  # one that serves ranges of live ids and holds both columns
    fingerprint: str  # changes with number or expression of a column


@dataclass(frozen=True)
class _Column:
    name: str
    number: int
    type: str
    generated: str
    expression: str


@dataclass(frozen=True)
class Place:
    """Where to look: the relation, and the numbers of its id and model columns (0 without a model)."""

    oid: int
    is_view: bool
    id_number: int
    model_number: int


def read_stored_digests(
    connection: psycopg.Connection, spec: SourceSpec, place: Place, deleted: DeletedKind | None
) -> StoredDigests | None:
    """Describe the digest columns; None where the manifest names none. Raise SourceError where they can't be relied on to be kept up."""
    if spec.digest_columns is None:
        return None
    if place.is_view:
        raise SourceError(SourceReason.TYPE_UNSUPPORTED, f"{spec.table} is a view, which has no stored digest columns: take digests out")
    with connection.cursor(row_factory=class_row(_Column)) as cursor:
        found = cursor.execute(_FIND_COLUMNS, {"oid": place.oid, "names": list(spec.digest_columns)}).fetchall()
    by_name = {column.name: column for column in found}
    first, second = (_check(spec, name, by_name.get(name)) for name in spec.digest_columns)
    return StoredDigests(
        has_index=_has_index(connection, spec, place, deleted, (first.number, second.number)),
        fingerprint=";".join(f"{column.number}:{column.expression}" for column in (first, second)),
    )


def _check(spec: SourceSpec, name: str, column: _Column | None) -> _Column:
    where = f"digest column {name!r} of table {spec.table}"
    if column is None:
        raise SourceError(SourceReason.COLUMN_MISSING, f"{where} does not exist; {REMEDY}")
    if column.type != "bigint":
        raise SourceError(SourceReason.TYPE_UNSUPPORTED, f"{where} has type {column.type}, needed is bigint; {REMEDY}")
    if column.generated != "s":
        what = "is generated, but not STORED" if column.generated else "is an ordinary column, which nobody keeps up to date"
        raise SourceError(SourceReason.TYPE_UNSUPPORTED, f"{where} {what}: needed is GENERATED ALWAYS ... STORED; {REMEDY}")
    return column


def _has_index(connection: psycopg.Connection, spec: SourceSpec, place: Place, deleted: DeletedKind | None, digests: Sequence[int]) -> bool:
    column = spec.tombstone.column if isinstance(spec.tombstone, ColumnTombstone) else None
    values = {
        "oid": place.oid,
        "id": place.id_number,
        "model": place.model_number,
        "first": digests[0],
        "second": digests[1],
        "only": None if column is None or deleted is None else _CLAUSES[deleted],
        "deleted": column,
    }
    return connection.execute(_HAS_INDEX, values).fetchone() == (True,)
