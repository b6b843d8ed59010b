"""Tables of every form that an index may be of, and a memory of which rows live. The product's predicate has no part in it."""

import itertools
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from tests.support.postgres import Connection, Database
from vectorindex_indexer.keys import LONGEST_ID_BYTES, IdKind, Ids, parse_ids

Key = int | str
Vector = NDArray[np.float32]

ID_TYPES: Final = ("bigint", "integer", "smallint", "uuid", "text", "varchar(300)")
VECTOR_TYPES: Final = ("bytea", "vector", "halfvec", "float4[]")
MODEL: Final = "Our Model/v2"
OTHER_MODEL: Final = "other/model"


class Rule(StrEnum):
    """How a dead row is told."""

    NONE = "none"
    BOOLEAN = "boolean column"
    TIMESTAMP = "timestamp column"
    METADATA_LIVE = "metadata, missing is live"
    METADATA_DEAD = "metadata, missing is dead"

    @property
    def is_metadata(self) -> bool:
        """Tell whether a second table says it."""
        return self in (Rule.METADATA_LIVE, Rule.METADATA_DEAD)


@dataclass(frozen=True)
class Form:
    """What a table looks like. Its names are mixed-case, and need quotes."""

    id_type: str = "bigint"
    vector_type: str = "bytea"
    rule: Rule = Rule.BOOLEAN
    has_model: bool = True
    dimension: int = 8
    is_indexed: bool = True  # by model and id
    collation: str = ""  # of the id, such as `"C"`

    def __str__(self) -> str:
        """Return a name for a test's variant."""
        return f"{self.id_type}-{self.vector_type}-{self.rule}{'-model' if self.has_model else ''}"

    @property
    def id_kind(self) -> IdKind:
        """Return what the ids are."""
        if self.id_type == "uuid":
            return IdKind.UUID
        return IdKind.INTEGER if self.id_type in ("bigint", "integer", "smallint") else IdKind.TEXT


@dataclass
class Row:
    """One row, as it should be. A bad vector is None."""

    key: Key
    model: str
    vector: Vector | None
    is_dead: bool = False
    has_metadata: bool = True


