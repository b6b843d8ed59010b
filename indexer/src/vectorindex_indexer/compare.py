"""Decides what differs, and what kind of difference it is. Pure.

L0 compares the ledger with the source, bucket by bucket; L1 compares FAISS with the ledger. Both name rows by id.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import numpy as np

from vectorindex_indexer.digest import Digest
from vectorindex_indexer.keys import IdKind, Ids, among, no_ids
from vectorindex_indexer.ledger import Bucket, Seal, Words
from vectorindex_indexer.rows import Heads, Totals

NO_IDS: Final[Ids] = no_ids(IdKind.INTEGER)
"""No ids, of whatever kind: an empty array is never joined with others here."""


def union(parts: Iterable[Ids]) -> Ids:
    """Return all ids of these parts, ascending, each once."""
    filled = [part for part in parts if part.size]
    return np.unique(np.concatenate(filled)) if filled else NO_IDS


def subtract(ids: Ids, others: Ids) -> Ids:
    """Return the ids that are none of the others, in their order."""
    return ids[~among(ids, others)]


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
        return union([self.missing, self.ghost, self.changed, self.duplicate])

    def without(self, ids: Ids) -> "Drift":
        """Return the drift of other ids than these."""
        return Drift(*(subtract(kind, ids) for kind in (self.missing, self.ghost, self.changed, self.duplicate)))


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
        return union([self.drift.ids, self.inserted, self.deleted, self.updated])


def find_moved(seals: Sequence[Seal], source: Totals) -> list[int]:
    """Return the buckets whose count, sum of stamps or stored digest differs from the source's."""
    moved = np.array([seal.rows for seal in seals], np.int64) != source.counts
    if source.stamps is not None:
        moved |= np.array([seal.stamps for seal in seals], np.uint64) != source.stamps
    if source.digests is not None:
        moved |= np.array([Digest(seal.rows, seal.high, seal.low) != theirs for seal, theirs in zip(seals, source.digests, strict=True)])
    return np.flatnonzero(moved).tolist()


def find_unlike(ours: tuple[Ids, Words], theirs: tuple[Ids, Words]) -> Ids:
    """Return the ids of which two lists of entries don't hold the same, an entry as often as it is there."""
    if not ours[0].size or not theirs[0].size:
        return union([ours[0], theirs[0]])
    names, which = np.unique(np.concatenate([ours[0], theirs[0]]), return_inverse=True)
    entries = np.stack([which.astype(np.uint64), np.concatenate([ours[1], theirs[1]])], axis=1)
    distinct, places = np.unique(entries, axis=0, return_inverse=True)
    balance = np.bincount(places.reshape(-1), weights=np.where(np.arange(which.size) < ours[0].size, 1, -1))
    unlike: Ids = names[np.unique(distinct[balance != 0, 0].astype(np.intp))]
    return unlike


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
    came, went = subtract(heads.ids, both), subtract(bucket.ids, both)
    restamped = int(np.count_nonzero(other_stamp & ~other_content))
    moved, silent = both[other_content & other_stamp], both[other_content & ~other_stamp]
    return _sort_out(came, went, moved, silent, restamped=restamped, trust=trust)


def _sort_out(came: Ids, went: Ids, moved: Ids, silent: Ids, *, restamped: int, trust: Trust) -> BucketDifference:
    if trust is Trust.HOLD:
        return BucketDifference(Drift(changed=silent), came, went, moved, restamped)
    changed = union([moved, silent])
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
    # Texts that went may be longer than all that are left.
    dtype = max((side.ids.dtype for side in (bucket, heads) if side.ids.size), key=lambda dtype: dtype.itemsize)
    named = (np.array(sorted(keys), dtype) if keys else NO_IDS for keys in (came, went, moved, silent))
    return _sort_out(*named, restamped=restamped, trust=trust)


_Key = int | bytes


def _group(ids: Ids, digests: Words, stamps: Words) -> dict[_Key, list[tuple[int, int, int]]]:
    groups: dict[_Key, list[tuple[int, int, int]]] = {}
    for key, (high, low), stamp in zip(ids.tolist(), digests.tolist(), stamps.tolist(), strict=True):
        groups.setdefault(key, []).append((high, low, stamp))
    return {key: sorted(rows) for key, rows in groups.items()}


def compare_index(expected_ids: Ids, expected_codes: Words, actual_ids: Ids, actual_codes: Words) -> Drift:
    """Compare what the ledger says the index holds with what FAISS holds (L1). `expected_ids` ascend and don't repeat."""
    order = np.argsort(actual_ids, kind="stable")
    actual_ids, actual_codes = actual_ids[order], actual_codes[order]
    if np.array_equal(expected_ids, actual_ids) and np.array_equal(expected_codes, actual_codes):
        return Drift()  # nearly always; what follows takes ten times as long
    unique, first, counts = np.unique(actual_ids, return_index=True, return_counts=True)
    both, ours, theirs = np.intersect1d(expected_ids, unique, assume_unique=True, return_indices=True)
    once = counts[theirs] == 1
    same = expected_codes[ours] == actual_codes[first[theirs]]
    return Drift(
        missing=subtract(expected_ids, unique),
        ghost=subtract(unique, expected_ids),
        changed=both[once & ~same],
        duplicate=both[~once],
    )


def merge_drift(parts: Sequence[Drift]) -> Drift:
    """Return all drift as one."""
    return Drift(
        missing=union(part.missing for part in parts),
        ghost=union(part.ghost for part in parts),
        changed=union(part.changed for part in parts),
        duplicate=union(part.duplicate for part in parts),
    )
