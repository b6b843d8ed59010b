"""Looks up in Postgres' catalogue what the source's columns are, and refuses what can't be proven; reads no row of them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import psycopg
from psycopg.rows import class_row

from vectorindex_indexer.config import ColumnTombstone, IndexSpec, MetadataTombstone, SourceSpec, TableName
from vectorindex_indexer.ddl import Columns
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.keys import IdKind
from vectorindex_indexer.keys_sql import KeySql
from vectorindex_indexer.names import SourceReason
from vectorindex_indexer.predicate import DeletedKind, LiveRows
from vectorindex_indexer.relations import Relation, read_relation
from vectorindex_indexer.stored import Place, StoredDigests, read_stored_digests
from vectorindex_indexer.vectors import Vectors, VectorType

ID_TYPES: Final = {
    "bigint": IdKind.INTEGER,
    "integer": IdKind.INTEGER,
    "smallint": IdKind.INTEGER,
    "uuid": IdKind.UUID,
    "text": IdKind.TEXT,
    "character varying": IdKind.TEXT,
}
VECTOR_TYPES: Final = {
    "bytea": VectorType.BYTEA,
    "vector": VectorType.VECTOR,
    "halfvec": VectorType.HALFVEC,
    "real[]": VectorType.FLOAT4_ARRAY,
}
MODEL_TYPES: Final = ("text", "character varying")
DELETED_TYPES: Final = {
    "boolean": DeletedKind.BOOLEAN,
    "timestamp with time zone": DeletedKind.TIMESTAMP,
    "timestamp without time zone": DeletedKind.TIMESTAMP,
}


@dataclass(frozen=True)
class Layout:
    """What the catalogue says about a source, in one snapshot."""

    fingerprint: str  # relation, number, type and modifier of each column used, and the text of views
    vectors: Vectors
    keys: KeySql
    deleted: DeletedKind | None
    has_versions: bool  # all rows are stored ones: no view is involved
    same_order: bool  # the ids of table and metadata have one collation
    id_index: bool  # an index serves ranges of ids
    is_partitioned: bool
    is_view: bool
    stored: StoredDigests | None

    def live_rows(self, spec: SourceSpec) -> LiveRows:
        """Make the live-row predicate."""
        return LiveRows(spec, self.deleted, self.keys, has_versions=self.has_versions, same_order=self.same_order)


class _Wanted(NamedTuple):
    table: TableName
    column: str
    types: Sequence[str]
    field: str


@dataclass(frozen=True)
class _Column:
    oid: int
    name: str
    number: int
    type: str
    type_schema: str
    modifier: int
    collation: int
    deterministic: bool
    byte_order: bool  # its collation sorts texts as their bytes in UTF-8
    generated: str  # the expression of a generated column
    virtual: bool  # a generated column that is not stored


_COLLATION_C: Final = 950  # the same number in every database

# Types of pg_catalog by their standard name, others by their own: an extension may live in any schema.
# The collations C and POSIX compare bytes, and so do all of Postgres' own provider, whose texts are in UTF-8.
_FIND_COLUMNS: Final = """
SELECT a.attrelid::bigint AS oid, a.attname::text AS name, a.attnum::int AS number,
       CASE WHEN y.typnamespace = 'pg_catalog'::regnamespace THEN format_type(y.oid, NULL) ELSE y.typname::text END AS type,
       s.nspname::text AS type_schema, a.atttypmod AS modifier, a.attcollation::bigint AS collation,
       coalesce(l.collisdeterministic, true) AS deterministic,
       coalesce(CASE l.collprovider WHEN 'd' THEN b.datlocprovider = 'b' OR (b.datlocprovider = 'c' AND b.datcollate IN ('C', 'POSIX'))
                                    WHEN 'c' THEN l.collcollate IN ('C', 'POSIX')
                                    ELSE l.collprovider = 'b' END, false) AS byte_order,
       coalesce(CASE WHEN a.attgenerated <> '' THEN pg_get_expr(e.adbin, e.adrelid) END, '') AS generated,
       a.attgenerated = 'v' AS virtual
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
JOIN pg_catalog.pg_namespace s ON s.oid = y.typnamespace
JOIN pg_catalog.pg_database b ON b.datname = current_database()
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_catalog.pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
WHERE a.attrelid = %(oid)s::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY(%(names)s)"""

# The index must order as we do: by the default operators, which those of text_pattern_ops are not, and in our collation.
_HAS_ID_INDEX: Final = """
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
  JOIN pg_catalog.pg_am m ON m.oid = x.relam
  CROSS JOIN LATERAL (
    SELECT CASE WHEN i.indkey[0] = %(id)s THEN 0 WHEN i.indkey[0] = %(model)s AND i.indkey[1] = %(id)s THEN 1 END AS place
  ) AS id
  JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[id.place]
  JOIN pg_catalog.pg_opfamily f ON f.oid = o.opcfamily AND f.opfname IN ('integer_ops', 'uuid_ops', 'text_ops')
  WHERE i.indrelid = %(oid)s::bigint::oid AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'
    AND i.indcollation[id.place]::bigint = %(collation)s)"""


def read_layout(connection: psycopg.Connection, spec: SourceSpec, index: IndexSpec) -> Layout:
    """Describe the source. Raise SourceError where a relation or column is missing, hidden or of a kind that can't be proven."""
    relations = {table: read_relation(connection, table) for table in tables_of(spec)}
    wanted = _wanted_columns(spec)
    found: dict[tuple[TableName, str], _Column] = {}
    for table, relation in relations.items():
        names = sorted({want.column for want in wanted if want.table == table})
        found |= {(table, column.name): column for column in _read_columns(connection, relation.oid, names)}
    for want in wanted:
        _check_column(want, found.get((want.table, want.column)))
    row_id, vector = found[spec.table, spec.id_column], found[spec.table, spec.vector_column]
    _check_modifier(spec, index, vector)
    same_order = _check_metadata_id(spec, found)
    keys, id_index = _choose_order(connection, spec, found, can_be_own=row_id.byte_order and same_order)
    if keys.kind is IdKind.TEXT:
        _check_encoding(connection, spec)
    deleted = _deleted_kind(spec, found)
    stored = read_stored_digests(connection, spec, _place(spec, found, relations[spec.table]), deleted)
    return Layout(
        fingerprint=_fingerprint((found[want.table, want.column] for want in wanted), relations.values(), stored),
        vectors=Vectors(VECTOR_TYPES[vector.type], vector.type_schema, index.dimension),
        keys=keys,
        deleted=deleted,
        has_versions=not any(relation.is_view for relation in relations.values()),
        same_order=same_order,
        id_index=id_index or (stored is not None and stored.has_index),
        is_partitioned=relations[spec.table].is_partitioned,
        is_view=relations[spec.table].is_view,
        stored=stored,
    )


