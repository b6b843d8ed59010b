"""What the operator decides to do: nothing at rest, the narrowest step else, never anything to what is not its own."""

import copy
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.vector_index import NOW, UID, live_from, make_index, make_observed, make_pod, make_report, owner_of, plan_of, settle
from vectorindex_operator import api, checks, names
from vectorindex_operator.api import Json, LastProven
from vectorindex_operator.checks import Owner, find_difference
from vectorindex_operator.plan import ApplyObject, CreateObject, DeleteObject, HurryMember, Observed, choose_remembered


def test_an_index_without_objects_gets_all_of_them_with_the_pods_last() -> None:
    plan = plan_of(Observed(make_index()))
    made = [
        f"{action.manifest['kind']} {action.manifest['metadata']['name']}" for action in plan.actions if isinstance(action, CreateObject)
    ]
    assert made == [
        "NetworkPolicy docs-index",
        f"ConfigMap docs-index-{plan.identity_hash}",
        "ConfigMap docs-index",
        "Service docs-index-members",
        "Service docs-index",
        "PodDisruptionBudget docs-index",
        "StatefulSet docs-index",
    ]


def test_a_second_plan_is_empty() -> None:
    assert plan_of(make_observed()).actions == ()


def test_interrupted_after_any_step_the_rest_is_planned_again() -> None:
    empty = Observed(make_index())
    steps = [action.manifest for action in plan_of(empty).actions if isinstance(action, CreateObject)]
    for done in range(len(steps) + 1):
        children = {(manifest["kind"], manifest["metadata"]["name"]): live_from(manifest) for manifest in steps[:done]}
        rest = [action.manifest for action in plan_of(replace(empty, children=children)).actions if isinstance(action, CreateObject)]
        assert rest == steps[done:]


EDITS = {
    "image": ("StatefulSet", ["spec", "template", "spec", "containers", 0, "image"], "evil"),
    "replicas": ("StatefulSet", ["spec", "replicas"], 9),
    "live file": ("ConfigMap", ["data", "live.json"], "{}"),
    "port": ("Service", ["spec", "ports", 0, "port"], 81),
    "selector narrowed": ("Service", ["spec", "selector", "x"], "y"),
    "label": ("NetworkPolicy", ["metadata", "labels", names.INDEX_LABEL], "other"),
    "policy opened": ("NetworkPolicy", ["spec", "ingress"], [{}]),
    "peer widened": ("NetworkPolicy", ["spec", "egress", 1, "to", 0, "ipBlock", "except"], []),
    "budget": ("PodDisruptionBudget", ["spec", "maxUnavailable"], 0),
}


@pytest.mark.parametrize(("kind", "path", "value"), EDITS.values(), ids=EDITS.keys())
def test_an_edited_object_is_put_right(kind: str, path: list[str | int], value: object) -> None:
    observed = make_observed()
    live = copy.deepcopy(observed.children[kind, "docs-index"])
    place = live
    for step in path[:-1]:
        place = place[step]  # type: ignore[index]
    place[path[-1]] = value  # type: ignore[index]
    plan = plan_of(replace(observed, children={**observed.children, (kind, "docs-index"): live}))
    (action,) = plan.actions
    assert isinstance(action, ApplyObject)
    assert action.live is live


