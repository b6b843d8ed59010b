"""Says on what was measured: a ratio holds elsewhere only where these are alike."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from vectorindex_indexer.version import VERSION


def describe() -> dict[str, object]:
    """Return machine, versions, and how busy the machine is with other things."""
    processor = f"{_read('/proc/cpuinfo', 'model name')}, {len(os.sched_getaffinity(0))} cores, {_memory_gib():.0f} GiB"
    return {
        "machine": f"{processor}, {platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.1f} processes wanted a core in the minute before",
        "versions": f"indexer {VERSION}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("numpy", "faiss-cpu", "psycopg")),
    }


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _read(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"
