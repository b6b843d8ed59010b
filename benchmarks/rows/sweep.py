"""What it costs to digest the content of every bucket from the bytes themselves, against md5 of each row."""

from benchmarks.figures import make_ratio
from benchmarks.measure import Bench
from benchmarks.naive import sum_md5
from benchmarks.subjects import plain, plain_belief

NAME = "sweep"
MD5 = "md5 of each row, by Postgres"
SWEEP = "content sweep"


def run(bench: Bench) -> None:
    """Measure both."""
    subject = plain(bench, "Flat")
    belief = plain_belief(bench)
    measured = bench.measure_in_turn(
        NAME,
        {
            MD5: lambda: sum_md5(bench.server, belief.ledger.rows),
            SWEEP: lambda: subject.read_content(belief),
        },
    )
    bench.ratios.append(make_ratio(f"{SWEEP} / {MD5}", measured[SWEEP], measured[MD5]))
