"""What the loader is going to put into the tables, traps included."""

import struct

import numpy as np
import pytest

from examples.wordnet import load
from examples.wordnet.load import MODEL, OTHER_MODEL, Variant


@pytest.fixture(scope="module")
def data() -> load.Slice:
    return load.read_slice()


@pytest.fixture(scope="module")
def plan(data: load.Slice) -> load.Plan:
    return load.plan_rows(data, 10_000)


def live(plan: load.Plan, model: str) -> set[int]:
    """Return the live entities of a model, straight from the planned rows."""
    dead = {row.entity_id for row in plan.metadata if row.model == model and row.deleted}
    return {row.entity_id for row in plan.embeddings if row.model == model} - dead


def test_counts_of_the_whole_slice(plan: load.Plan) -> None:
    counts = load.count_rows(plan)

    assert counts == load.Counts(rows=10_000, tombstoned=500, other_model_rows=500, dead_here_live_there=50)
    assert counts.live == len(live(plan, MODEL)) == 9_500


@pytest.mark.parametrize("rows", [1, 2, 10, 100, 999, 10_000])
def test_tombstones_are_five_percent_whatever_the_size(data: load.Slice, rows: int) -> None:
    counts = load.count_rows(load.plan_rows(data, rows))

    assert counts.rows == rows
    assert abs(counts.tombstoned - rows * 0.05) <= 0.5
    assert abs(counts.other_model_rows - rows * 0.05) <= 1


def test_plan_is_the_same_each_time(data: load.Slice, plan: load.Plan) -> None:
    assert load.plan_rows(data, 10_000) == plan


def test_some_entities_are_dead_for_one_model_and_live_for_the_other_both_ways(plan: load.Plan) -> None:
    ours = {entity for entity, model in plan.dead if model == MODEL}
    theirs = {entity for entity, model in plan.dead if model == OTHER_MODEL}

    assert len(ours & live(plan, OTHER_MODEL)) == 50
    assert len(theirs & live(plan, MODEL)) == len(theirs) > 10


def test_some_dead_entities_have_a_live_metadata_row_as_well(plan: load.Plan) -> None:
    dead = {entity for entity, model in plan.dead if model == MODEL}
    with_live_row = {row.entity_id for row in plan.metadata if row.model == MODEL and not row.deleted}

    assert len(dead & with_live_row) == 50


def test_other_model_has_other_vectors_and_entities_of_its_own(data: load.Slice, plan: load.Plan) -> None:
    ours = {row.entity_id: row.row for row in plan.embeddings if row.model == MODEL}
    theirs = [row for row in plan.embeddings if row.model == OTHER_MODEL]

    assert sum(row.entity_id not in ours for row in theirs) == 100
    assert all(ours.get(row.entity_id) != row.row for row in theirs)
    assert not {row.entity_id for row in theirs if row.entity_id not in ours} & set(data.ids.tolist())


def test_every_embedding_has_metadata_of_its_model(plan: load.Plan) -> None:
    embeddings = [(row.entity_id, row.model) for row in plan.embeddings]

    assert len(set(embeddings)) == len(embeddings)
    assert {(row.entity_id, row.model) for row in plan.metadata} == set(embeddings)


def test_vectors_are_packed_as_each_column_takes_them() -> None:
    vector = np.array([1.0, -2.5], np.float32)

    assert load.pack_vector(vector, Variant.TWO_TABLES) == struct.pack("<ff", 1.0, -2.5)
    assert load.pack_vector(vector, Variant.PGVECTOR) == struct.pack(">HHff", 2, 0, 1.0, -2.5)


@pytest.mark.parametrize("rows", [0, 10_001])
def test_impossible_number_of_rows_is_refused(data: load.Slice, rows: int) -> None:
    with pytest.raises(load.LoadError, match="expected 1 to 10000"):
        load.plan_rows(data, rows)
