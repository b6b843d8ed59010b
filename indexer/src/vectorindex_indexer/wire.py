"""Parses what `COPY … (FORMAT binary)` sends into arrays, by fixed stride where every row fits it; no connection is touched here."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.catalogue import Vectors
from vectorindex_indexer.config import Metric
from vectorindex_indexer.digest import key_bytes, row_digest, row_digests
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.names import QuarantineReason, SourceReason
from vectorindex_indexer.rows import QUARANTINE, Heads, Rows

_CODES: Final = {reason: code for code, reason in enumerate(QUARANTINE, start=1)}

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00"
_HEADER_BYTES: Final = len(_SIGNATURE) + 8
_TRAILER: Final = b"\xff\xff"


class _Field(NamedTuple):
    """A field that the fixed stride expects, by its place in a row."""

    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


class _Stride:
    """The fixed form of a row: two bytes for the number of fields, and before each field four bytes for its size."""

    def __init__(self, *sizes: int) -> None:
        self.fields: list[_Field] = []
        template = bytearray(len(sizes).to_bytes(2, "big"))
        headers = list(range(2))
        for size in sizes:
            headers += range(len(template), len(template) + 4)
            template += size.to_bytes(4, "big")
            self.fields.append(_Field(len(template), size))
            template += bytes(size)
        self.size = len(template)
        self._headers = np.array(headers)
        self._expected = np.frombuffer(bytes(template), np.uint8)[self._headers]

    def fitting_rows(self, buffer: bytes) -> NDArray[np.uint8]:
        """Give the rows from the start of the buffer that have this form, (n, size) uint8; the first that doesn't ends them."""
        count = len(buffer) // self.size
        rows = np.frombuffer(buffer, np.uint8, count * self.size).reshape(count, self.size)
        fits = (rows[:, self._headers] == self._expected).all(axis=1)
        return rows if fits.all() else rows[: int(fits.argmin())]


def parse_heads(blocks: Iterable[bytes]) -> Heads:
    """Parse rows of id, stamp and 16 bytes of digest. Raise SourceError when the stream isn't of that form."""
    stride = _Stride(8, 8, 16)
    body = _body(b"".join(blocks))
    rows = stride.fitting_rows(body)
    if body[len(rows) * stride.size :] != _TRAILER:
        raise _malformed()
    ids, stamps, digests = (np.ascontiguousarray(rows[:, field.start : field.end]) for field in stride.fields)
    return Heads(
        ids=ids.view(">i8").reshape(-1).astype(np.int64),
        stamps=stamps.view(">u8").reshape(-1).astype(np.uint64),
        digests=digests.view(">u8").reshape(-1, 2).astype(np.uint64),
    )


