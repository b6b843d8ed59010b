"""A replica's belief about a table of any form, checked by hand, and what an independent look at the table says of it."""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.faults import Key as Value
from tests.support.postgres import Database
from tests.support.replica import check, load_belief, make_source, write_settings
from tests.support.tables import Form, Key, Row, Table, make_table
from vectorindex_indexer import ledger
from vectorindex_indexer.belief import Belief, Findings, Outcome
from vectorindex_indexer.config import Metric, Quantization, Settings
from vectorindex_indexer.index import encode
from vectorindex_indexer.keys import Ids, to_json, value_at
from vectorindex_indexer.names import Result
from vectorindex_indexer.source import Source

CLUSTERS: Final = 4
MAKES: Final[dict[str, dict[str, Any]]] = {
    "Flat": {"type": "Flat"},
    "HNSW": {"type": "HNSW", "hnsw": {"m": 8, "efConstruction": 60}},
    "IVFFlat": {"type": "IVFFlat", "ivf": {"nlist": CLUSTERS, "nprobe": CLUSTERS}},
    "Flat-SQ8": {"type": "Flat", "quantization": "SQ8"},
    "HNSW-SQ8": {"type": "HNSW", "quantization": "SQ8", "hnsw": {"m": 8, "efConstruction": 60}},
    "IVFFlat-SQ8": {"type": "IVFFlat", "quantization": "SQ8", "ivf": {"nlist": CLUSTERS, "nprobe": CLUSTERS}},
}
"""Fields of a VectorIndex' index, by name: each is found whole by a search in a small table."""


@dataclass
class Bench:
    """A table, a source that reads it, and a belief of it."""

    table: Table
    settings: Settings
    source: Source
    belief: Belief
    touched: set[Key] = field(default_factory=set)
    is_alone: bool = True  # nobody else writes: every change that is followed can be counted

    def check(self, belief: Belief | None = None, **terms: Any) -> Outcome:
        """Check a belief (the own one, unless another is given) and hold what follows from it."""
        outcome = check(self.source, belief or self.belief, **terms)
        self.belief = outcome.belief
        return outcome

    def reload(self) -> None:
        """Hold a belief that was read anew."""
        self.belief = load_belief(self.settings, self.source)

    def follow(self, inserted: int = 0, deleted: int = 0, updated: int = 0) -> None:
        """Check that so many changes of the table, and nothing else, are followed."""
        findings = self.check().findings
        assert findings.result is Result.OK, findings.message
        assert drifted_keys(self, findings) == {}
        assert not self.is_alone or followed(findings) == (inserted, deleted, updated)

    def take(self, count: int = 1) -> list[Key]:
        """Return keys of live rows in a segment of the index, each row once in the life of this bench."""
        sealed = np.concatenate([segment.ids[~segment.dead] for segment in self.belief.view.segments])
        names = set(to_json(sealed, self.belief.ledger.kind))
        free = sorted((self.table.indexed.keys() & names) - self.touched, key=str)
        taken = self.table.chance.sample(free, count)
        self.touched.update(taken)
        return taken

    def value(self, key: Key) -> Value:
        """Return a key of the table as faults take it."""
        return value_at(self.table.ids([key]), 0, self.belief.ledger.kind)

    def vector(self, key: Key) -> NDArray[np.float32]:
        """Return the vector of a live row."""
        return self.table.indexed[key]


def shrink_buckets(patch: pytest.MonkeyPatch, rows: int = 100) -> None:
    """Make buckets of so few rows that a small table has several."""
    patch.setattr(ledger, "BUCKET_ROWS", rows)
    patch.setattr(ledger, "SPLIT_ABOVE", 2 * rows)


def make_bench(database: Database, folder: Path, form: Form | None = None, rows: int = 340, *, make: str = "Flat", **options: Any) -> Bench:
    """Make a table, and a proven belief of it. `make` is one of MAKES."""
    table = make_table(database, form, rows, **options)
    settings = write_settings(folder, table.manifest(**MAKES[make]), database.create_reader())
    source = make_source(settings)
    belief = load_belief(settings, source)
    assert belief.view.fallback == "", "too few rows for this type of index"
    return Bench(table, settings, source, belief)


