"""Whatever keeps a check from seeing makes it unknown, each with a reason of its own: having seen nothing is never ok."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.postgres import Database, Login
from tests.support.replica import check, load_belief, make_source, wait_until, write_settings
from tests.support.tables import MODEL, OTHER_MODEL, Form, Rule, Table, make_table
from vectorindex_indexer import compare, predicate
from vectorindex_indexer.belief import UNKNOWN, Belief, InconclusiveError
from vectorindex_indexer.config import Settings
from vectorindex_indexer.digest import Digest
from vectorindex_indexer.load import load_candidate
from vectorindex_indexer.names import ProofReason, Result, SourceReason
from vectorindex_indexer.rows import Totals
from vectorindex_indexer.source import Source, Unit

FORMS: Final = (Form("bigint", "bytea", Rule.METADATA_DEAD), Form("uuid", "vector", Rule.BOOLEAN))
METADATA, COLUMN = FORMS
ROWS: Final = 60


@dataclass
class Bench:
    """A table, a source that reads it as `reader`, and a proven belief of it."""

    table: Table
    reader: Login
    settings: Settings
    source: Source
    belief: Belief
    patch: pytest.MonkeyPatch

    @property
    def database(self) -> Database:
        return self.table.database

    @property
    def tombstones(self) -> str:
        """The table that says which rows are dead."""
        return f"{self.table.name}Meta" if self.table.form.rule.is_metadata else self.table.name

    def run(self, *statements: str) -> None:
        """Run statements as the superuser."""
        with self.database.admin_connect() as connection:
            for statement in statements:
                connection.execute(statement)


def make_bench(database: Database, folder: Path, form: Form, patch: pytest.MonkeyPatch) -> Bench:
    table = make_table(database, form, ROWS)
    reader = database.create_reader()
    settings = write_settings(folder, table.manifest(), reader)
    source = make_source(settings)
    return Bench(table, reader, settings, source, load_belief(settings, source), patch)


# --- causes: each is a context in which nothing, or not enough, can be seen


@contextmanager
def with_changed_rows(bench: Bench, change: str, *, table: str = "") -> Iterator[None]:
    """Change a table by a statement, and put its rows back afterwards."""
    name = f'"{table or bench.table.name}"'
    bench.run(f"CREATE TABLE kept AS SELECT * FROM {name}", change)
    yield
    bench.run(f"DELETE FROM {name}", f"INSERT INTO {name} SELECT * FROM kept", "DROP TABLE kept")


@contextmanager
def with_statements(bench: Bench, before: str, after: str) -> Iterator[None]:
    names = {"table": f'"{bench.table.name}"', "tombstones": f'"{bench.tombstones}"', "reader": f'"{bench.reader.username}"'}
    bench.run(*before.format(**names).split("; "))
    yield
    bench.run(*after.format(**names).split("; "))


def every_row_dead(bench: Bench) -> AbstractContextManager[None]:
    return with_changed_rows(bench, f'UPDATE "{bench.tombstones}" SET "Deleted" = true', table=bench.tombstones)


def another_model(bench: Bench, *, table: str = "") -> AbstractContextManager[None]:
    name = table or bench.table.name
    return with_changed_rows(bench, f'UPDATE "{name}" SET "Model" = \'renamed\' WHERE "Model" = \'{MODEL}\'', table=name)


@contextmanager
def lying(bench: Bench, **lies: Callable[[Unit], Any]) -> Iterator[None]:
    """Let units of work answer what isn't so, as a defect of ours or a proxy in between would."""
    honest = bench.source.unit

    class Liar:
        def __init__(self, unit: Unit) -> None:
            self._unit = unit

        def __getattr__(self, name: str) -> Any:
            return lies[name](self._unit) if name in lies else getattr(self._unit, name)

    @contextmanager
    def unit(*, seconds: float) -> Iterator[Any]:
        with honest(seconds=seconds) as real:
            yield Liar(real)

    with bench.patch.context() as patch:
        patch.setattr(bench.source, "unit", unit)
        yield


