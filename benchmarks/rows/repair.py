"""What it costs to find, fetch, mend and prove drift of 0.1 % of the rows, against building the index anew."""

from functools import partial
from typing import Final

import numpy as np

from benchmarks import data, product
from benchmarks.figures import at_least, make_ratio
from benchmarks.measure import Bench
from benchmarks.product import Belief, Subject
from benchmarks.subjects import digested, digested_belief, plain, rebuilt_hnsw

NAME = "repair"
SHARE: Final = 0.001
FASTER: Final = 100
SCATTERED = "0.1 % here and there"
BATCH = "a batch of 0.1 %"


def run(bench: Bench) -> None:
    """Plant drift, and measure the cycle that mends it: rows lost and changed in the index here and there; or a batch lost everywhere."""
    belief, rebuild = rebuilt_hnsw(bench)
    count = max(2, int(bench.rows * SHARE))
    sides = {
        "no digest columns": (plain(bench, "HNSW"), belief),
        "digest columns": (digested(bench, "HNSW"), digested_belief(bench, "HNSW", belief)),
    }
    for columns, (subject, whole) in sides.items():
        repaired: dict[str, Belief] = {}

        def mend(name: str, drifted: Belief, subject: Subject = subject, repaired: dict[str, Belief] = repaired) -> None:
            repaired[name] = subject.repair(drifted, count)

        repairs = {f"repair, {what}, {columns}": drifted for what, drifted in plant(whole, count).items()}
        measured = bench.measure_in_turn(NAME, {name: partial(mend, name, drifted) for name, drifted in repairs.items()})
        for belief in repaired.values():
            product.check_against(belief, *data.live_rows(bench.rows))
        bench.ratios += [make_ratio(f"{rebuild.subject} / {name}", [rebuild], runs, at_least(FASTER)) for name, runs in measured.items()]


def plant(belief: Belief, count: int) -> dict[str, Belief]:
    """Return the belief with drift of two kinds."""
    rng = np.random.default_rng(data.SEED)
    ids, _ = belief.ledger.entries()
    return {
        SCATTERED: product.damage_index(belief, np.sort(rng.choice(ids, count, replace=False)), rng),
        BATCH: product.lose_rows(belief, ids[len(ids) // 2 :][:count]),
    }
