"""Whatever may be done to a table upstream is followed: each change by one check, none taken for drift, none missed."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.support.postgres import Database
from tests.support.replica import check, load_belief, make_source, write_settings
from tests.support.tables import ID_TYPES, OTHER_MODEL, VECTOR_TYPES, Form, Rule, Table, make_table
from vectorindex_indexer.belief import Belief, Findings
from vectorindex_indexer.config import Metric
from vectorindex_indexer.index import code_digests, encode
from vectorindex_indexer.keys import to_json
from vectorindex_indexer.names import QuarantineReason, Result
from vectorindex_indexer.rows import Range
from vectorindex_indexer.source import Source

ROWS = 80


@dataclass
class Followed:
    """A table, and what a replica believes of it."""

    table: Table
    source: Source
    belief: Belief

    def check(self) -> Findings:
        """Check once: it must end well, find no drift, and leave exactly the rows that live."""
        outcome = check(self.source, self.belief)
        findings, self.belief = outcome.findings, outcome.belief
        assert findings.result is Result.OK, findings.message
        assert findings.drift.rows == 0
        self.compare()
        return findings

    def compare(self) -> None:
        """Compare the index with the table's own memory, vectors included."""
        kind, expected = self.belief.view.id_kind, self.table.indexed
        ids, codes = self.belief.view.live_entries()
        keys = to_json(ids, kind)
        assert sorted(map(str, keys)) == sorted(map(str, expected))
        if expected:
            vectors = np.array([expected[key] for key in keys], np.float32)
            np.testing.assert_array_equal(codes, code_digests(encode(vectors, Metric.COSINE)))
        assert self.belief.ledger.rows == len(self.table.live)


def follow(table: Table, folder: Path) -> Followed:
    settings = write_settings(folder, table.manifest(), table.database.create_reader())
    source = make_source(settings)
    followed = Followed(table, source, load_belief(settings, source))
    followed.compare()
    return followed


