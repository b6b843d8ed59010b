"""What the rows of the benchmark share: tables that are filled when first needed, and indexes that are dear to build."""

from pathlib import Path
from typing import Any, Final

from benchmarks import data
from benchmarks.figures import Sample
from benchmarks.measure import Bench
from benchmarks.product import Belief, Subject

IVF_ROWS_PER_LIST: Final = 40  # as few as FAISS trains on without a warning
IVF_LISTS: Final = 1024

REBUILD: Final = "HNSW rebuild: load, build, prove"


def plain(bench: Bench, kind: str) -> Subject:
    """Return the table without digest columns, for an index of this type."""
    return _subject(bench, data.PLAIN, kind)


def digested(bench: Bench, kind: str) -> Subject:
    """Return the table with digest columns, for an index of this type."""
    return _subject(bench, data.DIGESTED, kind)


def _subject(bench: Bench, table: str, kind: str) -> Subject:
    bench.keep(f"table {table}", lambda: _fill(bench, table))
    folder = bench.folder / f"{table}-{kind}"
    folder.mkdir(exist_ok=True)
    made: Subject = bench.keep(f"{kind} of {table}", lambda: Subject.make(bench.server.address, table, describe(kind, bench.rows), folder))
    return made


def _fill(bench: Bench, table: str) -> bool:
    with bench.server.connect() as connection:
        data.fill(connection, table, bench.rows, bench.say)
    return True


def describe(kind: str, rows: int) -> dict[str, Any]:
    """Return `spec.index` for a type: its defaults, but no more IVF lists than the rows can train."""
    if kind != "IVFFlat":
        return {"type": kind}
    live = int(rows * (1 - 2 * data.DEAD_SHARE))
    return {"type": kind, "ivf": {"nlist": max(1, min(IVF_LISTS, live // IVF_ROWS_PER_LIST))}}


def proven_flat(bench: Bench, subject: Subject, table: str) -> Belief:
    """Return a proven belief with a Flat index; built once for each table."""
    belief: Belief = bench.keep(f"belief of {table}", lambda: subject.prove_clean(subject.load(), whole=True))
    return belief


def rebuilt_hnsw(bench: Bench) -> tuple[Belief, Sample]:
    """Return a proven HNSW index of the table without digest columns, and what it took: measured once, as it takes minutes."""

    def build() -> tuple[Belief, Sample]:
        subject = plain(bench, "HNSW")
        beliefs: list[Belief] = []
        sample = bench.measure("rebuild", REBUILD, lambda: beliefs.append(subject.prove_clean(subject.load(), whole=True)))
        return beliefs[0], sample

    built: tuple[Belief, Sample] = bench.keep("HNSW", build)
    return built


def folder_for(bench: Bench, name: str) -> Path:
    """Return a folder of this run."""
    folder = bench.folder / name
    folder.mkdir(exist_ok=True)
    return folder
