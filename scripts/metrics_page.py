"""Write docs/metrics.md from the metrics as they are declared; a test compares the page with what this prints."""

import sys
from pathlib import Path
from typing import Any, Final

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from vectorindex_indexer.metrics import Metrics
from vectorindex_operator import metrics as operator_metrics

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"

TEXT: Final = """# Metrics

Names, types and labels of every metric, made from the code by `make docs`. Label values are closed sets or names of resources, never
row ids or free text. Counters start at zero with each process; take `rate` or `increase` of them. The chart brings [alerts](alerts.md)
made of them, and what lets the Prometheus operator scrape them.

## Of a replica

Port 9090 of each index pod, `/metrics`. Every metric also has the label `index`, the name of the VectorIndex; namespace and pod
come from the scrape.

{replica}

## Of the operator

Port `ops` (9090) of the operator's pods, `/metrics`. The metrics of one VectorIndex end with it. Scrape them with `honorLabels`, as
their `namespace` is that of the VectorIndex.

{operator}

Both export the usual `process_` and `python_` metrics of the Prometheus client where it has them.
"""


UNITS: Final = {
    "timestamp_seconds": "Unix time",
    "seconds": "s",
    "bytes": "bytes",
    "ratio": "0 to 1",
    "rows": "rows",
    "vectors": "vectors",
    "queries": "queries",
}
"""By the end of a name: the most telling ends first. What has none is a count, or a number without a unit."""


def find_unit(name: str) -> str:
    """Return the unit that the name says."""
    return next((unit for end, unit in UNITS.items() if name.removesuffix("_total").endswith(end)), "")


def render_table(declared: list[MetricWrapperBase], without: set[str]) -> str:
    """Return a Markdown table, by name."""
    lines = ["| name | type | unit | labels | meaning |", "|---|---|---|---|---|"]
    for metric in sorted(declared, key=lambda one: str(one._name)):
        name = f"{metric._name}_total" if isinstance(metric, Counter) else metric._name
        labels = ", ".join(f"`{label}`" for label in metric._labelnames if label not in without)
        lines.append(f"| `{name}` | {metric._type} | {find_unit(name)} | {labels} | {metric._documentation} |")
    return "\n".join(lines)


def render_page() -> str:
    """Return the whole page."""
    registry: Any = Metrics("docs").registry
    replica = [one for one in registry._collector_to_names if isinstance(one, MetricWrapperBase)]
    operator = [one for one in vars(operator_metrics).values() if isinstance(one, MetricWrapperBase)]
    return TEXT.format(replica=render_table(replica, {"index"}), operator=render_table(operator, set()))


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
