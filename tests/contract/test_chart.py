"""The chart as the real helm renders it."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support.helm import CHART, ROOT, Manifest, by_kind, helm, render_chart
from tests.support.vector_index import SETTINGS, make_index
from vectorindex_operator import names, objects

KUBERNETES = "1.37"
VARIANTS: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "two namespaces": ("watchNamespaces={search,shop}",),
    "all namespaces": ("clusterWide=true",),
    "bare": ("crds.enabled=false", "rbac.create=false", "serviceAccount.create=false", "networkPolicy.enabled=false"),
    "webhook": ("webhook.enabled=true", "webhook.auth.existingSecret=hook"),
    "three operators": ("replicaCount=3", "networkPolicy.apiServerCIDRs={10.0.0.1/32,fd00::1/128}"),
    "everything set": (
        "topologySpreadConstraints[0].maxSkew=1",
        "topologySpreadConstraints[0].topologyKey=rack",
        "topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
        "image.digest=sha256:" + "a" * 64,
        "indexer.image.tag=v2",
        "imagePullSecrets[0].name=registry",
        "fullnameOverride=vx",
        "serviceAccount.annotations.team=search",
        "nodeSelector.disk=fast",
        "tolerations[0].operator=Exists",
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key=a",
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator=Exists",
        "priorityClassName=high",
        "extraEnv[0].name=HTTPS_PROXY",
        "extraEnv[0].value=http://proxy:3128",
        "commonLabels.team=search",
        "podAnnotations.example\\.org/note=a note",
        "podLabels.tier=back",
        "crds.annotations.note=kept",
        "test.index=docs",
        "webhook.enabled=true",
        "webhook.auth.existingSecret=hook",
        "webhook.tls.existingSecret=hook-tls",
        "webhook.namespaceSelector.team=watch",
        "webhook.alerts={Mine,Yours}",
        "test.podLabels.role=client",
        "extraObjects[0].apiVersion=v1,extraObjects[0].kind=ConfigMap,extraObjects[0].metadata.name=more",
    ),
}


def operator_container(manifests: list[Manifest]) -> dict[str, Any]:
    [deployment] = by_kind(manifests, "Deployment")
    container: dict[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return container


def rules_of(manifests: list[Manifest], kind: str) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for role in by_kind(manifests, kind)
        if not role["metadata"]["name"].endswith(("-editor", "-viewer"))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_lint_finds_nothing() -> None:
    result = helm("lint", "--strict", "--quiet", str(CHART))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_rendered_object_is_valid_for_kubernetes(settings: tuple[str, ...]) -> None:
    for manifest in render_chart(*settings, tests=True):
        if manifest["kind"] != "CustomResourceDefinition":  # its own schema is recursive, which the validator can't follow
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_definition_is_the_one_of_the_repository() -> None:
    source = (ROOT / "crds" / "vectorindexes.yaml").read_bytes()
    assert (CHART / "files" / "vectorindexes.yaml").read_bytes() == source, "run: make crds"
    [rendered] = by_kind(render_chart(), "CustomResourceDefinition")
    definition = yaml.safe_load(source)
    assert rendered["spec"] == definition["spec"]
    assert rendered["metadata"]["name"] == definition["metadata"]["name"]
    assert len(source) < 100_000  # client-side apply keeps a copy in an annotation of at most 256 KiB


def test_definition_stays_when_the_chart_goes_unless_told_otherwise() -> None:
    [kept] = by_kind(render_chart(), "CustomResourceDefinition")
    [removed] = by_kind(render_chart("crds.keep=false"), "CustomResourceDefinition")
    assert kept["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "helm.sh/resource-policy" not in removed["metadata"].get("annotations", {})
    assert not by_kind(render_chart("crds.enabled=false"), "CustomResourceDefinition")


def env(manifests: list[Manifest]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in operator_container(manifests)["env"]}


def test_an_install_stays_within_its_namespace_unless_told_otherwise() -> None:
    manifests = render_chart(namespace="team")
    inside = [manifest for manifest in manifests if manifest["kind"] != "CustomResourceDefinition"]
    assert {manifest["metadata"].get("namespace") for manifest in inside} == {"team"}
    assert env(manifests)["VECTORINDEX_WATCH_NAMESPACES"] == "team"


def test_named_namespaces_get_the_same_roles_and_no_other_place_does() -> None:
    manifests = render_chart("watchNamespaces={search,shop}", namespace="team")
    assert not by_kind(manifests, "ClusterRole")
    assert not by_kind(manifests, "ClusterRoleBinding")
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]): role["rules"] for role in by_kind(manifests, "Role")}
    assert {place for place, name in roles if name == "vectorindex"} == {"search", "shop"}
    assert {name for place, name in roles if place == "team"} == {"vectorindex-lease"}
    assert roles["search", "vectorindex"] == roles["shop", "vectorindex"]
    assert env(manifests)["VECTORINDEX_WATCH_NAMESPACES"] == "search,shop"
    for binding in by_kind(manifests, "RoleBinding"):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "vectorindex", "namespace": "team"}]
        assert binding["roleRef"]["name"] == binding["metadata"]["name"]


def test_the_whole_cluster_is_served_by_one_explicit_value() -> None:
    manifests = render_chart("clusterWide=true")
    assert env(manifests)["VECTORINDEX_WATCH_NAMESPACES"] == "*"
    assert {role["metadata"]["name"] for role in by_kind(manifests, "Role")} == {"vectorindex-lease"}
    (binding,) = by_kind(manifests, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == "vectorindex"
    own = rules_of(render_chart(), "Role")
    assert rules_of(manifests, "ClusterRole") | rules_of(manifests, "Role") == own  # the same rights, in more places


def test_operator_has_the_rights_it_uses_and_no_other() -> None:
    """The integration tests run the operator with the chart's roles, which shows that they are enough; this shows that none is too many."""
    group = names.API_GROUP
    used = {(group, names.PLURAL, verb) for verb in ("get", "list", "watch")}
    used |= {(group, f"{names.PLURAL}/status", "patch"), (group, f"{names.PLURAL}/finalizers", "update"), ("", "events", "create")}
    used |= {("coordination.k8s.io", "leases", verb) for verb in ("create", "get", "update")}
    pruned = ("configmaps", "poddisruptionbudgets")  # the garbage collector deletes the others
    for child_group, _, plural in names.CHILDREN.values():
        read, written = ("list", "watch", "patch"), ("get", "create")
        verbs = read if plural == "pods" else (*read, *written, "delete") if plural in pruned else (*read, *written)
        used |= {(child_group, plural, verb) for verb in verbs}
    assert rules_of(render_chart(), "Role") == used
    assert rules_of(render_chart(*VARIANTS["webhook"]), "Role") == used | {(group, names.PLURAL, "patch")}


