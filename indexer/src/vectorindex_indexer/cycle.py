"""One check of a replica against its source: look, compare, decide, follow, repair, compare again, inside one database snapshot.

Given a belief (ledger and view) it returns what it found and the belief to hold from now on; publishing that is the caller's
business. Whatever it could not look at makes the result `unknown`: nothing here ever concludes from having seen nothing.

A table that takes too long for one snapshot is checked in groups of buckets, each in a short transaction of its own. A check that is
cut short goes on where it stopped.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import numpy as np

from vectorindex_indexer import compare, guards
from vectorindex_indexer.belief import (
    Belief,
    Encoded,
    Findings,
    Followed,
    InconclusiveError,
    Layers,
    Outcome,
    RepairFailedError,
    Terms,
    describe_unknown,
    encode_rows,
)
from vectorindex_indexer.compare import NO_IDS, BucketDifference, Drift, Trust, subtract, union
from vectorindex_indexer.config import HealingMode, SourceSpec
from vectorindex_indexer.controls import (
    check_comparable,
    check_comparer,
    check_content_comparer,
    check_index_comparer,
    check_matches,
    check_not_empty,
    check_stored,
)
from vectorindex_indexer.digest import Digest, sum_digests
from vectorindex_indexer.errors import NullSumError, SourceError
from vectorindex_indexer.guards import Change, HeldPlan, PlanHead
from vectorindex_indexer.keys import IdKind, Ids, among, of_values, to_texts, value_at
from vectorindex_indexer.ledger import NEVER, Bucket, Ledger, make_bucket
from vectorindex_indexer.names import ProofReason, Result
from vectorindex_indexer.pending import Entries, Pending, make_pending
from vectorindex_indexer.rows import Heads, Range, Rows, Survey, Totals
from vectorindex_indexer.source import Source, Unit

EXAMINE_ALWAYS_ROWS: Final = 50_000  # up to here comparing all of FAISS with the ledger is cheap enough for every check
CONTROL_ROWS: Final = 64  # hashed for the positive control
READ_ROWS: Final = 10_000  # ids in one read
REBUILD_SHARE: Final = 0.3  # of the rows wrong in FAISS: building anew is cheaper than patching, ...
REBUILD_FLOOR_ROWS: Final = 1000  # ... but not below this


def run_cycle(
    source: Source,
    belief: Belief,
    terms: Terms,
    announce: Callable[[Drift], None],
    *,
    publish: Callable[[Belief], None] = lambda _: None,
    rest: Callable[[float], None] = lambda _: None,
) -> Outcome:
    """Check `belief` against the source, and bring it up to date if `terms` allow. `announce` hears of drift before its repair.

    Between two groups of buckets, `publish` gets the belief so far, and `rest` is told how long Postgres was kept busy; it may raise
    StoppedError. A check that fails on the way returns the belief so far, too: the next one goes on from there.
    """
    tally = _Tally()
    try:
        while True:
            seconds, belief = _check_group(source, belief, terms, announce, tally)
            if belief.cursor is None:
                return Outcome(tally.conclude(belief, terms), belief)
            publish(belief)
            rest(seconds)
    except RepairFailedError as error:
        findings = replace(tally.conclude(belief, terms), result=Result.DRIFT, reason=ProofReason.REPAIR_FAILED, message=str(error))
        return Outcome(replace(findings, drift=error.drift), belief)
    except (InconclusiveError, NullSumError, SourceError) as error:
        plan = error.plan if isinstance(error, InconclusiveError) else None
        findings = replace(describe_unknown(error), source_seconds=tally.seconds)
        return Outcome(findings, belief if plan is None else replace(belief, plan=plan))


def _check_group(source: Source, belief: Belief, terms: Terms, announce: Callable[[Drift], None], tally: "_Tally") -> tuple[float, Belief]:
    """Check the next group of buckets in a transaction of its own."""
    started = time.monotonic()
    try:
        with source.unit(seconds=terms.deadline) as unit:
            group = _Group(unit, source.spec, belief, terms, announce)
            after = group.run(tally)
    finally:
        seconds = time.monotonic() - started
        tally.seconds += seconds
    each = seconds / max(1, group.end - group.start)
    pace = replace(after.pace, content=each) if group.hashed * 2 > group.end - group.start else replace(after.pace, look=each)
    return seconds, replace(after, pace=pace)


class _Tally:
    """What the groups of one check found together."""

    def __init__(self) -> None:
        self.source_drift: list[Drift] = []
        self.index_drift: list[Drift] = []
        self.released: list[Drift] = []
        self.followed = Followed()
        self.examined = False
        self.live = 0
        self.seconds = 0.0
        self.carried_out = ""
        self.rebuild = False

    def add(self, live: int, source_drift: Drift, index_drift: Drift) -> None:
        """Count what a group found."""
        self.live += live
        self.source_drift.append(source_drift)
        self.index_drift.append(index_drift)

    def release(self, drift: Drift) -> None:
        """Count drift of earlier checks that waited until now and was repaired."""
        self.released.append(drift)

    def follow(self, change: Change) -> None:
        """Count changes that were applied."""
        done = self.followed
        self.followed = Followed(done.inserted + change.adds.size, done.deleted + change.removes.size, done.updated + change.replaces.size)

    def conclude(self, belief: Belief, terms: Terms) -> Findings:
        """Say how the check ended."""
        waiting = belief.pending.describe_drift(belief.ledger)
        l0, l1 = (Result.DRIFT if any(part.rows for part in parts) else Result.OK for parts in (self.source_drift, self.index_drift))
        findings = Findings(
            result=Result.OK,
            reason=ProofReason.PROVEN,
            message=f"{belief.ledger.rows} live rows, all equal",
            found=Layers(l0, l1),
            examined=self.examined,
            source_rows=self.live,
            drift=compare.merge_drift([*self.source_drift, *self.index_drift, waiting, *self.released]),
            followed=self.followed,
            pending=int(belief.pending.upstream.size),
            source_seconds=self.seconds,
            carried_out=self.carried_out,
            rebuild=self.rebuild,
        )
        if not belief.pending.ids.size:
            return findings
        reason, message = self.explain_waiting(belief, terms, waiting)
        return replace(findings, result=Result.DRIFT, reason=reason, message=message)

    def explain_waiting(self, belief: Belief, terms: Terms, waiting: Drift) -> tuple[ProofReason, str]:
        """Say why something waits."""
        plan, pending = belief.plan, belief.pending.upstream.size
        if not terms.apply:
            message = f"suspended: {waiting.rows} rows drifted and {pending} upstream changes wait"
            return (ProofReason.DRIFT_SUSPENDED if waiting.rows else ProofReason.PENDING_SUSPENDED), message
        if plan is not None:
            what = f"{plan.removes} rows would be removed, {plan.replaces} replaced and {plan.adds} added"
            return plan.reason, f"held as plan {plan.id}: {what}"
        if self.rebuild:
            return ProofReason.DRIFT_FOUND, f"{waiting.rows} rows of the index are wrong: it is built anew"
        return ProofReason.REPAIR_HELD, f"{waiting.rows} rows drifted; healing.mode {terms.mode} lets nobody repair them"


class _Group:
    """The steps of a check of some buckets in one snapshot, in order, with what they share."""

    def __init__(self, unit: Unit, spec: SourceSpec, belief: Belief, terms: Terms, announce: Callable[[Drift], None]) -> None:
        self.unit = unit
        self.spec = spec
        self.terms = terms
        self.announce = announce
        seen = belief.last_read
        self.is_other_server = belief.other_server or unit.as_of.incarnation != seen.incarnation
        changed = (unit.as_of.incarnation, unit.as_of.fingerprint) != (seen.incarnation, seen.fingerprint)
        if changed:  # nothing that was read before counts any more
            belief = replace(belief, ledger=belief.ledger.make_void(), cursor=None, begun=None)
        self.belief = belief
        self.ledger = belief.ledger
        self.kind = belief.ledger.kind
        self.start, self.end = choose_group(belief, unit, terms)
        self.broken = belief.ledger.find_broken() & set(range(self.start, self.end))
        self.is_whole_table = self.start == 0 and self.end == len(self.ledger.buckets)
        self.compared: dict[int, float] = {}  # buckets compared by content in this group
        self.hashed = 0  # buckets that Postgres hashed
        self.heads: dict[int, Heads] = {}
        self.changed: dict[int, Bucket] = {}
        self.view = belief.view
        self.approved = ""  # id of the plan that is carried out

    def run(self, tally: _Tally) -> Belief:
        """Do all steps. Raises InconclusiveError, RepairFailedError, NullSumError or SourceError."""
        differences, live, due = self.compare_source()
        looked = self.choose_to_examine(due)
        wrong = [self.examine(looked), *(self.follow_broken(position, differences[position]) for position in sorted(self.broken))]
        source_drift = compare.merge_drift([difference.drift for difference in differences.values()])
        index_drift = compare.merge_drift(wrong).without(source_drift.ids)
        tally.add(live, source_drift, index_drift)
        tally.examined |= bool(looked or self.broken)

        upstream = union(union([each.inserted, each.deleted, each.updated]) for each in differences.values())
        waiting = self.find_pending(self.start, self.end).describe_drift(self.ledger).without(index_drift.ids).without(source_drift.ids)
        decision = self.decide(upstream, source_drift, index_drift)
        found = compare.merge_drift([source_drift, index_drift])
        if found.rows:
            self.announce(found)
        self.apply(differences, decision.apply)
        self.check_complete(live)
        ledger = self.ledger.replace(self.changed, compared=self.compared, valid=range(self.start, self.end))
        self.compare_again(ledger, differences, decision.apply, found)
        self.control()
        tally.follow(decision.followed)
        if not decision.wait_drift.size:
            tally.release(waiting)
        return self.conclude(ledger, decision, tally)

    # --- L0

    def compare_source(self) -> tuple[dict[int, BucketDifference], int, set[int]]:
        """Look at every bucket, and row by row into those that moved, broke their seal, or differ in content.

        Returns the differences by position, the live rows, and the buckets that were due for a comparison by content.
        """
        totals = self.look()
        if totals is not None:
            self.check_survey(int(totals.counts.sum()))
        moved = set() if totals is None else self.find_moved(totals)
        due = self.find_due(totals)
        by_content = sorted(due - moved - self.broken)
        sums = self.digest(by_content)
        self.compared |= dict.fromkeys(by_content, self.terms.now)
        if totals is not None and totals.digests is not None:
            check_stored(totals.digests, {position - self.start: digest for position, digest in zip(by_content, sums, strict=True)})
        ours = [self.ledger.buckets[position].digest for position in by_content]
        unlike = compare.find_different(ours, sums)
        check_content_comparer(ours, sums, unlike)
        different = {by_content[place] for place in unlike}
        differences = {position: self.compare_rows(position, totals) for position in sorted(moved | self.broken | different)}
        if totals is not None:
            live = int(totals.counts.sum())
        else:
            live = sum(digest.count for digest in sums) + sum(self.heads[position].ids.size for position in self.broken)
            self.check_survey(live)
        return differences, live, due

    def find_due(self, totals: Totals | None) -> set[int]:
        """Return the buckets whose rows are hashed now: all of them, where nothing else tells whether their content is the same."""
        everything = set(range(self.start, self.end))
        if totals is None or self.terms.from_bytes:
            return everything
        if totals.digests is None and (self.terms.whole or self.ledger.void[self.start : self.end].any()):
            return everything
        return find_due(self.ledger, self.terms, range(self.start, self.end), totals.digests is not None)

    def look(self) -> Totals | None:
        """Count the rows of each bucket and add up their stamps or stored digests; None where the source has neither."""
        if not (self.unit.has_stamps or self.unit.has_stored_digests):
            return None
        totals = self.unit.totals(self.ledger.bounds[self.start : self.end - 1], self.ledger.span(self.start, self.end))
        if totals.counts.size != self.end - self.start:
            raise InconclusiveError(
                ProofReason.BUCKET_NOT_COMPARED, f"{self.end - self.start} buckets were asked for, {totals.counts.size} were answered"
            )
        return totals

    def find_moved(self, totals: Totals) -> set[int]:
        """Return the buckets that differ, and show that the comparison can see."""
        seals = self.ledger.seals[self.start : self.end]
        moved = set(compare.find_moved(seals, totals))
        check_comparer(seals, totals, moved)
        return {self.start + place for place in moved}

    def digest(self, positions: list[int]) -> list[Digest]:
        """Digest buckets from the bytes."""
        sums = self.unit.digests([self.ledger.range(position) for position in positions])
        if len(sums) != len(positions):
            raise InconclusiveError(
                ProofReason.BUCKET_NOT_COMPARED,
                f"{len(positions)} buckets were due for a comparison by content, {len(sums)} were answered",
            )
        self.hashed += len(positions)
        return sums

    def compare_rows(self, position: int, totals: Totals | None) -> BucketDifference:
        """Compare one bucket row by row."""
        heads = self.heads[position] = self.unit.heads(self.ledger.range(position))
        self.hashed += 1
        if totals is not None and totals.digests is not None:
            check_stored(totals.digests, {position - self.start: sum_digests(heads.digests)})
        self.compared[position] = self.terms.now
        # Without stamps nobody can tell who changed a row: it counts as a change upstream.
        is_void = self.ledger.void[position] or not self.unit.has_stamps
        trust = Trust.BROKEN if position in self.broken else Trust.VOID if is_void else Trust.HOLD
        return compare.compare_bucket(self.ledger.buckets[position], heads, trust)

    def check_survey(self, live: int) -> None:
        """Zero rows where there should be some prove nothing, unless somebody approved just that. Nor do digests of another kind."""
        survey = self.unit.survey(live)
        check_matches(survey, self.spec)
        if self.is_whole_table:  # a single group may well be empty
            self.check_not_empty(survey)
        check_comparable(self.belief, self.unit)

    def check_not_empty(self, survey: Survey) -> None:
        """Believe that there is no live row where there were some only if somebody approved of just that."""
        try:
            check_not_empty(survey, self.ledger.rows, self.terms.last_proven_rows)
        except InconclusiveError as error:
            plan = self.freeze(ProofReason.CHANGE_HELD, Change(removes=union([self.ledger.entries()[0]])))
            if plan.id not in self.terms.approved:
                raise InconclusiveError(error.reason, f"{error.message}; if that is right, approve plan {plan.id}", plan) from None
            self.approved = plan.id

    # --- L1

    def choose_to_examine(self, due: set[int]) -> set[int]:
        """Return the buckets of which FAISS is compared with the ledger: all, or those that are due. Broken ones are left out."""
        everything = self.terms.whole or self.ledger.rows <= EXAMINE_ALWAYS_ROWS or self.counts_differ()
        return (set(range(self.start, self.end)) if everything else due) - self.broken

    def examine(self, positions: set[int]) -> Drift:
        """Compare FAISS with the ledger as it was."""
        check_index_comparer(self.ledger.buckets[position] for position in sorted(positions))
        if self.is_whole_table and len(positions) == len(self.ledger.buckets):
            return self.examine_entries(self.ledger.entries(), self.view.live_entries(), self.belief.pending)
        return compare.merge_drift([self.examine_span(start, end) for start, end in find_spans(positions)])

    def counts_differ(self) -> bool:
        """Whether FAISS holds more or fewer rows than it should: then something is wrong somewhere."""
        pending = self.belief.pending
        wanted = sum(int(np.count_nonzero(bucket.indexed)) for bucket in self.ledger.buckets)
        wanted += pending.shown[0].size - self.ledger.entries_of(pending.ids)[0].size
        return self.view.live_rows != wanted

    def examine_span(self, start: int, end: int) -> Drift:
        actual = self.view.entries_between(self.ledger.span(start, end))
        return self.examine_entries(self.ledger.entries(start, end), actual, self.find_pending(start, end))

    def examine_entries(self, wanted: Entries, actual: Entries, pending: Pending) -> Drift:
        """Compare entries; rows of the pending list must be as they are remembered."""
        if not pending.ids.size:
            return compare.compare_index(*wanted, *actual)
        free, held = ~among(wanted[0], pending.ids), among(actual[0], pending.ids)
        drift = compare.compare_index(wanted[0][free], wanted[1][free], actual[0][~held], actual[1][~held])
        unlike = compare.find_unlike(pending.shown, (actual[0][held], actual[1][held]))
        return compare.merge_drift([drift, Drift(changed=unlike)])

    def follow_broken(self, position: int, difference: BucketDifference) -> Drift:
        """Make a bucket anew that broke its seal; nothing it says of its rows is worth anything. Returns what FAISS has wrong of it."""
        old, new = self.ledger.buckets[position], self.heads[position]
        everything = union([old.ids, new.ids])
        bucket = self.changed[position] = merge_bucket(old, new, everything, self.read(np.unique(new.ids), put=NO_IDS))
        actual = self.view.entries_between(self.ledger.range(position))
        return self.examine_entries(bucket.entries, actual, self.find_pending(position, position + 1)).without(difference.affected)

    # --- the decision

    def decide(self, upstream: Ids, source_drift: Drift, index_drift: Drift) -> "_Decision":
        """Choose what is applied now, and what waits."""
        pending = self.find_pending(self.start, self.end)
        drift = union([source_drift.ids, index_drift.ids, pending.drift])
        upstream = subtract(union([upstream, pending.upstream]), drift)
        change = self.describe_change(union([upstream, source_drift.ids]))
        plan = self.find_hold(change)
        mode, apply = self.terms.mode, self.terms.apply
        if plan is None and apply and drift.size and mode is HealingMode.PLAN:
            plan = self.freeze(ProofReason.REPAIR_HELD, self.describe_change(drift))
        is_approved = plan is not None and plan.id in self.terms.approved
        is_repair = plan is not None and plan.reason is ProofReason.REPAIR_HELD
        follows = apply and (plan is None or is_repair or is_approved)
        repairs = follows and (mode is HealingMode.AUTO or (is_repair and is_approved))
        rebuild = repairs and index_drift.rows > max(REBUILD_FLOOR_ROWS, REBUILD_SHARE * self.ledger.rows)
        repairs = repairs and not rebuild
        return _Decision(
            apply=union([upstream if follows else NO_IDS, drift if repairs else NO_IDS]),
            wait_upstream=NO_IDS if follows else upstream,
            wait_drift=NO_IDS if repairs else drift,
            followed=change.only(upstream) if follows else Change(),
            plan=plan,
            is_approved=is_approved,
            rebuild=rebuild,
        )

    def find_hold(self, change: Change) -> HeldPlan | None:
        """Return the plan to be approved first, if the change upstream is one of those that nobody may make silently."""
        if not self.terms.apply:
            return None
        waiting = self.describe_waiting()  # what waits in other groups belongs to the same plan
        change = Change(*(union(parts) for parts in zip(change.parts, waiting.parts, strict=True)))
        former = self.belief.plan
        regressed = self.is_other_server or (former is not None and former.reason is ProofReason.SOURCE_REGRESSED)
        if regressed and change.removes.size:
            return self.freeze(ProofReason.SOURCE_REGRESSED, change)
        if guards.is_too_large(change, self.view.live_rows, self.terms.limits):
            return self.freeze(ProofReason.CHANGE_HELD, change)
        return None

    def describe_waiting(self) -> Change:
        """Return what the changes upstream would do that wait in other groups."""
        ids = self.belief.pending.upstream
        ids = subtract(ids, self.inside(ids))
        return guards.describe_change(ids, self.belief.pending.only(ids).shown[0], self.ledger.entries_of(ids)[0])

    def freeze(self, reason: ProofReason, change: Change) -> HeldPlan:
        """Return the plan for a change; the former one, where that still stands for it."""
        head = PlanHead(self.terms.uid, reason, "patch", self.unit.as_of.incarnation)
        return guards.freeze(guards.make_plan(head, change, self.kind, datetime.now(UTC)), self.belief.plan, self.terms.limits)

    def describe_change(self, ids: Ids) -> Change:
        """Return what bringing some rows up to date does to what is shown."""
        return guards.describe_change(ids, self.view.entries_of(ids)[0], self.find_live(ids))

    def find_live(self, ids: Ids) -> Ids:
        """Return those of some ids, ascending, that the source has."""
        return union(
            some[among(some, self.heads[position].ids if position in self.heads else self.ledger.buckets[position].ids)]
            for position, some in self.ledger.by_bucket(ids)
        )

    def inside(self, ids: Ids) -> Ids:
        """Return the ids, ascending, that fall in the range of this group."""
        return self.find_between(ids, self.start, self.end)

    def find_between(self, ids: Ids, start: int, end: int) -> Ids:
        """Return the ids, ascending, that fall in the ranges of some buckets."""
        return union(some for position, some in self.ledger.by_bucket(ids) if start <= position < end)

    def find_pending(self, start: int, end: int) -> Pending:
        """Return the part of the pending list that is about rows of some buckets."""
        return self.belief.pending.only(self.find_between(self.belief.pending.ids, start, end))

    # --- following and repairing

    def apply(self, differences: dict[int, BucketDifference], ids: Ids) -> None:
        """Bring the ledger up to date, and of the view the rows `ids`; one bucket at a time, so that few vectors are held."""
        mine = dict(self.ledger.by_bucket(ids))
        for position in sorted(differences.keys() - self.broken):
            old, new, some = self.ledger.buckets[position], self.heads[position], mine.pop(position, NO_IDS)
            affected = union([differences[position].affected, some])
            rows = self.read(affected[among(affected, new.ids)], put=some)
            self.changed[position] = merge_bucket(old, new, affected, rows)
            self.put(some, rows)
        left = union(mine.values())
        for start in range(0, left.size, READ_ROWS):  # those of many buckets together: a query for each would cost more than its rows
            some = left[start : start + READ_ROWS]
            rows = self.read(self.find_live(some), put=some)
            self.recode(rows)
            self.put(some, rows)

    def recode(self, rows: Encoded) -> None:
        """Let the ledger have the code digests of rows that move into the delta and are what they were."""
        for position, ids in self.ledger.by_bucket(np.unique(rows.rows.ids)):
            bucket = self.changed.get(position, self.ledger.buckets[position])
            here = among(rows.rows.ids, ids)
            renewed = bucket.recode(rows.rows.ids[here], rows.digests[here])
            if not np.array_equal(renewed.codes, bucket.codes):
                self.changed[position] = renewed

    def put(self, ids: Ids, rows: Encoded) -> None:
        """Let the view show of `ids` what was read, and nothing of what wasn't."""
        if not ids.size:
            return
        chosen = among(rows.rows.ids, ids) & (rows.rows.quarantine == 0)
        self.view = self.view.change(ids, rows.rows.ids[chosen], rows.codes[chosen])

    def read(self, ids: Ids, put: Ids) -> Encoded:
        """Read rows with their vectors, in portions, and encode them. Those in `put` are on their way into the delta.

        What an index stores of a row, and so its code digest, depends on the part that holds it.
        """
        spec = self.view.spec
        parts = [self.unit.rows(ids[start : start + READ_ROWS]) for start in range(0, ids.size, READ_ROWS)]
        encoded = encode_rows(Rows.concatenate(parts, spec.dimension, self.kind), spec.metric)
        held = ~among(encoded.rows.ids, put) & (encoded.rows.quarantine == 0)
        encoded.digests[held] = self.view.foretell(encoded.rows.ids[held], encoded.codes[held])
        return encoded

    def check_complete(self, live: int) -> None:
        """Every live row that Postgres counted must now be in the ledger, and no other."""
        rows = sum(self.changed.get(position, self.ledger.buckets[position]).rows for position in range(self.start, self.end))
        if rows != live:
            raise InconclusiveError(ProofReason.BUCKET_NOT_COMPARED, f"Postgres counts {live} live rows, the buckets read hold {rows}")

    # --- the second comparison, and the positive control

    def compare_again(self, ledger: Ledger, differences: dict[int, BucketDifference], applied: Ids, found: Drift) -> None:
        """Compare what was changed once more, both layers."""
        touched = [
            position
            for position in sorted(self.changed)
            if position in self.broken or (position in differences and differences[position].affected.size)
        ]
        if compare.find_different([self.changed[position].digest for position in touched], self.digest(touched)):
            raise RepairFailedError("after the repair, bucket digests still differ from Postgres", found)
        left = compare.compare_index(*ledger.entries_of(applied), *self.view.entries_of(applied))
        if left.rows:
            raise RepairFailedError(f"after the repair, {left.rows} rows of the index still differ from the ledger", left)

    def control(self) -> None:
        """Show that the check can see: without one live row, the answer of Postgres must differ by exactly that row."""
        positions = range(self.start, self.end)
        first = self.start + self.belief.checks % len(positions)
        buckets = {position: self.changed.get(position, self.ledger.buckets[position]) for position in positions}
        for position in (*range(first, self.end), *range(self.start, first)):
            chosen = find_single(buckets[position].ids, self.kind)
            if chosen is not None:
                return self.control_bucket(position, buckets[position], chosen)
        if any(bucket.rows for bucket in buckets.values()):
            raise InconclusiveError(ProofReason.POSITIVE_CONTROL_FAILED, "no id occurs only once: there is no row to leave out")
        return None  # conclusively empty: check_survey has seen to that

    def control_bucket(self, position: int, bucket: Bucket, chosen: int | bytes) -> None:
        """Leave `chosen` out of some rows of one bucket, and compare the difference with the row as it was received."""
        rows = self.unit.rows(of_values([chosen], self.kind))
        (name,) = to_texts(of_values([chosen], self.kind), self.kind)
        if len(rows) != 1 or value_at(rows.ids, 0, self.kind) != chosen:
            raise InconclusiveError(ProofReason.POSITIVE_CONTROL_FAILED, f"row {name} was counted but could not be read")
        start, end = find_run(bucket.ids, rows.ids)
        high = value_at(bucket.ids, end, self.kind) if end < bucket.rows else self.ledger.range(position).high
        without = self.unit.digest_without(Range(chosen, high), chosen)
        if without + sum_digests(rows.digests) != sum_digests(bucket.digests[start:end]):
            raise InconclusiveError(
                ProofReason.POSITIVE_CONTROL_FAILED,
                f"leaving out row {name} should change the digest of its rows by that row's digest, and did not",
            )

    # --- what to believe from now on

    def conclude(self, ledger: Ledger, decision: "_Decision", tally: _Tally) -> Belief:
        """Return ledger, view and what waits, with the points of the source's history that they show."""
        former, as_of = self.belief, self.unit.as_of
        pending = self.keep_waiting(ledger, decision)
        if decision.is_approved and decision.plan is not None:
            self.approved = decision.plan.id
        if not pending.ids.size:
            tally.carried_out = self.approved or tally.carried_out
        tally.rebuild |= decision.rebuild
        is_last = self.end == len(self.ledger.buckets)
        begun = as_of if self.start == 0 or former.begun is None else former.begun
        after = replace(
            former,
            ledger=ledger,
            view=self.view,
            digest_spec=self.unit.digest_spec,
            latest=as_of,
            checks=former.checks + 1,
            pending=pending,
            plan=decision.plan if pending.ids.size else None,
            cursor=None if is_last else self.ledger.span(self.start, self.end).high,
            begun=None if is_last else begun,
            other_server=self.is_other_server and not is_last,
        )
        if pending.upstream.size:  # the view shows what it showed
            return after
        if is_last:
            root, latest = (ledger.root, None) if self.is_whole_table else (None, as_of)
            return replace(after, as_of=begun, latest=latest, root=root)
        return after if self.view is former.view and not self.changed else replace(after, root=None)

    def keep_waiting(self, ledger: Ledger, decision: "_Decision") -> Pending:
        """Return the pending list: what was held here, as far as it still differs, and what waits elsewhere."""
        former = self.belief.pending
        elsewhere = former.only(subtract(former.ids, self.inside(former.ids)))
        ids = union([decision.wait_upstream, decision.wait_drift])
        shown = self.view.entries_of(ids)
        here = make_pending(decision.wait_upstream, decision.wait_drift, shown)
        return elsewhere.join(here.only(compare.compare_index(*ledger.entries_of(ids), *shown).ids))


