"""Draws a dashboard with the answers of a recording, roughly as Grafana would, as one small picture."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from PIL import Image

from .record import Recording, Series, Span, fill_in

WIDTH: Final = 1300  # pixels
UNIT: Final = 27  # pixels of one unit of the grid's height
DPI: Final = 100
HEAD: Final = 76  # pixels for title and note
COLORS: Final = {"green": "#37872d", "yellow": "#cc9d00", "orange": "#e8710a", "red": "#c4162a", "purple": "#8f3bb8", "blue": "#1f60c4"}
PALETTE: Final = ("#1f60c4", "#e8710a", "#37872d", "#8f3bb8", "#c4162a", "#0f9fae", "#b8860b", "#7a7a7a", "#d15bb0", "#5a8f00")
INK, SOFT, GRID, PAPER, CARD = "#1f2328", "#6e7781", "#e6e9ed", "#f4f5f7", "#ffffff"
FONT: Final = 8.5
COLOURS: Final = 128  # that the picture keeps
MOST_NAMES: Final = 8  # in a legend
MORE: Final = "  … {} more"
LETTER: Final = 5.4  # pixels, about, of a letter in legends
MOST_TICKS: Final = 9
TICK_MINUTES: Final = (1, 2, 5, 10, 15, 30, 60, 120, 240, 480)

Panel = dict[str, Any]


def draw(dashboard: Mapping[str, Any], recording: Recording) -> bytes:
    """Return a dashboard as a PNG of few colours."""
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "text"]
    top = min(panel["gridPos"]["y"] for panel in panels)
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) - top
    with mpl.rc_context({"font.size": FONT, "font.family": "DejaVu Sans", "axes.edgecolor": GRID, "text.color": INK}):
        figure = Figure(figsize=(WIDTH / DPI, (HEAD + height * UNIT) / DPI), dpi=DPI, facecolor=PAPER)
        whole = HEAD + height * UNIT
        _draw_head(figure, dashboard, recording.span, whole)
        for panel in panels:
            place = panel["gridPos"]
            left, width = place["x"] * WIDTH / 24, place["w"] * WIDTH / 24
            box = (left, HEAD + (place["y"] - top) * UNIT, width, place["h"] * UNIT)
            _draw_panel(figure, panel, recording, box, whole)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
    small = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def pick(dashboard: Mapping[str, Any], headings: Sequence[str]) -> dict[str, Any]:
    """Return a dashboard with what stands at its top and under these headings only."""
    kept: list[Panel] = []
    heading, removed, since = "", 0, 0
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        if panel["type"] == "row":
            removed += place["y"] - since if heading and heading not in headings else 0
            heading, since = panel["title"], place["y"]
        if not heading or heading in headings:
            kept.append(panel | {"gridPos": place | {"y": place["y"] - removed}})
    return {**dashboard, "panels": kept}


Box = tuple[float, float, float, float]  # left, top, width, height in pixels


def _draw_head(figure: Figure, dashboard: Mapping[str, Any], span: Span, whole: float) -> None:
    (note,) = [panel["options"]["content"] for panel in dashboard["panels"] if panel["type"] == "text"]
    words = note.partition("\n\n")[0].replace("**", "")
    start, end = (datetime.fromtimestamp(moment, UTC) for moment in (span.start, span.end))
    figure.text(14 / WIDTH, 1 - 26 / whole, dashboard["title"], fontsize=15, fontweight="bold", va="center")
    figure.text(1 - 14 / WIDTH, 1 - 26 / whole, f"{start:%H:%M} to {end:%H:%M} UTC", fontsize=10, color=SOFT, ha="right", va="center")
    figure.text(14 / WIDTH, 1 - 56 / whole, words, fontsize=9.5, color=SOFT, va="center")


def _draw_panel(figure: Figure, panel: Panel, recording: Recording, box: Box, whole: float) -> None:
    left, top, width, height = box
    if panel["type"] == "row":
        figure.text((left + 14) / WIDTH, 1 - (top + height / 2) / whole, panel["title"], fontsize=11, fontweight="bold", va="center")
        return
    card = _axes(figure, (left + 6, top + 4, width - 12, height - 8), whole)
    card.set_facecolor(CARD)
    card.set_xticks([])
    card.set_yticks([])
    figure.text((left + 16) / WIDTH, 1 - (top + 18) / whole, panel["title"], fontsize=9.5, fontweight="bold", va="center")
    answers = [(target, _find(recording, panel, target["expr"])) for target in panel["targets"]]
    if not any(found for _, found in answers):
        figure.text(
            (left + width / 2) / WIDTH,
            1 - (top + height / 2 + 6) / whole,
            panel["fieldConfig"]["defaults"]["noValue"],
            fontsize=13 if panel["type"] == "stat" else 10,
            color=SOFT,
            ha="center",
            va="center",
        )
        return
    if panel["type"] == "stat":
        _draw_numbers(figure, panel, answers, box, whole)
        return
    room = _measure_room(panel, answers)
    axes = _axes(figure, (left + room, top + 32, width - room - 20, height - 32 - 56), whole)
    axes.set_facecolor(CARD)
    DRAWERS[panel["type"]](axes, panel, answers, recording.span)
    _draw_times(axes, recording.span)


def _axes(figure: Figure, box: Box, whole: float) -> Axes:
    left, top, width, height = box
    axes = figure.add_axes((left / WIDTH, 1 - (top + height) / whole, width / WIDTH, height / whole))
    for side in axes.spines.values():
        side.set_color(GRID)
    return axes


def _find(recording: Recording, panel: Panel, expression: str) -> list[Series]:
    query = fill_in(expression, recording.span)
    found = (recording.instants if panel["type"] == "stat" else recording.ranges)[query]
    kept = [Series(series.labels, [point for point in series.points if math.isfinite(point[1])]) for series in found]
    return [series for series in kept if series.points]


def _name(target: Mapping[str, Any], series: Series) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: series.labels.get(found[1], ""), target["legendFormat"])


def _paint(color: str) -> str:
    return COLORS.get(color, color)


def _draw_times(axes: Axes, span: Span) -> None:
    minutes = next(every for every in TICK_MINUTES if (span.end - span.start) / 60 / every <= MOST_TICKS)
    first = math.ceil(span.start / 60 / minutes) * 60 * minutes
    ticks = range(first, int(span.end) + 1, 60 * minutes)
    axes.set_xlim(span.start, span.end)
    axes.set_xticks(list(ticks), [f"{datetime.fromtimestamp(tick, UTC):%H:%M}" for tick in ticks])
    axes.tick_params(colors=SOFT, length=0, labelsize=8)


# --- numbers


def _draw_numbers(figure: Figure, panel: Panel, answers: Sequence[tuple[Any, list[Series]]], box: Box, whole: float) -> None:
    left, top, width, height = box
    shown = [(_name(target, series), series.points[-1][1]) for target, found in answers for series in found]
    several = len(shown) > 1
    room = (height - 40) / len(shown)
    for place, (name, value) in enumerate(shown):
        text, color = describe(panel, value)
        middle = 1 - (top + 34 + room * (place + 0.5)) / whole
        if several:
            figure.text((left + 16) / WIDTH, middle, name, fontsize=8.5, color=SOFT, va="center")
            figure.text((left + width - 16) / WIDTH, middle, text, fontsize=13, fontweight="bold", color=color, va="center", ha="right")
        else:
            figure.text((left + width / 2) / WIDTH, middle, text, fontsize=24, fontweight="bold", color=color, va="center", ha="center")


def describe(panel: Panel, value: float) -> tuple[str, str]:
    """Return a value in words and its colour, by the mappings and thresholds of the panel."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in defaults.get("mappings", ()):
        if found := mapping["options"].get(f"{value:g}"):
            return found["text"], _paint(found["color"])
    color = next(step["color"] for step in reversed(defaults["thresholds"]["steps"]) if step["value"] is None or value >= step["value"])
    return format_value(value, defaults["unit"], defaults.get("decimals")), _paint(color)


