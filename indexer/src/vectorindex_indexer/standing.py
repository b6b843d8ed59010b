"""How a replica stands, from its checks so far, and that told as parts of the status document. Does nothing about it."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from vectorindex_indexer import report
from vectorindex_indexer.belief import UNKNOWN, Belief, Findings
from vectorindex_indexer.compare import Drift
from vectorindex_indexer.guards import HeldPlan
from vectorindex_indexer.index import View
from vectorindex_indexer.keys import IdKind, to_texts
from vectorindex_indexer.ledger import NEVER
from vectorindex_indexer.names import DriftKind, ProofReason, Result, SourceReason


@dataclass
class Standing:
    """What the writer knows of its checks. Only the writer changes it; `status` reads it under the lock."""

    findings: Findings = field(
        default_factory=lambda: Findings(Result.UNKNOWN, ProofReason.NOT_CHECKED, "no check has finished yet", UNKNOWN)
    )
    checked_at: datetime | None = None
    conclusive_at: datetime | None = None
    proven_at: datetime | None = None
    proven_clock: float = NEVER  # the same, on the monotonic clock
    seconds: float = 0.0
    index_result: Result = Result.UNKNOWN  # of L1, when it was looked at last
    source_reason: SourceReason = SourceReason.NOT_TRIED
    source_message: str = ""
    drift: Drift = field(default_factory=Drift)  # what differs now
    validate_echo: str = ""
    rebuild_echo: str = ""
    attainable: float = 0.0  # seconds between two checks that keep to the share of time on Postgres
    answers_result: Result = Result.UNKNOWN  # of L2, when it was looked at last
    recall: float | None = None


def describe_proof(standing: Standing, belief: Belief | None, *, is_served: bool) -> report.Proof:
    """Return what the last check found; digests and as-of points are those of what is served, "" while nothing is."""
    findings = standing.findings
    shown = belief if is_served else None
    l0 = Result.OK if findings.result is Result.OK else findings.found.l0
    return report.Proof(
        result=findings.result,
        reason=findings.reason,
        message=findings.message,
        root_digest=str(shown.root) if shown and shown.root else "",
        as_of=to_text(shown.as_of.at) if shown else "",
        snapshot=shown.as_of.snapshot if shown else "",
        incarnation=shown.as_of.incarnation if shown else "",
        fingerprint=shown.as_of.fingerprint if shown else "",
        digest_spec=shown.digest_spec if shown else "",
        checked_at=to_text(standing.checked_at),
        conclusive_at=to_text(standing.conclusive_at),
        proven_at=to_text(standing.proven_at),
        source_rows=findings.source_rows,
        ledger_rows=belief.ledger.rows if belief else 0,
        seconds=round(standing.seconds, 3),
        layers=report.Layers(l0, standing.index_result, standing.answers_result),
        oldest_compared_at=to_text(find_oldest(belief)),
        attainable_period_seconds=round(standing.attainable, 3),
        recall=standing.recall,
    )


def describe_plan(plan: HeldPlan | None) -> report.HeldPlan | None:
    """Return what waits for approval."""
    if plan is None:
        return None
    return report.HeldPlan(
        id=plan.id,
        reason=plan.reason,
        action=plan.head.action,
        incarnation=plan.head.incarnation,
        removes=plan.removes,
        replaces=plan.replaces,
        adds=plan.adds,
        sample_ids=list(plan.sample_ids),
        held_at=to_text(plan.held_at),
    )


def describe_view(view: View) -> report.View:
    """Return the view's part of the status."""
    return report.View(
        generation=view.generation,
        rows=view.live_rows,
        delta=view.delta_rows,
        dead=view.dead_rows,
        segments=len(view.segments),
        bytes=view.bytes,
        index_type=view.spec.type,
        fallback="",
    )


def find_oldest(belief: Belief | None) -> datetime | None:
    """Return when the bucket was compared by content that was not for longest; None while one never was."""
    if belief is None or not np.isfinite(belief.ledger.compared).all():
        return None
    return datetime.now(UTC) - timedelta(seconds=time.monotonic() - float(belief.ledger.compared.min()))


def count_drift(drift: Drift) -> dict[str, int]:
    """Return rows by kind."""
    return {kind: int(getattr(drift, kind).size) for kind in DriftKind}


def name_drift(drift: Drift, kind: IdKind, limit: int) -> report.DriftSamples:
    """Return ids of rows that differ, at most so many of each kind."""
    return report.DriftSamples(**{str(one): to_texts(getattr(drift, one)[:limit], kind) for one in DriftKind})


def to_text(moment: datetime | None) -> str:
    """Return RFC 3339 in UTC with milliseconds; "" for never."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else ""
