"""The chart's alerts: each is read, tried and explained. promtool evaluates them; what both sides export is all they may ask for."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.metrics_page import render_page
from tests.support.alerts import (
    GOOD_MINUTES,
    LAST_MINUTES,
    Case,
    Clock,
    Rate,
    Rule,
    World,
    elsewhere,
    find_grouped,
    find_metrics,
    find_selectors,
    play,
    promtool,
    render_rules,
    rules_by_name,
    run_worlds,
)
from tests.support.exported import Exported, read_exported, render_operator, render_replica
from tests.support.helm import CHART, ROOT, by_kind, helm, render_chart
from tests.support.vector_index import SETTINGS, make_index
from vectorindex_operator import names, objects

RUNBOOKS = ROOT / "docs" / "runbooks"
PAGE = ROOT / "docs" / "alerts.md"
TARGET_LABELS = {"namespace", "pod", "job", "instance"}  # what a scrape adds
SECTIONS = ["What it means", "Impact", "Diagnosis", "What to do", "Prevention"]
SEVERITIES = {"critical", "warning", "info"}

POD = 'namespace="search",index="docs",pod="docs-index-0"'
KEY = 'namespace="search",name="docs",pod="vectorindex-0"'
OPERATOR = 'namespace="vectorindex-system",pod="vectorindex-0"'
INDEX_LABELS = {"namespace": "search", "index": "docs"}
POD_LABELS = INDEX_LABELS | {"pod": "docs-index-0"}
OPERATOR_LABELS = {"namespace": "vectorindex-system"}
MAX_STALENESS = f"vectorindex_max_staleness_seconds{{{POD}}}"
SERVED = "watchNamespaces={search,shop}"


def condition(kind: str, value: str) -> str:
    return f'vectorindex_operator_condition{{{KEY},type="{kind}",status="{value}"}}'


CASES = (
    Case(
        "VectorIndexNoConclusiveCheck",
        {f"vectorindex_last_conclusive_check_timestamp_seconds{{{POD}}}": (Clock(), Clock(runs=False)), MAX_STALENESS: (900, 900)},
        29,  # 15 minutes are too long, and that for 15 minutes
        31,
        POD_LABELS | {"severity": "critical"},
        "Replica docs-index-0 of VectorIndex search/docs has had no conclusive check for 32m 0s: nobody knows whether it equals Postgres.",
    ),
    Case(
        "VectorIndexMetricsAbsent",
        {
            f'vectorindex_operator_members{{{KEY},serving="true"}}': (1, 1),
            f'vectorindex_operator_members{{{KEY},serving="false"}}': (0, 0),
            f"vectorindex_last_conclusive_check_timestamp_seconds{{{POD}}}": (Clock(), None),
        },
        14,
        16,
        INDEX_LABELS | {"severity": "warning"},
        "1 pods of VectorIndex search/docs give no metrics: no other alert sees their checks.",
    ),
    Case(
        "VectorIndexCheckUnknown",
        {
            f'vectorindex_check_result{{{POD},result="unknown"}}': (0, 1),
            f'vectorindex_check_result{{{POD},result="ok"}}': (1, 0),
            f"vectorindex_last_conclusive_check_timestamp_seconds{{{POD}}}": (Clock(), Clock(runs=False)),
        },
        4,
        6,
        POD_LABELS | {"severity": "warning"},
        "Checks of replica docs-index-0 of VectorIndex search/docs end unknown: it could not be proven that it equals Postgres, "
        "nor that it does not.",
    ),
    Case(
        "VectorIndexPeriodUnattainable",
        {f"vectorindex_attainable_period_seconds{{{POD}}}": (300, 301), MAX_STALENESS: (300, 300)},
        14,
        16,
        INDEX_LABELS | {"severity": "warning"},
        "Within maxSourceDutyPercent VectorIndex search/docs can be checked every 5m 1s only.",
    ),
    Case(
        "VectorIndexDriftNotRepaired",
        {
            f'vectorindex_drift_rows{{{POD},kind="ghost"}}': (0, 2),
            f'vectorindex_drift_rows{{{POD},kind="missing"}}': (0, 1),
        },
        4,
        6,
        POD_LABELS | {"severity": "critical", "heal": "validate"},
        "3 rows of replica docs-index-0 of VectorIndex search/docs differ from Postgres and were not repaired.",
    ),
    Case(
        "VectorIndexDriftRepaired",
        {
            f'vectorindex_repaired_rows_total{{{POD},kind="ghost"}}': (Rate(0), Rate(2)),
            f'vectorindex_repaired_rows_total{{{POD},kind="missing"}}': (Rate(0), Rate(0)),
        },
        1,
        14,
        INDEX_LABELS | {"severity": "info", "heal": "validate"},
        "30 rows of VectorIndex search/docs differed from Postgres within the last 15 minutes and were repaired: "
        "what damaged them may have damaged more.",
    ),
    Case(
        "VectorIndexRepairHeld",
        {f"vectorindex_repair_held{{{POD}}}": (0, 1)},
        4,
        6,
        INDEX_LABELS | {"severity": "warning"},
        "A change of VectorIndex search/docs is held until somebody approves it or its cause is gone; "
        "searches are answered from the former state.",
    ),
    Case(
        "VectorIndexReplicasDisagree",
        {f"vectorindex_operator_replicas_disagree{{{KEY}}}": (0, 1)},
        4,
        6,
        INDEX_LABELS | {"severity": "critical", "heal": "validate"},
        "Replicas of VectorIndex search/docs read the same database snapshot and hold different rows.",
    ),
    Case(
        "VectorIndexRecallLow",
        {f"vectorindex_recall_ratio{{{POD}}}": (0.9, 0.85)},
        14,
        16,
        POD_LABELS | {"severity": "warning"},
        "Sampled searches of replica docs-index-0 of VectorIndex search/docs found 85% of the nearest rows.",
    ),
    Case(
        "VectorIndexUnavailable",
        {condition("Ready", "True"): (1, 0), condition("Ready", "False"): (0, 1)},
        9,
        11,
        INDEX_LABELS | {"severity": "critical"},
        "VectorIndex search/docs is not Ready: fewer than max(1, replicas - 1) of its replicas serve.",
    ),
    Case(
        "VectorIndexDegraded",
        {f'vectorindex_operator_members{{{KEY},serving="false"}}': (0, 1), f'vectorindex_operator_members{{{KEY},serving="true"}}': (2, 1)},
        29,
        31,
        INDEX_LABELS | {"severity": "warning"},
        "1 pods of VectorIndex search/docs do not serve; a rollout waits until all do.",
    ),
    Case(
        "VectorIndexSourceUnavailable",
        {condition("SourceAvailable", "False"): (0, 1), condition("SourceAvailable", "True"): (1, 0)},
        4,
        6,
        INDEX_LABELS | {"severity": "warning"},
        "Replicas of VectorIndex search/docs can't read Postgres: they serve the state that they proved last.",
    ),
    Case(
        "VectorIndexStalled",
        {condition("Stalled", "True"): (0, 1), condition("Stalled", "False"): (1, 0)},
        9,
        11,
        INDEX_LABELS | {"severity": "warning"},
        "VectorIndex search/docs is Stalled: nothing goes on until its spec, a name or a right is put right.",
    ),
    Case(
        "VectorIndexSearchErrors",
        {
            f'vectorindex_search_requests_total{{{POD},code="200"}}': (Rate(600), Rate(540)),
            f'vectorindex_search_requests_total{{{POD},code="400"}}': (Rate(60), Rate(0)),  # the client's fault, which counts as no error
            f'vectorindex_search_requests_total{{{POD},code="503"}}': (Rate(0), Rate(60)),
        },
        5,
        13,
        INDEX_LABELS | {"severity": "critical"},
        "10% of the searches of VectorIndex search/docs end with an error of the server.",
    ),
    Case(
        "VectorIndexOperatorDown",
        {f"vectorindex_operator_leading{{{OPERATOR}}}": (1, None)},
        4,
        6,
        OPERATOR_LABELS | {"severity": "critical"},
        "No operator in namespace vectorindex-system gives metrics. Indexes serve, check and repair on, "
        "but their changes wait, and alerts about "
        "their state are blind.",
    ),
    Case(
        "VectorIndexOperatorNotLeading",
        {
            f"vectorindex_operator_leading{{{OPERATOR}}}": (1, 0),
            'vectorindex_operator_leading{namespace="vectorindex-system",pod="vectorindex-1"}': (0, 0),
        },
        4,
        6,
        OPERATOR_LABELS | {"severity": "critical"},
        "No operator in namespace vectorindex-system leads: changes of VectorIndexes wait, and their status stands still.",
    ),
    Case(
        "VectorIndexReconcileErrors",
        {
            f'vectorindex_operator_reconciles_total{{{OPERATOR},result="ok"}}': (Rate(10), Rate(10)),
            f'vectorindex_operator_reconciles_total{{{OPERATOR},result="conflict"}}': (Rate(10), Rate(10)),  # normal life
            f'vectorindex_operator_reconciles_total{{{OPERATOR},result="error"}}': (Rate(0), Rate(1)),
        },
        15,
        35,
        OPERATOR_LABELS | {"severity": "warning"},
        "15 looks of the operator in namespace vectorindex-system failed within 15 minutes.",
    ),
    Case(
        "VectorIndexWatchesBlind",
        {f"vectorindex_operator_blind_watches_total{{{OPERATOR}}}": (Rate(0), Rate(1))},
        5,
        75,
        OPERATOR_LABELS | {"severity": "warning"},
        "Watches of the operator in namespace vectorindex-system were begun anew 60 times within an hour, because they had missed changes.",
    ),
    Case(
        "VectorIndexWaitingForImage",
        {
            f"vectorindex_operator_waiting_for_image{{{OPERATOR}}}": (0, 3),
            'vectorindex_operator_waiting_for_image{namespace="vectorindex-system",pod="vectorindex-1"}': (0, 0),  # it does not lead
        },
        59,
        61,
        OPERATOR_LABELS | {"severity": "warning"},
        "3 VectorIndexes of the operator in namespace vectorindex-system wait for its indexer image: "
        "the index before them is not ready with it.",
    ),
)
CASE_OF = {case.alert: case for case in CASES}


@pytest.fixture(scope="module")
def groups() -> list[dict[str, Any]]:
    return render_rules(SERVED)


@pytest.fixture(scope="module")
def rules(groups: list[dict[str, Any]]) -> dict[str, Rule]:
    return rules_by_name(groups)


@pytest.fixture(scope="module")
def exported() -> Exported:
    return read_exported()


# --- what the rules are


@pytest.mark.parametrize("settings", [(SERVED,), ("clusterWide=true",), ()], ids=["two namespaces", "all namespaces", "its own namespace"])
def test_promtool_finds_nothing_wrong_with_the_rules(settings: tuple[str, ...], tmp_path: Path) -> None:
    rendered = render_rules(*settings)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rendered}))
    result = promtool("check", "rules", "--lint=all", "--lint-fatal", tmp_path / "rules.yaml")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "${" not in yaml.safe_dump(rendered)  # every placeholder was a value


def test_rules_ask_only_for_what_is_exported(rules: dict[str, Rule], exported: Exported) -> None:
    for alert, rule in rules.items():
        selectors = find_selectors(rule["expr"])
        assert selectors, alert
        assert find_metrics(rule["expr"]) == {metric for metric, _ in selectors}, f"{alert}: a metric without a choice of namespaces"
        known = {"index"} | TARGET_LABELS
        for metric, matchers in selectors:
            assert metric in exported, f"{alert}: nobody exports {metric}"
            known |= set(exported[metric])
            assert "namespace" in matchers, f"{alert}: {metric} of any namespace"
            for label, (how, value) in matchers.items():
                assert label in set(exported[metric]) | TARGET_LABELS, f"{alert}: {metric} has no label {label}"
                if label in TARGET_LABELS:
                    continue
                values = exported[metric][label]
                wanted = value.split("|") if how == "=~" else [value]
                unmet = [one for one in wanted if not any(re.fullmatch(one, known_value) for known_value in values)]
                assert not unmet, f"{alert}: {label} of {metric} is never {unmet}"
        assert find_grouped(rule["expr"]) <= known, alert


def test_every_alert_says_what_a_person_and_a_webhook_need(rules: dict[str, Rule]) -> None:
    for alert, rule in rules.items():
        assert alert.startswith("VectorIndex")
        assert rule["labels"]["severity"] in SEVERITIES
        assert rule["labels"].get("heal", "validate") == "validate"
        summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
        assert re.fullmatch(r"[A-Z][^{}]*\.", summary), alert
        assert "{{ $labels.namespace }}" in description, alert
        assert description.endswith("."), alert
        assert minutes(rule["for"]) >= 2, f"{alert}: two scrapes are the least"


def minutes(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)([smh])", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1 / 60, "m": 1, "h": 60}[unit]


# --- when they fire


def expected_of(rules: dict[str, Rule], case: Case) -> Rule:
    annotations = {"summary": rules[case.alert]["annotations"]["summary"], "description": case.description}
    annotations["runbook_url"] = f"docs/runbooks/{case.alert}.md"
    return {"alert": case.alert, "expected": {"exp_labels": dict(case.labels), "exp_annotations": annotations}}


def test_every_alert_has_a_case_and_a_runbook_and_none_is_left_over(rules: dict[str, Rule]) -> None:
    assert len(CASES) == len(CASE_OF)
    assert set(CASE_OF) == set(rules)
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(rules)


@pytest.mark.parametrize("alert", CASE_OF)
def test_alert_waits_fires_resolves_and_ends_with_its_series(
    alert: str, groups: list[dict[str, Any]], rules: dict[str, Rule], tmp_path: Path
) -> None:
    case = CASE_OF[alert]
    then, end = GOOD_MINUTES + case.fires, GOOD_MINUTES + case.fires + LAST_MINUTES
    fires = [expected_of(rules, case)]
    without_series = fires if alert == "VectorIndexOperatorDown" else []
    gone = play(case, afterwards="gone")
    run_worlds(
        tmp_path,
        [{"name": "alone", "rules": [rules[alert]]}],
        World(play(case), {GOOD_MINUTES - 1: [], GOOD_MINUTES + case.quiet: [], then: fires, end: []}, [alert]),
        World(gone, {then: fires, end: without_series}, [alert]),
        World(elsewhere(gone), {then: without_series}, [alert]),  # it is not about namespaces of others
    )


def test_nothing_fires_while_all_is_well(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    series = {
        f"vectorindex_last_conclusive_check_timestamp_seconds{{{POD.replace('index-0', 'index-1')}}}": [str(60 * n) for n in range(100)]
    }
    for case in CASES:
        series |= play(case)
    run_worlds(tmp_path, groups, World(series, {30: [], GOOD_MINUTES - 1: []}, CASE_OF))


def test_without_any_series_the_absent_operator_is_told(groups: list[dict[str, Any]], rules: dict[str, Rule], tmp_path: Path) -> None:
    run_worlds(tmp_path, groups, World({}, {30: [expected_of(rules, CASE_OF["VectorIndexOperatorDown"])]}, CASE_OF))


def test_a_replica_that_never_proved_anything_is_told_as_such(groups: list[dict[str, Any]], rules: dict[str, Rule], tmp_path: Path) -> None:
    case = CASE_OF["VectorIndexNoConclusiveCheck"]
    # promtool's clock starts in 1970, ours are some 1.8e9 s later: so what is 0 in life is that much below it here
    series = {f"vectorindex_last_conclusive_check_timestamp_seconds{{{POD}}}": ["-1.8e9"] * 40, MAX_STALENESS: ["900"] * 40}
    told = expected_of(rules, case)
    told["expected"]["exp_annotations"]["description"] = case.description.replace("for 32m 0s", "since it started")
    run_worlds(tmp_path, groups, World(series, {14: [], 16: [told]}, [case.alert]))


def test_an_unknown_start_is_no_unknown_check(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    series = {
        f'vectorindex_check_result{{{POD},result="unknown"}}': ["1"] * 40,
        f"vectorindex_last_conclusive_check_timestamp_seconds{{{POD}}}": ["0"] * 40,
    }
    run_worlds(tmp_path, groups, World(series, {30: []}, ["VectorIndexCheckUnknown"]))


def test_one_of_two_pods_without_metrics_is_missed(groups: list[dict[str, Any]], rules: dict[str, Rule], tmp_path: Path) -> None:
    case = CASE_OF["VectorIndexMetricsAbsent"]
    series = {f'vectorindex_operator_members{{{KEY},serving="true"}}': ["2"] * 40}
    series[f"vectorindex_last_conclusive_check_timestamp_seconds{{{POD}}}"] = ["60"] * 40
    run_worlds(tmp_path, groups, World(series, {14: [], 16: [expected_of(rules, case)]}, [case.alert]))


# --- what the values change


def test_thresholds_durations_labels_and_exclusions_come_from_values() -> None:
    usual = rules_by_name(render_rules(SERVED))
    chosen = rules_by_name(
        render_rules(
            SERVED,
            "monitoring.prometheusRule.thresholds.reconcileErrors=7200",
            "monitoring.prometheusRule.for.VectorIndexDegraded=2h",
            "monitoring.prometheusRule.alertLabels.team=search",
            "monitoring.prometheusRule.alertLabels.severity=info",
            "monitoring.prometheusRule.exclude={VectorIndexRecallLow}",
            "monitoring.prometheusRule.runbookBaseUrl=https://runbooks.example/vx/",
        )
    )
    assert set(usual) - set(chosen) == {"VectorIndexRecallLow"}
    assert "> 7200" in chosen["VectorIndexReconcileErrors"]["expr"]
    assert chosen["VectorIndexDegraded"]["for"] == "2h"
    for alert, rule in chosen.items():
        assert rule["labels"] == {"team": "search"} | usual[alert]["labels"]  # its own severity wins
        assert rule["annotations"]["runbook_url"] == f"https://runbooks.example/vx/{alert}.md"


def test_every_threshold_is_used() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]["prometheusRule"]["thresholds"]
    used = set(re.findall(r"\$\{(\w+)\}", (CHART / "files" / "alerts.yaml").read_text().partition("groups:")[2]))
    assert used == set(values) | {"indexes", "operator"}


@pytest.mark.parametrize("setting", ["exclude={VectorIndexRecalLow}", "for.VectorIndexRecalLow=1h"])
def test_a_name_of_no_alert_is_refused(setting: str) -> None:
    result = helm(
        "template",
        "vectorindex",
        str(CHART),
        "--set",
        "monitoring.prometheusRule.enabled=true",
        "--set",
        f"monitoring.prometheusRule.{setting}",
    )
    assert result.returncode != 0
    assert "there is no alert VectorIndexRecalLow" in result.stderr


def test_nothing_for_the_prometheus_operator_is_made_unasked() -> None:
    assert not [manifest for manifest in render_chart() if manifest["apiVersion"].startswith("monitoring.coreos.com")]


@pytest.mark.parametrize("kind", ["PodMonitor", "PrometheusRule"])
def test_objects_for_prometheus_have_place_and_labels_of_choice(kind: str) -> None:
    path = f"monitoring.{kind[0].lower()}{kind[1:]}"
    settings = (f"{path}.enabled=true", f"{path}.namespace=metrics", f"{path}.labels.release=prometheus", f"{path}.annotations.note=yes")
    made = by_kind(render_chart(*settings, "commonLabels.team=search"), kind)
    assert made
    for manifest in made:
        meta = manifest["metadata"]
        assert meta["namespace"] == "metrics"
        assert meta["labels"].items() >= {"release": "prometheus", "team": "search", "app.kubernetes.io/part-of": "vectorindex"}.items()
        assert meta["annotations"] == {"note": "yes"}
    assert len({manifest["metadata"]["name"] for manifest in made}) == len(made)


def monitors(*settings: str) -> tuple[dict[str, Any], dict[str, Any]]:
    made = by_kind(render_chart("monitoring.podMonitor.enabled=true", *settings, namespace="team"), "PodMonitor")
    indexes, operator = sorted((manifest["spec"] for manifest in made), key=lambda spec: "honorLabels" in spec["podMetricsEndpoints"][0])
    return indexes, operator


def test_monitors_find_the_pods_and_their_port() -> None:
    index = make_index()
    assert index.spec is not None
    built = objects.build_children(index, index.spec, SETTINGS, None).manifests
    (stateful_set,) = by_kind(list(built), "StatefulSet")
    (deployment,) = by_kind(render_chart(), "Deployment")
    for monitor, owner in zip(monitors(), (stateful_set, deployment), strict=True):
        template = owner["spec"]["template"]
        (endpoint,) = monitor["podMetricsEndpoints"]
        assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert endpoint["path"] == names.METRICS_PATH
        ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
        assert ports[endpoint["port"]] == names.OPS_PORT


def test_monitors_look_where_indexes_are_and_trust_the_operators_namespaces() -> None:
    indexes, operator = monitors()
    assert indexes["namespaceSelector"] == operator["namespaceSelector"] == {"matchNames": ["team"]}
    assert operator["podMetricsEndpoints"][0]["honorLabels"] is True  # else `namespace` would be the operator's own
    assert "honorLabels" not in indexes["podMetricsEndpoints"][0]
    assert monitors(SERVED)[0]["namespaceSelector"] == {"matchNames": ["search", "shop"]}
    everywhere, operator = monitors("clusterWide=true", "monitoring.podMonitor.interval=15s")
    assert everywhere["namespaceSelector"] == {"any": True}
    assert operator["namespaceSelector"] == {"matchNames": ["team"]}
    assert everywhere["podMetricsEndpoints"][0]["interval"] == operator["podMetricsEndpoints"][0]["interval"] == "15s"


# --- what is written about them


@pytest.mark.parametrize("alert", CASE_OF)
def test_runbook_has_every_part_and_names_only_what_exists(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text()
    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert find_metrics(text) <= find_metrics(render_page())
    wishes = {names.VALIDATE_REQUESTED_AT, names.REBUILD_REQUESTED_AT, names.APPROVE_PLAN}
    assert set(re.findall(r"vectorindex\.dev/[a-z-]+", text)) <= wishes | {names.INDEX_LABEL}
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (RUNBOOKS / target).is_file(), target


@pytest.fixture(scope="module")
def resource() -> dict[str, Any]:
    (version,) = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("alert", CASE_OF)
def test_commands_of_a_runbook_ask_for_fields_that_the_resource_has(alert: str, resource: dict[str, Any]) -> None:
    for template in re.findall(r"vidx INDEX -o jsonpath='([^']*)'", (RUNBOOKS / f"{alert}.md").read_text()):
        around = resource
        for loop, path in re.findall(r"\{(range )?\.([\w.\[\]*]+)\}", template):
            found = around
            for part in path.split("."):
                found = found["properties"][part.removesuffix("[*]")]
                found = found["items"] if part.endswith("[*]") else found
            around = found if loop else around


def test_page_lists_every_alert_as_it_is(rules: dict[str, Rule]) -> None:
    def row(alert: str, rule: Rule) -> str:
        heal = f"`{rule['labels']['heal']}`" if "heal" in rule["labels"] else ""
        link = f"[{alert}](runbooks/{alert}.md)"
        return f"| {link} | {rule['labels']['severity']} | {rule['for']} | {heal} | {rule['annotations']['summary']} |"

    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| [")]
    assert lines == [row(alert, rule) for alert, rule in rules.items()]


# --- the metrics themselves


@pytest.mark.parametrize("render", [render_replica, render_operator], ids=["replica", "operator"])
def test_promtool_finds_nothing_wrong_with_the_metrics(render: Any) -> None:
    result = promtool("check", "metrics", text=render())
    assert result.returncode == 0, result.stdout + result.stderr
