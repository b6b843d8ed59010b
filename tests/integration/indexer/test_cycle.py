"""One check against a real Postgres: what it finds, how it names it, what it repairs, and when it says that it can't know."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.wordnet.load import MODEL, Variant, live_rows, pack_vector
from tests.support.faults import bring_back, change_digest, change_view, lose_from_ledger
from tests.support.postgres import MakeWordnetDatabase, WordnetDatabase
from tests.support.replica import (
    assert_true_to,
    check,
    drifted,
    load_belief,
    make_manifest,
    make_source,
    write_settings,
)
from vectorindex_indexer import cycle
from vectorindex_indexer.belief import Belief, Outcome
from vectorindex_indexer.load import load_candidate
from vectorindex_indexer.names import ProofReason, Result
from vectorindex_indexer.source import Source

ROWS = 10_000  # three buckets
VARIANTS = list(Variant)


@dataclass
class Bench:
    """A database, a source that reads it, and a proven belief of it."""

    database: WordnetDatabase
    source: Source
    belief: Belief

    def check(self, belief: Belief | None = None, **options: Any) -> Outcome:
        outcome = check(self.source, belief or self.belief, **options)
        self.belief = outcome.belief
        return outcome

    def execute(self, statement: str, *values: Any) -> None:
        with self.database.admin_connect() as connection:
            connection.execute(statement, values)

    def live(self) -> tuple[list[int], np.ndarray]:
        with self.database.admin_connect() as connection:
            ids, vectors = live_rows(connection, variant=self.database.variant)
        return ids.tolist(), vectors

    def tombstoned(self) -> list[int]:
        statement = {
            Variant.TWO_TABLES: "SELECT DISTINCT entity_id FROM faiss_metadata WHERE model_name = %s AND deleted ORDER BY 1",
            Variant.PGVECTOR: "SELECT entity_id FROM embeddings WHERE model_name = %s AND deleted ORDER BY 1",
        }[self.database.variant]
        with self.database.admin_connect() as connection:
            return [row[0] for row in connection.execute(statement, [MODEL]).fetchall()]


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(make_wordnet_database: MakeWordnetDatabase, tmp_path: Path) -> MakeBench:
    def make(variant: Variant = Variant.TWO_TABLES, rows: int = ROWS, **changes: Any) -> Bench:
        database = make_wordnet_database(rows=rows, variant=variant)
        settings = write_settings(tmp_path / database.name, make_manifest(database, **changes), database.create_reader())
        source = make_source(settings)
        return Bench(database, source, load_belief(settings, source))

    return make


@pytest.fixture(params=VARIANTS)
def bench(make_bench: MakeBench, request: pytest.FixtureRequest) -> Bench:
    return make_bench(request.param)


# --- what is loaded, and what follows


def test_the_loaded_index_holds_exactly_the_live_rows(bench: Bench) -> None:
    assert_true_to(bench.belief, bench.database)
    assert bench.belief.ledger.rows == bench.database.counts.live


def test_a_second_check_finds_nothing_and_publishes_the_same_root(bench: Bench) -> None:
    before = bench.belief

    outcome = bench.check(whole=True)

    assert outcome.findings.result is Result.OK
    assert outcome.findings.reason is ProofReason.PROVEN
    assert (outcome.findings.drift.rows, outcome.findings.followed.rows) == (0, 0)
    assert outcome.belief.root == before.root
    assert outcome.belief.view is before.view


def test_upstream_changes_are_followed_and_are_not_drift(bench: Bench) -> None:
    ids, vectors = bench.live()
    dead = bench.tombstoned()
    two_tables = bench.database.variant is Variant.TWO_TABLES
    new_vector = pack_vector(vectors[7], bench.database.variant)
    new_vector_sql = "%s" if two_tables else "%s::text::vector"
    value: Any = new_vector if two_tables else str(vectors[7].tolist())
    bench.execute(
        f"INSERT INTO embeddings (entity_id, model_name, vector) VALUES (5, %s, {new_vector_sql})",
        MODEL,
        value,
    )
    bench.execute(f"UPDATE embeddings SET vector = {new_vector_sql} WHERE entity_id = %s AND model_name = %s", value, ids[0], MODEL)
    if two_tables:
        bench.execute("INSERT INTO faiss_metadata (entity_id, model_name) VALUES (5, %s)", MODEL)
        bench.execute("UPDATE faiss_metadata SET deleted = true WHERE entity_id = %s AND model_name = %s", ids[10], MODEL)
        bench.execute("UPDATE faiss_metadata SET deleted = false WHERE entity_id = %s AND model_name = %s", dead[0], MODEL)
        bench.execute("UPDATE faiss_metadata SET changed_at = now() WHERE entity_id = %s AND model_name = %s", ids[30], MODEL)
    else:
        bench.execute("UPDATE embeddings SET deleted = true WHERE entity_id = %s AND model_name = %s", ids[10], MODEL)
        bench.execute("UPDATE embeddings SET deleted = false WHERE entity_id = %s AND model_name = %s", dead[0], MODEL)
        bench.execute("UPDATE embeddings SET text = 'other' WHERE entity_id = %s AND model_name = %s", ids[30], MODEL)
    bench.execute("DELETE FROM embeddings WHERE entity_id = %s AND model_name = %s", ids[20], MODEL)
    bench.execute("UPDATE embeddings SET model_name = 'third/model' WHERE entity_id = %s AND model_name = %s", ids[40], MODEL)

    outcome = bench.check()

    assert outcome.findings.result is Result.OK, outcome.findings.message
    assert outcome.findings.drift.rows == 0
    followed = outcome.findings.followed
    assert (followed.inserted, followed.updated, followed.deleted) == (2, 1, 3)
    assert_true_to(bench.belief, bench.database)


def test_a_table_emptied_and_loaded_again_is_followed(make_bench: MakeBench) -> None:
    bench = make_bench(Variant.PGVECTOR, rows=1000)
    bench.execute("CREATE TABLE copy AS SELECT * FROM embeddings")
    bench.execute("BEGIN; TRUNCATE embeddings; INSERT INTO embeddings SELECT * FROM copy ORDER BY entity_id DESC; COMMIT")

    outcome = bench.check()

    assert outcome.findings.result is Result.OK, outcome.findings.message
    assert (outcome.findings.drift.rows, outcome.findings.followed.rows) == (0, 0)
    assert_true_to(bench.belief, bench.database)


def test_an_id_that_becomes_double_is_quarantined_and_comes_back_when_single_again(make_bench: MakeBench) -> None:
    bench = make_bench(rows=1000)
    bench.execute("ALTER TABLE embeddings DROP CONSTRAINT embeddings_pkey")
    ids, _ = bench.live()
    bench.execute("INSERT INTO embeddings SELECT * FROM embeddings WHERE entity_id = %s AND model_name = %s", ids[3], MODEL)

    outcome = bench.check()
    assert outcome.findings.result is Result.OK, outcome.findings.message
    assert {str(key): rows for key, rows in bench.belief.ledger.count_quarantine().items()} == {"DuplicateId": 2}
    assert ids[3] not in bench.belief.view.live_entries()[0]

    bench.execute(
        "DELETE FROM embeddings WHERE ctid IN (SELECT max(ctid) FROM embeddings WHERE entity_id = %s AND model_name = %s)", ids[3], MODEL
    )
    outcome = bench.check()
    assert outcome.findings.result is Result.OK, outcome.findings.message
    assert not bench.belief.ledger.count_quarantine()
    assert_true_to(bench.belief, bench.database)


@pytest.mark.parametrize(
    ("reason", "vector"),
    [
        ("NullVector", None),
        ("WrongDimension", b"\0" * 12),
        ("NotFinite", np.full(384, np.nan, "<f4").tobytes()),
        ("NotFinite", np.array([np.inf] + [0.0] * 383, "<f4").tobytes()),
        ("ZeroVector", np.zeros(384, "<f4").tobytes()),
    ],
)
def test_a_bad_row_is_quarantined_and_stops_no_other(make_bench: MakeBench, reason: str, vector: bytes | None) -> None:
    bench = make_bench(rows=1000)
    ids, _ = bench.live()
    bench.execute("UPDATE embeddings SET vector = %s WHERE entity_id = %s AND model_name = %s", vector, ids[3], MODEL)

    outcome = bench.check()

    assert outcome.findings.result is Result.OK, outcome.findings.message
    assert {str(key): rows for key, rows in bench.belief.ledger.count_quarantine().items()} == {reason: 1}
    assert bench.belief.ledger.rows == bench.database.counts.live
    assert bench.belief.view.live_rows == bench.database.counts.live - 1


# --- planted faults


def plant_lost(bench: Bench) -> tuple[Belief, dict[str, list[int]]]:
    ids, _ = bench.live()
    return lose_from_ledger(bench.belief, ids[11]), {"missing": [ids[11]]}


def plant_ghost_by_tombstone(bench: Bench) -> tuple[Belief, dict[str, list[int]]]:
    dead = bench.tombstoned()[2]
    return bring_back(bench.belief, dead, np.ones(384, np.float32)), {"ghost": [dead]}


def plant_ghost_by_hard_delete(bench: Bench) -> tuple[Belief, dict[str, list[int]]]:
    ids, vectors = bench.live()
    bench.execute("DELETE FROM embeddings WHERE entity_id = %s AND model_name = %s", ids[4], MODEL)
    bench.check()
    return bring_back(bench.belief, ids[4], vectors[4]), {"ghost": [ids[4]]}


def plant_ghost_by_model_move(bench: Bench) -> tuple[Belief, dict[str, list[int]]]:
    ids, vectors = bench.live()
    bench.execute("UPDATE embeddings SET model_name = 'third/model' WHERE entity_id = %s AND model_name = %s", ids[4], MODEL)
    bench.check()
    return bring_back(bench.belief, ids[4], vectors[4]), {"ghost": [ids[4]]}


def plant_changed(bench: Bench) -> tuple[Belief, dict[str, list[int]]]:
    ids, _ = bench.live()
    return change_digest(bench.belief, ids[9]), {"changed": [ids[9]]}


def plant_changed_under_a_new_seal(bench: Bench) -> tuple[Belief, dict[str, list[int]]]:
    ids, _ = bench.live()
    return change_digest(bench.belief, ids[9], sealed=True), {"changed": [ids[9]]}


def plant_lost_in_index(bench: Bench) -> tuple[Belief, dict[str, list[int]]]:
    ids, _ = bench.live()
    return change_view(bench.belief, [ids[5]], {}), {"missing": [ids[5]]}


def plant_ghost_in_index(bench: Bench) -> tuple[Belief, dict[str, list[int]]]:
    dead = bench.tombstoned()[5]
    return change_view(bench.belief, [], {dead: np.ones(384, np.float32)}), {"ghost": [dead]}


def plant_duplicate(bench: Bench) -> tuple[Belief, dict[str, list[int]]]:
    ids, vectors = bench.live()
    return change_view(bench.belief, [], {ids[6]: vectors[6]}), {"duplicate": [ids[6]]}


def plant_swapped_vectors(bench: Bench) -> tuple[Belief, dict[str, list[int]]]:
    ids, vectors = bench.live()
    return change_view(bench.belief, [ids[6], ids[7]], {ids[6]: vectors[7], ids[7]: vectors[6]}), {"changed": [ids[6], ids[7]]}


def plant_damaged_codes(bench: Bench) -> tuple[Belief, dict[str, list[int]]]:
    """Flip one bit where FAISS keeps the vectors."""
    segment = bench.belief.view.segments[0]
    codes = segment.codes.view(np.uint8)
    codes[123, 40] ^= 4
    return bench.belief, {"changed": [int(segment.ids[123])]}


FAULTS = [
    plant_lost,
    plant_ghost_by_tombstone,
    plant_ghost_by_hard_delete,
    plant_ghost_by_model_move,
    plant_changed,
    plant_changed_under_a_new_seal,
    plant_lost_in_index,
    plant_ghost_in_index,
    plant_duplicate,
    plant_swapped_vectors,
    plant_damaged_codes,
]


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__.removeprefix("plant_"))
def test_a_planted_fault_is_found_named_and_repaired(bench: Bench, plant: Callable[[Bench], tuple[Belief, dict[str, list[int]]]]) -> None:
    damaged, expected = plant(bench)

    outcome = bench.check(damaged, whole=True)

    assert drifted(outcome.findings) == expected
    assert outcome.findings.result is Result.OK, outcome.findings.message
    assert outcome.findings.followed.rows == 0
    assert_true_to(bench.belief, bench.database)
    again = bench.check(whole=True)
    assert (again.findings.result, again.findings.drift.rows) == (Result.OK, 0)


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__.removeprefix("plant_"))
def test_while_suspended_a_fault_is_told_and_left_alone(
    make_bench: MakeBench, plant: Callable[[Bench], tuple[Belief, dict[str, list[int]]]]
) -> None:
    bench = make_bench(rows=2000)
    damaged, expected = plant(bench)

    outcome = check(bench.source, damaged, whole=True, apply=False)

    assert drifted(outcome.findings) == expected
    if plant in (plant_changed, plant_changed_under_a_new_seal):  # of the ledger alone, which always follows: what is served was right
        assert outcome.findings.result is Result.OK
    else:
        assert (outcome.findings.result, outcome.findings.reason) == (Result.DRIFT, ProofReason.DRIFT_SUSPENDED)
    assert outcome.belief.view is damaged.view


def test_while_suspended_upstream_changes_wait_and_are_counted(make_bench: MakeBench) -> None:
    bench = make_bench(rows=1000)
    ids, _ = bench.live()
    bench.execute("DELETE FROM embeddings WHERE entity_id = ANY(%s)", ids[:3])

    waiting = bench.check(apply=False)
    assert (waiting.findings.result, waiting.findings.reason) == (Result.DRIFT, ProofReason.PENDING_SUSPENDED)
    assert (waiting.findings.pending, waiting.findings.drift.rows) == (3, 0)

    resumed = bench.check()
    assert (resumed.findings.result, resumed.findings.followed.deleted) == (Result.OK, 3)


def test_a_due_bucket_is_compared_by_content_without_being_asked(make_bench: MakeBench) -> None:
    """The content sweep alone finds a row that changed while its stamp stood still."""
    bench = make_bench()
    ids, _ = bench.live()
    damaged = change_digest(bench.belief, ids[-1], sealed=True)
    never = replace(damaged, ledger=replace(damaged.ledger, compared=np.full(len(damaged.ledger.buckets), -np.inf)))

    found = [drifted(bench.check(never if turn == 0 else None).findings) for turn in range(len(never.ledger.buckets))]

    assert {"changed": [ids[-1]]} in found


def test_a_slice_of_a_large_index_is_compared_in_each_check_without_being_asked(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage to codes, which changes no count, is found when its bucket's turn has come."""
    monkeypatch.setattr(cycle, "EXAMINE_ALWAYS_ROWS", 0)
    bench = make_bench()
    _, expected = plant_damaged_codes(bench)

    found = [drifted(bench.check().findings) for _ in bench.belief.ledger.buckets]

    assert sorted(found, key=len) == [*[{}] * (len(found) - 1), expected]


