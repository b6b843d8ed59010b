"""A real Prometheus finds the pods by the objects that the chart makes for it, and its rules find the series that they ask for."""

from collections.abc import Iterator

import pytest

from examples.wordnet.steps import monitoring
from examples.wordnet.steps.report import wait_until
from examples.wordnet.steps.world import INDEX, SEARCH, SYSTEM, World
from tests.support import scenes
from tests.support.alerts import find_selectors

pytestmark = pytest.mark.usefixtures("index")


@pytest.fixture(scope="module")
def watched(scene: World) -> Iterator[World]:
    """The cluster of all tests, with Prometheus in it."""
    try:
        monitoring.install(scene, monitoring.Settings(chart_values=scenes.operator_values(scene)))
        yield scene
    finally:
        monitoring.remove(scene)


def test_every_pod_is_a_target_with_the_labels_that_the_rules_expect(watched: World) -> None:
    expected = {(SEARCH, f"{INDEX}-index-{number}") for number in range(2)}
    selector = "--selector=app.kubernetes.io/name=vectorindex,app.kubernetes.io/component=operator"
    pods = watched.kubernetes.items("pods", f"--namespace={SYSTEM}", selector, "--field-selector=status.phase=Running")
    expected |= {(SYSTEM, pod["metadata"]["name"]) for pod in pods}
    assert len(expected) == 4

    def are_up() -> bool:
        found = {(labels["namespace"], labels["pod"]) for labels, value in monitoring.query(watched, "up") if value == 1}
        return found >= expected

    wait_until("Prometheus to scrape every pod", are_up, 60)


def test_rules_are_evaluated_without_an_error_over_series_that_are_there(watched: World) -> None:
    def read_rules() -> list[dict[str, str]]:
        groups = monitoring.ask(watched, monitoring.PROMETHEUS, "/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_until("every rule to be evaluated", lambda: all(rule["health"] != "unknown" for rule in read_rules()), 60)
    rules = read_rules()
    assert rules
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError") or rule["health"] != "ok"} == {}
    wait_until("answers to be sampled", lambda: bool(monitoring.query(watched, "vectorindex_recall_ratio")), 60)
    absent = set()
    for rule in rules:
        for metric, matchers in find_selectors(rule["query"]):
            chosen = ",".join(f'{label}{how}"{value}"' for label, (how, value) in matchers.items() if label not in ("code", "status"))
            if not monitoring.query(watched, f"{metric}{{{chosen}}}"):
                absent.add(f"{rule['name']}: {metric}{{{chosen}}}")
    assert absent == set()


def test_series_of_the_operator_say_which_index_they_are_about_and_not_where_the_operator_is(watched: World) -> None:
    def find_members() -> list[tuple[dict[str, str], float]]:
        return monitoring.query(watched, f'vectorindex_operator_members{{name="{INDEX}",serving="true"}} == 2')

    found = wait_until("the operator to tell of two members", find_members, 60)
    assert {labels["namespace"] for labels, _ in found} == {SEARCH}
