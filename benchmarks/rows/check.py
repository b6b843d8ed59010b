"""What it costs to see that nothing changed: a whole clean cycle, against counting the rows and against md5 on both sides."""

from benchmarks import data
from benchmarks.figures import at_most, make_ratio
from benchmarks.measure import Bench
from benchmarks.naive import compare_md5, count_by_scan
from benchmarks.subjects import plain, proven_flat

NAME = "check"
COUNT = "count(*) by sequential scan"
NAIVE = "md5 of each row on both sides"
STAMPS = "clean cycle, stamps"
STAMPS_ALONE = "stamps alone"


def run(bench: Bench) -> None:
    """Measure count(*), the naive check, and clean cycles."""
    subject = plain(bench, "Flat")
    belief = proven_flat(bench, subject, data.PLAIN)
    ids, vectors = data.live_rows(bench.rows)
    measured = bench.measure_in_turn(
        NAME,
        {
            COUNT: lambda: count_by_scan(bench.server, data.PLAIN),
            NAIVE: lambda: compare_md5(bench.server, ids, vectors),
            STAMPS: lambda: subject.prove_clean(belief),
            STAMPS_ALONE: lambda: subject.read_totals(belief),
        },
    )
    bench.ratios += [
        make_ratio(f"{STAMPS} / {COUNT}", measured[STAMPS], measured[COUNT], at_most(3)),
        make_ratio(f"{STAMPS_ALONE} / {COUNT}", measured[STAMPS_ALONE], measured[COUNT]),
        make_ratio(f"{NAIVE} / {STAMPS}", measured[NAIVE], measured[STAMPS]),
    ]
