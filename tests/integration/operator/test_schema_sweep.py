"""Specs made from the schema, on a real API server: each is refused with its field named, or the objects become what it says.

What the objects must be is worked out here from the stored spec, not by the code that builds them. In the end only the last spec counts.
"""

import copy
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from tests.support.api_client import ApiClient
from tests.support.cluster import RunningCluster
from tests.support.generated_specs import SAMPLES, SpecMaker, read_spec_schema, samples_of
from tests.support.operator_process import IMAGE

pytestmark = pytest.mark.usefixtures("operator")

Json = dict[str, Any]
CHILD_KINDS = ("StatefulSet", "PodDisruptionBudget", "NetworkPolicy", "Service", "ConfigMap")
SCHEMA = read_spec_schema()
NAMES = ("a{}", "docs-{}", "x" * 43 + "{:03}", "a-b-c-{}z")
DEFAULT_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}}


@dataclass(frozen=True)
class Sweep:
    """How many specs, and what they are drawn from."""

    seed: int
    broken: int  # one thing is wrong, so refused
    wild: int  # each field fits by itself, so either
    valid: int  # so taken
    chains: int  # of three specs for one index


@dataclass
class Tally:
    """What came of them."""

    refused: int = 0
    converged: int = 0
    chains: int = 0


SHORT = pytest.param(Sweep(seed=1, broken=20, wild=16, valid=15, chains=3), id="sample")
LONG = pytest.param(Sweep(seed=2, broken=150, wild=80, valid=120, chains=30), id="all", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def api(cluster: RunningCluster) -> Iterator[ApiClient]:
    with ApiClient(cluster.kubeconfig) as client:
        for name in SAMPLES["object"][0]:  # else no pod with such a class could be made
            client.create({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name}, "value": 1})
        yield client


@pytest.mark.parametrize("sweep", [SHORT, LONG])
def test_each_spec_is_refused_with_its_field_named_or_becomes_what_it_says(
    api: ApiClient, cluster: RunningCluster, namespace: str, sweep: Sweep
) -> None:
    maker, tally = SpecMaker(sweep.seed), Tally()
    for _ in range(sweep.broken):
        assert_refused_by_name(api, namespace, maker, tally)
    specs = [(maker.make_wild(), False) for _ in range(sweep.wild)] + [(maker.make_valid(), True) for _ in range(sweep.valid)]
    for start in range(0, len(specs), 20):
        converge(api, namespace, specs[start : start + 20], tally)
    other = api.make_namespace(f"{namespace}-fresh")
    for number in range(sweep.chains):
        follow_chain(api, (namespace, other), maker, random.Random(f"{sweep.seed}/{number}"), tally)
    cluster.kubectl("delete", "namespace", other, "--wait=false")
    sys.stdout.write(f"\n{sweep}: {tally}\n")  # figures that people ask for: pytest -s


def manifest_of(name: str, namespace: str, spec: Json) -> Json:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "vectorindex.dev/v1alpha1", "kind": "VectorIndex", "metadata": meta, "spec": spec}


# --- refused ---


def assert_refused_by_name(api: ApiClient, namespace: str, maker: SpecMaker, tally: Tally) -> None:
    wrong = maker.make_broken()
    made, said = api.create(manifest_of("broken", namespace, wrong.spec), dry_run=True)
    assert made is None, f"{wrong.what}: taken"
    assert wrong.field in said, f"{wrong.what}: {said}"
    tally.refused += 1


def assert_names_a_field(said: str, spec: Json) -> None:
    """Assert that the message holds the path of something that is in the spec, or that is missing from a part that is."""
    paths = [path.split(".") for path in re.findall(r"\bspec\.([-A-Za-z0-9_.\[\]]+?)(?=[\s:\"]|$)", said)]
    assert any(is_known(SCHEMA, [re.sub(r"\[\d+\]", "", step) for step in path]) for path in paths), f"{said}\n{json.dumps(spec)}"


def is_known(schema: Json, path: list[str]) -> bool:
    if not path:
        return True
    part = schema.get("properties", {}).get(path[0])
    return part is not None and is_known(part.get("items", part), path[1:])


def test_every_pattern_of_the_schema_has_samples() -> None:
    patterns = set(find_patterns(SCHEMA))
    assert len(patterns) > 8
    for pattern in patterns:
        good, bad = samples_of(pattern)
        assert [text for text in good if not re.search(pattern.replace("$", r"\Z"), text)] == []
        assert [text for text in bad if len(text) < 64 and re.search(pattern.replace("$", r"\Z"), text)] in ([], [""])


