"""Render the chart with the real helm."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from cluster.tools import fetch_tools

ROOT = Path(__file__).resolve().parents[2]
CHART = Path(os.environ.get("VECTORINDEX_TEST_CHART") or ROOT / "charts" / "vectorindex")
"""The chart; scripts/break_the_code.py puts a broken one in its place."""
EARLIER_CHART = ROOT / "tests" / "support" / "charts" / "vectorindex-0.0.1.tgz"
"""The chart as it was when it could first be installed: one operator, all namespaces, a definition without `healing` and more."""
Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm and return what came of it, whether good or bad."""
    return subprocess.run([str(fetch_tools() / "helm"), *arguments], text=True, capture_output=True, check=False)


def render_chart(
    *settings: str, release: str = "vectorindex", namespace: str = "vectorindex-system", tests: bool = False
) -> list[Manifest]:
    """Return all objects of the chart, with `--set` values such as `crds.enabled=false`; if asked for, also the pods of `helm test`."""
    options = [option for setting in settings for option in ("--set", setting)]
    result = helm("template", release, str(CHART), "--namespace", namespace, *options, *([] if tests else ["--skip-tests"]))
    if result.returncode:
        raise AssertionError(f"helm template failed: {result.stderr}")
    return [manifest for manifest in yaml.safe_load_all(result.stdout) if manifest]


def by_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Return the objects of one kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]