def describe_columns(layout: Layout) -> Columns:
    """Return what the SQL that prepares Postgres must know of a layout."""
    return Columns(
        id_kind=layout.keys.kind,
        collate=layout.keys.collate,
        vector_type=layout.vectors.type,
        vector_schema=layout.vectors.schema,
        deleted=layout.deleted or DeletedKind.BOOLEAN,
        is_partitioned=layout.is_partitioned,
        is_view=layout.is_view,
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
    wanted = [
        _Wanted(spec.table, spec.id_column, tuple(ID_TYPES), "id"),
        _Wanted(spec.table, spec.vector_column, tuple(VECTOR_TYPES), "vector"),
    ]
    if spec.model_column is not None:
        wanted.append(_Wanted(spec.table, spec.model_column, MODEL_TYPES, "model"))
    if isinstance(spec.tombstone, ColumnTombstone):
        wanted.append(_Wanted(spec.table, spec.tombstone.column, tuple(DELETED_TYPES), "tombstone"))
    if isinstance(spec.tombstone, MetadataTombstone):
        metadata = spec.tombstone
        wanted.append(_Wanted(metadata.table, metadata.id, tuple(ID_TYPES), "metadata id"))
        wanted.append(_Wanted(metadata.table, metadata.deleted, tuple(DELETED_TYPES), "metadata tombstone"))
        if metadata.model is not None:
            wanted.append(_Wanted(metadata.table, metadata.model, MODEL_TYPES, "metadata model"))
    return wanted


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
    if column.virtual:
        raise SourceError(
            SourceReason.TYPE_UNSUPPORTED,
            f"{where} ({want.field}) is a virtual generated column: it can change while its row stays; supported are stored columns",
        )


def _check_modifier(spec: SourceSpec, index: IndexSpec, vector: _Column) -> None:
    if vector.type in ("vector", "halfvec") and vector.modifier not in (-1, index.dimension):
        where = f"column {spec.vector_column!r} of table {spec.table}"
        got = f"{vector.type}({vector.modifier})"
        raise SourceError(SourceReason.DIMENSION_MISMATCH, f"{where}: expected dimension {index.dimension}, got {got}")


def _check_metadata_id(spec: SourceSpec, found: Mapping[tuple[TableName, str], _Column]) -> bool:
    """Raise SourceError where the ids of the metadata are of another kind; tell whether they have the same collation."""
    if not isinstance(spec.tombstone, MetadataTombstone):
        return True
    ours, theirs = found[spec.table, spec.id_column], found[spec.tombstone.table, spec.tombstone.id]
    if ID_TYPES[ours.type] is not ID_TYPES[theirs.type]:
        raise SourceError(
            SourceReason.TYPE_UNSUPPORTED,
            f"column {spec.tombstone.id!r} of table {spec.tombstone.table} (metadata id) has type {theirs.type}, "
            f"and column {spec.id_column!r} of table {spec.table} (id) has type {ours.type}; they must be of one kind",
        )
    return ours.collation == theirs.collation


def _check_encoding(connection: psycopg.Connection, spec: SourceSpec) -> None:
    (encoding,) = connection.execute("SHOW server_encoding").fetchone() or ("",)
    if encoding != "UTF8":
        raise SourceError(
            SourceReason.TYPE_UNSUPPORTED,
            f"column {spec.id_column!r} of table {spec.table} (id) is a text in a database whose encoding is {encoding}; supported is UTF8",
        )


def _deleted_kind(spec: SourceSpec, found: dict[tuple[TableName, str], _Column]) -> DeletedKind | None:
    if isinstance(spec.tombstone, ColumnTombstone):
        return DELETED_TYPES[found[spec.table, spec.tombstone.column].type]
    if isinstance(spec.tombstone, MetadataTombstone):
        return DELETED_TYPES[found[spec.tombstone.table, spec.tombstone.deleted].type]
    return None


def _place(spec: SourceSpec, found: Mapping[tuple[TableName, str], _Column], relation: Relation) -> Place:
    model = 0 if spec.model_column is None else found[spec.table, spec.model_column].number
    return Place(relation.oid, relation.is_view, found[spec.table, spec.id_column].number, model)


def _choose_order(
    connection: psycopg.Connection, spec: SourceSpec, found: Mapping[tuple[TableName, str], _Column], *, can_be_own: bool
) -> tuple[KeySql, bool]:
    """Choose how ids are put in order: as an index has them, if any does. Tell whether one does."""
    row_id = found[spec.table, spec.id_column]
    kind = ID_TYPES[row_id.type]
    model = 0 if spec.model_column is None else found[spec.table, spec.model_column].number
    asked = {"oid": row_id.oid, "id": row_id.number, "model": model}
    can_be_own = can_be_own or kind is not IdKind.TEXT
    orders = {**({False: row_id.collation} if can_be_own else {}), **({True: _COLLATION_C} if kind is IdKind.TEXT else {})}
    for collate, collation in orders.items():
        if connection.execute(_HAS_ID_INDEX, asked | {"collation": collation}).fetchone() == (True,):
            return KeySql(kind, collate=collate), True
    return KeySql(kind, collate=not can_be_own), False


def _fingerprint(columns: Iterable[_Column], relations: Iterable[Relation], stored: StoredDigests | None) -> str:
    """Hash what gives the bytes of a row their meaning. Which partitions there are is not part of it: rows of others have other stamps."""
    described = [
        f"{column.oid}.{column.number}:{column.type_schema}.{column.type}({column.modifier}){column.generated}" for column in columns
    ]
    digests = [] if stored is None else [stored.fingerprint]
    text = ";".join([*described, *(relation.definitions for relation in relations), *digests])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
