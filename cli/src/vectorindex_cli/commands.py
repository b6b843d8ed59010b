"""What each verb does: read, decide, write, wait, show. Each returns the exit code."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TextIO

from vectorindex_cli import render, wishes
from vectorindex_cli.access import Indexes
from vectorindex_cli.errors import ConflictError, UnreachableError, UsageError, WaitedError
from vectorindex_cli.names import APPROVE_PLAN, REBUILD_REQUESTED_AT, VALIDATE_REQUESTED_AT
from vectorindex_cli.render import Painter
from vectorindex_cli.resource import Json, VectorIndex, judge, parse_index

_POLL_SECONDS: Final = 1.0
_TRIES: Final = 5
_FORGET: Final = timedelta(seconds=60)


class Screen:
    """Where lines go. Progress is one line that changes on a terminal, and one line for each change elsewhere."""

    def __init__(self, out: TextIO, *, terminal: bool, colours: bool) -> None:
        self._out = out
        self.terminal = terminal
        self.painter = Painter(colours)
        self._progress = ""

    def say(self, text: str) -> None:
        """Print lines that stay."""
        self._clear()
        print(text, file=self._out, flush=True)

    def show_progress(self, text: str) -> None:
        """Print progress if it is other than before."""
        if text == self._progress:
            return
        if self.terminal:
            self._clear()
            print(text, end="", file=self._out, flush=True)
        else:
            print(text, file=self._out, flush=True)
        self._progress = text

    def _clear(self) -> None:
        if self.terminal and self._progress:
            print("\r\x1b[K", end="", file=self._out)
        self._progress = ""


@dataclass(frozen=True)
class Command:
    """One call of a verb."""

    indexes: Indexes
    options: argparse.Namespace
    screen: Screen

    def status(self) -> int:
        """Show the state; the exit code is the verdict."""
        document, now = self.indexes.read(self.options.name)
        index = parse_index(document)
        if self.options.output:
            self.screen.say(render.render_document(index, document, now, self.options.output))
        else:
            self.screen.say(render.render_status(index, now, self.screen.painter))
        return judge(index, now).verdict.value

    def validate(self) -> int:
        """Ask each replica for a check at once."""
        index, now = self._read()
        wished = self._wish(index, VALIDATE_REQUESTED_AT, now)
        if not self.options.wait:
            self.screen.say(
                f"{index}: a check of each replica was asked for; `kubectl vectorindex status {index.arguments}` tells the result"
            )
            return 0
        return self._follow(
            index,
            lambda current: wishes.is_answered(current.status.validate_requested_at, wished),
            lambda current: f"checking ({render.render_members(current)})",
            "every replica has checked",
        )

    def rebuild(self) -> int:
        """Ask each replica to build its index anew."""
        index, now = self._read()
        if index.spec.suspend:
            raise UsageError(f"VectorIndex {index} is suspended and rebuilds nothing: `kubectl vectorindex resume {index.arguments}` first")
        wished = self._wish(index, REBUILD_REQUESTED_AT, now)
        if not self.options.wait:
            self.screen.say(
                f"{index}: a rebuild of each replica was asked for; `kubectl vectorindex status {index.arguments}` tells their generations"
            )
            return 0
        return self._follow(
            index,
            lambda current: wishes.is_answered(current.status.rebuild_requested_at, wished),
            lambda current: render.render_progress(current, index, bar=self.screen.terminal),
            "every replica has rebuilt",
        )

    def plan(self) -> int:
        """Show held plans; 1 if any waits for approval."""
        index, now = self._read()
        self.screen.say(render.render_plans(index, now, self.screen.painter))
        return int(any(not plan.approved for plan in index.status.held_plans))

    def approve(self) -> int:
        """Approve held plans beside those that are."""
        approval = self._try_again(self._approve)
        index, _ = self._read()
        for plan in approval.plans:
            done = "approved" if not plan.approved else "was approved already"
            self.screen.say(f"{index}: plan {plan.id} {done}: each replica will {render.describe_plan(plan)} at its next check")
        for line in render.explain_waiting(index):
            self.screen.say(line)
        return 0

    def suspend(self) -> int:
        """Stop every change of the indexed content."""
        return self._set_suspend(True, "suspended: checks and searches go on, the content stays as it is")

    def resume(self) -> int:
        """Let the content follow Postgres again."""
        return self._set_suspend(False, "resumed: the replicas follow Postgres and repair themselves again")

    def _set_suspend(self, wished: bool, text: str) -> int:
        index, _ = self._read()
        if index.spec.suspend is wished:
            self.screen.say(f"{index} is {'suspended' if wished else 'not suspended'} already")
            return 0
        self.indexes.patch(self.options.name, {"spec": {"suspend": wished}})
        self.screen.say(f"{index} {text}")
        return 0

    def _read(self) -> tuple[VectorIndex, datetime]:
        document, now = self.indexes.read(self.options.name)
        return parse_index(document), now

    def _wish(self, index: VectorIndex, annotation: str, now: datetime) -> str:
        wished = wishes.choose_moment(index.metadata.annotations.get(annotation), now)
        self.indexes.patch(self.options.name, wishes.build_annotation(annotation, wished))
        return wished

    def _approve(self) -> wishes.Approval:
        """Write the approval for what is held now; raises ConflictError when the object changed between."""
        index, _ = self._read()
        approval = wishes.plan_approval(index, self.options.plans)
        if not approval.changes:
            return approval
        version = index.metadata.resource_version
        if approval.used_up:
            self._patch_annotation(approval.without, version)
            forgotten = set(approval.used_up).isdisjoint
            what = f"the operator has forgotten the former approval of {', '.join(approval.used_up)}"
            index = self._wait(index, lambda current: forgotten(current.status.approved_plans), lambda _: "", what, _FORGET)
            approval, version = wishes.plan_approval(index, self.options.plans), index.metadata.resource_version
        self._patch_annotation(approval.annotation, version)
        return approval

    def _patch_annotation(self, value: str | None, version: str) -> Json:
        return self.indexes.patch(self.options.name, wishes.build_annotation(APPROVE_PLAN, value, version))

    def _try_again(self, approve: Callable[[], wishes.Approval]) -> wishes.Approval:
        for _ in range(_TRIES - 1):
            try:
                return approve()
            except ConflictError:  # the operator wrote the status, or somebody approved too
                continue
        return approve()

    def _follow(self, index: VectorIndex, done: Callable[[VectorIndex], bool], show: Callable[[VectorIndex], str], what: str) -> int:
        """Show progress until it is done; the exit code is the verdict then."""
        self._wait(index, done, show, what, timedelta(seconds=self.options.timeout))
        current, now = self._read()
        self.screen.say(render.render_verdict(current, now, self.screen.painter))
        return judge(current, now).verdict.value

    def _wait(
        self,
        index: VectorIndex,
        done: Callable[[VectorIndex], bool],
        show: Callable[[VectorIndex], str],
        what: str,
        limit: timedelta,
    ) -> VectorIndex:
        """Look again and again until it is done, and return the index as it is then."""
        deadline = time.monotonic() + limit.total_seconds()
        while True:
            current = self._look(index)
            if current and (text := show(current)):
                self.screen.show_progress(text)
            if current and done(current):
                return current
            if time.monotonic() > deadline:
                hint = f"`kubectl vectorindex status {index.arguments}` tells what hinders it"
                raise WaitedError(f"VectorIndex {index}: not within {limit.total_seconds():.0f} s: {what}; {hint}")
            time.sleep(_POLL_SECONDS)

    def _look(self, index: VectorIndex) -> VectorIndex | None:
        """Return the index as it is now, or None while the API server is away."""
        try:
            current, _ = self._read()
        except UnreachableError:
            return None
        if current.metadata.uid != index.metadata.uid:
            raise UsageError(f"VectorIndex {index} was deleted and made anew meanwhile: ask again")
        return current
