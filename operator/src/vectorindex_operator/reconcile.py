"""Brings VectorIndexes towards their specs: observe, plan, execute, tell. It acts on what is, never on what happened."""

import asyncio
import dataclasses
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
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
    find_image,
    is_held_back,
    is_rolled_out,
    make_plan,
)
from vectorindex_operator.rollout import IMAGE_WAITS, ImageRollout, Stage
from vectorindex_operator.settings import Settings
from vectorindex_operator.store import Store

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

    uid: str = ""
    status_written_at: datetime = LONG_AGO
    unsure: bool = False  # the API server disagreed with what the store holds: ask it for everything
    failures: int = 0
    writes: int = 0  # so far: a look that failed after one has come further all the same
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

    def __init__(self, cluster: Cluster, store: Store, members: Members, settings: Settings, clock: Callable[[], datetime] = _now) -> None:
        self._cluster = cluster
        self._store = store
        self._members = members
        self._settings = settings
        self._clock = clock
        self._memory: dict[Key, Memory] = {}
        self._rollout = ImageRollout(settings.indexer_image)

    async def reconcile(self, key: Key) -> Outcome:
        """Bring one VectorIndex towards its spec and tell its state. Errors of the API server end in another try, ever later."""
        memory = self._memory.setdefault(key, Memory())
        writes = memory.writes
        try:
            outcome = await self._look(key, memory)
        except (ConflictError, NotFoundError) as error:
            log.info("changed while we looked, looking again: index=%s cause=%s", key, error)
            memory.unsure = True
            outcome = Outcome("conflict", self._backoff(memory, memory.writes > writes))
        except ClusterError as error:
            log.warning("look failed: index=%s cause=%s", key, error)
            outcome = Outcome("error", self._backoff(memory, memory.writes > writes))
        else:
            if outcome.result == "ok":
                memory.failures = 0
        return outcome

    async def _look(self, key: Key, memory: Memory) -> Outcome:
        observed = await self._observe(key, memory)
        if observed is None:
            self._memory.pop(key, None)
            self._rollout.forget(key)
            metrics.forget(key)
            return Outcome("ok", None)
        stage = self._rollout.note(key, observed, is_refused=bool(memory.failures))
        metrics.WAITING_FOR_IMAGE.set(self._rollout.count_waiting())
        if observed.index.deleting:  # its objects go with it
            return Outcome("ok", None)
        now = self._clock()
        settings = self._choose_settings(observed, stage)
        plan = make_plan(observed, settings, now)
        if stage in IMAGE_WAITS and settings is self._settings and not (plan.changes_pods or plan.conflicts or plan.waiting):
            self._rollout.accept(key)
        refusal = await self._execute(plan.actions, observed.index, memory)
        rendered = status.render_status(observed, plan, refusal, now)
        await self._tell(memory, observed, rendered, now)
        memory.unsure = bool(plan.conflicts)  # what is not ours is not watched: nobody tells when it goes
        if refusal:
            return Outcome("refused", self._backoff(memory))
        return Outcome("ok", self._next_look(observed, plan, rendered))

    def _choose_settings(self, observed: Observed, stage: Stage) -> Settings:
        """Return the settings, with the image that the index has as long as it is not its turn to get the operator's."""
        key = observed.index.key
        if observed.stateful_set is None or stage not in IMAGE_WAITS:
            return self._settings
        turn = self._rollout.take_turn(key, set(self._store.keys()))
        if turn.is_now:
            log.info("its turn to get the image: index=%s image=%s", key, self._settings.indexer_image)
            return self._settings
        log.debug("not its turn to get the image yet: index=%s waits_for=%s", key, turn.waits_for)
        return dataclasses.replace(self._settings, indexer_image=find_image(observed.stateful_set))

    async def _tell(self, memory: Memory, observed: Observed, rendered: api.Status, now: datetime) -> None:
        index = observed.index
        metrics.show_status(index.key, rendered)
        for event in status.find_malformed_wishes(index):
            if event.identity not in memory.announced:
                await self._post(index, event, now)
                memory.announced.add(event.identity)
        if not status.is_worth_writing(index.status, rendered, now - memory.status_written_at, index.spec):
            return
        reachable = True
        for event in status.find_events(index, rendered):  # first: killed between the two, it would never be told
            reachable = await self._post(index, event, now, only_log=not reachable)
        self._store.put(names.KIND, await self._cluster.apply_status(index, rendered))
        metrics.WRITES.labels(kind="Status").inc()
        memory.writes += 1
        memory.status_written_at = now

    async def _post(self, index: VectorIndex, event: api.Event, now: datetime, *, only_log: bool = False) -> bool:
        """Post and log one event. It is news only once: if the API server does not take it, it stands in the log.

        Return whether the API server answered: where events are kept apart and that part is away, the status must not wait for each.
        """
        level = logging.INFO if event.kind == "Normal" else logging.WARNING
        log.log(level, "%s: index=%s reason=%s", event.message, index.key, event.reason)
        if only_log:
            return False
        try:
            await self._cluster.post_event(index, event, now)
            metrics.WRITES.labels(kind="Event").inc()
        except ClusterError as error:
            log.warning("event not posted: index=%s cause=%s", index.key, error)
            return error.status != 0
        return True

    def _next_look(self, observed: Observed, plan: Plan, rendered: api.Status) -> timedelta:
        settings = self._settings
        if plan.conflicts:
            return settings.poll_settled
        if plan.waiting or not _is_settled(observed, plan, rendered):
            return settings.poll_busy
        period = observed.index.spec.consistency.period_seconds if observed.index.spec else 3600
        return min(settings.poll_settled, max(settings.poll_busy, timedelta(seconds=period)))

    def _backoff(self, memory: Memory, has_come_further: bool = False) -> timedelta:
        memory.failures = 1 if has_come_further else memory.failures + 1
        limit = min(MAX_BACKOFF, timedelta(seconds=0.5 * 2.0 ** min(memory.failures, 10)))
        return limit * random.uniform(0.5, 1)  # noqa: S311 - spreads tries, guards nothing

    # --- observe ---

    async def _observe(self, key: Key, memory: Memory) -> Observed | None:
        if memory.unsure:
            await self._ask_for_all(key)
            memory.unsure = False
        body = self._store.get(names.KIND, *key)
        if body is None:
            return None
        index = api.parse_vector_index(body)
        if memory.uid != index.uid:  # another life of the name: nothing known of the earlier one holds
            memory.uid, memory.status_written_at = index.uid, self._clock()
            memory.announced, memory.outcomes = set(), {}
        found = ((kind, name, self._store.get(kind, key.namespace, name)) for kind, name in _references(index))
        children = {(kind, name): live for kind, name, live in found if live is not None}
        labelled = self._store.find("ConfigMap", key)
        identities = tuple(one for one in labelled if one["metadata"]["labels"].get(names.COMPONENT_LABEL) == names.IDENTITY_COMPONENT)
        observed = Observed(index, children, identities, outcomes=frozenset(memory.outcomes.values()))
        pods = _parse_pods(self._store.find("Pod", key), observed.stateful_set)
        addresses = [Address(pod.name, pod.uid, pod.ip) for pod in pods if pod.ip and not pod.terminating]
        return dataclasses.replace(observed, pods=pods, reports=await self._members.read_reports(addresses))

    async def _ask_for_all(self, key: Key) -> None:
        """Bring the store up to date about one VectorIndex, by reading all that belongs to it."""
        body = await self._ask(names.KIND, *key)
        if body is None:
            return
        selector = f"{names.INDEX_LABEL}={key.name}"
        references = _references(api.parse_vector_index(body))
        await asyncio.gather(
            *(self._ask(kind, key.namespace, name) for kind, name in references),
            *(self._ask_for_labelled(kind, key.namespace, selector) for kind in ("ConfigMap", "Pod")),
        )

    async def _ask_for_labelled(self, kind: str, namespace: str, selector: str) -> None:
        items, _ = await self._cluster.read_list(kind, namespace, selector)
        for body in items:
            self._store.put(kind, body)

    async def _ask(self, kind: str, namespace: str, name: str) -> api.Json | None:
        body = await self._cluster.read(kind, namespace, name)
        if body is None:
            self._store.remove(kind, namespace, name)
        else:
            self._store.put(kind, body)
        return body

    # --- execute ---

    async def _execute(self, actions: Iterable[Action], index: VectorIndex, memory: Memory) -> str:
        """Carry the actions out in order; return what the API server refused for good, or nothing."""
        refusals: list[str] = []
        not_written: list[str] = []
        if any(_needs_confirming(action, index) for action in actions):
            await self._confirm(index)
        for action in actions:
            if is_held_back(action, *not_written):
                continue
            try:
                await self._act(action, index, memory)
            except RejectedError as error:
                log.warning("refused: index=%s cause=%s", index.key, error)
                refusals.append(str(error))
                not_written.append(_name_object(action))
        return refusals[0] if refusals else ""

    async def _confirm(self, index: VectorIndex) -> None:
        """Raise ConflictError unless the resource is still as it was looked at.

        An API server that lags, or a watch that does, must not let an older spec undo what a newer one did.
        """
        body = await self._ask(names.KIND, *index.key)
        if body is None or body["metadata"]["resourceVersion"] != index.resource_version:
            raise ConflictError(f"VectorIndex {index.key} is newer than what was looked at")

    async def _act(self, action: Action, index: VectorIndex, memory: Memory) -> None:
        match action:
            case CreateObject(manifest=manifest):
                self._remember(memory, manifest, await self._cluster.create(manifest))
                self._count("created", manifest, action, index)
            case ApplyObject(manifest=manifest, live=live):
                self._remember(memory, manifest, await self._cluster.apply(manifest, live))
                self._count("applied", manifest, action, index)
            case DeleteObject(live=live):
                await self._cluster.delete(live)
                self._store.remove(live["kind"], live["metadata"]["namespace"], live["metadata"]["name"])
                self._count("deleted", live, action, index)
            case HurryMember(pod=pod, value=value):
                await self._hurry(pod, value, index)
            case Action():
                raise AssertionError(f"unknown action {action!r}")
            case _:
                assert_never(action)
        memory.writes += 1

    async def _hurry(self, pod: Pod, value: str, index: VectorIndex) -> None:
        try:
            annotations = {names.LIVE_HASH_ANNOTATION: value}
            self._store.put("Pod", await self._cluster.annotate_pod(index.key.namespace, pod.name, pod.uid, annotations))
            metrics.WRITES.labels(kind="Pod").inc()
        except (NotFoundError, RejectedError) as error:  # gone by now, or another pod of that name
            log.info("pod not hurried: index=%s pod=%s cause=%s", index.key, pod.name, error)

    def _remember(self, memory: Memory, manifest: api.Json, outcome: api.Json) -> None:
        kind = manifest["kind"]
        self._store.put(kind, outcome)
        memory.outcomes[kind, manifest["metadata"]["name"]] = checks.outcome_hash(manifest, outcome)

    def _count(self, verb: str, manifest: Mapping[str, Any], action: Action, index: VectorIndex) -> None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        metrics.WRITES.labels(kind=kind).inc()
        log.info("%s %s %s: index=%s reason=%s", verb, kind, name, index.key, action.reason)


