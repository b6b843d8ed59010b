"""Says before a build whether its memory will do: what it needs, what the container's limit leaves. Too little is a reason, not a kill."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vectorindex_indexer import cgroup
from vectorindex_indexer.config import IndexSpec, IndexType, Quantization
from vectorindex_indexer.errors import LoadRefusedError
from vectorindex_indexer.names import ProofReason

MIB: Final = 2**20

_LEDGER_BYTES: Final = 8 + 16 + 8 + 1  # stamp, row digest, code digest, quarantine
_LEDGER_COPIES: Final = 3  # as it was read, joined, and in order
_ENTRY_BYTES: Final = 8 + 1  # order of the ids, dead mark
_LINK_BYTES: Final = 4
_LINK_SLACK: Final = 1.1  # links of the upper levels
_NODE_BYTES: Final = 2 * (8 + 4) + 8 + 4  # offset and level, in arrays that grow by doubling; a lock and visited marks while it is built
_LIST_SLACK: Final = 1.5  # lists grow by doubling, each at its own time
_LIST_ENTRY_BYTES: Final = 8 + 8  # row number in the list, and the place of the row
_CHUNK_ROWS: Final = 50_000
_CHUNK_BYTES: Final = 64 * MIB  # of vectors that are read, encoded or wait to be added at one time
_CHUNKS: Final = 3
_TRAIN_LIST_ROWS: Final = 64  # rows that one cluster is learnt from
_TRAIN_TABLE_ROWS: Final = 20_000  # rows that the bounds of SQ8 are learnt from
_FRAGMENTATION: Final = 1.05
_BASE_BYTES: Final = 16 * MIB  # buffers whose size doesn't depend on the rows


@dataclass(frozen=True)
class Room:
    """A limit on memory and how much of it is taken, in bytes."""

    limit: int
    used: int

    @property
    def left(self) -> int:
        """How much more may be taken."""
        return max(0, self.limit - self.used)


def estimate_build_bytes(spec: IndexSpec, rows: int, id_bytes: int) -> int:
    """Return the memory that loading `rows` rows and building an index of them takes at its peak, beside what the process has now.

    `id_bytes` is the width of one id in memory: 8, 16, or the length of the longest text. Rather too much than too little.
    """
    vectors = rows * spec.dimension * 4
    stored = rows * _code_bytes(spec)
    known = rows * (id_bytes + _ENTRY_BYTES) + rows * _LEDGER_COPIES * (id_bytes + _LEDGER_BYTES)
    chunk = min(vectors, _CHUNK_BYTES, _CHUNK_ROWS * spec.dimension * 4)
    built = stored + known + _structure_bytes(spec, rows, stored) + _CHUNKS * chunk
    trained = 2 * _training_rows(spec, rows) * spec.dimension * 4  # the sample, and the sample encoded; gone before the rows come
    return int(_BASE_BYTES + _FRAGMENTATION * max(built, trained))


def read_room(mount: Path = cgroup.MOUNT, membership: Path = cgroup.MEMBERSHIP) -> Room | None:
    """Return the tightest limit of the process' own cgroup and those above it, and what is taken of it; None without any limit.

    Cached file contents don't count as taken: the kernel gives them up before it kills anybody.
    """
    rooms = [room for folder in cgroup.find_folders(mount, membership, "memory") if (room := _read_room(folder)) is not None]
    return min(rooms, key=lambda room: room.left, default=None)


def check_memory(spec: IndexSpec, rows: int, id_bytes: int, room: Room | None) -> None:
    """Raise LoadRefusedError with both figures when a build of so many rows would not fit into what is left."""
    if room is None:
        return
    needed = estimate_build_bytes(spec, rows, id_bytes)
    if needed <= room.left:
        return
    enough = room.limit + needed - room.left
    raise LoadRefusedError(
        ProofReason.MEMORY_TOO_SMALL,
        f"an index of {rows} rows needs about {_mib(needed)} MiB, the container's limit of {room.limit // MIB} MiB leaves "
        f"{room.left // MIB} MiB; raise pod.resources.limits.memory to at least {_mib(enough)}Mi",
    )


def _code_bytes(spec: IndexSpec) -> int:
    return spec.dimension * (1 if spec.quantization is Quantization.SQ8 else 4)


def _structure_bytes(spec: IndexSpec, rows: int, stored: int) -> float:
    """Return what the index takes beside the vectors it stores."""
    match spec.type:
        case IndexType.FLAT:
            return 0
        case IndexType.HNSW:
            return rows * (2 * spec.hnsw.m * _LINK_BYTES * _LINK_SLACK + _NODE_BYTES)
        case IndexType.IVFFLAT:
            centroids = 2 * spec.ivf.nlist * spec.dimension * 4
            return (_LIST_SLACK - 1) * stored + rows * _LIST_SLACK * _LIST_ENTRY_BYTES + centroids


def _training_rows(spec: IndexSpec, rows: int) -> int:
    lists = _TRAIN_LIST_ROWS * spec.ivf.nlist if spec.type is IndexType.IVFFLAT else 0
    return min(rows, max(lists, _TRAIN_TABLE_ROWS if spec.quantization is Quantization.SQ8 else 0))


def _mib(size: int) -> int:
    """Round up to whole MiB, so that what is asked for is enough."""
    return -(-size // MIB)


def _read_room(folder: Path) -> Room | None:
    """Return limit and use of one cgroup folder, of either version; None where it sets no limit."""
    second = (folder / "memory.max").exists()
    limit = _read_number(folder / ("memory.max" if second else "memory.limit_in_bytes"))
    if limit is None or limit >= 2**62:  # version 1 has a very large number for "none"
        return None
    taken = _read_number(folder / ("memory.current" if second else "memory.usage_in_bytes"))
    if taken is None:
        return Room(limit, _own_bytes())
    return Room(limit, max(0, taken - _cached_bytes(folder / "memory.stat", "" if second else "total_")))


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _cached_bytes(path: Path, prefix: str) -> int:
    try:
        fields = dict(line.split(" ", 1) for line in path.read_text().splitlines())
        return int(fields[f"{prefix}active_file"]) + int(fields[f"{prefix}inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0


def _own_bytes() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