@dataclass
class Table:
    """A table in a database, and what is true of it. Every method changes both, in a transaction of its own."""

    database: Database
    form: Form
    rows: list[Row] = field(default_factory=list)
    name: str = "Documents"
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    _fresh: Iterable[Key] = field(default_factory=list)

    # --- what is true

    @property
    def live(self) -> list[Row]:
        """Return the live rows of our model, in the order of ids."""
        return sorted((row for row in self.rows if self._is_live(row)), key=lambda row: sort_key(row.key))

    @property
    def dead(self) -> list[Key]:
        """Return the keys of our model that have no live row."""
        living = {row.key for row in self.live}
        return sorted({row.key for row in self.rows if row.model == MODEL} - living, key=sort_key)

    @property
    def live_keys(self) -> list[Key]:
        """Return their keys, as often as they occur."""
        return [row.key for row in self.live]

    @property
    def indexed(self) -> dict[Key, Vector]:
        """Return what an index must hold: live rows of good vectors, whose key occurs only once and is not too long."""
        counts = Counter(self.live_keys)
        fit = (row for row in self.live if counts[row.key] == 1 and len(str(row.key).encode()) <= LONGEST_ID_BYTES)
        return {row.key: row.vector for row in fit if row.vector is not None}

    def ids(self, keys: Iterable[Key]) -> Ids:
        """Return keys as the product holds them."""
        return parse_ids(list(keys), self.form.id_kind)

    def _is_live(self, row: Row) -> bool:
        if row.model != MODEL:
            return False
        if not row.has_metadata and self.form.rule.is_metadata:
            return self.form.rule is Rule.METADATA_LIVE
        return not row.is_dead

    # --- what happens to it

    def insert(self, count: int = 1, *, keys: Sequence[Key] = ()) -> list[Key]:
        """Add live rows, with new keys where none are given."""
        keys = list(keys or itertools.islice(self._fresh, count))
        self._add([Row(key, MODEL, self._draw()) for key in keys])
        return keys

    def update_vector(self, key: Key) -> None:
        """Give a row another vector."""
        (row,) = self._find(key)
        row.vector = self._draw()
        self._set(key, row.vector)

    def touch(self, key: Key) -> None:
        """Write a row anew without changing it."""
        self._run("UPDATE {table} SET {vector} = {vector} WHERE {id} = %(key)s AND {ours}", key=key)

    def tombstone(self, key: Key) -> None:
        """Mark a row as dead."""
        self._mark(key, is_dead=True)

    def revive(self, key: Key) -> None:
        """Take the mark away."""
        self._mark(key, is_dead=False)

    def delete(self, key: Key) -> None:
        """Delete all rows of a key, and leave their metadata."""
        self._run("DELETE FROM {table} WHERE {id} = %(key)s AND {ours}", key=key)
        self.rows = [row for row in self.rows if (row.key, row.model) != (key, MODEL)]

    def delete_metadata(self, key: Key) -> None:
        """Delete all metadata of a key."""
        self._run("DELETE FROM {metadata} WHERE {ref} = %(key)s AND {ours}", key=key)
        for row in self._find(key):
            row.has_metadata = False

    def move(self, key: Key) -> None:
        """Move a row to another model key."""
        if not self.form.has_model:
            raise ValueError("the table has no model column")
        self._run("UPDATE {table} SET {model} = %(other)s WHERE {id} = %(key)s AND {ours}", key=key)
        for row in self._find(key):
            row.model = OTHER_MODEL

    def move_back(self, key: Key) -> None:
        """Move a row of the other model key to ours, where there is none."""
        self._run("UPDATE {table} SET {model} = %(model)s WHERE {id} = %(key)s AND {model} = %(other)s", key=key)
        for row in self.rows:
            if (row.key, row.model) == (key, OTHER_MODEL):
                row.model = MODEL

    def duplicate(self, key: Key) -> None:
        """Add a second row of the same key, with another vector."""
        row = Row(key, MODEL, self._draw(), has_metadata=self._find(key)[0].has_metadata, is_dead=self._find(key)[0].is_dead)
        self._run_many(self._insert_row(), [self._values(row)])
        self.rows.append(row)

    def swap(self, one: Key, other: Key) -> None:
        """Exchange the vectors of two rows, in one transaction."""
        (first,), (second,) = self._find(one), self._find(other)
        assert first.vector is not None
        assert second.vector is not None
        first.vector, second.vector = second.vector, first.vector
        statement = "UPDATE {table} SET {vector} = {value} WHERE {id} = %(key)s AND {ours}"
        self._run_many(statement, [{"key": row.key, "vector": self._pack(row.vector)} for row in (first, second)])

    def spoil(self, key: Key, value: LiteralString) -> None:
        """Give a row a bad vector: an SQL expression of the column's type."""
        value = value.replace("{", "{{").replace("}", "}}")  # they are names in all other statements here
        self._run("UPDATE {table} SET {vector} = " + value + " WHERE {id} = %(key)s AND {ours}", key=key)
        for row in self._find(key):
            row.vector = None

    def execute(self, *statements: str, **values: Any) -> None:
        """Run statements in one transaction; {table}, {metadata}, {id}, {vector}, {model}, {deleted} and {ref} stand for names."""
        self._run_all([(statement, [values]) for statement in statements])

    # --- the index on it

    def spec(self) -> dict[str, Any]:
        """Return the parts of a manifest's spec that say which rows are meant."""
        columns = {"id": "Id", "vector": "Vector"} | ({"model": "Model"} if self.form.has_model else {})
        source: dict[str, Any] = {"table": {"name": self.name}, "columns": columns}
        if self.form.has_model:
            source["model"] = MODEL
        if self.form.rule in (Rule.BOOLEAN, Rule.TIMESTAMP):
            source["tombstone"] = {"column": "Deleted"}
        if self.form.rule.is_metadata:
            metadata = {"table": {"name": f"{self.name}Meta"}, "id": "Ref", "deleted": "Deleted"}
            metadata |= {"model": "Model"} if self.form.has_model else {}
            missing = "Live" if self.form.rule is Rule.METADATA_LIVE else "Dead"
            source["tombstone"] = {"metadata": metadata | {"missing": missing}}
        return source

    def manifest(self, **index: Any) -> dict[str, Any]:
        """Return a VectorIndex of the live rows; `index` are fields of its index."""
        spec = {
            "source": {"postgres": self.database.as_source(), **self.spec()},
            "index": {"dimension": self.form.dimension, "metric": "Cosine", "type": "Flat"} | index,
            "consistency": {"periodSeconds": 1},
        }
        return {"apiVersion": "vectorindex.dev/v1alpha1", "kind": "VectorIndex", "metadata": {"name": "docs"}, "spec": spec}

    # --- how it is done

    def _find(self, key: Key) -> list[Row]:
        return [row for row in self.rows if (row.key, row.model) == (key, MODEL)]

    def _draw(self) -> Vector:
        drawn = np.array([self.chance.gauss() for _ in range(self.form.dimension)], np.float32)
        return drawn.astype(np.float16).astype(np.float32) if self.form.vector_type == "halfvec" else drawn

    def _set(self, key: Key, vector: Vector | None) -> None:
        self._run("UPDATE {table} SET {vector} = {value} WHERE {id} = %(key)s AND {ours}", key=key, vector=self._pack(vector))

    def _mark(self, key: Key, *, is_dead: bool) -> None:
        deleted = self._deleted(is_dead=is_dead)
        if self.form.rule is Rule.NONE:
            raise ValueError("no row of this table is told dead")
        if self.form.rule.is_metadata:
            if not self._find(key)[0].has_metadata:
                self._run_many(self._insert_metadata(), [{"key": key, "its_model": MODEL, "deleted": deleted}])
            self._run("UPDATE {metadata} SET {deleted} = %(deleted)s WHERE {ref} = %(key)s AND {ours}", key=key, deleted=deleted)
        else:
            self._run("UPDATE {table} SET {deleted} = %(deleted)s WHERE {id} = %(key)s AND {ours}", key=key, deleted=deleted)
        for row in self._find(key):
            row.is_dead, row.has_metadata = is_dead, True

    def _deleted(self, *, is_dead: bool) -> Any:
        if self.form.rule is Rule.TIMESTAMP:
            return "2026-01-01T00:00:00Z" if is_dead else None
        return is_dead

    def _add(self, rows: list[Row]) -> None:
        self._run_many(self._insert_row(), [self._values(row) for row in rows])
        if self.form.rule.is_metadata:
            values = [
                {"key": row.key, "its_model": row.model, "deleted": self._deleted(is_dead=row.is_dead)} for row in rows if row.has_metadata
            ]
            self._run_many(self._insert_metadata(), values)
        self.rows += rows

    def _values(self, row: Row) -> dict[str, Any]:
        return {
            "key": row.key,
            "its_model": row.model,
            "vector": self._pack(row.vector),
            "deleted": self._deleted(is_dead=row.is_dead),
        }

    def _insert_row(self) -> LiteralString:
        columns: list[LiteralString] = ["{id}", "{vector}"]
        values: list[LiteralString] = ["%(key)s", "{value}"]
        if self.form.has_model:
            columns, values = [*columns, "{model}"], [*values, "%(its_model)s"]
        if self.form.rule in (Rule.BOOLEAN, Rule.TIMESTAMP):
            columns, values = [*columns, "{deleted}"], [*values, "%(deleted)s"]
        return "INSERT INTO {table} (" + ", ".join(columns) + ") VALUES (" + ", ".join(values) + ")"

    def _insert_metadata(self) -> LiteralString:
        if self.form.has_model:
            return "INSERT INTO {metadata} ({ref}, {model}, {deleted}) VALUES (%(key)s, %(its_model)s, %(deleted)s)"
        return "INSERT INTO {metadata} ({ref}, {deleted}) VALUES (%(key)s, %(deleted)s)"

    def _pack(self, vector: Vector | None) -> Any:
        if vector is None:
            return None
        if self.form.vector_type == "bytea":
            return vector.astype("<f4").tobytes()
        return vector.tolist() if self.form.vector_type == "float4[]" else str(vector.tolist())

    def _run(self, statement: str, **values: Any) -> None:
        self._run_many(statement, [values])

    def _run_many(self, statement: str, values: list[dict[str, Any]]) -> None:
        self._run_all([(statement, values)])

    def _run_all(self, statements: list[tuple[str, list[dict[str, Any]]]]) -> None:
        with self.database.admin_connect(autocommit=False) as connection:
            self._run_on(connection, statements)
            connection.commit()

    def _run_on(self, connection: Connection, statements: list[tuple[str, list[dict[str, Any]]]]) -> None:
        casts: dict[str, LiteralString] = {"bytea": "%(vector)s", "float4[]": "%(vector)s::float4[]", "vector": "%(vector)s::text::vector"}
        names = {"table": self.name, "metadata": f"{self.name}Meta"}
        names |= {"id": "Id", "vector": "Vector", "model": "Model", "deleted": "Deleted", "ref": "Ref"}
        parts: dict[str, sql.Composable] = {key: sql.Identifier(name) for key, name in names.items()}
        parts["value"] = sql.SQL(casts.get(self.form.vector_type, "%(vector)s::text::halfvec"))
        parts["ours"] = sql.SQL('"Model" = %(model)s') if self.form.has_model else sql.SQL("true")
        with connection.cursor() as cursor:
            for statement, values in statements:
                composed = sql.SQL(statement).format(**parts)
                cursor.executemany(composed, [{"model": MODEL, "other": OTHER_MODEL} | given for given in values])