def find_patterns(schema: Json) -> Iterator[str]:
    if "pattern" in schema:
        yield schema["pattern"]
    for part in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(part, dict):
            yield from find_patterns(part)


# --- converged ---


def converge(api: ApiClient, namespace: str, specs: list[tuple[Json, bool]], tally: Tally) -> None:
    """Create indexes with these specs; those that are taken must become what they say."""
    expected: dict[str, Json] = {}
    for number, (spec, is_valid) in enumerate(specs):
        name = NAMES[number % len(NAMES)].format(number)
        made, said = api.create(manifest_of(name, namespace, spec))
        if made is None:
            assert not is_valid, f"{said}\n{json.dumps(spec)}"
            assert_names_a_field(said, spec)
            tally.refused += 1
        else:
            expected[name] = made
            tally.converged += 1
    wait_without_failure(lambda: check_all(api, namespace, expected), 60)
    api.delete_all("VectorIndex", namespace)
    wait_without_failure(lambda: check_gone(api, namespace), 60)


def wait_without_failure(check: Callable[[], None], seconds: float) -> None:
    """Check again until nothing is wrong; fail with what was wrong last."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            check()
        except (AssertionError, KeyError):  # something is not so yet, or not there
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def read_children(api: ApiClient, namespace: str) -> dict[str, dict[tuple[str, str], Json]]:
    """Return the objects of each index, by kind and name."""
    found: dict[str, dict[tuple[str, str], Json]] = {}
    for kind in CHILD_KINDS:
        for item in api.read_all(kind, namespace):
            owner = item["metadata"].get("labels", {}).get("vectorindex.dev/index")
            if owner:
                found.setdefault(owner, {})[kind, item["metadata"]["name"]] = item
    return found


def check_gone(api: ApiClient, namespace: str) -> None:
    assert read_children(api, namespace) == {}


def check_all(api: ApiClient, namespace: str, expected: dict[str, Json]) -> None:
    stored = {item["metadata"]["name"]: item for item in api.read_all("VectorIndex", namespace)}
    children = read_children(api, namespace)
    for name, made in expected.items():
        assert stored[name]["spec"] == made["spec"]
        check_status(stored[name])
        check_objects(stored[name], children.get(name, {}))


def check_status(index: Json) -> None:
    status, generation = index["status"], index["metadata"]["generation"]
    assert status["observedGeneration"] == generation
    conditions = {each["type"]: each for each in status["conditions"]}
    assert conditions.keys() >= {"Ready", "Consistent", "SourceAvailable"}
    assert "Stalled" not in conditions, conditions["Stalled"]["message"]
    assert {each["observedGeneration"] for each in conditions.values()} == {generation}
    source = index["spec"]["source"]
    postgres, table = source["postgres"], source["table"]
    place = f"{postgres['host']}:{postgres['port']}/{postgres['database']} {table['schema']}.{table['name']}"
    assert status["source"] == place


def check_objects(index: Json, children: dict[tuple[str, str], Json]) -> None:
    """Compare each object with what the stored spec asks for."""
    name, spec = f"{index['metadata']['name']}-index", index["spec"]
    identity = check_stateful_set(name, index["metadata"]["name"], spec, children["StatefulSet", name])
    wanted = {("StatefulSet", name), ("Service", name), ("Service", f"{name}-members"), ("NetworkPolicy", name), ("ConfigMap", name)}
    wanted |= {("ConfigMap", identity)} | ({("PodDisruptionBudget", name)} if spec["replicas"] > 1 else set())
    assert set(children) == wanted
    for child in children.values():
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (index["metadata"]["uid"], True)
    check_identity(index, json.loads(children["ConfigMap", identity]["data"]["vectorindex.yaml"]))
    live = json.loads(children["ConfigMap", name]["data"]["live.json"])
    assert {key: live[key] for key in ("suspend", "consistency", "healing")} == {
        key: spec[key] for key in ("suspend", "consistency", "healing")
    }
    check_network(spec, children["NetworkPolicy", name]["spec"])
    if spec["replicas"] > 1:
        assert children["PodDisruptionBudget", name]["spec"]["maxUnavailable"] == 1


def check_stateful_set(name: str, index: str, spec: Json, live: Json) -> str:
    """Compare the StatefulSet with the spec, and return the name of the identity file in it."""
    body, pod = live["spec"], live["spec"]["template"]["spec"]
    placement, postgres = spec.get("pod", {}), spec["source"]["postgres"]
    own = {"matchLabels": {"vectorindex.dev/index": index, "app.kubernetes.io/component": "indexer"}}
    assert body["replicas"] == spec["replicas"]
    assert body["selector"] == own
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert amounts(container["resources"]) == amounts(placement.get("resources") or DEFAULT_RESOURCES)
    assert pod.get("nodeSelector", {}) == placement.get("nodeSelector", {})
    assert without_empty(pod.get("tolerations", [])) == without_empty(placement.get("tolerations", []))
    spread = [{key: item for key, item in each.items() if key != "labelSelector"} for each in pod.get("topologySpreadConstraints", [])]
    assert spread == placement.get("topologySpreadConstraints", [])
    assert all(each["labelSelector"] == own for each in pod.get("topologySpreadConstraints", []))
    assert pod.get("priorityClassName") == placement.get("priorityClassName")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["credentials"]["secret"]["secretName"] == postgres["credentialsSecretRef"]["name"]
    assert [item["key"] for item in volumes["credentials"]["secret"]["items"]] == ["username", "password"]
    assert find_files(volumes["tls"]) == expected_files(postgres)
    claims = [claim["spec"] for claim in body.get("volumeClaimTemplates", [])]
    storage = spec.get("storage")
    assert ("data" in volumes) == (storage is None)
    assert [amount(claim["resources"]["requests"]["storage"]) for claim in claims] == ([amount(storage["size"])] if storage else [])
    assert [claim.get("storageClassName") for claim in claims] == ([storage.get("storageClassName")] if storage else [])
    identity: str = volumes["identity"]["configMap"]["name"]
    assert volumes["live"]["configMap"]["name"] == name
    return identity


def find_files(volume: Json) -> dict[str, tuple[str, str, str]]:
    """Return by file name the kind, name and key that it comes from."""
    sources = volume.get("projected", {}).get("sources") or ([{"configMap": volume["configMap"]}] if "configMap" in volume else [])
    parts = [(kind, part) for source in sources for kind, part in source.items()]
    return {item["path"]: (kind, part["name"], item["key"]) for kind, part in parts for item in part["items"]}


def expected_files(postgres: Json) -> dict[str, tuple[str, str, str]]:
    files: dict[str, tuple[str, str, str]] = {}
    for field, kind in (("caConfigMapRef", "configMap"), ("caSecretRef", "secret")):
        if field in postgres:
            files["ca.crt"] = (kind, postgres[field]["name"], postgres[field]["key"])
    if "clientCertificateSecretRef" in postgres:
        certificate = postgres["clientCertificateSecretRef"]["name"]
        files |= {file: ("secret", certificate, file) for file in ("tls.crt", "tls.key")}
    return files


def check_identity(index: Json, identity: Json) -> None:
    meta = index["metadata"]
    assert identity["metadata"] == {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
    expected = {"source": copy.deepcopy(index["spec"]["source"]), "index": copy.deepcopy(index["spec"]["index"])}
    for part, schema in SCHEMA["properties"]["index"]["properties"].items():
        if schema["type"] == "object" and expected["index"].get(part) == with_defaults({}, schema):
            del expected["index"][part]  # nothing but defaults says nothing
    assert {name: with_defaults(part, SCHEMA["properties"][name]) for name, part in identity["spec"].items()} == expected


def with_defaults(value: Any, schema: Json) -> Any:
    if not isinstance(value, dict):
        return value
    filled = {name: part["default"] for name, part in schema["properties"].items() if "default" in part}
    return filled | {name: with_defaults(item, schema["properties"][name]) for name, item in value.items()}


def check_network(spec: Json, policy: Json) -> None:
    network = spec.get("network", {})
    search, ops = policy["ingress"]
    assert without_empty(search["from"]) == without_empty(network.get("clients") or [{"podSelector": {}}])
    assert (search["ports"][0]["port"], ops["ports"][0]["port"]) == (8080, 9090)
    dns, source = policy["egress"]
    assert [port["port"] for port in dns["ports"]] == [53, 53]
    ports = {spec["source"]["postgres"]["port"]} | ({network["sourcePort"]} if "network" in spec else set())
    assert {port["port"] for port in source["ports"]} == ports
    if network.get("source"):
        assert without_empty(source["to"]) == without_empty(network["source"])
    else:
        assert [peer["ipBlock"]["except"] for peer in source["to"]] == [["169.254.0.0/16"], ["fe80::/10"]]


def without_empty(value: Any) -> Any:
    """Return lists and objects without what says nothing: empty texts, and empty lists and objects but whole selectors."""
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    if not isinstance(value, dict):
        return value
    selectors = ("podSelector", "namespaceSelector")
    kept = {key: without_empty(item) if key != "matchLabels" else item for key, item in value.items()}
    return {key: item for key, item in kept.items() if key in selectors or item not in ("", [], {})}


def amounts(resources: Json) -> dict[str, dict[str, Decimal]]:
    parts = {kind: {name: amount(value) for name, value in part.items()} for kind, part in resources.items()}
    return {kind: part for kind, part in parts.items() if part}


def amount(text: str | int) -> Decimal:
    match = re.fullmatch(r"([0-9.]+)(m|[kMGTPE]?)(i?)", str(text))
    assert match is not None, text
    number, unit, binary = match.groups()
    power = "kMGTPE".find(unit) + 1 if unit and unit != "m" else 0
    return Decimal(number) * (Decimal("0.001") if unit == "m" else Decimal(1024 if binary or unit == "K" else 1000) ** power)


# --- only the last spec counts ---


def follow_chain(api: ApiClient, places: tuple[str, str], maker: SpecMaker, chance: random.Random, tally: Tally) -> None:
    """Apply three specs to one index and the last of them to a fresh one: their objects must be the same."""
    first = maker.make_valid()
    specs = [leave_out_empty(spec) for spec in (first, maker.make_valid(first), maker.make_valid(first))]
    changed, fresh = places
    for spec in specs:
        latest = api.apply(manifest_of("docs", changed, spec))
        if chance.random() < 0.5:  # else the operator may see two changes as one
            wait_without_failure(lambda body=latest: check_seen(api, changed, body["metadata"]["generation"]), 30)  # type: ignore[misc]
    api.apply(manifest_of("docs", fresh, specs[-1]))
    wait_without_failure(lambda: check_alike(api, places), 60)
    for namespace in places:
        api.delete_all("VectorIndex", namespace)
        wait_without_failure(lambda where=namespace: check_gone(api, where), 60)  # type: ignore[misc]
    tally.chains += 1


def leave_out_empty(spec: Json) -> Json:
    """Return the spec without `pod: {}` and the like: where fields were before, an API server makes null of it and refuses it."""
    parts = {name: leave_out_empty(part) if isinstance(part, dict) else part for name, part in spec.items()}
    return {name: part for name, part in parts.items() if part != {}}


def check_seen(api: ApiClient, namespace: str, generation: int) -> None:
    (index,) = api.read_all("VectorIndex", namespace)
    assert index["status"]["observedGeneration"] >= generation


def check_alike(api: ApiClient, places: tuple[str, str]) -> None:
    """Compare both, once all their pods are of the newest template and ready: till then, files of older ones may be in use."""
    for namespace in places:
        for pod in api.read_all("Pod", namespace):
            if not any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", [])):
                api.set_ready(pod)
    one, other = (read_end_state(api, namespace) for namespace in places)
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value == other[key], key


def read_end_state(api: ApiClient, namespace: str) -> Json:
    """Return the objects and what the status says of them, without what no two lives of a name share."""
    (index,) = api.read_all("VectorIndex", namespace)
    children = read_children(api, namespace)["docs"]
    check_status(index)
    check_objects(index, children)
    pod = children["StatefulSet", "docs-index"]["spec"]["template"]["spec"]
    identity = next(volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "identity")
    own = {index["metadata"]["uid"]: "<uid>", namespace: "<namespace>", identity: "<identity>"}
    states: Json = {" ".join(key): strip(child) for key, child in children.items()}
    states["conditions"] = [[each["type"], each["status"], each["reason"]] for each in index["status"]["conditions"]]
    text = json.dumps(states, sort_keys=True)
    for word, sign in own.items():
        text = re.sub(rf"(?<![-a-z0-9]){re.escape(word)}(?![-a-z0-9])", sign, text)
    end: Json = json.loads(text)
    return end


def strip(child: Json) -> Json:
    """Return an object without what the API server alone decides."""
    meta = child["metadata"]
    annotations = {key: value for key, value in meta.get("annotations", {}).items() if not key.endswith("/manifest-hash")}
    kept = {"labels": meta["labels"], "annotations": annotations, "owners": meta["ownerReferences"]}
    content = {key: value for key, value in child.items() if key not in ("metadata", "status")}
    if child["kind"] == "Service":
        content["spec"] = {key: value for key, value in content["spec"].items() if not key.startswith("clusterIP")}
    return {**content, "metadata": kept}
