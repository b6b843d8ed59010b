"""The live rows: the one place that knows which rows of the source exist. Every statement that reads a vector selects from it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from vectorindex_indexer.config import ColumnTombstone, MetadataTombstone, Missing, SourceSpec, TableName
from vectorindex_indexer.keys import IdKind
from vectorindex_indexer.keys_sql import Clause, Column, KeySql, Within, bigint, everywhere

_INTEGERS: Final = KeySql(IdKind.INTEGER)
_DIALECT: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]


class DeletedKind(StrEnum):
    """How a tombstone column tells dead rows."""

    BOOLEAN = "boolean"  # live is false; NULL is dead
    TIMESTAMP = "timestamp"  # live is NULL


class LiveRows:
    """The live rows of a source.

    `deleted` says of which kind the tombstone column is, as found in the catalogue; None without a tombstone rule. `has_versions` says
    that all rows are stored ones, of which there are versions: those of a view are not.
    `fingerprint` changes whenever the meaning changes: two replicas with other fingerprints do not look at the same rows.
    """

    def __init__(
        self, spec: SourceSpec, deleted: DeletedKind | None, keys: KeySql = _INTEGERS, *, has_versions: bool = True, same_order: bool = True
    ) -> None:
        self._spec = spec
        self._deleted = deleted
        self._has_versions = has_versions
        self._same_order = same_order  # the ids of table and metadata have one collation
        self.keys = keys
        self.table = _table(spec.table, "t", _columns_of(spec))
        self.id: Column = self.table.c[spec.id_column]
        self.metadata: sa.FromClause | None = None
        if isinstance(spec.tombstone, MetadataTombstone):
            self.metadata = _table(spec.tombstone.table, "m", _metadata_columns_of(spec.tombstone))
        self.key: Clause = self._key()
        self.clause: Clause = self._clause(everywhere)
        self.fingerprint = _fingerprint(sa.select(self.id).select_from(self.table).where(self.clause))

    def relation(self, within: Within) -> sa.Subquery:
        """Make the relation of live rows with the columns `key`, `id`, `vector` and `stamp` (bigint).

        Of a source with digest columns, they are there as `first` and `second`.

        `key` is what ids are ordered by: an index serves it. `id` is the column itself. Postgres merges this relation into the statement
        around it, and drops the join behind `stamp` where the stamp isn't asked for.
        """
        vector = self.table.c[self._spec.vector_column]
        origin, stamp = self._stamp(within)
        digests = [self.table.c[name].label(half) for name, half in zip(self._spec.digest_columns or (), ("first", "second"), strict=False)]
        return (
            sa.select(self.keys.ordered(self.id).label("key"), self.id.label("id"), vector.label("vector"), stamp.label("stamp"), *digests)
            .select_from(origin)
            .where(self._clause(within), within(self.id))
            .subquery("live")
        )

    def metadata_keyed(self) -> Clause:
        """Make the clause that metadata rows of the model key meet."""
        tombstone, metadata = self._spec.tombstone, self.metadata
        assert isinstance(tombstone, MetadataTombstone)  # noqa: S101 - narrows a type
        assert metadata is not None  # noqa: S101
        return sa.true() if tombstone.model is None else metadata.c[tombstone.model] == sa.literal(self._spec.model, sa.Text)

    def metadata_of_row(self) -> Clause:
        """Make the clause that ties metadata rows to a row of the table."""
        tombstone, metadata = self._spec.tombstone, self.metadata
        assert isinstance(tombstone, MetadataTombstone)  # noqa: S101 - narrows a type
        assert metadata is not None  # noqa: S101
        return sa.and_(self._is_id(metadata.c[tombstone.id]), self.metadata_keyed())

    def _is_id(self, column: Column) -> Clause:
        if self._same_order:
            return column == self.id
        return sa.collate(column, "C") == sa.collate(self.id, "C")  # Postgres won't choose between two collations

    def _key(self) -> Clause:
        if self._spec.model_column is None:
            return sa.true()
        return self.table.c[self._spec.model_column] == sa.literal(self._spec.model, sa.Text)

    def _clause(self, within: Within) -> Clause:
        """Make the predicate, for use beside a clause that narrows the id of the table.

        That the metadata can be narrowed as well, Postgres does not see: it would read all of it for each range.
        """
        return sa.and_(self.id.is_not(None), self.key, self._live(within))

    def _live(self, within: Within) -> Clause:
        tombstone = self._spec.tombstone
        if tombstone is None:
            return sa.true()
        if isinstance(tombstone, ColumnTombstone):
            return sa.not_(self._dead(self.table.c[tombstone.column]))
        assert self.metadata is not None  # noqa: S101 - narrows a type
        # Asked, never joined: a join would bring back a row that has a live and a dead metadata row.
        near = within(self.metadata.c[tombstone.id])
        has_dead = self._has_metadata(sa.and_(near, self._dead(self.metadata.c[tombstone.deleted])))
        if tombstone.missing is Missing.LIVE:
            return sa.not_(has_dead)
        return sa.and_(self._has_metadata(near), sa.not_(has_dead))

    def _has_metadata(self, which: Clause) -> Clause:
        assert self.metadata is not None  # noqa: S101 - narrows a type
        asked: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(self.metadata).where(self.metadata_of_row(), which)
        return sa.exists(asked.correlate(self.table))

    def _dead(self, column: Column) -> Clause:
        if self._deleted is DeletedKind.TIMESTAMP:
            return column.is_not(None)
        return column.is_not(sa.false())

    def _stamp(self, within: Within) -> tuple[sa.FromClause, Column]:
        """Give what to select from, and the version stamp of a row and of its metadata rows."""
        if not self._has_versions:
            return self.table, bigint(sa.literal_column("0"))
        own = self.keys.hash(self.id, _version(self.table))
        tombstone = self._spec.tombstone
        if self.metadata is None or not isinstance(tombstone, MetadataTombstone):
            return self.table, own
        metadata_id = self.metadata.c[tombstone.id]
        versions = (
            sa.select(metadata_id.label("id"), sa.func.sum(_version(self.metadata)).label("version"))
            .where(self.metadata_keyed(), within(metadata_id))
            .group_by(metadata_id)  # one row for each id: this join can't double a row
            .subquery("versions")
        )
        joined = self.table.outerjoin(versions, self._is_id(versions.c.id))
        return joined, sa.func.coalesce(sa.func.hash_numeric_extended(versions.c.version, own), own)


def compile_statement(statement: sa.ClauseElement) -> tuple[str, Mapping[str, Any]]:
    """Turn a statement into text for psycopg, and the values to bind."""
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), compiled.params


def _version(table: sa.FromClause) -> Column:
    """Hash which version of which tuple a row is; no TOASTed value is read for it."""
    transaction = bigint(sa.cast(table.c.xmin, sa.Text))
    return sa.func.hashoidextended(table.c.tableoid, sa.func.hashtidextended(table.c.ctid, transaction))


def _table(name: TableName, alias: str, columns: Sequence[str]) -> sa.FromClause:
    system: list[sa.ColumnClause[Any]] = [sa.column(column) for column in ("tableoid", "ctid", "xmin")]
    # Always quoted: whether a name is a keyword is for Postgres to know.
    quoted: list[sa.ColumnClause[Any]] = [sa.column(sa.quoted_name(column, quote=True)) for column in dict.fromkeys(columns)]
    schema = sa.quoted_name(name.schema, quote=True)
    return sa.table(sa.quoted_name(name.name, quote=True), *quoted, *system, schema=schema).alias(alias)


def _columns_of(spec: SourceSpec) -> list[str]:
    columns = [spec.id_column, spec.vector_column, *(spec.digest_columns or ())]
    columns += [] if spec.model_column is None else [spec.model_column]
    columns += [spec.tombstone.column] if isinstance(spec.tombstone, ColumnTombstone) else []
    return columns


def _metadata_columns_of(tombstone: MetadataTombstone) -> list[str]:
    return [tombstone.id, tombstone.deleted] + ([] if tombstone.model is None else [tombstone.model])


def _fingerprint(statement: sa.ClauseElement) -> str:
    text, values = compile_statement(statement)
    return hashlib.sha256(f"{text}\n{json.dumps(dict(values), sort_keys=True)}".encode()).hexdigest()[:8]