def sort_key(key: Key) -> tuple[int, bytes]:
    """Return what keys of one kind are ordered by: numbers as such, uuids and texts by their bytes."""
    return (key, b"") if isinstance(key, int) else (0, key.encode())


def make_table(database: Database, form: Form | None = None, rows: int = 100, *, seed: int = 0, name: str = "Documents") -> Table:
    """Make and fill a table: of its rows of our model about one in ten is dead, where there is a rule; others belong to another model."""
    form = form or Form()
    chance = random.Random(f"{seed} {form}")
    table = Table(database, form, name=name, chance=chance)
    _create(table)
    keys = _draw_keys(form, chance)
    table._fresh = keys
    ours = list(itertools.islice(keys, rows))
    made = [
        Row(
            key,
            MODEL,
            table._draw(),
            is_dead=form.rule is not Rule.NONE and place % 10 == 3,
            has_metadata=not form.rule.is_metadata or place % 10 != 7,
        )
        for place, key in enumerate(ours)
    ]
    if form.has_model:
        made += [Row(key, OTHER_MODEL, table._draw()) for key in (*ours[: rows // 4], *itertools.islice(keys, rows // 4))]
    table._add(made)
    return table


def _create(table: Table) -> None:
    form = table.form
    id_type = sql.SQL(" ".join(filter(None, [form.id_type, f"COLLATE {form.collation}" if form.collation else ""])))
    vector_type = f"{form.vector_type}({form.dimension})" if form.vector_type in ("vector", "halfvec") else form.vector_type
    columns: list[sql.Composable] = [sql.SQL('"Id" {}, "Vector" {}').format(id_type, sql.SQL(vector_type))]
    model = [sql.SQL('"Model" text')] if form.has_model else []
    deleted = {Rule.BOOLEAN: '"Deleted" boolean', Rule.TIMESTAMP: '"Deleted" timestamptz'}.get(form.rule)
    columns += [*model, *([sql.SQL(deleted)] if deleted else [])]
    names = {"table": sql.Identifier(table.name), "metadata": sql.Identifier(f"{table.name}Meta")}
    keys = sql.SQL('"Model", {}' if form.has_model else "{}")
    with table.database.admin_connect() as connection:
        connection.execute(sql.SQL("CREATE TABLE {table} ({columns})").format(**names, columns=sql.SQL(", ").join(columns)))
        if form.is_indexed:
            connection.execute(sql.SQL("CREATE INDEX ON {table} ({keys})").format(**names, keys=keys.format(sql.Identifier("Id"))))
        if form.rule.is_metadata:
            held = sql.SQL(", ").join([sql.SQL('"Ref" {}').format(id_type), *model, sql.SQL('"Deleted" boolean')])
            connection.execute(sql.SQL("CREATE TABLE {metadata} ({columns})").format(**names, columns=held))
            connection.execute(sql.SQL("CREATE INDEX ON {metadata} ({keys})").format(**names, keys=keys.format(sql.Identifier("Ref"))))


def _draw_keys(form: Form, chance: random.Random) -> "itertools.filterfalse[Key]":
    """Return endless keys, each once, among them those that a careless reader gets wrong."""
    seen: set[Key] = set()

    def is_known(key: Key) -> bool:
        return key in seen or bool(seen.add(key))  # type: ignore[func-returns-value]

    odd: dict[IdKind, Sequence[Key]] = {IdKind.INTEGER: [0, -1, 1], IdKind.UUID: _ODD_UUIDS, IdKind.TEXT: _ODD_TEXTS}
    draw = _draw_of(form, chance)
    return itertools.filterfalse(is_known, itertools.chain(odd[form.id_kind], (draw() for _ in itertools.count())))


def _draw_of(form: Form, chance: random.Random) -> Callable[[], Key]:
    bits = {"bigint": 63, "integer": 31, "smallint": 15}.get(form.id_type)
    if bits is not None:
        return lambda: chance.randrange(-(2**bits), 2**bits)
    if form.id_type == "uuid":
        return lambda: str(uuid.UUID(int=chance.getrandbits(128)))
    return lambda: "".join(chance.choices(_LETTERS, k=chance.randrange(1, 24)))


_ODD_UUIDS: Final = [
    "00000000-0000-0000-0000-000000000000",
    "11111111-1111-1111-1111-111111110000",  # NUL bytes at the end
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "00000000-0000-0000-0000-000000000001",
]
_ODD_TEXTS: Final = ["", "a", "B", "a ", "Zürich", "zurich", "東京", "'; --", "\\x00", "%s", "x" * 256, "ä" * 128, "😀", "\ue000"]
_LETTERS: Final = "abcXYZ019-_ äß東😀"
