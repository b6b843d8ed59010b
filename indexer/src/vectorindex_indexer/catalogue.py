"""Looks up in Postgres' catalogue what the source's tables and columns are, and refuses what can't be proven; reads no row of them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import psycopg
from psycopg.rows import class_row

from vectorindex_indexer.config import ColumnTombstone, IndexSpec, MetadataTombstone, SourceSpec, TableName
from vectorindex_indexer.ddl import Columns
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.names import SourceReason
from vectorindex_indexer.predicate import DeletedKind

ID_TYPES: Final = ("bigint", "integer", "smallint")
VECTOR_TYPES: Final = ("bytea", "vector")
MODEL_TYPES: Final = ("text", "character varying")
DELETED_TYPES: Final = {
    "boolean": DeletedKind.BOOLEAN,
    "timestamp with time zone": DeletedKind.TIMESTAMP,
    "timestamp without time zone": DeletedKind.TIMESTAMP,
}

_RELATION_KINDS: Final = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a composite type",
    "t": "a TOAST table",
}
_SUPPORTED_KINDS: Final = ("r", "p")  # ordinary and partitioned tables


@dataclass(frozen=True)
class Vectors:
    """How a vector column stores and sends vectors."""

    type: str  # `bytea` or `vector`
    schema: str  # where the type and its send function live
    dimension: int

    @property
    def header_bytes(self) -> int:
        """Bytes before the first element on the wire: `vector` sends its dimension and an unused field."""
        return 4 if self.type == "vector" else 0

    @property
    def wire_bytes(self) -> int:
        """Bytes of one well-formed vector on the wire."""
        return self.header_bytes + 4 * self.dimension

    def dimension_of(self, wire_bytes: int) -> str:
        """Say in words what a wire form of this many bytes holds."""
        elements, rest = divmod(wire_bytes - self.header_bytes, 4)
        return f"{elements}" if rest == 0 else f"{wire_bytes} bytes, which is no whole number of float32 elements"


@dataclass(frozen=True)
class Layout:
    """What the catalogue says about a source, in one snapshot."""

    fingerprint: str  # relation, number, type and modifier of each column used
    vectors: Vectors
    deleted: DeletedKind | None
    id_index: bool  # an index serves ranges of ids
    is_partitioned: bool


class _Wanted(NamedTuple):
    table: TableName
    column: str
    types: Sequence[str]
    field: str


@dataclass(frozen=True)
class _Relation:
    oid: int
    kind: str
    hides_rows: bool


@dataclass(frozen=True)
class _Column:
    oid: int
    name: str
    number: int
    type: str
    type_schema: str
    modifier: int
    deterministic: bool


_FIND_RELATION: Final = """
SELECT c.oid::bigint AS oid, c.relkind::text AS kind, row_security_active(c.oid) AS hides_rows
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s"""

# Types of pg_catalog by their standard name, others by their own: an extension may live in any schema.
_FIND_COLUMNS: Final = """
SELECT a.attrelid::bigint AS oid, a.attname::text AS name, a.attnum::int AS number,
       CASE WHEN y.typnamespace = 'pg_catalog'::regnamespace THEN format_type(y.oid, NULL) ELSE y.typname::text END AS type,
       s.nspname::text AS type_schema, a.atttypmod AS modifier, coalesce(l.collisdeterministic, true) AS deterministic
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
JOIN pg_catalog.pg_namespace s ON s.oid = y.typnamespace
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
WHERE a.attrelid = %(oid)s::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY(%(names)s)"""

_HAS_ID_INDEX: Final = """
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
  JOIN pg_catalog.pg_am m ON m.oid = x.relam
  WHERE i.indrelid = %(oid)s::bigint::oid AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'
    AND (i.indkey[0] = %(id)s OR (i.indkey[0] = %(model)s AND i.indkey[1] = %(id)s)))"""


def read_layout(connection: psycopg.Connection, spec: SourceSpec, index: IndexSpec) -> Layout:
    """Describe the source. Raise SourceError where a relation or column is missing, hidden or of a kind that can't be proven."""
    relations = {table: _read_relation(connection, table) for table in tables_of(spec)}
    wanted = _wanted_columns(spec)
    found: dict[tuple[TableName, str], _Column] = {}
    for table, relation in relations.items():
        names = sorted({want.column for want in wanted if want.table == table})
        found |= {(table, column.name): column for column in _read_columns(connection, relation.oid, names)}
    for want in wanted:
        _check_column(want, found.get((want.table, want.column)))
    vector = found[spec.table, spec.vector_column]
    _check_modifier(spec, index, vector)
    return Layout(
        fingerprint=_fingerprint(found[want.table, want.column] for want in wanted),
        vectors=Vectors(vector.type, vector.type_schema, index.dimension),
        deleted=_deleted_kind(spec, found),
        id_index=_has_id_index(connection, spec, found),
        is_partitioned=relations[spec.table].kind == "p",
    )


