"""Says on what was measured: a ratio holds elsewhere only where these are alike."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from vectorindex_indexer.version import VERSION


def describe() -> dict[str, object]:
    """Return machine and versions."""
    processor = f"{_read('/proc/cpuinfo', 'model name')}, {len(os.sched_getaffinity(0))} cores, {_memory_gib():.0f} GiB"
    return {
        "machine": f"{processor}, {platform.system()} {platform.release()}",
        "versions": f"indexer {VERSION}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("numpy", "faiss-cpu", "psycopg")),
    }


def busy() -> str:
    """Say how many processes wanted a core lately: figures of a shared machine are worth less."""
    return f"{os.getloadavg()[1]:.1f} processes wanted a core on average of five minutes"


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _read(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"
