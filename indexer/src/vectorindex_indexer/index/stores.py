"""FAISS objects that hold the rows of one segment: how they are filled, searched, read byte by byte, and taken apart for saving.

Rows are numbered from 0 in the order they were added. A store is filled by one thread, and never changed once it is searched.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.config import IndexSpec, IndexType, Metric, Quantization
from vectorindex_indexer.index.codec import Codec, set_table
from vectorindex_indexer.index.encoding import Bytes, Flags, Floats, Positions, Words, digest_bytes

_faiss: Any = faiss  # its own type stubs lack most of what it exports

Windows: TypeAlias = Sequence[NDArray[Any]]  # pieces of memory that follow each other in a file

WALK_ROWS: Final = 8192  # rows in one step of a walk
_GRAPH_SLACK: Final = 1.1  # links that are reserved, against those that the lowest level of the expected rows needs


@dataclass(frozen=True, eq=False)
class Trained:
    """What was learnt from a sample before rows can be added; None where nothing has to be.

    `centroids` is (nlist, d), the middles of an IVF index's lists; `table` belongs to SQ8, see `Codec`.
    """

    centroids: Floats | None = None
    table: Floats | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was learnt."""
        return self.centroids is None and self.table is None


class StoreError(ValueError):
    """Memory of FAISS, or what was saved of it, is not what a store of this kind can be."""


class Store(ABC):
    """The rows of one segment. `spec` tells type, metric and quantization; it is not always that of the whole index."""

    def __init__(self, spec: IndexSpec, trained: Trained, index: Any) -> None:
        self.spec = spec
        self.trained = trained
        self.codec = Codec(spec.dimension, trained.table)
        self.index = index

    @property
    def rows(self) -> int:
        """How many rows FAISS holds."""
        return int(self.index.ntotal)

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Memory taken, about."""

    @abstractmethod
    def reserve(self, rows: int) -> None:
        """Make room for so many rows, so that adding them doesn't move what is there already."""

    @abstractmethod
    def foretell(self, codes: Floats) -> Words:
        """Return the code digests that these rows would have here, taken from the input and not from what FAISS makes of it."""

    @abstractmethod
    def add(self, codes: Floats) -> Words:
        """Add rows and return their code digests, as they were foretold."""

    @abstractmethod
    def walk(self) -> Iterator[tuple[Positions, Words]]:
        """Give all rows as FAISS holds them now, a row as often as it is there, with code digests made from FAISS' own memory."""

    @abstractmethod
    def digest(self, rows: Positions) -> tuple[Positions, Words]:
        """Return those of `rows` that FAISS holds in their places, and their code digests."""

    @abstractmethod
    def read(self, rows: Positions) -> Bytes:
        """Return the stored bytes of rows, (m, width)."""

    @abstractmethod
    def search_live(self, queries: Floats, width: int, live: Any) -> Positions:
        """Return (q, width): the best rows that the selector `live` lets through, by looking at every row; -1 where there is none."""

    @abstractmethod
    def take_apart(self) -> dict[str, Windows]:
        """Return what has to be saved, as windows into FAISS' memory."""

    def decode(self, rows: Positions) -> NDArray[np.float64]:
        """Return the vectors of rows, (m, d), as scores are computed from them."""
        return self.codec.decode(self.read(rows))

    def check(self) -> None:  # noqa: B027 - nothing to check where rows only follow each other
        """Raise StoreError where parts that were put together again don't fit; FAISS would read beyond its memory."""


