"""Decides which changes of the index may be made without asking somebody, and freezes the others as a plan. Pure.

A change is judged by the rows it would take away from those who search: a source that was restored, switched or emptied by mistake
must not empty the index silently.
"""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NamedTuple

import numpy as np

from vectorindex_indexer.compare import NO_IDS, subtract, union
from vectorindex_indexer.keys import IdKind, Ids, among, to_texts
from vectorindex_indexer.ledger import Ledger
from vectorindex_indexer.names import ProofReason

FREE_ROWS: Final = 20
"""So many rows may always be taken away or replaced, where anything may: a share of a small table is less than one row."""


SAMPLE_IDS: Final = 10


@dataclass(frozen=True, eq=False)
class Change:
    """What a change would do to the rows that are shown, by id: ascending, each in one of the three."""

    removes: Ids = field(default_factory=lambda: NO_IDS)
    replaces: Ids = field(default_factory=lambda: NO_IDS)
    adds: Ids = field(default_factory=lambda: NO_IDS)

    @property
    def parts(self) -> tuple[Ids, Ids, Ids]:
        """The three."""
        return self.removes, self.replaces, self.adds

    @property
    def ids(self) -> Ids:
        """All of them."""
        return union(self.parts)

    def only(self, ids: Ids) -> "Change":
        """Return the part of the change that is about some ids."""
        return Change(*(part[among(part, ids)] for part in self.parts))


def describe_change(ids: Ids, shown: Ids, wanted: Ids) -> Change:
    """Return what happens to `ids` when the rows `shown` make way for the rows `wanted`."""
    before, after = among(ids, shown), among(ids, wanted)
    return Change(ids[before & ~after], ids[before & after], ids[~before & after])


def compare_ledgers(former: Ledger, new: Ledger, *, by_content: bool) -> Change:
    """Return what taking over another ledger would do to the rows; digests of another kind say nothing of their content."""
    ours, theirs = _digests_by_id(former), _digests_by_id(new)
    both, left, right = np.intersect1d(ours[0], theirs[0], assume_unique=True, return_indices=True)
    other = np.any(ours[1][left] != theirs[1][right], axis=1) & by_content
    return Change(subtract(ours[0], both), both[other], subtract(theirs[0], both))


def _digests_by_id(ledger: Ledger) -> tuple[Ids, np.ndarray]:
    """Return each id once, with the sum of its rows' digests."""
    filled = [bucket for bucket in ledger.buckets if bucket.rows]
    if not filled:
        return ledger.buckets[0].ids, np.empty((0, 2), np.uint64)
    ids, first = np.unique(np.concatenate([bucket.ids for bucket in filled]), return_index=True)
    return ids, np.add.reduceat(np.concatenate([bucket.digests for bucket in filled]), first, axis=0)


@dataclass(frozen=True)
class Limits:
    """What may be done without asking."""

    max_change: float = 1.0  # share of `most_rows` that may be taken away or replaced; 1 for any
    most_rows: int = 0  # the largest number of rows of the last 24 hours


class PlanHead(NamedTuple):
    """Why a change is held, and what for."""

    uid: str
    reason: ProofReason
    action: str  # patch, rebuild or replace
    incarnation: str


@dataclass(frozen=True, eq=False)
class HeldPlan:
    """A change that waits for approval, as it was when it was held. `sample_ids` are at most ten of its rows."""

    head: PlanHead
    id: str
    removes: int
    replaces: int
    adds: int
    ids: Ids
    sample_ids: tuple[str, ...]
    held_at: datetime

    @property
    def reason(self) -> ProofReason:
        """Why it is held."""
        return self.head.reason


def is_too_large(change: Change, rows: int, limits: Limits) -> bool:
    """Whether a change of an index that shows `rows` rows takes more than it may.

    What left little by little counts together: the rows afterwards are compared with the most that there were.
    """
    taken = change.removes.size + change.replaces.size
    if taken == 0 or limits.max_change >= 1:
        return False
    most = max(limits.most_rows, rows)
    missing = most - (rows - change.removes.size + change.adds.size)
    return max(change.removes.size, missing) + change.replaces.size > count_allowed(limits, most)


def count_allowed(limits: Limits, rows: int) -> float:
    """Return how many of so many rows may be taken away or replaced."""
    return max(limits.max_change * rows, FREE_ROWS if limits.max_change > 0 else 0)


def make_plan(head: PlanHead, change: Change, kind: IdKind, now: datetime) -> HeldPlan:
    """Return the plan for a change."""
    ids = change.ids
    samples = tuple(to_texts(ids[:SAMPLE_IDS], kind))
    removes, replaces, adds = (int(part.size) for part in change.parts)
    return HeldPlan(head, plan_id(head, ids), removes, replaces, adds, ids, samples, now)


def make_count_plan(head: PlanHead, lost: int, now: datetime) -> HeldPlan:
    """Return the plan to go on with fewer rows, where nobody can say which are gone. It is the same plan however many go."""
    return HeldPlan(head, plan_id(head, NO_IDS), lost, 0, 0, NO_IDS, (), now)


def plan_id(head: PlanHead, ids: Ids) -> str:
    """Return 16 hex digits that name a plan: the same for every replica that would do the same."""
    content = b"\0".join(ids.tolist()) if ids.dtype.kind == "S" else ids.astype(">i8").tobytes()
    return hashlib.sha256("\0".join((head.uid, head.reason, head.incarnation, "")).encode() + content).hexdigest()[:16]


def freeze(plan: HeldPlan, former: HeldPlan | None, limits: Limits) -> HeldPlan:
    """Return the plan to publish: the former one as long as it still stands for what waits, growth within the limit included."""
    if former is None or former.head != plan.head:
        return plan
    grown = subtract(plan.ids, former.ids).size
    if grown > count_allowed(limits, limits.most_rows):
        return plan
    return replace(plan, id=former.id, ids=former.ids, held_at=former.held_at)
