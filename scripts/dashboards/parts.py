"""Parts of a Grafana dashboard as ours all look: queries, kinds of panel, variables, links. What is asked stands beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from grafana_foundation_sdk.builders import common as look
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, text, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models import prometheus as asked
from grafana_foundation_sdk.models import text as words

WIDTH: Final = 24
TAG: Final = "vectorindex"
SOURCE: Final = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNBOOKS: Final = "docs/runbooks"
"""Value of the constant `runbooks`, until the chart or whoever imports the file gives it an address."""
ALL: Final = "All"

GREEN, YELLOW, ORANGE, RED, PURPLE, BLUE, GREY = "green", "yellow", "orange", "red", "purple", "blue", "#8e8e8e"
Level = tuple[float, str]


@dataclass(frozen=True)
class Query:
    """What is asked of Prometheus, and what a series of the answer is called."""

    expression: str
    legend: str


@dataclass(frozen=True)
class State:
    """What a number stands for in a panel of states."""

    value: int
    text: str
    color: str


class Limits(Protocol):
    """The part that all panels have in common."""

    def thresholds(self, thresholds: Builder[dashboard.ThresholdsConfig]) -> object:
        """Set at which value which colour begins."""


Panel = Builder[dashboard.Panel]


# --- panels


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    span: int = 12,
    nothing: str = "No data",
    limit: Level | None = None,
    stacked: bool = False,
    steps: bool = False,
    from_zero: bool = True,
    top: float | None = None,
    dashed: str = "",
    runbook: str = "",
) -> timeseries.Panel:
    """Return lines over time. `nothing` is shown where no series is, `limit` is a line, `dashed` matches legends of series that limit."""
    panel = timeseries.Panel().title(title).description(description).unit(unit).span(span).height(8).datasource(SOURCE)
    panel.no_value(nothing).line_width(1).fill_opacity(25 if stacked else 8).show_points(common.VisibilityMode.NEVER)
    panel.legend(
        look.VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
    )
    panel.tooltip(look.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    panel.line_interpolation(common.LineInterpolation.STEP_AFTER if steps else common.LineInterpolation.LINEAR)
    panel.span_nulls(False)  # a gap is a gap
    panel.color_scheme(board.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
    if stacked:
        panel.stacking(look.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if from_zero:
        panel.min(0)
    if top is not None:
        panel.max(top)
    _set_thresholds(panel, *([limit] if limit else []))
    style = common.GraphTresholdsStyleMode.LINE if limit else common.GraphTresholdsStyleMode.OFF
    panel.thresholds_style(look.GraphThresholdsStyleConfig().mode(style))
    if dashed:
        line = dashboard.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]})
        bare = dashboard.DynamicConfigValue(id_val="custom.fillOpacity", value=0)
        red = dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": RED})
        panel.override_by_regexp(f"/{dashed}/", [line, bare, red])
    for place, query in enumerate(queries):
        panel.with_target(_ask(place, query).range())
    return panel.links(_link_runbook(runbook))


def number(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *levels: Level,
    span: int = 4,
    nothing: str = "No data",
    states: Sequence[State] = (),
    rising: Sequence[Level] = (),
    decimals: int | None = None,
    runbook: str = "",
) -> stat.Panel:
    """Return what is true now, one number a series. It is asked for one moment: a series that has ended leaves no number behind.

    It is green below the first of `levels`; where more is better, `rising` gives all colours, from the lowest.
    """
    panel = stat.Panel().title(title).description(description).unit(unit).span(span).height(4).datasource(SOURCE).no_value(nothing)
    panel.graph_mode(common.BigValueGraphMode.NONE).color_mode(common.BigValueColorMode.VALUE).orientation(common.VizOrientation.AUTO)
    panel.text_mode(common.BigValueTextMode.AUTO).reduce_options(look.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    if decimals is not None:
        panel.decimals(decimals)
    _set_thresholds(panel, *(rising or levels), first=bool(rising))
    if states:
        panel.mappings([_map_states(states)])
    return panel.with_target(_ask(0, query).instant()).links(_link_runbook(runbook))


def timeline(
    title: str,
    description: str,
    states: Sequence[State],
    *queries: Query,
    span: int = 24,
    height: int = 6,
    nothing: str = "No data",
    runbook: str = "",
) -> statetimeline.Panel:
    """Return a bar a series that shows its states over time; where there is no series, there is no bar."""
    panel = statetimeline.Panel().title(title).description(description).unit("none").span(span).height(height).datasource(SOURCE)
    panel.no_value(nothing).show_value(common.VisibilityMode.AUTO).merge_values(True).row_height(0.8).fill_opacity(80).line_width(0)
    panel.mappings([_map_states(states)]).color_scheme(board.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    panel.legend(
        look.VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
    )
    _set_thresholds(panel)
    for place, query in enumerate(queries):
        panel.with_target(_ask(place, query).range())
    return panel.links(_link_runbook(runbook))


def durations(title: str, description: str, expression: str, *, span: int = 12, nothing: str = "No data") -> heatmap.Panel:
    """Return a heat map of a histogram's buckets; `expression` is grouped by `le`."""
    panel = heatmap.Panel().title(title).description(description).unit("short").span(span).height(8).datasource(SOURCE).no_value(nothing)
    panel.calculate(False).y_axis(heatmap.YAxisConfig().unit("s")).cell_values(heatmap.CellValues().unit("short"))
    panel.color(heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Blues").steps(32).exponent(0.5))
    panel.cell_gap(1).show_legend().filter_values(heatmap.FilterValueRange().le(1e-9))
    _set_thresholds(panel)
    query = _ask(0, Query(expression, "{{le}}")).range()
    return panel.with_target(query.format(asked.PromQueryFormat.HEATMAP))


def note(content: str, *alerts: str) -> text.Panel:
    """Return the words at the top: what the dashboard answers, and the runbooks of its alerts."""
    links = " · ".join(f"[{alert.removeprefix('VectorIndex')}]({address(alert)})" for alert in alerts)
    panel = text.Panel().title("").description("What this dashboard answers, and the runbooks of its alerts.").span(WIDTH).height(3)
    return panel.datasource(SOURCE).transparent(True).mode(words.TextMode.MARKDOWN).content(f"{content}\n\nRunbooks: {links}")


def _ask(place: int, query: Query) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(chr(ord("A") + place)).datasource(SOURCE)
    return target.editor_mode(asked.QueryEditorMode.CODE)


def _set_thresholds(panel: Limits, *levels: Level, first: bool = False) -> None:
    """Give a panel its thresholds: below them is green where there are some, or what the `first` says; else nothing is said by colour."""
    lowest = levels[0][1] if first else GREEN if levels else BLUE
    steps = [dashboard.Threshold(value=None, color=lowest)]
    steps += [dashboard.Threshold(value=value, color=color) for value, color in levels[first:]]
    panel.thresholds(board.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps))


