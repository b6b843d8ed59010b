"""Finds the tables behind a source, through views and partitions at any depth, and refuses those whose rows can't be proven."""

import hashlib
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.rows import class_row

from vectorindex_indexer.config import TableName
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.names import SourceReason

_TABLES: Final = ("r", "p")  # ordinary and partitioned
_VIEW: Final = "v"
_OTHER_KINDS: Final = {
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a composite type",
    "t": "a TOAST table",
}
_WHY_NOT: Final = {
    "m": "it shows what its tables were when it was refreshed",
    "f": "its rows are on another server, in no snapshot of this one",
}

# Who has what below: partitions and heirs by pg_inherits, what a view reads by the dependencies of its rule.
_FIND_RELATIONS: Final = """
WITH RECURSIVE reached (oid, in_view) AS (
  SELECT c.oid, false
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %(schema)s AND c.relname = %(name)s
  UNION
  SELECT below.oid, r.in_view OR below.in_view
  FROM reached r
  CROSS JOIN LATERAL (
    SELECT i.inhrelid AS oid, false AS in_view FROM pg_catalog.pg_inherits i WHERE i.inhparent = r.oid
    UNION ALL
    SELECT d.refobjid, true
    FROM pg_catalog.pg_rewrite w
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
    JOIN pg_catalog.pg_class v ON v.oid = w.ev_class AND v.relkind IN ('v', 'm')
    WHERE w.ev_class = r.oid AND d.refobjid <> r.oid
  ) AS below
)
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind, r.in_view,
       CASE WHEN r.in_view THEN c.relrowsecurity ELSE row_security_active(c.oid) END AS hides_rows,
       coalesce(m.amname::text, 'heap') AS access_method,
       CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) || coalesce(c.reloptions::text, '') ELSE '' END AS definition
FROM reached r
JOIN pg_catalog.pg_class c ON c.oid = r.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
ORDER BY r.in_view, c.oid"""

# Names what makes the rows of a view a matter of chance or of sources that no snapshot holds, by the tree of its rule.
_FIND_CHANCE: Final = """
SELECT CASE WHEN tree ~ ':limit(Count|Offset) \\{' THEN 'LIMIT or OFFSET'
            WHEN tree ~ '\\{TABLESAMPLECLAUSE ' THEN 'TABLESAMPLE'
            ELSE (SELECT format('the function %%s', p.oid::regprocedure)
                  FROM regexp_matches(tree, ':(?:funcid|opfuncid|winfnoid|aggfnoid) (\\d+)', 'g') AS found
                  JOIN pg_catalog.pg_proc p ON p.oid = found[1]::bigint::oid
                  WHERE p.provolatile = 'v' OR (p.provolatile = 's' AND p.pronamespace <> 'pg_catalog'::regnamespace)
                  ORDER BY p.oid LIMIT 1) END
FROM (SELECT w.ev_action::text AS tree FROM pg_catalog.pg_rewrite w WHERE w.ev_class = %(oid)s::bigint::oid) AS rules"""


@dataclass(frozen=True)
class _Found:
    oid: int
    schema: str
    name: str
    kind: str
    in_view: bool
    hides_rows: bool
    access_method: str
    definition: str

    def describe(self, root: TableName) -> str:
        own = f"{self.schema}.{self.name}"
        return own if (self.schema, self.name) == (root.schema, root.name) else f"{own}, from which {root} has rows,"


@dataclass(frozen=True)
class Relation:
    """A table or view of the source, and all that lies below it."""

    oid: int
    is_view: bool
    is_partitioned: bool
    definitions: str  # hash of the text of all views, "" without any


def read_relation(connection: psycopg.Connection, table: TableName) -> Relation:
    """Look a relation up. Raise SourceError where it is missing, hides rows, or rests on what can't be proven."""
    with connection.cursor(row_factory=class_row(_Found)) as cursor:
        found = cursor.execute(_FIND_RELATIONS, {"schema": table.schema, "name": table.name}).fetchall()
    if not found:
        raise SourceError(SourceReason.TABLE_MISSING, f"table {table} does not exist")
    for relation in found:
        _check_kind(relation, table)
        _check_visible(relation, table)
        if relation.kind == _VIEW:
            _check_certain(connection, relation, table)
    views = "\n".join(sorted(f"{relation.oid}:{relation.definition}" for relation in found if relation.kind == _VIEW))
    return Relation(
        oid=found[0].oid,
        is_view=found[0].kind == _VIEW,
        is_partitioned=found[0].kind == "p",
        definitions=hashlib.sha256(views.encode()).hexdigest()[:16] if views else "",
    )


def _check_kind(found: _Found, root: TableName) -> None:
    if found.kind not in (*_TABLES, _VIEW):
        kind, why = _OTHER_KINDS.get(found.kind, "no table"), _WHY_NOT.get(found.kind)
        message = f"{found.describe(root)} is {kind}{'' if why is None else f': {why}'}"
        raise SourceError(SourceReason.TYPE_UNSUPPORTED, f"{message}; supported are tables, partitioned tables and views")
    if found.access_method != "heap":
        raise SourceError(
            SourceReason.TYPE_UNSUPPORTED,
            f"{found.describe(root)} is stored by the access method {found.access_method}; supported is heap, whose row versions are known",
        )


def _check_visible(found: _Found, root: TableName) -> None:
    if found.hides_rows:
        remedy = "have the view read" if found.in_view else "give it a role with BYPASSRLS, or"
        raise SourceError(
            SourceReason.ROW_SECURITY,
            f"row security of table {found.describe(root)} may hide rows from our role; {remedy} a table without policies",
        )


def _check_certain(connection: psycopg.Connection, view: _Found, root: TableName) -> None:
    for (chance,) in connection.execute(_FIND_CHANCE, {"oid": view.oid}).fetchall():
        if chance is not None:
            raise SourceError(
                SourceReason.TYPE_UNSUPPORTED,
                f"view {view.describe(root)} uses {chance}: it may show other rows each time that it is read, even in one snapshot",
            )
