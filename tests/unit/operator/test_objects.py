"""The objects that are built: valid, restricted, stable from version to version, and exactly what the spec asks for."""

import hashlib
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.support.vector_index import SETTINGS, make_index
from vectorindex_operator import api, names, objects
from vectorindex_operator.api import Json, LastProven, VectorIndex
from vectorindex_operator.objects import Desired

OLD_RESOURCES = sorted((Path(__file__).parent / "old_resources").glob("*.json"))
LIVE = Path(__file__).resolve().parents[2] / "contract" / "live.json"

EVERYTHING: Json = {
    "replicas": 3,
    "suspend": True,
    "source": {
        "postgres": {"sslMode": "VerifyFull", "port": 6432, "caConfigMapRef": {"name": "pg-ca", "key": "root.pem"}},
        "columns": {"model": "model_name"},
        "model": "Qwen/Qwen3-Embedding-0.6B",
        "tombstone": {"metadata": {"table": {"name": "faiss_metadata"}, "id": "entity_id", "deleted": "deleted", "model": "model_name"}},
    },
    "index": {"metric": "L2", "hnsw": {"m": 16}},
    "consistency": {"periodSeconds": 5},
    "storage": {"size": "10Gi", "storageClassName": "fast"},
    "network": {"clients": [{"podSelector": {"matchLabels": {"app": "web"}}}], "source": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]},
    "pod": {
        "resources": {"requests": {"cpu": 1}, "limits": {"memory": "4Gi"}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "priorityClassName": "high",
    },
}


def build(index: VectorIndex, last_proven: LastProven | None = None) -> Desired:
    assert index.spec is not None
    return objects.build_children(index, index.spec, SETTINGS, last_proven)


def find(desired: Desired, kind: str, name: str = "docs-index") -> Json:
    return next(m for m in desired.manifests if m["kind"] == kind and m["metadata"]["name"] == name)


