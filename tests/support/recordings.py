"""A made-up recording of what Prometheus answers to the dashboards, for those who draw."""

import math
import re

from scripts.dashboards.boards import BOARDS, load
from scripts.previews.record import Recording, Series, Span, fill_in
from tests.support.dashboards import find_panels

START = 1_700_000_000.0
SPAN = Span(START, START + 600, 5)
VALUES = {"index": ("docs", "docs-int8"), "le": ("0.01", "0.1", "1", "+Inf")}


def make_recording() -> Recording:
    """Return an answer to every query: series that have what the legend names, and a hole."""
    ranges, instants = {}, {}
    for board in BOARDS:
        for panel in find_panels(load(board)):
            for target in panel.get("targets", ()):
                query = fill_in(target["expr"], SPAN)
                names = re.findall(r"{{(\w+)}}", target["legendFormat"])
                choices = [VALUES.get(name, (f"{name}-0", f"{name}-1")) for name in names]
                labels = [dict(zip(names, each, strict=True)) for each in zip(*choices, strict=False)] or [{}]
                if panel["type"] == "stat":
                    instants[query] = [Series(one, [(SPAN.end, 1.0)]) for one in labels]
                else:
                    ranges[query] = [Series(one, _wave(place)) for place, one in enumerate(labels)]
    return Recording(SPAN, ranges, instants)


def _wave(place: int) -> list[tuple[float, float]]:
    moments = [START + 5 * number for number in range(121) if not 40 < number < 50]
    return [(at, float(place + round(1 + math.sin((at - START) / 60)))) for at in moments]
