"""The saved index: a view and its ledger on disk, replaced as a whole or not at all, and trusted only after every byte was verified.

    folder/manifest.json              written last; names every other file with size and sha256, and carries its own checksum
    folder/segment-<token>-index.bin  one FAISS index; never changes, so it is written once
    folder/segment-<token>-ids.bin    ids of its rows
    folder/<what>-<sha256>.bin        everything that changes: dead marks, delta, ledger arrays; a new state has new names
    folder/.partial-*                 being written; worthless after a crash

Names of data files are never reused for other content, so the old manifest stays true until the new one replaces it. What a
loaded index says about Postgres is for others to prove: right checksums only tell that the bytes are those that were saved.
"""

import errno
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import faiss
import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from vectorindex_indexer.config import IndexSpec, IndexType, Metric
from vectorindex_indexer.errors import SnapshotError
from vectorindex_indexer.index import Segment, View, make_delta, make_segment, stored_codes

Array = NDArray[Any]

_faiss: Any = faiss  # its own type stubs lack most of what it exports

MANIFEST: Final = "manifest.json"
PARTIAL: Final = ".partial-"
FORMAT: Final = 1

MISSING: Final = "Missing"  # no saved index is there: the normal first start
MANIFEST_INVALID: Final = "ManifestInvalid"
WRONG_INDEX: Final = "WrongIndex"  # a good one, but of another index, or built by another spec
CHECKSUM_MISMATCH: Final = "ChecksumMismatch"  # a file has other bytes than were saved
INCONSISTENT: Final = "Inconsistent"  # a file is gone, or the parts don't fit each other
NO_SPACE: Final = "NoSpace"
NOT_WRITABLE: Final = "NotWritable"
NOT_READABLE: Final = "NotReadable"

_MANIFEST_LIMIT_BYTES: Final = 2**20
_BLOCK_BYTES: Final = 2**20
_FILE_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,150}\.bin")
_WORD: Final = re.compile(r"[a-z][a-z0-9]{0,31}")
_DTYPES: Final = frozenset({"|b1", "|u1", "<i8", "<u8", "<f4", "<f8"})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class SavedAsOf:
    """The as-of point of what was saved; the fields of `rows.AsOf` as text."""

    snapshot: str
    incarnation: str
    fingerprint: str
    at: str  # RFC 3339, UTC


@dataclass(frozen=True)
class SavedMeta:
    """What a saved index says about itself."""

    name: str
    uid: str
    identity_hash: str
    digest_spec: str
    generation: int
    root_digest: str
    as_of: SavedAsOf
    proven_at: str  # RFC 3339, UTC; "" when never proven
    built_at: str = ""  # RFC 3339, UTC: when the build of this generation began


@dataclass(frozen=True)
class Expected:
    """What a saved index must be to be of use here. `digest_spec` is only compared when given: at start it may not be known yet."""

    name: str
    uid: str
    identity_hash: str
    spec: IndexSpec
    digest_spec: str | None = None


@dataclass(frozen=True, eq=False)
class Saved:
    """A saved index, read back. The arrays are the ledger's, by name, and writable."""

    meta: SavedMeta
    view: View
    arrays: dict[str, Array]


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    bytes: int
    sha256: str


class _Array(Struct, frozen=True, forbid_unknown_fields=True):
    file: _File
    dtype: str
    shape: tuple[int, ...]


class _Segment(Struct, frozen=True, forbid_unknown_fields=True):
    token: str
    rows: int
    dead_rows: int
    index: _File
    ids: _Array
    dead: _Array


class _Delta(Struct, frozen=True, forbid_unknown_fields=True):
    rows: int
    dead_rows: int
    ids: _Array
    codes: _Array
    dead: _Array