def pod_of(desired: Desired) -> Json:
    pod: Json = find(desired, "StatefulSet")["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("spec", [{}, {"replicas": 1}, EVERYTHING], ids=["small", "single", "everything"])
def test_every_object_fits_the_schema_of_kubernetes(spec: Json) -> None:
    for manifest in build(make_index(**spec)).manifests:
        kubernetes_validate.validate(manifest, "1.37", strict=True)


@pytest.mark.parametrize("file", OLD_RESOURCES, ids=lambda file: file.stem)
def test_an_old_resource_gets_the_same_stateful_set_byte_for_byte(file: Path) -> None:
    """Any difference restarts the pods of everybody who upgrades, or builds their index anew. If it must be, the changelog says so.

    The files hold resources as an API server stored them, with the defaults of that day. They are never changed, only more are added.
    """
    old = json.loads(file.read_text())
    desired = build(api.parse_vector_index(old["stored"]))
    assert (desired.identity_hash, find(desired, "StatefulSet", f"{old['stored']['metadata']['name']}-index")) == (
        old["identityHash"],
        old["statefulSet"],
    )


def test_defaults_spelled_out_give_the_same_identity() -> None:
    spelled: Json = {
        "source": {"postgres": {"port": 5432}, "table": {"schema": "public"}},
        "index": {"metric": "Cosine", "type": "HNSW", "quantization": "None", "hnsw": {"m": 32, "efConstruction": 80, "efSearch": 64}},
    }
    assert build(make_index(**spelled)).identity_hash == build(make_index()).identity_hash
    clusters = make_index(index={"type": "IVFFlat", "ivf": {"nlist": 1024, "nprobe": 16}})
    assert build(clusters).identity_hash == build(make_index(index={"type": "IVFFlat"})).identity_hash


@pytest.mark.parametrize(
    ("spec", "restarts"),
    [
        ({"source": {"postgres": {"host": "other"}}}, True),
        ({"source": {"columns": {"model": "m"}, "model": "x"}}, True),
        ({"source": {"tombstone": {"column": "deleted"}}}, True),
        ({"index": {"type": "Flat"}}, True),
        ({"index": {"hnsw": {"efSearch": 65}}}, True),
        ({"index": {"quantization": "SQ8"}}, True),
        ({"index": {"type": "IVFFlat", "ivf": {"nprobe": 17}}}, True),
        ({"source": {"digests": {"columns": ["d1", "d2"]}}}, True),
        ({"source": {"postgres": {"sslMode": "Require", "clientCertificateSecretRef": {"name": "c"}}}}, True),
        ({"healing": {"mode": "Plan"}}, False),
        ({"consistency": {"maxSourceDutyPercent": 50}}, False),
        ({"consistency": {"periodSeconds": 1}}, False),
        ({"suspend": True}, False),
        ({"replicas": 5}, False),
        ({"network": {"sourcePort": 1}}, False),
    ],
)
def test_pods_restart_only_for_another_source_or_index(spec: Json, restarts: bool) -> None:
    changed, base = pod_of(build(make_index(**spec))), pod_of(build(make_index()))
    assert (changed != base) is restarts


def test_the_identity_file_hashes_to_its_name() -> None:
    desired = build(make_index(**EVERYTHING))
    content = find(desired, "ConfigMap", f"docs-index-{desired.identity_hash}")["data"]["vectorindex.yaml"]
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == desired.identity_hash
    assert set(json.loads(content)["spec"]) == {"source", "index"}


def test_the_live_file_has_the_agreed_form() -> None:
    proof = LastProven(9500, "7390000000000000001/primary/1", "731:735:732", "sha256-128/int8/bytea/1c2d3e4f", "id", "2026-11-25T09:00:00Z")
    wishes = {names.VALIDATE_REQUESTED_AT: "2026-11-25T09:00:00Z", names.APPROVE_PLAN: "0123456789abcdef"}
    desired = build(make_index(wishes), proof)
    content = find(desired, "ConfigMap")["data"]["live.json"]
    assert json.loads(content) == json.loads(LIVE.read_text())
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == desired.live_hash


def test_a_wish_that_is_no_time_is_not_handed_down() -> None:
    content = find(build(make_index({names.REBUILD_REQUESTED_AT: "soon"})), "ConfigMap")["data"]["live.json"]
    assert json.loads(content)["wishes"] == {"validateRequestedAt": "", "rebuildRequestedAt": "", "approvePlan": ""}


ONE, TWO = "0123456789abcdef", "fedcba9876543210"


@pytest.mark.parametrize(
    ("annotation", "handed_down"),
    [
        ("", ""),
        (ONE, ONE),
        (f" {ONE} , {TWO},", f"{ONE},{TWO}"),
        (f"{ONE},{ONE}", ONE),
        (f"all,{TWO},{ONE}0,{ONE.upper()},\n{ONE}\x00", TWO),
        (",".join(f"{number:016x}" for number in range(30)), ",".join(f"{number:016x}" for number in range(20))),
    ],
)
def test_of_an_approval_only_ids_of_plans_are_handed_down_and_not_too_many(annotation: str, handed_down: str) -> None:
    content = find(build(make_index({names.APPROVE_PLAN: annotation})), "ConfigMap")["data"]["live.json"]
    assert json.loads(content)["wishes"]["approvePlan"] == handed_down


def test_a_plan_that_is_used_up_is_approved_no_more() -> None:
    index = make_index({names.APPROVE_PLAN: f"{ONE},{TWO}"})
    assert index.spec is not None
    live = json.loads(objects.build_live_file(index, index.spec, None, (ONE,)))
    assert live["wishes"]["approvePlan"] == TWO


def test_behaviour_reaches_the_live_file() -> None:
    given: Json = {
        "consistency": {"maxSourceDutyPercent": 35},
        "healing": {"mode": "Plan", "maxChangePercent": 3, "cooldownSeconds": 600, "concurrentRebuilds": 4},
    }
    live = json.loads(find(build(make_index(**given)), "ConfigMap")["data"]["live.json"])
    assert live["healing"] == given["healing"]
    assert live["consistency"]["maxSourceDutyPercent"] == 35


def test_pods_meet_the_restricted_standard() -> None:
    pod = pod_of(build(make_index(**EVERYTHING)))
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not set(pod) & {"hostNetwork", "hostPID", "hostIPC"}
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "secret", "emptyDir", "projected"}