def test_operator_has_no_right_on_secrets_and_no_wildcard() -> None:
    rules = rules_of(render_chart(), "Role") | rules_of(render_chart("clusterWide=true"), "ClusterRole")
    assert rules
    for group, resource, verb in rules:
        assert resource != "secrets"
        assert "*" not in (group, resource, verb)
        assert verb not in ("update", "deletecollection") or resource in ("vectorindexes/finalizers", "leases")
    assert {verb for _, resource, verb in rules if resource == "vectorindexes"} == {"get", "list", "watch"}
    more = rules_of(render_chart("clusterWide=true", *VARIANTS["webhook"]), "ClusterRole") - rules
    assert more == {("vectorindex.dev", "vectorindexes", "patch")}


def test_operator_may_use_its_own_lease_only() -> None:
    manifests = render_chart("clusterWide=true", "fullnameOverride=vx", namespace="team")
    (role,) = by_kind(manifests, "Role")
    create, others = role["rules"]
    assert role["metadata"]["namespace"] == "team"
    assert (create["verbs"], "resourceNames" in create) == (["create"], False)  # a name can't bind what does not exist yet
    assert (others["verbs"], others["resourceNames"]) == (["get", "update"], ["vx"])
    assert env(manifests)["VECTORINDEX_LEASE_NAME"] == "vx"
    assert env(manifests)["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert env(manifests)["POD_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_operator_gets_a_short_lived_token_and_nothing_is_mounted_by_itself() -> None:
    manifests = render_chart()
    (account,) = by_kind(manifests, "ServiceAccount")
    (deployment,) = by_kind(manifests, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert account["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"].startswith("/var/run/secrets")]
    assert mount == {"name": "api", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "api"]
    token, authority, namespace = volume["projected"]["sources"]
    assert token == {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    assert authority["configMap"] == {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    assert [item["path"] for item in namespace["downwardAPI"]["items"]] == ["namespace"]


def test_viewers_of_a_namespace_cannot_write_indexes() -> None:
    roles = {role["metadata"]["name"]: role for role in by_kind(render_chart("clusterWide=true"), "ClusterRole")}
    viewer, editor = roles["vectorindex-viewer"], roles["vectorindex-editor"]
    assert viewer["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert viewer["rules"][0]["verbs"] == ["get", "list", "watch"]
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in editor["metadata"]["labels"]
    assert {"vectorindex"} == {
        role["metadata"]["name"] for role in by_kind(render_chart("clusterWide=true", "rbac.aggregateClusterRoles=false"), "ClusterRole")
    }


def test_roles_for_people_are_there_in_each_namespace_too() -> None:
    manifests = render_chart("watchNamespaces={search,shop}")
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]): role for role in by_kind(manifests, "Role")}
    for place in ("search", "shop"):
        assert roles[place, "vectorindex-viewer"]["rules"][0]["verbs"] == ["get", "list", "watch"]
        assert "patch" in roles[place, "vectorindex-editor"]["rules"][0]["verbs"]
    bound = {binding["roleRef"]["name"] for binding in by_kind(manifests, "RoleBinding")}
    assert bound == {"vectorindex", "vectorindex-lease"}


def test_operator_runs_under_restricted_pod_security() -> None:
    [deployment] = by_kind(render_chart(), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    context = operator_container([deployment])["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 10_000  # no user of a host has such a number
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def test_liveness_and_readiness_are_different_questions() -> None:
    container = operator_container(render_chart())
    assert container["livenessProbe"]["httpGet"]["path"] == names.LIVEZ_PATH
    assert container["readinessProbe"]["httpGet"]["path"] == names.READYZ_PATH


def test_operator_is_bounded_and_has_room_for_a_thousand_indexes() -> None:
    limits = operator_container(render_chart())["resources"]["limits"]
    assert set(limits) == {"cpu", "memory", "ephemeral-storage"}
    assert limits["memory"] == "512Mi"


def pod_of(*settings: str) -> dict[str, Any]:
    (deployment,) = by_kind(render_chart(*settings), "Deployment")
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


def test_operators_run_apart_and_a_choice_of_ones_own_replaces_that() -> None:
    (deployment,) = by_kind(render_chart(), "Deployment")
    own = {"matchLabels": deployment["spec"]["selector"]["matchLabels"]}
    pod = pod_of()
    (apart,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert apart["podAffinityTerm"] == {"topologyKey": "kubernetes.io/hostname", "labelSelector": own}
    (spread,) = pod["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["labelSelector"]) == ("topology.kubernetes.io/zone", own)
    chosen = pod_of(
        "topologySpreadConstraints[0].topologyKey=rack,topologySpreadConstraints[0].maxSkew=2,"
        "topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule,affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=rack"
    )
    assert chosen["affinity"] == {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "rack"}]}}
    assert chosen["topologySpreadConstraints"] == [
        {"topologyKey": "rack", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": own}
    ]


def test_index_pods_know_the_operators_by_labels_that_the_chart_gives_them() -> None:
    index = make_index()
    assert index.spec is not None
    built = objects.build_children(index, index.spec, SETTINGS, None).manifests
    (policy,) = [manifest for manifest in built if manifest["kind"] == "NetworkPolicy"]
    (peer,) = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"] if "podSelector" in peer and "namespaceSelector" in peer]
    for settings in ((), ("nameOverride=vx", "fullnameOverride=other")):
        (deployment,) = by_kind(render_chart(*settings), "Deployment")
        assert peer["podSelector"]["matchLabels"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_an_update_or_a_drain_takes_one_operator_at_a_time() -> None:
    (deployment,) = by_kind(render_chart("replicaCount=2"), "Deployment")
    (budget,) = by_kind(render_chart("replicaCount=2"), "PodDisruptionBudget")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert (budget["spec"]["maxUnavailable"], budget["spec"]["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    assert not by_kind(render_chart("replicaCount=1"), "PodDisruptionBudget")  # it would hold up every drain, or do nothing
    assert not by_kind(render_chart("podDisruptionBudget.enabled=false"), "PodDisruptionBudget")


def test_operator_may_reach_the_api_server_and_members_only() -> None:
    def egress(*settings: str) -> list[dict[str, Any]]:
        (policy,) = by_kind(render_chart(*settings, namespace="team"), "NetworkPolicy")
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        rules: list[dict[str, Any]] = policy["spec"]["egress"]
        return rules

    server, members = egress()
    assert [port["port"] for port in server["ports"]] == [443, 6443]
    assert [port["port"] for port in members["ports"]] == [names.OPS_PORT]
    (peer,) = members["to"]
    assert peer["podSelector"]["matchLabels"] == {names.MANAGED_BY_LABEL: names.MANAGED_BY, names.COMPONENT_LABEL: names.INDEXER_COMPONENT}
    assert peer["namespaceSelector"]["matchExpressions"][0]["values"] == ["team"]
    assert egress("clusterWide=true")[1]["to"][0]["namespaceSelector"] == {}
    assert egress("networkPolicy.apiServerCIDRs={10.0.0.1/32}")[0]["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]


def test_digest_wins_over_tag_and_tag_defaults_to_the_version() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    digest = "sha256:" + "a" * 64
    assert operator_container(render_chart())["image"] == f"localhost/vectorindex-operator:{version}"
    assert operator_container(render_chart("image.tag=v7"))["image"] == "localhost/vectorindex-operator:v7"
    chosen = operator_container(render_chart("image.tag=v7", f"image.digest={digest}", "image.repository=example.org/op"))
    assert chosen["image"] == f"example.org/op@{digest}"


def test_every_object_carries_the_common_labels() -> None:
    for manifest in render_chart("commonLabels.team=search", "test.index=docs", tests=True):
        labels = manifest["metadata"]["labels"]
        assert labels["team"] == "search"
        assert labels["app.kubernetes.io/part-of"] == "vectorindex"


def test_notes_name_the_next_command_and_a_complete_example() -> None:
    result = helm("install", "vectorindex", str(CHART), "--dry-run=client", "--namespace", "vectorindex-system")
    assert result.returncode == 0, result.stderr
    notes = result.stdout.partition("NOTES:")[2]
    example = yaml.safe_load(notes.partition("<<'EOF'\n")[2].partition("  EOF")[0])
    assert "rollout status deployment/vectorindex" in notes
    assert "It serves VectorIndexes in: vectorindex-system." in notes
    assert example["metadata"]["namespace"] == "vectorindex-system"
    assert example["kind"] == "VectorIndex"
    assert example["spec"]["index"]["dimension"] == 384


@pytest.mark.parametrize("folder", ["operator", "indexer", "cli"])
def test_folders_named_like_the_standard_library_are_no_packages(folder: str) -> None:
    assert not Path(ROOT, folder, "__init__.py").exists()  # it would shadow `operator` for every program started here