class FlatStore(Store):
    """All rows behind each other; searched by looking at each."""

    @property
    def _storage(self) -> Any:
        return self.index

    @property
    def stored(self) -> Bytes:
        """(rows, width): FAISS' own memory, not copied. Don't keep it longer than the store."""
        storage = self._storage
        rows, size = int(storage.ntotal), int(storage.codes.size())
        if size != rows * self.codec.width:
            raise StoreError(f"expected {rows} vectors of {self.codec.width} bytes in FAISS, got {size} bytes")
        stored: Bytes = _look_into(storage.codes, size).reshape(rows, self.codec.width)
        return stored

    @property
    def bytes(self) -> int:
        """Memory taken, about."""
        return int(self._storage.codes.size())

    def reserve(self, rows: int) -> None:
        """Make room for so many rows."""
        codes = self._storage.codes
        if not codes.size():  # growing and shrinking leaves the room behind
            codes.resize(rows * self.codec.width)
            codes.resize(0)

    def foretell(self, codes: Floats) -> Words:
        """Return the code digests that these rows would have here."""
        return self.codec.digest(self.codec.encode(codes))

    def add(self, codes: Floats) -> Words:
        """Add rows and return their code digests."""
        stored = self.codec.encode(codes)
        digests = self.codec.digest(stored)
        if len(stored):
            self.index.add_sa_codes(stored)
        return digests

    def walk(self) -> Iterator[tuple[Positions, Words]]:
        """Give all rows as FAISS holds them now."""
        stored = self.stored
        for start in range(0, len(stored), WALK_ROWS):
            block = stored[start : start + WALK_ROWS]
            yield np.arange(start, start + len(block)), self.codec.digest(block)

    def digest(self, rows: Positions) -> tuple[Positions, Words]:
        """Return the code digests of rows."""
        return rows, _digest_in_steps(self.codec, self.stored, rows)

    def read(self, rows: Positions) -> Bytes:
        """Return the stored bytes of rows."""
        return self.stored[rows]

    def search(self, queries: Floats, width: int) -> tuple[Floats, Positions]:
        """Return distances and rows, (q, width) each, as FAISS knows them; dead rows are among them."""
        distances, rows = self.index.search(queries, width)
        return distances, _keep_valid(rows, self.rows)

    def search_live(self, queries: Floats, width: int, live: Any) -> Positions:
        """Return the best live rows by looking at every row."""
        _, rows = self._storage.search(queries, width, params=_faiss.SearchParameters(sel=live))
        return _keep_valid(rows, self.rows)

    def take_apart(self) -> dict[str, Windows]:
        """Return what has to be saved."""
        return {"codes": [self.stored], **_trained_windows(self.trained)}


class GraphStore(FlatStore):
    """All rows behind each other, and a graph (HNSW) that leads from neighbour to neighbour."""

    @cached_property
    def _storage(self) -> Any:
        return _faiss.downcast_index(self.index.storage)

    @property
    def bytes(self) -> int:
        """Memory taken, about."""
        hnsw = self.index.hnsw
        return super().bytes + int(hnsw.neighbors.size() * 4 + hnsw.offsets.size() * 8 + hnsw.levels.size() * 4)

    def reserve(self, rows: int) -> None:
        """Make room for so many rows and their links."""
        super().reserve(rows)
        neighbors = self.index.hnsw.neighbors
        if not neighbors.size():
            neighbors.resize(int(rows * 2 * self.spec.hnsw.m * _GRAPH_SLACK))
            neighbors.resize(0)

    def add(self, codes: Floats) -> Words:
        """Add rows to the graph and return their code digests."""
        digests = self.codec.digest(self.codec.encode(codes))
        if len(codes):
            self.index.add(np.ascontiguousarray(codes, np.float32))
        return digests

    def search_graph(self, queries: Floats, width: int, effort: int) -> Positions:
        """Return (q, width): the best rows that a walk of this effort comes by, -1 where there is none; dead rows are among them."""
        parameters = _faiss.SearchParametersHNSW(efSearch=effort)
        _, rows = self.index.search(queries, width, params=parameters)
        return _keep_valid(rows, self.rows)

    def take_apart(self) -> dict[str, Windows]:
        """Return what has to be saved."""
        hnsw = self.index.hnsw
        return {
            **super().take_apart(),
            "levels": [_look_into(hnsw.levels, hnsw.levels.size())],
            "neighbors": [_look_into(hnsw.neighbors, hnsw.neighbors.size())],
            "entry": [np.array([hnsw.entry_point], np.int64)],
        }

    def check(self) -> None:
        """Raise StoreError for links that lead out of the graph, or to a level that a row is not on."""
        hnsw, rows = self.index.hnsw, self.rows
        levels = _look_into(hnsw.levels, hnsw.levels.size()).astype(np.int64)
        neighbors = _look_into(hnsw.neighbors, hnsw.neighbors.size())
        offsets = _look_into(hnsw.offsets, hnsw.offsets.size()).astype(np.int64)
        starts = _level_starts(hnsw)
        if rows and (neighbors.size == 0 or int(neighbors.min()) < -1 or int(neighbors.max()) >= rows):
            raise StoreError("a link of the graph leads to no row")
        for level in range(1, int(levels.max(initial=1))):
            nodes = np.flatnonzero(levels > level)
            links = neighbors[(offsets[nodes][:, None] + np.arange(starts[level], starts[level + 1])).reshape(-1)]
            if (levels[links[links >= 0]] <= level).any():
                raise StoreError("a link of the graph leads to a row that is not on its level")