def format_value(value: float, unit: str, decimals: float | None = None) -> str:
    """Return a value with its unit, as short as an axis needs it."""
    if unit == "percentunit":
        return f"{_round(value * 100, decimals)} %"
    if unit in ("s", "bytes"):
        return _scale(value, SCALES[unit], decimals)
    ends = {"reqps": "/s", "cps": "/s", "locale": "", "none": "", "short": ""}
    return f"{_round(value, decimals)}{ends.get(unit, unit.removeprefix('suffix:'))}"


SCALES: Final = {
    "s": ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")),
}


def _scale(value: float, scale: Sequence[tuple[float, str]], decimals: float | None) -> str:
    if value == 0:
        return f"0 {'s' if scale[0][1] == 'h' else 'B'}"
    size, name = next(((size, name) for size, name in scale if abs(value) >= size * 0.9999), scale[-1])
    return f"{_round(value / size, decimals)} {name}"


def _round(value: float, decimals: float | None) -> str:
    if decimals is not None:
        return f"{value:,.{int(decimals)}f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


# --- graphs


Answers = Sequence[tuple[Any, list[Series]]]


def _draw_lines(axes: Axes, panel: Panel, answers: Answers, span: Span) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    steps = custom.get("lineInterpolation") == "stepAfter"
    dashed = [override["matcher"]["options"].strip("/") for override in panel["fieldConfig"]["overrides"]]
    below: dict[float, float] = {}
    colors = iter(PALETTE * 9)
    named = sorted(((_name(target, series), series) for target, found in answers for series in found), key=lambda pair: pair[0])
    for name, series in named:
        if any(re.search(pattern, name) for pattern in dashed):
            axes.plot(*split(series.points, span), color=COLORS["red"], linewidth=1.2, linestyle=(0, (5, 3)), label=name)
            continue
        color = next(colors)
        style = "steps-post" if steps else "default"
        if stacked:
            points = [(at, value + below.get(at, 0.0)) for at, value in series.points]
            floors = [(at, below.get(at, 0.0)) for at, _ in series.points]
            moments, tops = split(points, span)
            _, bottoms = split(floors, span)
            axes.fill_between(moments, bottoms, tops, color=color, alpha=0.3, linewidth=0, step="post" if steps else None)
            flat = [True, *(height <= floor for height, floor in zip(tops, bottoms, strict=True)), True]
            shown = [math.nan if all(flat[place : place + 3]) else height for place, height in enumerate(tops)]  # 0 hides no other line
            axes.plot(moments, shown, color=color, linewidth=1.1, drawstyle=style, label=name)
            below |= dict(points)
        else:
            axes.plot(*split(series.points, span), color=color, linewidth=1.3, drawstyle=style, label=name)
    steps_of = defaults["thresholds"]["steps"][1:]
    if custom.get("thresholdsStyle", {}).get("mode") == "line":
        for step in steps_of:
            axes.axhline(step["value"], color=COLORS[step["color"]], linewidth=1, linestyle=(0, (5, 3)))
    _set_heights(axes, defaults)
    _draw_legend(axes)