def test_what_others_add_beside_ours_is_left_alone() -> None:
    observed = make_observed()
    live = copy.deepcopy(observed.children["StatefulSet", "docs-index"])
    live["metadata"]["annotations"]["tool.example/note"] = "x"
    live["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "x"})
    live["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    assert plan_of(replace(observed, children={**observed.children, ("StatefulSet", "docs-index"): live})).actions == ()


def test_an_amount_written_differently_is_no_difference() -> None:
    assert find_difference({"cpu": "0.1", "memory": "1Gi"}, {"cpu": "100m", "memory": "1024Mi"}) is None
    assert find_difference({"cpu": "0.1"}, {"cpu": "200m"}) == "cpu"


def test_a_foreign_object_is_a_conflict_and_stays_as_it_is() -> None:
    foreign: Json = {"kind": "Service", "metadata": {"name": "docs-index", "namespace": "search", "uid": "f", "resourceVersion": "1"}}
    observed = make_observed()
    plan = plan_of(replace(observed, children={**observed.children, ("Service", "docs-index"): foreign}))
    assert plan.conflicts == ("Service docs-index",)
    assert plan.actions == ()


def test_objects_of_an_earlier_life_are_waited_for() -> None:
    observed = make_observed()
    live = copy.deepcopy(observed.children["Service", "docs-index"])
    live["metadata"]["ownerReferences"][0]["uid"] = "an-earlier-uid"
    plan = plan_of(replace(observed, children={**observed.children, ("Service", "docs-index"): live}))
    assert (plan.waiting, plan.actions) == (("Service docs-index",), ())


@pytest.mark.parametrize(
    ("change", "owner"),
    [
        ({}, Owner.OURS),
        ({"uid": "x"}, Owner.EARLIER_LIFE),
        ({"uid": "x", "name": "other"}, Owner.FOREIGN),
        ({"uid": "x", "kind": "Other"}, Owner.FOREIGN),
        ({"uid": "x", "apiVersion": "example.com/v1"}, Owner.FOREIGN),
        ({"controller": False}, Owner.FOREIGN),
    ],
)
def test_the_controller_decides_whose_an_object_is(change: Json, owner: Owner) -> None:
    reference = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "docs", "uid": UID, "controller": True}
    assert owner_of({"metadata": {"ownerReferences": [reference | change]}}) is owner


def test_what_the_api_server_made_of_our_words_is_left_alone_until_it_or_our_words_change() -> None:
    observed = make_observed()
    reference = ("StatefulSet", "docs-index")
    rewritten = copy.deepcopy(observed.children[reference])
    rewritten["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror.example/indexer"
    observed = replace(observed, children={**observed.children, reference: rewritten})
    (action,) = plan_of(observed).actions
    assert isinstance(action, ApplyObject)
    known = replace(observed, outcomes=frozenset({checks.outcome_hash(action.manifest, rewritten)}))
    assert plan_of(known).actions == ()

    counted = copy.deepcopy(rewritten)
    counted["metadata"]["resourceVersion"], counted["status"]["replicas"] = "99", 2
    assert plan_of(replace(known, children={**observed.children, reference: counted})).actions == ()
    edited = copy.deepcopy(rewritten)
    edited["spec"]["replicas"] = 7
    assert len(plan_of(replace(known, children={**observed.children, reference: edited})).actions) == 1
    more = replace(known, index=make_index(replicas=3))
    assert len(plan_of(more).actions) == 1


@pytest.mark.parametrize("change", [{"ownerReferences": []}, {"deletionTimestamp": "2026-11-25T09:00:00Z"}], ids=["foreign", "going"])
@pytest.mark.parametrize("kind", ["NetworkPolicy", "ConfigMap"])
def test_no_pods_are_started_without_their_network_policy_or_with_files_of_others(change: Json, kind: str) -> None:
    observed = make_observed()
    reference = (kind, "docs-index")
    blocked = copy.deepcopy(observed.children[reference])
    blocked["metadata"] |= change
    plan = plan_of(Observed(observed.index, {reference: blocked}))
    assert "StatefulSet" not in [action.manifest["kind"] for action in plan.actions if isinstance(action, CreateObject)]
    running = replace(observed, children={**observed.children, reference: blocked})
    assert plan_of(running).actions == ()  # those that run go on
    scaled = plan_of(replace(running, index=make_index(replicas=3))).actions
    assert any(isinstance(one, ApplyObject) and one.manifest["kind"] == "StatefulSet" for one in scaled) is (kind == "NetworkPolicy")


def test_one_replica_has_no_disruption_budget() -> None:
    observed = make_observed()
    single = replace(observed, index=make_index(replicas=1))
    deleted = [action.live["kind"] for action in plan_of(single).actions if isinstance(action, DeleteObject)]
    assert deleted == ["PodDisruptionBudget"]


def test_a_member_with_an_old_live_file_is_hurried_ever_more_seldom_until_it_has_read_it() -> None:
    observed = make_observed()
    index = observed.index
    old = replace(
        observed,
        reports={
            "docs-index-0": make_report(index, "pod-0", identity={"liveHash": "00"}),
            "docs-index-1": observed.reports["docs-index-1"],
        },
    )
    moments, value, now = [], "", NOW
    for second in range(40):
        now = NOW + timedelta(seconds=second)
        pods = (make_pod(0, hurried=value), make_pod(1))
        for action in plan_of(replace(old, pods=pods), now).actions:
            assert isinstance(action, HurryMember)
            assert action.pod.name == "docs-index-0"
            value = action.value
            moments.append(second)
    assert moments == [0, 2, 6, 14, 30]
    assert plan_of(replace(observed, pods=(make_pod(0, hurried=value), make_pod(1))), now).actions == ()


def test_identity_files_are_removed_when_no_pod_asks_for_them() -> None:
    observed = make_observed()
    old = live_from(observed.children["ConfigMap", "docs-index"])
    old["metadata"]["name"] = "docs-index-0000000000000000"
    observed = replace(observed, identities=(old,))
    pods = (make_pod(0, config_maps=frozenset({"docs-index-0000000000000000"})), make_pod(1))
    assert plan_of(replace(observed, pods=pods)).actions == ()
    (action,) = plan_of(observed).actions
    assert isinstance(action, DeleteObject)
    rolling = copy.deepcopy(observed.children["StatefulSet", "docs-index"])
    rolling["status"]["updatedReplicas"] = 1
    assert plan_of(replace(observed, children={**observed.children, ("StatefulSet", "docs-index"): rolling})).actions == ()


def test_nothing_is_done_to_an_index_whose_spec_is_not_understood_or_that_is_being_deleted() -> None:
    broken = replace(make_index(), spec=None, problem="spec: wrong")
    assert plan_of(Observed(broken)).actions == ()
    assert plan_of(Observed(replace(make_index(), deleting=True))).actions == ()


# --- what the live file remembers ---

PROOF = LastProven(1000, "1/primary/1", "5:5:", "spec", "id", "2026-11-25T09:00:00Z")


def newer(**changes: object) -> LastProven:
    values = {name: getattr(PROOF, name) for name in PROOF.__struct_fields__} | {"at": "2026-11-25T09:00:10Z"} | changes
    return LastProven(**values)


@pytest.mark.parametrize(
    ("newest", "remembered"),
    [
        (newer(snapshot="6:6:"), PROOF),
        (newer(rows=1050), PROOF),
        (newer(rows=1051), newer(rows=1051)),
        (newer(rows=0), newer(rows=0)),
        (newer(incarnation="2/primary/1"), newer(incarnation="2/primary/1")),
        (newer(digest_spec="other"), newer(digest_spec="other")),
        (newer(at="2026-11-25T10:00:00Z"), newer(at="2026-11-25T10:00:00Z")),
        (newer(at="2026-11-25T08:00:00Z", rows=1), PROOF),
        (None, PROOF),
    ],
)
def test_the_live_file_changes_only_for_a_proof_that_tells_something_else(newest: LastProven | None, remembered: LastProven | None) -> None:
    assert choose_remembered(PROOF, newest, "id") == remembered


def test_a_proof_of_another_source_is_not_remembered() -> None:
    assert choose_remembered(PROOF, None, "another identity") is None


def test_a_lost_live_file_gets_back_what_the_status_remembers() -> None:
    observed = make_observed()
    proof = plan_of(observed).last_proven
    assert proof is not None
    index = make_index(status=api.Status(observed_generation=1, last_proven=proof))
    children = {reference: live for reference, live in observed.children.items() if reference != ("ConfigMap", "docs-index")}
    plan = plan_of(Observed(index, children, (), (make_pod(),), {}))
    (action,) = plan.actions
    assert isinstance(action, CreateObject)
    assert '"lastProven":{' in action.manifest["data"]["live.json"]


def test_only_an_equal_replica_of_the_current_source_is_remembered() -> None:
    index = make_index()
    for change in ({"proven": False}, {"proof": {"result": "drift"}}, {"identity": {"identityHash": "00"}}):
        observed = Observed(index, {}, (), (make_pod(),), {"docs-index-0": make_report(index, **change)})
        assert plan_of(observed).last_proven is None
    observed = settle(Observed(index, {}, (), (make_pod(),), {"docs-index-0": make_report(index)}))
    assert plan_of(observed).last_proven == LastProven(
        9500,
        "7390000000000000001/primary/1",
        "731:735:732",
        "sha256-128/int8/bytea/1c2d3e4f",
        plan_of(observed).identity_hash,
        "2026-11-25T09:00:01.300Z",
    )
