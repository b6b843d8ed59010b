"""Saves an index: all of it or nothing, and what is on disk already is not written again."""

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.errors import SnapshotError
from vectorindex_indexer.index import View
from vectorindex_indexer.index.parts import Segment
from vectorindex_indexer.snapshot.files import PARTIAL, sync_folder, write_array, write_file
from vectorindex_indexer.snapshot.manifest import (
    FILE_NAME,
    FORMAT,
    MANIFEST,
    MANIFEST_INVALID,
    MISSING,
    NO_SPACE,
    NOT_WRITABLE,
    Body,
    SavedArray,
    SavedDelta,
    SavedMeta,
    SavedSegment,
    read_manifest,
    render_manifest,
)

Array = NDArray[Any]

DTYPES: Final = frozenset({"|b1", "|u1", "<i8", "<u8", "<f4", "<f8"})  # of the ledger's arrays

_WORD: Final = re.compile(r"[a-z][a-z0-9]{0,31}")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def save(folder: Path, meta: SavedMeta, view: View, arrays: Mapping[str, Array]) -> None:
    """Replace the saved index by this one.

    When this returns, the new one is on disk, safe against a power cut. When it raises SnapshotError (`NoSpace`, `NotWritable`), or the
    process dies, the old one is still whole. One writer per folder.
    """
    with _map_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        discard_partial(folder)
        _remove_unnamed(folder)
        body = _write_data(folder, meta, view, arrays)
        sync_folder(folder)
        write_file(folder, [render_manifest(body)], lambda _sha256: MANIFEST)
        sync_folder(folder)
        _remove_unnamed(folder)


def discard_partial(folder: Path) -> None:
    """Remove what an interrupted save left half written; never fails. Only for the one writer of the folder: it may be another's work."""
    with suppress(OSError):  # on a volume that can't be written it does no harm either
        for path in folder.glob(f"{PARTIAL}*"):
            path.unlink(missing_ok=True)


def _write_data(folder: Path, meta: SavedMeta, view: View, arrays: Mapping[str, Array]) -> Body:
    for name, array in arrays.items():
        if not _WORD.fullmatch(name):
            raise ValueError(f"{name!r} is no name for an array")
        if array.dtype.newbyteorder("<").str not in DTYPES:
            raise ValueError(f"{name} can't be saved: it is of type {array.dtype}")
    known = {segment.token: segment for segment in _read_known_segments(folder)}
    segments = tuple(_write_segment(folder, segment, known.get(segment.token)) for segment in view.segments)
    delta = SavedDelta(
        view.delta.rows,
        view.delta.dead_rows,
        _write_changing(folder, "delta-ids", view.delta.ids),
        _write_changing(folder, "delta-codes", view.delta.codes),
        _write_changing(folder, "delta-dead", view.delta.dead),
    )
    ledger = {name: _write_changing(folder, f"ledger-{name}", array) for name, array in sorted(arrays.items())}
    return Body(FORMAT, meta, view.spec, view.id_kind, view.fallback, view.live_rows, segments, delta, ledger)


def _read_known_segments(folder: Path) -> tuple[SavedSegment, ...]:
    """Return the segments whose files the current manifest vouches for and that are there with their size; none if there is no good one."""
    try:
        body = read_manifest(folder)
    except SnapshotError:
        return ()
    return tuple(
        segment
        for segment in body.segments
        if all(_has_size(folder / file.name, file.bytes) for array in (*segment.arrays.values(), segment.ids) for file in array.files)
    )


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write_segment(folder: Path, segment: Segment, known: SavedSegment | None) -> SavedSegment:
    """Write what isn't on disk yet: a token names FAISS object and ids for ever, so the files of a known one are good."""
    dead = _write_changing(folder, "dead", segment.dead)
    spec = segment.store.spec
    if known is not None:
        arrays, ids = known.arrays, known.ids
    else:
        prefix = f"segment-{segment.token}"
        parts = segment.store.take_apart()
        arrays = {
            name: write_array(folder, windows, lambda number, _sha256, name=name: f"{prefix}-{name}-{number}.bin")  # type: ignore[misc]
            for name, windows in parts.items()
        }
        ids = write_array(folder, [np.ascontiguousarray(segment.ids)], lambda number, _sha256: f"{prefix}-ids-{number}.bin")
    return SavedSegment(segment.token, spec.type, spec.quantization, segment.rows, segment.dead_rows, arrays, ids, dead)


def _write_changing(folder: Path, what: str, array: Array) -> SavedArray:
    """Write an array that the next save may find changed: under a name that tells its content."""
    array = np.ascontiguousarray(array)
    return write_array(folder, [array], lambda _number, sha256: f"{what}-{sha256}.bin")


def _remove_unnamed(folder: Path) -> None:
    """Remove data files that the manifest on disk doesn't name: older states, and what a failed save left."""
    try:
        kept = {file.name for file in read_manifest(folder).files()}
    except SnapshotError as error:
        if error.reason not in {MISSING, MANIFEST_INVALID}:
            return
        kept = set()
    for path in folder.iterdir():
        if FILE_NAME.fullmatch(path.name) and path.name not in kept:
            path.unlink(missing_ok=True)


@contextmanager
def _map_write_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        discard_partial(folder)
        with suppress(OSError):  # what was written of the new one only takes space; the first error says more
            _remove_unnamed(folder)
        reason = NO_SPACE if error.errno in _FULL else NOT_WRITABLE
        raise SnapshotError(reason, f"the index could not be saved in {folder}: {error.strerror or error}") from error