class ListStore(Store):
    """Rows in lists (IVF), each around one centroid; a search reads the lists nearest to the query."""

    @property
    def _lists(self) -> Any:
        return _faiss.downcast_InvertedLists(self.index.invlists)

    @property
    def lists(self) -> int:
        """How many lists there are."""
        return int(self.index.nlist)

    @property
    def bytes(self) -> int:
        """Memory taken, about."""
        centroids = self.trained.centroids
        return self.rows * (self.codec.width + 8 + 8) + (0 if centroids is None else centroids.nbytes)

    def reserve(self, rows: int) -> None:
        """Do nothing: how long each list becomes isn't known before."""

    def foretell(self, codes: Floats) -> Words:
        """Return the code digests that these rows would have here; they tell the list, too."""
        codes = np.ascontiguousarray(codes, np.float32)
        return self._digest_in(self._choose(codes), codes)

    def add(self, codes: Floats) -> Words:
        """Put rows into their lists and return their code digests."""
        codes = np.ascontiguousarray(codes, np.float32)
        if not len(codes):
            return np.empty(0, np.uint64)
        chosen = self._choose(codes)
        digests = self._digest_in(chosen, codes)
        rows = np.arange(self.rows, self.rows + len(codes), dtype=np.int64)
        pointer = _faiss.swig_ptr
        self.index.add_core(len(codes), pointer(codes), pointer(rows), pointer(chosen))
        return digests

    def walk(self) -> Iterator[tuple[Positions, Words]]:
        """Give all rows as the lists hold them now; entries for rows that can't be are left out."""
        salts = self._make_salts()
        for number, (rows, stored) in enumerate(zip(self._row_windows(), self._code_windows(), strict=True)):
            if rows.size:
                digests = digest_bytes(stored, salts[number : number + 1] + self.codec.salt)
                valid = (rows >= 0) & (rows < self.rows)
                yield rows[valid], digests[valid]

    def digest(self, rows: Positions) -> tuple[Positions, Words]:
        """Return those of `rows` that are still in their lists, and their code digests."""
        salts = self._make_salts()
        held, lists, offsets = self._find(rows)
        stored = self._gather(lists, offsets)
        return held, digest_bytes(stored, salts[lists] + self.codec.salt)

    def read(self, rows: Positions) -> Bytes:
        """Return the stored bytes of rows, zeros for a row that is in no list."""
        stored = np.zeros((rows.size, self.codec.width), np.uint8)
        place = self._places[rows]
        known = np.flatnonzero(place >= 0)
        stored[known] = self._gather(place[known] >> 32, place[known] & 0xFFFFFFFF)
        return stored

    def list_of(self, rows: Positions) -> Positions:
        """Return the list each row was put into, -1 for none."""
        return np.where(self._places[rows] < 0, -1, self._places[rows] >> 32)

    @cached_property
    def sizes(self) -> Positions:
        """(lists,): how many rows each list holds."""
        return np.array([self._lists.list_size(number) for number in range(self.lists)], np.int64)

    def rank_lists(self, queries: Floats, probes: int) -> tuple[Floats, Positions]:
        """Return distances and numbers of the lists nearest to each query, (q, probes)."""
        distances, lists = self.index.quantizer.search(queries, probes)
        return distances, lists

    def search_lists(self, queries: Floats, width: int, ranked: tuple[Floats, Positions], live: Any | None) -> Positions:
        """Return (q, width): the best rows in the given lists that the selector lets through, -1 where there is none."""
        distances, lists = (np.ascontiguousarray(part) for part in ranked)
        rows = np.empty((len(queries), width), np.int64)
        scores = np.empty((len(queries), width), np.float32)
        parameters = _faiss.SearchParametersIVF(nprobe=lists.shape[1], **({} if live is None else {"sel": live}))
        pointer = _faiss.swig_ptr
        self.index.search_preassigned_c(
            *(len(queries), pointer(queries), width, pointer(lists), pointer(distances), pointer(scores), pointer(rows)), False, parameters
        )
        return _keep_valid(rows, self.rows)

    def search_live(self, queries: Floats, width: int, live: Any) -> Positions:
        """Return the best live rows by looking at every row."""
        return self.search_lists(queries, width, self.rank_lists(queries, self.lists), live)

    def take_apart(self) -> dict[str, Windows]:
        """Return what has to be saved; the rows of the lists follow each other."""
        return {
            "sizes": [self.sizes],
            "rows": list(self._row_windows()),
            "codes": list(self._code_windows()),
            **_trained_windows(self.trained),
        }

    def check(self) -> None:
        """Raise StoreError unless each row is in exactly one list."""
        if self._places.size and int(self._places.min()) < 0:
            raise StoreError("a row is in no list")

    def _choose(self, codes: Floats) -> Positions:
        """Return the list that each row belongs into."""
        if not len(codes):
            return np.empty(0, np.int64)
        chosen: Positions = self.index.quantizer.search(codes, 1)[1][:, 0].astype(np.int64)
        chosen[chosen < 0] = 0  # no centroid is nearest when all distances are infinite
        return chosen

    def _digest_in(self, lists: Positions, codes: Floats) -> Words:
        return digest_bytes(self.codec.encode(codes), self._salts[lists] + self.codec.salt)

    def _row_windows(self) -> Iterator[Positions]:
        lists = self._lists
        for number in range(lists.nlist):
            size = lists.list_size(number)
            yield _faiss.rev_swig_ptr(lists.get_ids(number), size) if size else np.empty(0, np.int64)

    def _code_windows(self) -> Iterator[Bytes]:
        lists, width = self._lists, self.codec.width
        for number in range(lists.nlist):
            size = lists.list_size(number)
            raw = _faiss.rev_swig_ptr(lists.get_codes(number), size * width) if size else np.empty(0, np.uint8)
            yield raw.reshape(size, width)

    @cached_property
    def _places(self) -> Positions:
        """Where each row lies, as list << 32 | offset, -1 for nowhere; taken once, when the store is complete."""
        places = np.full(self.rows, -1, np.int64)
        for number, rows in enumerate(self._row_windows()):
            valid = (rows >= 0) & (rows < self.rows)
            places[rows[valid]] = (number << 32) | np.flatnonzero(valid)
        return places

    def _find(self, rows: Positions) -> tuple[Positions, Positions, Positions]:
        """Return those of `rows` whose place still names them, and list and offset of each."""
        place = self._places[rows]
        rows, place = rows[place >= 0], place[place >= 0]
        lists, offsets = place >> 32, place & 0xFFFFFFFF
        held = np.zeros(rows.size, np.bool_)
        for number, members in _group(lists):
            held[members] = self._windows[0][number][offsets[members]] == rows[members]
        return rows[held], lists[held], offsets[held]

    def _gather(self, lists: Positions, offsets: Positions) -> Bytes:
        stored = np.empty((lists.size, self.codec.width), np.uint8)
        for number, members in _group(lists):
            stored[members] = self._windows[1][number][offsets[members]]
        return stored

    @cached_property
    def _windows(self) -> tuple[list[Positions], list[Bytes]]:
        return list(self._row_windows()), list(self._code_windows())

    @cached_property
    def _salts(self) -> Words:
        return self._make_salts()

    def _make_salts(self) -> Words:
        """Return what each list adds to the digests of its rows, from the centroids as FAISS holds them now."""
        quantizer = _faiss.downcast_index(self.index.quantizer)
        size = quantizer.codes.size()
        if size != self.lists * self.spec.dimension * 4:
            raise StoreError(f"expected {self.lists} centroids of dimension {self.spec.dimension}, got {size} bytes")
        return digest_bytes(_look_into(quantizer.codes, size).reshape(self.lists, -1), np.arange(1, self.lists + 1, dtype=np.uint64))


