"""Write the tables of docs/sizing.md from the formula by which the indexer refuses builds; a test compares them with what this prints."""

import re
import sys
from pathlib import Path
from typing import Final

from vectorindex_indexer.config import Hnsw, IndexSpec, IndexType, Quantization
from vectorindex_indexer.memory import MIB, estimate_build_bytes

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "sizing.md"
ROWS: Final = {"10k": 10_000, "100k": 100_000, "1M": 1_000_000, "10M": 10_000_000}
DIMENSIONS: Final = (384, 768, 1024, 1536)
MAKES: Final = tuple(
    (type_, quantization) for quantization in Quantization for type_ in (IndexType.FLAT, IndexType.HNSW, IndexType.IVFFLAT)
)
ID_BYTES: Final = 8
PROCESS_BYTES: Final = 256 * MIB  # Python, NumPy, FAISS, and what searches and checks take at a time

_LEDGER_BYTES: Final = 8 + 16 + 8 + 1 + 1  # stamp, row digest, code digest, quarantine, dead mark
_LINK_BYTES: Final = 8 * 1.1  # for each of `m`


def limit_bytes(spec: IndexSpec, rows: int, id_bytes: int = ID_BYTES) -> int:
    """Return a memory limit under which an index serves while the next one is built beside it."""
    return PROCESS_BYTES + 2 * estimate_build_bytes(spec, rows, id_bytes)


def saved_bytes(spec: IndexSpec, rows: int, id_bytes: int = ID_BYTES) -> int:
    """Return what a saved index takes on disk, rather too much."""
    code = spec.dimension * (1 if spec.quantization is Quantization.SQ8 else 4)
    links = {IndexType.FLAT: 0.0, IndexType.HNSW: 4 + _LINK_BYTES * spec.hnsw.m, IndexType.IVFFLAT: 8.0}[spec.type]
    return int(rows * (code + 2 * id_bytes + _LEDGER_BYTES + links))


def render_size(size: float) -> str:
    """Return a size as a manifest takes it, rounded up to two digits that matter."""
    unit, name = (MIB, "Mi") if size < 1000 * MIB else (1024 * MIB, "Gi")
    number = size / unit
    step = 10 if name == "Mi" else 0.1 if number < 10 else 1
    rounded = -(-number // step) * step
    return f"{rounded:.1f}{name}" if step < 1 else f"{rounded:.0f}{name}"


def render_tables() -> dict[str, str]:
    """Return each table by its name: limits of memory, and sizes of volumes for two saved indexes."""
    head = [
        "rows",
        "dimension",
        *(f"`{type_}`" + f" `{quantization}`" * (quantization is not Quantization.NONE) for type_, quantization in MAKES),
    ]
    lines: dict[str, list[str]] = {"memory": [], "disk": []}
    for name, rows in ROWS.items():
        for dimension in DIMENSIONS:
            specs = [IndexSpec(dimension, type=type_, quantization=quantization, hnsw=Hnsw()) for type_, quantization in MAKES]
            for table, cells in (
                ("memory", [limit_bytes(spec, rows) for spec in specs]),
                ("disk", [2 * saved_bytes(spec, rows) for spec in specs]),
            ):
                lines[table].append(f"| {name} | {dimension} | {' | '.join(render_size(cell) for cell in cells)} |")
    top = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return {table: "\n".join([*top, *rows]) for table, rows in lines.items()}


def render_page(page: str) -> str:
    """Return the page with its tables made anew."""
    for name, table in render_tables().items():
        marks = rf"(<!-- made: {name} -->\n).*?(\n<!-- end -->)"
        page, count = re.subn(marks, lambda found, table=table: f"{found[1]}\n{table}\n{found[2]}", page, flags=re.DOTALL)  # type: ignore[misc]
        if count != 1:
            raise LookupError(f"{PAGE.name} has {count} places for the table {name}")
    return page


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
