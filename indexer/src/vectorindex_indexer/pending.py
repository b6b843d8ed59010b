"""The pending list: rows of which the ledger knows more than the view may show yet. Pure.

Ledger and view differ by exactly this list. It remembers what the view shows instead, so that damage to these rows is still seen.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer import compare
from vectorindex_indexer.compare import Drift, union
from vectorindex_indexer.keys import Ids, among
from vectorindex_indexer.ledger import Ledger, Words

Entries = tuple[Ids, Words]
"""Ids and code digests, (n,) each."""


@dataclass(frozen=True, eq=False)
class Pending:
    """`ids`, ascending, each once; `drifted` marks those that the source did not change. The view shows `shown` of them."""

    ids: Ids
    drifted: NDArray[np.bool_]
    shown: Entries

    @property
    def upstream(self) -> Ids:
        """Ids whose change upstream waits."""
        return self.ids[~self.drifted]

    @property
    def drift(self) -> Ids:
        """Ids whose repair waits."""
        return self.ids[self.drifted]

    def only(self, ids: Ids) -> "Pending":
        """Return the part of the list that is about some ids."""
        chosen = among(self.ids, ids)
        if not chosen.any():
            return NOTHING
        return Pending(self.ids[chosen], self.drifted[chosen], select(self.shown, ids))

    def join(self, other: "Pending") -> "Pending":
        """Return both lists as one; they are about different ids."""
        if not self.ids.size or not other.ids.size:
            return other if other.ids.size else self
        ids = np.concatenate([self.ids, other.ids])
        order = np.argsort(ids, kind="stable")
        drifted = np.concatenate([self.drifted, other.drifted])
        return Pending(ids[order], drifted[order], join_entries(self.shown, other.shown))

    def describe_drift(self, ledger: Ledger) -> Drift:
        """Return by kind how the rows whose repair waits differ."""
        return compare.compare_index(*ledger.entries_of(self.drift), *select(self.shown, self.drift))


NOTHING: Final = Pending(compare.NO_IDS, np.empty(0, np.bool_), (compare.NO_IDS, np.empty(0, np.uint64)))


def make_pending(upstream: Ids, drift: Ids, shown: Entries) -> Pending:
    """Return the list of these rows. An id in both is drift: the view is wrong about it already."""
    ids = union([upstream, drift])
    return Pending(ids, among(ids, drift), select(shown, ids)) if ids.size else NOTHING


def select(entries: Entries, ids: Ids) -> Entries:
    """Return the entries of some ids."""
    chosen = among(entries[0], ids)
    return entries[0][chosen], entries[1][chosen]


def join_entries(first: Entries, second: Entries) -> Entries:
    """Return both, in the order of their ids."""
    if not first[0].size or not second[0].size:
        return second if second[0].size else first
    ids, codes = np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
    order = np.argsort(ids, kind="stable")
    return ids[order], codes[order]
