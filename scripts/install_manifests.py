"""Write deploy/install.yaml, the chart as plain manifests, for those who install without Helm; a test renders it again and compares."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from cluster.tools import fetch_tools

ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "charts" / "vectorindex"
MANIFESTS: Final = ROOT / "deploy" / "install.yaml"
NAMESPACE: Final = "vectorindex-system"
SETTINGS: Final = ("clusterWide=true",)
OF_HELM: Final = ("helm.sh/chart", "app.kubernetes.io/managed-by")
"""Labels that would say that a release of Helm owns the objects."""

HEADER: Final = """# The operator for the whole cluster, in the namespace vectorindex-system. `make manifests` makes it from the chart.
# Its images are named as builds on one's own machine are; docs/install.md tells how to name yours.
"""

Manifest = dict[str, Any]


def render_manifests() -> str:
    """Return the text of the file."""
    command = [str(fetch_tools() / "helm"), "template", "vectorindex", str(CHART), f"--namespace={NAMESPACE}", "--skip-tests"]
    command += [f"--set={setting}" for setting in SETTINGS]
    output = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True).stdout
    found = [remove_labels(manifest) for manifest in yaml.safe_load_all(output) if manifest]
    # The definition before what needs it, and the namespace before all.
    found.sort(key=lambda manifest: manifest["kind"] != "CustomResourceDefinition")
    return HEADER + yaml.safe_dump_all([build_namespace(), *found], sort_keys=False, width=140)


def build_namespace() -> Manifest:
    """Return the namespace, under the strictest Pod Security there is."""
    labels = {"app.kubernetes.io/part-of": "vectorindex", "pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def remove_labels(manifest: Manifest) -> Manifest:
    """Return the object, or the template in it, without the labels of Helm."""
    for metadata in (manifest["metadata"], manifest.get("spec", {}).get("template", {}).get("metadata", {})):
        for label in OF_HELM:
            metadata.get("labels", {}).pop(label, None)
    return manifest


if __name__ == "__main__":
    MANIFESTS.write_text(render_manifests(), encoding="utf-8")
    sys.stdout.write(f"wrote {MANIFESTS.relative_to(ROOT)}\n")
