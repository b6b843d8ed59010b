"""Searches from four threads while the index is patched, sealed, rebuilt and switched: every answer is right for the view it came from.

`Flat` must equal brute force over what that view shows; of the others, every id must live there and its score must be its own.
"""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.views import Make, build_view, make_spec, make_vectors
from vectorindex_indexer.config import IndexType, Metric, Quantization
from vectorindex_indexer.index import View, encode, needs_merge, plan_seal

Array = NDArray[Any]

THREADS = 4
ROWS = 3000
POOL = 2 * ROWS
DIMENSION = 24
K = 10
MAKES = (
    Make(IndexType.FLAT, Quantization.NONE),
    Make(IndexType.HNSW, Quantization.NONE),
    Make(IndexType.IVFFLAT, Quantization.NONE),
    Make(IndexType.HNSW, Quantization.SQ8),
)


@dataclass(eq=False)
class State:
    """What is published as one reference: a view, and which vector of the pool each live id has (-1 for none)."""

    view: View
    vector_of: Array


@dataclass(eq=False)
class Trial:
    """One index, its vectors, and what went on."""

    make: Make
    published: State
    pool: Array
    stop: threading.Event = field(default_factory=threading.Event)
    wrong: list[str] = field(default_factory=list)
    answers: int = 0
    patches: int = 0
    seals: int = 0
    rebuilds: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, task: Callable[[int], None], number: int) -> None:
        """Run one task again and again; whatever it raises is a wrong answer."""
        try:
            while not self.stop.is_set():
                task(number)
        except Exception as error:
            self.wrong.append(repr(error))
            self.stop.set()


def make_trial(make: Make) -> Trial:
    pool = make_vectors(POOL, DIMENSION, seed=4)
    spec = make_spec(make, DIMENSION, Metric.COSINE)
    vector_of = np.full(POOL, -1, np.int64)
    vector_of[:ROWS] = np.arange(ROWS)
    return Trial(make, State(build_view(spec, np.arange(ROWS), pool[:ROWS]), vector_of), pool)


def search(trial: Trial, rng: np.random.Generator) -> None:
    """Search a few vectors, near rows of the index more often than not, and check the answer over the view it came from."""
    state = trial.published
    queries = trial.pool[rng.integers(0, POOL, 6)] + rng.normal(0, 0.2, (6, DIMENSION)).astype(np.float32)
    found, scores = state.view.search(queries, K)
    live = np.flatnonzero(state.vector_of >= 0)
    codes = encode(trial.pool, Metric.COSINE)[state.vector_of[live]].astype(np.float64)
    truth = encode(queries, Metric.COSINE).astype(np.float64) @ codes.T
    # A number beyond what the sample of a build showed is cut off by SQ8; the score of another row would be off by far more.
    slack = 1e-6 if trial.make.quantization is Quantization.NONE else 0.1
    for query, (keys, row) in enumerate(zip(found, scores, strict=True)):
        check_answer(trial, live, truth[query], (keys, row), slack)
    with trial.lock:
        trial.answers += len(queries)


def check_answer(trial: Trial, live: Array, truth: Array, answer: tuple[Array, Array], slack: float) -> None:
    keys, scores = answer
    places = np.searchsorted(live, keys)
    if np.unique(keys).size != K or not np.array_equal(live[np.minimum(places, live.size - 1)], keys):
        trial.wrong.append(f"{keys.tolist()} are not {K} live rows")
    elif not np.allclose(scores, truth[places], rtol=0, atol=slack):
        trial.wrong.append(f"scores of {keys.tolist()} are {scores.tolist()}, expected {truth[places].tolist()}")
    elif trial.make.type is IndexType.FLAT and not np.allclose(np.sort(truth)[::-1][:K], scores, rtol=0, atol=slack):
        trial.wrong.append(f"{keys.tolist()} are not the nearest rows")


def patch(trial: Trial, rng: np.random.Generator) -> None:
    """Remove, replace and add some rows, sometimes near each other; publish view and truth together."""
    state = trial.published
    vector_of = state.vector_of.copy()
    live, free = np.flatnonzero(vector_of >= 0), np.flatnonzero(vector_of < 0)
    gone = rng.choice(live, min(live.size - ROWS // 2, int(rng.integers(0, 40))), replace=False)
    replaced = rng.choice(np.setdiff1d(live, gone), int(rng.integers(0, 20)), replace=False)
    came = rng.choice(free, min(free.size, int(rng.integers(0, 40))), replace=False)
    added = np.concatenate([replaced, came])
    vector_of[gone] = -1
    vector_of[added] = rng.integers(0, POOL, added.size)
    codes = encode(trial.pool[vector_of[added]], Metric.COSINE)
    trial.published = State(state.view.change(np.concatenate([gone, replaced]), added, codes), vector_of)
    trial.patches += 1


def patch_while(trial: Trial, rng: np.random.Generator, work: Callable[[], Any]) -> Any:
    """Do work in another thread and go on patching; return its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    while thread.is_alive():
        patch(trial, rng)
        thread.join(0.005)
    return results[0]


def write(trial: Trial, rng: np.random.Generator) -> None:
    """What the one writer does: follow, seal, rebuild. Rows that change meanwhile are patched into what was built."""
    patch(trial, rng)
    view = trial.published.view
    plan = plan_seal(view)
    if plan is not None:
        part = patch_while(trial, rng, lambda: plan.build(1))
        trial.published = State(trial.published.view.with_sealed(part), trial.published.vector_of)
        trial.seals += 1
    if needs_merge(view) or trial.seals > 3 * (trial.rebuilds + 1):
        loaded = trial.published.vector_of
        ids = np.flatnonzero(loaded >= 0)
        built: View = patch_while(trial, rng, lambda: build_view(view.spec, ids, trial.pool[loaded[ids]], view.generation + 1))
        now = trial.published.vector_of
        changed = np.flatnonzero(now != loaded)
        added = changed[now[changed] >= 0]
        trial.published = State(built.change(changed, added, encode(trial.pool[now[added]], Metric.COSINE)), now)
        trial.rebuilds += 1


def run_trial(make: Make, seconds: float) -> Trial:
    trial = make_trial(make)
    generators = [np.random.default_rng(number) for number in range(THREADS + 1)]
    threads = [
        threading.Thread(target=trial.run, args=(lambda number: search(trial, generators[number]), number)) for number in range(THREADS)
    ]
    threads.append(threading.Thread(target=trial.run, args=(lambda number: write(trial, generators[number]), THREADS)))
    for thread in threads:
        thread.start()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not trial.wrong:
        trial.stop.wait(0.1)
    trial.stop.set()
    for thread in threads:
        thread.join()
    return trial


@pytest.mark.parametrize("make", MAKES, ids=str)
def test_every_answer_is_right_for_its_view(make: Make) -> None:
    trial = run_trial(make, 4.0)
    assert not trial.wrong, trial.wrong[:3]
    assert trial.answers > 100
    assert trial.patches > 10
    assert trial.seals > 0


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKES, ids=str)
def test_every_answer_is_right_for_ten_minutes(make: Make) -> None:
    """Ten minutes over all types together. With `-s` it tells how much went on."""
    trial = run_trial(make, 600.0 / len(MAKES))
    sys.stdout.write(f"{make}: {trial.answers} answers, {trial.patches} patches, {trial.seals} seals, {trial.rebuilds} rebuilds\n")
    assert not trial.wrong, trial.wrong[:3]
    assert trial.rebuilds > 2
