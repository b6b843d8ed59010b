"""The chart on a real API server: installed as it once was, upgraded, uninstalled, taken over; as plain manifests; with monitors."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster import tools
from tests.support.cluster import RunningCluster, control_plane
from tests.support.helm import CHART, EARLIER_CHART, ROOT, Manifest, render_chart
from tests.support.operator_process import SYSTEM, wait_for
from tests.support.vector_index import make_manifest

DEFINITION = "customresourcedefinition/vectorindexes.vectorindex.dev"
EVERY_KIND = (
    "deployments,services,serviceaccounts,poddisruptionbudgets,networkpolicies,roles,rolebindings,clusterroles,clusterrolebindings,"
    "customresourcedefinitions"
)
DEPLOY = ROOT / "deploy"
TOGETHER = {
    "the longest name of all objects": (
        "vectorindex",
        "fullnameOverride=" + "v" * 55,
        "webhook.enabled=true,webhook.auth.existingSecret=a",
    ),
    "the longest name of a release": ("r" * 53, "webhook.enabled=true,webhook.auth.existingSecret=a", "test.index=" + "i" * 46),
    "labels that the chart has itself": (
        "vectorindex",
        "commonLabels.app\\.kubernetes\\.io/name=mine",
        "commonLabels.app\\.kubernetes\\.io/component=mine",
        "podLabels.app\\.kubernetes\\.io/instance=mine",
    ),
    "all that can be switched on, for all namespaces": (
        "vectorindex",
        "clusterWide=true",
        "webhook.enabled=true,webhook.auth.existingSecret=a,webhook.tls.existingSecret=b,webhook.namespaceSelector.a=b",
        "monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.dashboards.enabled=true",
        "networkPolicy.apiServerCIDRs={10.0.0.0/8}",
        "test.index=docs",
    ),
    "roles, account and definition of others, for two namespaces": (
        "vectorindex",
        "rbac.create=false,serviceAccount.create=false,crds.enabled=false",
        "watchNamespaces={search,default}",
        "webhook.enabled=true,webhook.auth.existingSecret=a",
        "monitoring.podMonitor.enabled=true,monitoring.podMonitor.namespace=default",
    ),
}


@pytest.fixture(scope="module")
def empty() -> Iterator[RunningCluster]:
    """A control plane of its own: Helm shall make the definition."""
    with control_plane(f"test-chart-{os.getpid()}", controllers=True) as running:
        running.kubectl("create", "namespace", "search")
        yield running


def helm(cluster: RunningCluster, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(cluster.program("helm")), *map(str, arguments), f"--kubeconfig={cluster.kubeconfig}", f"--namespace={SYSTEM}"]
    return subprocess.run(command, text=True, capture_output=True, check=False)


def succeed(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def our_objects(cluster: RunningCluster) -> dict[tuple[str, str], str]:
    """Return the UID of each object of the chart by kind and name."""
    items = cluster.get(EVERY_KIND, "--all-namespaces", "--selector=app.kubernetes.io/part-of=vectorindex")["items"]
    return {(one["kind"], one["metadata"]["name"]): one["metadata"]["uid"] for one in items}


def identities(text: str) -> set[tuple[str, str]]:
    return {(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(text) if one}


def keeps(new: Manifest, old: Manifest) -> bool:
    """Tell whether every field of the old is in the new, as it was."""
    return all(keeps(new.get(key, {}), value) if isinstance(value, dict) else new.get(key) == value for key, value in old.items())


def read_index(cluster: RunningCluster) -> Manifest:
    return cluster.get("vidx", "docs", "--namespace=search")


def has_healing(cluster: RunningCluster) -> bool:
    """Tell whether the definition is today's: the earlier one knew nothing of held changes."""
    (version,) = cluster.get(DEFINITION)["spec"]["versions"]
    return "healing" in version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]


def test_an_upgrade_from_the_earlier_chart_changes_everything_in_place_and_uninstall_keeps_the_indexes(empty: RunningCluster) -> None:
    succeed(helm(empty, "install", "vectorindex", EARLIER_CHART, "--create-namespace"))
    wait_for("the kind is served", lambda: empty.try_kubectl("get", "vidx", "-n", "search").returncode == 0)
    empty.kubectl("apply", "-f", "-", text=json.dumps(make_manifest("docs", "search")))
    before, index = our_objects(empty), read_index(empty)
    assert not has_healing(empty)

    # Values of the earlier chart alone lack what has come since: that is said in a sentence, and changes nothing.
    refused = helm(empty, "upgrade", "vectorindex", CHART, "--reuse-values", "--set=clusterWide=true")
    assert "--reset-then-reuse-values instead of --reuse-values" in refused.stderr
    assert our_objects(empty) == before

    succeed(helm(empty, "upgrade", "vectorindex", CHART, "--reset-then-reuse-values", "--set=clusterWide=true"))
    after = our_objects(empty)
    assert has_healing(empty)
    assert {key: uid for key, uid in after.items() if key in before} == before, "what stays is changed in place, not made anew"
    release = succeed(helm(empty, "get", "manifest", "vectorindex"))
    assert after.keys() == identities(release), "nothing of the earlier chart is left over"
    # The index was neither written nor replaced; what today's definition has as defaults is filled in where it is read.
    assert read_index(empty)["metadata"] == index["metadata"]
    assert keeps(read_index(empty)["spec"], index["spec"])

    said = succeed(helm(empty, "uninstall", "vectorindex"))
    assert "kept due to the resource policy" in said
    assert "vectorindexes.vectorindex.dev" in said
    assert our_objects(empty).keys() == {("CustomResourceDefinition", "vectorindexes.vectorindex.dev")}
    assert read_index(empty)["metadata"]["uid"] == index["metadata"]["uid"]


