"""Writes the SQL that prepares Postgres for an index: a role, indexes, digest columns. For people to read and run; nothing is run here.

Pure. What a manifest doesn't say, the types of columns above all, is given as `Columns`.
"""

import hashlib
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from vectorindex_indexer.config import ColumnTombstone, Identity, MetadataTombstone, SourceSpec, TableName
from vectorindex_indexer.digest import NULL_MARKER
from vectorindex_indexer.keys import IdKind
from vectorindex_indexer.predicate import DeletedKind

DEFAULT_ROLE: Final = "vectorindex_reader"
DEFAULT_DIGEST_COLUMNS: Final = ("vectorindex_digest_1", "vectorindex_digest_2")

LONGEST_NAME_BYTES: Final = 63
"""Postgres cuts what is longer, and two names could become one."""

COMMENT_WIDTH: Final = 110

# How key and vector become bytes. None is immutable of text (its bytes depend on a conversion) and of float4[] (its elements' own function
# is looked up), and a stored column takes nothing else.
_SEND_ID: Final = {IdKind.INTEGER: "int8send", IdKind.UUID: "uuid_send"}
_SEND_VECTOR: Final = {"vector": "vector_send", "halfvec": "halfvec_send"}

VECTOR_TYPES: Final = ("bytea", *_SEND_VECTOR, "float4[]")

_IS_LIVE: Final = {DeletedKind.BOOLEAN: "IS FALSE", DeletedKind.TIMESTAMP: "IS NULL"}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What must be known of the tables beside the manifest."""

    id_kind: IdKind = IdKind.INTEGER
    collate: bool = True  # texts are not sorted by their bytes as they are
    vector_type: str = "bytea"
    vector_schema: str | None = None  # where the functions of pgvector are; None leaves that to the search_path
    deleted: DeletedKind = DeletedKind.BOOLEAN
    is_partitioned: bool = False
    is_view: bool = False
    has_id_index: bool = False  # ranges of ids are served already
    looked_up: bool = False  # in the catalogue; else somebody said so


def quote(name: str) -> str:
    """Return an identifier as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def write_digest_expressions(spec: SourceSpec, columns: Columns) -> tuple[str, str]:
    """Return the SQL of the first and of the next 64 bits of a row digest. Raise ValueError where a stored column can't hold it."""
    problem = _why_no_digests(columns)
    if problem:
        raise ValueError(problem)
    vector = quote(spec.vector_column)
    if columns.vector_type != "bytea":
        schema = "" if columns.vector_schema is None else f"{quote(columns.vector_schema)}."
        vector = f"{schema}{_SEND_VECTOR[columns.vector_type]}({vector})"
    key = f"{_SEND_ID[columns.id_kind]}({quote(spec.id_column)})"
    row = f"sha256({key} || coalesce({vector}, decode('{NULL_MARKER.hex()}', 'hex')))"
    first, second = (f"('x' || encode(substr({row}, {start}, 8), 'hex'))::bit(64)::bigint" for start in (1, 9))
    return first, second


def write_script(identity: Identity, columns: Columns, role: str) -> str:
    """Return the whole script, with comments. Every name in it is quoted, so it means the same under any search_path but pgvector's."""
    spec = identity.source
    sections = [
        _write_head(identity, columns),
        _write_role(spec, columns, role),
        _write_id_index(spec, columns),
        *([_write_metadata_index(spec.tombstone)] if isinstance(spec.tombstone, MetadataTombstone) else []),
        _write_digests(spec, columns),
    ]
    return "\n\n".join(sections) + "\n"


def _why_no_digests(columns: Columns) -> str | None:
    if columns.is_view:
        return "a view has no stored columns; have the manifest name the table itself, if that is all it shows"
    if columns.id_kind not in _SEND_ID:
        return "the bytes of a text depend on a conversion that Postgres does not call immutable, so no stored column can be made from them"
    if columns.vector_type not in ("bytea", *_SEND_VECTOR):
        return "the binary form of an array is not immutable for Postgres, so no stored column can be made from it"
    return None


