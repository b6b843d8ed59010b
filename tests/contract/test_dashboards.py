"""The chart's dashboards: made from code, asking only for what is exported, and never showing as 0 what nobody knows."""

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.dashboards.boards import BOARDS, FOLDER, render
from tests.support.alerts import find_grouped, find_metrics, find_selectors, promtool, render_rules, rules_by_name
from tests.support.dashboards import Asked, evaluate, fill_in, find_panels, find_queries, query_of, read_dashboards
from tests.support.exported import Exported, read_exported
from tests.support.helm import ROOT, Manifest, by_kind, render_chart

DASHBOARDS = read_dashboards()
ASKED = [asked for name, dashboard in DASHBOARDS.items() for asked in find_queries(name, dashboard)]
PANELS = [(name, panel) for name, dashboard in DASHBOARDS.items() for panel in find_panels(dashboard)]
TARGET_LABELS = {"namespace", "pod", "job", "instance"}  # what a scrape adds
OF_OTHERS = {
    "ALERTS": {"alertname", "alertstate", "namespace", "index"},  # Prometheus' own, of the chart's rules
    "kube_pod_container_resource_limits": {"namespace", "pod", "container", "resource"},  # of kube-state-metrics
}
"""All that is asked for and not exported by us, with the labels that it has there."""
RUNBOOKS = "https://example.org/runbooks"
ENABLED = "monitoring.dashboards.enabled=true"
FOR_THE_OPERATOR = "monitoring.dashboards.grafanaDashboard.enabled=true"


@pytest.fixture(scope="module")
def exported() -> Exported:
    return read_exported()


# --- what they ask


def test_the_files_are_as_the_code_makes_them() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{board.name}.json" for board in BOARDS}
    for board in BOARDS:
        assert (FOLDER / f"{board.name}.json").read_text(encoding="utf-8") == render(board), "run `make docs`"


def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    assert len(ASKED) > 80
    rules = [{"record": f"query:{number}", "expr": fill_in(asked.expression)} for number, asked in enumerate(ASKED)]
    assert not [rule for rule in rules if "$" in rule["expr"]]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    result = promtool("check", "rules", tmp_path / "rules.yaml")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(rules)} rules found" in result.stdout


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.where)
def test_a_query_asks_only_for_what_is_exported(asked: Asked, exported: Exported) -> None:
    known = dict(exported) | {name: {label: set[str]() for label in labels} for name, labels in OF_OTHERS.items()}
    selectors = find_selectors(asked.expression)
    bare = {asked.expression} if re.fullmatch(r"\w+", asked.expression) else set()  # of the first variable, which chooses nothing yet
    assert find_metrics(asked.expression) <= {metric for metric, _ in selectors} | bare
    labels = {"index"} | TARGET_LABELS
    for metric, matchers in [*selectors, *((metric, dict[str, tuple[str, str]]()) for metric in bare)]:
        assert metric in known, f"nobody exports {metric}"
        labels |= set(known[metric])
        for label, (how, value) in matchers.items():
            assert label in set(known[metric]) | TARGET_LABELS, f"{metric} has no label {label}"
            if "$" in value or metric in OF_OTHERS:
                continue
            found = known[metric][label]
            unmet = [one for one in (value.split("|") if how == "=~" else [value]) if not any(re.fullmatch(one, has) for has in found)]
            assert not unmet, f"{label} of {metric} is never {unmet}"
    grouped = find_grouped(asked.expression)
    assert grouped <= labels
    assert set(re.findall(r"{{(\w+)}}", asked.legend)) <= grouped, "the legend names what the query has lost"


def test_the_metrics_of_others_are_all_in_use() -> None:
    asked = {metric for one in ASKED for metric, _ in find_selectors(one.expression)}
    assert set(OF_OTHERS) <= asked


def test_a_replica_is_always_chosen_by_its_namespace_and_index_or_pod() -> None:
    for asked in ASKED:
        for metric, matchers in find_selectors(asked.expression):
            assert asked.where.split(": ")[1].startswith("$") or {"namespace", "pod"} & set(matchers), f"{asked.where}: {metric} of anybody"


