"""The page of limits has the figures of definition and code."""

import re
from pathlib import Path
from typing import Any

import yaml

from vectorindex_indexer import openapi

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")


def read_schema() -> dict[str, Any]:
    (version,) = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def test_figures_of_the_definition_are_those_of_the_page() -> None:
    schema = read_schema()
    spec = schema["properties"]["spec"]["properties"]
    (longest,) = re.findall(
        r"self\.metadata\.name\.size\(\) <= (\d+)", " ".join(rule["rule"] for rule in schema["x-kubernetes-validations"])
    )
    assert f"The name of an index has at most {longest} characters" in PAGE
    assert f"of one dimension, 1 to {spec['index']['properties']['dimension']['maximum']:,}" in PAGE
    assert f"At most {spec['replicas']['maximum']} replicas" in PAGE


def test_figures_of_a_search_are_those_of_the_page() -> None:
    most = f"at most {openapi.MAX_QUERIES:,} vectors, asks for at most {openapi.MAX_K:,} rows for each and {openapi.MAX_HITS:,} together"
    assert most in PAGE
    assert f"at most {openapi.MAX_BODY_BYTES // 2**20} MiB" in PAGE


def test_kubernetes_is_as_new_as_the_chart_asks_for() -> None:
    chart = yaml.safe_load((ROOT / "charts" / "vectorindex" / "Chart.yaml").read_text())
    (oldest,) = re.findall(r">=(\d+\.\d+)", chart["kubeVersion"])
    assert f"Kubernetes {oldest} or newer" in PAGE