def exact_spec(spec: IndexSpec) -> IndexSpec:
    """Return the spec of an exact index of the same vectors: what serves where there are too few rows to train."""
    return IndexSpec(spec.dimension, spec.metric, IndexType.FLAT)


def make_store(spec: IndexSpec, trained: Trained | None = None) -> Store:
    """Return a store without rows. Raises StoreError when what was learnt doesn't fit the spec."""
    trained = trained or Trained()
    if (trained.table is None) != (spec.quantization is Quantization.NONE) or (trained.centroids is None) != (
        spec.type is not IndexType.IVFFLAT
    ):
        raise StoreError(f"an index of type {spec.type} with quantization {spec.quantization} was trained for another one")
    dimension = spec.dimension
    if trained.table is not None and trained.table.shape != (2, dimension):
        raise StoreError(f"expected a table of shape (2, {dimension}), got {trained.table.shape}")
    metric = _faiss.METRIC_L2 if spec.metric is Metric.L2 else _faiss.METRIC_INNER_PRODUCT
    eight_bits = _faiss.ScalarQuantizer.QT_8bit
    quantized = trained.table is not None
    if spec.type is IndexType.FLAT:
        index = _faiss.IndexScalarQuantizer(dimension, eight_bits, metric) if quantized else _faiss.IndexFlat(dimension, metric)
        store: Store = FlatStore(spec, trained, index)
    elif spec.type is IndexType.HNSW:
        links = spec.hnsw.m
        index = _faiss.IndexHNSWSQ(dimension, eight_bits, links, metric) if quantized else _faiss.IndexHNSWFlat(dimension, links, metric)
        index.hnsw.efConstruction = spec.hnsw.ef_construction
        store = GraphStore(spec, trained, index)
    else:
        store = ListStore(spec, trained, _make_lists(spec, trained, metric))
    if quantized:
        storage = _faiss.downcast_index(store.index.storage) if spec.type is IndexType.HNSW else store.index
        set_table(storage, store.codec)
        store.index.is_trained = True
    return store