# --- what they look like


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_found_again_and_linked(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"vectorindex-{name}"
    assert len(dashboard["uid"]) <= 40  # Grafana's limit
    assert dashboard["tags"] == ["vectorindex"]
    assert dashboard["title"].startswith("VectorIndex / ")
    assert (dashboard["timezone"], dashboard["refresh"]) == ("utc", "30s")
    assert "id" not in dashboard  # that is a Grafana's own
    assert [link["tags"] for link in dashboard["links"]] == [["vectorindex"]]
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert variables[:2] == ["datasource", "namespace"]
    used = {variable for asked in find_queries(name, dashboard) for variable in re.findall(r"\$(\w+)", asked.expression)}
    assert used - {"__rate_interval", "__range"} <= set(variables)


def test_titles_and_addresses_are_unique() -> None:
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len({one["title"] for one in DASHBOARDS.values()}) == 4


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_ids_of_their_own_and_do_not_overlap(name: str) -> None:
    panels = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    for place in places:
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=lambda value: value if isinstance(value, str) else value["title"])
def test_a_panel_says_what_it_shows_and_in_which_unit(name: str, panel: dict[str, Any]) -> None:
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert len(panel["description"]) > 20
    if panel["type"] == "text":
        return
    assert panel["title"]
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["noValue"], "an empty panel says why"
    steps = defaults["thresholds"]["steps"]
    assert steps[0]["value"] is None
    values = [step["value"] for step in steps[1:]]
    assert values == sorted(set(values))
    assert panel["targets"]
    assert [target["refId"] for target in panel["targets"]] == ["A", "B", "C"][: len(panel["targets"])]
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        now = panel["type"] == "stat"  # a number that is true no longer is no number
        assert (target.get("instant", False), target.get("range", False)) == (now, not now)


def test_every_alert_has_a_panel_that_leads_to_its_runbook_and_no_link_leads_nowhere() -> None:
    links = {link["url"] for _, panel in PANELS for link in panel.get("links", ())}
    for _, panel in PANELS:
        if panel["type"] == "text":
            links |= set(re.findall(r"\]\(([^)]+)\)", panel["options"]["content"]))
    alerts = set(rules_by_name(render_rules()))
    assert links == {f"${{runbooks:raw}}/{alert}.md" for alert in alerts}
    assert all((ROOT / "docs" / "runbooks" / f"{alert}.md").is_file() for alert in alerts)


# --- what is not known is not 0

RESULTS = ("ok", "drift", "unknown")
REPLICA = 'namespace="search",index="docs",pod="{pod}"'
MINUTE = 60
NEVER = "0x100"
CLOCK = "0+60x100"


def replica(pod: str, result: str, checked: str = CLOCK, **rows: int) -> dict[str, str]:
    """Return the series of a replica whose last check ended so."""
    labels = REPLICA.format(pod=pod)
    series = {f'vectorindex_check_result{{{labels},result="{each}"}}': f"{int(each == result)}x100" for each in RESULTS}
    series[f"vectorindex_last_conclusive_check_timestamp_seconds{{{labels}}}"] = checked
    series[f"vectorindex_max_staleness_seconds{{{labels}}}"] = "300x100"
    for kind in ("missing", "ghost"):
        series[f'vectorindex_drift_rows{{{labels},kind="{kind}"}}'] = f"{rows.get(kind, 0)}x100"
    for metric in ("source_rows", "vectors"):
        series[f"vectorindex_{metric}{{{labels}}}"] = f"{rows.get(metric, 0)}x100"
    return series