@dataclass(frozen=True, eq=False)
class _Decision:
    """What is done about the rows of a group that differ."""

    apply: Ids
    wait_upstream: Ids
    wait_drift: Ids
    followed: Change
    plan: HeldPlan | None
    is_approved: bool
    rebuild: bool


def choose_group(belief: Belief, unit: Unit, terms: Terms) -> tuple[int, int]:
    """Return the buckets to check in one transaction: all, where that is quick enough or no index serves ranges."""
    buckets = len(belief.ledger.buckets)
    start = min(belief.ledger.position_of(belief.cursor), buckets - 1)
    by_content = not unit.has_stored_digests and (terms.whole or terms.from_bytes or not unit.has_stamps or belief.ledger.void.any())
    each = belief.pace.content if by_content else belief.pace.look
    if not unit.id_index or (start == 0 and each * buckets <= terms.snapshot_seconds):
        return start, buckets
    return start, min(buckets, start + max(1, int(terms.group_seconds / max(each, 1e-6))))


def find_due(ledger: Ledger, terms: Terms, positions: range, has_stored: bool) -> set[int]:
    """Return the buckets to compare by content now: a rolling share, and whatever would be late at the next check.

    After a start no bucket has been compared yet. Where digest columns speak for all of them, that makes none late: their turn comes
    within a sweep.
    """
    compared = ledger.compared[positions.start : positions.stop]
    share = min(len(positions), math.ceil(len(positions) * terms.period / terms.content_sweep))
    late = terms.now - compared + 2 * terms.period > terms.content_sweep
    if has_stored:
        late &= compared != NEVER
    # Another place to begin at after each start, so that those at the end are not always the ones that wait.
    places = np.roll(np.arange(len(positions)), -int(terms.now / terms.period) % max(1, len(positions)))
    oldest = places[np.argsort(compared[places], kind="stable")[:share]]
    return {positions.start + int(place) for place in (*oldest, *np.flatnonzero(late))}


