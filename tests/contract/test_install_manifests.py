"""deploy/ is the chart as plain manifests, and a base from which kustomize makes what an overlay asks for."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from cluster.tools import fetch_tools
from scripts.install_manifests import MANIFESTS, NAMESPACE, OF_HELM, render_manifests
from tests.support.helm import Manifest, by_kind, render_chart

DEPLOY = MANIFESTS.parent


def kustomize(folder: Path) -> list[Manifest]:
    command = [str(fetch_tools() / "kubectl"), "kustomize", str(folder)]
    result = subprocess.run(command, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def overlay(tmp_path: Path, **fields: Any) -> list[Manifest]:
    """Return what an overlay of the base makes; the base is copied beside it, as kustomize refuses absolute paths."""
    base, own = tmp_path / "base", tmp_path / "own"
    base.mkdir()
    own.mkdir()
    for file in DEPLOY.glob("*.yaml"):
        (base / file.name).write_text(file.read_text())
    (own / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["../base"], **fields}))
    return kustomize(own)


def key(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def test_the_manifests_are_those_of_the_chart() -> None:
    assert MANIFESTS.read_text(encoding="utf-8") == render_manifests(), "run: make manifests"
    plain = {key(one): one for one in yaml.safe_load_all(MANIFESTS.read_text())}
    rendered = {key(one): one for one in render_chart("clusterWide=true", namespace=NAMESPACE)}
    assert plain.keys() - rendered.keys() == {("Namespace", NAMESPACE)}
    assert rendered.keys() <= plain.keys()
    for name, one in rendered.items():
        assert plain[name].get("spec", {}).get("selector") == one.get("spec", {}).get("selector")
        assert plain[name].get("rules") == one.get("rules")


def test_nothing_says_that_helm_owns_it() -> None:
    for one in yaml.safe_load_all(MANIFESTS.read_text()):
        assert not set(OF_HELM) & one["metadata"].get("labels", {}).keys()


def test_the_base_is_the_same_objects() -> None:
    assert {key(one) for one in kustomize(DEPLOY)} == {key(one) for one in yaml.safe_load_all(MANIFESTS.read_text())}


def test_an_overlay_moves_all_of_it_into_another_namespace(tmp_path: Path) -> None:
    found = overlay(tmp_path, namespace="search-system")
    assert {one["metadata"]["namespace"] for one in found if "namespace" in one["metadata"]} == {"search-system"}
    assert [one["metadata"]["name"] for one in by_kind(found, "Namespace")] == ["search-system"]
    bindings = [*by_kind(found, "ClusterRoleBinding"), *by_kind(found, "RoleBinding")]
    assert {subject["namespace"] for one in bindings for subject in one["subjects"]} == {"search-system"}
