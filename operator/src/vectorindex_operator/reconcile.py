"""Brings VectorIndexes towards their specs: observe, plan, execute, tell. It acts on what is, never on what happened."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, assert_never

from vectorindex_operator import api, checks, metrics, names, objects, status
from vectorindex_operator.api import VectorIndex
from vectorindex_operator.cluster import Cluster
from vectorindex_operator.errors import ClusterError, ConflictError, NotFoundError, RejectedError
from vectorindex_operator.members import Address, Members
from vectorindex_operator.names import ConditionStatus, ConditionType, Key
from vectorindex_operator.plan import (
    Action,
    ApplyObject,
    CreateObject,
    DeleteObject,
    HurryMember,
    Observed,
    Plan,
    Pod,
    is_fence_missing,
    is_rolled_out,
    make_plan,
    starts_pods,
)
from vectorindex_operator.settings import Settings

log = logging.getLogger(__name__)

LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
MAX_BACKOFF: Final = timedelta(seconds=60)

# How the kubelet calls it when a container does not come up.
_TROUBLES: Final = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)


@dataclass
class Memory:
    """What is kept of one VectorIndex between two looks. Losing it costs some reads and nothing else."""

    observed: Observed | None = None
    read_at: datetime = LONG_AGO
    status_written_at: datetime = LONG_AGO
    stale: bool = True  # something may have changed: read everything again
    failures: int = 0
    announced: set[str] = field(default_factory=set)  # malformed wishes, told once each
    outcomes: dict[tuple[str, str], str] = field(default_factory=dict)  # by kind and name: what came of our last write


@dataclass(frozen=True)
class Outcome:
    """How a look ended, and when the next one is due; None: not before something happens."""

    result: str
    again_after: timedelta | None


def _now() -> datetime:
    return datetime.now(UTC)


class Reconciler:
    """Looks at one VectorIndex at a time for each key; different keys may be looked at side by side."""

    def __init__(self, cluster: Cluster, members: Members, settings: Settings, clock: Callable[[], datetime] = _now) -> None:
        self._cluster = cluster
        self._members = members
        self._settings = settings
        self._clock = clock
        self._memory: dict[Key, Memory] = {}

    def touch(self, key: Key) -> None:
        """Say that something about this VectorIndex may have changed."""
        memory = self._memory.get(key)
        if memory is not None:
            memory.stale = True

    def known(self) -> list[Key]:
        """Return the VectorIndexes seen so far and not gone."""
        return list(self._memory)

    async def reconcile(self, key: Key) -> Outcome:
        """Bring one VectorIndex towards its spec and tell its state. Errors of the API server end in another try, ever later."""
        memory = self._memory.setdefault(key, Memory())
        try:
            outcome = await self._look(key, memory)
        except ConflictError as error:
            log.info("changed while we looked, looking again: index=%s cause=%s", key, error)
            outcome = Outcome("conflict", self._backoff(memory))
        except ClusterError as error:
            log.warning("look failed: index=%s cause=%s", key, error)
            outcome = Outcome("error", self._backoff(memory))
        else:
            if outcome.result == "ok":
                memory.failures = 0
        if outcome.result != "ok":
            memory.stale = True
        return outcome

    async def _look(self, key: Key, memory: Memory) -> Outcome:
        observed = await self._observe(key, memory)
        if observed is None:
            self._memory.pop(key, None)
            metrics.forget(key)
            return Outcome("ok", None)
        if observed.index.deleting:  # its objects go with it
            memory.observed, memory.stale = None, True
            return Outcome("ok", None)
        now = self._clock()
        plan = make_plan(observed, self._settings, now)
        refusal = await self._execute(plan.actions, observed.index, memory)
        rendered = status.render_status(observed, plan, refusal, now)
        await self._tell(memory, observed, rendered, now)
        if plan.actions or plan.conflicts or plan.waiting:  # what is not ours tells us nothing when it goes
            memory.stale = True
        if refusal:
            return Outcome("refused", self._backoff(memory))
        return Outcome("ok", self._next_look(observed, plan, rendered))

    async def _tell(self, memory: Memory, observed: Observed, rendered: api.Status, now: datetime) -> None:
        index = observed.index
        metrics.show_status(index.key, rendered)
        for event in status.find_malformed_wishes(index):
            if event.identity not in memory.announced:
                await self._post(index, event, now)
                memory.announced.add(event.identity)
        if not status.is_worth_writing(index.status, rendered, now - memory.status_written_at, index.spec):
            return
        await self._cluster.apply_status(index, rendered)
        metrics.WRITES.labels(kind="Status").inc()
        events = status.find_events(index, rendered)
        memory.observed = replace(observed, index=replace(index, status=rendered))
        memory.status_written_at = now
        for event in events:
            await self._post(index, event, now)

    async def _post(self, index: VectorIndex, event: api.Event, now: datetime) -> None:
        """Post and log one event. It is news only once: if the API server does not take it, it stands in the log."""
        level = logging.INFO if event.kind == "Normal" else logging.WARNING
        log.log(level, "%s: index=%s reason=%s", event.message, index.key, event.reason)
        try:
            await self._cluster.post_event(index, event, now)
            metrics.WRITES.labels(kind="Event").inc()
        except ClusterError as error:
            log.warning("event not posted: index=%s cause=%s", index.key, error)

    def _next_look(self, observed: Observed, plan: Plan, rendered: api.Status) -> timedelta:
        settings = self._settings
        if plan.conflicts:
            return settings.poll_settled
        if plan.waiting or not _is_settled(observed, plan, rendered):
            return settings.poll_busy
        period = observed.index.spec.consistency.period_seconds if observed.index.spec else 3600
        return min(settings.poll_settled, max(settings.poll_busy, timedelta(seconds=period)))

    def _backoff(self, memory: Memory) -> timedelta:
        memory.failures += 1
        limit = min(MAX_BACKOFF, timedelta(seconds=0.5 * 2.0 ** min(memory.failures, 10)))
        return limit * random.uniform(0.5, 1)  # noqa: S311 - spreads tries, guards nothing

    # --- observe ---

    async def _observe(self, key: Key, memory: Memory) -> Observed | None:
        now = self._clock()
        if memory.stale or memory.observed is None or now - memory.read_at >= self._settings.resync:
            memory.stale = False  # before reading: what changes meanwhile sets it again
            memory.observed = await self._read(key, memory)
            memory.read_at = now
        if memory.observed is None:
            return None
        addresses = [Address(pod.name, pod.uid, pod.ip) for pod in memory.observed.pods if pod.ip and not pod.terminating]
        reports = await self._members.read_reports(addresses)
        memory.observed = replace(memory.observed, reports=reports, outcomes=frozenset(memory.outcomes.values()))
        return memory.observed

    async def _read(self, key: Key, memory: Memory) -> Observed | None:
        body = await self._cluster.read("VectorIndex", key.namespace, key.name)
        if body is None:
            return None
        index = api.parse_vector_index(body)
        before = memory.observed.index.uid if memory.observed else None
        if before != index.uid:  # another life of the name: nothing known of the earlier one holds
            memory.status_written_at = self._clock()
            memory.announced, memory.outcomes = set(), {}
        references = objects.child_references(index, index.spec) if index.spec else (("StatefulSet", objects.child_name(key.name)),)
        selector = f"{names.INDEX_LABEL}={key.name},{names.COMPONENT_LABEL}="
        found, identities, pods = await asyncio.gather(
            asyncio.gather(*(self._cluster.read(kind, key.namespace, name) for kind, name in references)),
            self._cluster.read_list("ConfigMap", key.namespace, selector + names.IDENTITY_COMPONENT),
            self._cluster.read_list("Pod", key.namespace, selector + names.INDEXER_COMPONENT),
        )
        children = {reference: live for reference, live in zip(references, found, strict=True) if live is not None}
        observed = Observed(index, children, tuple({"kind": "ConfigMap", **item} for item in identities))
        return replace(observed, pods=_parse_pods(pods, observed.stateful_set))

    # --- execute ---

    async def _execute(self, actions: Iterable[Action], index: VectorIndex, memory: Memory) -> str:
        """Carry the actions out in order; return what the API server refused for good, or nothing."""
        refusals: list[str] = []
        not_written: list[str] = []
        for action in actions:
            if starts_pods(action) and is_fence_missing(*not_written):
                continue
            try:
                await self._act(action, index, memory)
            except RejectedError as error:
                log.warning("refused: index=%s cause=%s", index.key, error)
                refusals.append(str(error))
                not_written.append(_name_object(action))
        return refusals[0] if refusals else ""

    async def _act(self, action: Action, index: VectorIndex, memory: Memory) -> None:
        match action:
            case CreateObject(manifest=manifest):
                _remember(memory, manifest, await self._cluster.create(manifest))
                self._count("created", manifest, action, index)
            case ApplyObject(manifest=manifest, live=live):
                _remember(memory, manifest, await self._cluster.apply(manifest, live))
                self._count("applied", manifest, action, index)
            case DeleteObject(live=live):
                await self._cluster.delete(live)
                self._count("deleted", live, action, index)
            case HurryMember(pod=pod, value=value):
                await self._hurry(pod, value, index)
            case Action():
                raise AssertionError(f"unknown action {action!r}")
            case _:
                assert_never(action)

    async def _hurry(self, pod: Pod, value: str, index: VectorIndex) -> None:
        try:
            await self._cluster.annotate_pod(index.key.namespace, pod.name, pod.uid, {names.LIVE_HASH_ANNOTATION: value})
            metrics.WRITES.labels(kind="Pod").inc()
        except (NotFoundError, RejectedError) as error:  # gone by now, or another pod of that name
            log.info("pod not hurried: index=%s pod=%s cause=%s", index.key, pod.name, error)

    def _count(self, verb: str, manifest: Mapping[str, Any], action: Action, index: VectorIndex) -> None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        metrics.WRITES.labels(kind=kind).inc()
        log.info("%s %s %s: index=%s reason=%s", verb, kind, name, index.key, action.reason)


def _name_object(action: Action) -> str:
    manifest = action.manifest if isinstance(action, (CreateObject, ApplyObject)) else {}
    return f"{manifest['kind']} {manifest['metadata']['name']}" if manifest else ""


def _remember(memory: Memory, manifest: api.Json, outcome: api.Json) -> None:
    memory.outcomes[manifest["kind"], manifest["metadata"]["name"]] = checks.outcome_hash(manifest, outcome)


def _is_settled(observed: Observed, plan: Plan, rendered: api.Status) -> bool:
    index = observed.index
    if plan.actions or not is_rolled_out(observed.stateful_set) or rendered.drift:
        return False
    if any(condition.status is not ConditionStatus.TRUE for condition in rendered.conditions):
        return False
    if rendered.condition(ConditionType.RECONCILING) or rendered.condition(ConditionType.STALLED):
        return False
    if (rendered.ready_replicas or 0) < (rendered.replicas or 0):
        return False
    echoes = ((index.validate_wish, rendered.validate_requested_at), (index.rebuild_wish, rendered.rebuild_requested_at))
    for wish, echo in echoes:
        wished, echoed = api.parse_time(wish), api.parse_time(echo)
        if wished and (echoed is None or echoed < wished):
            return False
    return True


def _parse_pods(bodies: Iterable[Mapping[str, Any]], stateful_set: Mapping[str, Any] | None) -> tuple[Pod, ...]:
    """Return the pods that the StatefulSet controls, in order of their numbers; a label alone makes no member."""
    if stateful_set is None:
        return ()
    uid = stateful_set["metadata"]["uid"]
    own = [
        body for body in bodies if any(o.get("controller") and o.get("uid") == uid for o in body["metadata"].get("ownerReferences") or [])
    ]
    return tuple(sorted((_parse_pod(body) for body in own), key=lambda pod: (len(pod.name), pod.name)))


def _parse_pod(body: Mapping[str, Any]) -> Pod:
    meta, state = body["metadata"], body.get("status") or {}
    conditions = {condition["type"]: condition for condition in state.get("conditions") or []}
    volumes = body["spec"].get("volumes") or []
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        ip=state.get("podIP", ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        terminating="deletionTimestamp" in meta,
        trouble=_find_trouble(conditions, state.get("containerStatuses") or []),
        hurried=(meta.get("annotations") or {}).get(names.LIVE_HASH_ANNOTATION, ""),
        config_maps=frozenset(volume["configMap"]["name"] for volume in volumes if "configMap" in volume),
    )


def _find_trouble(conditions: Mapping[str, Any], containers: Iterable[Mapping[str, Any]]) -> str:
    for container in containers:
        reason = (container.get("state", {}).get("waiting") or {}).get("reason", "")
        if reason in _TROUBLES:
            return str(reason)
    scheduled = conditions.get("PodScheduled", {})
    return "Unschedulable" if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable" else ""
