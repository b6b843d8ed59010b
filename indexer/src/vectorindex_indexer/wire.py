"""Parses what `COPY … (FORMAT binary)` sends into arrays, many rows of one form at a time; no connection is touched here."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.config import Metric
from vectorindex_indexer.digest import key_bytes, row_digest, row_digests
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.keys import LONGEST_ID_BYTES, IdKind, Ids, among, no_ids, of_values, shorten_id
from vectorindex_indexer.names import QuarantineReason
from vectorindex_indexer.rows import QUARANTINE, Heads, Rows
from vectorindex_indexer.stream import HEADER_BYTES, TRAILER, Bytes, Gathered, header_bytes, malformed
from vectorindex_indexer.vectors import Vectors

_CODES: Final = {reason: code for code, reason in enumerate(QUARANTINE, start=1)}

_FIELDS: Final = 3  # of a row: id, stamp, and a vector or a digest
_STAMP_BYTES: Final = 8
_DIGEST_BYTES: Final = 16
_COUNT_BYTES: Final = 2  # before each row: the number of its fields
_SIZE_BYTES: Final = 4  # before each field: its size, -1 for NULL
_ID_AT: Final = _COUNT_BYTES + _SIZE_BYTES
_FIXED_ID_BYTES: Final = {IdKind.INTEGER: 8, IdKind.UUID: 16}


class _Form:
    """The form of rows whose ids have one size, and whose last field has another."""

    def __init__(self, id_bytes: int, last_bytes: int) -> None:
        sizes = (id_bytes, _STAMP_BYTES, last_bytes)
        template = bytearray(_FIELDS.to_bytes(_COUNT_BYTES, "big"))
        headers = list(range(_COUNT_BYTES))
        starts = []
        for size in sizes:
            headers += range(len(template), len(template) + _SIZE_BYTES)
            template += size.to_bytes(_SIZE_BYTES, "big")
            starts.append(len(template))
            template += bytes(size)
        self.id, self.stamp, self.last = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        self.bytes = len(template)
        self._headers = np.array(headers)
        self._expected = np.frombuffer(bytes(template), np.uint8)[self._headers]

    def fits(self, rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tell which rows, (n, bytes) uint8, have this form."""
        fits: NDArray[np.bool_] = (rows[:, self._headers] == self._expected).all(axis=1)
        return fits

    def ids(self, rows: NDArray[np.uint8], kind: IdKind) -> Ids:
        """Return the ids of rows of this form."""
        raw = rows[:, self.id].copy()
        if kind is IdKind.INTEGER:
            return raw.view(">i8").reshape(-1).astype(np.int64)
        width = raw.shape[1]
        return raw.view(f"S{width}").reshape(-1) if width else np.zeros(len(raw), "S1")

    def stamps(self, rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """Return the stamps of rows of this form."""
        return np.ascontiguousarray(rows[:, self.stamp]).view(">u8").reshape(-1).astype(np.uint64)

    def keys(self, rows: NDArray[np.uint8], kind: IdKind) -> NDArray[np.uint8]:
        """Return the key bytes of rows of this form: a text comes with its size before it, as a digest wants it."""
        return rows[:, _COUNT_BYTES if kind is IdKind.TEXT else self.id.start : self.id.stop]


class _Group(NamedTuple):
    """Rows of one form: their places among all rows, and their bytes."""

    form: _Form
    places: NDArray[np.int64]
    rows: NDArray[np.uint8]


class _Row(NamedTuple):
    id: bytes
    stamp: int
    last: bytes | None
    end: int


class _Sorted(NamedTuple):
    """Whole rows of a portion: those of a known form by their form, and all others by their place."""

    starts: list[int]  # where each row starts, and where the last one ends
    groups: list[_Group]
    others: dict[int, _Row]

    @property
    def size(self) -> int:
        return len(self.starts) - 1


class _Reader:
    """Sorts the rows of a stream by their form."""

    def __init__(self, kind: IdKind, last_bytes: int) -> None:
        self._kind = kind
        self._last_bytes = last_bytes
        self._forms: dict[int, _Form] = {}
        self.rest_bytes = _ID_AT + _SIZE_BYTES + _STAMP_BYTES + _SIZE_BYTES + last_bytes  # a row of a known form beside its id

    def typical_bytes(self) -> int:
        """Return the size of a row, roughly where that depends on its id."""
        return self.rest_bytes + _FIXED_ID_BYTES.get(self._kind, 64)

    def sort(self, content: memoryview, blocks: list[int]) -> _Sorted:
        """Sort all whole rows of a portion. `blocks` are the sizes of the blocks in which it came: most likely each is a row."""
        starts = self._starts_of_blocks(content, blocks)
        found = None
        if starts is not None:
            with contextlib.suppress(SourceError):
                found = self._sort_at(content, starts)
        if found is None:
            found = self._sort_at(content, _walk(content))
        if found is None:
            raise malformed()
        return found

    def _starts_of_blocks(self, content: memoryview, blocks: list[int]) -> list[int] | None:
        ends = np.cumsum(blocks).tolist()
        if blocks and blocks[-1] == len(TRAILER) and bytes(content[-len(TRAILER) :]) == TRAILER:
            ends.pop()
        elif not ends or ends[-1] != len(content):
            return None
        return [0, *ends]

    def _sort_at(self, content: memoryview, starts: list[int]) -> _Sorted | None:
        """Sort rows that are said to start here; None when they don't."""
        sizes = np.diff(np.array(starts, np.int64))
        raw = np.frombuffer(content, np.uint8)
        groups: list[_Group] = []
        others: dict[int, _Row] = {}
        for size in np.unique(sizes).tolist():
            places = np.flatnonzero(sizes == size)
            odd = places
            id_bytes = size - self.rest_bytes
            if self._is_indexable(id_bytes):
                form = self._form(id_bytes)
                rows = _gather(content, raw, starts, places, size)
                fits = form.fits(rows)
                if fits.all():
                    odd = places[:0]
                    groups.append(_Group(form, places, rows))
                else:
                    odd = places[~fits]
                    groups.append(_Group(form, places[fits], rows[fits]))
            for place in odd.tolist():
                row = _read_row(content, starts[place])
                if row is None or row.end != starts[place + 1]:
                    return None
                self._check(row)
                others[place] = row
        return _Sorted(starts, groups, others)

    def _is_indexable(self, id_bytes: int) -> bool:
        fixed = _FIXED_ID_BYTES.get(self._kind)
        return 0 <= id_bytes <= LONGEST_ID_BYTES if fixed is None else id_bytes == fixed

    def _form(self, id_bytes: int) -> _Form:
        if id_bytes not in self._forms:
            self._forms[id_bytes] = _Form(id_bytes, self._last_bytes)
        return self._forms[id_bytes]

    def _check(self, row: _Row) -> None:
        fixed = _FIXED_ID_BYTES.get(self._kind)
        if fixed is not None and len(row.id) != fixed:
            raise malformed()

    def ids_of(self, found: _Sorted) -> Ids:
        """Return the ids of sorted rows, in their places."""
        if len(found.groups) == 1 and not found.others:
            return found.groups[0].form.ids(found.groups[0].rows, self._kind)
        others = {place: _id_value(row.id, self._kind) for place, row in found.others.items()}
        parts = [group.form.ids(group.rows, self._kind) for group in found.groups]
        odd = of_values(list(others.values()), self._kind)
        ids = np.zeros(
            found.size, max([part.dtype for part in (*parts, odd)] or [no_ids(self._kind).dtype], key=lambda dtype: dtype.itemsize)
        )
        for group, part in zip(found.groups, parts, strict=True):
            ids[group.places] = part
        ids[list(others)] = odd
        return ids


def parse_heads(blocks: Iterable[Bytes], kind: IdKind) -> Heads:
    """Parse rows of id, stamp and 16 bytes of digest. Raise SourceError when the stream isn't of that form."""
    stream = list(blocks)
    content = memoryview(b"".join(stream))
    header = header_bytes(content)
    content = content[header:]
    sizes = [len(block) for block in stream]
    sizes[0] -= header
    reader = _Reader(kind, _DIGEST_BYTES)
    found = reader.sort(content, sizes) if len(content) > len(TRAILER) else _Sorted([0], [], {})
    if bytes(content[found.starts[-1] :]) != TRAILER:
        raise malformed()
    heads = Heads(reader.ids_of(found), np.zeros(found.size, np.uint64), np.zeros((found.size, 2), np.uint64))
    for form, places, rows in found.groups:
        heads.stamps[places] = form.stamps(rows)
        heads.digests[places] = np.ascontiguousarray(rows[:, form.last]).view(">u8").reshape(-1, 2)
    for place, row in found.others.items():
        if row.last is None or len(row.last) != _DIGEST_BYTES:
            raise malformed()
        heads.stamps[place] = row.stamp
        heads.digests[place] = np.frombuffer(row.last, ">u8")
    return heads


class RowParser:
    """Parses rows of id, stamp and vector, piece by piece."""

    def __init__(self, vectors: Vectors, metric: Metric, kind: IdKind = IdKind.INTEGER) -> None:
        self._vectors = vectors
        self._metric = metric
        self._kind = kind
        self._reader = _Reader(kind, vectors.wire_bytes)

    def parse(self, blocks: Iterable[Bytes], chunk_rows: int, *, digests: bool = True, repeated: Ids | None = None) -> Iterator[Rows]:
        """Parse a whole stream into pieces of about `chunk_rows` rows. Raise SourceError when it isn't of the expected form.

        The stream is in the order of ids, and rows of one id are never split between two pieces, so that duplicates are seen wherever
        a piece ends. With `repeated`, the ids that occur more than once, it is in any order, and only each piece is put in order.
        Without `digests`, these are left zero: most of the time goes into them.
        """
        gathered = Gathered(chunk_rows * self._reader.typical_bytes() + HEADER_BYTES, chunk_rows)
        for is_end in gathered.fill(blocks):
            found = self._reader.sort(gathered.content, gathered.blocks)
            rows = self._rows_of(found, digests=digests)
            whole = len(rows)
            if whole and repeated is None and not is_end:  # the rows of the last id wait: more of them may follow
                whole = int(np.searchsorted(rows.ids, rows.ids[-1]))
            gathered.drop(found.starts[whole])
            if whole:
                yield self._finish(rows.take(slice(0, whole)), repeated)
        if bytes(gathered.content) != TRAILER:
            raise malformed()

    def _rows_of(self, found: _Sorted, *, digests: bool) -> Rows:
        if len(found.groups) == 1 and not found.others:
            return self._parse_group(found.groups[0], digests=digests)
        rows = Rows.of_ids(self._reader.ids_of(found), self._vectors.dimension)
        for group in found.groups:
            places, part = group.places, self._parse_group(group, digests=digests)
            rows.stamps[places], rows.digests[places] = part.stamps, part.digests
            rows.vectors[places], rows.quarantine[places] = part.vectors, part.quarantine
        for place, row in found.others.items():
            rows.stamps[place], rows.quarantine[place] = row.stamp, _CODES[self._reason_of(row)]
            if digests:
                rows.digests[place] = row_digest(self._key_bytes(row), row.last)
        return rows

    def _parse_group(self, group: _Group, *, digests: bool) -> Rows:
        form, raw = group.form, group.rows
        wire = raw[:, form.last]
        hashed = row_digests(form.keys(raw, self._kind), wire) if digests else np.zeros((len(raw), 2), np.uint64)
        vectors, quarantine = self._decode(wire)
        return Rows(form.ids(raw, self._kind), form.stamps(raw), hashed, vectors, quarantine)

    def _decode(self, wire: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        vectors = self._vectors.decode(wire)
        quarantine = np.zeros(len(wire), np.uint8)
        odd = _find_odd(vectors)
        chosen = vectors[odd]
        if self._metric is Metric.COSINE:
            nonzero = (chosen.view(np.uint32) & 0x7FFFFFFF).any(axis=1)  # by bits: a signalling NaN makes other ways warn
            quarantine[odd[~nonzero]] = _CODES[QuarantineReason.ZERO_VECTOR]
        quarantine[odd[~np.isfinite(chosen).all(axis=1)]] = _CODES[QuarantineReason.NOT_FINITE]
        quarantine[self._vectors.is_other_form(wire)] = _CODES[QuarantineReason.WRONG_DIMENSION]
        return vectors, quarantine

    def _key_bytes(self, row: _Row) -> bytes:
        return key_bytes(row.id, IdKind.TEXT) if self._kind is IdKind.TEXT else row.id

    def _reason_of(self, row: _Row) -> QuarantineReason:
        if self._kind is IdKind.TEXT and len(row.id) > LONGEST_ID_BYTES:
            return QuarantineReason.ID_TOO_LONG
        if row.last is None:
            return QuarantineReason.NULL_VECTOR
        return QuarantineReason.NOT_FINITE if self._vectors.has_null_elements(row.last) else QuarantineReason.WRONG_DIMENSION

    def _finish(self, rows: Rows, repeated: Ids | None) -> Rows:
        """Mark duplicates, order the rows of one id by digest, and blank the vectors of quarantined rows."""
        if repeated is None:
            if (rows.ids[1:] < rows.ids[:-1]).any():
                raise malformed()
            same = rows.ids[1:] == rows.ids[:-1]
            in_order = not same.any()
        else:
            in_order = False
        if not in_order:
            rows = rows.take(np.lexsort((rows.digests[:, 1], rows.digests[:, 0], rows.ids)))
            twice = among(rows.ids, _find_repeated(rows.ids) if repeated is None else repeated)
            rows.quarantine[twice & (rows.quarantine == 0)] = _CODES[QuarantineReason.DUPLICATE_ID]
        rows.vectors[rows.quarantine != 0] = 0
        return rows


def _find_repeated(ids: Ids) -> Ids:
    """Return the ids that occur more than once; `ids` ascend."""
    return np.unique(ids[1:][ids[1:] == ids[:-1]])


def _find_odd(vectors: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the rows that may be zero or not finite: their squares add up to nothing, to too much, or to no number. Others are neither."""
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
        return np.flatnonzero(~(squares > 0) | ~np.isfinite(squares))


def _id_value(raw: bytes, kind: IdKind) -> int | bytes:
    if kind is IdKind.INTEGER:
        return int.from_bytes(raw, "big", signed=True)
    return shorten_id(raw) if kind is IdKind.TEXT else raw


def _gather(content: memoryview, raw: NDArray[np.uint8], starts: list[int], places: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Return the rows of one size, (n, size) uint8; without copying where they lie side by side."""
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 == len(places):
        return raw[starts[first] : starts[last + 1]].reshape(len(places), size)
    joined = b"".join([content[starts[place] : starts[place] + size] for place in places.tolist()])
    return np.frombuffer(joined, np.uint8).reshape(len(places), size)


def _walk(content: memoryview) -> list[int]:
    """Return where each whole row starts, and where the last one ends, by reading one after the other."""
    starts = [0]
    while (row := _read_row(content, starts[-1])) is not None:
        starts.append(row.end)
    return starts


def _read_row(content: memoryview, at: int) -> _Row | None:
    """Read one row; None where it isn't whole, or the trailer is reached."""
    if len(content) < at + _COUNT_BYTES or bytes(content[at : at + _COUNT_BYTES]) == TRAILER:
        return None
    if int.from_bytes(content[at : at + _COUNT_BYTES], "big") != _FIELDS:
        raise malformed()
    at += _COUNT_BYTES
    fields: list[bytes | None] = []
    for _ in range(_FIELDS):
        if len(content) < at + _SIZE_BYTES:
            return None
        size = int.from_bytes(content[at : at + _SIZE_BYTES], "big", signed=True)
        at += _SIZE_BYTES
        fields.append(None if size < 0 else bytes(content[at : at + size]))
        at += max(size, 0)
    if len(content) < at:
        return None
    match fields:
        case [bytes() as row_id, bytes() as stamp, last] if len(stamp) == _STAMP_BYTES:
            return _Row(row_id, int.from_bytes(stamp, "big"), last, at)
    raise malformed()