FORMS = [
    Form(id_type, vector_type, list(Rule)[(place + turn) % 5], has_model=(place + turn) % 3 != 0)
    for place, id_type in enumerate(ID_TYPES)
    for turn, vector_type in enumerate(VECTOR_TYPES)
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_changes_of_rows_are_followed(database: Database, tmp_path: Path, form: Form) -> None:
    table = make_table(database, form, ROWS)
    followed = follow(table, tmp_path)
    keys = table.live_keys
    table.insert(3)
    table.update_vector(keys[0])
    table.touch(keys[1])
    table.delete(keys[2])
    table.swap(keys[3], keys[4])
    table.duplicate(keys[5])
    if form.rule is not Rule.NONE:
        table.revive(table.dead[0])
        table.tombstone(keys[6])
    if form.rule.is_metadata:
        table.delete_metadata(keys[7])
    if form.has_model:
        table.move(keys[8])

    findings = followed.check()

    gone = 1 + (form.rule is not Rule.NONE) + (form.rule is Rule.METADATA_DEAD) + form.has_model
    assert findings.followed.deleted >= gone
    assert followed.check().followed.rows == 0


@pytest.mark.parametrize("is_indexed", [True, False])
def test_texts_too_long_for_an_index_come_change_and_go_like_others(database: Database, tmp_path: Path, *, is_indexed: bool) -> None:
    table = make_table(database, Form("text", "halfvec", Rule.BOOLEAN, is_indexed=is_indexed), ROWS)
    followed = follow(table, tmp_path)
    long = ["x" * 300, "x" * 301, "東" * 90, "y" * 257]
    table.insert(keys=long)
    assert followed.check().followed.inserted >= 3  # two of them can't be told apart
    assert followed.belief.ledger.count_quarantine() == {QuarantineReason.ID_TOO_LONG: 4}
    assert followed.belief.view.live_entries()[0].dtype.itemsize <= 256

    table.update_vector(long[0])
    table.tombstone(long[2])
    table.delete(long[1])
    table.touch(long[3])
    followed.check()

    assert followed.belief.ledger.count_quarantine() == {QuarantineReason.ID_TOO_LONG: 2}
    assert followed.check().followed.rows == 0


# --- changes of whole tables


def rewrite(table: Table) -> None:
    """Rewrite every row, to the same content."""
    table.execute("ALTER TABLE {table} ADD COLUMN extra float8 DEFAULT random()")


def reload(table: Table) -> None:
    """Empty the table and fill it again, in another order."""
    table.execute("CREATE TABLE copy AS SELECT * FROM {table}")
    table.execute("TRUNCATE {table}", "INSERT INTO {table} SELECT * FROM copy ORDER BY random()")


def reload_less(table: Table) -> None:
    """Empty the table and fill it with fewer rows."""
    lost = table.live_keys[::9]
    reload(table)
    for key in lost:
        table.delete(key)


def rename(table: Table) -> None:
    """Let another column take the name, with the vectors of other rows: no stamp moves."""
    rows = [row for row in table.rows if row.vector is not None]
    table.execute("ALTER TABLE {table} ADD COLUMN other float4[]")
    for row, next_row in itertools.pairwise(rows):
        assert next_row.vector is not None
        statement = "UPDATE {table} SET other = %(vector)s::float4[] WHERE {id} = %(key)s AND {model} = %(its)s"
        table.execute(statement, vector=next_row.vector.tolist(), key=row.key, its=row.model)


def swap_names(table: Table) -> None:
    """Exchange the names of two columns."""
    table.execute("ALTER TABLE {table} RENAME {vector} TO old", "ALTER TABLE {table} RENAME other TO {vector}")
    rows = [row for row in table.rows if row.vector is not None]
    vectors = [row.vector for row in rows]
    for row, vector in zip(rows, [*vectors[1:], None], strict=True):
        row.vector = vector


def move_heap(table: Table) -> None:
    """Move every row to another place of the file."""
    table.delete(table.live_keys[0])
    vacuum(table, "VACUUM FULL")


def vacuum(table: Table, statement: str) -> None:
    with table.database.admin_connect() as connection:
        connection.execute(statement)


def freeze(table: Table) -> None:
    """Freeze every row: nothing changes."""
    vacuum(table, "VACUUM FREEZE")


def cluster(table: Table) -> None:
    """Sort the file."""
    table.execute("ALTER TABLE {table} ADD CONSTRAINT k UNIQUE ({id}, {model})")
    vacuum(table, 'CLUSTER "Documents" USING k')


def retype(table: Table) -> None:
    """Change the type of another column, which rewrites the rows."""
    table.execute("ALTER TABLE {table} ALTER {model} TYPE varchar(100)")


WHOLE: list[tuple[Callable[[Table], None], int]] = [
    (rewrite, 0),
    (reload, 0),
    (reload_less, -1),
    (move_heap, 1),
    (freeze, 0),
    (cluster, 0),
    (retype, 0),
]


@pytest.mark.parametrize("rule", [Rule.BOOLEAN, Rule.METADATA_DEAD])
@pytest.mark.parametrize(("change", "gone"), WHOLE, ids=[change.__name__ for change, _ in WHOLE])
def test_changes_of_whole_tables_are_followed(
    database: Database, tmp_path: Path, change: Callable[[Table], None], gone: int, rule: Rule
) -> None:
    table = make_table(database, Form("bigint", "float4[]", rule), ROWS)
    followed = follow(table, tmp_path)
    before = len(table.live)

    change(table)
    findings = followed.check()

    assert findings.followed.rows == (before - len(table.live) if gone < 0 else gone)
    assert followed.check().followed.rows == 0


def test_a_column_that_takes_the_name_of_another_is_followed_though_no_row_was_touched(database: Database, tmp_path: Path) -> None:
    table = make_table(database, Form("uuid", "float4[]", Rule.TIMESTAMP), ROWS)
    rename(table)
    followed = follow(table, tmp_path)
    with followed.source.unit(seconds=10.0) as unit:
        before = unit.heads(Range(None, None))

    swap_names(table)
    with followed.source.unit(seconds=10.0) as unit:
        after = unit.heads(Range(None, None))

    np.testing.assert_array_equal(before.stamps, after.stamps)  # the trap
    assert followed.check().followed.updated > ROWS / 2


def test_writes_without_triggers_are_followed(database: Database, tmp_path: Path) -> None:
    table = make_table(database, Form(), ROWS)
    table.execute("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$")
    table.execute("CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()")
    followed = follow(table, tmp_path)
    key, other = table.live_keys[:2]
    table.execute("SET LOCAL session_replication_role = replica", "DELETE FROM {table} WHERE {id} = " + str(int(key)))
    table.rows = [row for row in table.rows if row.key != key]
    table.execute("SET LOCAL session_replication_role = replica", "UPDATE {table} SET {deleted} = true WHERE {id} = " + str(int(other)))
    for row in table._find(other):
        row.is_dead = True

    assert followed.check().followed.deleted == 2


# --- partitions


@pytest.fixture
def partitioned(database: Database) -> Table:
    """Offer a table of three partitions, of which the third is for whatever fits no other."""
    table = make_table(database, Form("smallint", "vector", Rule.BOOLEAN), 0)
    table.execute("DROP TABLE {table}")
    table.execute("CREATE TABLE {table} ({id} smallint, {vector} vector(8), {model} text, {deleted} boolean) PARTITION BY RANGE ({id})")
    table.execute("CREATE TABLE low PARTITION OF {table} FOR VALUES FROM (-32768) TO (0)")
    table.execute("CREATE TABLE high ({deleted} boolean, gone int, {id} smallint, {vector} vector(8), {model} text)")  # columns elsewhere
    table.execute("ALTER TABLE high DROP gone", "ALTER TABLE {table} ATTACH PARTITION high FOR VALUES FROM (0) TO (20000)")
    table.execute("CREATE TABLE others PARTITION OF {table} DEFAULT")
    table.execute("CREATE INDEX ON {table} ({model}, {id})")
    table.insert(ROWS)
    return table


def test_partitions_that_come_and_go_are_followed(partitioned: Table, tmp_path: Path) -> None:
    followed = follow(partitioned, tmp_path)
    rows = partitioned.rows
    high = [row for row in rows if isinstance(row.key, int) and 0 <= row.key < 20000]

    partitioned.execute("ALTER TABLE {table} DETACH PARTITION high")
    partitioned.rows = [row for row in rows if row not in high]
    assert followed.check().followed.deleted == len(high)

    partitioned.execute("UPDATE high SET {deleted} = true WHERE {id} = %(key)s", key=high[0].key)
    high[0].is_dead = True
    partitioned.execute("ALTER TABLE {table} ATTACH PARTITION high FOR VALUES FROM (0) TO (20000)")
    partitioned.rows = rows
    assert followed.check().followed.inserted == len(high) - 1

    partitioned.execute("DROP TABLE low")
    partitioned.rows = [row for row in rows if isinstance(row.key, int) and row.key >= 0]
    assert followed.check().followed.deleted == len(rows) - len(partitioned.rows)


def test_rows_that_move_between_partitions_are_followed(partitioned: Table, tmp_path: Path) -> None:
    followed = follow(partitioned, tmp_path)
    row = next(row for row in partitioned.rows if isinstance(row.key, int) and row.key < 0)
    partitioned.execute("UPDATE {table} SET {id} = 19999 WHERE {id} = %(key)s", key=row.key)
    row.key = 19999

    findings = followed.check()

    assert (findings.followed.inserted, findings.followed.deleted) == (1, 1)


def test_attaching_a_partition_voids_no_stamp(partitioned: Table, tmp_path: Path) -> None:
    """It is normal life, every month on many tables, and must not cost a comparison of every row."""
    followed = follow(partitioned, tmp_path)
    with followed.source.unit(seconds=10.0) as unit:
        before = unit.as_of.fingerprint
    partitioned.execute("ALTER TABLE {table} DETACH PARTITION low")
    with followed.source.unit(seconds=10.0) as unit:
        assert unit.as_of.fingerprint == before


# --- views


def make_view(table: Table, definition: str) -> None:
    """Put a view in place of the table, which takes another name."""
    table.execute("ALTER TABLE {table} RENAME TO stored")
    table.execute("CREATE VIEW {table} AS " + definition)


@pytest.mark.parametrize("form", [Form("uuid", "halfvec", Rule.BOOLEAN), Form("text", "bytea", Rule.METADATA_LIVE)], ids=str)
def test_a_view_is_followed_by_its_content(database: Database, tmp_path: Path, form: Form) -> None:
    table = make_table(database, form, ROWS)
    make_view(table, "SELECT * FROM stored")
    followed = follow(table, tmp_path)
    with followed.source.unit(seconds=10.0) as unit:
        assert not unit.has_stamps
        assert not unit.heads(Range(None, None)).stamps.any()
    keys = table.live_keys
    table.update_vector(keys[0])
    table.tombstone(keys[1])
    table.swap(keys[2], keys[3])
    table.delete(keys[4])
    table.insert(2)
    table.move(keys[5])
    table.touch(keys[6])

    findings = followed.check()

    assert (findings.followed.inserted, findings.followed.deleted, findings.followed.updated) == (2, 3, 3)
    assert followed.check().followed.rows == 0


def test_a_view_that_is_defined_anew_is_another_source(database: Database, tmp_path: Path) -> None:
    table = make_table(database, Form("bigint", "bytea", Rule.BOOLEAN), ROWS)
    make_view(table, "SELECT * FROM stored")
    followed = follow(table, tmp_path)
    with followed.source.unit(seconds=10.0) as unit:
        before = unit.as_of.fingerprint
    table.execute("CREATE OR REPLACE VIEW {table} AS SELECT * FROM stored WHERE {id} <> 1")

    with followed.source.unit(seconds=10.0) as unit:
        assert unit.as_of.fingerprint != before
    table.rows = [row for row in table.rows if row.key != 1]
    assert followed.check().followed.deleted == 1


def test_a_view_of_a_view_changes_with_the_one_below(database: Database, tmp_path: Path) -> None:
    table = make_table(database, Form("bigint", "bytea", Rule.NONE), ROWS)
    table.execute("CREATE VIEW below AS SELECT * FROM {table}")
    make_view(table, "SELECT * FROM below")
    followed = follow(table, tmp_path)
    table.execute("CREATE OR REPLACE VIEW below AS SELECT * FROM stored WHERE {model} <> '" + OTHER_MODEL + "' AND {id} <> 0")
    table.rows = [row for row in table.rows if row.key != 0 and row.model != OTHER_MODEL]

    assert followed.check().followed.deleted == 1
