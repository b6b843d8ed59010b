"""How many threads FAISS may use: what the cgroup's CPU quota allows, for OpenMP knows of cores only."""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss

from vectorindex_indexer import cgroup

_faiss: Any = faiss  # its own type stubs lack most of what it exports
_state = threading.local()


def limit_faiss_threads() -> None:
    """Give FAISS its thread count in the calling thread: OpenMP keeps it per thread, so setting it at start is not enough."""
    if not getattr(_state, "limited", False):
        _faiss.omp_set_num_threads(threads_from_cgroup())
        _state.limited = True


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Give FAISS another thread count in the calling thread for a while."""
    _faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        _faiss.omp_set_num_threads(threads_from_cgroup())
        _state.limited = True


@lru_cache(maxsize=1)
def threads_from_cgroup() -> int:
    """Return how many threads this process may use at once: its CPU quota rounded up, but never more than the cores it may run on."""
    return count_threads(cgroup.MOUNT, cgroup.MEMBERSHIP, len(os.sched_getaffinity(0)))


def count_threads(mount: Path, membership: Path, cores: int) -> int:
    """Return the thread count for a cgroup file system (version 1 or 2), a process' membership file, and the cores it may run on."""
    quotas = [quota for folder in cgroup.find_folders(mount, membership, "cpu") if (quota := _read_quota(folder)) is not None]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def _read_quota(folder: Path) -> float | None:
    """Return the CPU quota set in one cgroup folder, in cores, or None when there is none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (folder / "cpu.cfs_quota_us").read_text().strip(), (folder / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return None
    return int(quota) / int(period) if quota not in ("max", "-1") and int(period) > 0 else None