def _needs_confirming(action: Action, index: VectorIndex) -> bool:
    """Tell whether the action could undo what a newer spec did, or bring back what was deleted with its resource.

    The first objects of a new index can't: made from an older spec, they are put right at the next look.
    """
    if isinstance(action, CreateObject):
        return index.status.observed_generation >= 0
    return isinstance(action, (ApplyObject, DeleteObject))


def _name_object(action: Action) -> str:
    manifest = action.manifest if isinstance(action, (CreateObject, ApplyObject)) else {}
    return f"{manifest['kind']} {manifest['metadata']['name']}" if manifest else ""


def _references(index: VectorIndex) -> tuple[tuple[str, str], ...]:
    return objects.child_references(index, index.spec) if index.spec else (("StatefulSet", objects.child_name(index.key.name)),)


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
        image=next((one["image"] for one in body["spec"]["containers"] if one["name"] == names.CONTAINER), ""),
    )


def _find_trouble(conditions: Mapping[str, Any], containers: Iterable[Mapping[str, Any]]) -> str:
    for container in containers:
        reason = (container.get("state", {}).get("waiting") or {}).get("reason", "")
        if reason in _TROUBLES:
            return str(reason)
    scheduled = conditions.get("PodScheduled", {})
    return "Unschedulable" if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable" else ""