# --- what can't be known


def test_a_table_that_was_emptied_is_believed_once_somebody_approved_of_it(make_bench: MakeBench) -> None:
    bench = make_bench(rows=500)
    bench.execute("DELETE FROM embeddings")
    plan = bench.check().belief.plan
    assert plan is not None
    assert plan.removes == bench.database.counts.live

    outcome = bench.check(approved=frozenset({plan.id}), proven_rows=bench.database.counts.live)

    assert (outcome.findings.result, outcome.findings.carried_out) == (Result.OK, plan.id)
    assert outcome.belief.view.live_rows == 0
    assert bench.check().findings.result is Result.OK


def test_an_empty_table_that_was_never_otherwise_is_proven_empty(make_bench: MakeBench) -> None:
    bench = make_bench(Variant.PGVECTOR, rows=500)
    bench.execute("DELETE FROM embeddings")
    spec = bench.belief.view.spec
    empty = load_candidate(bench.source, spec, generation=1, proven_rows=0, progress=lambda *_: None)

    outcome = bench.check(empty, whole=True)

    assert (outcome.findings.result, outcome.belief.ledger.rows) == (Result.OK, 0)


def test_after_a_new_incarnation_nothing_is_ok_before_a_full_comparison(make_bench: MakeBench) -> None:
    """Stamps of another life are void: a row whose stamp happens to be the same is found by its content."""
    bench = make_bench()
    ids, _ = bench.live()
    damaged = change_digest(bench.belief, ids[-1], sealed=True)
    other_life = replace(damaged, as_of=replace(damaged.as_of, incarnation="1/primary/1", snapshot="999999999:999999999:"))

    outcome = bench.check(other_life)

    assert outcome.findings.result is Result.OK
    assert outcome.findings.followed.updated == 1
    assert_true_to(bench.belief, bench.database)


def test_a_repair_that_does_not_take_is_not_called_repaired(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench(rows=500)
    damaged, _ = plant_lost_in_index(bench)
    monkeypatch.setattr(type(damaged.view), "change", lambda view, *_: view)

    outcome = bench.check(damaged)

    assert (outcome.findings.result, outcome.findings.reason) == (Result.DRIFT, ProofReason.REPAIR_FAILED)
    assert outcome.belief is damaged


def test_no_thread_is_left() -> None:
    """Watchdogs of finished units of work must end with them."""
    assert [thread.name for thread in threading.enumerate() if "watchdog" in thread.name] == []


def test_the_oracle_is_not_the_products_predicate() -> None:
    """The tests above compare with SQL of the example, which must not import the product."""
    source = Path(live_rows.__code__.co_filename).read_text()
    assert "vectorindex_indexer" not in source