def _map_states(states: Sequence[State]) -> dashboard.ValueMap:
    results = {
        str(state.value): dashboard.ValueMappingResult(text=state.text, color=state.color, index=place)
        for place, state in enumerate(states)
    }
    return dashboard.ValueMap(options=results)


def _link_runbook(alert: str) -> list[Builder[dashboard.DashboardLink]]:
    if not alert:
        return []
    link = board.DashboardLink(f"Runbook of {alert}").type(dashboard.DashboardLinkType.LINK).url(address(alert)).target_blank(True)
    return [link]


def address(alert: str) -> str:
    """Return where the runbook of an alert is, as far as the constant `runbooks` says."""
    return f"${{runbooks:raw}}/{alert}.md"


# --- the whole


ANY: Final = ".+"


def choice(name: str, label: str, query: str, every: str = ANY) -> board.QueryVariable:
    """Return a variable of which several values can be chosen: the values of a label.

    `every` is what all of them are in a query: anything, or with "" one after the other, where only these may be meant.
    """
    variable = board.QueryVariable(name).label(label).datasource(SOURCE).multi(True).include_all(True)
    variable.query({"query": query, "refId": "StandardVariableQuery"}).sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    if every:
        variable.all_value(every)
    variable.current(dashboard.VariableOption(selected=True, text=[ALL], value=["$__all"]))
    return variable.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)


class _Constant(Builder[dashboard.VariableModel]):
    """A constant that nobody sees; the library's own builder can't hide it."""

    def __init__(self, name: str, value: str) -> None:
        self._name, self._value = name, value

    def build(self) -> dashboard.VariableModel:
        variable = board.ConstantVariable(self._name).value(self._value).build()
        variable.hide = dashboard.VariableHide.HIDE_VARIABLE
        return variable


@dataclass(frozen=True)
class Row:
    """Panels under one heading; without a title they stand at the top."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Board:
    """One dashboard. `name` is the name of its file, and after `vectorindex-` its uid, which never changes."""

    name: str
    title: str
    description: str
    variables: Sequence[board.QueryVariable]
    rows: Sequence[Row]
    alerts: str = ""  # what selects the alerts that are drawn into all graphs

    @property
    def uid(self) -> str:
        """What Grafana knows it by, and what links to it name."""
        return f"vectorindex-{self.name}"

    def build(self) -> dashboard.Dashboard:
        """Return the dashboard as Grafana reads it."""
        built = board.Dashboard(f"VectorIndex / {self.title}").uid(self.uid).description(self.description).tags([TAG]).readonly()
        built.timezone("utc").refresh("30s").time("now-3h", "now").tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        built.with_variable(board.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        for variable in self.variables:
            built.with_variable(variable)
        built.with_variable(_Constant("runbooks", RUNBOOKS))
        others = board.DashboardLink("Dashboards of VectorIndex").type(dashboard.DashboardLinkType.DASHBOARDS).tags([TAG])
        built.link(others.as_dropdown(True).keep_time(True).include_vars(True))
        if self.alerts:
            marks = board.AnnotationQuery().name("Firing alerts").datasource(SOURCE).enable(True).icon_color(RED)
            built.annotation(marks.expr(f'ALERTS{{{self.alerts}, alertstate="firing"}}'))
        for row in self.rows:
            if row.title:
                built.with_row(board.Row(row.title))
            for panel in row.panels:
                built.with_panel(panel)
        whole = built.build()
        for number, part in enumerate(whole.panels or [], start=1):
            part.id_val = number
        return whole
