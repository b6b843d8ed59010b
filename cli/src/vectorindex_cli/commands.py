"""What each verb does: read, decide, write, wait, show. Each returns the exit code."""

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TextIO

from vectorindex_cli import bundle, documents, gather, pods, render, searching, wishes
from vectorindex_cli.access import Indexes
from vectorindex_cli.documents import dump
from vectorindex_cli.errors import ConflictError, UnreachableError, UsageError, WaitedError
from vectorindex_cli.names import APPROVE_PLAN, REBUILD_REQUESTED_AT, SEARCH_PORT, VALIDATE_REQUESTED_AT
from vectorindex_cli.progress import RebuildWatch, Shown, describe_members
from vectorindex_cli.render import Painter, printable
from vectorindex_cli.resource import Json, VectorIndex, Verdict, judge, parse_index

_POLL_SECONDS: Final = 1.0
_PROGRESS_SECONDS: Final = 10.0  # between two lines of the same step, where lines stay
_TRIES: Final = 5
_FORGET: Final = timedelta(seconds=60)


class Screen:
    """Where lines go. Progress is one line that changes on a terminal, and elsewhere a line for each step and now and then one more."""

    def __init__(self, out: TextIO, progress: TextIO | None = None, *, colours: bool, form: str | None = None) -> None:
        self._out = out
        self._progress_out = progress or out
        self._form = form
        self.terminal = self._progress_out.isatty()
        self.painter = Painter(colours)
        self._shown = Shown("", "")
        self._shown_at = -math.inf

    def say(self, text: str) -> None:
        """Print lines that stay; programs get their document instead."""
        if self._form is None:
            self._print(text)

    def answer(self, document: Json, text: str) -> None:
        """Print the one document for programs, or the text for people."""
        self._print(text if self._form is None else dump(document, self._form))

    def show_progress(self, shown: Shown) -> None:
        """Print progress if it is other than before, and elsewhere than on a terminal not too often."""
        now = time.monotonic()
        if shown == self._shown or not shown.text:
            return
        if self.terminal:
            self.end_progress()
            width = shutil.get_terminal_size().columns - 1  # a line that wraps can't be taken back
            print(printable(shown.text)[:width], end="", file=self._progress_out, flush=True)
        elif shown.step != self._shown.step or now - self._shown_at >= _PROGRESS_SECONDS:
            print(printable(shown.text), file=self._progress_out, flush=True)
        else:
            return
        self._shown, self._shown_at = shown, now

    def _print(self, text: str) -> None:
        self.end_progress()
        print(text, file=self._out, flush=True)

    def end_progress(self) -> None:
        """Take back the line that changes."""
        if self.terminal and self._shown.text:
            print("\r\x1b[K", end="", file=self._progress_out, flush=True)
        self._shown = Shown("", "")


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
        self.screen.answer(documents.build_status(index, document, now), render.render_status(index, now, self.screen.painter))
        return judge(index, now).verdict.value

    def diff(self) -> int:
        """Show which rows differ; the exit code is the verdict, and 1 if any row differs."""
        index, now = self._read()
        limit = self.options.limit
        self.screen.answer(documents.build_diff(index, now, limit), render.render_diff(index, now, limit, self.screen.painter))
        verdict = judge(index, now).verdict
        differs = any(member.drift and member.drift.kinds for member in index.status.members)
        return (Verdict.DRIFT if differs and verdict is Verdict.CONSISTENT else verdict).value

    def search(self) -> int:
        """Search in one replica; 1 if its answer is not proven."""
        vector = searching.parse_vector(*_read_file(self.options.vector))
        index, now = self._read()
        pod = searching.choose_member(index, self.options.replica).pod
        request = json.dumps(searching.build_request(index, vector, self.options.k)).encode()
        path = f"/v1/indexes/{index.metadata.name}/search"
        reply = pods.ask_pod(self.indexes.client, pods.Place(index.metadata.namespace, pod, SEARCH_PORT), path, request)
        answer = searching.parse_answer(reply.status, reply.body, pod)
        text = searching.render_answer(answer, pod, index.spec.index.metric, now, self.screen.painter)
        self.screen.answer(searching.build_answer(answer, pod), text)
        return 0 if answer.proven else 1

    def report(self) -> int:
        """Gather what somebody who helps needs to know, and write it."""
        document, now = self.indexes.read(self.options.name)
        index = parse_index(document)
        path = bundle.choose_path(self.options.to, index, now)
        self.screen.show_progress(Shown("reading", f"{index}: reading objects, logs and what replicas say"))
        gatherer = gather.Gatherer(self.indexes.client, index, self.options.log_lines)
        gathered = gatherer.gather(document, render.render_status(index, now, Painter(False)), self.options.operator_namespace, now)
        size = bundle.write(gathered, path)
        self.screen.answer(documents.build_report(index, gathered, path, size), render.render_report(gathered, path, size))
        return 0

    def validate(self) -> int:
        """Ask each replica for a check at once."""
        index, now = self._read()
        wished = self._wish(index, VALIDATE_REQUESTED_AT, now)
        if not self.options.wait:
            text = f"{index}: a check of each replica was asked for; `kubectl vectorindex status {index.arguments}` tells the result"
            self.screen.answer({**documents.build_name(index), "validateRequestedAt": wished}, text)
            return 0
        return self._follow(
            index,
            lambda current: wishes.is_answered(current.status.validate_requested_at, wished),
            lambda current: _say_step(f"checking ({describe_members(current)})"),
            "every replica has checked",
        )

    def rebuild(self) -> int:
        """Ask each replica to build its index anew."""
        index, now = self._read()
        if index.spec.suspend:
            raise UsageError(f"VectorIndex {index} is suspended and rebuilds nothing: `kubectl vectorindex resume {index.arguments}` first")
        wished = self._wish(index, REBUILD_REQUESTED_AT, now)
        if not self.options.wait:
            where = f"`kubectl vectorindex status {index.arguments}` tells their generations"
            text = f"{index}: a rebuild of each replica was asked for; {where}"
            self.screen.answer({**documents.build_name(index), "rebuildRequestedAt": wished}, text)
            return 0
        watch = RebuildWatch(index)
        return self._follow(
            index,
            lambda current: wishes.is_answered(current.status.rebuild_requested_at, wished),
            lambda current: watch.describe(current, time.monotonic(), bar=self.screen.terminal),
            "every replica has rebuilt",
        )

    def plan(self) -> int:
        """Show held plans; 1 if any waits for approval."""
        index, now = self._read()
        self.screen.answer(documents.build_plans(index), render.render_plans(index, now, self.screen.painter))
        return int(any(not plan.approved for plan in index.status.held_plans))

    def approve(self) -> int:
        """Approve held plans beside those that are."""
        approval = self._try_again(self._approve)
        index, _ = self._read()
        lines = [
            f"{index}: plan {plan.id} {'was approved already' if plan.approved else 'approved'}: "
            f"each replica will {render.describe_plan(plan)} at its next check"
            for plan in approval.plans
        ]
        told = {**documents.build_name(index), "approvedPlans": [plan.id for plan in approval.plans]}
        self.screen.answer(told, "\n".join([*lines, *render.explain_waiting(index)]))
        return 0

    def suspend(self) -> int:
        """Stop every change of the indexed content."""
        return self._set_suspend(True, "suspended: checks and searches go on, the content stays as it is")

    def resume(self) -> int:
        """Let the content follow Postgres again."""
        return self._set_suspend(False, "resumed: the replicas follow Postgres and repair themselves again")

    def _set_suspend(self, wished: bool, text: str) -> int:
        index, _ = self._read()
        told = {**documents.build_name(index), "suspend": wished}
        if index.spec.suspend is wished:
            self.screen.answer(told, f"{index} is {'suspended' if wished else 'not suspended'} already")
            return 0
        self.indexes.patch(self.options.name, {"spec": {"suspend": wished}})
        self.screen.answer(told, f"{index} {text}")
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
            index = self._wait(index, lambda current: forgotten(current.status.approved_plans), lambda _: Shown("", ""), what, _FORGET)
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

    def _follow(self, index: VectorIndex, done: Callable[[VectorIndex], bool], show: Callable[[VectorIndex], Shown], what: str) -> int:
        """Show progress until it is done; the exit code is the verdict then."""
        self._wait(index, done, show, what, timedelta(seconds=self.options.timeout))
        document, now = self.indexes.read(self.options.name)
        current = parse_index(document)
        self.screen.answer(documents.build_status(current, document, now), render.render_verdict(current, now, self.screen.painter))
        return judge(current, now).verdict.value

    def _wait(
        self,
        index: VectorIndex,
        done: Callable[[VectorIndex], bool],
        show: Callable[[VectorIndex], Shown],
        what: str,
        limit: timedelta,
    ) -> VectorIndex:
        """Look again and again until it is done, and return the index as it is then."""
        deadline = time.monotonic() + limit.total_seconds()
        while True:
            current = self._look(index)
            if current:
                self.screen.show_progress(show(current))
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


def _say_step(text: str) -> Shown:
    return Shown(text, text)


def _read_file(name: str) -> tuple[bytes, str]:
    """Return the content of a file, or of what is piped in, and how to call it."""
    if name == "-":
        return sys.stdin.buffer.read(), "standard input"
    try:
        return Path(name).read_bytes(), name
    except OSError as error:
        raise UsageError(f"can't read {name}: {error.strerror}") from error
