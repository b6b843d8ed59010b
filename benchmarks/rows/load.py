"""How fast all live rows come into arrays, against psql that throws the same rows away."""

import numpy as np

from benchmarks import data
from benchmarks.figures import at_least, make_ratio
from benchmarks.measure import Bench
from benchmarks.product import Target, expect
from benchmarks.subjects import plain

NAME = "load"
PSQL = "psql COPY (id, vector) >/dev/null"
BARE = "load without digests"
DIGESTED = "load with row digests"

JUDGED_FROM = 100_000  # a connection costs little beside as many rows

COPY = f"COPY (SELECT id, vector FROM {data.PLAIN} WHERE model = '{data.MODEL}' AND NOT deleted) TO STDOUT (FORMAT binary)"  # noqa: S608


def run(bench: Bench) -> None:
    """Measure psql, the load without digests, and the load with them."""
    subject = plain(bench, "Flat")
    ids, vectors = data.live_rows(bench.rows)
    target = Target(len(ids), data.DIMENSION)
    measured = bench.measure_in_turn(
        NAME,
        {
            PSQL: lambda: bench.server.run_psql(COPY),
            BARE: lambda: subject.stream(target, digests=False),
            DIGESTED: lambda: subject.stream(target, digests=True),
        },
    )
    expect(np.array_equal(target.ids, ids) and np.array_equal(target.vectors, vectors), "what was loaded is not what was made")
    for name, bar in ((BARE, at_least(0.5, from_rows=JUDGED_FROM)), (DIGESTED, at_least(0.25, from_rows=JUDGED_FROM))):
        bench.ratios.append(make_ratio(f"speed of {name} / psql", measured[PSQL], measured[name], bar))