def find_spans(positions: Iterable[int]) -> list[tuple[int, int]]:
    """Return runs of neighbours, as (first, behind the last)."""
    spans: list[tuple[int, int]] = []
    for position in sorted(positions):
        if spans and spans[-1][1] == position:
            spans[-1] = (spans[-1][0], position + 1)
        else:
            spans.append((position, position + 1))
    return spans


def merge_bucket(old: Bucket, heads: Heads, affected: Ids, read: Encoded) -> Bucket:
    """Return the bucket as Postgres has it: code digests of unaffected rows are kept, the others come from `read`.

    Raises InconclusiveError where Postgres and we compute different digests of the same row.
    """
    new = make_bucket(heads.ids, heads.stamps, heads.digests, np.zeros(heads.ids.size, np.uint64), np.zeros(heads.ids.size, np.uint8))
    fresh = read.to_bucket()
    renewed, kept = among(new.ids, affected), ~among(old.ids, affected)
    if not np.array_equal(new.ids[renewed], fresh.ids) or not np.array_equal(new.digests[renewed], fresh.digests):
        raise InconclusiveError(
            ProofReason.POSITIVE_CONTROL_FAILED, "Postgres and this replica compute different digests of the same rows in one snapshot"
        )
    new.codes[renewed], new.quarantine[renewed] = fresh.codes, fresh.quarantine
    new.codes[~renewed], new.quarantine[~renewed] = old.codes[kept], old.quarantine[kept]
    return new


def find_run(ids: Ids, first: Ids) -> tuple[int, int]:
    """Return where some rows start that begin with one id, and where they end: never between two rows of one id."""
    start = int(np.searchsorted(ids, first[:1])[0])
    end = min(start + CONTROL_ROWS, ids.size)
    return start, int(np.searchsorted(ids, ids[end])) if end < ids.size else end


def find_single(ids: Ids, kind: IdKind) -> int | bytes | None:
    """Return an id near the middle that occurs once."""
    unique, counts = np.unique(ids, return_counts=True)
    single = unique[counts == 1]
    return value_at(single, single.size // 2, kind) if single.size else None
