"""What it costs to come back with the saved index: files verified, every bucket compared by content, against building it anew."""

from benchmarks import data, product
from benchmarks.figures import at_least, make_ratio
from benchmarks.measure import Bench
from benchmarks.subjects import folder_for, plain, rebuilt_hnsw

NAME = "restart"
RESTART = "restart until proven, no digest columns"


def run(bench: Bench) -> None:
    """Save the index and measure reading and proving it."""
    belief, rebuild = rebuilt_hnsw(bench)
    subject = plain(bench, "HNSW")
    folder = folder_for(bench, "saved")
    bench.say("saving the index")
    subject.save(folder, belief)
    restored: list[product.Belief] = []

    def restart() -> None:
        restored[:] = [subject.prove_clean(subject.restore(folder, belief.as_of), whole=True)]

    measured = bench.measure_in_turn(NAME, {RESTART: restart})
    product.check_against(restored[0], *data.live_rows(bench.rows))
    bench.ratios.append(make_ratio(f"{rebuild.subject} / {RESTART}", [rebuild], measured[RESTART], at_least(20)))
