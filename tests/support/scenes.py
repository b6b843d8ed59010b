"""What scenes on a real node have in common: small indexes on tables of their own, evictions, and an operator that is away."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from examples.wordnet.load import DIMENSION, MODEL, READER
from examples.wordnet.steps import story, world
from examples.wordnet.steps.kubernetes import Manifest
from examples.wordnet.steps.report import StepError, wait_until
from examples.wordnet.steps.world import INDEX, RELEASE, SEARCH, SYSTEM, World

ROWS: Final = 500
PERIOD_SECONDS: Final = 2
LEAVING: Final = "leaving"
"""A second namespace that the operator watches; a test deletes it."""
SMALL: Final = {"resources": {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}}


def make_table(scene: World, name: str) -> None:
    """Make a table of 500 rows that only the caller changes."""
    scene.upstream.execute(f"DROP TABLE IF EXISTS {name}")
    rows = "SELECT entity_id, vector FROM embeddings WHERE model_name = %s ORDER BY entity_id LIMIT %s"
    scene.upstream.execute(f"CREATE TABLE {name} (entity_id bigint PRIMARY KEY, vector bytea)")
    scene.upstream.execute(f"INSERT INTO {name} {rows}", MODEL, ROWS)
    scene.upstream.execute(f"GRANT SELECT ON {name} TO {READER}")


def small_index(name: str, *, replicas: int = 2, **spec: Any) -> Manifest:
    """Return an index on the table of its own name, searched exactly. `spec` replaces whole fields."""
    manifest = copy.deepcopy(world.index_manifest())
    manifest["metadata"]["name"] = name
    source = manifest["spec"]["source"]
    source["table"]["name"] = name
    source["columns"] = {"id": "entity_id", "vector": "vector"}
    del source["model"], source["tombstone"]
    manifest["spec"] |= {
        "replicas": replicas,
        "index": {"dimension": DIMENSION, "metric": "Cosine", "type": "Flat"},
        "consistency": {"periodSeconds": PERIOD_SECONDS, "maxSourceDutyPercent": 50},
        "pod": SMALL,
        **spec,
    }
    return manifest


def operator_values(scene: World) -> list[str]:
    """Return the chart's values under which the operator runs: two namespaces, and no way out but to the API server and its members."""
    return [f"watchNamespaces={{{SEARCH},{LEAVING}}}", f"networkPolicy.apiServerCIDRs={{{','.join(api_server_ranges(scene))}}}"]


def api_server_ranges(scene: World) -> list[str]:
    """Return where the API server is: its Service and the endpoints behind it, as whoever installs the chart would look it up."""
    ask = scene.kubernetes.get
    slices = scene.kubernetes.items("endpointslices", "--namespace=default", "--selector=kubernetes.io/service-name=kubernetes")
    endpoints = [address for part in slices for endpoint in part["endpoints"] for address in endpoint["addresses"]]
    addresses = [*ask("service", "kubernetes", "--namespace=default")["spec"]["clusterIPs"], *endpoints]
    return [f"{address}/{128 if ':' in address else 32}" for address in addresses]


def make_leaving_namespace(scene: World) -> None:
    """Make the second namespace."""
    scene.kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LEAVING}})


def copy_credentials(scene: World, namespace: str) -> None:
    """Put the reader's password into another namespace, too."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "docs-reader"}}
    scene.kubernetes.apply({**secret, "stringData": {"username": READER, "password": scene.reader_password}}, namespace=namespace)


def serve(scene: World, manifest: Manifest) -> None:
    """Apply an index and wait until all its replicas serve."""
    name = manifest["metadata"]["name"]
    scene.kubernetes.apply(manifest, namespace=SEARCH)
    world.wait_for_condition(scene, name, "Consistent", 90)
    story.wait_for_all(scene, name, replicas=manifest["spec"]["replicas"])


def status_of(scene: World, index: str) -> Manifest:
    """Return the status of an index."""
    found: Manifest = scene.kubernetes.get("vidx", index, f"--namespace={SEARCH}").get("status", {})
    return found


def events_of(scene: World, uid: str) -> list[Manifest]:
    """Return the events about an index, which its UID names: another life of the same name has others."""
    return scene.kubernetes.items("events", f"--namespace={SEARCH}", f"--field-selector=involvedObject.uid={uid}")


def patch(scene: World, index: str, spec: Manifest) -> None:
    """Change fields of a spec."""
    body = json.dumps({"spec": spec})
    scene.kubernetes.kubectl("patch", "vidx", index, f"--namespace={SEARCH}", "--type=merge", f"--patch={body}")


def see_a_look(scene: World) -> None:
    """Wait until the operator has taken note of something that happens now to the index of the example."""
    wish = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    annotation = f"vectorindex.dev/validate-requested-at={wish}"
    scene.kubernetes.kubectl("annotate", "vidx", INDEX, f"--namespace={SEARCH}", "--overwrite", annotation)
    wait_until("the operator to echo a wish", lambda: status_of(scene, INDEX).get("validateRequestedAt") == wish, 60)


def uid_of(scene: World, reference: str, namespace: str = SEARCH) -> str:
    """Return the UID of an object such as `pod/docs-index-0`, or nothing when there is none."""
    return scene.kubernetes.kubectl("get", reference, f"--namespace={namespace}", "--ignore-not-found", "--output=jsonpath={.metadata.uid}")


def is_ready(scene: World, pod: str) -> bool:
    """Tell whether a pod is there and takes requests."""
    form = '--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}{.metadata.deletionTimestamp}'
    return scene.kubernetes.kubectl("get", "pod", pod, f"--namespace={SEARCH}", "--ignore-not-found", form) == "True"


def evict(scene: World, pod: str) -> bool:
    """Ask for an eviction as `kubectl drain` does; tell whether it was granted, or refused for the disruption budget's sake."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": SEARCH}}
    path = f"/api/v1/namespaces/{SEARCH}/pods/{pod}/eviction"
    try:
        scene.kubernetes.kubectl("create", "--raw", path, "--filename=-", text=json.dumps(body))
    except StepError as error:
        if "disruption budget" in str(error):
            return False
        raise
    return True


@contextmanager
def without_operator(scene: World) -> Iterator[None]:
    """Scale the operator to nothing while the block runs, and back to its former number."""
    deployment = ("deployment", RELEASE, f"--namespace={SYSTEM}")
    replicas = scene.kubernetes.get(*deployment)["spec"]["replicas"]
    scene.kubernetes.kubectl("scale", *deployment, "--replicas=0")
    wait_until("the operator to be gone", lambda: not operator_pods(scene), 60)
    try:
        yield
    finally:
        scene.kubernetes.kubectl("scale", *deployment, f"--replicas={replicas}")
        scene.kubernetes.kubectl("rollout", "status", *deployment, "--timeout=90s", timeout_seconds=100)


def operator_pods(scene: World) -> list[str]:
    """Return the names of the operator's pods."""
    deployment = scene.kubernetes.get("deployment", RELEASE, f"--namespace={SYSTEM}")
    selector = ",".join(f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items())
    return [pod["metadata"]["name"] for pod in scene.kubernetes.items("pods", f"--namespace={SYSTEM}", f"--selector={selector}")]
