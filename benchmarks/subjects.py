"""What the rows of the benchmark share: tables that are filled when first needed, and indexes that are dear to build."""

from pathlib import Path
from typing import Any, Final

from benchmarks import data, product
from benchmarks.figures import Sample
from benchmarks.measure import Bench
from benchmarks.product import Belief, Subject

IVF_ROWS_PER_LIST: Final = 40  # as few as FAISS trains on without a warning
IVF_LISTS: Final = 1024

BUILD_HNSW: Final = "Postgres to index, HNSW"
PROVE_HNSW: Final = "proof of a new HNSW index"
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


def plain_belief(bench: Bench) -> Belief:
    """Return a proven belief of the table without digest columns, with a Flat index."""

    def load() -> Belief:
        bench.say("loading what is to be checked")
        subject = plain(bench, "Flat")
        return subject.prove_clean(subject.load(), whole=True)

    belief: Belief = bench.keep("belief", load)
    return belief


def digested_belief(bench: Bench, kind: str, other: Belief) -> Belief:
    """Return a proven belief of the table with digest columns: its own ledger, and the index of the other table, of the same rows."""

    def load() -> Belief:
        bench.say("loading the table with digest columns")
        return digested(bench, kind).prove_clean(product.with_index_of(digested(bench, "Flat").load(), other), whole=True)

    belief: Belief = bench.keep(f"belief with digest columns, {kind}", load)
    return belief


def loaded_hnsw(bench: Bench) -> tuple[Belief, Sample]:
    """Return an HNSW index of the table without digest columns, and what it took: built once for each size, as it takes minutes."""

    def build() -> tuple[Belief, Sample]:
        beliefs: list[Belief] = []
        subject = plain(bench, "HNSW")
        sample = bench.measure("build", BUILD_HNSW, lambda: beliefs.append(subject.load()))
        return beliefs[0], sample

    built: tuple[Belief, Sample] = bench.keep("HNSW", build)
    return built


def rebuilt_hnsw(bench: Bench) -> tuple[Belief, Sample]:
    """Return that index proven, and what building and proving took together: a rebuild is worth nothing before its proof."""

    def prove() -> tuple[Belief, Sample]:
        loaded, building = loaded_hnsw(bench)
        beliefs: list[Belief] = []
        proving = bench.measure("build", PROVE_HNSW, lambda: beliefs.append(plain(bench, "HNSW").prove_clean(loaded, whole=True)))
        return beliefs[0], building.followed_by(proving, REBUILD)

    proven: tuple[Belief, Sample] = bench.keep("HNSW, proven", prove)
    return proven


def folder_for(bench: Bench, name: str) -> Path:
    """Return a folder of this run."""
    folder = bench.folder / name
    folder.mkdir(exist_ok=True)
    return folder
