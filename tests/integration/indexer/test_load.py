"""How rows are loaded from a real Postgres: in short transactions, within the memory there is, and never as a mixture of two sources."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.wordnet.load import MODEL, live_rows
from tests.support.postgres import MakeWordnetDatabase, WordnetDatabase
from tests.support.replica import assert_true_to, check, make_manifest, make_source, write_settings
from vectorindex_indexer import load
from vectorindex_indexer.belief import Belief
from vectorindex_indexer.config import load_identity
from vectorindex_indexer.errors import LoadRefusedError, SourceError
from vectorindex_indexer.load import load_candidate
from vectorindex_indexer.memory import Room
from vectorindex_indexer.names import ProofReason, Result
from vectorindex_indexer.source import Source

ROWS = 6000
IVF = {"index__type": "IVFFlat", "index__ivf": {"nlist": 16, "nprobe": 8}}
TYPES: dict[str, dict[str, Any]] = {
    "Flat": {},
    "HNSW": {"index__type": "HNSW"},
    "IVFFlat": IVF,
    "SQ8": {"index__quantization": "SQ8"},
    "IVFFlat-SQ8": IVF | {"index__quantization": "SQ8"},
}


@pytest.fixture
def database(make_wordnet_database: MakeWordnetDatabase) -> WordnetDatabase:
    return make_wordnet_database(rows=ROWS)


@pytest.fixture
def in_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read about a thousand rows in one transaction."""
    monkeypatch.setattr(load, "RANGE_BYTES", 1)
    monkeypatch.setattr(load, "GRAPH_RANGE_BYTES", 1)


def open_source(database: WordnetDatabase, folder: Path, **changes: Any) -> tuple[Source, Callable[..., Belief]]:
    """Return the source, and what loads it."""
    settings = write_settings(folder, make_manifest(database, **changes), database.create_reader())
    source, spec = make_source(settings), load_identity(settings.config).index

    def start(progress: Callable[[int, int], None] = lambda *_: None, **options: Any) -> Belief:
        return load_candidate(source, spec, generation=1, proven_rows=0, progress=progress, **options)

    return source, start


@pytest.mark.usefixtures("in_ranges")
@pytest.mark.parametrize("changes", TYPES.values(), ids=TYPES)
def test_a_load_in_ranges_is_proven_at_once(database: WordnetDatabase, tmp_path: Path, changes: dict[str, Any]) -> None:
    source, start = open_source(database, tmp_path, **changes)
    seen: list[tuple[int, int]] = []

    candidate = start(lambda done, expected: seen.append((done, expected)))

    live = database.counts.live
    assert (seen[0], seen[-1]) == ((0, live), (live, live))
    assert len(seen) >= live // 1000
    outcome = check(source, candidate, whole=True)
    assert (outcome.findings.result, outcome.findings.drift.rows, outcome.findings.followed.rows) == (Result.OK, 0, 0)
    assert (candidate.view.fallback, candidate.view.live_rows) == ("", live)


@pytest.mark.usefixtures("in_ranges")
@pytest.mark.parametrize("changes", [TYPES["Flat"], TYPES["HNSW"]], ids=["Flat", "HNSW"])
def test_what_changes_between_two_ranges_is_followed_and_is_no_drift(
    database: WordnetDatabase, tmp_path: Path, changes: dict[str, Any]
) -> None:
    source, start = open_source(database, tmp_path, **changes)
    with database.admin_connect() as connection:
        ids, _ = live_rows(connection)
    moved = [False]

    def change(done: int, _: int) -> None:
        if done < 3000 or moved[0]:
            return
        moved[0] = True
        with database.admin_connect() as connection:
            connection.execute("DELETE FROM embeddings WHERE entity_id = ANY(%s)", [[int(ids[0]), int(ids[-1])]])
            connection.execute("UPDATE embeddings SET vector = NULL WHERE entity_id = %s AND model_name = %s", [int(ids[1]), MODEL])
            # A row that was read goes to where will be read, and one that wasn't comes to where nobody looks again.
            for old, new in ((int(ids[2]), 10**15), (int(ids[-2]), 1)):
                connection.execute("UPDATE embeddings SET entity_id = %s WHERE entity_id = %s AND model_name = %s", [new, old, MODEL])
                connection.execute("UPDATE faiss_metadata SET entity_id = %s WHERE entity_id = %s AND model_name = %s", [new, old, MODEL])

    candidate = start(change)
    outcome = check(source, candidate, whole=True)

    assert moved[0]
    assert outcome.findings.result is Result.OK, outcome.findings.message
    assert outcome.findings.drift.rows == 0
    assert outcome.findings.followed.rows > 0
    served = set(outcome.belief.view.live_entries()[0].tolist())
    assert served == set(ids.tolist()) - {int(ids[place]) for place in (0, 1, 2, -2, -1)} | {1, 10**15}