@contextmanager
def null_sums(bench: Bench, of: str) -> Iterator[None]:
    """Let Postgres answer NULL for the sum in statements that hold a text."""
    honest = Unit._fetch

    def fetch(unit: Unit, query: sa.ClauseElement) -> list[tuple[Any, ...]]:
        answer = honest(unit, query)
        return [(*row[:-1], None) for row in answer] if of in predicate.compile_statement(query)[0] else answer

    with bench.patch.context() as patch:
        patch.setattr(Unit, "_fetch", fetch)
        yield


@contextmanager
def locked_and_cancelled(bench: Bench) -> Iterator[None]:
    """Let somebody cancel whatever we wait for."""
    stop = threading.Event()

    def cancel() -> None:
        statement = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = %s AND wait_event_type = 'Lock'"
        with bench.database.admin_connect() as connection:
            while not stop.wait(0.02):
                connection.execute(statement, [bench.reader.username])

    with bench.database.admin_connect(autocommit=False) as locker:
        locker.execute(f'LOCK TABLE "{bench.tombstones}" IN ACCESS EXCLUSIVE MODE')
        thread = threading.Thread(target=cancel)
        thread.start()
        yield
        stop.set()
        thread.join()
        locker.rollback()


def sleep(unit: Unit) -> Callable[..., Any]:
    def totals(*_: Any) -> Any:
        return unit._fetch(sa.select(sa.func.pg_sleep(sa.literal_column("20"))))

    return totals


def miscount(unit: Unit) -> Callable[..., Totals]:
    def totals(*asked: Any) -> Totals:
        honest = unit.totals(*asked)
        return replace(honest, counts=honest.counts - 1)

    return totals


def false_digests(unit: Unit) -> Callable[..., Totals]:
    """Answer digests as if from columns, and not those of the rows."""

    def totals(*asked: Any) -> Totals:
        honest = unit.totals(*asked)
        return replace(honest, stamps=None, digests=[Digest(int(count), 1, 2) for count in honest.counts])

    return totals


@contextmanager
def blind_predicate(bench: Bench) -> Iterator[None]:
    """Let the predicate find no row."""
    honest = predicate.LiveRows.__init__

    def make(rows: predicate.LiveRows, *arguments: Any, **options: Any) -> None:
        honest(rows, *arguments, **options)
        rows.clause = sa.false()
        patch.setattr(rows, "_clause", lambda _: sa.false())

    with bench.patch.context() as patch:
        patch.setattr(predicate.LiveRows, "__init__", make)
        yield


@contextmanager
def blind_comparer(bench: Bench, name: str, answer: Any) -> Iterator[None]:
    with bench.patch.context() as patch:
        patch.setattr(compare, name, lambda *_: answer)
        yield


def ended_session(unit: Unit, bench: Bench) -> Callable[..., Any]:
    def totals(*arguments: Any) -> Any:
        assert bench.database.terminate_backends() == 1
        return unit.totals(*arguments)

    return totals


Reason = ProofReason | SourceReason


@dataclass(frozen=True)
class Cause:
    """Something that keeps a check from seeing, and what must be said of it."""

    reason: Reason
    make: Callable[[Bench], AbstractContextManager[None]]
    form: Form | None = None  # only there
    deadline: float = 60.0


def statements(before: str, after: str) -> Callable[[Bench], AbstractContextManager[None]]:
    return lambda bench: with_statements(bench, before, after)


def rows(change: str, table: str = "") -> Callable[[Bench], AbstractContextManager[None]]:
    return partial(with_changed_rows, change=change, table=table)


def lies(**answers: Callable[[Unit], Any]) -> Callable[[Bench], AbstractContextManager[None]]:
    return lambda bench: lying(bench, **answers)


