"""Manifests that must be accepted, and manifests that must be refused with the field named: by the API server and by the indexer alike."""

from dataclasses import dataclass

from tests.support.vector_index import merge
from vectorindex_operator.api import Json

INJECTED = 'x"; drop table y; --'
TABLE: Json = {"table": {"name": "t"}, "id": "a", "deleted": "b"}
REFERENCE: Json = {"name": "object"}


@dataclass(frozen=True)
class Wrong:
    """A spec that must be refused, and the field that the refusal names."""

    spec: Json
    field: str
    operators_own: bool = False  # a field that the indexer leaves to the operator


def source(**changes: object) -> Json:
    """Return a spec with these changes of its source."""
    return {"source": changes}


def postgres(**changes: object) -> Json:
    """Return a spec with these changes of how Postgres is reached."""
    return source(postgres=changes)


def index(**changes: object) -> Json:
    """Return a spec with these changes of its index."""
    return {"index": changes}


def clients(*peers: Json) -> Json:
    """Return a spec with these peers that may search."""
    return {"network": {"clients": list(peers)}}


def toleration(**fields: object) -> Json:
    """Return a spec with one toleration."""
    return {"pod": {"tolerations": [fields]}}


def resources(**fields: Json) -> Json:
    """Return a spec with these requests and limits."""
    return {"pod": {"resources": fields}}


def own(spec: Json, field: str) -> Wrong:
    """Return what must be refused in a part that the indexer leaves to the operator."""
    return Wrong(spec, field, operators_own=True)


GOOD: dict[str, Json] = {
    "nothing but what is required": {},
    "encrypted, nothing verified": postgres(sslMode="Require"),
    "authority in a ConfigMap": postgres(sslMode="VerifyCA", caConfigMapRef=REFERENCE),
    "authority in a Secret": postgres(sslMode="VerifyFull", caSecretRef={"name": "pg-ca", "key": "root.pem"}),
    "verified by default": postgres(sslMode=None, caSecretRef=REFERENCE),
    "client certificate, server unverified": postgres(sslMode="Require", clientCertificateSecretRef=REFERENCE),
    "client certificate": postgres(sslMode="VerifyFull", caSecretRef=REFERENCE, clientCertificateSecretRef=REFERENCE),
    "model key": source(model="Qwen/Qwen3-Embedding-0.6B", columns={"model": "model_name"}),
    "tombstone of the table": source(tombstone={"column": "deleted"}),
    "tombstone of a second table": source(tombstone={"metadata": TABLE}),
    "tombstone with model key": source(model="m", columns={"model": "m"}, tombstone={"metadata": merge(TABLE, {"model": "m"})}),
    "digest columns": source(digests={"columns": ["d1", "d2"]}),
    "digest columns that differ in case": source(digests={"columns": ["d", "D"]}),
    "mixed-case names": source(table={"schema": "App", "name": "Embeddings"}, columns={"id": "entityId"}),
    "Flat": index(type="Flat"),
    "Flat, quantized": index(type="Flat", quantization="SQ8"),
    "HNSW by default with parameters": index(hnsw={"m": 16, "efConstruction": 200, "efSearch": 128}),
    "HNSW without a parameter": index(type="HNSW", quantization="None", hnsw={}),
    "IVFFlat": index(type="IVFFlat"),
    "IVFFlat with parameters": index(type="IVFFlat", quantization="SQ8", metric="L2", ivf={"nlist": 65536, "nprobe": 1}),
    "IVFFlat that reads more clusters than it has": index(type="IVFFlat", ivf={"nlist": 4, "nprobe": 65536}),
    "whole duty": {"consistency": {"maxSourceDutyPercent": 100}},
    "proofs a second older than the period": {"consistency": {"periodSeconds": 30, "maxStalenessSeconds": 31}},
    "network and pod": {
        "storage": {"size": "15Gi", "storageClassName": "fast.ssd"},
        "network": {
            "clients": [
                {
                    "podSelector": {
                        "matchLabels": {"app.example/part": ""},
                        "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}],
                    }
                },
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
            ],
            "source": [{"namespaceSelector": {}}],
        },
        "pod": {
            "resources": {
                "requests": {"cpu": 1, "memory": "1.5Gi"},
                "limits": {"cpu": "1000m", "memory": "2G", "ephemeral-storage": "20Gi"},
            },
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"operator": "Exists"}, {"key": "example.com/gpu", "effect": "NoExecute", "tolerationSeconds": 0}],
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
            ],
        },
    },
    "healing switched to plan": {"healing": {"mode": "Plan"}},
    "healing at its lower limits": {
        "healing": {"mode": "Observe", "maxChangePercent": 0, "cooldownSeconds": 0, "concurrentRebuilds": 1},
    },
    "healing at its upper limits": {
        "healing": {"mode": "Auto", "maxChangePercent": 100, "cooldownSeconds": 86400, "concurrentRebuilds": 20},
    },
}

_CA = "spec.source.postgres.caConfigMapRef"
_CERTIFICATE = "spec.source.postgres.clientCertificateSecretRef"

