"""Whether a measurement fits this machine, asked before anything is filled: a disk that runs full in the middle helps nobody."""

import shutil
from pathlib import Path
from typing import Final

from benchmarks.figures import format_rows

ROW_BYTES: Final = 1_640  # of a table on disk, its pages included
VECTOR_BYTES: Final = 384 * 4
BASE_BYTES: Final = 2**30  # the server's cache, and programs
DISK_BASE_BYTES: Final = 2**29  # an empty server and its log

# How many times the vectors are held at once, by row of the benchmark: ours, those made for comparison, and what a scan needs of the cache.
MEMORY_FACTORS: Final = {"load": 3, "memory": 4, "check": 4, "sweep": 3, "repair": 5, "build": 5, "restart": 6}


def find_lack(benches: tuple[str, ...], rows: int, free_disk_bytes: int, free_memory_bytes: int) -> str | None:
    """Return a sentence when disk or memory is too small, else None."""
    tables = 2 * rows * ROW_BYTES  # with and without digest columns
    disk = DISK_BASE_BYTES + tables + (2 * rows * VECTOR_BYTES if "restart" in benches else 0)
    memory = BASE_BYTES + max(MEMORY_FACTORS[bench] for bench in benches) * rows * VECTOR_BYTES
    for what, needed, free in (("disk", disk, free_disk_bytes), ("memory", memory, free_memory_bytes)):
        if needed > free:
            return f"{format_rows(rows)} rows need about {_gib(needed)} of {what}, {_gib(free)} are free; take fewer with --rows"
    return None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def free_disk(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def used_disk(folder: Path) -> int:
    """Return the bytes that the files of a folder take already."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0


def free_memory() -> int:
    """Return the bytes of memory that programs can still get."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise LookupError("the kernel does not tell how much memory is available")