NOTHING_ASKED: Final = lies(digest_without=lambda unit: lambda one, _: unit.digests([one])[0])
LATE: Final = lies(as_of=lambda unit: replace(unit.as_of, snapshot="3:3:"))
MISCOUNTED: Final = lies(totals=miscount)
NO_VECTOR: Final = statements(
    'ALTER TABLE {table} RENAME COLUMN "Vector" TO kept; ALTER TABLE {table} ADD COLUMN "Vector" text',
    'ALTER TABLE {table} DROP COLUMN "Vector"; ALTER TABLE {table} RENAME COLUMN kept TO "Vector"',
)
UNSEEN: Final = statements("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY", "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
UNSEEN_DEAD: Final = statements("ALTER TABLE {tombstones} ENABLE ROW LEVEL SECURITY", "ALTER TABLE {tombstones} DISABLE ROW LEVEL SECURITY")

CAUSES: Final = {
    "zero rows": Cause(ProofReason.NO_LIVE_ROWS, rows('DELETE FROM "Documents"')),
    "every row dead": Cause(ProofReason.NO_LIVE_ROWS, every_row_dead),
    "no metadata": Cause(ProofReason.NO_LIVE_ROWS, rows('DELETE FROM "DocumentsMeta"', "DocumentsMeta"), METADATA),
    "rows of another model only": Cause(ProofReason.MODEL_KEY_NOT_FOUND, rows(f'DELETE FROM "Documents" WHERE "Model" = \'{MODEL}\'')),
    "a model key that matches nothing": Cause(ProofReason.MODEL_KEY_NOT_FOUND, another_model),
    "metadata of another model": Cause(ProofReason.METADATA_NOT_FOUND, partial(another_model, table="DocumentsMeta"), METADATA),
    "SELECT revoked": Cause(
        SourceReason.PERMISSION_DENIED,
        statements("REVOKE SELECT ON {table} FROM {reader}", "GRANT SELECT ON {table} TO {reader}"),
    ),
    "SELECT on the tombstones revoked": Cause(
        SourceReason.PERMISSION_DENIED,
        statements("REVOKE SELECT ON {tombstones} FROM {reader}", "GRANT SELECT ON {tombstones} TO {reader}"),
    ),
    "rows that may be hidden": Cause(SourceReason.ROW_SECURITY, UNSEEN),
    "tombstones that may be hidden": Cause(SourceReason.ROW_SECURITY, UNSEEN_DEAD),
    "a column gone": Cause(
        SourceReason.COLUMN_MISSING,
        statements('ALTER TABLE {table} RENAME COLUMN "Vector" TO other', 'ALTER TABLE {table} RENAME COLUMN other TO "Vector"'),
    ),
    "a table gone": Cause(
        SourceReason.TABLE_MISSING, statements("ALTER TABLE {tombstones} RENAME TO other", "ALTER TABLE other RENAME TO {tombstones}")
    ),
    "a vector of another type": Cause(SourceReason.TYPE_UNSUPPORTED, NO_VECTOR),
    "NULL for the sum of stamps": Cause(ProofReason.SUM_IS_NULL, partial(null_sums, of="hashtidextended")),
    "NULL for the sum of digests": Cause(ProofReason.SUM_IS_NULL, partial(null_sums, of="sha256")),
    "a statement that is cancelled": Cause(SourceReason.STATEMENT_CANCELLED, locked_and_cancelled),
    "a statement that takes too long": Cause(SourceReason.STATEMENT_CANCELLED, lies(totals=sleep), deadline=0.5),
    "a session that is ended": Cause(
        SourceReason.CONNECTION_LOST, lambda bench: lying(bench, totals=lambda unit: ended_session(unit, bench))
    ),
    "a due bucket that is not answered": Cause(
        ProofReason.BUCKET_NOT_COMPARED, lies(digests=lambda unit: lambda ranges: unit.digests(ranges)[:-1])
    ),
    "buckets that do not add up": Cause(ProofReason.BUCKET_NOT_COMPARED, MISCOUNTED),
    "stored digests that lie": Cause(ProofReason.STORED_DIGESTS_DIFFER, lies(has_stored_digests=lambda _: True, totals=false_digests)),
    "digests of another kind": Cause(ProofReason.DIGEST_SPEC_DIFFERS, lies(digest_spec=lambda _: "crc32/int8/bytea/0")),
    "a server that lags": Cause(ProofReason.SNAPSHOT_WENT_BACK, LATE),
    "a comparer of sums that sees nothing": Cause(
        ProofReason.POSITIVE_CONTROL_FAILED, partial(blind_comparer, name="find_moved", answer=[])
    ),
    "a comparer of content that sees nothing": Cause(
        ProofReason.POSITIVE_CONTROL_FAILED, partial(blind_comparer, name="find_different", answer=[])
    ),
    "a comparer of the index that sees nothing": Cause(
        ProofReason.POSITIVE_CONTROL_FAILED, partial(blind_comparer, name="compare_index", answer=compare.Drift())
    ),
    "a predicate that sees nothing": Cause(ProofReason.NO_LIVE_ROWS, blind_predicate),
    "a predicate that ignores what it is asked": Cause(ProofReason.POSITIVE_CONTROL_FAILED, NOTHING_ASKED),
}
VARIANTS: Final = [
    pytest.param(name, form, id=f"{name}-{form.id_type}") for name, cause in CAUSES.items() for form in FORMS if cause.form in (None, form)
]


@pytest.mark.parametrize(("name", "form"), VARIANTS)
def test_who_can_not_see_says_unknown_and_why(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: Form
) -> None:
    cause = CAUSES[name]
    bench = make_bench(database, tmp_path, form, monkeypatch)
    before = belief = bench.belief

    with cause.make(bench):
        for whole in (False, True):
            outcome = check(bench.source, belief, whole=whole, deadline=cause.deadline)

            assert (outcome.findings.result, outcome.findings.reason) == (Result.UNKNOWN, cause.reason), outcome.findings.message
            assert outcome.findings.found == UNKNOWN
            belief = outcome.belief
            assert belief.ledger is before.ledger
            assert belief.view is before.view
            assert belief.as_of is before.as_of
            assert (belief.plan is not None) is (cause.reason is ProofReason.NO_LIVE_ROWS), "only an empty table may be approved of"
            assert not outcome.findings.followed.rows
            assert bench.reader.password not in outcome.findings.message
            assert not bench.database.idle_in_transaction()
            wait_until("no session of ours", lambda: not bench.database.backends())  # Postgres has to notice that we left

    healed = check(bench.source, belief, whole=True)
    assert healed.findings.result is Result.OK, healed.findings.message
    assert (healed.findings.drift.rows, healed.belief.plan) == (0, None)
    assert healed.belief.ledger.root == before.ledger.root
    bench.database.expect_no_backends()


def test_each_thing_that_can_not_be_seen_has_a_cause_here() -> None:
    """Reasons of `unknown` that a check alone can give; others come about elsewhere, and are tested there."""
    elsewhere = {"NotChecked", "InternalError", "MemoryTooSmall", "RebuildSlotBusy"}
    drift = {"DriftFound", "DriftSuspended", "PendingSuspended", "RepairFailed", "RepairHeld", "ChangeHeld", "SourceRegressed"}
    no_result = {"Proven", *drift}
    given = {str(cause.reason) for cause in CAUSES.values() if isinstance(cause.reason, ProofReason)}
    assert given | elsewhere | no_result == {str(reason) for reason in ProofReason}
    assert not given & (elsewhere | no_result)


# --- what is said of a wrong model key, and loads that see nothing


def test_a_wrong_model_key_names_what_is_there(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench(database, tmp_path, METADATA, monkeypatch)
    manifest = bench.table.manifest()
    manifest["spec"]["source"]["model"] = f"{MODEL}:int8"
    source = make_source(write_settings(tmp_path / "wrong", manifest, bench.reader))

    outcome = check(source, bench.belief)

    assert (outcome.findings.result, outcome.findings.reason) == (Result.UNKNOWN, ProofReason.MODEL_KEY_NOT_FOUND)
    for said in (f'"{MODEL}"', f'"{OTHER_MODEL}"', "suffix"):
        assert said in outcome.findings.message
    with pytest.raises(InconclusiveError, match="model key"):
        load_candidate(source, bench.belief.view.spec, generation=1, proven_rows=0, progress=lambda *_: None)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_load_without_memory_trusts_the_last_proof_over_an_empty_table(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    bench = make_bench(database, tmp_path, form, monkeypatch)
    bench.run('DELETE FROM "Documents"')

    with pytest.raises(InconclusiveError, match="51 were proven last"):
        load_candidate(bench.source, bench.belief.view.spec, generation=1, proven_rows=51, progress=lambda *_: None)
    bench.database.expect_no_backends()


def test_a_reader_of_the_catalogue_alone_is_told_apart_from_one_of_the_rows(database: Database) -> None:
    """The superuser may see everything: what these tests take away, they take from the reader."""
    make_table(database, COLUMN, 10)
    reader = database.create_reader()
    with psycopg.connect(database.conninfo(reader)) as connection:
        assert connection.execute('SELECT count(*) > 0 FROM "Documents"').fetchone() == (True,)
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