def split(points: Sequence[tuple[float, float]], span: Span) -> tuple[list[float], list[float]]:
    """Return times and values with a hole where a series has none."""
    moments: list[float] = []
    values: list[float] = []
    before = None
    for at, value in points:
        if before is not None and at - before > 1.5 * span.step:
            moments.append(before + span.step / 2)
            values.append(math.nan)
        moments.append(at)
        values.append(value)
        before = at
    return moments, values


def _set_heights(axes: Axes, defaults: Mapping[str, Any]) -> None:
    lowest, highest = axes.get_ylim()
    if defaults.get("min") is not None:
        lowest, highest = 0.0, highest if highest > 0 and axes.dataLim.y1 > 0 else 1.0
    if defaults.get("max") is not None:
        highest = defaults["max"] + (defaults["max"] - lowest) * 0.03
    axes.set_ylim(lowest, highest)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MultipleLocator(find_step(highest - lowest, defaults["unit"])))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, defaults["unit"])))


def find_step(height: float, unit: str) -> float:
    """Return the distance of lines that makes their values round ones in the unit in which they are written."""
    sizes = [size for size, _ in SCALES.get(unit, ((1.0, ""),))]
    size = next((size for size in sizes if height / 2 >= size), sizes[-1])
    wanted = height / size / 4
    tens = 10.0 ** math.floor(math.log10(wanted))
    step = next(tens * factor for factor in (1, 2, 5, 10) if tens * factor >= wanted)
    return size * (max(1.0, step) if unit == "locale" else step)


