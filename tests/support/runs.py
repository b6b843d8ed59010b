"""One VectorIndex with its pods, and what may be done to it: made, changed, scaled, wished for, approved, deleted and made again."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.cluster import RunningCluster
from tests.support.operator_process import Fleet, wait_for
from tests.support.vector_index import GOLDEN, make_manifest
from vectorindex_operator.api import Json

CHILDREN: Final = "statefulset,service,configmap,poddisruptionbudget,networkpolicy"
WISH: Final = "2026-11-25T12:00:00Z"
PLAN: Final = "fedcba9876543210"
EPISODES: Final = frozenset({"PlanHeld", "PlanApplied", "Repaired"})
"""Reasons of events whose number does not hang on how fast things went, unlike that of PlanApproved, which is over once it is applied."""

_TIME: Final = re.compile(r"(?!2026-11-25T12:00:00Z)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_HASH: Final = re.compile(r"\b(?!fedcba9876543210|0123456789abcdef)[0-9a-f]{16}\b")  # of names and owners, which differ from run to run
_KEPT: Final = ("name", "labels", "annotations", "ownerReferences")


@dataclass
class Run:
    """One index in a namespace of its own, with its pods."""

    cluster: RunningCluster
    namespace: str
    fleet: Fleet
    replicas: int = 2
    settled: Callable[["Run", Json], bool] = field(default=lambda *_: True)

    def apply(self, **spec: Any) -> None:
        """Apply a small manifest with this spec."""
        manifest = make_manifest("docs", self.namespace, **spec)
        self.cluster.kubectl("apply", "-f", "-", text=json.dumps(manifest))

    def read(self, *kinds: str) -> list[Json]:
        """Return the objects of the index."""
        found: list[Json] = self.cluster.get(",".join(kinds), "-n", self.namespace, "-l", "vectorindex.dev/index=docs")["items"]
        return found

    def tend(self) -> Json:
        """Do what kubelets and replicas do meanwhile; return the live file, or nothing while there is none."""
        for pod in self.fleet.pods():
            member = self.fleet.members.get(pod["metadata"]["name"])
            if member is None or member.document["identity"]["podUid"] != pod["metadata"]["uid"]:
                self.fleet.bring_up(pod)
        try:
            return self.fleet.read_live()
        except AssertionError:  # not made yet, or gone with its index
            return {}

    def is_settled(self) -> bool:
        """Whether nothing is left to do."""
        live = self.tend()
        if not live or len(self.fleet.members) < self.replicas:
            return False
        index = self.cluster.get("vidx", "docs", "-n", self.namespace)
        status = index["status"]
        conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
        return (
            conditions == {"Ready": "True", "Consistent": "True", "SourceAvailable": "True"}
            and status["observedGeneration"] == index["metadata"]["generation"]
            and len(status["members"]) == self.replicas == status["readyReplicas"]
            and "lastProven" in live
            and self.settled(self, index)
        )

    def settle(self) -> None:
        """Wait until nothing is left to do."""
        wait_for(f"the index in {self.namespace} has settled", self.is_settled, 120)

    def state(self) -> Json:
        """Return all that is left in the end, without what differs from one run to the next."""
        index = self.cluster.get("vidx", "docs", "-n", self.namespace)
        found = [index, *self.read(CHILDREN, "pod")]
        uids = {item["metadata"]["uid"]: f"{item['kind']}/{item['metadata']['name']}" for item in found}
        objects = sorted((self._strip(item) for item in found), key=lambda item: (item["kind"], json.dumps(item["metadata"])))
        text = json.dumps(objects)
        for uid, name in uids.items():
            text = text.replace(uid, name)
        text = _HASH.sub("HASH", _TIME.sub("TIME", text.replace(self.namespace, "NAMESPACE")))
        events = self.cluster.get("events", "-n", self.namespace, "--field-selector=involvedObject.kind=VectorIndex")["items"]
        told = Counter(event["reason"] for event in events if event["reason"] in EPISODES)
        return {"objects": json.loads(text), "events": dict(told)}

    @staticmethod
    def _strip(item: Json) -> Json:
        meta = {name: item["metadata"][name] for name in _KEPT if name in item["metadata"]}
        kept = {"kind": item["kind"], "metadata": meta}
        if item["kind"] == "Pod":  # its revision hangs on names, and how often it was hurried on time
            return {**kept, "metadata": {"name": meta["name"], "ownerReferences": meta["ownerReferences"]}}
        spec = {name: value for name, value in item.get("spec", {}).items() if name not in ("clusterIP", "clusterIPs")}
        status = item["status"] if item["kind"] == "VectorIndex" else {}
        return {**kept, "spec": spec, "data": item.get("data", {}), "status": status}


@dataclass(frozen=True)
class Scenario:
    """What is done to an index."""

    act: Callable[[Run], object]
    prepare: Callable[[Run], object] | None = None  # after it was made and has settled; None: it is not made before
    settled: Callable[[Run, Json], bool] = lambda *_: True
    replicas: int = 2
    react: Callable[[Run], object] = lambda _: None  # what replicas do meanwhile

    def begin(self, run: Run) -> None:
        """Bring the index to where it is acted on."""
        if self.prepare:
            run.settle()
            self.prepare(run)
        run.replicas, run.settled = self.replicas, self.settled

    def is_done(self, run: Run) -> bool:
        """Let replicas react; return whether nothing is left to do."""
        self.react(run)
        return run.is_settled()


def annotate(run: Run, name: str, value: str) -> None:
    """Put a wish on the index."""
    run.cluster.kubectl("annotate", "vidx", "docs", "-n", run.namespace, "--overwrite", f"vectorindex.dev/{name}={value}")


def _has_answered_the_wish(run: Run, index: Json) -> bool:
    if run.tend()["wishes"]["validateRequestedAt"] == WISH:
        run.fleet.say(identity={"validateRequestedAt": WISH})
    return bool(index["status"].get("validateRequestedAt") == WISH)


def _hold_a_plan(run: Run) -> None:
    said = {"result": "drift", "reason": "ChangeHeld", "message": "4012 of 9500 rows would go", "incarnation": "7/primary/2"}
    run.fleet.say(state="Held", proven=False, heldPlan=json.loads(GOLDEN.read_text())["heldPlan"], proof=said)

    def is_told() -> bool:
        run.tend()
        held = run.cluster.get("vidx", "docs", "-n", run.namespace)["status"].get("heldPlans", [])
        return len(held) == 1 and held[0]["replicas"] == 2

    wait_for("the plan is told", is_told)


def _approve(run: Run) -> None:
    annotate(run, "approve-plan", PLAN)


def _has_carried_out_the_plan(run: Run, index: Json) -> bool:
    status = index["status"]
    return "heldPlans" not in status and status.get("approvedPlans") == [PLAN] and run.tend()["wishes"]["approvePlan"] == ""


def _carry_out(run: Run) -> None:
    """Do what members do once the approval stands in their live file."""
    if run.tend().get("wishes", {}).get("approvePlan") != PLAN:
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    done = {"result": "ok", "reason": "Proven", "message": "", "incarnation": "7/primary/2", "provenAt": now, "asOf": now}
    run.fleet.say(state="Serving", proven=True, heldPlan=None, identity={"approvedPlans": [PLAN]}, proof=done)


def _recreate(run: Run) -> None:
    run.cluster.kubectl("delete", "vidx", "docs", "-n", run.namespace)
    run.apply()


def _is_second_life(run: Run, index: Json) -> bool:
    found = run.read(CHILDREN)
    return len(found) == 7 and {item["metadata"]["ownerReferences"][0]["uid"] for item in found} == {index["metadata"]["uid"]}


def _has_one_identity(run: Run, _: Json) -> bool:
    return len(run.read(CHILDREN)) == 7


MODEL: Final = {"columns": {"model": "model_name"}, "model": "m1"}
SCENARIOS: dict[str, Scenario] = {
    "create": Scenario(Run.apply),
    "update": Scenario(lambda run: run.apply(source=MODEL), lambda _: None, _has_one_identity),
    "scale up": Scenario(lambda run: run.apply(replicas=3), lambda _: None, replicas=3),
    "scale down": Scenario(lambda run: run.apply(replicas=1), lambda _: None, lambda run, _: len(run.read(CHILDREN, "pod")) == 7, 1),
    "wish": Scenario(lambda run: annotate(run, "validate-requested-at", WISH), lambda _: None, _has_answered_the_wish),
    "approve": Scenario(_approve, _hold_a_plan, _has_carried_out_the_plan, react=_carry_out),
    "delete": Scenario(_recreate, lambda _: None, _is_second_life),
}
