"""Views of rows given at once, as tests want them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.config import IndexSpec
from vectorindex_indexer.index import Builder, View, encode
from vectorindex_indexer.keys import IdKind


def build_view(
    spec: IndexSpec,
    ids: NDArray[Any],
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
