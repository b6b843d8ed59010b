"""Decides what to do for one VectorIndex: from what was observed to a list of actions. Pure; carrying them out is left to `reconcile`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from vectorindex_operator import api, checks, names, objects
from vectorindex_operator.api import Json, LastProven, VectorIndex
from vectorindex_operator.checks import Owner
from vectorindex_operator.errors import ReportError
from vectorindex_operator.names import Result
from vectorindex_operator.objects import Desired
from vectorindex_operator.reports import Report
from vectorindex_operator.settings import Settings

# A pod without memory of its own needs only a rough idea of what was last proven; each new one costs a write and a sync of every pod.
REMEMBER_AGAIN: Final = timedelta(hours=1)
REMEMBER_CHANGE: Final = 0.05

NEVER: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

MAX_HURRY_PAUSE: Final = timedelta(minutes=5)
MAX_SNAPSHOT: Final = 256


@dataclass(frozen=True)
class Pod:
    """One pod of the index's StatefulSet."""

    name: str
    uid: str
    ip: str
    ready: bool
    terminating: bool
    trouble: str = ""  # why it does not start, as the kubelet or the scheduler calls it
    hurried: str = ""  # value of the live-hash annotation
    config_maps: frozenset[str] = frozenset()
    image: str = ""


@dataclass(frozen=True)
class Observed:
    """Everything that was read about one VectorIndex, from the API server and from its members."""

    index: VectorIndex
    children: Mapping[tuple[str, str], Json] = field(default_factory=dict)  # by kind and name; what isn't there is left out
    identities: tuple[Json, ...] = ()  # all immutable ConfigMaps that bear the index's label
    pods: tuple[Pod, ...] = ()
    reports: Mapping[str, Report | ReportError] = field(default_factory=dict)  # by pod
    outcomes: frozenset[str] = frozenset()  # `checks.outcome_hash` of our own writes: what the API server made of our words

    @property
    def stateful_set(self) -> Json | None:
        """The live StatefulSet, if it is ours."""
        live = self.children.get(("StatefulSet", objects.child_name(self.index.key.name)))
        return live if live and checks.find_owner(live, self.index.key.name, self.index.uid) is Owner.OURS else None

    def answers(self) -> dict[str, Report]:
        """Return the reports of all pods that answered, by pod."""
        return {pod: report for pod, report in self.reports.items() if isinstance(report, Report)}


@dataclass(frozen=True)
class Action:
    """One step, with the reason for it."""

    reason: str


@dataclass(frozen=True)
class CreateObject(Action):
    """Make an object that is not there; fails when something of that name is there after all."""

    manifest: Json


@dataclass(frozen=True)
class ApplyObject(Action):
    """Put an object of ours right, in the state in which it was seen."""

    manifest: Json
    live: Json


@dataclass(frozen=True)
class DeleteObject(Action):
    """Remove an object of ours that is not needed any more."""

    live: Json


@dataclass(frozen=True)
class HurryMember(Action):
    """Make the kubelet sync a pod's mounted files now."""

    pod: Pod
    value: str


@dataclass(frozen=True)
class Plan:
    """What to do, and what stands in the way."""

    actions: tuple[Action, ...] = ()
    conflicts: tuple[str, ...] = ()  # objects in our place that are not ours
    waiting: tuple[str, ...] = ()  # objects of an earlier index of that name, or our own ones being deleted
    identity_hash: str = ""
    last_proven: LastProven | None = None  # the newest proof known
    used_plans: tuple[str, ...] = ()  # approved plans that are used up

    @property
    def changes_pods(self) -> bool:
        """Whether the StatefulSet is made or changed."""
        changed = (action.manifest for action in self.actions if isinstance(action, (CreateObject, ApplyObject)))
        return any(manifest["kind"] == "StatefulSet" for manifest in changed)


def make_plan(observed: Observed, settings: Settings, now: datetime) -> Plan:
    """Return what to do now. Planned again after all of it was done, nothing is left."""
    index = observed.index
    if index.spec is None or index.deleting:
        return Plan(last_proven=index.status.last_proven, used_plans=tuple(index.status.approved_plans))
    identity_hash = api.short_hash(api.identity_document(index, index.spec))
    newest = find_last_proven(observed, identity_hash)
    remembered = choose_remembered(_read_remembered(observed), newest, identity_hash)
    used = find_used_plans(observed)
    desired = objects.build_children(index, index.spec, settings, remembered, used)
    actions: list[Action] = []
    conflicts: list[str] = []
    waiting: list[str] = []
    for manifest in desired.manifests:
        step = _plan_object(manifest, observed, conflicts, waiting)
        if step and not is_held_back(step, *conflicts, *waiting):
            actions.append(step)
    actions += _plan_unwanted(observed, desired)
    if not conflicts and not waiting:
        actions += _plan_hurry(observed, desired, now)
    actions += _plan_pruning(observed, desired, actions)
    return Plan(tuple(actions), tuple(conflicts), tuple(waiting), identity_hash, newest, used)