_PEER = "spec.network.clients[0]"

WRONG: dict[str, Wrong] = {
    "unknown metric": Wrong(index(metric="Manhattan"), "spec.index.metric"),
    "dimension 0": Wrong(index(dimension=0), "spec.index.dimension"),
    "dimension 5000": Wrong(index(dimension=5000), "spec.index.dimension"),
    "no dimension": Wrong(index(dimension=None), "spec.index.dimension"),
    "unknown type": Wrong(index(type="IVFPQ"), "spec.index.type"),
    "unknown quantization": Wrong(index(quantization="SQ4"), "spec.index.quantization"),
    "hnsw with Flat": Wrong(index(type="Flat", hnsw={"m": 16}), "spec.index.hnsw"),
    "hnsw with IVFFlat": Wrong(index(type="IVFFlat", hnsw={}), "spec.index.hnsw"),
    "ivf with HNSW": Wrong(index(ivf={"nlist": 16}), "spec.index.ivf"),
    "ivf with Flat": Wrong(index(type="Flat", ivf={}), "spec.index.ivf"),
    "no cluster": Wrong(index(type="IVFFlat", ivf={"nlist": 0}), "spec.index.ivf.nlist"),
    "too many clusters": Wrong(index(type="IVFFlat", ivf={"nlist": 65537}), "spec.index.ivf.nlist"),
    "no cluster read": Wrong(index(type="IVFFlat", ivf={"nprobe": 0}), "spec.index.ivf.nprobe"),
    "too many clusters read": Wrong(index(type="IVFFlat", ivf={"nprobe": 65537}), "spec.index.ivf.nprobe"),
    "two tombstone rules": Wrong(source(tombstone={"column": "deleted", "metadata": TABLE}), "spec.source.tombstone"),
    "empty tombstone rule": Wrong(source(tombstone={}), "spec.source.tombstone"),
    "injected table": Wrong(source(table={"name": INJECTED}), "spec.source.table.name"),
    "injected schema": Wrong(source(table={"schema": INJECTED}), "spec.source.table.schema"),
    "injected id": Wrong(source(columns={"id": INJECTED}), "spec.source.columns.id"),
    "injected tombstone": Wrong(source(tombstone={"column": INJECTED}), "spec.source.tombstone.column"),
    "injected metadata": Wrong(source(tombstone={"metadata": merge(TABLE, {"id": INJECTED})}), "spec.source.tombstone.metadata.id"),
    "injected digest column": Wrong(source(digests={"columns": ["d1", INJECTED]}), "spec.source.digests.columns"),
    "one digest column": Wrong(source(digests={"columns": ["d1"]}), "spec.source.digests.columns"),
    "three digest columns": Wrong(source(digests={"columns": ["d1", "d2", "d3"]}), "spec.source.digests.columns"),
    "one digest column twice": Wrong(source(digests={"columns": ["d1", "d1"]}), "spec.source.digests.columns"),
    "digests without columns": Wrong(source(digests={}), "spec.source.digests.columns"),
    "connection string as host": Wrong(postgres(host="postgres://u:p@h/db"), "spec.source.postgres.host"),
    "two hosts": Wrong(postgres(host="a,b"), "spec.source.postgres.host"),
    "model key without column": Wrong(source(model="m"), "spec.source"),
    "model column without key": Wrong(source(columns={"model": "m"}), "spec.source"),
    "metadata model without key": Wrong(source(tombstone={"metadata": merge(TABLE, {"model": "m"})}), "spec.source"),
    "control character in model key": Wrong(source(model="a\nb", columns={"model": "m"}), "spec.source.model"),
    "no authority to verify all": Wrong(postgres(sslMode="VerifyFull"), _CA),
    "no authority to verify a certificate": Wrong(postgres(sslMode="VerifyCA"), _CA),
    "no authority by default": Wrong(postgres(sslMode=None), _CA),
    "two authorities": Wrong(postgres(sslMode="VerifyCA", caConfigMapRef=REFERENCE, caSecretRef=REFERENCE), _CA),
    "an authority in clear": Wrong(postgres(caConfigMapRef=REFERENCE), _CA),
    "an authority nobody asks": Wrong(postgres(sslMode="Require", caConfigMapRef=REFERENCE), _CA),
    "a secret authority nobody asks": Wrong(postgres(sslMode="Require", caSecretRef=REFERENCE), "caSecretRef"),
    "an authority without name": Wrong(postgres(sslMode="VerifyCA", caSecretRef={}), "spec.source.postgres.caSecretRef.name"),
    "a client certificate in clear": Wrong(postgres(clientCertificateSecretRef=REFERENCE), _CERTIFICATE),
    "a client certificate without name": Wrong(postgres(sslMode="Require", clientCertificateSecretRef={}), f"{_CERTIFICATE}.name"),
    "a key of the client certificate": Wrong(
        postgres(sslMode="Require", clientCertificateSecretRef={"name": "a", "key": "b"}), f"{_CERTIFICATE}.key"
    ),
    "proofs younger than the period": Wrong({"consistency": {"periodSeconds": 400}}, "consistency.maxStalenessSeconds"),
    "proofs as old as the period": Wrong({"consistency": {"periodSeconds": 300}}, "consistency.maxStalenessSeconds"),
    "no duty": Wrong({"consistency": {"maxSourceDutyPercent": 0}}, "spec.consistency.maxSourceDutyPercent"),
    "more than all duty": Wrong({"consistency": {"maxSourceDutyPercent": 101}}, "spec.consistency.maxSourceDutyPercent"),
    "unknown healing": Wrong({"healing": {"mode": "Always"}}, "spec.healing.mode"),
    "more change than all": Wrong({"healing": {"maxChangePercent": 101}}, "spec.healing.maxChangePercent"),
    "negative change": Wrong({"healing": {"maxChangePercent": -1}}, "spec.healing.maxChangePercent"),
    "a cooldown of days": Wrong({"healing": {"cooldownSeconds": 86401}}, "spec.healing.cooldownSeconds"),
    "no rebuild at a time": Wrong({"healing": {"concurrentRebuilds": 0}}, "spec.healing.concurrentRebuilds"),
    "too many rebuilds at a time": Wrong({"healing": {"concurrentRebuilds": 21}}, "spec.healing.concurrentRebuilds"),
    "half a rebuild": Wrong({"healing": {"concurrentRebuilds": 0.5}}, "spec.healing.concurrentRebuilds"),
    "no replica": Wrong({"replicas": 0}, "spec.replicas"),
    "too many replicas": Wrong({"replicas": 21}, "spec.replicas"),
    "a size in words": Wrong({"storage": {"size": "plenty"}}, "spec.storage.size", operators_own=True),
    "no such range": Wrong(
        {"network": {"source": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}}, "spec.network.source[0].ipBlock.cidr", operators_own=True
    ),
    "an empty peer": Wrong({"network": {"clients": [{}]}}, "spec.network.clients[0]", operators_own=True),
    "addresses and pods in one peer": Wrong(
        {"network": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}}, "spec.network.clients[0]", operators_own=True
    ),
    "a size of more digits than are kept": own({"storage": {"size": "9999999Ti"}}, "spec.storage.size"),
    "a class that no class can be called": own({"storage": {"size": "1Gi", "storageClassName": "a..b"}}, "spec.storage.storageClassName"),
    "a Secret that no Secret can be called": Wrong(
        postgres(credentialsSecretRef={"name": "a.-b"}), "spec.source.postgres.credentialsSecretRef"
    ),
    "an exception outside": own(clients({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}), f"{_PEER}.ipBlock.except"),
    "an exception of the whole": own(clients({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}), f"{_PEER}.ipBlock.except"),
    "an exception that is no range": own(clients({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["ten"]}}), f"{_PEER}.ipBlock.except"),
    "a label that is none": own(clients({"podSelector": {"matchLabels": {"a b": "c"}}}), f"{_PEER}.podSelector.matchLabels"),
    "a value that no label has": own(clients({"podSelector": {"matchLabels": {"a": "b c"}}}), f"{_PEER}.podSelector.matchLabels"),
    "no values to be in": own(
        clients({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
        f"{_PEER}.namespaceSelector.matchExpressions[0].values",
    ),
    "values of what only exists": own(
        clients({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}),
        f"{_PEER}.podSelector.matchExpressions[0].values",
    ),
    "a node without such a label": own({"pod": {"nodeSelector": {"a/b/c": "d"}}}, "spec.pod.nodeSelector"),
    "a toleration of nothing": own(toleration(effect="NoSchedule"), "spec.pod.tolerations[0].key"),
    "a toleration of a value that need only exist": own(toleration(operator="Exists", value="a"), "spec.pod.tolerations[0].value"),
    "an end to what never ends": own(
        toleration(key="a", effect="NoSchedule", tolerationSeconds=1), "spec.pod.tolerations[0].tolerationSeconds"
    ),
    "a part by no label": own(
        {"pod": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a b", "whenUnsatisfiable": "DoNotSchedule"}]}},
        "spec.pod.topologySpreadConstraints[0].topologyKey",
    ),
    "a negative request": own(resources(requests={"cpu": -1}), "spec.pod.resources.requests.cpu"),
    "a quantity in words": own(resources(limits={"memory": "much"}), "spec.pod.resources.limits.memory"),
    "a resource that no index uses": own(resources(limits={"example.com/gpu": 1}), "spec.pod.resources.limits.example.com/gpu"),
    "more CPU asked than allowed": own(resources(requests={"cpu": "1.5"}, limits={"cpu": 1}), "spec.pod.resources.requests.cpu"),
    "more memory asked than allowed": own(
        resources(requests={"memory": "1Gi"}, limits={"memory": "1G"}), "spec.pod.resources.requests.memory"
    ),
    "more of the disk asked than allowed": own(
        resources(requests={"ephemeral-storage": "1Mi"}, limits={"ephemeral-storage": 1}),
        "spec.pod.resources.requests.ephemeral-storage",
    ),
    "an unknown field": Wrong(source(where="1=1"), "spec.source.where"),
}
