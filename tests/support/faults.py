"""Faults of what a replica believes, by row: each function returns a belief that is wrong. Ids are given as `value_at` takes them out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.damage import find_bytes
from vectorindex_indexer.belief import Belief
from vectorindex_indexer.index import View, encode
from vectorindex_indexer.index.parts import Segment, make_segment
from vectorindex_indexer.keys import Ids, of_values
from vectorindex_indexer.ledger import Bucket, make_bucket

Key = int | bytes
Vector = NDArray[np.float32]


def to_ids(belief: Belief, keys: Sequence[Key]) -> Ids:
    """Return keys as the belief holds its ids."""
    return of_values(keys, belief.ledger.kind)


# --- of ledger and index, or of the ledger alone


def damage_bucket(belief: Belief, position: int, bucket: Bucket, *, sealed: bool) -> Belief:
    """Return the belief with another bucket in place of one, under its old seal or under a new one."""
    ledger = belief.ledger
    if sealed:
        return replace(belief, ledger=ledger.replace({position: bucket}, compared={}))
    buckets = tuple(bucket if place == position else old for place, old in enumerate(ledger.buckets))
    return replace(belief, ledger=replace(ledger, buckets=buckets))


def lose_from_ledger(belief: Belief, key: Key, *, sealed: bool = False) -> Belief:
    """Return the belief without a row, in ledger and index alike."""
    position = belief.ledger.position_of(key)
    old = belief.ledger.buckets[position]
    kept = old.ids != to_ids(belief, [key])
    bucket = Bucket(old.ids[kept], old.stamps[kept], old.digests[kept], old.codes[kept], old.quarantine[kept])
    return change_view(damage_bucket(belief, position, bucket, sealed=sealed), [key], {})


def bring_back(belief: Belief, key: Key, vector: Vector, *, sealed: bool = False) -> Belief:
    """Return the belief with a dead row in it again, in ledger and index alike."""
    position = belief.ledger.position_of(key)
    old = belief.ledger.buckets[position]
    bucket = make_bucket(
        np.concatenate([old.ids, to_ids(belief, [key])]),
        np.append(old.stamps, np.uint64(12345)),
        np.append(old.digests, np.array([[1, 2]], np.uint64), axis=0),
        np.append(old.codes, np.uint64(7)),
        np.append(old.quarantine, np.uint8(0)),
    )
    return change_view(damage_bucket(belief, position, bucket, sealed=sealed), [], {key: vector})


def change_digest(belief: Belief, key: Key, *, sealed: bool = False) -> Belief:
    """Return the belief with another digest for a row whose stamp stands still."""
    position = belief.ledger.position_of(key)
    old = belief.ledger.buckets[position]
    digests = old.digests.copy()
    digests[old.ids == to_ids(belief, [key])] ^= np.uint64(1)
    return damage_bucket(belief, position, Bucket(old.ids, old.stamps, digests, old.codes, old.quarantine), sealed=sealed)


# --- of the index alone


def change_view(belief: Belief, remove: Sequence[Key], add: Mapping[Any, Vector]) -> Belief:
    """Return the belief with another index, its ledger as it was."""
    vectors = np.array(list(add.values()), np.float32).reshape(len(add), belief.view.spec.dimension)
    codes = encode(vectors, belief.view.spec.metric)
    return replace(belief, view=belief.view.change(to_ids(belief, remove), to_ids(belief, list(add)), codes))


def flip_bit(belief: Belief, key: Key) -> Belief:
    """Turn one bit over where a live row's code is kept, in FAISS or in the delta: of this belief itself, and all that share its memory."""
    wanted = to_ids(belief, [key])
    for segment in belief.view.segments:
        for row in _live_rows(segment, wanted):
            find_bytes(segment, row)[1] ^= 4
            return belief
    delta = belief.view.delta
    (place,) = np.flatnonzero((delta.ids == wanted) & ~delta.dead)
    delta.codes[place : place + 1].view(np.uint8)[0, 1] ^= 4
    return belief


def mark_dead(belief: Belief, key: Key) -> Belief:
    """Return the belief with a live row of a segment marked as dead."""
    return replace(belief, view=_mark(belief.view, to_ids(belief, [key]), dead=True))


def mark_living(belief: Belief, key: Key) -> Belief:
    """Return the belief with the mark of a dead row of a segment lost."""
    return replace(belief, view=_mark(belief.view, to_ids(belief, [key]), dead=False))


def _mark(view: View, wanted: Ids, *, dead: bool) -> View:
    segments = []
    for segment in view.segments:
        rows = segment.find(wanted)
        rows = rows[segment.dead[rows] != dead][:1]
        marks = segment.dead.copy()
        marks[rows] = dead
        segments.append(make_segment(segment.store, segment.ids, marks) if rows.size else segment)
    assert any(new is not old for new, old in zip(segments, view.segments, strict=True)), "no such row"
    return replace(view, segments=tuple(segments))


def _live_rows(segment: Segment, wanted: Ids) -> list[int]:
    return [int(row) for row in segment.find(wanted) if not segment.dead[row]]