def is_held_back(action: Action, *not_written: str) -> bool:
    """Tell whether pods would start without their network policy, or with files that are not ours; `not_written`: kinds and names."""
    if not isinstance(action, (CreateObject, ApplyObject)) or action.manifest["kind"] != "StatefulSet":
        return False
    needed = ("ConfigMap ", "NetworkPolicy ") if isinstance(action, CreateObject) else ("ConfigMap ",)
    return any(text.startswith(needed) for text in not_written)


def _plan_object(manifest: Json, observed: Observed, conflicts: list[str], waiting: list[str]) -> Action | None:
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    live = observed.children.get((kind, name))
    if live is None:
        return CreateObject("it is not there", manifest)
    owner = checks.find_owner(live, observed.index.key.name, observed.index.uid)
    if owner is Owner.FOREIGN:
        conflicts.append(f"{kind} {name}")
        return None
    if owner is Owner.EARLIER_LIFE or "deletionTimestamp" in live["metadata"]:
        waiting.append(f"{kind} {name}")
        return None
    place = checks.find_difference(manifest, live)
    if place is None or checks.outcome_hash(manifest, live) in observed.outcomes:
        return None  # the API server, or a policy in it, puts some values otherwise; written again they would come out the same
    return ApplyObject(f"{place} is not as it should be", manifest, live)


def _plan_unwanted(observed: Observed, desired: Desired) -> list[Action]:
    found = (observed.children.get(reference) for reference in desired.absent)
    return [DeleteObject("a single replica has no use for it", live) for live in found if live and _is_ours(observed, live)]


def _plan_pruning(observed: Observed, desired: Desired, actions: list[Action]) -> list[Action]:
    """Remove identity files once no pod, present or to come, can ask for them."""
    wanted = {manifest["metadata"]["name"] for manifest in desired.manifests if manifest["kind"] == "ConfigMap"}
    used = {name for pod in observed.pods for name in pod.config_maps}
    old = [live for live in observed.identities if live["metadata"]["name"] not in wanted | used and _is_ours(observed, live)]
    if not old or not is_rolled_out(observed.stateful_set) or Plan(tuple(actions)).changes_pods:
        return []
    return [DeleteObject("no pod uses it any more", live) for live in old]


def _plan_hurry(observed: Observed, desired: Desired, now: datetime) -> list[Action]:
    hurried: list[Action] = []
    for pod in observed.pods:
        report = observed.reports.get(pod.name)
        if not isinstance(report, Report) or pod.terminating or report.identity.live_hash == desired.live_hash:
            continue
        value = _hurry_value(pod.hurried, desired.live_hash, now)
        if value:
            hurried.append(HurryMember("it has not read the newest live file", pod, value))
    return hurried


def _hurry_value(current: str, live_hash: str, now: datetime) -> str | None:
    """Return the next value of the annotation, `hash attempt time`, or None while it is too early for another attempt."""
    parts = current.split(" ")
    attempt = 1
    if len(parts) == 3 and parts[0] == live_hash and parts[1].isdigit():
        attempt = int(parts[1]) + 1
        pause = min(timedelta(seconds=2.0 ** min(attempt - 1, 10)), MAX_HURRY_PAUSE)
        last = api.parse_time(parts[2])
        if last is not None and last <= now < last + pause:
            return None
    return f"{live_hash} {attempt} {api.format_time(now)}"


def _is_ours(observed: Observed, live: Json) -> bool:
    index = observed.index
    return "deletionTimestamp" not in live["metadata"] and checks.find_owner(live, index.key.name, index.uid) is Owner.OURS


