"""Layer L2: whether what a search answers is what it should. Searches with stored vectors, and compares with a look at every row."""

from dataclasses import dataclass

import numpy as np

from vectorindex_indexer.config import Metric
from vectorindex_indexer.index.encoding import Floats, encode
from vectorindex_indexer.index.view import View
from vectorindex_indexer.keys import Ids, among, join_ids, no_ids


@dataclass(frozen=True, eq=False)
class Answers:
    """What sampled searches gave.

    `recall` is the share of the nearest rows that was found, over the same codes; None where nothing was asked. `dead` are answered ids
    that are not live in the view, `answered` all answered ids, each once, to be compared with a ledger.
    """

    recall: float | None
    dead: Ids
    answered: Ids


def examine_answers(view: View, sample: Ids, dead_sample: Ids, k: int, rng: np.random.Generator, *, limit: int = 64) -> Answers:
    """Search near rows of the view: `sample` among its ids, and `dead_sample`, ids that died lately, where dead rows lie dense.

    At most `limit` searches of each are made, drawn by `rng`. Costs one look at every row for each.
    """
    drawn = np.concatenate([_draw_codes(view, ids, limit, rng) for ids in (sample, dead_sample)])
    queries = encode(drawn[drawn.any(axis=1)] if view.spec.metric is Metric.COSINE else drawn, view.spec.metric)
    if not len(queries) or not view.live_rows:
        return Answers(None, no_ids(view.id_kind), no_ids(view.id_kind))
    want = min(k, view.live_rows)
    ids, scores = view.search(queries, want)
    _, best = view.search_all(queries, want)
    given = ~np.isnan(scores)
    answered = np.unique(join_ids([ids[given]], view.id_kind))
    live, _ = view.entries_of(answered)
    return Answers(_measure_recall(scores, best, view.spec.metric), answered[~among(answered, live)], answered)


def _draw_codes(view: View, ids: Ids, limit: int, rng: np.random.Generator) -> Floats:
    chosen = np.unique(ids)
    if chosen.size > limit:
        chosen = np.sort(rng.choice(chosen, limit, replace=False))
    codes = view.find_codes(chosen)
    if len(codes) > limit:  # ids that were replaced have several rows
        codes = codes[np.sort(rng.choice(len(codes), limit, replace=False))]
    return codes.astype(np.float32)


def _measure_recall(scores: Floats, best: Floats, metric: Metric) -> float:
    """Return the share of hits at least as good as the last of the best; by scores, so that a choice among equal rows costs nothing."""
    worst = best[:, -1:]
    slack = np.abs(worst) * np.float32(2.0**-20)
    with np.errstate(invalid="ignore"):
        good = scores <= worst + slack if metric is Metric.L2 else scores >= worst - slack
    good |= scores == worst  # where both are infinite
    return float(np.count_nonzero(good) / scores.size)
