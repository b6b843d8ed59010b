"""Builders of ledger rows: the same id always gives the same content."""

from collections.abc import Iterable

import numpy as np

from vectorindex_indexer.ledger import Bucket, make_bucket
from vectorindex_indexer.rows import Heads


def make_rows(ids: Iterable[int], *, salt: int = 0) -> Bucket:
    """Return rows of these ids. Another `salt` gives other digests and codes; stamps depend on the id alone."""
    array = np.array(sorted(ids), np.int64)
    words = array.astype(np.uint64)
    return make_bucket(
        array,
        words * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1),
        np.stack([words * np.uint64(7) + np.uint64(salt + 11), words * np.uint64(13) + np.uint64(salt + 17)], axis=1),
        words + np.uint64(salt + 5),
        np.zeros(array.size, np.uint8),
    )


def to_heads(rows: Bucket) -> Heads:
    """Return what a source that holds exactly these rows answers."""
    return Heads(rows.ids.copy(), rows.stamps.copy(), rows.digests.copy())
