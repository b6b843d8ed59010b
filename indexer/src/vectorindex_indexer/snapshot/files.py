"""Files of a saved index: written beside their place and moved there, read into memory given by the caller while being hashed."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.errors import SnapshotError
from vectorindex_indexer.snapshot.manifest import CHECKSUM_MISMATCH, INCONSISTENT, NOT_READABLE, SavedArray, SavedFile, refuse

Windows = Sequence[NDArray[Any]]  # pieces of memory that follow each other in files

PARTIAL: Final = ".partial-"
PART_BYTES: Final = 128 * 2**20  # an array beyond this is cut, so that two cores can hash it

_BLOCK_BYTES: Final = 2**20  # read and hashed at once, so that hashing finds it in the cache


class Reading(NamedTuple):
    """A file, and the memory that it is to fill."""

    file: SavedFile
    pieces: Iterable[memoryview]


# --- writing ---


def write_array(folder: Path, windows: Windows, name: Callable[[int, str], str]) -> SavedArray:
    """Write what follows each other in `windows` as one array. `name` is given the number of the file and its sha256."""
    first = windows[0]
    shape = (sum(len(window) for window in windows), *first.shape[1:])
    total = sum(window.nbytes for window in windows)
    files = []
    for number, start in enumerate(range(0, max(total, 1), PART_BYTES)):
        pieces = cut_pieces(windows, start, min(start + PART_BYTES, total))
        files.append(write_file(folder, pieces, lambda sha256, number=number: name(number, sha256)))  # type: ignore[misc]
    return SavedArray(tuple(files), first.dtype.newbyteorder("<").str, shape)


def write_file(folder: Path, pieces: Iterable[bytes | memoryview], name: Callable[[str], str]) -> SavedFile:
    """Write a file beside its place, bring it to disk, and move it there. `name` is given the content's sha256."""
    digest = hashlib.sha256()
    size = 0
    partial = folder / f"{PARTIAL}{os.getpid()}"
    with partial.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    sha256 = digest.hexdigest()
    path = folder / name(sha256)
    partial.replace(path)
    return SavedFile(path.name, size, sha256)


def sync_folder(folder: Path) -> None:
    """Bring renames to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading ---


def plan_reading(array: SavedArray, windows: Windows) -> list[Reading]:
    """Return what fills `windows` with an array. Raises SnapshotError where its files are longer or shorter than that."""
    total = sum(window.nbytes for window in windows)
    if sum(file.bytes for file in array.files) != total:
        refuse(INCONSISTENT, f"{array.files[0].name if array.files else 'an array'}: the files don't hold {total} bytes")
    plans, start = [], 0
    for file in array.files:
        plans.append(Reading(file, cut_pieces(windows, start, start + file.bytes)))
        start += file.bytes
    return plans


def check_size(folder: Path, file: SavedFile) -> None:
    """Raise SnapshotError unless the file is there with its size."""
    try:
        size = (folder / file.name).stat().st_size
    except FileNotFoundError as error:
        raise SnapshotError(INCONSISTENT, f"{file.name} is gone") from error
    except OSError as error:
        raise SnapshotError(NOT_READABLE, f"{file.name} can't be read: {error.strerror}") from error
    if size != file.bytes:
        refuse(CHECKSUM_MISMATCH, f"{file.name}: expected {file.bytes} bytes, got {size}")


def read_files(folder: Path, plans: Sequence[Reading], threads: int) -> None:
    """Fill the memory and verify what was read. Raises SnapshotError; the memory is worth nothing then."""
    largest_first = sorted(plans, key=lambda plan: plan.file.bytes, reverse=True)
    with ThreadPoolExecutor(threads, "read") as pool:
        readings = [pool.submit(_read_file, folder, plan) for plan in largest_first]
        try:
            for reading in readings:
                reading.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read_file(folder: Path, plan: Reading) -> None:
    digest = hashlib.sha256()
    file = plan.file
    try:
        with (folder / file.name).open("rb", buffering=_BLOCK_BYTES) as source:
            whole = all(_fill(source, piece, digest.update) for piece in plan.pieces) and not source.read(1)
    except OSError as error:
        raise SnapshotError(NOT_READABLE, f"{file.name} can't be read: {error.strerror}") from error
    if not whole or digest.hexdigest() != file.sha256:
        refuse(CHECKSUM_MISMATCH, f"{file.name}: the content is not what was saved")


def _fill(source: BinaryIO, piece: memoryview, update: Callable[[memoryview], None]) -> bool:
    """Fill a piece of memory; tell whether there was enough."""
    for start in range(0, len(piece), _BLOCK_BYTES):
        block = piece[start : start + _BLOCK_BYTES]
        filled = 0
        while filled < len(block):
            got = source.readinto(block[filled:])  # type: ignore[attr-defined]
            if not got:
                return False
            filled += got
        update(block)
    return True


def cut_pieces(windows: Windows, start: int, end: int) -> Iterator[memoryview]:
    """Give the bytes from `start` to `end` of what follows each other in `windows`."""
    at = 0
    for window in windows:
        low, high = max(start - at, 0), min(end - at, window.nbytes)
        if low < high:
            yield window.reshape(-1).view(np.uint8).data[low:high]
        at += window.nbytes
