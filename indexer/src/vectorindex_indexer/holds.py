"""What one replica holds, and what was approved: the memory behind `guards`, from check to check. Decides nothing about single rows."""

import logging
import time
from collections import deque
from datetime import UTC, datetime
from typing import Final

from vectorindex_indexer import guards
from vectorindex_indexer.belief import UNKNOWN, Belief, Findings, InconclusiveError, describe_unknown
from vectorindex_indexer.config import Behaviour
from vectorindex_indexer.controls import check_not_older
from vectorindex_indexer.guards import HeldPlan, Limits, PlanHead
from vectorindex_indexer.names import ProofReason, Result

LOG = logging.getLogger(__name__)

ROWS_WINDOW_SECONDS: Final = 86400.0  # the rows of this time are what a large change is measured against
MOST_CARRIED_OUT: Final = 20  # plans that are remembered as used up


class Holds:
    """The plans of one index that were carried out, the one that keeps a new index from being served, and the rows of the last day.

    Plans about rows of the index that is served stand in its `Belief`.
    """

    def __init__(self, uid: str) -> None:
        self._uid = uid
        self._rows = RowsHistory()
        self.carried_out: deque[str] = deque(maxlen=MOST_CARRIED_OUT)  # newest first: an approval counts once
        self.plan: HeldPlan | None = None

    def limits(self, behaviour: Behaviour) -> Limits:
        """Return what may be done without asking."""
        return Limits(behaviour.healing.max_change, self._rows.most(time.monotonic()))

    def approvals(self, behaviour: Behaviour) -> frozenset[str]:
        """Return the plans that somebody approved and that were not carried out yet."""
        return frozenset(behaviour.wishes.approved_plans) - frozenset(self.carried_out)

    def forget_unnamed(self, behaviour: Behaviour) -> None:
        """Forget used-up approvals that are no longer named: taken back and given again, an approval is a new one."""
        named = behaviour.wishes.approved_plans
        self.carried_out = deque((plan for plan in self.carried_out if plan in named), MOST_CARRIED_OUT)

    def note(self, rows: int) -> None:
        """Remember how many rows there are."""
        self._rows.add(time.monotonic(), rows)

    def use_up(self, plan: str) -> None:
        """Note that an approved plan was carried out: what it took away counts no more."""
        self.carried_out.appendleft(plan)
        self._rows.forget()
        self.plan = None

    def may_replace(self, former: Belief, candidate: Belief, behaviour: Behaviour) -> bool:
        """Whether a new index may take the place of the former one: not silently, where it lacks or changes too much."""
        change = guards.compare_ledgers(former.ledger, candidate.ledger, by_content=former.digest_spec == candidate.digest_spec)
        if candidate.as_of.incarnation != former.last_read.incarnation and change.removes.size:
            reason = ProofReason.SOURCE_REGRESSED
        elif guards.is_too_large(change, former.ledger.rows, self.limits(behaviour)):
            reason = ProofReason.CHANGE_HELD
        else:
            return True
        head = PlanHead(self._uid, reason, "rebuild", candidate.as_of.incarnation)
        return self._is_approved(guards.make_plan(head, change, candidate.ledger.kind, datetime.now(UTC)), behaviour)

    def judge_without_memory(self, belief: Belief, behaviour: Behaviour) -> Findings | None:
        """Return what speaks against serving an index that this replica can't compare with a former one of its own.

        What the operator remembers of the last proof stands in for it.
        """
        proven = behaviour.last_proven
        if proven is None or proven.digest_spec != belief.digest_spec:
            return None
        try:
            check_not_older(belief.last_read, proven.incarnation, proven.snapshot)
        except InconclusiveError as error:
            return describe_unknown(error)
        lost = proven.rows - belief.ledger.rows
        regressed = belief.last_read.incarnation != proven.incarnation
        if lost <= (0 if regressed else guards.count_allowed(self.limits(behaviour), proven.rows)):
            return None
        reason = ProofReason.SOURCE_REGRESSED if regressed else ProofReason.CHANGE_HELD
        plan = guards.make_count_plan(PlanHead(self._uid, reason, "replace", belief.last_read.incarnation), lost, datetime.now(UTC))
        if self._is_approved(plan, behaviour):
            return None
        return Findings(Result.DRIFT, reason, explain_plan(plan), UNKNOWN, source_rows=belief.ledger.rows)

    def _is_approved(self, plan: HeldPlan, behaviour: Behaviour) -> bool:
        """Whether somebody approved to serve a new index in spite of what it lacks; else hold it."""
        if plan.id in self.approvals(behaviour):
            self.use_up(plan.id)
            return True
        if self.plan is None or self.plan.id != plan.id:
            self.plan = plan
            LOG.warning("the new index waits for approval: %s", explain_plan(plan), extra={"reason": str(plan.reason)})
        return False


def explain_plan(plan: HeldPlan) -> str:
    """Say what a plan for a new index would do, for people."""
    return f"held as plan {plan.id}: {plan.removes} rows would be gone, {plan.replaces} replaced"


class RowsHistory:
    """The largest number of rows of the last 24 hours, from what each check counted."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()  # rows fall from left to right: a smaller earlier number is never the largest

    def add(self, now: float, rows: int) -> None:
        """Remember a count."""
        while self._counts and self._counts[-1][1] <= rows:
            self._counts.pop()
        self._counts.append((now, rows))

    def most(self, now: float) -> int:
        """Return the largest count that is not too old; 0 without any."""
        while self._counts and now - self._counts[0][0] > ROWS_WINDOW_SECONDS:
            self._counts.popleft()
        return self._counts[0][1] if self._counts else 0

    def forget(self) -> None:
        """Start anew: somebody approved of what went."""
        self._counts.clear()
