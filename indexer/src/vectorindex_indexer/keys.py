"""Ids of rows in arrays: integers, uuids and texts, each in an array type that sorts and compares as Postgres does. Pure.

integer  int64, whatever the width of the column
uuid     `S16`, its 16 bytes: their order is the order of Postgres
text     `S<w>`, UTF-8, as wide as the longest in the array: Postgres' text has no NUL byte, and byte order is that of COLLATE "C"

NumPy strips trailing NUL bytes from an element that is taken out of an `S` array, so a uuid is only ever taken out by `value_at`.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[Any]
"""(n,) int64 or bytes, see above; all of one kind."""

LONGEST_ID_BYTES: Final = 256
"""A longer text is kept out of the index: one such id would widen the arrays of all others."""

SHORTENED_CHARACTERS: Final = LONGEST_ID_BYTES + 1
"""What is left of a text that is too long: more than any text that is not, so the two are never mistaken."""

_INT64: Final = np.iinfo(np.int64)
_UUID_BYTES: Final = 16


class IdKind(StrEnum):
    """What the ids of a source are. The values are those that stand in a digest spec."""

    INTEGER = "int8"
    UUID = "uuid"
    TEXT = "text"


_DTYPES: Final = {IdKind.INTEGER: np.dtype(np.int64), IdKind.UUID: np.dtype("S16"), IdKind.TEXT: np.dtype("S1")}


def no_ids(kind: IdKind) -> Ids:
    """Return no ids."""
    return np.empty(0, _DTYPES[kind])


def join_ids(parts: Iterable[Ids], kind: IdKind) -> Ids:
    """Put ids behind each other; parts without any may be of another kind."""
    filled = [narrow_ids(part, kind) for part in parts if part.size]
    return np.concatenate(filled) if filled else no_ids(kind)


def widths(ids: Ids) -> NDArray[np.int64]:
    """Return how many bytes each of some texts has."""
    return np.char.str_len(ids)


def shorten_id(text: bytes) -> bytes:
    """Return what arrays hold of a text: all of it, unless it is too long.

    A start in whole characters, so it is a text again, and sorts among all other ids where the whole one does.
    """
    return text if len(text) <= LONGEST_ID_BYTES else text.decode()[:SHORTENED_CHARACTERS].encode()


def narrow_ids(ids: Ids, kind: IdKind) -> Ids:
    """Return the same ids in no wider an array than they need, where a text that is too long has made it wide."""
    if kind is not IdKind.TEXT or ids.dtype.itemsize <= LONGEST_ID_BYTES:
        return ids
    return ids.astype(f"S{max(1, int(widths(ids).max(initial=0)))}")


def among(ids: Ids, wanted: Ids) -> NDArray[np.bool_]:
    """Tell for each id whether it is one of `wanted`."""
    if not ids.size or not wanted.size:
        return np.zeros(ids.size, np.bool_)
    return np.isin(ids, wanted)


def value_at(ids: Ids, position: int, kind: IdKind) -> int | bytes:
    """Return one id: an int, or exactly the bytes of a uuid or text."""
    if kind is IdKind.INTEGER:
        return int(ids[position])
    value = bytes(ids[position])
    return value.ljust(_UUID_BYTES, b"\0") if kind is IdKind.UUID else value


def of_values(values: Sequence[int | bytes], kind: IdKind) -> Ids:
    """Return the ids that `value_at` took out."""
    if kind is IdKind.TEXT:
        return np.array(values, np.bytes_) if values else no_ids(kind)
    return np.array(values, _DTYPES[kind])


def to_json(ids: Ids, kind: IdKind) -> list[int] | list[str]:
    """Return ids as people and JSON know them: numbers, canonical uuids, texts."""
    if kind is IdKind.INTEGER:
        return [int(value) for value in ids.tolist()]
    if kind is IdKind.UUID:
        raw = np.ascontiguousarray(ids, "S16").tobytes()
        return [str(uuid.UUID(bytes=raw[at : at + _UUID_BYTES])) for at in range(0, len(raw), _UUID_BYTES)]
    return [value.decode() for value in ids.tolist()]


def to_texts(ids: Ids, kind: IdKind) -> list[str]:
    """Return ids as texts."""
    return [str(value) for value in to_json(ids, kind)]


def parse_ids(values: Sequence[object], kind: IdKind) -> Ids:
    """Return the ids that `to_json` gave, or raise ValueError naming the first value that is none."""
    return of_values([_parse_id(value, kind) for value in values], kind)


def _parse_id(value: object, kind: IdKind) -> int | bytes:
    match kind, value:
        case IdKind.INTEGER, int() if not isinstance(value, bool) and _INT64.min <= value <= _INT64.max:
            return value
        case IdKind.UUID, str():
            try:
                return uuid.UUID(value).bytes
            except ValueError:
                pass
        case IdKind.TEXT, str() if "\0" not in value:
            return value.encode()
    raise ValueError(f"expected an id of type {kind}, got {value!r}")


def pack_ids(ids: Ids, kind: IdKind, name: str) -> dict[str, NDArray[Any]]:
    """Return ids as arrays of plain numbers, to be saved: `name`, and for texts `name` + `sizes` with the bytes of each."""
    if kind is IdKind.INTEGER:
        return {name: ids.astype(np.int64, copy=False)}
    if kind is IdKind.UUID:
        return {name: np.frombuffer(np.ascontiguousarray(ids, "S16").tobytes(), np.uint8)}
    values = ids.tolist()
    sizes = np.array([len(value) for value in values], np.int64)
    return {name: np.frombuffer(b"".join(values), np.uint8), f"{name}sizes": sizes}


def unpack_ids(arrays: Mapping[str, NDArray[Any]], kind: IdKind, name: str) -> Ids:
    """Return the ids that `pack_ids` packed; raise ValueError where the arrays can't be such."""
    packed = _find(arrays, name, np.int64 if kind is IdKind.INTEGER else np.uint8)
    if kind is IdKind.INTEGER:
        return packed
    if kind is IdKind.UUID:
        if packed.size % _UUID_BYTES:
            raise ValueError(f"{name}: {packed.size} bytes are no whole number of uuids")
        return np.frombuffer(packed.tobytes(), "S16")
    sizes = _find(arrays, f"{name}sizes", np.int64)
    if sizes.size and (int(sizes.min()) < 0 or int(sizes.sum()) != packed.size):
        raise ValueError(f"{name}: {packed.size} bytes are not those of {sizes.size} texts")
    raw, ends = packed.tobytes(), np.cumsum(sizes).tolist()
    values = [raw[end - size : end] for end, size in zip(ends, sizes.tolist(), strict=True)]
    if any(b"\0" in value for value in values):
        raise ValueError(f"{name}: a text with a NUL byte")
    return np.array(values, np.bytes_) if values else no_ids(kind)


def _find(arrays: Mapping[str, NDArray[Any]], name: str, dtype: type[np.generic]) -> NDArray[Any]:
    array = arrays.get(name)
    if array is None or array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"the array {name} is not a row of {dtype.__name__}")
    return array
