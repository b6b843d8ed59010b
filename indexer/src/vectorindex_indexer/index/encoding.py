"""What FAISS is to store of a vector, and the digests of what it stores. Pure: arrays in, arrays out, no FAISS."""

from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.config import Metric

Floats: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]
Flags: TypeAlias = NDArray[np.bool_]
Words: TypeAlias = NDArray[np.uint64]
Positions: TypeAlias = NDArray[np.int64]  # rows of a segment or delta; -1 stands for "none"

BLOCK_FLOATS: Final = 4 * 2**20  # working memory of one step, in numbers
_WIDE_BYTES: Final = 2 * 2**20  # of a step in float64: large enough to be quick, small enough for a core's cache
_CACHE_BYTES: Final = 256 * 1024  # what a hashing step may touch to stay in a core's cache


def encode(vectors: Floats, metric: Metric) -> Floats:
    """Return the codes of vectors: what scores are computed from, and what an index without quantization stores.

    Under Cosine each row is divided by its norm, taken in float64 (FAISS and NumPy disagree in float32 on nearly every row). A zero
    row stays zero. `vectors` is (n, d), row i of the answer belongs to row i.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if metric is not Metric.COSINE:
        return vectors
    codes = np.empty_like(vectors)
    step = max(1, _WIDE_BYTES // (8 * max(1, vectors.shape[1])))
    room = np.empty((min(step, len(vectors)), vectors.shape[1]), np.float64)  # one for all steps: fresh memory costs more than dividing
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step]
        wide = room[: len(block)]
        wide[...] = block
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        norms[norms == 0] = 1.0
        np.divide(wide, norms[:, None], out=codes[start : start + step], casting="same_kind")
    return codes


def code_digests(codes: Floats) -> Words:
    """Return the code digests of rows that are stored as they are: in the delta, and in segments without quantization."""
    codes = np.ascontiguousarray(codes, dtype=np.float32)
    return digest_bytes(codes.view(np.uint8).reshape(len(codes), 4 * codes.shape[1]), np.uint64(codes.shape[1]))


def digest_bytes(stored: Bytes, salt: np.uint64 | Words) -> Words:
    """Return 8 bytes for each row: a sum over its 64-bit lanes, each mixed with a key of its place, and a salt, one or one a row.

    Tells damage, not malice. A plain multiply-sum would not do: two changed signs cancel in it.
    """
    rows, width = stored.shape
    lanes = (width + 7) // 8
    keys = _lane_keys(lanes)
    digests = np.empty(rows, np.uint64)
    step = max(1, _CACHE_BYTES // max(1, lanes * 8))
    for start in range(0, rows, step):
        block = stored[start : start + step]
        if width % 8:
            block = np.concatenate([block, np.zeros((len(block), 8 - width % 8), np.uint8)], axis=1)
        digests[start : start + step] = mix(block.view(np.uint64) + keys).sum(axis=1, dtype=np.uint64)
    return mix(digests + salt)


def mix(words: Words) -> Words:
    """Spread each word's bits over all its bits (the finaliser of splitmix64), in place."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


@lru_cache(maxsize=8)
def _lane_keys(lanes: int) -> Words:
    keys = mix((np.arange(1, lanes + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15))
    keys.setflags(write=False)
    return keys
