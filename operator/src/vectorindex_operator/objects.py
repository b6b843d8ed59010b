"""Builds the Kubernetes objects of one VectorIndex from its spec: pure, and the same bytes for the same spec in every later version."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from vectorindex_operator import api, names
from vectorindex_operator.api import ConfigMapRef, Json, LastProven, Spec, VectorIndex
from vectorindex_operator.settings import Settings

DEFAULT_RESOURCES: Final[Json] = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"cpu": "1", "memory": "2Gi"},
}

USER_ID: Final = 65532

# Kept away from Postgres' possible addresses: instance metadata and other services of the node live there.
_ANY_ADDRESS: Final[list[Json]] = [
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
    {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10"]}},
]

# Empty, these say nothing; an empty `podSelector` or `namespaceSelector` does, and stays.
_LEFT_OUT: Final = frozenset({"matchLabels", "matchExpressions", "values", "except", "key", "operator", "value", "effect"})


@dataclass(frozen=True)
class Desired:
    """All objects that should exist, in the order in which they are made, and the hashes of the two files within them."""

    manifests: tuple[Json, ...]
    absent: tuple[tuple[str, str], ...]
    """Kind and name of objects that must not exist now, though another spec of the same resource has them."""
    identity_hash: str
    live_hash: str


def child_name(index: str) -> str:
    """Return the name of StatefulSet, Service, live ConfigMap, PodDisruptionBudget and NetworkPolicy."""
    return f"{index}-index"


def build_children(
    index: VectorIndex, spec: Spec, settings: Settings, last_proven: LastProven | None, used_plans: Collection[str] = ()
) -> Desired:
    """Return every object of the index. `last_proven` is what the live file shall remember; used plans are approved no more."""
    identity = api.identity_document(index, spec)
    live = build_live_file(index, spec, last_proven, used_plans)
    identity_hash, live_hash = api.short_hash(identity), api.short_hash(live)
    built = [
        _build_network_policy(index, spec, settings),
        _build_identity(index, identity, identity_hash),
        _build_live(index, live, last_proven),
        _build_members_service(index),
        _build_service(index),
        _build_stateful_set(index, spec, settings, identity_hash),
    ]
    absent: tuple[tuple[str, str], ...] = ()
    if spec.replicas > 1:
        built.insert(-1, _build_disruption_budget(index))
    else:  # it would block every drain of the node, or do nothing
        absent = (("PodDisruptionBudget", child_name(index.key.name)),)
    return Desired(tuple(_finish(manifest) for manifest in built), absent, identity_hash, live_hash)


def child_references(index: VectorIndex, spec: Spec) -> tuple[tuple[str, str], ...]:
    """Return kind and name of every object that the index may have, whatever its number of replicas."""
    name = child_name(index.key.name)
    identity = f"{name}-{api.short_hash(api.identity_document(index, spec))}"
    return (
        ("NetworkPolicy", name),
        ("ConfigMap", identity),
        ("ConfigMap", name),
        ("Service", f"{name}-members"),
        ("Service", name),
        ("PodDisruptionBudget", name),
        ("StatefulSet", name),
    )


def build_live_file(index: VectorIndex, spec: Spec, last_proven: LastProven | None, used_plans: Collection[str] = ()) -> str:
    """Return what may change while a pod runs: behaviour, wishes, what was last proven."""
    consistency, healing = spec.consistency, spec.healing
    document: Json = {
        "suspend": spec.suspend,
        "consistency": {
            "periodSeconds": consistency.period_seconds,
            "contentSweepSeconds": consistency.content_sweep_seconds,
            "maxStalenessSeconds": consistency.max_staleness_seconds,
            "maxSourceDutyPercent": consistency.max_source_duty_percent,
            "whenUnverified": consistency.when_unverified,
        },
        "healing": {
            "mode": healing.mode,
            "maxChangePercent": healing.max_change_percent,
            "cooldownSeconds": healing.cooldown_seconds,
            "concurrentRebuilds": healing.concurrent_rebuilds,
        },
        "wishes": {
            "validateRequestedAt": index.validate_wish if api.parse_time(index.validate_wish) else "",
            "rebuildRequestedAt": index.rebuild_wish if api.parse_time(index.rebuild_wish) else "",
            "approvePlan": ",".join(api.find_approved(index, used_plans)),
        },
    }
    if last_proven is not None:
        document["lastProven"] = {
            "rows": last_proven.rows,
            "incarnation": last_proven.incarnation,
            "snapshot": last_proven.snapshot,
            "digestSpec": last_proven.digest_spec,
        }
    return api.canonical(document)


def _labels(index: VectorIndex, component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "vectorindex",
        "app.kubernetes.io/instance": index.key.name,
        "app.kubernetes.io/part-of": "vectorindex",
        names.COMPONENT_LABEL: component,
        names.MANAGED_BY_LABEL: names.MANAGED_BY,
        names.INDEX_LABEL: index.key.name,
    }


def _selector(index: VectorIndex) -> dict[str, str]:
    return {names.INDEX_LABEL: index.key.name, names.COMPONENT_LABEL: names.INDEXER_COMPONENT}


def _object(index: VectorIndex, api_version: str, kind: str, name: str, component: str = names.INDEXER_COMPONENT) -> Json:
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": index.key.name,
        "uid": index.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": index.key.namespace,
            "labels": _labels(index, component),
            "annotations": {},
            "ownerReferences": [owner],
        },
    }


def _finish(manifest: Json) -> Json:
    manifest["metadata"]["annotations"][names.MANIFEST_HASH_ANNOTATION] = api.short_hash(api.canonical(manifest))
    return manifest


def _build_identity(index: VectorIndex, content: str, identity_hash: str) -> Json:
    name = f"{child_name(index.key.name)}-{identity_hash}"
    return {
        **_object(index, "v1", "ConfigMap", name, names.IDENTITY_COMPONENT),
        "immutable": True,
        "data": {names.IDENTITY_FILE.rpartition("/")[2]: content},
    }


def _build_live(index: VectorIndex, content: str, last_proven: LastProven | None) -> Json:
    manifest = _object(index, "v1", "ConfigMap", child_name(index.key.name))
    if last_proven is not None:
        manifest["metadata"]["annotations"][names.LAST_PROVEN_ANNOTATION] = f"{last_proven.at} {last_proven.identity_hash}"
    return {**manifest, "data": {names.LIVE_FILE.rpartition("/")[2]: content}}


def _build_service(index: VectorIndex) -> Json:
    port = {"name": "search", "port": names.SEARCH_PORT, "protocol": "TCP", "targetPort": "search"}
    return {
        **_object(index, "v1", "Service", child_name(index.key.name)),
        "spec": {"type": "ClusterIP", "selector": _selector(index), "ports": [port]},
    }


def _build_members_service(index: VectorIndex) -> Json:
    port = {"name": "ops", "port": names.OPS_PORT, "protocol": "TCP", "targetPort": "ops"}
    return {
        **_object(index, "v1", "Service", f"{child_name(index.key.name)}-members"),
        "spec": {"type": "ClusterIP", "clusterIP": "None", "publishNotReadyAddresses": True, "selector": _selector(index), "ports": [port]},
    }


def _build_disruption_budget(index: VectorIndex) -> Json:
    return {
        **_object(index, "policy/v1", "PodDisruptionBudget", child_name(index.key.name)),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": _selector(index)},
        },
    }


def _build_network_policy(index: VectorIndex, spec: Spec, settings: Settings) -> Json:
    network = spec.network
    clients = _as_stored(network.clients) if network and network.clients else [{"podSelector": {}}]
    source = _as_stored(network.source) if network and network.source else _ANY_ADDRESS
    source_ports = sorted({spec.source.postgres.port, *([network.source_port] if network else [])})
    watchers = [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.operator_namespace}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "vectorindex", names.COMPONENT_LABEL: names.OPERATOR_COMPONENT}},
        },
        {"namespaceSelector": {"matchLabels": dict(settings.monitoring_namespace_labels)}},
    ]
    return {
        **_object(index, "networking.k8s.io/v1", "NetworkPolicy", child_name(index.key.name)),
        "spec": {
            "podSelector": {"matchLabels": _selector(index)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": clients, "ports": [{"port": names.SEARCH_PORT, "protocol": "TCP"}]},
                {"from": watchers, "ports": [{"port": names.OPS_PORT, "protocol": "TCP"}]},
            ],
            "egress": [
                # Wherever DNS is: in a namespace of any name, or, with a cache on each node, at a link-local address.
                {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
                {"to": source, "ports": [{"port": port, "protocol": "TCP"} for port in source_ports]},
            ],
        },
    }


def _as_stored(value: Any) -> Any:
    """Return peers or tolerations without the empty values that an API server leaves out; else each look would see an edit in them."""
    if isinstance(value, list):
        return [_as_stored(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if key not in _LEFT_OUT or item not in ("", [], {})}
    return {key: item if key == "matchLabels" else _as_stored(item) for key, item in kept.items()}  # labels may have any name


def _build_stateful_set(index: VectorIndex, spec: Spec, settings: Settings, identity_hash: str) -> Json:
    manifest = _object(index, "apps/v1", "StatefulSet", child_name(index.key.name))
    body: Json = {
        "replicas": spec.replicas,
        "serviceName": f"{child_name(index.key.name)}-members",
        # Under OrderedReady a pod 0 that never gets ready would block its own correction for ever.
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"},
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": _selector(index)},
        "template": {
            "metadata": {"labels": _labels(index, names.INDEXER_COMPONENT)},
            "spec": _build_pod(index, spec, settings, identity_hash),
        },
    }
    if spec.storage:
        body["volumeClaimTemplates"] = [_build_claim(spec)]
    return {**manifest, "spec": body}


def _build_claim(spec: Spec) -> Json:
    assert spec.storage is not None  # noqa: S101 - for the type checker
    claim: Json = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": spec.storage.size}}}
    if spec.storage.storage_class_name:
        claim["storageClassName"] = spec.storage.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim}


def _build_pod(index: VectorIndex, spec: Spec, settings: Settings, identity_hash: str) -> Json:
    placement = spec.pod
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": _selector(index)}}
    pod: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Draining, requests in flight and saving take 37 s in the worst case (`server` of the indexer).
        "terminationGracePeriodSeconds": 45,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": apart}]}},
        "containers": [_build_container(spec, settings)],
        "volumes": _build_volumes(index, spec, identity_hash),
    }
    if placement.node_selector:
        pod["nodeSelector"] = placement.node_selector
    if placement.tolerations:
        pod["tolerations"] = _as_stored(placement.tolerations)
    if placement.topology_spread_constraints:
        own = {"labelSelector": {"matchLabels": _selector(index)}}
        pod["topologySpreadConstraints"] = [{**constraint, **own} for constraint in placement.topology_spread_constraints]
    if placement.priority_class_name:
        pod["priorityClassName"] = placement.priority_class_name
    return pod


def _build_container(spec: Spec, settings: Settings) -> Json:
    return {
        "name": names.CONTAINER,
        "image": settings.indexer_image,
        "imagePullPolicy": settings.indexer_pull_policy,
        "args": [
            "serve",
            *("--config", names.IDENTITY_FILE),
            *("--live", names.LIVE_FILE),
            *("--credentials", names.CREDENTIALS_FOLDER),
            *("--tls", names.TLS_FOLDER),
            *("--data", names.DATA_FOLDER),
        ],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
            {"name": "POD_UID", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.uid"}}},
        ],
        "ports": [
            {"name": "search", "containerPort": names.SEARCH_PORT, "protocol": "TCP"},
            {"name": "ops", "containerPort": names.OPS_PORT, "protocol": "TCP"},
        ],
        # /livez answers from the start and never depends on data; /readyz only once the index is proven.
        "livenessProbe": {**_probe(names.LIVEZ_PATH, 10), "initialDelaySeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "readinessProbe": {**_probe(names.READYZ_PATH, 2), "timeoutSeconds": 2, "failureThreshold": 2},
        "resources": spec.pod.resources or DEFAULT_RESOURCES,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "identity", "mountPath": names.IDENTITY_FILE.rpartition("/")[0], "readOnly": True},
            {"name": "live", "mountPath": names.LIVE_FILE.rpartition("/")[0], "readOnly": True},
            {"name": "credentials", "mountPath": names.CREDENTIALS_FOLDER, "readOnly": True},
            {"name": "tls", "mountPath": names.TLS_FOLDER, "readOnly": True},
            {"name": "data", "mountPath": names.DATA_FOLDER},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the container
        ],
    }


def _probe(path: str, period_seconds: int) -> Json:
    return {"httpGet": {"path": path, "port": "ops", "scheme": "HTTP"}, "periodSeconds": period_seconds}


def _build_volumes(index: VectorIndex, spec: Spec, identity_hash: str) -> list[Json]:
    postgres = spec.source.postgres
    name = child_name(index.key.name)
    # Optional, so that a missing Secret becomes a reason that the replica tells, not a pod that never starts without a word.
    secret = {
        "secretName": postgres.credentials_secret_ref.name,
        "optional": True,
        "defaultMode": 0o440,
        "items": [{"key": key, "path": key} for key in ("username", "password")],
    }
    volumes: list[dict[str, Any]] = [
        {"name": "identity", "configMap": {"name": f"{name}-{identity_hash}"}},
        {"name": "live", "configMap": {"name": name}},
        {"name": "credentials", "secret": secret},
        {"name": "tls", **_build_tls(spec)},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if not spec.storage:
        volumes.append({"name": "data", "emptyDir": {}})
    return volumes


def _build_tls(spec: Spec) -> Json:
    """Return the volume with `ca.crt`, `tls.crt` and `tls.key`, as far as there are any, each of its own object."""
    postgres = spec.source.postgres
    authority, certificate = postgres.ca_config_map_ref or postgres.ca_secret_ref, postgres.client_certificate_secret_ref
    if isinstance(authority, ConfigMapRef) and certificate is None:  # as it always was: a different form would restart pods
        return {"configMap": _project(authority.name, {authority.key: "ca.crt"})}
    sources: list[Json] = []
    if authority is not None:
        kind = "configMap" if isinstance(authority, ConfigMapRef) else "secret"
        sources.append({kind: _project(authority.name, {authority.key: "ca.crt"})})
    if certificate is not None:
        sources.append({"secret": _project(certificate.name, {key: key for key in ("tls.crt", "tls.key")})})
    if not sources:
        return {"emptyDir": {"sizeLimit": "1Mi"}}
    # Readable by the group and nobody else: libpq refuses a private key that others could read.
    return {"projected": {"sources": sources, "defaultMode": 0o440}}


def _project(name: str, paths: dict[str, str]) -> Json:
    return {"name": name, "optional": True, "items": [{"key": key, "path": path} for key, path in paths.items()]}
