"""The life of one replica: load, prove, serve, follow, repair, save, stop. One thread of its own does all the writing."""

import dataclasses
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import faiss
import numpy as np

from vectorindex_indexer import compare, report, snapshot
from vectorindex_indexer.belief import (
    UNKNOWN,
    Belief,
    Findings,
    Followed,
    InconclusiveError,
    Outcome,
    StoppedError,
    Terms,
    describe_unknown,
)
from vectorindex_indexer.compare import Drift, subtract, union
from vectorindex_indexer.config import HealingMode, Identity, Settings, WhenUnverified, load_behaviour, load_identity, parse_time
from vectorindex_indexer.connect import Connector
from vectorindex_indexer.cycle import run_cycle
from vectorindex_indexer.errors import ConfigError, LoadRefusedError, NullSumError, SnapshotError, SourceError
from vectorindex_indexer.guards import SAMPLE_IDS, HeldPlan, Limits
from vectorindex_indexer.holds import Holds
from vectorindex_indexer.index import SealedPart, View, examine_answers, needs_merge, plan_seal, threads_from_cgroup
from vectorindex_indexer.keys import IdKind, to_texts
from vectorindex_indexer.ledger import NEVER, parse_ledger
from vectorindex_indexer.load import load_candidate
from vectorindex_indexer.metrics import Metrics
from vectorindex_indexer.names import DriftKind, ProofReason, Result, SourceReason, State
from vectorindex_indexer.rows import AsOf
from vectorindex_indexer.slots import hold_slot
from vectorindex_indexer.source import Source
from vectorindex_indexer.standing import (
    Standing,
    count_drift,
    describe_plan,
    describe_proof,
    describe_view,
    find_oldest,
    name_drift,
    to_text,
)
from vectorindex_indexer.version import VERSION

LOG = logging.getLogger(__name__)

NO_PROGRESS: Final = report.Progress(0, 0, 0)

SAVE_PAUSE: Final = 100.0  # times the duration of a save must pass before the next, and ...
SAVE_PAUSE_SECONDS: Final = 5.0  # ... at least this; a process that stops saves at once
LOAD_SECONDS: Final = 6 * 3600.0  # the longest that a load may hold its slot
SLOT_SECONDS: Final = 60.0  # the longest wait for a slot before the load is put off
ANSWERS_EVERY_SECONDS: Final = 60.0  # between two looks at sampled answers; each costs a look at every row
ANSWER_SAMPLES: Final = 8  # searches near live rows, and as many near rows that died lately
ANSWER_K: Final = 10
RETRY_SECONDS: Final = (0.5, 30.0)  # first and longest pause after a check that ended unknown
POLL_SECONDS: Final = 0.2  # how soon a changed file is seen


@dataclass(frozen=True, eq=False)
class Published:
    """What searches are answered from: one reference, replaced as a whole."""

    view: View
    as_of_text: str


@dataclass(frozen=True, eq=False)
class Rebuild:
    """A candidate being loaded in the background, and why."""

    candidate: Future[Belief]
    trigger: str  # start, load (a saved index was refused), check, wish, merge
    started: float
    started_at: datetime


