"""Checks beside eight writers whose commits come late: no false alarm, no fault missed, and in the end the index equals the table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import plants
from tests.support.bench import Bench, assert_true_to_table, drifted_keys, make_bench, shrink_buckets
from tests.support.plants import Plant
from tests.support.postgres import Database
from tests.support.table_writers import run_table_writers
from tests.support.tables import Form, Rule
from vectorindex_indexer.names import Result

FORMS: Final = {
    "bigint, bytea, metadata": (Form("bigint", "bytea", Rule.METADATA_DEAD), "HNSW"),
    "uuid, halfvec, timestamp": (Form("uuid", "halfvec", Rule.TIMESTAMP), "Flat"),
}
ROWS: Final = 400
WRITERS: Final = 8
GROUPED: Final = {"snapshot_seconds": 0.0, "group_seconds": 0.0}  # one bucket in a transaction

# Those that concern single rows: where a bucket broke its seal, whatever the writers changed in it since is lost as well.
FAULTS: Final[tuple[Plant, ...]] = (
    plants.lost_from_the_index,
    plants.lost_by_a_dead_mark,
    plants.ghost_by_a_lost_dead_mark,
    plants.changed_in_the_ledger_under_a_new_seal,
    plants.changed_by_a_flipped_bit,
    plants.changed_by_a_flipped_bit_of_the_delta,
    plants.swapped_in_the_index,
    plants.duplicate_in_the_index,
    plants.duplicate_by_a_lost_dead_mark,
)


@pytest.fixture(params=list(FORMS))
def bench(database: Database, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    shrink_buckets(monkeypatch)
    form, make = FORMS[request.param]
    made = make_bench(database, tmp_path / "replica", form, ROWS, make=make)
    made.is_alone = False
    yield made
    assert not database.idle_in_transaction()


@pytest.mark.parametrize(
    ("cycles", "terms"),
    [
        pytest.param(80, {}, id="80"),
        pytest.param(40, GROUPED, id="40 in groups"),
        pytest.param(500, {}, id="500", marks=pytest.mark.slow),
        pytest.param(200, GROUPED, id="200 in groups", marks=pytest.mark.slow),
    ],
)
def test_writers_raise_no_false_alarm_and_hide_no_fault(bench: Bench, cycles: int, terms: dict[str, Any], tmp_path: Path) -> None:
    """The writers insert, update, touch, tombstone, revive and delete rows, and move them to another model key and back."""
    followed = 0
    with run_table_writers(bench.table, WRITERS):
        for number in range(cycles):
            findings = bench.check(**terms).findings
            assert (findings.result, drifted_keys(bench, findings)) == (Result.OK, {}), findings.message
            followed += findings.followed.rows
            if number % 8 == 7:
                find_planted(bench, FAULTS[number // 8 % len(FAULTS)], tmp_path, **terms)
    bench.check()

    assert followed > cycles, "the writers must have been at work"
    assert len(bench.belief.ledger.buckets) > 2
    assert_true_to_table(bench)


def find_planted(bench: Bench, plant: Plant, folder: Path, **terms: Any) -> None:
    """Plant a fault in rows that the writers leave alone, and see that the next check names exactly those, and repairs them."""
    planted = plant(bench, folder)
    findings = bench.check(planted.belief, whole=True, **terms).findings
    assert (findings.result, drifted_keys(bench, findings)) == (Result.OK, planted.drift), findings.message
