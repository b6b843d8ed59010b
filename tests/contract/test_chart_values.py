"""A wrong value is refused by the real helm, with its name; a right one does what it says."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.support.helm import CHART, by_kind, helm, render_chart

TYPOS = {
    "a word too few": ("image.repo=x", "image", "repo"),
    "a letter too many": ("image.tagg=1", "image", "tagg"),
    "a letter too few": ("indexer.imag.tag=1", "indexer", "imag"),
    "upper case": ("Image.tag=1", "", "Image"),
    "camel case forgotten": ("imagePullsecrets[0].name=x", "", "imagePullsecrets"),
    "camel case forgotten inside": ("image.pullpolicy=Always", "image", "pullpolicy"),
    "plural": ("monitoring.podMonitors.enabled=true", "monitoring", "podMonitors"),
    "singular": ("watchNamespace=search", "", "watchNamespace"),
    "singular of a list": ("tolerations[0].effects=NoSchedule", "tolerations/0", "effects"),
    "the resource's word": ("replicas=3", "", "replicas"),
    "another chart's word": ("installCRDs=true", "", "installCRDs"),
    "a verb for a participle": ("crds.enable=true", "crds", "enable"),
    "one level too high": ("repository=x", "", "repository"),
    "one level too deep": ("image.image.tag=1", "image", "image"),
    "in the wrong group": ("monitoring.enabled=true", "monitoring", "enabled"),
    "beside its group": ("podMonitor.enabled=true", "", "podMonitor"),
    "kebab case": ("log-level=debug", "", "log-level"),
    "a letter lost in a list's entry": ("topologySpreadConstraints[0].maxSkews=1", "topologySpreadConstraints/0", "maxSkews"),
    "a letter lost in a security context": ("containerSecurityContext.runAsNonroot=true", "containerSecurityContext", "runAsNonroot"),
    "a letter lost in resources": ("resources.request.cpu=1", "resources", "request"),
    "a threshold that is none": ("monitoring.prometheusRule.thresholds.recall=0.9", "monitoring/prometheusRule/thresholds", "recall"),
    "affinity without its kind": ("affinity.requiredDuringSchedulingIgnoredDuringExecution=x", "affinity", "requiredDuringScheduling"),
    "no key of a label": ("podLabels.-team=a", "podLabels", "-team"),
    "an environment entry of another form": ("extraEnv[0].name=A,extraEnv[0].val=b", "extraEnv/0", "val"),
}
WRONG_VALUES = {
    "no boolean": ("rbac.create=perhaps", "rbac/create"),
    "a text for a number": ("replicaCount=two", "replicaCount"),
    "too small": ("replicaCount=0", "replicaCount"),
    "a text for a list": ("watchNamespaces=search", "watchNamespaces"),
    "a map for a list": ("tolerations.key=a", "tolerations"),
    "a list for a map": ("nodeSelector={a}", "nodeSelector"),
    "no such word": ("logLevel=loud", "logLevel"),
    "wrong case of a word": ("indexer.image.pullPolicy=always", "indexer/image/pullPolicy"),
    "no digest": ("image.digest=sha1:aa", "image/digest"),
    "no name of a namespace": ("watchNamespaces={Search}", "watchNamespaces/0"),
    "no port": ("networkPolicy.apiServerPorts={0}", "networkPolicy/apiServerPorts/0"),
    "no range of addresses": ("networkPolicy.apiServerCIDRs={10.0.0.1}", "networkPolicy/apiServerCIDRs/0"),
    "no duration": ("monitoring.podMonitor.interval=often", "monitoring/podMonitor/interval"),
    "no share": ("monitoring.prometheusRule.thresholds.recallRatio=90", "monitoring/prometheusRule/thresholds/recallRatio"),
    "no share in a text": ("monitoring.prometheusRule.thresholds.recallRatio=1.5", "monitoring/prometheusRule/thresholds/recallRatio"),
    "no duration of an alert": (
        "monitoring.prometheusRule.for.VectorIndexDegraded=long",
        "monitoring/prometheusRule/for/VectorIndexDegraded",
    ),
    "no name of a label": ("monitoring.prometheusRule.alertLabels.a-b=c", "monitoring/prometheusRule/alertLabels"),
    "no value of a label": ("commonLabels.team=a b", "commonLabels/team"),
    "no quantity": ("resources.limits.memory=1 GB", "resources/limits/memory"),
    "a number for a text": ("commonLabels.tier=1", "commonLabels/tier"),
    "a name too long for a Service": ("fullnameOverride=" + "v" * 56, "fullnameOverride"),
    "a dot in the name of a Service": ("nameOverride=vector.index", "nameOverride"),
    "no name of an object": ("serviceAccount.name=a..b", "serviceAccount/name"),
    "no name of a Secret": ("imagePullSecrets[0].name=Registry", "imagePullSecrets/0/name"),
}
BETWEEN_FIELDS = {
    "clusterWide=true,watchNamespaces={search}": "clusterWide and watchNamespaces exclude each other",
    "monitoring.podMonitor.enabled=true,monitoring.serviceMonitor.enabled=true": "podMonitor and monitoring.serviceMonitor exclude",
    "serviceAccount.create=false": "serviceAccount.name: ",
    "test.namespace=shop": "test.namespace: name the VectorIndex in test.index, too",
    "watchNamespaces={search},test.index=docs,test.namespace=shop": "test.namespace: the operator does not serve shop, but search",
    "monitoring.prometheusRule.enabled=true,monitoring.prometheusRule.exclude={VectorIndexOld}": "there is no alert VectorIndexOld",
    "topologySpreadConstraints[0].maxSkew=1": "topologyKey",
    "monitoring.namespaceSelector=null": "monitoring.namespaceSelector: name at least one label",
    "networkPolicy.apiServerPorts=null": "at '/networkPolicy': missing property 'apiServerPorts'",  # no port would be every port
}


def refuse(setting: str) -> str:
    """Return what helm says against a value."""
    result = helm("template", "vectorindex", str(CHART), "--set", setting)
    assert result.returncode != 0, f"{setting} was accepted"
    return result.stderr


@pytest.mark.parametrize(("setting", "parent", "wrong"), TYPOS.values(), ids=TYPOS.keys())
def test_a_typo_is_refused_and_named(setting: str, parent: str, wrong: str) -> None:
    place = f"/{parent}" if parent else ""
    (said,) = re.findall(rf"at '{place}': additional propert(?:y|ies) (.*) not allowed", refuse(setting))
    assert f"'{wrong}" in said


@pytest.mark.parametrize(("setting", "path"), WRONG_VALUES.values(), ids=WRONG_VALUES.keys())
def test_a_wrong_value_is_refused_and_named(setting: str, path: str) -> None:
    assert f"at '/{path}': " in refuse(setting)


@pytest.mark.parametrize(("setting", "sentence"), BETWEEN_FIELDS.items(), ids=BETWEEN_FIELDS.values())
def test_values_that_do_not_fit_each_other_are_refused_with_a_sentence(setting: str, sentence: str) -> None:
    assert sentence in refuse(setting)


def test_a_chart_that_has_this_one_as_a_dependency_may_switch_it_and_have_globals() -> None:
    assert render_chart("global.team=search", "enabled=true")


def test_more_objects_come_as_maps_or_texts_with_templates() -> None:
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-map"}},
        'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ include "vectorindex.fullname" . }}-text\n',
    ]
    result = helm("template", "vx", str(CHART), "--set-json", f"extraObjects={json.dumps(objects)}")
    assert result.returncode == 0, result.stderr
    found = [one for one in yaml.safe_load_all(result.stdout) if one]
    assert {one["metadata"]["name"] for one in by_kind(found, "ConfigMap")} == {"vx-map", "vx-vectorindex-text"}


def test_labels_and_annotations_of_pods_leave_the_selector_alone() -> None:
    settings = ("podLabels.app\\.kubernetes\\.io/name=mine", "podLabels.team=search", "podAnnotations.note=a")
    (deployment,) = by_kind(render_chart(*settings), "Deployment")
    template = deployment["spec"]["template"]["metadata"]
    assert template["labels"]["team"] == "search"
    assert template["annotations"] == {"note": "a"}
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["labels"].items()


def test_annotations_of_the_definition_do_not_take_away_that_it_is_kept() -> None:
    (definition,) = by_kind(
        render_chart("crds.annotations.helm\\.sh/resource-policy=gone", "crds.annotations.note=a"), "CustomResourceDefinition"
    )
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert definition["metadata"]["annotations"]["note"] == "a"


def test_other_namespaces_may_scrape_once_the_label_there_is_by_default_is_taken_away() -> None:
    settings = ("monitoring.namespaceSelector.kubernetes\\.io/metadata\\.name=null", "monitoring.namespaceSelector.team=watch")
    manifests = render_chart(*settings)
    (policy,) = by_kind(manifests, "NetworkPolicy")
    assert policy["spec"]["ingress"][0]["from"][0] == {"namespaceSelector": {"matchLabels": {"team": "watch"}}}
    (deployment,) = by_kind(manifests, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "VECTORINDEX_MONITORING_NAMESPACE_LABELS", "value": "team=watch"} in container["env"]


def test_large_numbers_in_a_file_of_values_stay_whole_numbers(tmp_path: Path) -> None:
    """Helm reads them as floating point, which it would show as 1e+06."""
    (tmp_path / "values.yaml").write_text("webhook: {enabled: true, auth: {existingSecret: a}, budget: {wishes: 1000000}}")
    result = helm("template", "vectorindex", str(CHART), "--values", str(tmp_path / "values.yaml"))
    assert result.returncode == 0, result.stderr
    (deployment,) = by_kind([one for one in yaml.safe_load_all(result.stdout) if one], "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "VECTORINDEX_WEBHOOK_BUDGET_WISHES", "value": "1000000"} in container["env"]


def test_a_share_may_be_set_on_the_command_line_where_it_is_a_text() -> None:
    (rule,) = by_kind(
        render_chart("monitoring.prometheusRule.enabled=true,monitoring.prometheusRule.thresholds.recallRatio=0.95"), "PrometheusRule"
    )
    (recall,) = [one for group in rule["spec"]["groups"] for one in group["rules"] if one["alert"] == "VectorIndexRecallLow"]
    assert recall["expr"].strip().endswith("< 0.95")


def test_a_key_with_nothing_behind_it_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(
        "monitoring:\n  podMonitor:\n    enabled: true\n    labels:\n  prometheusRule:\n    enabled: true\n    labels:\n"
        "    alertLabels:\n    for:\n    exclude:\n  dashboards:\n    enabled: true\n    labels:\n"
        "podLabels:\ncommonLabels:\npodAnnotations:\nnodeSelector:\ntolerations:\naffinity:\nextraEnv:\nextraObjects:\n"
        "crds:\n  annotations:\ntest:\n  index: docs\n  podLabels:\n"
        "watchNamespaces:\nimagePullSecrets:\ntopologySpreadConstraints:\nserviceAccount:\n  annotations:\n"
    )
    result = helm("template", "vectorindex", str(CHART), "--values", str(tmp_path / "values.yaml"))
    assert result.returncode == 0, result.stderr
