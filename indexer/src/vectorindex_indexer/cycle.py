"""One check of a replica against its source, inside one database snapshot: compare, follow, repair, compare again.

Given a belief (ledger and view) it returns what it found and the belief to hold from now on; publishing that is the caller's
business. Whatever it could not look at makes the result `unknown`: nothing here ever concludes from having seen nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from vectorindex_indexer import compare, repair
from vectorindex_indexer.compare import BucketDifference, Drift, Trust
from vectorindex_indexer.config import Metric, SourceSpec
from vectorindex_indexer.digest import Digest
from vectorindex_indexer.errors import NullSumError, SourceError
from vectorindex_indexer.index import Floats, View, code_digests, encode
from vectorindex_indexer.ledger import Bucket, Ids, Ledger, Words, make_bucket
from vectorindex_indexer.names import ProofReason, Result, SourceReason
from vectorindex_indexer.rows import AsOf, Heads, Rows, Stamps, Survey
from vectorindex_indexer.source import Source, Unit

EXAMINE_ALWAYS_ROWS: Final = 50_000  # up to here comparing all of FAISS with the ledger is cheap enough for every cycle
READ_ROWS: Final = 10_000  # ids in one read
MASK: Final = 2**64 - 1


@dataclass(frozen=True, eq=False)
class Belief:
    """Ledger and view that belong together, and the point of the source's history that they show."""

    ledger: Ledger
    view: View
    as_of: AsOf
    digest_spec: str
    examined: float  # when FAISS was last compared whole, seconds of the caller's clock
    checks: int = 0  # conclusive checks so far; moves the positive control from bucket to bucket

    @property
    def root(self) -> Digest:
        """The root digest of what is served."""
        return self.ledger.root


@dataclass(frozen=True)
class Terms:
    """What a cycle has to do, and may do."""

    now: float  # seconds of a monotonic clock
    period: float  # seconds until the next cycle
    content_sweep: float  # seconds within which every bucket is compared by content
    whole: bool  # compare every bucket by content, and all of FAISS
    apply: bool  # False: observe only
    last_proven_rows: int = 0
    deadline: float = 120.0  # seconds the source gets for all of it


@dataclass(frozen=True)
class Layers:
    """A result for each layer."""

    l0: Result
    l1: Result


UNKNOWN: Final = Layers(Result.UNKNOWN, Result.UNKNOWN)


@dataclass(frozen=True)
class Followed:
    """Rows that changed upstream since the last cycle."""

    inserted: int = 0
    deleted: int = 0
    updated: int = 0

    @property
    def rows(self) -> int:
        """All of them."""
        return self.inserted + self.deleted + self.updated


@dataclass(frozen=True, eq=False)
class Findings:
    """What one check found. `drift` is what was found at first; whether it is repaired is for `result` to say."""

    result: Result
    reason: ProofReason | SourceReason
    message: str
    found: Layers  # at first sight; the final result is `result`
    examined: bool = False  # FAISS was compared with the ledger; else L1 says nothing new
    source_rows: int = 0
    drift: Drift = field(default_factory=Drift)
    followed: Followed = Followed()
    pending: int = 0  # upstream changes that were seen and not applied
    source_error: SourceError | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """Findings, and the belief that follows from them (the old one where nothing may be concluded)."""

    findings: Findings
    belief: Belief


@dataclass(frozen=True, eq=False)
class Encoded:
    """Rows as read, with what FAISS is to store of them: `codes` (n, d) float32 and their digests, both zero in quarantine."""

    rows: Rows
    codes: Floats
    digests: Words

    def to_bucket(self) -> Bucket:
        """Return them as the ledger holds them."""
        return make_bucket(self.rows.ids, self.rows.stamps, self.rows.digests, self.digests, self.rows.quarantine)


def encode_rows(rows: Rows, metric: Metric) -> Encoded:
    """Encode rows and digest the codes."""
    codes = encode(rows.vectors, metric)
    return Encoded(rows, codes, np.where(rows.quarantine == 0, code_digests(codes), np.uint64(0)))


