"""What Chart.yaml tells Artifact Hub is true: examples, images, definition, changes."""

import base64
from typing import Any
from xml.etree import ElementTree

import yaml

from scripts.chart_examples import CHART, EXAMPLES, render_chart_file
from tests.support.helm import ROOT, by_kind, helm, render_chart

CAPABILITIES = ["Basic Install", "Seamless Upgrades", "Full Lifecycle", "Deep Insights", "Auto Pilot"]  # Artifact Hub's own words
KINDS_OF_CHANGE = {"added", "changed", "deprecated", "removed", "fixed", "security"}
FILE = yaml.safe_load(CHART.read_text(encoding="utf-8"))


def annotation(name: str) -> Any:
    return yaml.safe_load(FILE["annotations"][f"artifacthub.io/{name}"])


def test_examples_are_those_of_the_repository() -> None:
    assert CHART.read_text(encoding="utf-8") == render_chart_file(), "run: make manifests"
    files = [yaml.safe_load(path.read_text()) for path in sorted(EXAMPLES.glob("*.yaml"))]
    assert len(files) >= 5
    assert annotation("crdsExamples") == files


def test_the_definition_is_the_one_that_is_installed() -> None:
    definition = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())
    (told,) = annotation("crds")
    assert told["name"] == definition["metadata"]["name"]
    assert told["kind"] == definition["spec"]["names"]["kind"]
    assert [told["version"]] == [version["name"] for version in definition["spec"]["versions"]]
    assert {example["apiVersion"] for example in annotation("crdsExamples")} == {f"{definition['spec']['group']}/{told['version']}"}


def test_images_are_those_that_run_without_any_value() -> None:
    (deployment,) = by_kind(render_chart(), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (indexer,) = [entry["value"] for entry in container["env"] if entry["name"] == "VECTORINDEX_INDEXER_IMAGE"]
    assert {image["name"]: image["image"] for image in annotation("images")} == {"operator": container["image"], "indexer": indexer}


def test_words_are_those_that_artifact_hub_knows() -> None:
    annotations = FILE["annotations"]
    assert annotations["artifacthub.io/license"] == "Apache-2.0"
    assert annotations["artifacthub.io/operatorCapabilities"] in CAPABILITIES
    assert annotations["artifacthub.io/operator"] == annotations["artifacthub.io/prerelease"] == "true"
    assert all(set(change) == {"kind", "description"} and change["kind"] in KINDS_OF_CHANGE for change in annotation("changes"))


def test_icon_is_a_picture() -> None:
    kind, _, data = FILE["icon"].partition(";base64,")
    assert kind == "data:image/svg+xml"
    assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")  # noqa: S314 - our own file


def test_older_clusters_are_refused_with_the_version_that_is_needed() -> None:
    refused = helm("template", "vectorindex", str(CHART.parent), "--kube-version=1.34.2")
    assert "chart requires kubeVersion: >=1.35.0-0" in refused.stderr
    assert helm("template", "vectorindex", str(CHART.parent), "--kube-version=1.35.0").returncode == 0