# --- what was found


def drifted_keys(bench: Bench, findings: Findings) -> dict[str, list[Key]]:
    """Return the drifted keys by kind, only kinds that occur."""
    kinds = {kind: to_keys(bench, getattr(findings.drift, kind)) for kind in ("missing", "ghost", "changed", "duplicate")}
    return {kind: keys for kind, keys in kinds.items() if keys}


def to_keys(bench: Bench, ids: Ids) -> list[Key]:
    """Return ids as the table knows them, in no order that means anything."""
    return in_order(cast(Sequence[Key], to_json(ids, bench.belief.ledger.kind)) if ids.size else [])


def in_order(keys: Iterable[Key]) -> list[Key]:
    """Return keys in an order of their own, to compare lists of them."""
    return sorted(keys, key=str)


def followed(findings: Findings) -> tuple[int, int, int]:
    """Return how many rows followed the source: inserted, deleted, updated."""
    return findings.followed.inserted, findings.followed.deleted, findings.followed.updated


# --- what is true


def assert_true_to_table(bench: Bench, *, indexed: dict[Key, NDArray[np.float32]] | None = None) -> None:
    """Compare ledger and index with the table: each live row by its bytes, each indexed row once, and found by its own vector."""
    assert str(bench.belief.ledger.root) == recompute_root(bench.table.live, bench.table.form)
    assert_serves(bench, bench.table.indexed if indexed is None else indexed)


def assert_serves(bench: Bench, wanted: dict[Key, NDArray[np.float32]]) -> None:
    """Compare what is served with rows: the same keys, each once, and each vector finds its own key."""
    view = bench.belief.view
    assert to_keys(bench, view.live_entries()[0]) == in_order(wanted)
    if not wanted:
        return
    codes = encode(np.array(list(wanted.values()), np.float32), view.spec.metric)
    found, scores = view.search_all(codes, 1)
    assert to_json(found[:, 0], view.id_kind) == list(wanted)
    assert view.spec.metric is Metric.COSINE
    np.testing.assert_allclose(scores[:, 0], 1.0, atol=1e-5 if view.spec.quantization is Quantization.NONE else 0.02)


def recompute_root(rows: Sequence[Row], form: Form) -> str:
    """Return the root digest of rows as docs/digests.md defines it, without any code of the product."""
    pairs = [struct.unpack(">QQ", hashlib.sha256(key_bytes(row.key, form) + vector_bytes(row.vector, form)).digest()[:16]) for row in rows]
    high, low = (sum(numbers) % 2**64 for numbers in zip(*pairs, strict=True)) if pairs else (0, 0)
    return f"{len(rows)}:{high:016x}-{low:016x}"


def key_bytes(key: Key, form: Form) -> bytes:
    """Return what stands for an id in a row digest."""
    if isinstance(key, int):
        return struct.pack(">q", key)
    raw = bytes.fromhex(key.replace("-", "")) if form.id_type == "uuid" else key.encode()
    return raw if form.id_type == "uuid" else struct.pack(">i", len(raw)) + raw


def vector_bytes(vector: NDArray[np.float32] | None, form: Form) -> bytes:
    """Return what Postgres sends of a vector; five bytes of their own for NULL."""
    if vector is None:
        return b"NULL\xff"
    match form.vector_type:
        case "bytea":
            return vector.astype("<f4").tobytes()
        case "float4[]":
            elements = b"".join(struct.pack(">if", 4, float(number)) for number in vector)
            return struct.pack(">iiIii", 1, 0, 700, len(vector), 1) + elements
        case "vector":
            return struct.pack(">hh", len(vector), 0) + vector.astype(">f4").tobytes()
        case _:
            return struct.pack(">hh", len(vector), 0) + vector.astype(">f2").tobytes()
