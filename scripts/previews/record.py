"""Asks a real Prometheus what the panels of all dashboards ask, for a stretch of time, and keeps the answers in a file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from scripts.dashboards.boards import BOARDS, load

Labels = dict[str, str]


@dataclass(frozen=True)
class Series:
    """One series of an answer: its labels, and (Unix time, value) pairs."""

    labels: Labels
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Span:
    """What is looked at: from and to as Unix times, and every how many seconds."""

    start: float
    end: float
    step: float


@dataclass(frozen=True)
class Recording:
    """All answers, by query as it was sent."""

    span: Span
    ranges: Mapping[str, Sequence[Series]]
    instants: Mapping[str, Sequence[Series]]


class Asking(Protocol):
    """The HTTP API of Prometheus."""

    def __call__(self, path: str, **parameters: str) -> Any:
        """Return what it answers, parsed."""


def fill_in(expression: str, span: Span) -> str:
    """Return a query as Grafana would send it with everything chosen."""
    values = {
        "$namespace": ".+",
        "$index": ".+",
        "$pod": ".+",
        "$__rate_interval": f"{max(30, round(4 * span.step))}s",
        "$__range": f"{round(span.end - span.start)}s",
    }
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    return expression


def record(ask: Asking, span: Span) -> Recording:
    """Ask everything that the dashboards ask."""
    ranges: dict[str, Sequence[Series]] = {}
    instants: dict[str, Sequence[Series]] = {}
    for board in BOARDS:
        dashboard: Any = load(board)
        wanted = [(target["expr"], panel["type"]) for panel in dashboard["panels"] for target in panel.get("targets", ())]
        for expression, kind in wanted:
            query = fill_in(expression, span)
            if kind == "stat":
                instants[query] = parse(ask("/api/v1/query", query=query, time=f"{span.end:.3f}"))
            else:
                times = {"start": f"{span.start:.3f}", "end": f"{span.end:.3f}", "step": f"{span.step:g}"}
                ranges[query] = parse(ask("/api/v1/query_range", query=query, **times))
    return Recording(span, ranges, instants)


def parse(answer: Any) -> list[Series]:
    """Return the series of an answer of Prometheus."""
    return [
        Series(found["metric"], [(float(at), float(value)) for at, value in found.get("values") or [found["value"]]])
        for found in answer["data"]["result"]
    ]


def write(recording: Recording, file: Path) -> None:
    """Keep a recording."""
    file.write_text(json.dumps(asdict(recording)), encoding="utf-8")


def read(file: Path) -> Recording:
    """Return a recording that was kept."""
    kept = json.loads(file.read_text(encoding="utf-8"))

    def series(found: Sequence[Any]) -> list[Series]:
        return [Series(one["labels"], [(at, value) for at, value in one["points"]]) for one in found]

    ranges, instants = ({query: series(found) for query, found in kept[kind].items()} for kind in ("ranges", "instants"))
    return Recording(Span(**kept["span"]), ranges, instants)
