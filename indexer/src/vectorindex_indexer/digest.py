"""Digests of rows and of sets of rows, from exact bytes; the SQL twins of these functions are in `source.py` and `docs/digests.md`."""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.keys import IdKind

ALGORITHM: Final = "sha256-128"

NULL_MARKER: Final = b"NULL\xff"
"""Stands for a NULL vector. Its length is no multiple of 4, so no well-formed vector has these bytes."""

_SLICE_ROWS: Final = 512  # stays in the cache, and bounds the copy that holds keys and vectors side by side
_MODULUS: Final = 1 << 64
_TEXT: Final = re.compile(r"(\d+):([0-9a-f]{16})-([0-9a-f]{16})")


@dataclass(frozen=True)
class Digest:
    """What a set of rows adds up to: their number and, modulo 2^64, the sums of the first and of the next 64 bits of their digests.

    Sums and not XOR: a row that is there twice must not cancel itself out.
    """

    count: int = 0
    high: int = 0
    low: int = 0

    def __add__(self, other: Self) -> "Digest":
        return Digest(self.count + other.count, (self.high + other.high) % _MODULUS, (self.low + other.low) % _MODULUS)

    def __sub__(self, other: Self) -> "Digest":
        return Digest(self.count - other.count, (self.high - other.high) % _MODULUS, (self.low - other.low) % _MODULUS)

    def __str__(self) -> str:
        return f"{self.count}:{self.high:016x}-{self.low:016x}"

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Read what `str` wrote. Raise ValueError for anything else."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"expected a digest as count:16 hex digits-16 hex digits, got {text!r}")
        return cls(int(match[1]), int(match[2], 16), int(match[3], 16))

    @classmethod
    def of_sums(cls, count: int, high: int, low: int) -> "Digest":
        """Fold exact sums, of signed or unsigned 64-bit numbers alike, as Postgres gives them."""
        return cls(count, high % _MODULUS, low % _MODULUS)


EMPTY: Final = Digest()


def row_digest(key: bytes, vector: bytes | None) -> tuple[int, int]:
    """Digest one row: the first and the next 64 bits, big-endian, of sha256 over key and vector bytes."""
    digest = hashlib.sha256(key + (NULL_MARKER if vector is None else vector)).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def key_bytes(row_id: int | bytes, kind: IdKind = IdKind.INTEGER) -> bytes:
    """Give the key bytes of an id.

    An integer: 8 bytes, big-endian, whatever the width of its column (`int8send`). A uuid: its 16 bytes. A text: the number of its bytes
    in UTF-8, 4 bytes big-endian, and these.
    """
    if isinstance(row_id, int):
        return row_id.to_bytes(8, "big", signed=True)
    return row_id if kind is IdKind.UUID else len(row_id).to_bytes(4, "big") + row_id


def row_digests(keys: NDArray[np.uint8], wire: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Digest rows of one width.

    `keys`: (n, k) uint8, key bytes. `wire`: (n, w) uint8, row i holds the vector bytes of row i as the wire carried them.
    Returns (n, 2) uint64.
    """
    rows, width = wire.shape
    if len(keys) != rows:
        raise ValueError(f"expected {rows} keys, got {len(keys)}")
    key_width = keys.shape[1]
    digests = np.empty((rows, 2), dtype=np.uint64)
    joined = np.empty((min(rows, _SLICE_ROWS), key_width + width), dtype=np.uint8)
    for start in range(0, rows, _SLICE_ROWS):
        end = min(start + _SLICE_ROWS, rows)
        part = joined[: end - start]
        part[:, :key_width] = keys[start:end]
        part[:, key_width:] = wire[start:end]
        digests[start:end] = _hash_each(part)
    return digests


def _hash_each(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    count, stride = rows.shape
    content = rows.data.cast("B")
    sha256 = hashlib.sha256
    digests = b"".join([sha256(content[at : at + stride]).digest() for at in range(0, count * stride, stride)])
    return np.frombuffer(digests, dtype=">u8").reshape(count, 4)[:, :2].astype(np.uint64)


def sum_digests(digests: NDArray[np.uint64]) -> Digest:
    """Add up row digests, (n, 2) uint64."""
    high, low = digests.sum(axis=0, dtype=np.uint64)  # wraps modulo 2^64, as wanted
    return Digest(len(digests), int(high), int(low))


def digest_spec(id_type: str, vector_type: str, predicate_fingerprint: str) -> str:
    """Name what a digest was made from. Digests of other specs must not be compared with each other."""
    return f"{ALGORITHM}/{id_type}/{vector_type}/{predicate_fingerprint}"
