"""What it costs to see that nothing changed: a whole clean cycle, against counting the rows and against md5 on both sides."""

from benchmarks import data
from benchmarks.figures import at_most, make_ratio
from benchmarks.measure import Bench
from benchmarks.naive import compare_md5, count_by_scan
from benchmarks.subjects import digested, digested_belief, plain, plain_belief

NAME = "check"
COUNT = "count(*) by sequential scan"
COUNT_DIGESTED = "count(*) by sequential scan, table with digest columns"
NAIVE = "md5 of each row on both sides"
STAMPS = "clean cycle, stamps"
STAMPS_ALONE = "stamps alone"
STORED = "clean cycle, digest columns"
STORED_ALONE = "digest columns alone"


def run(bench: Bench) -> None:
    """Measure count(*), the naive check, and clean cycles."""
    subject, stored = plain(bench, "Flat"), digested(bench, "Flat")
    belief = plain_belief(bench)
    stored_belief = digested_belief(bench, "Flat", belief)
    ids, vectors = data.live_rows(bench.rows)
    measured = bench.measure_in_turn(
        NAME,
        {
            COUNT: lambda: count_by_scan(bench.server, data.PLAIN),
            STAMPS: lambda: subject.prove_clean(belief),
            STAMPS_ALONE: lambda: subject.read_totals(belief),
            COUNT_DIGESTED: lambda: count_by_scan(bench.server, data.DIGESTED),
            STORED: lambda: stored.prove_clean(stored_belief),
            STORED_ALONE: lambda: stored.read_totals(stored_belief),
            NAIVE: lambda: compare_md5(bench.server, ids, vectors),
        },
    )
    bench.ratios += [
        make_ratio(f"{STAMPS} / {COUNT}", measured[STAMPS], measured[COUNT], at_most(3)),
        make_ratio(f"{STAMPS_ALONE} / {COUNT}", measured[STAMPS_ALONE], measured[COUNT]),
        make_ratio(f"{STORED} / {COUNT}", measured[STORED], measured[COUNT_DIGESTED], at_most(0.7)),
        make_ratio(f"{STORED_ALONE} / {COUNT}", measured[STORED_ALONE], measured[COUNT_DIGESTED]),
        make_ratio(f"{NAIVE} / {STAMPS}", measured[NAIVE], measured[STAMPS]),
        make_ratio(f"{NAIVE} / {STORED}", measured[NAIVE], measured[STORED]),
    ]
