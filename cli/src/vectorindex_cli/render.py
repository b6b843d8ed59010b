"""Turns a VectorIndex into what people read. Pure: the time and whether to paint come in."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from vectorindex_cli.bundle import Bundle
from vectorindex_cli.names import ConditionStatus, ConditionType
from vectorindex_cli.resource import (
    Condition,
    Drift,
    HeldPlan,
    Judgement,
    Member,
    Repair,
    VectorIndex,
    Verdict,
    format_age,
    judge,
    parse_time,
)

_GREEN, _YELLOW, _RED, _BOLD = 32, 33, 31, 1
_VERDICTS: Final = {
    Verdict.CONSISTENT: ("consistent", _GREEN),
    Verdict.DRIFT: ("not consistent", _RED),
    Verdict.UNKNOWN: ("unknown", _YELLOW),
}
_SHOWN_IDS: Final = 3


class Cell(NamedTuple):
    """One entry of a table, and the colour it has where colours are wished."""

    text: str
    colour: int = 0


class Painter:
    """Paints, or does not."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def paint(self, text: str, colour: int) -> str:
        """Return the text in this colour."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours and colour else text

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> list[str]:
        """Return the lines of a table; the last column is not padded."""
        every = [[Cell(title, _BOLD) for title in head], *(list(row) for row in rows)]
        clean = [[Cell(printable(cell.text), cell.colour) for cell in row] for row in every]
        widths = [max(len(row[column].text) for row in clean) for column in range(len(head))]
        return [self._line(row, widths) for row in clean]

    def _line(self, row: Sequence[Cell], widths: Sequence[int]) -> str:
        padded = (self.paint(cell.text, cell.colour) + " " * (width - len(cell.text)) for cell, width in zip(row, widths, strict=True))
        return "  " + "  ".join(padded).rstrip()


def printable(text: str) -> str:
    """Return the text without what would steer a terminal: ids of rows and messages come from elsewhere."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def render_status(index: VectorIndex, now: datetime, painter: Painter) -> str:
    """Return the whole of `status`."""
    parts = [
        _summary(index, now, painter),
        ["Conditions", *painter.table(("TYPE", "STATUS", "REASON", "FOR", "MESSAGE"), _conditions(index, now))],
        ["Replicas", *painter.table(_REPLICA_HEAD, _replicas(index, now)), *_remarks(index)],
        _held_plans(index, now, painter),
        _repairs(index, now, painter),
    ]
    return "\n\n".join("\n".join([painter.paint(part[0], _BOLD), *part[1:]]) for part in parts if len(part) > 1)


def render_verdict(index: VectorIndex, now: datetime, painter: Painter) -> str:
    """Return the one line that ends a wait."""
    return f"{index}: {_verdict(index, judge(index, now), painter)}"


def render_diff(index: VectorIndex, now: datetime, limit: int, painter: Painter) -> str:
    """Return which rows differ in which replica, as far as the status names them, and as of when that was so."""
    judgement = judge(index, now)
    members = index.status.members
    rows = [row for member in members for row in _differing(member, limit)]
    parts = [painter.paint(f"VectorIndex {index}", _BOLD), f"  {_verdict(index, judgement, painter)}"]
    if rows:
        parts += ["", *painter.table(("POD", "KIND", "ROWS", "IDS"), rows)]
    elif judgement.verdict is Verdict.CONSISTENT:
        parts += ["", "  No row differs"]
    known = [_describe_knowledge(index, member, now) for member in members]
    return "\n".join([*parts, "", *known, f"  To look again: kubectl vectorindex validate {index.arguments} --wait"])


def _differing(member: Member, limit: int) -> Iterable[Sequence[Cell]]:
    for kind, rows in (member.drift.kinds if member.drift else {}).items():
        ids = getattr(member.drift_samples, kind)[:limit]
        more = ", ..." if ids and rows > len(ids) else ""
        yield Cell(member.pod), Cell(kind, _RED), Cell(str(rows)), Cell(", ".join(ids) + more or "-")


def _describe_knowledge(index: VectorIndex, member: Member, now: datetime) -> str:
    """Return what is known of a replica beyond the rows, and as of when."""
    since = f"as of {member.as_of}, {_ago(member.as_of, now)} ago" if member.as_of else "without an index yet"
    if member.held_plan:
        what = f"holds plan {member.held_plan.id}, see `kubectl vectorindex plan {index.arguments}`"
    elif member.result == "ok":
        what = "compared"
    elif member.result == "drift":
        what = "differs" if member.drift and member.drift.kinds else f"{member.reason}: {member.message}"
    else:
        what = f"could not look, {member.reason or member.state}: {member.message or 'it has not said why'}"
    return printable(f"  {member.pod}: {what}; {since}")