class InconclusiveError(Exception):
    """The check, or a load, can't know. Becomes the result `unknown`."""

    def __init__(self, reason: ProofReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def run_cycle(source: Source, belief: Belief, terms: Terms, announce: Callable[[Drift], None]) -> Outcome:
    """Check `belief` against the source, and bring it up to date if `terms` allow. `announce` hears of drift before its repair."""
    try:
        with source.unit(seconds=terms.deadline) as unit:
            return _Cycle(unit, source.spec, belief, terms, announce).run()
    except (InconclusiveError, NullSumError, SourceError) as error:
        return Outcome(describe_unknown(error), belief)


def describe_unknown(error: InconclusiveError | NullSumError | SourceError) -> Findings:
    """Return the findings of a check, or of a load, that could not see."""
    match error:
        case SourceError():
            return Findings(Result.UNKNOWN, error.reason, error.message, UNKNOWN, source_error=error)
        case InconclusiveError():
            return Findings(Result.UNKNOWN, error.reason, error.message, UNKNOWN)
        case NullSumError():
            return Findings(Result.UNKNOWN, ProofReason.SUM_IS_NULL, str(error), UNKNOWN)


class _Cycle:
    """The steps of one check, in order, with what they share."""

    def __init__(self, unit: Unit, spec: SourceSpec, belief: Belief, terms: Terms, announce: Callable[[Drift], None]) -> None:
        self.unit = unit
        self.spec = spec
        self.belief = belief
        self.ledger = belief.ledger
        self.broken = belief.ledger.find_broken()
        self.terms = terms
        self.announce = announce
        self.compared: dict[int, float] = {}  # buckets compared by content in this cycle

    def run(self) -> Outcome:
        """Do all steps. Raises InconclusiveError, NullSumError or SourceError where the check can't know."""
        survey = self.unit.survey()
        check_survey(survey, self.spec, self.ledger.rows, self.terms.last_proven_rows)
        check_comparable(self.belief, self.unit)

        differences, heads = self.compare_source(survey)
        affected = gather([difference.affected for difference in differences.values()])
        followed = Followed(
            inserted=sum(d.inserted.size for d in differences.values()),
            deleted=sum(d.deleted.size for d in differences.values()),
            updated=sum(d.updated.size for d in differences.values()),
        )
        source_drift = compare.merge_drift([difference.drift for difference in differences.values()])
        examine = bool(self.broken) or self.must_examine()

        changed, rows = self.follow(differences, heads)
        ledger = self.ledger.replace(changed, compared=self.compared)
        self.check_complete(ledger, survey)

        difference = compare.compare_index(*ledger.entries(), *self.belief.view.live_entries()) if examine else Drift()
        index_drift = difference.without(affected)
        drift = compare.merge_drift([source_drift, index_drift])
        found = Layers(Result.DRIFT if source_drift.rows else Result.OK, Result.DRIFT if index_drift.rows else Result.OK)
        findings = Findings(
            result=Result.OK,
            reason=ProofReason.PROVEN,
            message=f"{ledger.rows} live rows, all equal",
            found=found,
            examined=examine,
            source_rows=survey.live,
            drift=drift,
            followed=followed,
        )
        if not self.terms.apply and (followed.rows or drift.rows):
            return Outcome(withhold(findings), self.belief)
        if drift.rows:
            self.announce(drift)

        patch = repair.plan_patch(difference) if examine else repair.plan_followed(affected)
        view = self.patch(patch, rows)
        left = self.compare_again(changed, differences, ledger, view, whole=examine, patched=gather([patch.remove, patch.read]))
        if left:
            return Outcome(replace(findings, result=Result.DRIFT, reason=ProofReason.REPAIR_FAILED, message=left), self.belief)
        self.control(changed)
        belief = Belief(
            ledger=ledger,
            view=view,
            as_of=self.unit.as_of,
            digest_spec=self.unit.digest_spec,
            examined=self.terms.now if examine else self.belief.examined,
            checks=self.belief.checks + 1,
        )
        return Outcome(findings, belief)

    # --- L0

    def compare_source(self, survey: Survey) -> tuple[dict[int, BucketDifference], dict[int, Heads]]:
        """Look at every bucket, and row by row into those that moved, broke their seal, or differ in content."""
        void = (self.unit.as_of.incarnation, self.unit.as_of.fingerprint) != (self.belief.as_of.incarnation, self.belief.as_of.fingerprint)
        stamps = self.unit.stamps(self.ledger.bounds)
        check_stamps(stamps, survey, len(self.ledger.buckets))
        moved = set(compare.find_moved(self.ledger.buckets, stamps))
        check_comparer(self.ledger, stamps, moved)

        everything = range(len(self.ledger.buckets))
        due = set(everything) if self.terms.whole or void else find_due(self.ledger, self.terms)
        by_content = sorted(due - moved - self.broken)
        sums = self.unit.digests([self.ledger.range(position) for position in by_content])
        if len(sums) != len(by_content):
            raise InconclusiveError(
                ProofReason.BUCKET_NOT_COMPARED,
                f"{len(by_content)} buckets were due for a comparison by content, {len(sums)} were answered",
            )
        different = compare.find_different([self.ledger.buckets[position].digest for position in by_content], sums)
        self.compared |= dict.fromkeys(by_content, self.terms.now)

        differences: dict[int, BucketDifference] = {}
        heads: dict[int, Heads] = {}
        for position in sorted(moved | self.broken | {by_content[index] for index in different}):
            trust = Trust.BROKEN if position in self.broken else Trust.VOID if void else Trust.HOLD
            heads[position] = self.unit.heads(self.ledger.range(position))
            differences[position] = compare.compare_bucket(self.ledger.buckets[position], heads[position], trust)
            self.compared[position] = self.terms.now
        return differences, heads

    def follow(self, differences: dict[int, BucketDifference], heads: dict[int, Heads]) -> tuple[dict[int, Bucket], list[Encoded]]:
        """Return the buckets as the source has them now, by position, and the rows read for that."""
        changed: dict[int, Bucket] = {}
        read: list[Encoded] = []
        for position, difference in differences.items():
            old, new = self.ledger.buckets[position], heads[position]
            # The code digests of a bucket that broke its seal are worth nothing: read all of its rows again.
            affected = np.union1d(old.ids, new.ids) if position in self.broken else difference.affected
            rows = self.read(affected[np.isin(affected, new.ids)])
            read.append(rows)
            changed[position] = merge_bucket(old, new, affected, rows)
        return changed, read

    def read(self, ids: Ids) -> Encoded:
        """Read rows with their vectors, in portions, and encode them."""
        parts = [self.unit.rows(ids[start : start + READ_ROWS]) for start in range(0, ids.size, READ_ROWS)]
        return encode_rows(Rows.concatenate(parts, self.belief.view.spec.dimension), self.belief.view.spec.metric)

    def check_complete(self, ledger: Ledger, survey: Survey) -> None:
        """Every live row that Postgres counted must now be in the ledger, and no other."""
        if ledger.rows != survey.live:
            raise InconclusiveError(
                ProofReason.BUCKET_NOT_COMPARED, f"Postgres counts {survey.live} live rows, the buckets read hold {ledger.rows}"
            )

    # --- L1

    def must_examine(self) -> bool:
        age = self.terms.now - self.belief.examined
        return self.terms.whole or self.ledger.rows <= EXAMINE_ALWAYS_ROWS or age + 2 * self.terms.period > self.terms.content_sweep

    def patch(self, patch: repair.Patch, read: list[Encoded]) -> View:
        """Return the view with the patch applied. Rows that were not read yet are read now, in the same snapshot."""
        if patch.is_empty:
            return self.belief.view
        known = gather([part.rows.ids for part in read])
        parts = [*read, self.read(patch.read[~np.isin(patch.read, known)])]
        chosen = [np.isin(part.rows.ids, patch.read) & (part.rows.quarantine == 0) for part in parts]
        ids = np.concatenate([part.rows.ids[wanted] for part, wanted in zip(parts, chosen, strict=True)])
        codes = np.concatenate([part.codes[wanted] for part, wanted in zip(parts, chosen, strict=True)])
        return self.belief.view.change(patch.remove, ids, codes)

    # --- the second comparison, and the positive controls

    def compare_again(
        self, changed: dict[int, Bucket], differences: dict[int, BucketDifference], ledger: Ledger, view: View, *, whole: bool, patched: Ids
    ) -> str:
        """Compare what was changed once more, both layers. Returns what still differs, "" for nothing."""
        touched = [position for position in changed if differences[position].affected.size]
        sums = self.unit.digests([self.ledger.range(position) for position in touched])
        if compare.find_different([changed[position].digest for position in touched], sums):
            return "after the repair, bucket digests still differ from Postgres"
        if not patched.size:
            return ""  # the view is the one that was compared, and nothing was found
        ids, codes = ledger.entries()
        if whole:
            left = compare.compare_index(ids, codes, *view.live_entries())
        else:
            chosen = np.isin(ids, patched)
            left = compare.compare_index(ids[chosen], codes[chosen], *view.entries_of(patched))
        return f"after the repair, {left.rows} rows of the index still differ from the ledger" if left.rows else ""

    def control(self, changed: dict[int, Bucket]) -> None:
        """Show that the check can see: without one live row, the answer of Postgres must differ by exactly that row."""
        buckets = [changed.get(position, bucket) for position, bucket in enumerate(self.ledger.buckets)]
        start = self.belief.checks % len(buckets)
        for position in (*range(start, len(buckets)), *range(start)):
            chosen = find_single(buckets[position].ids)
            if chosen is not None:
                return self.control_bucket(position, buckets[position], chosen)
        if any(bucket.rows for bucket in buckets):
            raise InconclusiveError(ProofReason.POSITIVE_CONTROL_FAILED, "no id occurs only once: there is no row to leave out")
        return None  # conclusively empty: check_survey has seen to that

    def control_bucket(self, position: int, bucket: Bucket, chosen: int) -> None:
        """Leave `chosen` out of one bucket, and compare the difference with the row as it was received."""
        rows = self.unit.rows(np.array([chosen], np.int64))
        if rows.ids.tolist() != [chosen]:
            raise InconclusiveError(ProofReason.POSITIVE_CONTROL_FAILED, f"row {chosen} was counted but could not be read")
        row = Digest(1, int(rows.digests[0, 0]), int(rows.digests[0, 1]))
        without = self.unit.digest_without(self.ledger.range(position), chosen)
        if without + row != bucket.digest:
            raise InconclusiveError(
                ProofReason.POSITIVE_CONTROL_FAILED,
                f"leaving out row {chosen} should change its bucket's digest by that row's digest, and did not",
            )


def withhold(findings: Findings) -> Findings:
    """Say what would be done, where nothing may be done."""
    pending, drift = findings.followed.rows, findings.drift.rows
    reason = ProofReason.DRIFT_SUSPENDED if drift else ProofReason.PENDING_SUSPENDED
    message = f"suspended: {drift} rows drifted and {pending} upstream changes wait"
    return replace(findings, result=Result.DRIFT, reason=reason, message=message, followed=Followed(), pending=pending)


def check_comparable(belief: Belief, unit: Unit) -> None:
    """Digests of another kind, and snapshots older than what we already know, are not compared."""
    if belief.digest_spec != unit.digest_spec:
        raise InconclusiveError(
            ProofReason.DIGEST_SPEC_DIFFERS, f"the ledger holds digests of {belief.digest_spec}, the source now gives {unit.digest_spec}"
        )
    same_life = belief.as_of.incarnation == unit.as_of.incarnation
    if same_life and snapshot_end(unit.as_of.snapshot) < snapshot_end(belief.as_of.snapshot):
        raise InconclusiveError(
            ProofReason.SNAPSHOT_WENT_BACK,
            f"the server shows snapshot {unit.as_of.snapshot}, older than {belief.as_of.snapshot} which was already seen",
        )


def snapshot_end(snapshot: str) -> int:
    """Return the xmax of a snapshot's text, `xmin:xmax:in-progress`."""
    return int(snapshot.split(":")[1])


def check_survey(survey: Survey, spec: SourceSpec, ledger_rows: int, proven_rows: int) -> None:
    """Zero rows where there should be some prove nothing."""
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
    if survey.live == 0 and max(ledger_rows, proven_rows, survey.matching) > 0:
        raise InconclusiveError(
            ProofReason.NO_LIVE_ROWS,
            f"Postgres counts no live row: {survey.matching} rows of this model key, all dead; "
            f"the ledger holds {ledger_rows} and {proven_rows} were proven last",
        )


def check_stamps(stamps: Stamps, survey: Survey, buckets: int) -> None:
    """Raise unless the buckets together hold the rows that were counted without them."""
    if stamps.counts.size != buckets or int(stamps.counts.sum()) != survey.live:
        raise InconclusiveError(
            ProofReason.BUCKET_NOT_COMPARED,
            f"Postgres counts {survey.live} live rows, {int(stamps.counts.sum())} in {stamps.counts.size} of {buckets} buckets",
        )


def check_comparer(ledger: Ledger, stamps: Stamps, moved: set[int]) -> None:
    """Show that the comparison can see: an altered copy of one bucket's sum must be named."""
    altered = Stamps(stamps.counts.copy(), stamps.sums.copy())
    altered.sums[-1] = (int(ledger.buckets[-1].measure().stamps) + 1) & MASK
    if set(compare.find_moved(ledger.buckets, altered)) != moved | {len(ledger.buckets) - 1}:
        raise InconclusiveError(
            ProofReason.POSITIVE_CONTROL_FAILED, "the comparison did not name a bucket whose sum was altered for a test"
        )


def find_due(ledger: Ledger, terms: Terms) -> set[int]:
    """Return the buckets to compare by content now: a rolling share, and whatever would be late at the next cycle."""
    buckets = len(ledger.buckets)
    share = min(buckets, math.ceil(buckets * terms.period / terms.content_sweep))
    late = np.flatnonzero(terms.now - ledger.compared + 2 * terms.period > terms.content_sweep)
    return {*np.argsort(ledger.compared, kind="stable")[:share].tolist(), *late.tolist()}


def merge_bucket(old: Bucket, heads: Heads, affected: Ids, read: Encoded) -> Bucket:
    """Return the bucket as Postgres has it: code digests of unaffected rows are kept, the others come from `read`.

    Raises InconclusiveError where Postgres and we compute different digests of the same row.
    """
    new = make_bucket(heads.ids, heads.stamps, heads.digests, np.zeros(heads.ids.size, np.uint64), np.zeros(heads.ids.size, np.uint8))
    fresh = read.to_bucket()
    renewed, kept = np.isin(new.ids, affected), ~np.isin(old.ids, affected)
    if not np.array_equal(new.ids[renewed], fresh.ids) or not np.array_equal(new.digests[renewed], fresh.digests):
        raise InconclusiveError(
            ProofReason.POSITIVE_CONTROL_FAILED, "Postgres and this replica compute different digests of the same rows in one snapshot"
        )
    new.codes[renewed], new.quarantine[renewed] = fresh.codes, fresh.quarantine
    new.codes[~renewed], new.quarantine[~renewed] = old.codes[kept], old.quarantine[kept]
    return new


def find_single(ids: Ids) -> int | None:
    """Return an id near the middle that occurs once."""
    if ids.size == 0:
        return None
    unique, counts = np.unique(ids, return_counts=True)
    single = unique[counts == 1]
    return int(single[single.size // 2]) if single.size else None


def gather(parts: list[Ids]) -> Ids:
    """Return all ids, ascending, each once."""
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