def _make_lists(spec: IndexSpec, trained: Trained, metric: int) -> Any:
    centroids = trained.centroids
    if centroids is None or centroids.ndim != 2 or centroids.shape[1] != spec.dimension or not len(centroids):
        raise StoreError(f"expected centroids of dimension {spec.dimension}")
    dimension, lists = spec.dimension, len(centroids)
    quantizer = _faiss.IndexFlat(dimension, metric)
    quantizer.add(np.ascontiguousarray(centroids, np.float32))
    if trained.table is None:
        index = _faiss.IndexIVFFlat(quantizer, dimension, lists, metric)
    else:  # not by residual: a row's bytes are then the same in every list, and need no centroid to be read
        index = _faiss.IndexIVFScalarQuantizer(quantizer, dimension, lists, _faiss.ScalarQuantizer.QT_8bit, metric, False)
    index.is_trained = True
    return index


# --- put together again ---


def allocate_store(spec: IndexSpec, trained: Trained, rows: int, links: int, sizes: Positions | None) -> Store:
    """Return a store with room for saved rows, whose windows are to be filled by the caller; then `finish_store` must be called.

    `links` tells how many a graph has, `sizes` how long each list of an IVF index is.
    """
    store = make_store(spec, trained)
    if isinstance(store, ListStore):
        if sizes is None or sizes.shape != (store.lists,) or int(sizes.min(initial=0)) < 0 or int(sizes.sum()) != rows:
            raise StoreError(f"the lists don't hold {rows} rows together")
        lists = _faiss.downcast_InvertedLists(store.index.invlists)
        for number, size in enumerate(sizes.tolist()):
            lists.resize(number, size)
        store.index.ntotal = rows
        return store
    storage = store.index
    if isinstance(store, GraphStore):
        storage = _faiss.downcast_index(store.index.storage)
        store.index.hnsw.levels.resize(rows)
        store.index.hnsw.neighbors.resize(links)
    storage.codes.resize(rows * store.codec.width)
    storage.ntotal = store.index.ntotal = rows
    return store