class Replica:
    """One replica of one index. `start` it, ask `view`, `status` and `is_ready`, `stop` it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.identity = load_identity(settings.config)
        self.metrics = Metrics(self.identity.name)
        self.metrics.build(VERSION, faiss.__version__, self.identity.index.type, self.identity.index.metric)
        self._behaviour = load_behaviour(settings.live, settings.config)
        self.metrics.asked_for(self._behaviour.period, self._behaviour.max_staleness)
        self._connector = make_connector(settings, self.identity)
        self._source = Source(self.identity.source, self.identity.index, self._connector)
        self._lock = threading.RLock()  # what changes together is seen together in `status`
        self._standing = Standing()
        self._belief: Belief | None = None
        self._published: Published | None = None
        self._trusted = False  # the belief was proven in this process, or may be served until it can be
        self._repairs: deque[report.Repair] = deque(maxlen=10)
        self._progress = NO_PROGRESS
        self._loaded = False  # the belief came from disk, and no check has finished since
        self._built_at: datetime | None = None
        self._rebuild: Rebuild | None = None
        self._rebuild_due = ""  # trigger of a rebuild that is wanted
        self._rebuilt = NEVER
        self._rebuild_failures = 0  # in a row
        self._rebuild_after = NEVER  # no attempt before
        self._sealing: Future[SealedPart] | None = None  # a delta that is made a segment in the background
        self._suspect = False  # an answer was wrong: the next check looks at everything
        self._answers_after = NEVER
        self._random = np.random.default_rng()
        self._proven_belief: Belief | None = None  # the last that was proven: what is worth saving
        self._saved: Belief | None = None
        self._save_after = NEVER
        self._saving = threading.Lock()  # stop() saves too, while the writer may still be at it
        self._failures = 0
        self._holds = Holds(self.identity.uid)
        self._remembers = False  # what is believed goes back to something proven before, not only to what the source says now
        self._seen: dict[str, datetime] = {}  # wish: when this process first saw it
        self._unreadable = ""  # why the live file could not be read last time
        self._stopping = threading.Event()
        self._background = ThreadPoolExecutor(1, "load")
        self._thread = threading.Thread(target=self._live, name="writer", daemon=True)

    # --- asked from other threads

    @property
    def view(self) -> View | None:
        """What is searched now; None while nothing may be."""
        published = self._published
        return published.view if published and self._trusted else None

    @property
    def published(self) -> Published | None:
        """View and as-of point that belong together."""
        return self._published if self._trusted else None

    @property
    def proven(self) -> bool:
        """Whether the last check ended ok, and not too long ago."""
        standing = self._standing
        age = time.monotonic() - standing.proven_clock
        return standing.findings.result is Result.OK and not standing.drift.rows and age <= self._behaviour.max_staleness.total_seconds()

    def is_ready(self) -> bool:
        """Whether searches may be sent here."""
        if self._stopping.is_set() or self.view is None:
            return False
        if self._behaviour.when_unverified is WhenUnverified.SERVE:
            return True
        return time.monotonic() - self._standing.proven_clock <= self._behaviour.max_staleness.total_seconds()

    def is_alive(self) -> bool:
        """Whether the writer lives. Says nothing of data or source."""
        return self._thread.is_alive() or self._stopping.is_set()

    def start(self) -> None:
        """Start the writer."""
        self._thread.start()

    def stop_accepting(self) -> None:
        """Be not ready from now on; what is asked is still answered."""
        self._stopping.set()

    def stop(self) -> None:
        """End the writer, and save what is not saved yet."""
        self._stopping.set()
        self._background.shutdown(wait=False, cancel_futures=True)
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._save(force=True)

    def status(self) -> report.Status:
        """Return the document of `/v1/status`."""
        with self._lock:
            standing, belief, behaviour = self._standing, self._belief, self._behaviour
            findings = standing.findings
            return report.Status(
                version=1,
                identity=report.Identity(
                    name=self.identity.name,
                    namespace=self.identity.namespace,
                    uid=self.identity.uid,
                    pod_name=self.settings.pod_name,
                    pod_uid=self.settings.pod_uid,
                    identity_hash=self.identity.hash,
                    live_hash=behaviour.hash,
                    validate_requested_at=standing.validate_echo,
                    rebuild_requested_at=standing.rebuild_echo,
                    approved_plans=list(self._holds.carried_out),
                ),
                state=self._state(),
                ready=self.is_ready(),
                proven=self.proven,
                suspended=behaviour.suspend,
                view=describe_view(belief.view) if belief and self._trusted else None,
                source=report.Source(
                    reachable=standing.source_reason is SourceReason.REACHABLE,
                    reason=standing.source_reason,
                    message=standing.source_message,
                    identity=self._source.identity,
                ),
                proof=describe_proof(standing, belief, is_served=self._trusted),
                drift=report.Drift(**count_drift(standing.drift)),
                drift_samples=name_drift(standing.drift, belief.ledger.kind, SAMPLE_IDS) if belief else report.DriftSamples(),
                pending=findings.pending,
                held_plan=describe_plan(self._held_plan),
                repairs=list(self._repairs),
                progress=self._progress,
                quarantine={str(reason): rows for reason, rows in belief.ledger.count_quarantine().items()} if belief else {},
            )

    @property
    def _held_plan(self) -> HeldPlan | None:
        return (self._belief.plan if self._belief else None) or self._holds.plan

    def _state(self) -> State:
        if self._stopping.is_set():
            return State.STOPPING
        if self._belief is None:
            return State.LOADING if self._rebuild else State.STARTING
        if not self._trusted:
            return State.HELD if self._held_plan is not None else State.PROVING
        if self._held_plan is not None or self._standing.findings.reason is ProofReason.REPAIR_HELD:
            return State.HELD
        if self._standing.drift.rows and not self._behaviour.suspend:
            return State.REPAIRING
        return State.UNPROVEN if self._standing.findings.result is Result.UNKNOWN else State.SERVING

    # --- the writer

    def _live(self) -> None:
        """Check and follow until stopped. A defect of ours is a check that ended unknown, never the end of the thread."""
        snapshot.discard_partial(self.settings.data)  # only here: a check beside a running server must leave its work alone
        self._guard(self._restore)
        while not self._stopping.is_set():
            started = time.monotonic()
            self._guard(self._step)
            self._guard(self._save)
            self._wait(started)

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:
            LOG.exception("a step of the replica failed", extra={"step": step.__name__})
            self._record(Findings(Result.UNKNOWN, ProofReason.INTERNAL_ERROR, "a defect of the indexer; see its log", UNKNOWN), 0.0)

    def _wait(self, started: float) -> None:
        """Wait for the next period, for the end of a load, or for a wish; after a failure, for a growing pause."""
        pause = max(self._behaviour.period.total_seconds(), self._standing.attainable)
        if self._failures:
            pause = min(pause, pause_after(self._failures))
        while not self._stopping.is_set():
            elapsed = time.monotonic() - started
            if any(future.done() for future in self._background_work()):
                return
            if elapsed >= pause and (self._belief is not None or self._may_rebuild()):
                return
            if self._reread() or (elapsed >= 1.0 and self._has_wish()):
                return
            self._stopping.wait(POLL_SECONDS if self._belief else POLL_SECONDS / 4)

    def _background_work(self) -> list[Future[Any]]:
        return [*([self._rebuild.candidate] if self._rebuild else []), *([self._sealing] if self._sealing else [])]

    def _reread(self) -> bool:
        """Read behaviour and wishes again. Returns whether they changed; a file that can't be read leaves the old ones in force."""
        try:
            behaviour = load_behaviour(self.settings.live, self.settings.config)
        except ConfigError as error:
            if str(error) != self._unreadable:
                self._unreadable = str(error)
                LOG.warning("behaviour not read, the former stays in force: %s", error)
            return False
        self._unreadable = ""
        changed = behaviour != self._behaviour
        self.metrics.asked_for(behaviour.period, behaviour.max_staleness)
        with self._lock:
            self._behaviour = behaviour
            self._holds.forget_unnamed(behaviour)
        return changed

    def _has_wish(self) -> bool:
        return self._wants_check() or (self._wants_rebuild() and self._may_rebuild() and not self._behaviour.suspend)

    def _wants_check(self) -> bool:
        wishes = self._behaviour.wishes
        return wishes.validate_requested_at is not None and wishes.validate_text != self._standing.validate_echo

    def _wants_rebuild(self) -> bool:
        wishes = self._behaviour.wishes
        return wishes.rebuild_requested_at is not None and wishes.rebuild_text != self._standing.rebuild_echo

    def _may_rebuild(self) -> bool:
        """Whether an attempt could start now: none is running, and the last failure is long enough ago."""
        return self._rebuild is None and time.monotonic() >= self._rebuild_after

    def _answers(self, wish: datetime | None, text: str, begun: datetime | None) -> bool:
        """Whether something begun at that time answers a wish: begun after the wish, or (clocks differ) after we first saw it."""
        if wish is None or begun is None:
            return False
        return begun >= min(wish, self._seen.setdefault(text, datetime.now(UTC)))

    def _step(self) -> None:
        """Do one thing: take over a finished candidate, or check what is served; start a rebuild where one is due."""
        wishes = self._behaviour.wishes
        for text in (wishes.validate_text, wishes.rebuild_text):
            if text:
                self._seen.setdefault(text, datetime.now(UTC))
        if self._rebuild is not None and self._rebuild.candidate.done():
            self._take_over(self._rebuild)
        elif self._sealing is not None and self._sealing.done():
            self._take_seal(self._sealing)
        elif self._belief is not None:
            self._check(self._belief)
        self._plan_rebuild()
        self._plan_seal()

    def _terms(self, *, whole: bool, from_bytes: bool = False, mode: HealingMode | None = None) -> Terms:
        behaviour = self._behaviour
        return Terms(
            now=time.monotonic(),
            period=max(behaviour.period.total_seconds(), self._standing.attainable),
            content_sweep=behaviour.content_sweep.total_seconds(),
            whole=whole,
            apply=not behaviour.suspend,
            from_bytes=from_bytes,
            last_proven_rows=behaviour.last_proven.rows if behaviour.last_proven else 0,
            uid=self.identity.uid,
            limits=self._holds.limits(behaviour),
            mode=mode or behaviour.healing.mode,
            approved=self._holds.approvals(behaviour),
        )

    def _check(self, belief: Belief) -> None:
        """Check what is served, and publish what follows."""
        wishes, begun, started = self._behaviour.wishes, datetime.now(UTC), time.monotonic()
        wished = self._wants_check()
        first = self._loaded
        terms = self._terms(whole=wished or first or self._suspect, from_bytes=wished)
        try:
            announce = partial(self._announce, belief.ledger.kind)
            outcome = run_cycle(self._source, belief, terms, announce, publish=self._take_group, rest=self._rest)
        except StoppedError:
            return
        findings, seconds = outcome.findings, time.monotonic() - started
        with self._lock:
            findings = self._settle(outcome)
            self._record(findings, seconds)
            if not terms.whole and findings.result is not Result.UNKNOWN:  # what was asked for, and the first check, are exempt
                self._standing.attainable = findings.source_seconds / self._behaviour.max_source_duty
                self._warn_if_slow()
            if findings.drift.rows and (findings.result is Result.OK or findings.reason is ProofReason.REPAIR_FAILED):
                trigger, kind = "load" if first else "check", belief.ledger.kind
                self._record_repair(findings, belief, seconds, action="patch", trigger=trigger, kind=kind)
        if findings.rebuild or findings.reason in (ProofReason.REPAIR_FAILED, ProofReason.DIGEST_SPEC_DIFFERS):
            self._rebuild_due = "check"
        elif needs_merge(outcome.belief.view) and not self._behaviour.suspend:
            self._rebuild_due = self._rebuild_due or "merge"
        if findings.result is Result.OK:
            self._suspect = False
            self._examine_answers(outcome.belief)
        if wished and self._answers(wishes.validate_requested_at, wishes.validate_text, begun):
            with self._lock:
                self._standing.validate_echo = wishes.validate_text

    def _examine_answers(self, belief: Belief) -> None:
        """Search near sampled rows, and see that what comes back is live, and how much of the best is found (L2)."""
        now = time.monotonic()
        if now < self._answers_after or belief.pending.ids.size or not belief.view.live_rows:
            return
        self._answers_after = now + ANSWERS_EVERY_SECONDS
        view, ledger = belief.view, belief.ledger
        bucket = ledger.buckets[int(self._random.integers(len(ledger.buckets)))]
        answers = examine_answers(
            view, bucket.ids[bucket.indexed], view.recently_dead(ANSWER_SAMPLES), ANSWER_K, self._random, limit=ANSWER_SAMPLES
        )
        wrong = union([answers.dead, subtract(answers.answered, ledger.entries_of(answers.answered)[0])])
        result = Result.DRIFT if wrong.size else Result.OK
        with self._lock:
            self._standing.answers_result, self._standing.recall = result, answers.recall
        self.metrics.answers_examined(result, answers.recall)
        if wrong.size:
            self._suspect = True
            LOG.error("searches answered rows that are not live", extra={"ids": to_texts(wrong[:SAMPLE_IDS], ledger.kind)})

    def _settle(self, outcome: Outcome, *, rebuilt: bool = False) -> Findings:
        """Take over what a check left, and publish it as far as it may be served. Returns the findings, or what speaks against serving."""
        findings, belief = outcome.findings, outcome.belief
        if findings.carried_out:
            self._holds.use_up(findings.carried_out)
        if findings.result is Result.OK and not self._trusted:
            findings = (None if self._remembers else self._holds.judge_without_memory(belief, self._behaviour)) or findings
        if findings.result is Result.OK or (self._trusted and not rebuilt):
            self._publish(belief)
        else:
            self._belief = belief  # not served, but it follows
            if self._loaded and self._behaviour.when_unverified is WhenUnverified.SERVE and may_serve_unverified(findings):
                self._serve_unverified(belief)
        if findings.result is Result.OK:
            self._holds.plan, self._remembers, self._proven_belief = None, True, self._belief
        if findings.result is not Result.UNKNOWN:
            self._loaded = False
            self._holds.note(belief.ledger.rows)
        return findings

    def _warn_if_slow(self) -> None:
        """Say so when checks can't be made as often as they would have to be."""
        attainable = self._standing.attainable
        if attainable > self._behaviour.max_staleness.total_seconds():
            LOG.warning(
                "checks take so long that they can't be made within maxStalenessSeconds",
                extra={"attainable_period_seconds": round(attainable, 1)},
            )

    def _take_group(self, belief: Belief) -> None:
        """Take over what a part of a long check brought."""
        with self._lock:
            if self._trusted:
                self._publish(belief)
            else:
                self._belief = belief

    def _rest(self, seconds: float) -> None:
        """Leave Postgres alone for so long that checks keep to their share of its time; a wish is not kept waiting."""
        until = time.monotonic() + seconds / self._behaviour.max_source_duty - seconds
        while time.monotonic() < until and not self._wants_check():
            if self._stopping.wait(min(POLL_SECONDS, until - time.monotonic())):
                raise StoppedError
            self._reread()
        if self._stopping.is_set():
            raise StoppedError

    def _announce(self, kind: IdKind, drift: Drift) -> None:
        """Make drift visible while it is being repaired."""
        with self._lock:
            self._standing.drift = drift
        self.metrics.drift({DriftKind(kind): rows for kind, rows in count_drift(drift).items()})
        LOG.warning("drift found", extra={"drift": count_drift(drift), "ids": to_texts(drift.ids[:SAMPLE_IDS], kind)})

    def check_now(self) -> None:
        """Make one check in the calling thread, changing nothing; without a saved index, of one built for it."""
        self._restore()
        if self._belief is not None:
            started = time.monotonic()
            terms = self._terms(whole=True, from_bytes=True, mode=HealingMode.OBSERVE)
            outcome = run_cycle(self._source, self._belief, terms, partial(self._announce, self._belief.ledger.kind))
            self._belief = outcome.belief
            self._trusted = outcome.findings.result is Result.OK
            self._record(outcome.findings, time.monotonic() - started)
            return
        self._plan_rebuild()
        assert self._rebuild is not None  # noqa: S101 - without a belief one is always planned
        wait([self._rebuild.candidate])
        self._take_over(self._rebuild)

    # --- rebuilds

    def _plan_rebuild(self) -> None:
        wishes = self._behaviour.wishes
        if not self._may_rebuild():
            return
        wished = self._wants_rebuild()
        if wished and self._answers(wishes.rebuild_requested_at, wishes.rebuild_text, self._built_at):
            with self._lock:
                self._standing.rebuild_echo = wishes.rebuild_text
            wished = False
        if self._belief is None:
            trigger = self._rebuild_due or "start"
        elif self._behaviour.suspend and self._trusted:
            return
        elif wished and not self._behaviour.suspend:
            trigger = "wish"
        elif lets_in_what_waits(self._rebuild_due, self._belief):
            return
        elif self._rebuild_due and time.monotonic() - self._rebuilt > self._behaviour.healing.cooldown.total_seconds():
            trigger = self._rebuild_due
        else:
            return
        generation = self._belief.view.generation + 1 if self._belief else 1
        proven = self._behaviour.last_proven
        started, started_at = time.monotonic(), datetime.now(UTC)  # before anything is read: a wish that comes later is not answered by it
        self._progress = report.Progress(0, 0, generation)
        candidate = self._background.submit(self._load, generation, proven.rows if proven else 0)
        LOG.info("building an index", extra={"trigger": trigger, "generation": generation})
        self._rebuild = Rebuild(candidate, trigger, started, started_at)

    def _load(self, generation: int, proven_rows: int) -> Belief:
        """Read all rows and build an index of them, in the background."""
        slots, progress = self._behaviour.healing.concurrent_rebuilds, partial(self._advance, generation)
        with hold_slot(self._connector, slots, wait_seconds=SLOT_SECONDS, hold_seconds=LOAD_SECONDS, waiting=self._end_if_stopping):
            return load_candidate(self._source, self.identity.index, generation=generation, proven_rows=proven_rows, progress=progress)

    def _end_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise SourceError(SourceReason.CONNECTION_LOST, "the process is stopping")

    def _advance(self, generation: int, done: int, expected: int) -> None:
        self._end_if_stopping()
        self._progress = report.Progress(done, expected, generation)

    def _take_over(self, rebuild: Rebuild) -> None:
        """Prove a candidate and switch to it; until then, and if it can't be proven, the former index stays."""
        self._rebuild = None
        try:
            self._prove_candidate(rebuild)
        finally:
            self._progress = NO_PROGRESS

    def _prove_candidate(self, rebuild: Rebuild) -> None:
        self._rebuilt = time.monotonic()
        seconds = self._rebuilt - rebuild.started
        self._rebuild_failures += 1  # until it is proven
        self._rebuild_after = self._rebuilt + pause_after(self._rebuild_failures)
        try:
            candidate = rebuild.candidate.result()
        except (InconclusiveError, LoadRefusedError, NullSumError, SourceError) as error:
            if self._trusted:  # what is served is none the worse for it
                LOG.warning("no new index: %s", error, extra={"trigger": rebuild.trigger})
            else:
                self._record(describe_unknown(error), seconds)
            return
        self.metrics.build_finished(seconds)
        if self._behaviour.suspend and self._trusted:
            LOG.info("suspended meanwhile: the new index is dropped", extra={"trigger": rebuild.trigger})
            return
        former = self._belief
        if former is not None and lets_in_what_waits(rebuild.trigger, former):
            LOG.info("something waits for approval meanwhile: the new index is dropped", extra={"trigger": rebuild.trigger})
            return
        if former is not None and not self._holds.may_replace(former, candidate, self._behaviour):
            return
        terms = dataclasses.replace(self._terms(whole=True, mode=HealingMode.AUTO), apply=True, limits=Limits())
        outcome = run_cycle(self._source, candidate, terms, lambda _: None)
        # What came in since the rows were read is no change of what was served.
        findings = dataclasses.replace(outcome.findings, followed=Followed())
        if findings.result is Result.OK and findings.drift.rows:  # what was just built must be right without a repair
            message = f"{findings.drift.rows} rows of a new index were wrong at once"
            findings = dataclasses.replace(findings, result=Result.DRIFT, reason=ProofReason.REPAIR_FAILED, message=message)
        if findings.result is not Result.OK:
            LOG.warning("the candidate was not proven", extra={"reason": findings.reason})
            self._record(findings, time.monotonic() - rebuild.started)
            self._finish_rebuild(rebuild, findings, former, "failed")
            return
        self._rebuild_failures, self._rebuild_after = 0, NEVER
        self._built_at = rebuild.started_at
        self._rebuild_due = ""
        self._loaded = False
        with self._lock:
            findings = self._settle(dataclasses.replace(outcome, findings=findings), rebuilt=True)
            self._record(findings, time.monotonic() - rebuild.started)
            if findings.result is Result.OK:
                self._finish_rebuild(rebuild, findings, former, "repaired")

    def _finish_rebuild(self, rebuild: Rebuild, findings: Findings, former: Belief | None, result: str) -> None:
        """Count a rebuild as a repair where it replaced, or was to replace, something wrong or what somebody wished away."""
        if rebuild.trigger in ("load", "check", "wish"):
            seconds, kind = time.monotonic() - rebuild.started, rebuild.candidate.result().ledger.kind
            self._record_repair(findings, former, seconds, action="rebuild", trigger=rebuild.trigger, kind=kind, result=result)

    # --- sealing

    def _plan_seal(self) -> None:
        """Have a delta that has grown large made a segment, while nothing waits and nothing else is built."""
        belief = self._belief
        if belief is None or not self._trusted or self._rebuild is not None or self._sealing is not None or belief.pending.ids.size:
            return
        seal = plan_seal(belief.view)
        if seal is not None:
            self._sealing = self._background.submit(seal.build, threads_from_cgroup())

    def _take_seal(self, sealing: Future[SealedPart]) -> None:
        """Put a sealed delta in place, if it holds what the ledger says."""
        self._sealing = None
        belief, part = self._belief, sealing.result()
        if belief is None or belief.pending.ids.size or belief.view.delta.origin != part.origin:
            return  # another index, or something waits: the delta is sealed another time
        current = ~belief.view.delta.dead[part.kept]
        view = belief.view.with_sealed(part)
        ledger = belief.ledger.recode(part.ids[current], part.digests[current])
        ids = np.unique(part.ids)
        left = compare.compare_index(*ledger.entries_of(ids), *view.entries_of(ids))
        if left.rows:
            LOG.error("a sealed delta is wrong: the index is built anew", extra={"rows": left.rows})
            self._rebuild_due = "check"
            return
        LOG.info("sealed the delta", extra={"rows": int(part.ids.size), "segments": len(view.segments)})
        self._publish(dataclasses.replace(belief, ledger=ledger, view=view))

    # --- publishing and recording

    def _publish(self, belief: Belief) -> None:
        with self._lock:
            self._belief = belief
            self._published = Published(belief.view, to_text(belief.as_of.at))
            self._trusted = True
        self.metrics.view(belief.view)
        self.metrics.compared(find_oldest(belief))
        self.metrics.quarantine(belief.ledger.count_quarantine())

    def _serve_unverified(self, belief: Belief) -> None:
        """Serve a saved index that was proven once, fits its seals and agrees with itself, while it can't be proven."""
        if self._trusted or belief.ledger.find_broken():
            return
        if not belief.pending.ids.size and compare.compare_index(*belief.ledger.entries(), *belief.view.live_entries()).rows:
            return
        LOG.warning("serving the saved index unverified: it was proven once, and can't be proven or brought up to date now")
        self._publish(belief)

    def _record(self, findings: Findings, seconds: float) -> None:
        """Remember and count how a check ended."""
        now = datetime.now(UTC)
        conclusive = findings.result is not Result.UNKNOWN
        repaired = findings.result is Result.OK
        layers = {"L0": findings.found.l0}
        if findings.examined or not conclusive:
            layers["L1"] = findings.found.l1
        with self._lock:
            standing = self._standing
            standing.findings, standing.checked_at, standing.seconds = findings, now, seconds
            if "L1" in layers:
                standing.index_result = Result.OK if repaired else findings.found.l1
            if findings.source_error is not None:
                standing.source_reason, standing.source_message = findings.source_error.reason, findings.source_error.message
            elif findings.reason is not ProofReason.INTERNAL_ERROR:
                standing.source_reason, standing.source_message = SourceReason.REACHABLE, ""
            if conclusive:
                standing.conclusive_at = now
                standing.drift = Drift() if repaired else findings.drift
            if repaired:
                standing.proven_at, standing.proven_clock = now, time.monotonic()
            drift = standing.drift
        self._failures = 0 if conclusive else self._failures + 1
        self.metrics.drift({DriftKind(kind): rows for kind, rows in count_drift(drift).items()})
        self.metrics.waiting(held=self._held_plan is not None, pending_rows=findings.pending)
        self.metrics.source_kept_busy(findings.source_seconds, self._standing.attainable)
        if conclusive:
            self.metrics.synchronised(findings.followed.inserted, findings.followed.updated, findings.followed.deleted)
        self.metrics.check_finished(
            findings.result,
            layers,
            seconds=seconds,
            source_rows=findings.source_rows if conclusive else None,
            vectors=self._belief.view.live_rows if self._belief else None,
            conclusive_at=now if conclusive else None,
        )
        level = logging.WARNING if findings.result is not Result.OK else logging.INFO if findings.followed.rows else logging.DEBUG
        LOG.log(level, "check finished: %s", findings.message, extra={"result": str(findings.result), "reason": str(findings.reason)})

    def _record_repair(
        self, findings: Findings, former: Belief | None, seconds: float, *, action: str, trigger: str, kind: IdKind, result: str = ""
    ) -> None:
        result = result or ("repaired" if findings.result is Result.OK else "failed")
        counts = count_drift(findings.drift)
        repair = report.Repair(
            at=to_text(datetime.now(UTC)),
            action=action,
            trigger=trigger,
            result=result,
            drift=report.Drift(**counts),
            sample_ids=to_texts(findings.drift.ids[:SAMPLE_IDS], kind),
            root_before=str(former.root) if former and former.root else "",
            root_after=str(self._belief.root) if self._belief and self._belief.root and result == "repaired" else "",
            seconds=round(seconds, 3),
        )
        with self._lock:
            self._repairs.appendleft(repair)
        repaired = {DriftKind(kind): rows for kind, rows in counts.items()} if result == "repaired" else {}
        self.metrics.repaired(action, trigger, result, repaired)
        LOG.warning("repair finished", extra={"action": action, "trigger": trigger, "result": result, "drift": counts})

    # --- the saved index

    def _restore(self) -> None:
        """Take up the saved index, if there is one that can be trusted to be ours; it is not served before a check."""
        try:
            saved = snapshot.load(
                self.settings.data,
                snapshot.Expected(self.identity.name, self.identity.uid, self.identity.hash, self.identity.index),
            )
            ledger = parse_ledger(saved.arrays, saved.view.id_kind)
            belief = Belief(ledger, saved.view, parse_as_of(saved.meta.as_of), saved.meta.digest_spec, ledger.root)
        except (SnapshotError, ValueError) as error:
            reason = error.reason if isinstance(error, SnapshotError) else "Inconsistent"
            self.metrics.saved_index_loaded("absent" if reason == "Missing" else reason)
            if reason != "Missing":
                LOG.warning("saved index refused, building anew: %s", error, extra={"reason": reason})
                self._rebuild_due = "load"
            return
        self.metrics.saved_index_loaded("loaded")
        with self._lock:
            self._belief = belief
            self._loaded = self._remembers = True
            self._holds.note(belief.ledger.rows)
            self._built_at = parse_time(saved.meta.built_at)

    def _save(self, *, force: bool = False) -> None:
        """Save what is published, if it was proven and changed since. A failure costs only the quicker start."""
        with self._saving:
            self._save_alone(force=force)

    def _save_alone(self, *, force: bool) -> None:
        belief, proven_at = self._proven_belief, self._standing.proven_at
        if belief is None or proven_at is None or is_saved(belief, self._saved):
            return
        started = time.monotonic()
        if not force and started < self._save_after:
            return
        as_of = belief.as_of
        meta = snapshot.SavedMeta(
            name=self.identity.name,
            uid=self.identity.uid,
            identity_hash=self.identity.hash,
            digest_spec=belief.digest_spec,
            generation=belief.view.generation,
            root_digest=str(belief.ledger.root),
            as_of=snapshot.SavedAsOf(as_of.snapshot, as_of.incarnation, as_of.fingerprint, to_text(as_of.at)),
            proven_at=to_text(proven_at),
            built_at=to_text(self._built_at),
        )
        try:
            snapshot.save(self.settings.data, meta, belief.view, belief.ledger.to_arrays())
            self._saved = belief
        except (SnapshotError, OSError) as error:
            LOG.warning("index not saved: %s", error)
        ended = time.monotonic()
        self._save_after = ended + max(SAVE_PAUSE_SECONDS, SAVE_PAUSE * (ended - started))