class _Body(Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    meta: SavedMeta
    spec: IndexSpec
    live_rows: int
    segments: tuple[_Segment, ...]
    delta: _Delta
    arrays: dict[str, _Array]

    def files(self) -> Iterable[_File]:
        for segment in self.segments:
            yield from (segment.index, segment.ids.file, segment.dead.file)
        yield from (self.delta.ids.file, self.delta.codes.file, self.delta.dead.file)
        yield from (array.file for array in self.arrays.values())


class _Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    body: msgspec.Raw
    sha256: str  # of the body's bytes


# --- saving ---


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
        _sync_folder(folder)
        raw = msgspec.json.encode(body)
        manifest = msgspec.json.encode(_Manifest(msgspec.Raw(raw), hashlib.sha256(raw).hexdigest()))
        _write_file(folder, lambda _sha256: MANIFEST, lambda sink: sink(manifest))
        _sync_folder(folder)
        _remove_unnamed(folder)


def discard_partial(folder: Path) -> None:
    """Remove what an interrupted save left half written. Called at start, before anything is loaded; never fails."""
    with suppress(OSError):  # on a volume that can't be written it does no harm either
        for path in folder.glob(f"{PARTIAL}*"):
            path.unlink(missing_ok=True)


def _write_data(folder: Path, meta: SavedMeta, view: View, arrays: Mapping[str, Array]) -> _Body:
    known = {segment.token: segment for segment in _read_known_segments(folder)}
    segments = tuple(_write_segment(folder, segment, known.get(segment.token)) for segment in view.segments)
    delta = _Delta(
        view.delta.rows,
        view.delta.dead_rows,
        _write_array(folder, "delta-ids", view.delta.ids),
        _write_array(folder, "delta-codes", view.delta.codes),
        _write_array(folder, "delta-dead", view.delta.dead),
    )
    ledger = {}
    for name, array in sorted(arrays.items()):
        if not _WORD.fullmatch(name):
            raise ValueError(f"{name!r} is no name for an array")
        ledger[name] = _write_array(folder, f"ledger-{name}", array)
    return _Body(FORMAT, meta, view.spec, view.live_rows, segments, delta, ledger)


def _read_known_segments(folder: Path) -> tuple[_Segment, ...]:
    """Return the segments whose files the current manifest vouches for and that are there with their size; none if there is no good one."""
    try:
        body = _read_manifest(folder)
    except SnapshotError:
        return ()
    return tuple(
        segment for segment in body.segments if all(_has_size(folder / file.name, file.bytes) for file in (segment.index, segment.ids.file))
    )


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write_segment(folder: Path, segment: Segment, known: _Segment | None) -> _Segment:
    """Write what isn't on disk yet: a token names FAISS object and ids for ever, so the files of a known one are good."""
    dead = _write_array(folder, "dead", segment.dead)
    if known is not None:
        return _Segment(segment.token, segment.rows, segment.dead_rows, known.index, known.ids, dead)
    prefix = f"segment-{segment.token}"

    def write_index(sink: Callable[[bytes], None]) -> None:
        _faiss.write_index(segment.index, _faiss.PyCallbackIOWriter(sink))

    # Through a Python sink: with a path FAISS reports no error when a small index meets a full disk.
    index = _write_file(folder, lambda _sha256: f"{prefix}-index.bin", write_index)
    ids = _write_array(folder, f"{prefix}-ids", segment.ids, hashed=False)
    return _Segment(segment.token, segment.rows, segment.dead_rows, index, ids, dead)


def _write_array(folder: Path, what: str, array: Array, *, hashed: bool = True) -> _Array:
    array = np.ascontiguousarray(array)
    dtype = array.dtype.newbyteorder("<").str
    if dtype not in _DTYPES:
        raise ValueError(f"{what} can't be saved: it is of type {array.dtype}")
    array = array.astype(dtype, copy=False)

    def write(sink: Callable[[memoryview], None]) -> None:
        raw = array.reshape(-1).view(np.uint8)
        for start in range(0, raw.size, _BLOCK_BYTES):
            sink(raw[start : start + _BLOCK_BYTES].data)

    file = _write_file(folder, lambda sha256: f"{what}-{sha256}.bin" if hashed else f"{what}.bin", write)
    return _Array(file, dtype, array.shape)


def _write_file(folder: Path, name: Callable[[str], str], write: Callable[[Callable[[Any], None]], None]) -> _File:
    """Write a file beside its place, bring it to disk, and move it there. `name` may depend on the content's sha256."""
    digest = hashlib.sha256()
    size = 0
    partial = folder / f"{PARTIAL}{os.getpid()}"
    with partial.open("wb") as file:

        def sink(block: bytes | memoryview) -> None:
            nonlocal size
            digest.update(block)
            size += len(block)
            file.write(block)

        write(sink)
        file.flush()
        os.fsync(file.fileno())
    sha256 = digest.hexdigest()
    path = folder / name(sha256)
    partial.replace(path)
    return _File(path.name, size, sha256)


def _sync_folder(folder: Path) -> None:
    """Bring renames to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_unnamed(folder: Path) -> None:
    """Remove data files that the manifest on disk doesn't name: older states, and what a failed save left."""
    try:
        kept = {file.name for file in _read_manifest(folder).files()}
    except SnapshotError as error:
        if error.reason not in {MISSING, MANIFEST_INVALID}:
            return
        kept = set()
    for path in folder.iterdir():
        if _FILE_NAME.fullmatch(path.name) and path.name not in kept:
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


# --- loading ---


def load(folder: Path, expected: Expected) -> Saved:
    """Read the saved index back.

    Raises SnapshotError: `Missing` where none was ever saved, else why it can't be used. Nothing is given to FAISS before its sha256 was
    found right, and nothing is mapped: files are read into memory first.
    """
    return _read(folder, _read_manifest(folder), expected)


def read_state(folder: Path) -> Saved:
    """Read a saved index back without expecting a certain one; else as `load`."""
    return _read(folder, _read_manifest(folder), None)


def _read(folder: Path, body: _Body, expected: Expected | None) -> Saved:
    if expected is not None:
        _check_identity(body, expected)
    for file in body.files():
        _check_size(folder, file)
    spec = body.spec if expected is None else expected.spec
    segments = tuple(_read_segment(folder, segment, spec) for segment in body.segments)
    delta = body.delta
    ids = _read_array(folder, delta.ids, "<i8", (delta.rows,))
    codes = _read_array(folder, delta.codes, "<f4", (delta.rows, spec.dimension))
    dead = _read_flags(folder, delta.dead, delta.rows, delta.dead_rows)
    view = View(body.meta.generation, spec, segments, make_delta(spec.dimension, ids, codes, dead))
    if view.live_rows != body.live_rows:
        _refuse(INCONSISTENT, f"{view.live_rows} live rows, {body.live_rows} were saved")
    return Saved(body.meta, view, {name: _read_array(folder, array) for name, array in body.arrays.items()})


def _read_manifest(folder: Path) -> _Body:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MANIFEST_LIMIT_BYTES:
            _refuse(MANIFEST_INVALID, "the manifest is far too large")
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SnapshotError(MISSING, f"no index is saved in {folder}") from error
    except OSError as error:
        raise SnapshotError(NOT_READABLE, f"the manifest can't be read: {error.strerror}") from error
    try:
        manifest = msgspec.json.decode(raw, type=_Manifest)
        body = msgspec.json.decode(manifest.body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SnapshotError(MANIFEST_INVALID, f"the manifest can't be parsed: {error}") from error
    if hashlib.sha256(manifest.body).hexdigest() != manifest.sha256:
        _refuse(MANIFEST_INVALID, "the manifest's own checksum is wrong")
    # Written by us means written like this: no second spelling of the same values is taken.
    if msgspec.json.encode(manifest) != raw or msgspec.json.encode(body) != bytes(manifest.body):
        _refuse(MANIFEST_INVALID, "the manifest was not written by this program")
    if body.format != FORMAT:
        _refuse(MANIFEST_INVALID, f"expected format {FORMAT}, got {body.format}")
    for file in body.files():
        if not _FILE_NAME.fullmatch(file.name) or file.bytes < 0:
            _refuse(MANIFEST_INVALID, "the manifest names a file that can't be one of ours")
    return body


def _check_identity(body: _Body, expected: Expected) -> None:
    spec = body.spec
    found: dict[str, tuple[object, object]] = {
        "name": (expected.name, body.meta.name),
        "uid": (expected.uid, body.meta.uid),
        "dimension": (expected.spec.dimension, spec.dimension),
        "metric": (expected.spec.metric, spec.metric),
        "type": (expected.spec.type, spec.type),
        "identity": (expected.identity_hash, body.meta.identity_hash),
    }
    if expected.spec.type is IndexType.HNSW:
        found["m"] = (expected.spec.hnsw.m, spec.hnsw.m)
        found["efConstruction"] = (expected.spec.hnsw.ef_construction, spec.hnsw.ef_construction)
    if expected.digest_spec is not None:
        found["digest spec"] = (expected.digest_spec, body.meta.digest_spec)
    for what, (wanted, got) in found.items():
        if wanted != got:
            _refuse(WRONG_INDEX, f"the saved index is another one: expected {what} {wanted}, got {got}")


def _check_size(folder: Path, file: _File) -> None:
    try:
        size = (folder / file.name).stat().st_size
    except FileNotFoundError as error:
        raise SnapshotError(INCONSISTENT, f"{file.name} is gone") from error
    except OSError as error:
        raise SnapshotError(NOT_READABLE, f"{file.name} can't be read: {error.strerror}") from error
    if size != file.bytes:
        _refuse(CHECKSUM_MISMATCH, f"{file.name}: expected {file.bytes} bytes, got {size}")


def _read_verified(folder: Path, file: _File) -> bytearray:
    """Return the bytes of a file, after they were found to be the saved ones."""
    _check_size(folder, file)
    data = bytearray(file.bytes)
    try:
        with (folder / file.name).open("rb") as source:
            whole = _fill(source, data) and not source.read(1)
    except OSError as error:
        raise SnapshotError(NOT_READABLE, f"{file.name} can't be read: {error.strerror}") from error
    if not whole or hashlib.sha256(data).hexdigest() != file.sha256:
        _refuse(CHECKSUM_MISMATCH, f"{file.name}: the content is not what was saved")
    return data


def _fill(source: BinaryIO, data: bytearray) -> bool:
    window = memoryview(data)
    filled = 0
    while filled < len(data):
        got = source.readinto(window[filled:])  # type: ignore[attr-defined]
        if not got:
            return False
        filled += got
    return True


def _read_array(folder: Path, array: _Array, dtype: str | None = None, shape: tuple[int, ...] | None = None) -> Array:
    if array.dtype not in _DTYPES or array.dtype != (dtype or array.dtype):
        _refuse(INCONSISTENT, f"{array.file.name}: type {array.dtype} is not expected")
    if any(length < 0 for length in array.shape) or array.shape != (array.shape if shape is None else shape):
        _refuse(INCONSISTENT, f"{array.file.name}: expected shape {shape}, got {array.shape}")
    if math.prod(array.shape) * np.dtype(array.dtype).itemsize != array.file.bytes:
        _refuse(INCONSISTENT, f"{array.file.name}: {array.file.bytes} bytes are no array of shape {array.shape}")
    data = _read_verified(folder, array.file)
    return np.frombuffer(data, dtype=array.dtype).reshape(array.shape)


def _read_flags(folder: Path, array: _Array, rows: int, raised: int) -> Array:
    """Return dead marks; any byte but 0 and 1 in them would count otherwise in each use."""
    flags = _read_array(folder, array, "|b1", (rows,))
    if rows and int(flags.view(np.uint8).max()) > 1:
        _refuse(INCONSISTENT, f"{array.file.name} has a mark that is neither 0 nor 1")
    if int(flags.sum()) != raised:
        _refuse(INCONSISTENT, f"{array.file.name}: expected {raised} dead rows, got {int(flags.sum())}")
    return flags


def _read_segment(folder: Path, segment: _Segment, spec: IndexSpec) -> Segment:
    ids = _read_array(folder, segment.ids, "<i8", (segment.rows,))
    dead = _read_flags(folder, segment.dead, segment.rows, segment.dead_rows)
    index = _read_index(segment.index.name, _read_verified(folder, segment.index))
    _check_index(index, segment, spec)
    return make_segment(index, ids, dead, segment.token)


def _read_index(name: str, data: bytearray) -> Any:
    """Return the FAISS index in verified bytes. The limits still hold: who can write the volume can also make checksums."""
    window = memoryview(data)
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        block = bytes(window[position : position + size])
        position += len(block)
        return block

    _faiss.set_deserialization_vector_byte_limit(len(data))
    _faiss.set_deserialization_loop_limit(max(1024, len(data)))
    try:
        index = _faiss.read_index(_faiss.PyCallbackIOReader(read))
    except (RuntimeError, MemoryError) as error:
        raise SnapshotError(INCONSISTENT, f"{name}: FAISS refuses it") from error
    if position != len(data):
        _refuse(INCONSISTENT, f"{name}: {len(data) - position} bytes follow the index")
    return index


def _check_index(index: Any, segment: _Segment, spec: IndexSpec) -> None:
    """Compare what FAISS read with what the manifest says it is."""
    name = segment.index.name
    wanted = _faiss.IndexFlat if spec.type is IndexType.FLAT else _faiss.IndexHNSWFlat
    metric = _faiss.METRIC_L2 if spec.metric is Metric.L2 else _faiss.METRIC_INNER_PRODUCT
    if not isinstance(index, wanted):
        _refuse(INCONSISTENT, f"{name}: expected an index of type {spec.type}, got {type(index).__name__}")
    found: dict[str, tuple[int, int]] = {
        "dimension": (spec.dimension, index.d),
        "rows": (segment.rows, index.ntotal),
        "metric": (metric, index.metric_type),
    }
    if spec.type is IndexType.HNSW:
        storage = _faiss.downcast_index(index.storage)
        if not isinstance(storage, _faiss.IndexFlat):
            _refuse(INCONSISTENT, f"{name}: the graph's vectors are stored as {type(storage).__name__}")
        found |= {
            "m": (2 * spec.hnsw.m, index.hnsw.nb_neighbors(0)),
            "efConstruction": (spec.hnsw.ef_construction, index.hnsw.efConstruction),
            "rows in the graph": (segment.rows, index.hnsw.levels.size()),
            "stored rows": (segment.rows, storage.ntotal),
            "stored dimension": (spec.dimension, storage.d),
            "stored metric": (metric, storage.metric_type),
        }
    for what, (expected, got) in found.items():
        if expected != got:
            _refuse(INCONSISTENT, f"{name}: expected {what} {expected}, got {got}")
    try:
        stored_codes(index)
    except ValueError as error:
        raise SnapshotError(INCONSISTENT, f"{name}: {error}") from error


def _refuse(reason: str, message: str) -> NoReturn:
    raise SnapshotError(reason, message)
