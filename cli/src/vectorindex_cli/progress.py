"""How far the rebuild of all replicas is, from what one look after the other shows. Pure: the time comes in."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from vectorindex_cli.resource import Member, Progress, VectorIndex

_BAR: Final = 20
_SEEN_SECONDS: Final = 5.0
_SEEN_SHARE: Final = 0.1
"""From fewer rows or a shorter time than these nothing is concluded about the rest."""


class Shown(NamedTuple):
    """What to print. Texts of the same step differ in figures only."""

    step: str
    text: str


@dataclass
class RebuildWatch:
    """Watches the replicas that were there when the rebuild was asked for; pods that came later have built their index by themselves."""

    started: VectorIndex
    _first: dict[str, tuple[float, Progress]] = field(default_factory=dict)  # by pod: when its rows were first seen to come, and how many

    def describe(self, current: VectorIndex, now: float, *, bar: bool) -> Shown:
        """Return how far it is; `now` in seconds of a monotonic clock."""
        before = {member.pod_uid: member.generation or 0 for member in self.started.status.members}
        members = current.status.members
        behind = [one for one in members if one.pod_uid in before and (one.generation or 0) <= before[one.pod_uid]]
        total = max(current.spec.replicas, len(members), 1)
        done = len(members) - len(behind)
        step = f"{done} of {total} replicas rebuilt"
        doing = "; ".join(self._describe(member, now) for member in behind)
        text = f"{step} ({doing})" if doing else step
        if not bar:
            return Shown(step, text)
        share = (done + sum(member.progress.share for member in behind if member.progress)) / total
        percent = 100 if done >= total else min(99, int(100 * share))  # the last of it is the proof
        filled = _BAR * percent // 100
        return Shown(step, f"[{'#' * filled}{'.' * (_BAR - filled)}] {percent:3}%  {text}")

    def _describe(self, member: Member, now: float) -> str:
        progress = member.progress
        if progress is None:
            return describe_member(member)
        if not progress.rows_expected:
            return f"{member.pod}: has to wait, or counts rows"
        rows = f"{member.pod}: {progress.rows_done} of {progress.rows_expected} rows"
        if progress.rows_done >= progress.rows_expected:
            return f"{rows}, being proven"
        return rows + self._estimate(member, progress, now)

    def _estimate(self, member: Member, progress: Progress, now: float) -> str:
        since, first = self._first.setdefault(member.pod, (now, progress))
        if first.generation != progress.generation or progress.rows_done < first.rows_done:  # another attempt
            since, first = self._first[member.pod] = (now, progress)
        seconds, rows = now - since, progress.rows_done - first.rows_done
        if seconds < _SEEN_SECONDS or rows < _SEEN_SHARE * progress.rows_expected:
            return ""
        left = seconds * (progress.rows_expected - progress.rows_done) / rows
        return f", the rest in about {left:.0f}s" if left < 120 else f", the rest in about {left / 60:.0f}m"


def describe_member(member: Member) -> str:
    """Return what a replica last said."""
    told = [member.state, *([f"generation {member.generation}"] if member.generation is not None else [])]
    told += [f"{member.rows} rows"] if member.rows is not None else []
    return f"{member.pod}: {', '.join(told)}"


def describe_members(index: VectorIndex) -> str:
    """Return what each replica last said, in one line."""
    return "; ".join(describe_member(member) for member in index.status.members) or "no replica yet"
