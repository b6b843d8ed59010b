"""Decides what is written into a VectorIndex for what a person asks, and tells whether it was answered. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from vectorindex_cli.errors import UsageError
from vectorindex_cli.names import APPROVE_PLAN, MOST_PLANS
from vectorindex_cli.resource import HeldPlan, Json, VectorIndex, parse_time

_PLAN_ID: Final = re.compile(r"[0-9a-f]{16}")
_NEAR: Final = timedelta(minutes=1)


def choose_moment(earlier: str | None, now: datetime) -> str:
    """Return the time to wish for: now, and later than the wish before, as a time answered once is not answered again."""
    before = parse_time(earlier)
    if before and now <= before < now + _NEAR:
        now = before + timedelta(seconds=1)
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def build_annotation(name: str, value: str | None, resource_version: str = "") -> Json:
    """Return a merge patch; with a resource version it is refused if the object changed since."""
    metadata: Json = {"annotations": {name: value}}
    return {"metadata": metadata | ({"resourceVersion": resource_version} if resource_version else {})}


def is_answered(echo: str | None, wished: str) -> bool:
    """Tell whether the echo in the status answers this wish or a later one."""
    echoed, moment = parse_time(echo), parse_time(wished)
    return echoed is not None and moment is not None and echoed >= moment


@dataclass(frozen=True)
class Approval:
    """What an approval changes."""

    plans: tuple[HeldPlan, ...]  # that were named
    used_up: tuple[str, ...]  # of these, approved before and carried out: the annotation has to forget them first
    without: str | None  # the annotation without these
    annotation: str  # the annotation with all of them

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return any(not plan.approved for plan in self.plans)


def plan_approval(index: VectorIndex, wanted: Sequence[str]) -> Approval:
    """Return what to write so that these plans are approved beside those that are and were not carried out.

    Raises UsageError for an id that no replica holds, and for more ids than the operator reads.
    """
    held = {plan.id: plan for plan in index.status.held_plans}
    unknown = [one for one in wanted if one not in held]
    if unknown:
        known = f"held are: {', '.join(held)}" if held else "no replica holds a plan"
        raise UsageError(f"VectorIndex {index} has no held plan {', '.join(unknown)}; {known}. Nothing was approved")
    named = tuple(dict.fromkeys(wanted))
    used = tuple(one for one in named if one in index.status.approved_plans)
    kept = [one for one in _parse_plans(index.metadata.annotations.get(APPROVE_PLAN, "")) if one not in index.status.approved_plans]
    every = tuple(dict.fromkeys([*kept, *named]))
    if len(every) > MOST_PLANS:  # what nobody holds any more goes first
        every = tuple(one for one in every if one in held)
    if len(every) > MOST_PLANS:
        raise UsageError(
            f"VectorIndex {index} would have {len(every)} approved plans, and {MOST_PLANS} at most are read. Nothing was approved"
        )
    return Approval(
        plans=tuple(held[one] for one in named),
        used_up=used,
        without=_join(one for one in every if one not in used),
        annotation=",".join(every),
    )


def _parse_plans(text: str) -> tuple[str, ...]:
    parts = (part.strip() for part in text.split(","))
    return tuple(dict.fromkeys(part for part in parts if _PLAN_ID.fullmatch(part)))


def _join(ids: Iterable[str]) -> str | None:
    return ",".join(ids) or None
