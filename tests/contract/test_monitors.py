"""PodMonitor and ServiceMonitor find the same pods on the same port, and give their series the same labels: those that alerts ask for.

The Prometheus operator turns either into service discovery and relabelings. `target_labels` does the same as its version 0.85.0, whose
configuration was once given to promtool.
"""

from typing import Any

import pytest

from tests.support.alerts import find_grouped, render_rules, rules_by_name
from tests.support.helm import Manifest, by_kind, render_chart
from tests.support.vector_index import SETTINGS, make_index
from vectorindex_operator import objects

SYSTEM = "vectorindex-system"
SERVED = "watchNamespaces={search,shop}"
ADDRESS = "10.0.0.7:9090"
Labels = dict[str, str]


def enable(kind: str, *settings: str) -> dict[str, Manifest]:
    """Return the monitors of one kind by what they watch."""
    manifests = render_chart(SERVED, f"monitoring.{kind[0].lower()}{kind[1:]}.enabled=true", *settings)
    return {monitor["metadata"]["name"].rpartition("-")[2]: monitor for monitor in by_kind(manifests, kind)}


def index_objects(kind: str) -> list[Manifest]:
    index = make_index()
    assert index.spec is not None
    return [one for one in objects.build_children(index, index.spec, SETTINGS, None).manifests if one["kind"] == kind]


def operator_objects(kind: str) -> list[Manifest]:
    return by_kind(render_chart(SERVED), kind)


def template_of(manifest: Manifest) -> Manifest:
    template: Manifest = manifest["spec"]["template"]
    return template


def selects(selector: dict[str, Any], labels: Labels) -> bool:
    found: Labels = selector["matchLabels"]
    return found.items() <= labels.items()


def target_labels(monitor: Manifest, namespace: str, pod: Manifest, service: Manifest | None) -> list[Labels]:
    """Return the labels of each target that one pod gives, in the Prometheus operator's way."""
    spec = monitor["spec"]
    if namespace not in spec["namespaceSelector"].get("matchNames", [namespace]):
        return []
    if not selects(spec["selector"], (service or pod)["metadata"]["labels"]):
        return []
    (container,) = pod["spec"]["containers"]
    job = f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}"
    found = []
    for endpoint in spec["endpoints" if service else "podMetricsEndpoints"]:
        ports = service["spec"]["ports"] if service else container["ports"]
        for port in (port for port in ports if port["name"] == endpoint["port"]):
            labels = {"__address__": ADDRESS, "instance": ADDRESS, "namespace": namespace, "pod": "the-pod", "container": container["name"]}
            labels |= {"endpoint": port["name"], "job": job}
            if service:
                labels |= {"service": service["metadata"]["name"], "job": service["metadata"]["name"]}
            found.append(relabel(labels, endpoint.get("relabelings", [])))
    return found


def relabel(labels: Labels, steps: list[dict[str, Any]]) -> Labels:
    """Apply those relabelings that the chart makes."""
    for step in steps:
        if step.get("action") == "labeldrop":
            labels = {key: value for key, value in labels.items() if key != step["regex"]}
        else:
            assert step.keys() == {"targetLabel", "replacement"}
            labels = labels | {step["targetLabel"]: step["replacement"]}
    return labels


def pods_and_services(watched: str) -> tuple[str, Manifest, list[Manifest]]:
    if watched == "indexes":
        (stateful_set,) = index_objects("StatefulSet")
        return "search", template_of(stateful_set), index_objects("Service")
    (deployment,) = operator_objects("Deployment")
    return SYSTEM, template_of(deployment), operator_objects("Service")


@pytest.mark.parametrize("watched", ["indexes", "operator"])
def test_both_kinds_of_monitor_give_one_target_with_the_same_labels(watched: str) -> None:
    namespace, pod, services = pods_and_services(watched)
    by_pod = target_labels(enable("PodMonitor")[watched], namespace, pod, None)
    by_service = [found for one in services for found in target_labels(enable("ServiceMonitor")[watched], namespace, pod, one)]
    assert len(by_pod) == 1
    assert by_service == by_pod
    assert by_pod[0]["job"] == f"{SYSTEM}/vectorindex-{watched}"


@pytest.mark.parametrize("watched", ["indexes", "operator"])
def test_services_lead_to_the_pods_and_to_their_named_port(watched: str) -> None:
    _, pod, services = pods_and_services(watched)
    for service in services:
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        (container,) = pod["spec"]["containers"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= {port["name"] for port in container["ports"]}


def test_alerts_ask_targets_for_no_other_labels_than_these() -> None:
    namespace, pod, _ = pods_and_services("indexes")
    (labels,) = target_labels(enable("PodMonitor")["indexes"], namespace, pod, None)
    own = {"index", "kind", "result", "serving", "name", "type", "status", "reason", "code"}
    asked = {label for rule in rules_by_name(render_rules()).values() for label in find_grouped(rule["expr"])}
    assert asked
    assert asked - own <= labels.keys()


def test_only_what_the_operator_says_of_others_keeps_its_labels() -> None:
    for kind, key in (("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")):
        found = enable(kind)
        assert found["operator"]["spec"][key][0]["honorLabels"] is True
        assert "honorLabels" not in found["indexes"]["spec"][key][0]


def test_a_namespace_labels_and_relabelings_of_ones_own_reach_both_monitors() -> None:
    for kind, key in (("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")):
        values = f"monitoring.{kind[0].lower()}{kind[1:]}"
        settings = (
            f"{values}.namespace=watch,{values}.labels.release=prom,{values}.annotations.a=b,{values}.interval=15s",
            f"{values}.relabelings[0].targetLabel=cluster,{values}.relabelings[0].replacement=one",
            f"{values}.metricRelabelings[0].action=drop,{values}.metricRelabelings[0].regex=python_.*",
        )
        for monitor in enable(kind, *settings).values():
            assert monitor["metadata"]["namespace"] == "watch"
            assert monitor["metadata"]["labels"]["release"] == "prom"
            assert monitor["metadata"]["annotations"] == {"a": "b"}
            (endpoint,) = monitor["spec"][key]
            assert endpoint["interval"] == "15s"
            assert endpoint["relabelings"][-1] == {"targetLabel": "cluster", "replacement": "one"}
            assert endpoint["metricRelabelings"] == [{"action": "drop", "regex": "python_.*"}]


def test_in_all_namespaces_any_is_said() -> None:
    for kind in ("PodMonitor", "ServiceMonitor"):
        manifests = render_chart("clusterWide=true", f"monitoring.{kind[0].lower()}{kind[1:]}.enabled=true")
        found = {one["metadata"]["name"]: one["spec"]["namespaceSelector"] for one in by_kind(manifests, kind)}
        assert found == {"vectorindex-indexes": {"any": True}, "vectorindex-operator": {"matchNames": [SYSTEM]}}
