"""Views of rows given at once, as tests want them, and the kinds of index that there are."""

from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.config import Hnsw, IndexSpec, IndexType, Ivf, Metric, Quantization
from vectorindex_indexer.index import Builder, View, encode
from vectorindex_indexer.keys import IdKind

Array = NDArray[Any]


class Make(NamedTuple):
    """A type of index with its quantization."""

    type: IndexType
    quantization: Quantization

    def __str__(self) -> str:
        return f"{self.type}-{self.quantization}"


MAKES: Final = tuple(Make(*make) for make in product(IndexType, Quantization))


def make_spec(make: Make, dimension: int = 16, metric: Metric = Metric.COSINE, lists: int = 8, probes: int = 6) -> IndexSpec:
    return IndexSpec(dimension, metric, make.type, Hnsw(m=8, ef_construction=60), make.quantization, Ivf(lists, probes))


def build_view(
    spec: IndexSpec,
    ids: Array,
    vectors: NDArray[np.float32],
    generation: int = 1,
    *,
    kind: IdKind = IdKind.INTEGER,
    threads: int = 1,
) -> View:
    """Return a view with one segment of these rows, raw vectors; what has to be learnt is learnt from all of them."""
    builder = Builder(spec, kind, ids.size, threads, generation)
    if builder.needs_training:
        builder.train(vectors)
    builder.add(ids, encode(vectors, spec.metric))
    return builder.finish()


def make_ids(kind: IdKind, count: int, seed: int = 0) -> Array:
    """Return distinct ids in no order: some negative, uuids that end in NUL bytes, texts of unequal length."""
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(10 * count + 10)[:count].astype(np.int64)
    if kind is IdKind.INTEGER:
        return numbers - 5
    if kind is IdKind.UUID:
        raw = np.zeros((count, 16), np.uint8)
        raw[:, :8] = numbers.astype(">u8").view(np.uint8).reshape(-1, 8)[:, ::-1]
        return raw.view("S16").reshape(-1)
    return np.array([b"k" * (number % 7) + str(number).encode() for number in numbers.tolist()])


def make_vectors(count: int, dimension: int = 16, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
