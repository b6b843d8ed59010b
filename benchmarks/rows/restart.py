"""What it costs to come back with the saved index: files verified, every bucket compared by content, against building it anew."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import data, product
from benchmarks.figures import at_least, make_ratio
from benchmarks.measure import Bench
from benchmarks.product import Belief, Subject
from benchmarks.subjects import digested, digested_belief, folder_for, plain, rebuilt_hnsw

NAME = "restart"
WITHOUT = "restart until proven, no digest columns"
WITH = "restart until proven, digest columns"


def run(bench: Bench) -> None:
    """Save the index of each table, and measure reading and proving it."""
    belief, rebuild = rebuilt_hnsw(bench)
    restored: dict[str, Belief] = {}

    def restart(name: str, subject: Subject, folder: Path, saved: Belief) -> None:
        restored.pop(name, None)
        restored[name] = subject.prove_clean(subject.restore(folder, saved.as_of), whole=True)

    sides = {
        WITHOUT: (plain(bench, "HNSW"), belief, at_least(20)),
        WITH: (digested(bench, "HNSW"), digested_belief(bench, "HNSW", belief), at_least(50)),
    }
    actions: dict[str, Callable[[], None]] = {}
    for name, (subject, saved, _) in sides.items():
        folder = folder_for(bench, f"saved-{len(actions)}")
        bench.say(f"saving the index for: {name}")
        subject.save(folder, saved)
        actions[name] = partial(restart, name, subject, folder, saved)
    measured = bench.measure_in_turn(NAME, actions)
    for name, (_, _, bar) in sides.items():
        product.check_against(restored[name], *data.live_rows(bench.rows))
        bench.ratios.append(make_ratio(f"{rebuild.subject} / {name}", [rebuild], measured[name], bar))