def lets_in_what_waits(trigger: str, belief: Belief) -> bool:
    """Tell whether a rebuild would do by another door what waits for approval: one that only tidies up must repair nothing, too."""
    return bool(belief.pending.upstream.size or (trigger == "merge" and belief.pending.drift.size))


def may_serve_unverified(findings: Findings) -> bool:
    """Whether a saved index may be served after such a first check: nothing is known to be wrong, and its digests still mean the same."""
    if findings.result is Result.UNKNOWN:
        return findings.reason is not ProofReason.DIGEST_SPEC_DIFFERS
    return not findings.drift.rows and findings.reason in (
        ProofReason.PENDING_SUSPENDED,
        ProofReason.CHANGE_HELD,
        ProofReason.SOURCE_REGRESSED,
    )


def pause_after(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: growing up to a limit, and spread over time."""
    first, longest = RETRY_SECONDS
    return min(longest, first * 2.0 ** min(failures - 1, 10)) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


def check_once(settings: Settings) -> report.Status:
    """Make one check and change nothing: of the saved index where there is one, else of an index built for it."""
    replica = Replica(settings)
    replica.check_now()
    return replica.status()


def make_connector(settings: Settings, identity: Identity) -> Connector:
    """Return what opens connections as this index."""
    application = f"vectorindex {identity.namespace}/{identity.name}"
    return Connector(identity.source.postgres, credentials=settings.credentials, tls=settings.tls, application_name=application)


def parse_as_of(saved: snapshot.SavedAsOf) -> AsOf:
    """Return the as-of point of a saved index."""
    at = parse_time(saved.at)
    if at is None:
        raise ValueError(f"the saved index has no as-of time: {saved.at!r}")
    return AsOf(saved.snapshot, saved.incarnation, saved.fingerprint, at, in_recovery=False)


def is_saved(belief: Belief, saved: Belief | None) -> bool:
    """Whether what is on disk says the same rows: a later as-of point alone is not worth writing for."""
    return saved is not None and saved.ledger.root == belief.ledger.root and saved.view is belief.view