def _write_head(identity: Identity, columns: Columns) -> str:
    spec = identity.source
    types = [f"ids of kind {_name_kind(columns.id_kind)}", f"vectors of type {columns.vector_type}"]
    if spec.tombstone is not None:
        types.append(f"a {columns.deleted} as tombstone")
    origin = (
        "as the catalogue has it."
        if columns.looked_up
        else "as the options say or take for granted. Are yours other ones? Look at --help; --connect looks them up."
    )
    return _comment(
        f"Prepares Postgres for VectorIndex {identity.namespace}/{identity.name}, table {spec.table}.",
        "",
        f"Written for {', '.join(types)}: {origin}",
        "",
        "Read it before you run it. Run it with psql on the primary, as the owner of the tables, and not as one transaction: "
        "CREATE INDEX CONCURRENTLY and VACUUM refuse to be part of one. Only section 1 is needed. "
        "The indexer itself never creates or changes anything.",
    )


def _name_kind(kind: IdKind) -> str:
    return {IdKind.INTEGER: "integer", IdKind.UUID: "uuid", IdKind.TEXT: "text"}[kind]


def _write_role(spec: SourceSpec, columns: Columns, role: str) -> str:
    tables = [spec.table]
    if isinstance(spec.tombstone, MetadataTombstone) and spec.tombstone.table != spec.table:
        tables.append(spec.tombstone.table)
    schemas = list(dict.fromkeys(table.schema for table in tables))
    if columns.vector_type in _SEND_VECTOR and columns.vector_schema not in (None, *schemas):
        schemas.append(columns.vector_schema or "")
    name = quote(role)
    comment = _comment(
        "1. A role that may read these tables and nothing else. To make one takes the right CREATEROLE.",
        "",
        "It has no password yet, so nobody can log in as it. Give it one in psql, which sends only a hash of it:",
        f"    \\password {name}",
        "Then put name and password into the Secret of credentialsSecretRef, as `username` and `password`.",
        "SELECT is on whole tables: the indexer locks them (ACCESS SHARE) and looks at the system columns ctid and xmin. "
        "Where policies hide rows (row level security) it refuses to work, unless the role has BYPASSRLS as well.",
    )
    missing = _comment("Are vector's functions in a schema of their own? Then grant USAGE on that, too.")
    return "\n".join(
        [
            comment,
            f"CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;",
            f"GRANT CONNECT ON DATABASE {quote(spec.postgres.database)} TO {name};",
            f"GRANT USAGE ON SCHEMA {', '.join(map(quote, schemas))} TO {name};",
            *([missing] if columns.vector_type in _SEND_VECTOR and columns.vector_schema is None else []),
            f"GRANT SELECT ON TABLE {', '.join(map(_quote_table, tables))} TO {name};",
        ]
    )


def _write_id_index(spec: SourceSpec, columns: Columns) -> str:
    title = "2. An index for ranges of ids: checks and loads read range by range instead of the whole table."
    if columns.is_view:
        return _comment(title, "", "A view has none of its own; make it on the table below, by the column that the view shows as id.")
    if columns.has_id_index:
        return _comment(title, "", "There is one already.")
    keys = _index_keys(spec, columns)
    if columns.id_kind is IdKind.TEXT and columns.collate:
        remarks = [
            "The collation matters: ids are compared byte by byte. An index in another, as the primary key's mostly is, is of no use. "
            "Only where the column or the database has the collation C, the primary key serves."
        ]
    else:
        serving = f"the primary key or another index begins with ({', '.join(keys)}), or with the id"
        other = ", and where you take the index of section 3, which serves as well" if _why_no_digests(columns) is None else ""
        remarks = [f"Leave it out where {serving}{other}."]
    index = _write_index(_index_name(spec.table, "ids"), spec.table, keys, is_partitioned=columns.is_partitioned)
    return "\n".join([_comment(title, "", *remarks, *_about_partitions(columns)), index])


def _write_metadata_index(tombstone: MetadataTombstone) -> str:
    title = _comment(
        "An index of the metadata by id: which rows are dead is asked once for each row.",
        "Leave it out where the primary key or another index begins with these columns.",
    )
    keys = [quote(tombstone.id), *([] if tombstone.model is None else [quote(tombstone.model)])]
    return "\n".join([title, _write_index(_index_name(tombstone.table, "metadata"), tombstone.table, keys, include=[tombstone.deleted])])


