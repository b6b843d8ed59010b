"""What the operator asks of the API server is what its chart grants, no less and no more; and each right may be missing for a while."""

import contextlib
import functools
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.integration.operator.conftest import Proxied
from tests.support.api_proxy import api_proxy, error_line
from tests.support.cluster import RunningCluster
from tests.support.helm import by_kind, render_chart
from tests.support.notifications import TOKEN, ago, make_alert, make_payload, post
from tests.support.operator_process import (
    SYSTEM,
    WITH_WEBHOOK,
    OperatorProcess,
    fleet,
    free_port,
    make_account,
    wait_for,
    webhook_environment,
)
from tests.support.runs import SCENARIOS, Run, annotate
from tests.support.vector_index import make_manifest
from vectorindex_operator.api import Json

log = logging.getLogger(__name__)
Right = tuple[str, str, str]

HERE, THERE = "rights-here", "rights-there"
CHART = (f"watchNamespaces={{{HERE},{THERE}}}", *WITH_WEBHOOK)

NEVER_CALLED: Final[dict[Right, str]] = {
    ("vectorindex.dev", "vectorindexes/finalizers", "update"): "asked for by clusters that check owner references, not by a call"
}
# In the order in which they use each other's outcome: a change leaves two replicas, and so on.
IN_TURN: Final = ("create", "wish", "approve", "update", "scale up", "scale down", "delete")


def list_rights(rules: list[Json]) -> set[Right]:
    return {
        (group, resource, verb) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
    }


def granted() -> set[Right]:
    """Return all that the chart grants the operator, in namespaces that are watched and in its own."""
    roles = [role for role in by_kind(render_chart(*CHART), "Role") if not role["metadata"]["name"].endswith(("-editor", "-viewer"))]
    return list_rights([rule for role in roles for rule in role["rules"]])


@dataclass(frozen=True)
class Confined(Proxied):
    """An operator of two namespaces, and the port on which it hears of alerts."""

    port: int

    def hear_alert(self) -> None:
        """Let it hear of an alert about the index."""
        post(self.port, make_payload(make_alert(ago(0), namespace=HERE)))


@pytest.fixture(scope="module")
def confined(cluster: RunningCluster, operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Confined]:
    """Run an operator for two namespaces behind a proxy; that for the whole cluster rests meanwhile, and so do its rights."""
    folder = tmp_path_factory.mktemp("confined")
    for namespace in (HERE, THERE):
        cluster.kubectl("create", "namespace", namespace)
    assert operator.stop() == 0
    cluster.kubectl("delete", "clusterrolebinding", "vectorindex")
    account = make_account(cluster, folder, *CHART)
    token, port = folder / "token", free_port()
    token.write_text(TOKEN)
    environment = webhook_environment(port, token) | {
        "VECTORINDEX_LEASE_NAME": "vectorindex",
        "POD_NAME": "vectorindex-0",
        "VECTORINDEX_WEBHOOK_COOLDOWN_SECONDS": "1",
        "VECTORINDEX_WATCH_NAMESPACES": f"{HERE},{THERE}",
    }
    with api_proxy(account, folder) as proxy:
        process = OperatorProcess(proxy.wrap(account), folder / "operator.log", **environment)
        cluster.try_kubectl("delete", "lease", "vectorindex", "-n", SYSTEM)  # of other tests: this operator is to make its own
        try:
            process.start()
            yield Confined(process, proxy, port)
            assert process.stop() == 0
        finally:
            process.kill()
            for namespace in (HERE, THERE):
                cluster.kubectl("delete", "vidx", "--all", "-n", namespace)
                cluster.kubectl("delete", "rolebinding", "vectorindex", "-n", namespace)
            make_account(cluster, folder)
            operator.start()


@pytest.fixture(scope="module")
def run(confined: Confined, cluster: RunningCluster) -> Iterator[Run]:
    del confined
    with fleet(cluster, HERE) as pods:
        yield Run(cluster, HERE, pods)


def make_foreign(cluster: RunningCluster, name: str) -> None:
    """Put somebody else's object in the way of one of an index's."""
    meta = {"name": f"{name}-index", "namespace": HERE}
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"mine": "yes"}}
    cluster.kubectl("apply", "-f", "-", text=json.dumps(foreign))
    cluster.kubectl("apply", "-f", "-", text=json.dumps(make_manifest(name, HERE)))


def test_the_chart_grants_what_is_asked_for_and_nothing_else(confined: Confined, run: Run, cluster: RunningCluster) -> None:
    for name in IN_TURN:
        scenario = SCENARIOS[name]
        scenario.begin(run)
        scenario.act(run)
        wait_for(f"{name} is done", functools.partial(scenario.is_done, run), 120)
    for resource in ("services", "networkpolicies", "poddisruptionbudgets"):
        edit(cluster, resource)
    annotate(run, "rebuild-requested-at", "soon")
    make_foreign(cluster, "foreign")
    confined.hear_alert()

    def find_unused() -> set[Right]:
        used = {call.right for call in confined.proxy.calls() if call.code != 403}
        return granted() - NEVER_CALLED.keys() - used

    with contextlib.suppress(AssertionError):  # the next line says which are not
        wait_for("every right is used", lambda: not find_unused(), 20)
    assert find_unused() == set()
    calls = confined.proxy.calls()
    assert [str(call) for call in calls if call.code == 403] == []
    assert {call.right for call in calls if call.resource} <= granted()
    log.info("%d rights granted, all used but %s; %d requests", len(granted()), set(NEVER_CALLED), len(calls))