def finish_store(store: Store, entry: int) -> None:
    """Derive what wasn't saved, once the windows are filled. Raises StoreError where the parts don't fit each other."""
    if isinstance(store, GraphStore):
        _finish_graph(store, entry)
    store.check()


def _finish_graph(store: GraphStore, entry: int) -> None:
    hnsw, rows = store.index.hnsw, store.rows
    starts = _level_starts(hnsw)
    levels = _look_into(hnsw.levels, rows).astype(np.int64)
    if rows and (int(levels.min()) < 1 or int(levels.max()) >= starts.size):
        raise StoreError("a row of the graph is on no level")
    if not (0 <= entry < rows if rows else entry == -1) or (rows and levels[entry] != levels.max()):
        raise StoreError("the graph is not entered at its top")
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(starts[levels])])
    if offsets[-1] != hnsw.neighbors.size():
        raise StoreError(f"expected {offsets[-1]} links in the graph, got {hnsw.neighbors.size()}")
    _faiss.copy_array_to_vector(offsets.astype(np.uint64), hnsw.offsets)
    hnsw.entry_point = entry
    hnsw.max_level = int(levels.max(initial=0)) - 1


def _level_starts(hnsw: Any) -> Positions:
    """Return where the links of each level begin within those of a row."""
    starts: Positions = _faiss.vector_to_array(hnsw.cum_nneighbor_per_level).astype(np.int64)
    return starts


# --- memory ---


def _look_into(vector: Any, size: int) -> Any:
    """Return the numbers in a vector of FAISS, not copied."""
    if not size:
        return np.empty(0, _DTYPES.get(type(vector).__name__, np.uint8))
    return _faiss.rev_swig_ptr(vector.data(), size)


_DTYPES: Final = {"MaybeOwnedVectorInt32": np.int32, "Int32Vector": np.int32, "UInt64Vector": np.uint64}


def _trained_windows(trained: Trained) -> dict[str, Windows]:
    parts = {"table": trained.table, "centroids": trained.centroids}
    return {name: [part] for name, part in parts.items() if part is not None}


def _digest_in_steps(codec: Codec, stored: Bytes, rows: Positions) -> Words:
    digests = np.empty(rows.size, np.uint64)
    for start in range(0, rows.size, WALK_ROWS):
        digests[start : start + WALK_ROWS] = codec.digest(stored[rows[start : start + WALK_ROWS]])
    return digests


def _keep_valid(rows: Positions, count: int) -> Positions:
    """Return rows with -1 in place of those that can't be: damage in FAISS must not become a wrong place in our arrays."""
    return np.where((rows < 0) | (rows >= count), -1, rows)


def _group(numbers: Positions) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Give each number that occurs with the places where it does."""
    if not numbers.size:
        return
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    for start, end in zip(starts, np.r_[starts[1:], numbers.size], strict=True):
        yield int(ordered[start]), order[start:end]


def live_selector(live: Flags) -> Any:
    """Return what makes FAISS look at live rows only."""
    return _faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))