def _write_digests(spec: SourceSpec, columns: Columns) -> str:
    title = "3. Digest columns: with them, to see that nothing changed costs less than to count the rows, and a restart is proven as fast."
    problem = _why_no_digests(columns)
    if problem:
        return _comment(title, "", f"Not for this table: {problem}.")
    names = spec.digest_columns or DEFAULT_DIGEST_COLUMNS
    first, second = write_digest_expressions(spec, columns)
    comment = _comment(
        title,
        "",
        "The first statement rewrites the table and locks it meanwhile, against readers as well. Afterwards each insert and each update "
        "of a row hashes it twice. The replica goes on hashing the bytes that it reads: columns that say otherwise are found out, "
        "and the check is then unknown.",
        "The index answers alone only where VACUUM has been lately; autovacuum sees to that on most tables.",
        *_about_partitions(columns),
    )
    statements = [
        f"ALTER TABLE {_quote_table(spec.table)}",
        f"  ADD COLUMN {quote(names[0])} bigint GENERATED ALWAYS AS ({first}) STORED,",
        f"  ADD COLUMN {quote(names[1])} bigint GENERATED ALWAYS AS ({second}) STORED;",
        _write_index(
            _index_name(spec.table, "digests"),
            spec.table,
            _index_keys(spec, columns),
            include=names,
            only=_live_clause(spec, columns),
            is_partitioned=columns.is_partitioned,
        ),
        f"VACUUM (ANALYZE) {_quote_table(spec.table)};",
    ]
    if spec.digest_columns is None:
        statements.append(_comment(f"Then name them in the manifest, as spec.source.digests: {{columns: [{', '.join(names)}]}}"))
    return "\n".join([comment, *statements])


def _about_partitions(columns: Columns) -> list[str]:
    if columns.is_partitioned:
        return ["The table is partitioned, so its index is made without CONCURRENTLY, and writers wait for that."]
    return []


def _index_keys(spec: SourceSpec, columns: Columns) -> list[str]:
    """Return what an index of ranges of ids begins with: the model key, of which one value is asked, and the id."""
    row_id = quote(spec.id_column) + (' COLLATE "C"' if columns.id_kind is IdKind.TEXT and columns.collate else "")
    return [*([] if spec.model_column is None else [quote(spec.model_column)]), row_id]


def _live_clause(spec: SourceSpec, columns: Columns) -> str:
    """Return the tombstone clause in the words of the live-row predicate: Postgres then sees that one implies the other."""
    if not isinstance(spec.tombstone, ColumnTombstone):
        return ""
    return f"{quote(spec.tombstone.column)} {_IS_LIVE[columns.deleted]}"


def _write_index(
    name: str, table: TableName, keys: Sequence[str], *, include: Iterable[str] = (), only: str = "", is_partitioned: bool = False
) -> str:
    how = "" if is_partitioned else " CONCURRENTLY"
    included = ", ".join(map(quote, include))
    parts = [
        f"CREATE INDEX{how} {quote(name)}",
        f"  ON {_quote_table(table)} ({', '.join(keys)})",
        *([f"  INCLUDE ({included})"] if included else []),
        *([f"  WHERE {only}"] if only else []),
    ]
    return "\n".join(parts) + ";"


def _index_name(table: TableName, purpose: str) -> str:
    """Name an index, the same whenever asked: who runs the script twice is told so instead of getting two indexes."""
    ending = f"_vectorindex_{purpose}"
    if len(table.name) + len(ending) <= LONGEST_NAME_BYTES:
        return table.name + ending
    mark = hashlib.sha256(table.name.encode()).hexdigest()[:8]
    return f"{table.name[: LONGEST_NAME_BYTES - len(ending) - len(mark) - 1]}_{mark}{ending}"


def _quote_table(table: TableName) -> str:
    return f"{quote(table.schema)}.{quote(table.name)}"


def _comment(*paragraphs: str) -> str:
    """Make a comment; only what is indented is left as it is."""
    lines = [line for text in paragraphs for line in ([text] if text.startswith(" ") else textwrap.wrap(text, COMMENT_WIDTH) or [""])]
    return "\n".join(f"-- {line}".rstrip() for line in lines)