STALE = "0+60x50 3000x50"  # ten minutes ago at MINUTE
PROVEN = replica("docs-index-0", "ok", source_rows=1000, vectors=1000)
DIFFERS = replica("docs-index-1", "drift", missing=3, ghost=2, source_rows=1000, vectors=999)
CASES: Mapping[str, tuple[dict[str, str], dict[str, Mapping[str, float]]]] = {
    "all proven": (
        PROVEN,
        {"Replicas not proven": {"{}": 0}, "Rows that differ": {"{}": 0}, "Oldest proof": {"{}": 0}},
    ),
    "one differs": (
        PROVEN | DIFFERS,
        {"Replicas not proven": {"{}": 1}, "Rows that differ": {"{}": 5}, "Oldest proof": {"{}": 0}},
    ),
    "one can't be told": (
        PROVEN | replica("docs-index-1", "unknown", missing=3),
        {"Replicas not proven": {"{}": 1}, "Rows that differ": {}, "Oldest proof": {"{}": 0}},
    ),
    "one never made a check": (
        PROVEN | replica("docs-index-1", "unknown", NEVER),
        {"Replicas not proven": {"{}": 1}, "Rows that differ": {}, "Oldest proof": {}},
    ),
    "checks of one stand still": (
        PROVEN | replica("docs-index-1", "ok", STALE),
        {"Replicas not proven": {"{}": 1}, "Rows that differ": {}, "Oldest proof": {"{}": 2}},
    ),
    "all that serve give metrics": (
        PROVEN | {'vectorindex_operator_members{namespace="search",name="docs",pod="o",serving="true"}': "1x100"},
        {"Replicas not proven": {"{}": 0}, "Rows that differ": {"{}": 0}},
    ),
    "one that serves gives no metrics": (
        PROVEN | {'vectorindex_operator_members{namespace="search",name="docs",pod="o",serving="true"}': "2x100"},
        {"Replicas not proven": {"{}": 0}, "Rows that differ": {}},
    ),
    "nobody is there": ({"up": "1x100"}, {"Replicas not proven": {}, "Rows that differ": {}, "Oldest proof": {}}),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_on_top_are_absent_where_they_are_not_known(case: str, tmp_path: Path) -> None:
    series, numbers = CASES[case]
    board = DASHBOARDS["consistency"]
    evaluate(tmp_path, series, MINUTE, {query_of(board, title): samples for title, samples in numbers.items()})


def test_a_replica_is_shown_unknown_when_its_check_is_too_old_or_never_was(tmp_path: Path) -> None:
    board = DASHBOARDS["consistency"]
    series = PROVEN | DIFFERS | replica("docs-index-2", "ok", STALE) | replica("docs-index-3", "unknown", NEVER)
    states = {f"{{{REPLICA.format(pod=f'docs-index-{number}')}}}": float(state) for number, state in enumerate((0, 1, 2, 2))}
    known = {name: value for name, value in states.items() if value < 2}
    evaluate(
        tmp_path,
        series,
        MINUTE,
        {
            query_of(board, "What is known of each replica"): states,
            query_of(board, "Time since the last proof"): dict.fromkeys(known, 0.0) | {list(states)[2]: 600.0},
            query_of(board, "Live rows"): {'{namespace="search",index="docs"}': 1000},
            query_of(board, "Rows in Postgres and in replicas", 1): dict(zip(known, (1000, 999), strict=True)) | {list(states)[2]: 0.0},
        },
    )


def test_rows_that_differ_are_shown_only_of_replicas_of_which_they_are_known(tmp_path: Path) -> None:
    old = replica("docs-index-2", "drift", STALE, missing=7)
    series = PROVEN | DIFFERS | old | replica("docs-index-3", "unknown", missing=9)
    differs = REPLICA.format(pod="docs-index-1")
    samples = {f"{{{REPLICA.format(pod='docs-index-0')}}}": 0.0, f'{{{differs},kind="missing"}}': 3.0, f'{{{differs},kind="ghost"}}': 2.0}
    evaluate(tmp_path, series, MINUTE, {query_of(DASHBOARDS["consistency"], "Rows that differ, by kind"): samples})


def test_the_first_event_of_a_counter_is_shown_too(tmp_path: Path) -> None:
    query = query_of(DASHBOARDS["consistency"], "Repairs")
    labels = 'action="patch",trigger="check",result="repaired"'
    series = {f"vectorindex_repairs_total{{{REPLICA.format(pod='docs-index-0')},{labels}}}": f"_x{MINUTE - 3} 1x100"}
    for minute, repairs in ((MINUTE, 1), (MINUTE + 20, 0)):
        evaluate(tmp_path, series, minute, {query: {f"{{{labels}}}": repairs}})


def test_a_condition_is_shown_as_it_is_and_not_at_all_without_an_operator(tmp_path: Path) -> None:
    board = DASHBOARDS["consistency"]
    for value, status in enumerate(("False", "True", "Unknown")):
        world = {
            f'vectorindex_operator_condition{{namespace="search",name="docs",pod="o",type="Consistent",status="{each}"}}': (
                f"{int(each == status)}x100"
            )
            for each in ("True", "False", "Unknown")
        }
        evaluate(tmp_path, world, MINUTE, {query_of(board, "Consistent"): {'{namespace="search",name="docs"}': value}})
    evaluate(tmp_path, {"up": "1x100"}, MINUTE, {query_of(board, "Consistent"): {}, query_of(board, "Held plans"): {}})


def test_of_two_operators_that_take_turns_the_one_that_doubts_is_shown(tmp_path: Path) -> None:
    labels = 'namespace="search",name="docs",type="Consistent"'
    for value, status in ((0, "False"), (2, "Unknown")):
        both = {
            f'vectorindex_operator_condition{{{labels},pod="{pod}",status="{each}"}}': "1x100"
            for pod, each in (("a", "True"), ("b", status))
        }
        evaluate(tmp_path, both, MINUTE, {query_of(DASHBOARDS["consistency"], "Consistent"): {'{namespace="search",name="docs"}': value}})


def test_a_gap_in_scrapes_is_no_event(tmp_path: Path) -> None:
    labels = 'action="patch",trigger="check",result="repaired"'
    series = {f"vectorindex_repairs_total{{{REPLICA.format(pod='docs-index-0')},{labels}}}": "1000x30 _x20 1000x50"}
    evaluate(tmp_path, series, 53, {query_of(DASHBOARDS["consistency"], "Repairs"): {f"{{{labels}}}": 0}})


def test_errors_are_a_share_of_searches_and_nothing_where_nobody_searches(tmp_path: Path) -> None:
    query = query_of(DASHBOARDS["search"], "Share of errors")
    labels = REPLICA.format(pod="docs-index-0")
    searched = {f'vectorindex_search_requests_total{{{labels},code="200"}}': "0+60x100"}
    failed = {f'vectorindex_search_requests_total{{{labels},code="503"}}': "0+20x100"}
    idle = {f'vectorindex_search_requests_total{{{labels},code="200"}}': "7x100"}
    for series, share in ((searched, 0.0), (searched | failed, 0.25), (idle, None)):
        samples = {} if share is None else {'{namespace="search",index="docs"}': share}
        evaluate(tmp_path, series, MINUTE, {query: samples})


# --- how the chart brings them


def maps(*settings: str) -> list[Manifest]:
    return by_kind(render_chart("crds.enabled=false", ENABLED, *settings), "ConfigMap")


def test_nothing_is_made_unless_asked_for() -> None:
    assert not [one for one in render_chart() if one["kind"] == "GrafanaDashboard" or "dashboard" in one["metadata"]["name"]]


def test_the_sidecar_finds_a_config_map_of_each_dashboard() -> None:
    made = maps("monitoring.dashboards.namespace=grafana", "monitoring.dashboards.labels.team=search")
    assert len(made) == len(DASHBOARDS)
    for one in made:
        assert one["metadata"]["namespace"] == "grafana"
        assert one["metadata"]["labels"].items() >= {"grafana_dashboard": "1", "team": "search"}.items()
        ((file, text),) = one["data"].items()
        assert json.loads(text) == DASHBOARDS[file.removeprefix("vectorindex-").removesuffix(".json")]
        assert len(text) < 2**18, "a ConfigMap, and an annotation of kubectl apply, have limits"


def test_the_grafana_operator_finds_them_too_without_config_maps() -> None:
    made = render_chart("crds.enabled=false", FOR_THE_OPERATOR, "monitoring.dashboards.grafanaDashboard.folder=Search")
    assert not [one for one in by_kind(made, "ConfigMap") if "dashboard" in one["metadata"]["name"]]
    found = by_kind(made, "GrafanaDashboard")
    assert [json.loads(one["spec"].pop("json"))["uid"] for one in found] == [f"vectorindex-{name}" for name in DASHBOARDS]
    selector = {"matchLabels": {"dashboards": "grafana"}}
    assert [one["spec"] for one in found] == [
        {"instanceSelector": selector, "allowCrossNamespaceImport": False, "folder": "Search"} for _ in DASHBOARDS
    ]


@pytest.mark.parametrize("value", ["monitoring.prometheusRule.runbookBaseUrl", "monitoring.dashboards.runbookBaseUrl"])
def test_panels_lead_to_the_runbooks_that_the_values_name(value: str) -> None:
    for one in maps(f"{value}={RUNBOOKS}/"):
        (text,) = one["data"].values()
        (constant,) = [one for one in json.loads(text)["templating"]["list"] if one["name"] == "runbooks"]
        assert constant["query"] == RUNBOOKS
        assert "docs/runbooks" not in text