def render_report(bundle: Bundle, path: Path, size: int) -> str:
    """Return what a support bundle holds, and what it lacks."""
    lines = [f"{path}: {len(bundle.files)} files, {_bytes(size)}"]
    lines += [f"  {_bytes(len(bundle.files[name])):>9}  {name}" for name in sorted(bundle.files)]
    lines += ["Not read", *(f"  {what}: {why}" for what, why in bundle.not_read)] if bundle.not_read else []
    return "\n".join([*(printable(line) for line in lines), "No Secret was read. Look through it before you hand it on."])


def _bytes(count: int) -> str:
    return f"{count} B" if count < 1024 else f"{count / 1024:.1f} KiB" if count < 2**20 else f"{count / 2**20:.1f} MiB"


def render_plans(index: VectorIndex, now: datetime, painter: Painter) -> str:
    """Return all of the held plans, with rows they concern, or that there are none."""
    if not index.status.held_plans:
        return f"{index}: no replica holds a plan"
    parts = []
    for plan in index.status.held_plans:
        ids = dict.fromkeys(one for member in _holders(index, plan) for one in (member.held_plan.sample_ids if member.held_plan else []))
        lines = [
            f"{painter.paint(printable(plan.id), _BOLD)}  {printable(plan.reason)}{', approved' if plan.approved else ''}",
            f"  would    {describe_plan(plan)}",
            f"  held     by {plan.replicas} of {index.spec.replicas} replicas, for {_ago(plan.held_at, now)}",
            f"  rows     {printable(', '.join(ids)) or 'none named'}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, "\n".join(_advice(index))])


def describe_plan(plan: HeldPlan) -> str:
    """Return what the plan would do."""
    return f"remove {plan.removes}, replace {plan.replaces} and add {plan.adds} rows ({printable(plan.action)})"


def _verdict(index: VectorIndex, judgement: Judgement, painter: Painter) -> str:
    word, colour = _VERDICTS[judgement.verdict]
    condition = index.status.condition(ConditionType.CONSISTENT)
    why = judgement.doubt or (f"{condition.reason}: {condition.message}" if condition else "")
    return painter.paint(word, colour) + f", {printable(why)}"


def _summary(index: VectorIndex, now: datetime, painter: Painter) -> list[str]:
    status = index.status
    suspended = "yes: no change of the content is made" if index.spec.suspend else ""
    told = (
        ("Verdict", _verdict(index, judge(index, now), painter)),
        ("Rows", "" if status.rows is None else f"{status.rows} in each replica"),
        ("Drift", f"{status.drift} rows over all replicas" if status.drift else ""),
        ("Digest", status.root_digest or ""),
        ("As of", f"{status.as_of}, {_ago(status.as_of, now)} ago" if status.as_of else ""),
        ("Source", status.source or ""),
        ("Replicas", f"{status.ready_replicas} of {index.spec.replicas} serve"),
        ("Healing", index.spec.healing.mode),
        ("Suspended", suspended),
        ("Deleting", f"since {_ago(index.metadata.deletion_timestamp, now)}" if index.metadata.deletion_timestamp else ""),
    )
    # The verdict alone may be painted, and was made printable before.
    return [
        f"VectorIndex {index}",
        *(f"  {name:<10} {text if name == 'Verdict' else printable(text)}" for name, text in told if text),
    ]


def _conditions(index: VectorIndex, now: datetime) -> Iterable[Sequence[Cell]]:
    for one in index.status.conditions:
        yield (
            Cell(one.type),
            Cell(one.status, _colour_of(one)),
            Cell(one.reason),
            Cell(_ago(one.last_transition_time, now)),
            Cell(one.message),
        )


def _colour_of(condition: Condition) -> int:
    if condition.status == ConditionStatus.UNKNOWN or condition.type == ConditionType.RECONCILING:
        return _YELLOW
    good = ConditionStatus.FALSE if condition.type == ConditionType.STALLED else ConditionStatus.TRUE
    return _GREEN if condition.status == good else _RED


_REPLICA_HEAD: Final = ("POD", "STATE", "GENERATION", "ROWS", "RESULT", "DRIFT", "QUARANTINED", "PROVEN")


def _replicas(index: VectorIndex, now: datetime) -> Iterable[Sequence[Cell]]:
    colours = {"ok": _GREEN, "drift": _RED, "unknown": _YELLOW}
    for one in index.status.members:
        yield (
            Cell(one.pod),
            Cell(one.state, _GREEN if one.state == "Serving" else _YELLOW),
            Cell(_number(one.generation)),
            Cell(_number(one.rows)),
            Cell(one.result or "-", colours.get(one.result or "", 0)),
            Cell(_drift(one.drift) if one.result != "unknown" or (one.drift and one.drift.kinds) else "?"),
            Cell(str(sum(one.quarantine.values())) if one.result else "-"),
            Cell(f"{_ago(one.proven_at, now)} ago" if one.proven_at else "-"),
        )


def _remarks(index: VectorIndex) -> Iterable[str]:
    """Yield what a table has no room for."""
    for one in index.status.members:
        if one.message and one.result != "ok":
            yield printable(f"  {one.pod}: {one.reason}: {one.message}" if one.reason else f"  {one.pod}: {one.message}")
        if one.progress:
            counted = one.progress.rows_expected
            rows = f"{one.progress.rows_done} of {counted} rows" if counted else "has to wait, or counts rows"
            yield printable(f"  {one.pod}: builds generation {one.progress.generation}: {rows}")
        if one.quarantine:
            yield printable(f"  {one.pod}: quarantined: {', '.join(f'{rows} {reason}' for reason, rows in one.quarantine.items())}")
        if one.fallback:
            yield printable(f"  {one.pod}: serves an exact index: {one.fallback}")


def _held_plans(index: VectorIndex, now: datetime, painter: Painter) -> list[str]:
    rows = [
        (
            Cell(plan.id),
            Cell(plan.reason),
            Cell(plan.action),
            *(Cell(str(count)) for count in (plan.removes, plan.replaces, plan.adds, plan.replicas)),
            Cell(_ago(plan.held_at, now)),
            Cell("yes", _GREEN) if plan.approved else Cell("no", _YELLOW),
        )
        for plan in index.status.held_plans
    ]
    head = ("ID", "REASON", "ACTION", "REMOVES", "REPLACES", "ADDS", "REPLICAS", "FOR", "APPROVED")
    advice = (f"To look at them: kubectl vectorindex plan {index.arguments}", *_advice(index))
    return ["Held plans", *painter.table(head, rows), *(f"  {line}" for line in advice)] if rows else []


def _advice(index: VectorIndex) -> Iterable[str]:
    """Yield what to do about held plans."""
    waiting = [printable(plan.id) for plan in index.status.held_plans if not plan.approved]
    if waiting:
        yield f"To approve: kubectl vectorindex approve {index.arguments} {' '.join(waiting)}"
    elif index.status.held_plans:
        yield "All are approved: each replica carries them out at its next check"
    yield from explain_waiting(index)


def explain_waiting(index: VectorIndex) -> Iterable[str]:
    """Yield what keeps approved plans from being carried out."""
    if index.status.held_plans and index.spec.healing.mode == "Observe":
        yield "`healing.mode` is Observe: nothing is carried out, approved or not, before it is Auto or Plan"
    if index.status.held_plans and index.spec.suspend:
        yield f"It is suspended: nothing is carried out before `kubectl vectorindex resume {index.arguments}`"


def _repairs(index: VectorIndex, now: datetime, painter: Painter) -> list[str]:
    rows = [_repair(repair, now) for repair in index.status.last_repairs]
    head = ("AGO", "POD", "ACTION", "TRIGGER", "RESULT", "DRIFT", "TOOK", "ROWS")
    return ["Last repairs", *painter.table(head, rows)] if rows else []


def _repair(one: Repair, now: datetime) -> Sequence[Cell]:
    ids = ", ".join(one.sample_ids[:_SHOWN_IDS]) + (", ..." if len(one.sample_ids) > _SHOWN_IDS else "")
    return (
        Cell(_ago(one.at, now)),
        Cell(one.pod),
        Cell(one.action),
        Cell(one.trigger),
        Cell(one.result, _GREEN if one.result == "repaired" else _RED),
        Cell(_drift(one.drift)),
        Cell(f"{one.milliseconds / 1000:.1f}s"),
        Cell(ids or "-"),
    )


def _holders(index: VectorIndex, plan: HeldPlan) -> Iterable[Member]:
    return (member for member in index.status.members if member.held_plan and member.held_plan.id == plan.id)


def _drift(drift: Drift | None) -> str:
    if drift is None:
        return "-"
    return ", ".join(f"{rows} {kind}" for kind, rows in drift.kinds.items()) or "none"


def _number(count: int | None) -> str:
    return "-" if count is None else str(count)


def _ago(text: str | None, now: datetime) -> str:
    moment = parse_time(text)
    return format_age(now - moment) if moment else "-"
