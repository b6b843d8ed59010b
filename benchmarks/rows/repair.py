"""What it costs to find, fetch, mend and prove drift of 0.1 % of the rows, against building the index anew."""

import numpy as np

from benchmarks import data, product
from benchmarks.figures import at_least, make_ratio
from benchmarks.measure import Bench
from benchmarks.subjects import plain, rebuilt_hnsw

NAME = "repair"
SHARE = 0.001
SCATTERED = "repair of 0.1 % of the index, scattered"
BATCH = "repair of a lost batch of 0.1 %"


def run(bench: Bench) -> None:
    """Plant drift, and measure the cycle that mends it: vectors changed in the index here and there, and rows lost in one place."""
    belief, rebuild = rebuilt_hnsw(bench)
    subject = plain(bench, "HNSW")
    rng = np.random.default_rng(data.SEED)
    count = max(1, int(bench.rows * SHARE))
    scattered = product.spoil_codes(belief, product.choose_ids(belief, count, rng), rng)
    ids, _ = belief.ledger.entries()
    batch = product.lose_rows(belief, ids[len(ids) // 2 :][:count])
    repaired: list[product.Belief] = []
    measured = bench.measure_in_turn(
        NAME,
        {
            SCATTERED: lambda: repaired.append(subject.repair(scattered, count)),
            BATCH: lambda: repaired.append(subject.repair(batch, count)),
        },
    )
    for one in repaired[-2:]:
        product.check_against(one, *data.live_rows(bench.rows))
    for name in (SCATTERED, BATCH):
        bench.ratios.append(make_ratio(f"{rebuild.subject} / {name}", [rebuild], measured[name], at_least(100)))
