"""What kubectl and GitOps tools do with a VectorIndex: apply again without a difference, wait, scale, explain, print."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.api_client import ApiClient
from tests.support.cluster import RunningCluster
from tests.support.operator_process import Fleet, wait_for
from tests.support.vector_index import make_manifest
from vectorindex_operator import names
from vectorindex_operator.api import Json

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "crds" / "examples").glob("*.yaml"))
Read = Callable[[], Json]


def find_version() -> Json:
    (version,) = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())["spec"]["versions"]
    return dict(version)


SCHEMA: Json = find_version()["schema"]["openAPIV3Schema"]


def spell_out(schema: Json, value: Any) -> Any:
    """Return the value with every default spelled out, as in a manifest that leaves nothing to chance."""
    if isinstance(value, list):
        return [spell_out(schema["items"], item) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    filled = {name: part["default"] for name, part in schema["properties"].items() if "default" in part}
    return {name: spell_out(schema["properties"][name], item) for name, item in (filled | value).items()}


def manifests() -> dict[str, Json]:
    given = {file.stem: yaml.safe_load(file.read_text()) for file in EXAMPLES}
    full = given["view-with-placement"]
    spelled = {**full, "spec": spell_out(SCHEMA["properties"]["spec"], full["spec"])}
    return {**given, "everything spelled out": spelled}


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("manifest", manifests().values(), ids=manifests().keys())
def test_what_is_applied_twice_shows_no_difference_and_changes_nothing(cluster: RunningCluster, namespace: str, manifest: Json) -> None:
    text, name = json.dumps(manifest), manifest["metadata"]["name"]
    apply = ("apply", "--server-side", "-n", namespace, "-f", "-")
    cluster.kubectl(*apply, text=text)
    wait_for("it was seen", lambda: observed_generation(cluster, namespace, name) == 1)
    before = wait_until_still(cluster, namespace, name)
    difference = cluster.try_kubectl("diff", "--server-side", "-n", namespace, "-f", "-", text=text)
    assert (difference.returncode, difference.stdout) == (0, "")
    cluster.kubectl(*apply, text=text)
    after = cluster.get("vidx", name, "-n", namespace)["metadata"]
    assert (after["generation"], after["resourceVersion"]) == (1, before)


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("way", [("--server-side",), ()], ids=["server-side", "client-side"])
def test_what_people_ask_for_survives_the_next_sync(cluster: RunningCluster, namespace: str, way: tuple[str, ...]) -> None:
    """Where the manifest says nothing of `suspend` and of wishes, a tool that applies it finds no difference and takes nothing back."""
    manifest = json.dumps(make_manifest("docs", namespace))
    cluster.kubectl("apply", *way, "-f", "-", text=manifest)
    cluster.kubectl("patch", "vidx", "docs", "-n", namespace, "--type=merge", "-p", '{"spec": {"suspend": true}}')
    cluster.kubectl("annotate", "vidx", "docs", "-n", namespace, f"{names.VALIDATE_REQUESTED_AT}=2026-11-25T09:00:00Z")
    wait_for("it was seen", lambda: observed_generation(cluster, namespace, "docs") == 2)
    difference = cluster.try_kubectl("diff", *way, "-f", "-", text=manifest)
    assert (difference.returncode, difference.stdout) == (0, "")
    cluster.kubectl("apply", *way, "-f", "-", text=manifest)
    after = cluster.get("vidx", "docs", "-n", namespace)
    assert after["spec"]["suspend"] is True
    assert after["metadata"]["annotations"][names.VALIDATE_REQUESTED_AT] == "2026-11-25T09:00:00Z"


def test_argo_cd_takes_the_scripts_beside_what_its_settings_hold(cluster: RunningCluster) -> None:
    """By the command of docs/gitops.md, word for word."""
    (command,) = re.findall(r"^kubectl (patch configmap argocd-cm .*)$", (ROOT / "docs" / "gitops.md").read_text(), re.MULTILINE)
    cluster.kubectl("create", "namespace", "argocd")
    cluster.kubectl("create", "configmap", "argocd-cm", "-n", "argocd", "--from-literal=url=https://argo.example")
    *options, file = command.split()
    cluster.kubectl(*options, ROOT / file)
    data = cluster.get("configmap", "argocd-cm", "-n", "argocd")["data"]
    assert data == yaml.safe_load((ROOT / file).read_text())["data"] | {"url": "https://argo.example"}


def observed_generation(cluster: RunningCluster, namespace: str, name: str) -> int:
    found: int = cluster.get("vidx", name, "-n", namespace)["status"]["observedGeneration"]
    return found


def wait_until_still(cluster: RunningCluster, namespace: str, name: str) -> str:
    """Return the version once the pods are told of and nobody writes any more."""
    versions: list[str] = []

    def is_still() -> bool:
        versions.append(cluster.get("vidx", name, "-n", namespace)["metadata"]["resourceVersion"])
        return len(versions) > 8 and len(set(versions[-8:])) == 1

    wait_for("its status rests", is_still)
    return versions[-1]


@pytest.mark.usefixtures("operator")
def test_it_can_be_waited_for_scaled_and_printed(cluster: RunningCluster, namespace: str, apply: Callable[..., None], pods: Fleet) -> None:
    apply()
    pods.serve(2)
    for kind in ("Ready", "Consistent", "SourceAvailable"):
        cluster.kubectl("wait", f"--for=condition={kind}", "vidx/docs", "-n", namespace, "--timeout=30s")
    cluster.kubectl("scale", "vidx", "docs", "-n", namespace, "--replicas=3")
    pods.serve(3)
    cluster.kubectl("wait", "--for=jsonpath={.status.readyReplicas}=3", "vidx/docs", "-n", namespace, "--timeout=30s")
    scale = json.loads(cluster.kubectl("get", "--raw", f"/apis/vectorindex.dev/v1alpha1/namespaces/{namespace}/vectorindexes/docs/scale"))
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (3, 3)
    selected = cluster.get("pods", "-n", namespace, "-l", scale["status"]["selector"])["items"]
    assert len(selected) == 3
    head, line = cluster.kubectl("get", "vidx", "docs", "-n", namespace, "-o", "wide").splitlines()
    assert head.split() == ["NAME", "READY", "CONSISTENT", "REPLICAS", "ROWS", "DRIFT", "AS-OF", "AGE", "MESSAGE", "DIGEST", "SOURCE"]
    assert line.split()[:6] == ["docs", "True", "True", "3", "9500", "0"]
    assert "9500:0123456789abcdef-fedcba9876543210" in line
    assert line.endswith("pg.search.svc:5432/app public.embeddings")
    assert "vectorindex" in cluster.kubectl("get", "vectorindex", "-n", namespace, "-o", "name")


@pytest.mark.usefixtures("operator")
def test_a_wait_does_not_pass_before_the_first_visit(cluster: RunningCluster, namespace: str) -> None:
    made = json.loads(cluster.kubectl("create", "-f", "-", "-o", "json", text=json.dumps(make_manifest("new", namespace))))
    assert made["status"] == {"observedGeneration": -1}
    waited = cluster.try_kubectl("wait", "--for=condition=Ready", "vidx/new", "-n", namespace, "--timeout=1s")
    assert waited.returncode != 0


CHART = """apiVersion: v2
name: app
version: 0.1.0
"""


@pytest.mark.usefixtures("operator")
def test_helm_waits_until_the_index_serves(cluster: RunningCluster, namespace: str, pods: Fleet, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text(CHART)
    (tmp_path / "templates" / "index.yaml").write_text(json.dumps(make_manifest("docs", namespace)))
    command = [str(cluster.program("helm")), "install", "app", str(tmp_path), "-n", namespace, "--wait", "--timeout=60s"]
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as helm:
        wait_for("the index is there", lambda: cluster.try_kubectl("get", "vidx", "docs", "-n", namespace).returncode == 0)
        wait_for("it was seen", lambda: observed_generation(cluster, namespace, "docs") == 1)
        with pytest.raises(subprocess.TimeoutExpired):
            helm.wait(3)  # it would be through by then, if it did not wait
        pods.serve(2)
        said, _ = helm.communicate(timeout=60)
    assert helm.returncode == 0, said
    assert "STATUS: deployed" in said


def walk(schema: Json, path: str) -> Iterator[tuple[str, str]]:
    """Return the path of each field with its description."""
    for name, part in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, part.get("description", "")
        yield from walk(part.get("items", part), here)


FIELDS = dict(walk({"properties": {name: SCHEMA["properties"][name] for name in ("spec", "status")}}, "vidx"))


def test_every_field_is_explained(cluster: RunningCluster) -> None:
    """By the document that `kubectl explain` prints from, whole, and by kubectl itself in one call over all and one for each depth."""
    with ApiClient(cluster.kubeconfig) as api:
        document = api.get("/openapi/v3/apis/vectorindex.dev/v1alpha1")
    served = document["components"]["schemas"]["dev.vectorindex.v1alpha1.VectorIndex"]
    assert dict(walk({"properties": {name: served["properties"][name] for name in ("spec", "status")}}, "vidx")) == FIELDS
    assert len(FIELDS) > 150
    listed = [line.split("\t")[0].strip() for line in cluster.kubectl("explain", "vidx", "--recursive").splitlines() if "\t" in line]
    assert {path.rpartition(".")[2] for path in FIELDS} <= set(listed)


DEEPEST = ["vidx.spec.network.clients.podSelector.matchExpressions.operator", "vidx.spec.pod.resources.limits.ephemeral-storage"]


@pytest.mark.parametrize("path", ["vidx.spec", "vidx.spec.source.postgres.host", "vidx.status.members.heldPlan.removes", *DEEPEST])
def test_kubectl_explains_a_field_in_our_words(cluster: RunningCluster, path: str) -> None:
    said = " ".join(cluster.kubectl("explain", path).split())
    assert " ".join(FIELDS[path].split()) in said


@pytest.mark.slow
@pytest.mark.parametrize("path", FIELDS)
def test_kubectl_explains_every_field_in_our_words(cluster: RunningCluster, path: str) -> None:
    test_kubectl_explains_a_field_in_our_words(cluster, path)