def test_the_secret_comes_as_two_files_and_never_as_environment() -> None:
    pod = pod_of(build(make_index()))
    (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert [item["key"] for item in secret["items"]] == ["username", "password"]
    sources: list[Any] = [variable["valueFrom"] for variable in pod["containers"][0]["env"]]
    assert all(set(source) == {"fieldRef"} for source in sources)


def test_every_field_of_the_pod_reaches_it() -> None:
    pod = pod_of(build(make_index(**EVERYTHING)))
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["priorityClassName"] == "high"
    assert pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"][names.INDEX_LABEL] == "docs"
    assert pod["containers"][0]["resources"] == EVERYTHING["pod"]["resources"]
    assert {"name": "tls", "configMap": {"name": "pg-ca", "optional": True, "items": [{"key": "root.pem", "path": "ca.crt"}]}} in pod[
        "volumes"
    ]


CA: Json = {"name": "ca", "optional": True, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
ROOT_PEM: Json = {"name": "ca", "optional": True, "items": [{"key": "root.pem", "path": "ca.crt"}]}
CERTIFICATE: Json = {
    "name": "own",
    "optional": True,
    "items": [{"key": "tls.crt", "path": "tls.crt"}, {"key": "tls.key", "path": "tls.key"}],
}
VOLUMES: dict[str, tuple[Json, Json]] = {
    "nothing": ({"sslMode": "Require"}, {"emptyDir": {"sizeLimit": "1Mi"}}),
    "ConfigMap": ({"sslMode": "VerifyCA", "caConfigMapRef": {"name": "ca"}}, {"configMap": CA}),
    "Secret": (
        {"sslMode": "VerifyCA", "caSecretRef": {"name": "ca", "key": "root.pem"}},
        {"projected": {"sources": [{"secret": ROOT_PEM}], "defaultMode": 0o440}},
    ),
    "certificate": (
        {"sslMode": "Require", "clientCertificateSecretRef": {"name": "own"}},
        {"projected": {"sources": [{"secret": CERTIFICATE}], "defaultMode": 0o440}},
    ),
    "ConfigMap and certificate": (
        {"sslMode": "VerifyFull", "caConfigMapRef": {"name": "ca"}, "clientCertificateSecretRef": {"name": "own"}},
        {"projected": {"sources": [{"configMap": CA}, {"secret": CERTIFICATE}], "defaultMode": 0o440}},
    ),
    "Secret and certificate": (
        {"sslMode": "VerifyFull", "caSecretRef": {"name": "ca"}, "clientCertificateSecretRef": {"name": "own"}},
        {"projected": {"sources": [{"secret": CA}, {"secret": CERTIFICATE}], "defaultMode": 0o440}},
    ),
}


@pytest.mark.parametrize(("postgres", "volume"), VOLUMES.values(), ids=VOLUMES.keys())
def test_authority_and_client_certificate_come_as_files_of_one_folder(postgres: Json, volume: Json) -> None:
    pod = pod_of(build(make_index(source={"postgres": postgres})))
    assert {"name": "tls", **volume} in pod["volumes"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "tls"]
    assert mount == {"name": "tls", "mountPath": "/etc/vectorindex/tls", "readOnly": True}


@pytest.mark.parametrize(("postgres", "_volume"), VOLUMES.values(), ids=VOLUMES.keys())
def test_pods_with_any_of_them_fit_the_schema_of_kubernetes(postgres: Json, _volume: Json) -> None:
    kubernetes_validate.validate(find(build(make_index(source={"postgres": postgres})), "StatefulSet"), "1.37", strict=True)


def test_storage_becomes_a_claim_that_is_deleted_with_its_replica() -> None:
    body = find(build(make_index(**EVERYTHING)), "StatefulSet")["spec"]
    (claim,) = body["volumeClaimTemplates"]
    assert claim["spec"]["resources"] == {"requests": {"storage": "10Gi"}}
    assert claim["spec"]["storageClassName"] == "fast"
    assert body["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Delete", "whenScaled": "Delete"}
    assert "data" not in [volume["name"] for volume in body["template"]["spec"]["volumes"]]


def test_without_network_the_own_namespace_may_search_and_postgres_is_anywhere_but_link_local() -> None:
    policy = find(build(make_index()), "NetworkPolicy")["spec"]
    search, ops = policy["ingress"]
    assert (search["from"], search["ports"][0]["port"]) == ([{"podSelector": {}}], 8080)
    assert [next(iter(peer["namespaceSelector"]["matchLabels"].values())) for peer in ops["from"]] == ["vectorindex-system", "monitoring"]
    postgres = policy["egress"][1]
    assert [peer["ipBlock"]["except"] for peer in postgres["to"]] == [["169.254.0.0/16"], ["fe80::/10"]]
    assert [port["port"] for port in postgres["ports"]] == [5432]


def test_network_names_who_may_search_and_where_postgres_is() -> None:
    policy = find(build(make_index(**EVERYTHING)), "NetworkPolicy")["spec"]
    assert policy["ingress"][0]["from"] == EVERYTHING["network"]["clients"]
    assert policy["egress"][1]["to"] == EVERYTHING["network"]["source"]
    assert [port["port"] for port in policy["egress"][1]["ports"]] == [5432, 6432]


def test_empty_values_are_left_out_as_the_api_server_does_and_empty_selectors_stay() -> None:
    given = [
        {"podSelector": {"matchLabels": {}, "matchExpressions": []}, "namespaceSelector": {}},
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}], "matchLabels": {"key": ""}}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": []}},
    ]
    stored = [
        {"podSelector": {}, "namespaceSelector": {}},
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}], "matchLabels": {"key": ""}}},
        {"ipBlock": {"cidr": "10.0.0.0/8"}},
    ]
    toleration = {"key": "", "operator": "Exists", "value": "", "tolerationSeconds": 0}
    desired = build(make_index(network={"clients": given, "source": given}, pod={"tolerations": [toleration]}))
    policy = find(desired, "NetworkPolicy")["spec"]
    assert (policy["ingress"][0]["from"], policy["egress"][1]["to"]) == (stored, stored)
    assert pod_of(desired)["tolerations"] == [{"operator": "Exists", "tolerationSeconds": 0}]


def test_all_objects_are_owned_labelled_and_named_after_the_index() -> None:
    index = make_index()
    desired = build(index)
    assert index.spec is not None
    assert [(m["kind"], m["metadata"]["name"]) for m in desired.manifests] == list(objects.child_references(index, index.spec))
    for manifest in desired.manifests:
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (index.uid, True)
        assert manifest["metadata"]["labels"][names.MANAGED_BY_LABEL] == names.MANAGED_BY
        assert manifest["metadata"]["labels"][names.INDEX_LABEL] == "docs"


def test_the_longest_name_still_fits_a_service_and_a_label() -> None:
    assert len(f"{objects.child_name('x' * 46)}-members") <= 63


def test_a_spec_that_is_not_understood_is_told_with_its_field() -> None:
    body = {
        "metadata": {"name": "docs", "namespace": "search", "uid": "u", "resourceVersion": "1"},
        "spec": {"index": {"dimension": "many"}, "source": {}},
    }
    index = api.parse_vector_index(body)
    assert index.spec is None
    assert "source" in index.problem or "dimension" in index.problem
