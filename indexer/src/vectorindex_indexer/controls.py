"""What a check insists on: that it sees the right rows, that nothing it knows went back, and that it would have noticed a difference."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from vectorindex_indexer import compare
from vectorindex_indexer.belief import Belief, InconclusiveError
from vectorindex_indexer.config import SourceSpec
from vectorindex_indexer.digest import Digest
from vectorindex_indexer.ledger import Bucket, Seal
from vectorindex_indexer.names import ProofReason
from vectorindex_indexer.pending import Entries
from vectorindex_indexer.rows import AsOf, Survey, Totals
from vectorindex_indexer.source import Unit

MASK: Final = 2**64 - 1


def check_comparable(belief: Belief, unit: Unit) -> None:
    """Digests of another kind, and snapshots older than what we already know, are not compared."""
    if belief.digest_spec != unit.digest_spec:
        raise InconclusiveError(
            ProofReason.DIGEST_SPEC_DIFFERS, f"the ledger holds digests of {belief.digest_spec}, the source now gives {unit.digest_spec}"
        )
    check_not_older(unit.as_of, belief.last_read.incarnation, belief.last_read.snapshot)


def check_not_older(as_of: AsOf, incarnation: str, snapshot: str) -> None:
    """Raise where the same life of the server shows less of its history than was seen before: it lags."""
    if as_of.incarnation == incarnation and snapshot_end(as_of.snapshot) < snapshot_end(snapshot):
        raise InconclusiveError(
            ProofReason.SNAPSHOT_WENT_BACK, f"the server shows snapshot {as_of.snapshot}, older than {snapshot} which was already seen"
        )


def snapshot_end(snapshot: str) -> int:
    """Return the xmax of a snapshot's text, `xmin:xmax:in-progress`."""
    return int(snapshot.split(":")[1])


def check_matches(survey: Survey, spec: SourceSpec) -> None:
    """Raise where a key matches nothing, while there are others: that proves nothing."""
    if spec.model is not None and survey.matching == 0 and survey.total_any:
        found = ", ".join(f'"{key}"' for key in survey.other_models)
        hint = f'; without its suffix it would match "{survey.suffix_match}"' if survey.suffix_match else ""
        raise InconclusiveError(
            ProofReason.MODEL_KEY_NOT_FOUND, f'no row of {spec.table} has the model key "{spec.model}"; it has {found}{hint}'
        )
    if survey.matching > 0 and survey.metadata_matching == 0 and survey.metadata_any:
        raise InconclusiveError(
            ProofReason.METADATA_NOT_FOUND, "the metadata table has rows, but none of this model key: which rows are dead can't be known"
        )


def check_not_empty(survey: Survey, ledger_rows: int, proven_rows: int) -> None:
    """Raise where there are zero rows though there should be some: that proves nothing."""
    if survey.live == 0 and max(ledger_rows, proven_rows, survey.matching) > 0:
        raise InconclusiveError(
            ProofReason.NO_LIVE_ROWS,
            f"Postgres counts no live row: {survey.matching} rows of this model key, all dead; "
            f"the ledger holds {ledger_rows} and {proven_rows} were proven last",
        )


def check_comparer(seals: Sequence[Seal], totals: Totals, moved: set[int]) -> None:
    """Show that the comparison can see: an altered copy of one bucket's sums must be named."""
    last = seals[-1]
    altered = last._replace(stamps=(last.stamps + 1) & MASK, high=(last.high + 1) & MASK)
    if set(compare.find_moved([*seals[:-1], altered], totals)) != moved | {len(seals) - 1}:
        raise InconclusiveError(
            ProofReason.POSITIVE_CONTROL_FAILED, "the comparison did not name a bucket whose sum was altered for a test"
        )


def check_content_comparer(ours: Sequence[Digest], theirs: Sequence[Digest], unlike: Sequence[int]) -> None:
    """Show that the comparison by content can see: an altered copy of one bucket's digest must be named."""
    if not ours:
        return
    last = ours[-1]
    altered = replace(last, high=(last.high + 1) & MASK)
    if set(compare.find_different([*ours[:-1], altered], theirs)) != {*unlike, len(ours) - 1}:
        raise InconclusiveError(
            ProofReason.POSITIVE_CONTROL_FAILED, "the comparison by content did not name a bucket whose digest was altered for a test"
        )


def check_index_comparer(buckets: Iterable[Bucket]) -> None:
    """Show that the comparison of FAISS with the ledger can see: of two real rows, one taken away and one altered must be named."""
    rows = next((found for found in map(take_two, buckets) if found[0].size == 2), None)
    if rows is None:
        return
    ids, codes = rows
    less = compare.compare_index(ids, codes, ids[1:], codes[1:] ^ np.uint64(1))
    more = compare.compare_index(ids[1:], codes[1:], ids, codes)
    named = [part.tolist() for part in (less.missing, less.changed, more.ghost)]
    if named != [ids[:1].tolist(), ids[1:].tolist(), ids[:1].tolist()]:
        raise InconclusiveError(
            ProofReason.POSITIVE_CONTROL_FAILED, "the comparison with FAISS did not name rows that were taken away and altered for a test"
        )


def take_two(bucket: Bucket) -> Entries:
    """Return the entries of the first two rows of a bucket that belong into the index, or of fewer."""
    places = np.flatnonzero(bucket.indexed)[:2]
    return bucket.ids[places], bucket.codes[places]


def check_stored(stored: Sequence[Digest], hashed: Mapping[int, Digest]) -> None:
    """Raise where the digest columns of a bucket, by its place, add up to other than its rows do."""
    if any(stored[place] != digest for place, digest in hashed.items()):
        raise InconclusiveError(
            ProofReason.STORED_DIGESTS_DIFFER,
            "the digest columns say other than the bytes of the rows beside them: they can't be relied on",
        )