def reference(resource: str) -> str:
    return f"{resource}/docs-index"


def edit(cluster: RunningCluster, resource: str) -> None:
    labels = json.dumps({"metadata": {"labels": {"app.kubernetes.io/component": "edited"}}})
    cluster.kubectl("patch", reference(resource), "-n", HERE, "--type=merge", "-p", labels)


def plant_unused_identity(run: Run) -> None:
    """Leave an identity file of the index that no pod uses."""
    (one,) = [item for item in run.read("configmap") if item.get("immutable")]
    meta = {name: one["metadata"][name] for name in ("labels", "ownerReferences")} | {"name": "docs-index-0000000000000000"}
    copy = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta | {"namespace": HERE}, "data": one["data"], "immutable": True}
    run.cluster.kubectl("apply", "-f", "-", text=json.dumps(copy))


def provoke(operator: Confined, run: Run, right: Right) -> None:
    """Do what makes the operator use this right."""
    _, resource, verb = right
    match verb, resource:
        case "patch", "vectorindexes":
            operator.hear_alert()
        case (("list" | "watch"), _):
            operator.proxy.tell(error_line(410, "Expired"), resource)
        case "create", "events":
            annotate(run, "rebuild-requested-at", f"soon, {time.monotonic()}")
        case "create", _:
            run.cluster.kubectl("delete", reference(resource), "-n", HERE)
        case "patch", ("pods" | "vectorindexes/status"):
            run.apply(replicas=run.replicas, consistency={"periodSeconds": 31})
        case ("patch", _) | ("get", "vectorindexes"):
            edit(run.cluster, resource if verb == "patch" else "services")
        case "delete", "poddisruptionbudgets":
            run.apply(replicas=1)
        case "delete", "configmaps":
            plant_unused_identity(run)
        case "get", _:
            make_foreign(run.cluster, "foreign")
        case _:
            raise AssertionError(f"nothing uses {right}")


def lose(cluster: RunningCluster, rules: list[Json], right: Right) -> None:
    """Take one right away, and wait until that is in force."""
    group, resource, verb = right
    kept = [
        {
            **rule,
            "verbs": [one for one in rule["verbs"] if one != verb or (group, resource) != (rule["apiGroups"][0], rule["resources"][0])],
        }
        for rule in rules
    ]
    patch_role(cluster, [rule for rule in kept if rule["verbs"]])
    wait_for(f"{right} is lost", lambda: not has_right(cluster, right))


def patch_role(cluster: RunningCluster, rules: list[Json]) -> None:
    patch = json.dumps([{"op": "replace", "path": "/rules", "value": rules}])
    cluster.kubectl("patch", "role", "vectorindex", "-n", HERE, "--type=json", "-p", patch)


def has_right(cluster: RunningCluster, right: Right) -> bool:
    group, resource, verb = right
    plain, _, subresource = resource.partition("/")
    what = (f"{plain}.{group}" if group else plain, *([f"--subresource={subresource}"] if subresource else []))
    account = f"--as=system:serviceaccount:{SYSTEM}:vectorindex"
    return cluster.try_kubectl("auth", "can-i", verb, *what, "-n", HERE, account).stdout.strip() == "yes"


SHORT: Final = {("", "services", "create")}


@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_lost_right_is_named_and_hurts_nobody_else(confined: Confined, run: Run, cluster: RunningCluster, all_of_them: bool) -> None:
    rules = cluster.get("role", "vectorindex", "-n", HERE)["rules"]
    rights = sorted(list_rights(rules) - NEVER_CALLED.keys() if all_of_them else SHORT)
    run.replicas, run.settled = 2, lambda *_: True
    run.apply()
    run.settle()
    failures = [failure for right in rights if (failure := try_without(confined, run, rules, right))]
    assert failures == []
    log.info("%d rights lost in turn, each named", len(rights))


def try_without(operator: Confined, run: Run, rules: list[Json], right: Right) -> str:
    """Take a right away and give it back; return what was not as it should be."""
    cluster, (_, resource, verb) = run.cluster, right
    known = len(operator.process.log.read_bytes())
    wanted = f'cannot {verb} resource "{resource}"'
    healed = ""

    def is_named() -> bool:
        told = operator.process.log.read_bytes()[known:].decode()
        return wanted in told.replace('\\"', '"') or wanted in str(cluster.get("vidx", "docs", "-n", HERE)["status"])

    def is_served(replicas: int) -> bool:
        found = cluster.get("statefulset", "-n", THERE)["items"]
        return bool(found and found[0]["spec"]["replicas"] == replicas)

    try:
        lose(cluster, rules, right)
        provoke(operator, run, right)
        wait_for(f"the lack of {right} is named", is_named, 30)
        number = int(time.monotonic()) % 7 + 2
        cluster.kubectl("apply", "-f", "-", text=json.dumps(make_manifest("docs", THERE, replicas=number)))
        wait_for("the other namespace is served", lambda: is_served(number), 30)
    except AssertionError as error:
        healed = str(error)
    patch_role(cluster, rules)
    cluster.kubectl("delete", "vidx/foreign", "configmap/foreign-index", "-n", HERE, "--ignore-not-found")
    run.replicas = 5 - run.replicas
    run.apply(replicas=run.replicas)
    since = time.monotonic()
    try:
        run.settle()
        wait_for("all kinds are watched in both namespaces", lambda: len(operator.proxy.watched()) >= 14, 45)
    except AssertionError as error:
        healed += str(error)
    log.info("without %s: healed %.0f s after it was back; %s", right, time.monotonic() - since, healed or "named, the others served")
    return healed