def is_rolled_out(stateful_set: Json | None) -> bool:
    """Tell whether all pods of the StatefulSet are there and of its newest template, and have been ready with it since it was changed."""
    if stateful_set is None:
        return False
    status, wanted = stateful_set.get("status") or {}, stateful_set["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < stateful_set["metadata"].get("generation", 0):
        return False
    if status.get("currentRevision") != status.get("updateRevision"):
        return False  # the last pods are replaced, and not all of them are ready yet
    return bool(status.get("replicas", 0) == wanted and status.get("updatedReplicas", 0) >= wanted)


def find_image(workload: Json) -> str:
    """Return the indexer's image in a StatefulSet's template."""
    containers = workload["spec"]["template"]["spec"]["containers"]
    return next((str(one.get("image", "")) for one in containers if one["name"] == names.CONTAINER), "")


def find_used_plans(observed: Observed) -> tuple[str, ...]:
    """Return the approved plans that are carried out and that no member waits for; remembered while the annotation names them.

    Without that memory, a pod that starts without its own would take an old approval for a new one.
    """
    known = observed.index.status.approved_plans
    return tuple(plan for plan in api.parse_plans(observed.index.approve_wish) if plan in known or _is_used_up(plan, observed))


def _is_used_up(plan: str, observed: Observed) -> bool:
    """Tell whether a member carried the plan out and every other has looked at Postgres since: it met the same change, and passed it."""
    answers = observed.answers()
    done = [_known_since(plan, pod, report, observed) for pod, report in answers.items() if plan in report.identity.approved_plans]
    if not done or NEVER in done or len(answers) < len(observed.pods):
        return False
    if any(report.held_plan and report.held_plan.id == plan for report in answers.values()):
        return False
    return all(_as_of(report.proof.as_of) >= min(done) for report in answers.values())


def _known_since(plan: str, pod: str, report: Report, observed: Observed) -> datetime:
    """Return as of when this member is known to have carried the plan out: what it says now moves on with each of its checks.

    Compared with that, a member that always looks a moment earlier would never have looked since.
    """
    told = next((member for member in observed.index.status.members if member.pod == pod), None)
    if told and told.as_of and told.pod_uid == report.identity.pod_uid and plan in told.approved_plans:
        return min(_as_of(told.as_of), _as_of(report.proof.as_of))
    return _as_of(report.proof.as_of)


def _as_of(text: str) -> datetime:
    return api.parse_time(text) or NEVER


# --- what was last proven ---


def find_last_proven(observed: Observed, identity_hash: str) -> LastProven | None:
    """Return the newest proof of this identity, from the members or, while they have none, from the status."""
    known = observed.index.status.last_proven
    proofs = [known] if known and known.identity_hash == identity_hash else []
    for report in observed.answers().values():
        proof = report.proof
        sure = report.proven and proof.result is Result.OK and report.held_plan is None  # held, it tells of what was before
        if sure and proof.proven_at and report.identity.identity_hash == identity_hash:
            rows = report.view.rows if report.view else proof.source_rows
            snapshot = shorten(proof.snapshot)
            proofs.append(LastProven(rows, proof.incarnation, snapshot, proof.digest_spec, identity_hash, proof.proven_at))
    return max(proofs, key=lambda proof: (_moment(proof), proof.snapshot), default=None)


def choose_remembered(written: LastProven | None, newest: LastProven | None, identity_hash: str) -> LastProven | None:
    """Return what the live file shall remember: what is written there, unless the newest proof tells something else or is much newer."""
    if written is None or written.identity_hash != identity_hash:
        return newest
    if newest is None or _moment(newest) <= _moment(written):
        return written
    if (newest.incarnation, newest.digest_spec) != (written.incarnation, written.digest_spec):
        return newest
    if abs(newest.rows - written.rows) > REMEMBER_CHANGE * written.rows:
        return newest
    return newest if _moment(newest) - _moment(written) >= REMEMBER_AGAIN else written


def _read_remembered(observed: Observed) -> LastProven | None:
    live = observed.children.get(("ConfigMap", objects.child_name(observed.index.key.name)))
    if not live or not _is_ours(observed, live):
        return None
    at, _, identity_hash = (live["metadata"].get("annotations") or {}).get(names.LAST_PROVEN_ANNOTATION, "").partition(" ")
    try:
        entry = json.loads(live["data"][names.LIVE_FILE.rpartition("/")[2]])["lastProven"]
        found = LastProven(entry["rows"], entry["incarnation"], entry["snapshot"], entry["digestSpec"], identity_hash, at)
    except (KeyError, TypeError, ValueError):  # somebody edited it; it is about to be put right
        return None
    return found if api.parse_time(at) and isinstance(found.rows, int) else None


def _moment(proof: LastProven) -> datetime:
    return api.parse_time(proof.at) or NEVER


def shorten(snapshot: str) -> str:
    """Leave out the list of running transactions where it is too long to publish: all of them count as running then."""
    if len(snapshot) <= MAX_SNAPSHOT:
        return snapshot
    xmin = snapshot.partition(":")[0]
    return f"{xmin}:{xmin}:"