def test_what_was_kept_belongs_to_its_release_and_another_has_to_say_that_it_takes_over(empty: RunningCluster) -> None:
    uid = empty.get(DEFINITION)["metadata"]["uid"]
    succeed(helm(empty, "install", "vectorindex", CHART))
    succeed(helm(empty, "uninstall", "vectorindex"))
    refused = helm(empty, "install", "other", CHART)
    assert "invalid ownership metadata" in refused.stderr
    succeed(helm(empty, "install", "other", CHART, "--take-ownership"))
    succeed(helm(empty, "uninstall", "other"))
    assert empty.get(DEFINITION)["metadata"]["uid"] == uid


def test_plain_manifests_are_accepted_and_their_overlay_names_other_images(empty: RunningCluster, tmp_path: Path) -> None:
    empty.kubectl("apply", "--server-side", "--force-conflicts", "--filename", DEPLOY / "install.yaml")
    made = our_objects(empty)
    assert made.keys() == identities((DEPLOY / "install.yaml").read_text()) - {("Namespace", SYSTEM)}

    # As the page has it, but for the place of the base.
    (overlay,) = [block for block in (ROOT / "docs" / "install.md").read_text().split("```") if block.startswith("yaml\n# kustomization")]
    (tmp_path / "kustomization.yaml").write_text(overlay.removeprefix("yaml\n").replace("../deploy", os.path.relpath(DEPLOY, tmp_path)))
    empty.kubectl("apply", "--server-side", "--kustomize", tmp_path)
    assert our_objects(empty) == made
    (container,) = empty.get("deployment", "vectorindex", f"--namespace={SYSTEM}")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/vectorindex-operator:0.1.0"
    assert {"name": "VECTORINDEX_INDEXER_IMAGE", "value": "registry.example/vectorindex-indexer:0.1.0"} in container["env"]
    assert len(container["env"]) == 8

    # The way to remove it that the page tells leaves the definition, and so the indexes.
    empty.kubectl("delete", "namespace", SYSTEM, "--wait=false")
    empty.kubectl("delete", "clusterrole,clusterrolebinding", "--selector=app.kubernetes.io/part-of=vectorindex")
    assert empty.get("namespace", SYSTEM)["metadata"]["deletionTimestamp"]
    left = {kind for kind, _ in our_objects(empty) if kind.startswith(("Cluster", "Custom"))}
    assert left == {"CustomResourceDefinition"}
    assert read_index(empty)["metadata"]["name"] == "docs"


@pytest.fixture(scope="module")
def monitored(empty: RunningCluster) -> RunningCluster:
    """The same with the definitions of the Prometheus operator."""
    for file in tools.fetch_monitoring_definitions():
        empty.kubectl("apply", "--server-side", "--filename", file)
    for kind in tools.MONITORING_KINDS:
        wait_for(f"{kind} are served", lambda kind=kind: empty.try_kubectl("get", kind).returncode == 0)  # type: ignore[misc]
    return empty


@pytest.mark.parametrize("kind", ["podMonitor", "serviceMonitor"])
def test_the_prometheus_operators_own_definitions_accept_every_field(monitored: RunningCluster, kind: str) -> None:
    settings = [f"monitoring.{kind}.enabled=true", f"monitoring.{kind}.interval=15s", "monitoring.prometheusRule.enabled=true"]
    settings += [f"monitoring.{kind}.relabelings[0].targetLabel=cluster", f"monitoring.{kind}.relabelings[0].replacement=one"]
    settings += [f"monitoring.{kind}.metricRelabelings[0].regex=python_.*", f"monitoring.{kind}.metricRelabelings[0].action=drop"]
    made = [one for one in render_chart(*settings, namespace="search") if one["apiVersion"].startswith("monitoring.coreos.com/")]
    assert sorted(one["kind"].lower() for one in made) == sorted(["prometheusrule", kind.lower(), kind.lower()])
    strict = ("create", "--dry-run=server", "--validate=strict", "--filename=-")
    monitored.kubectl(*strict, text="\n---\n".join(json.dumps(one) for one in made))
    (monitor, *_) = (one for one in made if one["kind"].lower() == kind.lower())
    wrong = json.dumps(monitor | {"spec": monitor["spec"] | {"podMetricEndpoints": []}})
    assert "podMetricEndpoints" in monitored.try_kubectl(*strict, text=wrong).stderr  # else anything would be accepted


@pytest.mark.parametrize("settings", TOGETHER.values(), ids=TOGETHER.keys())
def test_an_api_server_accepts_what_values_make_together(monitored: RunningCluster, settings: tuple[str, ...]) -> None:
    """Unlike a schema, it knows how long names may be, and that selectors must find their pods."""
    release, *values = settings
    made = render_chart(*values, release=release, namespace="search", tests=True)
    text = "\n---\n".join(json.dumps(one) for one in made)
    monitored.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename=-", text=text)
