"""How one vector lies in FAISS' memory: its bytes, what they decode to, and their digest."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.index.encoding import Bytes, Floats, Words, code_digests, digest_bytes

_faiss: Any = faiss  # its own type stubs lack most of what it exports

_LARGEST: Final = float(np.finfo(np.float32).max)
_LEVELS: Final = 255  # steps of one byte
_MARGIN: Final = 0.1  # by which the range of each number is widened beyond what a sample showed: later rows lie outside of it, too


@dataclass(frozen=True, eq=False)
class Codec:
    """Vectors of one dimension as bytes: float32 as they are, or with a `table` one byte for each number (SQ8).

    `table` is (2, d) float32: the smallest value and the width of the range of each number. Code c stands for the middle of its step.
    """

    dimension: int
    table: Floats | None = None

    @property
    def width(self) -> int:
        """Bytes of one vector."""
        return 4 * self.dimension if self.table is None else self.dimension

    @cached_property
    def salt(self) -> np.uint64:
        """Goes into each code digest, so that damage to the table shows in every row."""
        if self.table is None:
            return np.uint64(self.dimension)
        return np.uint64(np.add.reduce(digest_bytes(self.table.view(np.uint8), np.array([1, 2], np.uint64)), dtype=np.uint64))

    def encode(self, codes: Floats) -> Bytes:
        """Return (n, width): what FAISS stores of (n, d) encoded vectors."""
        codes = np.ascontiguousarray(codes, np.float32)
        if self.table is None:
            return codes.view(np.uint8).reshape(len(codes), self.width)
        stored: Bytes = self._quantizer.sa_encode(codes) if len(codes) else np.empty((0, self.width), np.uint8)
        return stored

    def decode(self, stored: Bytes) -> NDArray[np.float64]:
        """Return (n, d) from (n, width), in float64, so that equal bytes give equal scores wherever they lie."""
        if self.table is None:
            return stored.view(np.float32).astype(np.float64)
        low, range_ = self.table.astype(np.float64)
        decoded: NDArray[np.float64] = low + (stored + 0.5) * (range_ / _LEVELS)
        return decoded

    def digest(self, stored: Bytes) -> Words:
        """Return the code digests of (n, width), before a store adds what it knows of the rows' places."""
        if self.table is None:
            return code_digests(stored.view(np.float32))
        return digest_bytes(stored, self.salt)

    @cached_property
    def _quantizer(self) -> Any:
        quantizer = _faiss.IndexScalarQuantizer(self.dimension, _faiss.ScalarQuantizer.QT_8bit, _faiss.METRIC_L2)
        set_table(quantizer, self)
        return quantizer


def train_table(codes: Floats) -> Floats:
    """Return the table of an SQ8 codec for rows like these, at least two."""
    low, high = codes.min(axis=0).astype(np.float64), codes.max(axis=0).astype(np.float64)
    width = high - low
    table = np.stack([low - _MARGIN * width, width * (1 + 2 * _MARGIN)])
    clipped: Floats = np.clip(table, -_LARGEST, _LARGEST).astype(np.float32)
    return clipped


def set_table(index: Any, codec: Codec) -> None:
    """Make a FAISS index with a scalar quantizer use the table of a codec."""
    _faiss.copy_array_to_vector(np.ascontiguousarray(codec.table, np.float32).reshape(-1), index.sq.trained)
    index.is_trained = True