def describe_columns(layout: Layout) -> Columns:
    """Return what the SQL that prepares Postgres must know of a layout."""
    return Columns(
        vector_type=layout.vectors.type,
        vector_schema=layout.vectors.schema,
        deleted=layout.deleted or DeletedKind.BOOLEAN,
        is_partitioned=layout.is_partitioned,
        has_id_index=layout.id_index,
        looked_up=True,
    )


def tables_of(spec: SourceSpec) -> list[TableName]:
    """Name all tables that the live-row predicate looks at, each once."""
    tables = [spec.table]
    if isinstance(spec.tombstone, MetadataTombstone) and spec.tombstone.table != spec.table:
        tables.append(spec.tombstone.table)
    return tables


def _wanted_columns(spec: SourceSpec) -> list[_Wanted]:
    wanted = [_Wanted(spec.table, spec.id_column, ID_TYPES, "id"), _Wanted(spec.table, spec.vector_column, VECTOR_TYPES, "vector")]
    if spec.model_column is not None:
        wanted.append(_Wanted(spec.table, spec.model_column, MODEL_TYPES, "model"))
    if isinstance(spec.tombstone, ColumnTombstone):
        wanted.append(_Wanted(spec.table, spec.tombstone.column, tuple(DELETED_TYPES), "tombstone"))
    if isinstance(spec.tombstone, MetadataTombstone):
        metadata = spec.tombstone
        wanted.append(_Wanted(metadata.table, metadata.id, ID_TYPES, "metadata id"))
        wanted.append(_Wanted(metadata.table, metadata.deleted, tuple(DELETED_TYPES), "metadata tombstone"))
        if metadata.model is not None:
            wanted.append(_Wanted(metadata.table, metadata.model, MODEL_TYPES, "metadata model"))
    return wanted


def _read_relation(connection: psycopg.Connection, table: TableName) -> _Relation:
    with connection.cursor(row_factory=class_row(_Relation)) as cursor:
        relation = cursor.execute(_FIND_RELATION, {"schema": table.schema, "name": table.name}).fetchone()
    if relation is None:
        raise SourceError(SourceReason.TABLE_MISSING, f"table {table} does not exist")
    if relation.kind not in _SUPPORTED_KINDS:
        kind = _RELATION_KINDS.get(relation.kind, "no table")
        raise SourceError(SourceReason.TYPE_UNSUPPORTED, f"{table} is {kind}; supported are ordinary and partitioned tables")
    if relation.hides_rows:
        raise SourceError(
            SourceReason.ROW_SECURITY,
            f"row security of table {table} may hide rows from our role; give it a role with BYPASSRLS, or a table without policies",
        )
    return relation


def _read_columns(connection: psycopg.Connection, oid: int, names: Sequence[str]) -> list[_Column]:
    with connection.cursor(row_factory=class_row(_Column)) as cursor:
        return cursor.execute(_FIND_COLUMNS, {"oid": oid, "names": list(names)}).fetchall()


def _check_column(want: _Wanted, column: _Column | None) -> None:
    where = f"column {want.column!r} of table {want.table}"
    if column is None:
        raise SourceError(SourceReason.COLUMN_MISSING, f"{where} ({want.field}) does not exist")
    if column.type not in want.types:
        supported = ", ".join(want.types)
        raise SourceError(SourceReason.TYPE_UNSUPPORTED, f"{where} ({want.field}) has type {column.type}; supported are {supported}")
    if not column.deterministic:
        raise SourceError(
            SourceReason.TYPE_UNSUPPORTED,
            f"{where} ({want.field}) has a non-deterministic collation: other keys could compare equal; supported are deterministic ones",
        )


def _check_modifier(spec: SourceSpec, index: IndexSpec, vector: _Column) -> None:
    if vector.type == "vector" and vector.modifier not in (-1, index.dimension):
        where = f"column {spec.vector_column!r} of table {spec.table}"
        raise SourceError(SourceReason.DIMENSION_MISMATCH, f"{where}: expected dimension {index.dimension}, got vector({vector.modifier})")


def _deleted_kind(spec: SourceSpec, found: dict[tuple[TableName, str], _Column]) -> DeletedKind | None:
    if isinstance(spec.tombstone, ColumnTombstone):
        return DELETED_TYPES[found[spec.table, spec.tombstone.column].type]
    if isinstance(spec.tombstone, MetadataTombstone):
        return DELETED_TYPES[found[spec.tombstone.table, spec.tombstone.deleted].type]
    return None


def _has_id_index(connection: psycopg.Connection, spec: SourceSpec, found: dict[tuple[TableName, str], _Column]) -> bool:
    row_id = found[spec.table, spec.id_column]
    model = 0 if spec.model_column is None else found[spec.table, spec.model_column].number
    answer = connection.execute(_HAS_ID_INDEX, {"oid": row_id.oid, "id": row_id.number, "model": model}).fetchone()
    return answer == (True,)


def _fingerprint(columns: Iterable[_Column]) -> str:
    text = ";".join(f"{column.oid}.{column.number}:{column.type_schema}.{column.type}({column.modifier})" for column in columns)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
