"""Decides what differs, and what kind of difference it is. Pure.

L0 compares the ledger with the source, bucket by bucket; L1 compares FAISS with the ledger. Both name rows by id.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import numpy as np

from vectorindex_indexer.digest import Digest
from vectorindex_indexer.ledger import Bucket, Ids, Words
from vectorindex_indexer.rows import Heads, Stamps

NO_IDS: Final[Ids] = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Drift:
    """Ids that differ for no reason that the source knows, by kind."""

    missing: Ids = field(default_factory=lambda: NO_IDS)
    ghost: Ids = field(default_factory=lambda: NO_IDS)
    changed: Ids = field(default_factory=lambda: NO_IDS)
    duplicate: Ids = field(default_factory=lambda: NO_IDS)

    @property
    def rows(self) -> int:
        """How many rows drifted."""
        return int(self.missing.size + self.ghost.size + self.changed.size + self.duplicate.size)

    @property
    def ids(self) -> Ids:
        """All ids, ascending, each once."""
        return np.unique(np.concatenate([self.missing, self.ghost, self.changed, self.duplicate]))

    def without(self, ids: Ids) -> "Drift":
        """Return the drift of other ids than these."""
        return Drift(*(kind[~np.isin(kind, ids)] for kind in (self.missing, self.ghost, self.changed, self.duplicate)))


@dataclass(frozen=True, eq=False)
class BucketDifference:
    """How one bucket of the ledger differs from the source.

    `inserted`, `deleted` and `updated` are normal life: the source changed since the ledger last looked. `drift` is not.
    """

    drift: Drift
    inserted: Ids
    deleted: Ids
    updated: Ids
    restamped: int  # rows that were rewritten upstream with the same content

    @property
    def affected(self) -> Ids:
        """Ids whose rows must be read again or removed, ascending."""
        return np.unique(np.concatenate([self.drift.ids, self.inserted, self.deleted, self.updated]))


def find_moved(ledger: Sequence[Bucket], source: Stamps) -> list[int]:
    """Return the buckets whose count or sum of stamps differs from the source's."""
    counts = np.array([bucket.rows for bucket in ledger], np.int64)
    sums = np.array([np.add.reduce(bucket.stamps, dtype=np.uint64) for bucket in ledger], np.uint64)
    return np.flatnonzero((counts != source.counts) | (sums != source.sums)).tolist()


def find_different(ledger: Iterable[Digest], source: Iterable[Digest]) -> list[int]:
    """Return the positions at which two equally long lists of bucket digests differ."""
    return [position for position, (ours, theirs) in enumerate(zip(ledger, source, strict=True)) if ours != theirs]


class Trust(Enum):
    """What the version stamps of a bucket are worth."""

    HOLD = auto()  # a stamp that stood still means that nobody changed the row
    VOID = auto()  # taken from another incarnation or relation: they can't be compared, and nobody is to blame
    BROKEN = auto()  # the bucket broke its seal: whatever differs is the replica's own loss


def compare_bucket(bucket: Bucket, heads: Heads, trust: Trust) -> BucketDifference:
    """Compare the rows of one bucket with what the source has in its range.

    A row whose stamp moved, came or went was changed upstream. A row that differs although its stamp stood still drifted.
    """
    if _has_repeats(bucket.ids) or _has_repeats(heads.ids):
        return _compare_repeated(bucket, heads, trust)
    both, ours, theirs = np.intersect1d(bucket.ids, heads.ids, assume_unique=True, return_indices=True)
    other_content = np.any(bucket.digests[ours] != heads.digests[theirs], axis=1)
    other_stamp = bucket.stamps[ours] != heads.stamps[theirs]
    came = np.setdiff1d(heads.ids, both, assume_unique=True)
    went = np.setdiff1d(bucket.ids, both, assume_unique=True)
    restamped = int(np.count_nonzero(other_stamp & ~other_content))
    return _sort_out(came, went, both[other_content & other_stamp], both[other_content & ~other_stamp], restamped, trust=trust)


def _sort_out(came: Ids, went: Ids, moved: Ids, silent: Ids, restamped: int, *, trust: Trust) -> BucketDifference:
    if trust is Trust.HOLD:
        return BucketDifference(Drift(changed=silent), came, went, moved, restamped)
    changed = np.union1d(moved, silent)
    if trust is Trust.VOID:
        return BucketDifference(Drift(), came, went, changed, restamped)
    return BucketDifference(Drift(missing=came, ghost=went, changed=changed), NO_IDS, NO_IDS, NO_IDS, restamped)


def _has_repeats(ids: Ids) -> bool:
    return bool(np.any(ids[1:] == ids[:-1]))


def _compare_repeated(bucket: Bucket, heads: Heads, trust: Trust) -> BucketDifference:
    """Do the same where an id occurs more than once: its rows are compared as a whole."""
    ours, theirs = _group(bucket.ids, bucket.digests, bucket.stamps), _group(heads.ids, heads.digests, heads.stamps)
    came = [key for key in theirs if key not in ours]
    went = [key for key in ours if key not in theirs]
    moved, silent, restamped = [], [], 0
    for key, rows in ours.items():
        if key not in theirs or rows == theirs[key]:
            continue
        if [row[:2] for row in rows] == [row[:2] for row in theirs[key]]:
            restamped += 1
        elif sorted(row[2] for row in rows) == sorted(row[2] for row in theirs[key]):
            silent.append(key)
        else:
            moved.append(key)
    return _sort_out(_as_ids(came), _as_ids(went), _as_ids(moved), _as_ids(silent), restamped, trust=trust)


def _group(ids: Ids, digests: Words, stamps: Words) -> dict[int, list[tuple[int, int, int]]]:
    groups: dict[int, list[tuple[int, int, int]]] = {}
    for key, (high, low), stamp in zip(ids.tolist(), digests.tolist(), stamps.tolist(), strict=True):
        groups.setdefault(key, []).append((high, low, stamp))
    return {key: sorted(rows) for key, rows in groups.items()}


def _as_ids(values: Sequence[int]) -> Ids:
    return np.array(sorted(values), np.int64)


def compare_index(expected_ids: Ids, expected_codes: Words, actual_ids: Ids, actual_codes: Words) -> Drift:
    """Compare what the ledger says the index holds with what FAISS holds (L1). `expected_ids` ascend and don't repeat."""
    order = np.argsort(actual_ids, kind="stable")
    actual_ids, actual_codes = actual_ids[order], actual_codes[order]
    unique, first, counts = np.unique(actual_ids, return_index=True, return_counts=True)
    both, ours, theirs = np.intersect1d(expected_ids, unique, assume_unique=True, return_indices=True)
    once = counts[theirs] == 1
    same = expected_codes[ours] == actual_codes[first[theirs]]
    return Drift(
        missing=np.setdiff1d(expected_ids, unique, assume_unique=True),
        ghost=np.setdiff1d(unique, expected_ids, assume_unique=True),
        changed=both[once & ~same],
        duplicate=both[~once],
    )


def merge_drift(parts: Sequence[Drift]) -> Drift:
    """Return all drift as one."""

    def collect(kinds: list[Ids]) -> Ids:
        return np.unique(np.concatenate(kinds)) if kinds else NO_IDS

    return Drift(
        missing=collect([part.missing for part in parts]),
        ghost=collect([part.ghost for part in parts]),
        changed=collect([part.changed for part in parts]),
        duplicate=collect([part.duplicate for part in parts]),
    )
