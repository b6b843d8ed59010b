"""Every kind of fault in indexes on tables of every form: found, named by its kind with the right ids, repaired, and proven again."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.bench import MAKES, Bench, assert_true_to_table, drifted_keys, followed, make_bench, shrink_buckets
from tests.support.plants import FAULTS, Plant, ghost_by_lost_metadata, ghost_by_tombstone
from tests.support.postgres import Server, create_extension
from tests.support.tables import VECTOR_TYPES, Form, Rule
from vectorindex_indexer.names import Result

ROWS: Final = 340  # so many that, under every rule, what an index of each type has to learn can be learnt from those that live


def combine() -> Iterator[tuple[Form, str]]:
    """Return all forms, each with a type of index: all types in turn, the cheap ones more often."""
    makes = itertools.cycle(
        ["Flat", "HNSW", "IVFFlat", "Flat", "HNSW", "Flat-SQ8", "Flat", "HNSW", "HNSW-SQ8", "Flat", "HNSW", "IVFFlat-SQ8"]
    )
    for id_type, vector_type, rule in itertools.product(("bigint", "uuid", "text"), VECTOR_TYPES, Rule):
        yield Form(id_type, vector_type, rule), next(makes)
    yield Form("integer", "bytea", Rule.BOOLEAN), next(makes)
    yield Form("smallint", "vector", Rule.METADATA_DEAD), next(makes)


COMBINATIONS: Final = {f"{form} {make}": (form, make) for form, make in combine()}


def makes_sense(plant: Plant, rule: Rule) -> bool:
    """Tell whether a rule lets a row die as a fault needs it."""
    if plant is ghost_by_tombstone:
        return rule is not Rule.NONE
    return plant is not ghost_by_lost_metadata or rule is Rule.METADATA_DEAD


CASES: Final = [(name, plant) for name, (form, _) in COMBINATIONS.items() for plant in FAULTS if makes_sense(plant, form.rule)]


ALWAYS: Final = frozenset([*list(COMBINATIONS)[::7], *list(COMBINATIONS)[-2:]])
"""Combinations of the ordinary run, in which every type of id and vector and every rule occurs; the others are slow together."""


def mark(name: str, plant: Plant) -> Any:
    """Return a case for parametrisation."""
    return pytest.param(name, plant, id=f"{name} {plant.__name__}", marks=() if name in ALWAYS else pytest.mark.slow)


GetBench = Callable[[str], Bench]


@pytest.fixture(scope="module", autouse=True)
def small_buckets() -> Iterator[None]:
    """Make buckets so small that the tables have several, whose bounds are ids of their kind."""
    with pytest.MonkeyPatch.context() as patch:
        shrink_buckets(patch)
        yield


@pytest.fixture(scope="module")
def get_bench(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GetBench]:
    """Offer one table and its proven belief to all faults of one combination, which follow each other."""
    kept: dict[str, Bench] = {}

    def drop() -> None:
        while kept:
            database = kept.popitem()[1].table.database
            assert not database.idle_in_transaction()
            postgres_server.drop_database(database.name)

    def get(name: str) -> Bench:
        if name not in kept:
            drop()
            form, make = COMBINATIONS[name]
            database = postgres_server.create_database(postgres_server.template(("empty",), create_extension))
            kept[name] = bench = make_bench(database, tmp_path_factory.mktemp("bench"), form, ROWS, make=make)
            assert len(bench.belief.ledger.buckets) > 1
        return kept[name]

    yield get
    drop()


@pytest.mark.parametrize(("name", "plant"), [mark(*case) for case in CASES])
def test_a_fault_is_found_named_repaired_and_proven_gone(get_bench: GetBench, name: str, plant: Plant, tmp_path: Path) -> None:
    bench = get_bench(name)
    try:
        planted = plant(bench, tmp_path)

        found = bench.check(planted.belief, whole=True)

        assert found.findings.result is Result.OK, found.findings.message
        assert drifted_keys(bench, found.findings) == planted.drift
        assert followed(found.findings) == planted.followed
        assert_true_to_table(bench)
        again = bench.check(whole=True).findings
        assert (again.result, again.drift.rows, again.followed.rows) == (Result.OK, 0, 0)
        assert str(bench.belief.root) == str(bench.belief.ledger.root)
    except Exception:
        bench.reload()  # the next fault is planted in what is right
        raise


def test_the_matrix_is_whole() -> None:
    """Nothing is left out but what a rule does not know."""
    assert len(COMBINATIONS) == 3 * 4 * 5 + 2
    assert len(CASES) == 20 * len(COMBINATIONS) - 12 - (len(COMBINATIONS) - 13)
    assert {make for _, make in COMBINATIONS.values()} == set(MAKES)
    always = [COMBINATIONS[name][0] for name in ALWAYS]
    assert {form.id_type for form in always} == {"bigint", "uuid", "text", "integer", "smallint"}
    assert {form.vector_type for form in always} == set(VECTOR_TYPES)
    assert {form.rule for form in always} == set(Rule)
