"""Loads a saved index: straight into the memory of FAISS and of NumPy, verified while it is read, and in no other way."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.config import IndexSpec, IndexType, Quantization
from vectorindex_indexer.errors import SnapshotError
from vectorindex_indexer.index import TOO_FEW_ROWS, View, threads_from_cgroup
from vectorindex_indexer.index.parts import Delta, Segment, make_delta, make_segment
from vectorindex_indexer.index.stores import Store, StoreError, Trained, allocate_store, exact_spec, finish_store
from vectorindex_indexer.keys import LONGEST_ID_BYTES, IdKind, no_ids
from vectorindex_indexer.snapshot.files import Reading, Windows, check_size, plan_reading, read_files
from vectorindex_indexer.snapshot.manifest import (
    INCONSISTENT,
    WRONG_INDEX,
    Body,
    SavedArray,
    SavedMeta,
    SavedSegment,
    read_manifest,
    refuse,
)
from vectorindex_indexer.snapshot.saving import DTYPES

Array = NDArray[Any]

_TEXTS: Final = re.compile(r"\|S([1-9]\d{0,2})")
_SMALL: Final = ("table", "centroids", "sizes", "entry")  # parts of a store that are needed to make room for the others


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


def load(folder: Path, expected: Expected) -> Saved:
    """Read the saved index back.

    Raises SnapshotError: `Missing` where none was ever saved, else why it can't be used. FAISS parses nothing: its memory is filled with
    arrays, which are checked against each other once their sha256 was found right. Nothing is mapped, so that a file cut short under a
    running process can't end it.
    """
    return _Loader(folder, read_manifest(folder), expected).load()


def read_state(folder: Path) -> Saved:
    """Read a saved index back without expecting a certain one; else as `load`."""
    return _Loader(folder, read_manifest(folder), None).load()


class _Loader:
    """One load. First all memory is laid out and every size checked, then everything is read at once."""

    def __init__(self, folder: Path, body: Body, expected: Expected | None) -> None:
        if expected is not None:
            _check_identity(body, expected)
        self._folder = folder
        self._body = body
        self._spec = body.spec if expected is None else expected.spec
        self._plans: list[Reading] = []

    def load(self) -> Saved:
        body = self._body
        for file in body.files():
            check_size(self._folder, file)
        if body.fallback not in ("", TOO_FEW_ROWS):
            refuse(INCONSISTENT, "the saved index falls back for a reason that there isn't")
        try:
            segments = [self._plan_segment(segment) for segment in body.segments]
            delta = self._plan_delta()
            arrays = {name: self._plan_array(array) for name, array in body.arrays.items()}
            read_files(self._folder, self._plans, threads_from_cgroup())
            view = View(
                body.meta.generation,
                self._spec,
                tuple(_finish_segment(*parts) for parts in segments),
                _finish_delta(self._spec, body, *delta),
                body.id_kind,
                body.fallback,
                no_ids(body.id_kind),
            )
        except (StoreError, MemoryError) as error:
            raise SnapshotError(INCONSISTENT, f"the saved index can't be put together: {error}") from error
        if view.live_rows != body.live_rows:
            refuse(INCONSISTENT, f"{view.live_rows} live rows, {body.live_rows} were saved")
        return Saved(body.meta, view, arrays)

    def _plan_array(self, array: SavedArray) -> Array:
        """Make room for an array of the ledger."""
        if array.dtype not in DTYPES:
            refuse(INCONSISTENT, f"an array of type {array.dtype} is not expected")
        return self._plan(array, array.dtype, array.shape)

    def _plan(self, array: SavedArray, dtype: str, shape: tuple[int, ...]) -> Array:
        """Make room for an array of this type and shape."""
        _check_array(array, dtype, shape)
        memory: Array = np.empty(shape, dtype)
        self._plan_windows(array, [memory])
        return memory

    def _plan_windows(self, array: SavedArray, windows: Windows) -> None:
        self._plans += plan_reading(array, windows)

    def _plan_ids(self, array: SavedArray, rows: int) -> Array:
        dtype = no_ids(self._body.id_kind).dtype.str
        if self._body.id_kind is IdKind.TEXT:
            width = _TEXTS.fullmatch(array.dtype)
            dtype = array.dtype if width and int(width[1]) <= LONGEST_ID_BYTES else dtype
        return self._plan(array, dtype, (rows,))

    def _plan_segment(self, segment: SavedSegment) -> tuple[SavedSegment, Store, int, Array, Array]:
        """Make room for a segment. What its store is made of is read at once; it is small."""
        ids = self._plan_ids(segment.ids, segment.rows)
        dead = self._plan(segment.dead, "|b1", (segment.rows,))
        spec = _choose_spec(segment, self._spec, self._body.fallback)
        small = self._read_small({name: array for name, array in segment.arrays.items() if name in _SMALL}, spec)
        large = {name: array for name, array in segment.arrays.items() if name not in _SMALL}
        for array in large.values():
            _check_array(array, array.dtype, array.shape)
        trained = Trained(small.get("centroids"), small.get("table"))
        _check_large(large, spec, segment.rows)
        neighbors = large["neighbors"].shape[0] if "neighbors" in large else 0
        store = allocate_store(spec, trained, segment.rows, neighbors, small.get("sizes"))
        parts = store.take_apart()
        if parts.keys() != segment.arrays.keys():
            refuse(INCONSISTENT, f"a segment of type {spec.type} has the parts {sorted(segment.arrays)}")
        for name, array in large.items():
            self._plan_windows(array, parts[name])
        return segment, store, int(small["entry"][0]) if "entry" in small else -1, ids, dead

    def _read_small(self, arrays: Mapping[str, SavedArray], spec: IndexSpec) -> dict[str, Array]:
        known = {
            "table": ("<f4", (2, spec.dimension)),
            "centroids": ("<f4", (spec.ivf.nlist, spec.dimension)),
            "sizes": ("<i8", (spec.ivf.nlist,)),
            "entry": ("<i8", (1,)),
        }
        plans, memory = self._plans, {}
        self._plans = []
        for name, array in arrays.items():
            memory[name] = self._plan(array, *known[name])
        read_files(self._folder, self._plans, 1)
        self._plans = plans
        return memory

    def _plan_delta(self) -> tuple[Array, Array, Array]:
        delta = self._body.delta
        ids = self._plan_ids(delta.ids, delta.rows)
        codes = self._plan(delta.codes, "<f4", (delta.rows, self._spec.dimension))
        return ids, codes, self._plan(delta.dead, "|b1", (delta.rows,))


def _check_identity(body: Body, expected: Expected) -> None:
    spec, wanted = body.spec, expected.spec
    found: dict[str, tuple[object, object]] = {
        "name": (expected.name, body.meta.name),
        "uid": (expected.uid, body.meta.uid),
        "dimension": (wanted.dimension, spec.dimension),
        "metric": (wanted.metric, spec.metric),
        "type": (wanted.type, spec.type),
        "quantization": (wanted.quantization, spec.quantization),
        "identity": (expected.identity_hash, body.meta.identity_hash),
    }
    if wanted.type is IndexType.HNSW:
        found["m"] = (wanted.hnsw.m, spec.hnsw.m)
        found["efConstruction"] = (wanted.hnsw.ef_construction, spec.hnsw.ef_construction)
    if wanted.type is IndexType.IVFFLAT:
        found["nlist"] = (wanted.ivf.nlist, spec.ivf.nlist)
    if expected.digest_spec is not None:
        found["digest spec"] = (expected.digest_spec, body.meta.digest_spec)
    for what, (want, got) in found.items():
        if want != got:
            refuse(WRONG_INDEX, f"the saved index is another one: expected {what} {want}, got {got}")


def _check_array(array: SavedArray, dtype: str, shape: tuple[int, ...]) -> None:
    """Raise SnapshotError unless an array has this type and shape, and files of as many bytes: what is on disk bounds what is asked for."""
    name = array.files[0].name if array.files else "an array without files"
    if array.dtype != dtype:
        refuse(INCONSISTENT, f"{name}: expected type {dtype}, got {array.dtype}")
    if array.shape != shape or any(length < 0 for length in shape):
        refuse(INCONSISTENT, f"{name}: expected shape {shape}, got {array.shape}")
    size = sum(file.bytes for file in array.files)
    if math.prod(shape) * np.dtype(dtype).itemsize != size:
        refuse(INCONSISTENT, f"{name}: {size} bytes are no array of shape {shape}")


def _choose_spec(segment: SavedSegment, spec: IndexSpec, fallback: str) -> IndexSpec:
    """Return the spec of one segment: that of the index, or the exact one where it falls back to that."""
    if (segment.type, segment.quantization) == (spec.type, spec.quantization):
        return spec
    if not fallback or (segment.type, segment.quantization) != (IndexType.FLAT, Quantization.NONE):
        refuse(INCONSISTENT, f"a segment of type {segment.type} with quantization {segment.quantization} is not expected")
    return exact_spec(spec)


def _check_large(arrays: Mapping[str, SavedArray], spec: IndexSpec, rows: int) -> None:
    width = spec.dimension * (1 if spec.quantization is Quantization.SQ8 else 4)
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {"codes": ("|u1", (rows, width))}
    if spec.type is IndexType.HNSW:
        links = arrays["neighbors"].shape[:1] if "neighbors" in arrays else (0,)
        wanted |= {"levels": ("<i4", (rows,)), "neighbors": ("<i4", links)}
    elif spec.type is IndexType.IVFFLAT:
        wanted |= {"rows": ("<i8", (rows,))}
    if arrays.keys() != wanted.keys():
        refuse(INCONSISTENT, f"a segment of type {spec.type} has the parts {sorted(arrays)}")
    for name, array in arrays.items():
        _check_array(array, *wanted[name])


def _finish_segment(segment: SavedSegment, store: Store, entry: int, ids: Array, dead: Array) -> Segment:
    _check_flags(dead, segment.dead_rows)
    finish_store(store, entry)
    return make_segment(store, ids, dead, segment.token)


def _finish_delta(spec: IndexSpec, body: Body, ids: Array, codes: Array, dead: Array) -> Delta:
    _check_flags(dead, body.delta.dead_rows)
    return make_delta(spec.dimension, body.id_kind, ids, codes, dead)


def _check_flags(flags: Array, raised: int) -> None:
    """Refuse any byte but 0 and 1, which would count otherwise in each use."""
    if flags.size and int(flags.view(np.uint8).max()) > 1:
        refuse(INCONSISTENT, "a dead mark is neither 0 nor 1")
    if int(flags.sum()) != raised:
        refuse(INCONSISTENT, f"expected {raised} dead rows, got {int(flags.sum())}")
