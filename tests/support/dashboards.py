"""Dashboards of the chart in front of promtool: their queries, and what these say of a world."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from scripts.dashboards.boards import FOLDER
from tests.support.alerts import promtool

Dashboard = dict[str, Any]
CHOSEN = {"$namespace": "search", "$index": "docs", "$pod": ".+", "$__rate_interval": "5m", "$__range": "1h"}
"""What the variables of Grafana stand for in tests; the operator's own namespace is that of its index here."""


class Asked(NamedTuple):
    """One query of a dashboard: where it stands, what it asks, and how a series of the answer is called."""

    where: str
    expression: str
    legend: str


def read_dashboards() -> dict[str, Dashboard]:
    """Return the chart's dashboards by the name of their file."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def find_panels(dashboard: Dashboard) -> list[dict[str, Any]]:
    """Return the panels that show something: all but headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def find_queries(name: str, dashboard: Dashboard) -> Iterator[Asked]:
    """Yield what panels, annotations and variables ask."""
    for panel in find_panels(dashboard):
        for target in panel.get("targets", ()):
            yield Asked(f"{name}: {panel['title']}", target["expr"], target["legendFormat"])
    for annotation in dashboard["annotations"].get("list", ()):
        yield Asked(f"{name}: {annotation['name']}", annotation["expr"], "")
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            (expression,) = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            yield Asked(f"{name}: ${variable['name']}", expression, "")


def fill_in(expression: str) -> str:
    """Return a query as Grafana sends it."""
    for variable, value in CHOSEN.items():
        expression = expression.replace(variable, value)
    return expression


def query_of(dashboard: Dashboard, title: str, place: int = 0) -> str:
    """Return the query of a panel, as it is sent."""
    (panel,) = [panel for panel in find_panels(dashboard) if panel["title"] == title]
    return fill_in(panel["targets"][place]["expr"])


def evaluate(folder: Path, series: Mapping[str, str], minute: int, expected: Mapping[str, Mapping[str, float]]) -> None:
    """Let promtool ask the queries of a world, and compare: each query with the value of each series of its answer."""
    asked = [
        {"expr": query, "eval_time": f"{minute}m", "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()]}
        for query, samples in expected.items()
    ]
    world = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": asked,
    }
    (folder / "world.yaml").write_text(yaml.safe_dump({"tests": [world]}))
    result = promtool("test", "rules", folder / "world.yaml")
    assert result.returncode == 0, result.stdout + result.stderr
