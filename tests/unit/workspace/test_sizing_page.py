"""The page about sizes says what the code takes: its tables, its formula in words, and what is really saved."""

from pathlib import Path

import numpy as np
import pytest

from scripts.sizing_page import DIMENSIONS, MAKES, PAGE, ROWS, render_page, render_size, saved_bytes
from tests.support.views import MAKES as KINDS
from tests.support.views import Make, build_view, make_spec, make_vectors
from tests.unit.indexer.test_snapshot import make_meta
from vectorindex_indexer.config import IndexSpec, IndexType, Quantization
from vectorindex_indexer.ledger import build_ledger, make_bucket
from vectorindex_indexer.memory import MIB, estimate_build_bytes
from vectorindex_indexer.snapshot import save


def test_the_tables_are_as_the_code_reckons() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == render_page(page), "run `make docs`"


def take_as_written(spec: IndexSpec, rows: int, id_bytes: int) -> float:
    """Return what a build takes, by the words of the page."""
    vector = spec.dimension * (1 if spec.quantization is Quantization.SQ8 else 4)
    total: float = rows * (vector + 4 * id_bytes + 108)
    if spec.type is IndexType.HNSW:
        total += rows * (8.8 * spec.hnsw.m + 36)
    if spec.type is IndexType.IVFFLAT:
        total += rows * (vector / 2 + 24) + 8 * spec.ivf.nlist * spec.dimension
    total += 3 * min(64 * MIB, min(rows, 50_000) * 4 * spec.dimension)
    lists = 64 * spec.ivf.nlist if spec.type is IndexType.IVFFLAT else 0
    sample = min(rows, max(lists, 20_000 if spec.quantization is Quantization.SQ8 else 0))
    return 16 * MIB + 1.05 * max(total, 8 * spec.dimension * sample)


@pytest.mark.parametrize("rows", ROWS.values())
@pytest.mark.parametrize(("type_", "quantization"), MAKES)
def test_the_formula_in_words_is_the_one_that_builds_are_refused_by(type_: IndexType, quantization: Quantization, rows: int) -> None:
    for dimension in DIMENSIONS:
        for id_bytes in (8, 16, 60):
            spec = IndexSpec(dimension, type=type_, quantization=quantization)
            assert take_as_written(spec, rows, id_bytes) == pytest.approx(estimate_build_bytes(spec, rows, id_bytes), rel=0.001)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_saved_index_takes_what_the_page_says(kind: Make, tmp_path: Path) -> None:
    count = 4000
    spec, ids = make_spec(kind, 32), np.arange(count)
    view = build_view(spec, ids, make_vectors(count, 32))
    ledger = build_ledger(make_bucket(ids, *(np.zeros(shape, dtype) for shape, dtype in shapes(count))))
    save(tmp_path, make_meta(), view, ledger.to_arrays())
    taken = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert 0.9 * taken <= saved_bytes(spec, count) <= 1.1 * taken, taken / count


def shapes(count: int) -> list[tuple[tuple[int, ...], type[np.generic]]]:
    """Return what a ledger has beside its ids."""
    return [((count,), np.uint64), ((count, 2), np.uint64), ((count,), np.uint64), ((count,), np.uint8)]


@pytest.mark.parametrize(
    ("size", "text"), [(257 * MIB, "260Mi"), (1024 * MIB, "1.0Gi"), (4.01 * 1024 * MIB, "4.1Gi"), (33.2 * 1024 * MIB, "34Gi")]
)
def test_sizes_are_rounded_up(size: float, text: str) -> None:
    assert render_size(size) == text