def _draw_legend(axes: Axes) -> None:
    """Draw the names below, in as many columns as there is room for, and not more than fit."""
    handles, labels = axes.get_legend_handles_labels()
    width = axes.get_position().width * WIDTH
    longest = max(len(label) for label in labels)
    columns = max(1, min(len(labels), int(width // (longest * LETTER + 36))))
    if len(labels) > 2 * columns:
        columns = max(1, int(width // ((longest + len(MORE)) * LETTER + 36)))
    most = min(MOST_NAMES, 2 * columns)
    if len(labels) > most:
        labels[most - 1] += MORE.format(len(labels) - most)
    by_row = [place for column in range(columns) for place in range(min(most, len(labels)))[column::columns]]  # legends fill by column
    axes.legend(
        [handles[place] for place in by_row],
        [labels[place] for place in by_row],
        loc="upper left",
        bbox_to_anchor=(-0.01, -0.12),
        ncols=columns,
        frameon=False,
        fontsize=8,
        handlelength=1.2,
        columnspacing=1.2,
        labelspacing=0.25,
        borderpad=0.1,
    )


# --- states and buckets


def _draw_states(axes: Axes, panel: Panel, answers: Answers, span: Span) -> None:
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    named = sorted(((_name(target, series), series) for target, found in answers for series in found), key=lambda pair: pair[0])
    lanes = list(dict.fromkeys(name for name, _ in named))
    for name, series in named:
        lane = len(lanes) - 1 - lanes.index(name)
        for start, end, value in merge(series.points, span):
            color = _paint(mapping["options"].get(f"{value:g}", {"color": SOFT})["color"])
            axes.broken_barh([(start, end - start)], (lane - 0.38, 0.76), facecolors=COLORS.get(color, color), alpha=0.85)
    axes.set_ylim(-0.6, len(lanes) - 0.4)
    axes.set_yticks(range(len(lanes)), reversed(lanes))
    for state in mapping["options"].values():
        axes.plot([], [], color=_paint(state["color"]), linewidth=7, alpha=0.85, label=state["text"])
    _draw_legend(axes)


def merge(points: Sequence[tuple[float, float]], span: Span) -> list[tuple[float, float, float]]:
    """Return stretches of equal value: from, to, value."""
    merged: list[tuple[float, float, float]] = []
    for at, value in points:
        end = min(at + span.step, span.end)
        if merged and merged[-1][2] == value and at - merged[-1][1] <= 0.5 * span.step:
            merged[-1] = (merged[-1][0], end, value)
        else:
            merged.append((at, end, value))
    return merged


def _draw_buckets(axes: Axes, panel: Panel, answers: Answers, span: Span) -> None:
    ((_, found),) = answers
    places = range(round((span.end - span.start) / span.step) + 1)
    by_limit = sorted(
        ((float(series.labels["le"]), {round((at - span.start) / span.step): value for at, value in series.points}) for series in found),
        key=lambda pair: pair[0],
    )
    rows: list[list[float]] = []
    under = dict.fromkeys(places, 0.0)
    for _, counts in by_limit:
        now = {place: counts.get(place, 0.0) for place in places}
        rows.append([max(0.0, now[place] - under[place]) for place in places])
        under = now
    used = [place for place, row in enumerate(rows) if max(row) > 1e-9]
    first, last = (used[0], used[-1]) if used else (0, len(rows) - 1)
    cells = [[value if value > 1e-9 else math.nan for value in row] for row in rows[first : last + 1]]
    times = [span.start + place * span.step for place in places]
    axes.pcolormesh(times, range(len(cells)), cells, cmap="Blues", shading="nearest", vmin=0)
    limits = [limit for limit, _ in by_limit[first : last + 1]]
    every = max(1, len(limits) // 6)
    axes.set_yticks(
        range(0, len(limits), every), [f"≤ {format_value(limit, 's')}" if math.isfinite(limit) else "more" for limit in limits[::every]]
    )
    axes.text(0, -0.22, "darker: more of them", transform=axes.transAxes, fontsize=8, color=SOFT, va="center")


def _measure_room(panel: Panel, answers: Answers) -> float:
    """Return the pixels that the names left of a graph need."""
    if panel["type"] != "state-timeline":
        return 74
    return 30 + 6.3 * max(len(_name(target, series)) for target, found in answers for series in found)


Drawer = Callable[[Axes, Panel, Answers, Span], None]
DRAWERS: Final[Mapping[str, Drawer]] = {"timeseries": _draw_lines, "state-timeline": _draw_states, "heatmap": _draw_buckets}


def write(dashboard: Mapping[str, Any], recording: Recording, file: Path) -> None:
    """Write a dashboard's picture."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(draw(dashboard, recording))