def test_no_transaction_of_a_load_lasts_while_a_graph_is_built(database: WordnetDatabase, tmp_path: Path, in_ranges: None) -> None:
    _, start = open_source(database, tmp_path, index__type="HNSW")
    open_while_building: list[int] = []

    def look(done: int, _: int) -> None:
        if done:
            open_while_building.append(len(database.backends(states=("active", "idle in transaction"))))

    start(look)

    assert open_while_building
    assert set(open_while_building) == {0}


@pytest.mark.usefixtures("in_ranges")
def test_a_table_that_is_altered_during_a_load_gives_no_index(database: WordnetDatabase, tmp_path: Path) -> None:
    _, start = open_source(database, tmp_path, index__type="HNSW")  # added between transactions

    def alter(done: int, _: int) -> None:
        if done:
            with database.admin_connect() as connection:
                connection.execute("ALTER TABLE embeddings ALTER COLUMN model_name TYPE varchar(200)")

    with pytest.raises(SourceError, match="changed during the load"):
        start(alter)
    assert not database.idle_in_transaction()


def test_what_would_not_fit_is_refused_with_both_figures(database: WordnetDatabase, tmp_path: Path) -> None:
    _, start = open_source(database, tmp_path)
    with pytest.raises(LoadRefusedError, match=r"needs about \d+ MiB, the container's limit of 64 MiB leaves 4 MiB") as refused:
        start(room=Room(64 * 2**20, 60 * 2**20))
    assert refused.value.reason is ProofReason.MEMORY_TOO_SMALL


def test_bad_rows_are_kept_in_the_ledger_and_out_of_the_index(database: WordnetDatabase, tmp_path: Path) -> None:
    source, start = open_source(database, tmp_path)
    with database.admin_connect() as connection:
        ids, _ = live_rows(connection)
        connection.execute("UPDATE embeddings SET vector = NULL WHERE entity_id = %s AND model_name = %s", [int(ids[7]), MODEL])
    candidate = start()
    assert candidate.ledger.rows == candidate.view.live_rows + 1
    assert {str(reason): rows for reason, rows in candidate.ledger.count_quarantine().items()} == {"NullVector": 1}
    assert check(source, candidate, whole=True).findings.result is Result.OK


def test_an_empty_table_gives_an_empty_index(database: WordnetDatabase, tmp_path: Path) -> None:
    with database.admin_connect() as connection:
        connection.execute("DELETE FROM embeddings")
    source, start = open_source(database, tmp_path, index__type="HNSW")
    outcome = check(source, start(), whole=True)
    assert (outcome.findings.result, outcome.belief.view.live_rows) == (Result.OK, 0)
    ids, scores = outcome.belief.view.search(np.ones((1, 384), np.float32), 3)
    assert ids.shape == (1, 3)
    assert np.isnan(scores).all()


def test_the_loaded_rows_are_those_of_an_independent_query(database: WordnetDatabase, tmp_path: Path) -> None:
    source, start = open_source(database, tmp_path)
    assert_true_to(check(source, start(), whole=True).belief, database)
