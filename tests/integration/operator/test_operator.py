"""The real operator on a real API server: objects, conditions, events, wishes, and what it must never do.

Pods exist here as objects only, as there is no node; `Fleet` plays kubelet and replicas. Real pods are the end-to-end tests' part.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import RunningCluster
from tests.support.operator_process import IMAGE, Fleet, OperatorProcess, make_account, wait_for
from tests.support.vector_index import GOLDEN, make_index, make_manifest, make_stateful_set
from vectorindex_operator.api import Json

pytestmark = pytest.mark.usefixtures("operator")

Apply = Callable[..., None]
Read = Callable[[], Json]

CHILDREN = "statefulset,service,configmap,poddisruptionbudget,networkpolicy"


def condition(index: Json, kind: str) -> tuple[str, str] | None:
    found = [c for c in index.get("status", {}).get("conditions", []) if c["type"] == kind]
    return (found[0]["status"], found[0]["reason"]) if found else None


def wait_condition(read: Read, kind: str, status: str, reason: str) -> Json:
    wait_for(f"{kind} {status} {reason}", lambda: condition(read(), kind) == (status, reason) or None, 20)
    return read()


def children(cluster: RunningCluster, namespace: str) -> dict[str, Json]:
    items = cluster.get(CHILDREN, "-n", namespace, "-l", "vectorindex.dev/index=docs")["items"]
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in items}


def versions(cluster: RunningCluster, namespace: str) -> dict[str, str]:
    """Return the version of everything the operator might write: an independent witness beside its own metrics."""
    found = [*cluster.get(f"{CHILDREN},vidx,pod", "-n", namespace)["items"], *events(cluster, namespace)]
    return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in found}


def events(cluster: RunningCluster, namespace: str, reason: str = "") -> list[Json]:
    found = cluster.get("events", "-n", namespace, "--field-selector=involvedObject.kind=VectorIndex")["items"]
    return [event for event in found if reason in ("", event["reason"])]


def annotate(cluster: RunningCluster, namespace: str, **wishes: str) -> None:
    pairs = [f"vectorindex.dev/{name.replace('_', '-')}={value}" for name, value in wishes.items()]
    cluster.kubectl("annotate", "vidx", "docs", "-n", namespace, "--overwrite", *pairs)


@pytest.fixture
def serving(apply: Apply, pods: Fleet, read: Read) -> Fleet:
    """An index of two replicas that serve proven answers and have read their newest live file."""
    apply()
    pods.serve(2)
    pods.keep_reading(30, lambda: condition(read(), "Consistent") == ("True", "Proven") and is_read(pods))
    return pods


def is_read(pods: Fleet) -> bool:
    """Whether the live file is final: what was first proven stands in it."""
    return "lastProven" in pods.read_live()


def test_a_new_index_gets_its_objects_and_becomes_ready_and_consistent(
    operator: OperatorProcess, namespace: str, apply: Apply, pods: Fleet, read: Read
) -> None:
    cluster = pods.cluster
    apply()
    wait_condition(read, "Ready", "False", "Starting")
    made = children(cluster, namespace)
    assert sorted(name for name in made if not name.startswith("ConfigMap/docs-index-")) == [
        "ConfigMap/docs-index",
        "NetworkPolicy/docs-index",
        "PodDisruptionBudget/docs-index",
        "Service/docs-index",
        "Service/docs-index-members",
        "StatefulSet/docs-index",
    ]
    assert made["StatefulSet/docs-index"]["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE
    pods.serve(2)
    wait_condition(read, "Ready", "True", "Serving")  # the first of the two is told of alone, where the operator is quick
    index = wait_condition(read, "Consistent", "True", "Proven")
    assert condition(index, "Ready") == ("True", "Serving")
    assert condition(index, "SourceAvailable") == ("True", "Reachable")
    assert condition(index, "Reconciling") is None
    state = index["status"]
    assert (state["observedGeneration"], state["rows"], state["drift"], state["readyReplicas"]) == (1, 9500, 0, 2)
    assert state["rootDigest"] == "9500:0123456789abcdef-fedcba9876543210"
    assert [member["pod"] for member in state["members"]] == ["docs-index-0", "docs-index-1"]
    labels = {"namespace": namespace, "name": "docs", "type": "Consistent"}
    assert operator.metric("vectorindex_operator_condition", status="True", **labels) == 1
    assert operator.metric("vectorindex_operator_condition", status="Unknown", **labels) == 0
    line = cluster.kubectl("get", "vidx", "docs", "-n", namespace).splitlines()
    assert line[0].split() == ["NAME", "READY", "CONSISTENT", "REPLICAS", "ROWS", "DRIFT", "AS-OF", "AGE"]
    assert line[1].split()[:6] == ["docs", "True", "True", "2", "9500", "0"]


def test_at_rest_nothing_is_written_also_after_a_restart(
    cluster: RunningCluster, operator: OperatorProcess, namespace: str, serving: Fleet
) -> None:
    time.sleep(3)  # the last events of the settling
    before, writes, asked = versions(cluster, namespace), operator.writes(), sum(member.asked for member in serving.members.values())
    time.sleep(13)
    assert sum(member.asked for member in serving.members.values()) > asked
    assert operator.writes() == writes
    assert versions(cluster, namespace) == before
    assert operator.stop() == 0
    operator.start()
    wait_for("it looked at the index", lambda: operator.metric("vectorindex_operator_condition", namespace=namespace))
    time.sleep(4)
    assert versions(cluster, namespace) == before


def test_deleted_and_edited_objects_come_back(cluster: RunningCluster, namespace: str, serving: Fleet) -> None:
    del serving
    before = children(cluster, namespace)
    for name in before:
        if not name.startswith("StatefulSet"):
            cluster.kubectl("delete", name, "-n", namespace, "--wait=false")
    wait_for("all are back", lambda: set(children(cluster, namespace)) == set(before), 20)

    def patch(name: str, changes: Json) -> None:
        cluster.kubectl("patch", name, "-n", namespace, "--type=merge", "-p", json.dumps(changes))

    patch("service/docs-index", {"spec": {"selector": {"narrow": "x"}}})
    patch("networkpolicy/docs-index", {"spec": {"ingress": [{}]}})
    patch("statefulset/docs-index", {"spec": {"replicas": 0}})
    patch("configmap/docs-index", {"data": {"live.json": "{}"}})

    def is_right() -> bool:
        now = children(cluster, namespace)
        return (
            "narrow" not in now["Service/docs-index"]["spec"]["selector"]
            and len(now["NetworkPolicy/docs-index"]["spec"]["ingress"]) == 2
            and now["StatefulSet/docs-index"]["spec"]["replicas"] == 2
            and "consistency" in now["ConfigMap/docs-index"]["data"]["live.json"]
        )

    wait_for("all are put right", is_right, 20)


def test_what_is_taken_out_of_the_spec_goes_out_of_the_pods(cluster: RunningCluster, namespace: str, apply: Apply) -> None:
    def pod() -> Json:
        found = children(cluster, namespace).get("StatefulSet/docs-index")
        template: Json = found["spec"]["template"]["spec"] if found else {}
        return template

    apply(pod={"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]})
    wait_for("the pods have a node selector", lambda: pod().get("nodeSelector") == {"disk": "ssd"})
    apply()
    wait_for("the pods have none", lambda: "nodeSelector" not in pod() and not pod().get("tolerations"))


def _peer(peer: Json) -> Json:
    return {"network": {"clients": [peer], "source": [peer]}}


# Values that the API server keeps in another form than they were given in: they must not look like somebody's edit.
REWRITTEN: dict[str, Json] = {
    "no-labels": _peer({"podSelector": {"matchLabels": {}}}),
    "no-values": _peer({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]}}),
    "no-exceptions": _peer({"ipBlock": {"cidr": "10.0.0.0/8", "except": []}}),
    "no-key": {"pod": {"tolerations": [{"key": "", "operator": "Exists", "value": ""}]}},
    "a-tenth": {"pod": {"resources": {"requests": {"cpu": "0.1", "memory": "1024Mi"}, "limits": {"cpu": 1}}}},
    "a-thousandth": {"pod": {"resources": {"requests": {"cpu": "0.001"}}}},
    "a-volume": {"storage": {"size": "1024Mi"}},
    "certificates": {
        "source": {
            "postgres": {
                "sslMode": "VerifyFull",
                "caSecretRef": {"name": "pg-ca"},
                "clientCertificateSecretRef": {"name": "docs-reader-tls"},
            }
        }
    },
}


def test_values_that_the_api_server_writes_in_its_own_way_come_to_rest(
    cluster: RunningCluster, operator: OperatorProcess, namespace: str, apply: Apply
) -> None:
    for name, spec in REWRITTEN.items():
        apply(name, **spec)
    for name in REWRITTEN:
        cluster.kubectl("wait", "--for=condition=Ready=False", f"vidx/{name}", "-n", namespace, "--timeout=20s")
    time.sleep(5)
    writes, before = operator.writes(), versions(cluster, namespace)
    time.sleep(5)
    assert operator.writes() == writes
    assert versions(cluster, namespace) == before


MIRROR = "mirror.example/indexer:1"
MIRRORING = (
    "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{"
    f'containers: [Object.spec.template.spec.containers{{name: "indexer", image: "{MIRROR}"}}]'
    "}}}}"
)


@pytest.fixture
def mirroring(cluster: RunningCluster, namespace: str) -> Iterator[None]:
    """Let the API server change the image of every StatefulSet, as policies of a cluster may."""
    group = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["statefulsets"]}
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": MIRRORING}}],
    }
    meta = {"name": "mirror"}
    items = [
        {"apiVersion": group, "kind": "MutatingAdmissionPolicy", "metadata": meta, "spec": policy},
        {"apiVersion": group, "kind": "MutatingAdmissionPolicyBinding", "metadata": meta, "spec": {"policyName": "mirror"}},
    ]
    cluster.kubectl("apply", "-f", "-", text="\n---\n".join(map(json.dumps, items)))
    trial = make_stateful_set(make_index(), 1)
    trial["metadata"] = {"name": "trial", "namespace": namespace}
    dry_run = ("create", "-f", "-", "--dry-run=server", "-o", "json")
    wait_for("the policy is in force", lambda: MIRROR in cluster.kubectl(*dry_run, text=json.dumps(trial)), 60)
    yield
    cluster.kubectl("delete", "mutatingadmissionpolicybinding/mirror", "mutatingadmissionpolicy/mirror")


@pytest.mark.usefixtures("mirroring")
def test_a_policy_of_the_cluster_that_changes_our_objects_is_not_fought(
    cluster: RunningCluster, operator: OperatorProcess, namespace: str, apply: Apply
) -> None:
    apply()
    wait_for("the objects are made", lambda: len(children(cluster, namespace)) == 7)
    assert children(cluster, namespace)["StatefulSet/docs-index"]["spec"]["template"]["spec"]["containers"][0]["image"] == MIRROR
    time.sleep(5)
    writes = operator.writes()
    time.sleep(5)
    assert operator.writes() == writes
    cluster.kubectl("scale", "statefulset/docs-index", "-n", namespace, "--replicas=5")
    wait_for("an edit is still put right", lambda: children(cluster, namespace)["StatefulSet/docs-index"]["spec"]["replicas"] == 2)


@pytest.mark.parametrize("kind", ["service", "configmap"])
def test_a_foreign_object_is_never_overwritten(cluster: RunningCluster, namespace: str, apply: Apply, read: Read, kind: str) -> None:
    body: Json = {
        "apiVersion": "v1",
        "metadata": {"name": "docs-index", "namespace": namespace, "labels": {"vectorindex.dev/index": "docs"}},
    }
    body |= {"kind": "Service", "spec": {"ports": [{"port": 1}]}} if kind == "service" else {"kind": "ConfigMap", "data": {"mine": "yes"}}
    cluster.kubectl("create", "-f", "-", text=json.dumps(body))
    before = cluster.get(kind, "docs-index", "-n", namespace)
    apply()
    index = wait_condition(read, "Stalled", "True", "NameConflict")
    assert condition(index, "Ready") == ("False", "NameConflict")
    time.sleep(3)
    assert cluster.get(kind, "docs-index", "-n", namespace) == before
    cluster.kubectl("delete", kind, "docs-index", "-n", namespace)
    wait_for("it goes on by itself", lambda: condition(read(), "Stalled") is None or None, 70)


def test_a_refusal_of_the_api_server_is_told_and_heals_when_its_cause_goes(
    cluster: RunningCluster, operator: OperatorProcess, namespace: str, apply: Apply, read: Read
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight", "namespace": namespace}}
    cluster.kubectl("create", "-f", "-", text=json.dumps(quota | {"spec": {"hard": {"count/services": "1"}}}))
    wait_for("the quota is counted", lambda: cluster.get("quota", "tight", "-n", namespace).get("status", {}).get("used"))
    apply()
    index = wait_condition(read, "Stalled", "True", "Refused")
    assert condition(index, "Ready") == ("False", "Refused")
    (stalled,) = [c for c in index["status"]["conditions"] if c["type"] == "Stalled"]
    assert "exceeded quota: tight" in stalled["message"]
    assert "StatefulSet/docs-index" in children(cluster, namespace)  # what is not refused is made
    time.sleep(5)
    assert len(events(cluster, namespace, "Refused")) == 2  # Ready and Stalled, once each, whatever number of tries
    cluster.kubectl("delete", "quota", "tight", "-n", namespace)
    wait_for("it goes on by itself", lambda: len(children(cluster, namespace)) == 7 and condition(read(), "Stalled") is None, 70)
    assert operator.metric("vectorindex_operator_reconciles_total", result="refused")


def test_a_right_that_is_taken_away_is_named_and_all_heals_when_it_is_back(
    cluster: RunningCluster, namespace: str, apply: Apply, read: Read, tmp_path: Path
) -> None:
    role = cluster.get("clusterrole", "vectorindex")
    (place,) = [place for place, rule in enumerate(role["rules"]) if "networkpolicies" in rule["resources"]]
    verbs = {"op": "replace", "path": f"/rules/{place}/verbs", "value": ["get", "list", "watch"]}
    cluster.kubectl("patch", "clusterrole", "vectorindex", "--type=json", "-p", json.dumps([verbs]))
    try:
        apply()
        index = wait_condition(read, "Stalled", "True", "Refused")
        (stalled,) = [c for c in index["status"]["conditions"] if c["type"] == "Stalled"]
        assert 'cannot create resource "networkpolicies"' in stalled["message"]
        assert "StatefulSet/docs-index" not in children(cluster, namespace)  # no pods without their fence
    finally:
        make_account(cluster, tmp_path)
    wait_for("it goes on by itself", lambda: len(children(cluster, namespace)) == 7 and condition(read(), "Stalled") is None, 70)


def test_scale_reaches_the_pods_and_back(cluster: RunningCluster, namespace: str, serving: Fleet, read: Read) -> None:
    cluster.kubectl("scale", "vidx/docs", "-n", namespace, "--replicas=3")
    serving.serve(3)
    wait_for("three serve", lambda: read()["status"]["readyReplicas"] == 3)
    assert cluster.kubectl("get", "--raw", f"/apis/vectorindex.dev/v1alpha1/namespaces/{namespace}/vectorindexes/docs/scale")
    cluster.kubectl("scale", "vidx/docs", "-n", namespace, "--replicas=1")
    wait_for("one is left", lambda: len(serving.pods()) == 1)
    wait_for("no budget for one", lambda: "PodDisruptionBudget/docs-index" not in children(cluster, namespace))


def test_wishes_and_suspend_reach_the_members_at_once_and_echoes_come_back(
    cluster: RunningCluster, namespace: str, serving: Fleet, apply: Apply, read: Read
) -> None:
    wish = "2026-11-25T12:00:00Z"
    annotate(cluster, namespace, validate_requested_at=wish, rebuild_requested_at="soon")
    wait_for("the wish is in the file", lambda: serving.read_live()["wishes"]["validateRequestedAt"] == wish)
    assert serving.read_live()["wishes"]["rebuildRequestedAt"] == ""
    wait_for("a malformed wish is told", lambda: events(cluster, namespace, "MalformedWish"))
    serving.members["docs-index-0"].say(identity={"validateRequestedAt": wish})
    time.sleep(3)
    assert read()["status"].get("validateRequestedAt") != wish  # one of two has answered
    serving.say(identity={"validateRequestedAt": wish})
    wait_for("the echo", lambda: read()["status"].get("validateRequestedAt") == wish)

    apply(suspend=True)
    wait_for("suspend is in the file", lambda: serving.cluster.get("cm", "docs-index", "-n", namespace)["data"]["live.json"].count("true"))
    hurried = wait_for(
        "the pods are hurried",
        lambda: [pod["metadata"].get("annotations", {}).get("vectorindex.dev/live-hash") for pod in serving.pods()],
    )
    assert all(hurried)
    serving.say(suspended=True, pending=3, proven=False, proof={"result": "drift", "reason": "PendingSuspended", "message": "3 rows wait"})
    serving.read_live()
    wait_condition(read, "Consistent", "False", "Suspended")
    serving.say(suspended=False, pending=0, proven=True, proof={"result": "ok", "reason": "Proven"})
    apply(suspend=False)
    serving.keep_reading(20, lambda: condition(read(), "Consistent") == ("True", "Proven"))


PLAN = "fedcba9876543210"


def test_a_held_change_is_told_with_the_command_that_approves_it_once(
    cluster: RunningCluster, operator: OperatorProcess, namespace: str, serving: Fleet, read: Read
) -> None:
    proven = serving.read_live()["lastProven"]
    plan = json.loads(GOLDEN.read_text())["heldPlan"]
    said = {"result": "drift", "reason": "ChangeHeld", "message": "4012 of 9500 rows would go", "incarnation": "7/primary/2"}
    serving.say(state="Held", proven=False, heldPlan=plan, proof=said)
    index = wait_condition(read, "Consistent", "False", "ChangeHeld")
    assert condition(index, "Ready") == ("True", "Serving")
    (held,) = index["status"]["heldPlans"]
    assert (held["id"], held["removes"], held["replicas"], held.get("approved")) == (PLAN, 4000, 2, None)
    assert index["status"]["members"][0]["heldPlan"]["sampleIds"] == ["100001740"]
    assert operator.metric("vectorindex_operator_held_plans", namespace=namespace, name="docs") == 1
    wait_for("it is announced", lambda: len(events(cluster, namespace, "PlanHeld")) == 1)

    (consistent,) = [c for c in index["status"]["conditions"] if c["type"] == "Consistent"]
    command = consistent["message"].partition("To approve: kubectl ")[2].split()
    assert serving.read_live()["wishes"]["approvePlan"] == ""
    cluster.kubectl(*command)
    wait_for("the approval is in the file", lambda: serving.read_live()["wishes"]["approvePlan"] == PLAN)
    wait_for("the status says so", lambda: read()["status"]["heldPlans"][0].get("approved"))
    assert serving.read_live()["lastProven"] == proven  # what a replica that holds a plan says is no proof

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    done = {"result": "ok", "reason": "Proven", "incarnation": "7/primary/2", "provenAt": now, "asOf": now}
    serving.say(state="Serving", proven=True, heldPlan=None, identity={"approvedPlans": [PLAN]}, proof=done)
    serving.keep_reading(20, lambda: condition(read(), "Consistent") == ("True", "Proven"))
    wait_for("it is used up", lambda: read()["status"].get("approvedPlans") == [PLAN] and "heldPlans" not in read()["status"])
    wait_for("it is handed down no more", lambda: serving.read_live()["wishes"]["approvePlan"] == "")
    wait_for("the new server is what was proven", lambda: serving.read_live()["lastProven"]["incarnation"] == "7/primary/2")
    wait_for("all is announced", lambda: len(events(cluster, namespace, "PlanApplied")) == 2)
    assert [len(events(cluster, namespace, reason)) for reason in ("PlanHeld", "PlanApproved")] == [1, 1]

    serving.say(state="Held", proven=False, heldPlan=plan, proof=said, identity={"approvedPlans": []})
    index = wait_condition(read, "Consistent", "False", "ChangeHeld")
    assert serving.read_live()["wishes"]["approvePlan"] == ""  # a replica without memory does not take the old approval for a new one
    cluster.kubectl("annotate", "vidx", "docs", "-n", namespace, "vectorindex.dev/approve-plan-")
    wait_for("it is forgotten", lambda: "approvedPlans" not in read()["status"])
    annotate(cluster, namespace, approve_plan=PLAN)
    wait_for("it is approved anew", lambda: serving.read_live()["wishes"]["approvePlan"] == PLAN)


def test_each_transition_is_one_event_and_messages_reach_the_user(
    cluster: RunningCluster, operator: OperatorProcess, namespace: str, serving: Fleet, read: Read
) -> None:
    serving.say(drift={"ghost": 2}, proven=False, proof={"result": "drift", "reason": "DriftFound", "message": "2 ghosts"})
    index = wait_condition(read, "Consistent", "False", "DriftFound")
    assert condition(index, "Ready") == ("True", "Serving")
    assert index["status"]["drift"] == 4
    assert operator.metric("vectorindex_operator_drift_rows", namespace=namespace, name="docs", kind="ghost") == 4
    time.sleep(5)
    (event,) = events(cluster, namespace, "DriftFound")
    assert (event["type"], event["message"]) == ("Warning", "Consistent is False: docs-index-0: 2 ghosts")

    repair = {
        "at": "2026-11-25T09:00:00Z",
        "action": "patch",
        "trigger": "check",
        "result": "repaired",
        "sampleIds": ["7", "9"],
        "seconds": 0.1,
        "drift": {"missing": 0, "ghost": 2, "changed": 0, "duplicate": 0},
        "rootBefore": "",
        "rootAfter": "",
    }
    serving.say(drift={"ghost": 0}, proven=True, proof={"result": "ok", "reason": "Proven"}, repairs=[repair])
    index = wait_condition(read, "Consistent", "True", "Proven")
    assert [repair["pod"] for repair in index["status"]["lastRepairs"]] == ["docs-index-1", "docs-index-0"]
    wait_for("both repairs are told", lambda: len(events(cluster, namespace, "Repaired")) == 2)

    message = "no row has the key repo:q8; the table has repo"
    serving.say(proven=False, proof={"result": "unknown", "reason": "ModelKeyNotFound", "message": message})
    index = wait_condition(read, "Consistent", "Unknown", "ModelKeyNotFound")
    assert message in cluster.kubectl("get", "vidx", "docs", "-n", namespace, "-o", "wide")

    serving.say(
        source={"reachable": False, "reason": "AuthenticationFailed", "message": "the server refused user reader"},
        proof={"result": "unknown", "reason": "AuthenticationFailed"},
    )
    index = wait_condition(read, "SourceAvailable", "False", "AuthenticationFailed")
    assert condition(index, "Consistent") == ("Unknown", "AuthenticationFailed")
    assert condition(index, "Ready") == ("True", "Serving")


def test_a_member_that_answers_nonsense_is_unreachable_and_nothing_of_it_is_shown(
    cluster: RunningCluster, namespace: str, serving: Fleet, read: Read
) -> None:
    serving.members["docs-index-0"].say(proof={"rootDigest": "<script>hunter2</script>"})
    index = wait_condition(read, "Consistent", "Unknown", "MembersUnreachable")
    assert index["status"]["members"][0]["state"] == "Unreachable"
    assert "hunter2" not in json.dumps([index, events(cluster, namespace)])
    serving.members["docs-index-0"].say(proof={"rootDigest": "9500:0123456789abcdef-fedcba9876543210"}, identity={"podUid": "another"})
    time.sleep(3)
    assert condition(read(), "Consistent") == ("Unknown", "MembersUnreachable")


def test_a_change_of_the_source_rolls_the_pods_and_the_old_identity_goes(
    cluster: RunningCluster, namespace: str, serving: Fleet, read: Read, apply: Apply
) -> None:
    before = {name for name in children(cluster, namespace) if name.startswith("ConfigMap/docs-index-")}
    apply(source={"columns": {"model": "model_name"}, "model": "m1"})

    def roll() -> bool:
        serving.serve(2)
        return condition(read(), "Consistent") == ("True", "Proven") and condition(read(), "Reconciling") is None

    wait_for("the new source is served", roll, 60)
    wait_for(
        "only one identity is left", lambda: len([n for n in children(cluster, namespace) if n.startswith("ConfigMap/docs-index-")]) == 1
    )
    after = {name for name in children(cluster, namespace) if name.startswith("ConfigMap/docs-index-")}
    assert after != before


def test_a_deleted_index_takes_its_objects_and_series_along_and_a_second_life_starts_clean(
    operator: OperatorProcess, namespace: str, serving: Fleet, apply: Apply, read: Read
) -> None:
    cluster = serving.cluster
    first = read()["metadata"]["uid"]
    assert "finalizers" not in read()["metadata"]
    cluster.kubectl("delete", "vidx", "docs", "-n", namespace)
    apply()
    wait_for("the second life has its own objects", lambda: _owners(cluster, namespace) == {read()["metadata"]["uid"]}, 60)
    assert read()["metadata"]["uid"] != first
    cluster.kubectl("delete", "vidx", "docs", "-n", namespace)
    wait_for("all objects are gone", lambda: not children(cluster, namespace) and not serving.pods(), 60)
    assert operator.metric("vectorindex_operator_condition", namespace=namespace) is None
    assert operator.metric("vectorindex_operator_members", namespace=namespace) is None


def _owners(cluster: RunningCluster, namespace: str) -> set[str]:
    found = children(cluster, namespace)
    return {item["metadata"]["ownerReferences"][0]["uid"] for item in found.values()} if len(found) == 7 else set()


def test_no_password_comes_near_the_operator(
    cluster: RunningCluster, operator: OperatorProcess, namespace: str, apply: Apply, read: Read
) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "docs-reader", "namespace": namespace}}
    cluster.kubectl("create", "-f", "-", text=json.dumps(secret | {"stringData": {"username": "reader", "password": "canary-5f1c"}}))
    apply()
    wait_condition(read, "Ready", "False", "Starting")
    assert "canary-5f1c" not in operator.log.read_text()
    account = "system:serviceaccount:vectorindex-system:vectorindex"
    assert cluster.try_kubectl("auth", "can-i", "get", "secrets", "-n", namespace, f"--as={account}").stdout.strip() == "no"


def test_an_operator_for_some_namespaces_serves_only_these(
    cluster: RunningCluster, operator: OperatorProcess, namespace: str, tmp_path: Path
) -> None:
    """A second operator with the rights of a namespaced install; the first one is stopped meanwhile."""
    other = f"{namespace}-other"
    cluster.kubectl("create", "namespace", other)
    assert operator.stop() == 0
    cluster.kubectl("delete", "clusterrolebinding", "vectorindex")
    try:
        account = make_account(cluster, tmp_path, f"watchNamespaces={{{namespace}}}")
        small = OperatorProcess(account, tmp_path / "operator.log", VECTORINDEX_WATCH_NAMESPACES=namespace)
        small.start()
        for place in (other, namespace):
            cluster.kubectl("apply", "-f", "-", text=json.dumps(make_manifest("docs", place)))
        wait_for("the index is served", lambda: len(children(cluster, namespace)) == 7, 10)
        time.sleep(2)
        assert children(cluster, other) == {}
        assert small.stop() == 0
    finally:
        cluster.kubectl("delete", "rolebinding", "vectorindex", "-n", namespace, "--ignore-not-found")
        make_account(cluster, tmp_path)
        operator.start()