class RowParser:
    """Parses rows of id, stamp and vector, piece by piece.

    Rows of one id are never split between two pieces, so that duplicates are seen wherever a piece ends.
    """

    def __init__(self, vectors: Vectors, metric: Metric) -> None:
        self._vectors = vectors
        self._metric = metric
        self._stride = _Stride(8, 8, vectors.wire_bytes)

    def parse(self, blocks: Iterable[bytes], chunk_rows: int) -> Iterator[Rows]:
        """Parse a whole stream into pieces of about `chunk_rows` rows. Raise SourceError when it isn't of the expected form."""
        held = Rows.empty(self._vectors.dimension)
        rest = b""
        for buffer in _buffers(blocks, chunk_rows, chunk_rows * self._stride.size):
            rows, rest = self._rows_of(rest + buffer)
            ready, held = _split_last_id(Rows.concatenate([held, rows], self._vectors.dimension))
            if len(ready):
                yield self._finished(ready)
        if rest != _TRAILER:
            raise _malformed()
        if len(held):
            yield self._finished(held)

    def _rows_of(self, buffer: bytes) -> tuple[Rows, bytes]:
        """Parse all whole rows, and give the bytes that remain: the start of a row, or the trailer."""
        fitting = self._stride.fitting_rows(buffer)
        rows = self._parse_fitting(fitting)
        walked, end = self._walk(buffer, len(fitting) * self._stride.size)
        return Rows.concatenate([rows, walked] if len(walked) else [rows], self._vectors.dimension), buffer[end:]

    def _parse_fitting(self, raw: NDArray[np.uint8]) -> Rows:
        id_field, stamp_field, vector_field = self._stride.fields
        ids = np.ascontiguousarray(raw[:, id_field.start : id_field.end]).view(">i8").reshape(-1).astype(np.int64)
        stamps = np.ascontiguousarray(raw[:, stamp_field.start : stamp_field.end]).view(">u8").reshape(-1).astype(np.uint64)
        wire = raw[:, vector_field.start : vector_field.end]
        digests = row_digests(ids, wire)
        vectors, quarantine = self._decode(wire)
        return Rows(ids, stamps, digests, vectors, quarantine)

    def _decode(self, wire: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        header = self._vectors.header_bytes
        order = ">f4" if self._vectors.type == "vector" else "<f4"
        vectors = wire[:, header:].copy().view(order).astype(np.float32, copy=False)
        quarantine = np.zeros(len(wire), np.uint8)
        if self._metric is Metric.COSINE:
            nonzero = (vectors.view(np.uint32) & 0x7FFFFFFF).any(axis=1)  # by bits: a signalling NaN makes other ways warn
            quarantine[~nonzero] = _CODES[QuarantineReason.ZERO_VECTOR]
        quarantine[~np.isfinite(vectors).all(axis=1)] = _CODES[QuarantineReason.NOT_FINITE]
        if header:  # the dimension in the header must be that of the elements
            expected = np.frombuffer(self._vectors.dimension.to_bytes(2, "big") + bytes(2), np.uint8)
            quarantine[(wire[:, :header] != expected).any(axis=1)] = _CODES[QuarantineReason.WRONG_DIMENSION]
        return vectors, quarantine

    def _walk(self, buffer: bytes, at: int) -> tuple[Rows, int]:
        """Parse the rows from `at` on one by one, as some don't fit the stride; tell where the last whole one ends."""
        fitting: dict[int, bytes] = {}
        others: list[tuple[int, _Row]] = []
        place = 0
        while (row := _read_row(buffer, at)) is not None:
            if row.vector is not None and len(row.vector) == self._vectors.wire_bytes:
                fitting[place] = buffer[at : row.end]
            else:
                others.append((place, row))
            at, place = row.end, place + 1
        rows = Rows.zeros(place, self._vectors.dimension)
        raw = np.frombuffer(b"".join(fitting.values()), np.uint8).reshape(len(fitting), self._stride.size)
        rows.put(np.fromiter(fitting, np.int64, len(fitting)), self._parse_fitting(raw))
        for where, row in others:
            reason = QuarantineReason.NULL_VECTOR if row.vector is None else QuarantineReason.WRONG_DIMENSION
            rows.ids[where], rows.stamps[where], rows.quarantine[where] = row.id, row.stamp, _CODES[reason]
            rows.digests[where] = row_digest(key_bytes(row.id), row.vector)
        return rows, at

    def _finished(self, rows: Rows) -> Rows:
        """Mark duplicates, order the rows of one id by digest, and blank the vectors of quarantined rows."""
        if (rows.ids[1:] < rows.ids[:-1]).any():
            raise _malformed()
        same = rows.ids[1:] == rows.ids[:-1]
        if same.any():
            rows = rows.take(np.lexsort((rows.digests[:, 1], rows.digests[:, 0], rows.ids)))
            twice = np.zeros(len(rows), bool)
            twice[1:] |= same
            twice[:-1] |= same
            rows.quarantine[twice & (rows.quarantine == 0)] = _CODES[QuarantineReason.DUPLICATE_ID]
        rows.vectors[rows.quarantine != 0] = 0
        return rows


def _split_last_id(rows: Rows) -> tuple[Rows, Rows]:
    """Split off the rows of the last id: more of them may follow."""
    border = int(np.searchsorted(rows.ids, rows.ids[-1])) if len(rows) else 0
    return rows.take(slice(0, border)), rows.take(slice(border, None))


def _buffers(blocks: Iterable[bytes], most_blocks: int, most_bytes: int) -> Iterator[bytes]:
    """Gather blocks into large buffers, without the header of the stream.

    Postgres sends each row as one block, and nothing promises that: a row may straddle two buffers.
    """
    pending: list[bytes] = []
    size = 0
    clean = False
    for block in blocks:
        pending.append(block)
        size += len(block)
        if size >= _HEADER_BYTES and (size >= most_bytes or len(pending) >= most_blocks):
            buffer = b"".join(pending)
            yield buffer if clean else _body(buffer)
            pending, size, clean = [], 0, True
    buffer = b"".join(pending)
    yield buffer if clean else _body(buffer)


class _Row(NamedTuple):
    id: int
    stamp: int
    vector: bytes | None
    end: int


def _read_row(buffer: bytes, at: int) -> _Row | None:
    """Read one row; None where it isn't whole, or the trailer is reached."""
    if buffer[at : at + 2] in (_TRAILER, b"", b"\x00", b"\xff"):
        return None
    if int.from_bytes(buffer[at : at + 2], "big") != 3:
        raise _malformed()
    at += 2
    fields: list[bytes | None] = []
    for _ in range(3):
        if len(buffer) < at + 4:
            return None
        size = int.from_bytes(buffer[at : at + 4], "big", signed=True)
        at += 4
        fields.append(None if size < 0 else buffer[at : at + size])
        at += max(size, 0)
    if len(buffer) < at:
        return None
    match fields:
        case [bytes() as row_id, bytes() as stamp, vector] if len(row_id) == len(stamp) == 8:
            return _Row(int.from_bytes(row_id, "big", signed=True), int.from_bytes(stamp, "big"), vector, at)
    raise _malformed()


def _body(buffer: bytes) -> bytes:
    """Take off the header, with its extension."""
    if buffer[: len(_SIGNATURE)] != _SIGNATURE or len(buffer) < _HEADER_BYTES:
        raise _malformed()
    extension = int.from_bytes(buffer[_HEADER_BYTES - 4 : _HEADER_BYTES], "big")
    return buffer[_HEADER_BYTES + extension :]


def _malformed() -> SourceError:
    return SourceError(SourceReason.SOURCE_ERROR, "the rows that Postgres sent are not of the form asked for")
