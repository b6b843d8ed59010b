"""What Argo CD shows of a VectorIndex, by the scripts it runs: for each state that the operator's own code can render."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from hypothesis import given

from tests.support import gitops
from tests.support.gitops import SCENES, SCRIPTS, judge, load
from tests.support.vector_index import make_manifest
from tests.unit.operator.test_reasons import FAILED, IN_PROGRESS, TOLD, judge_by_kstatus
from tests.unit.operator.test_status_properties import FEW, observations
from vectorindex_operator import api
from vectorindex_operator.api import Json
from vectorindex_operator.names import Reason
from vectorindex_operator.plan import Observed

HEALTH = {"Healthy", "Progressing", "Degraded", "Suspended"}


def conditions_of(resource: Json) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in resource["status"]["conditions"]}


def check_health(resource: Json) -> None:
    """Require what must hold of every state."""
    health, conditions = judge(resource), conditions_of(resource)
    by_kstatus = judge_by_kstatus(resource)
    suspended = resource["spec"]["suspend"]
    proven = conditions["Consistent"][0] == "True" and conditions["Ready"][0] == "True"
    assert health in HEALTH
    assert (health == "Healthy") == (proven and by_kstatus == "Current" and not suspended), conditions
    if by_kstatus == FAILED:
        assert health == "Degraded"
    if "Reconciling" in conditions:
        assert (health, by_kstatus) == ("Progressing", IN_PROGRESS)
    if by_kstatus == IN_PROGRESS:
        assert health == "Progressing" or conditions["Consistent"][0] == "False"
    if health == "Suspended":
        assert suspended
        assert conditions["Consistent"][0] == "True" or conditions["Consistent"][1] == Reason.SUSPENDED
    if conditions["Consistent"][0] == "Unknown":
        assert health in ("Progressing", "Degraded")


@pytest.mark.parametrize("reason", sorted(TOLD))
def test_each_reason_is_shown_as_what_it_is(reason: str) -> None:
    told = TOLD[reason]
    check_health(gitops.render_resource(told.observe(), told.refusal))


@FEW
@given(observations())
def test_whatever_is_observed_nothing_unproven_is_healthy(seen: tuple[Observed, str]) -> None:
    check_health(gitops.render_resource(*seen))


def test_what_waits_for_a_person_is_degraded_and_what_heals_by_itself_is_not() -> None:
    shown = {reason: judge(gitops.render_resource(told.observe(), told.refusal)) for reason, told in TOLD.items()}
    for reason in ("ChangeHeld", "SourceRegressed", "RepairHeld", "ReplicasDisagree", "RepairFailed", "ModelKeyNotFound", "ProofTooOld"):
        assert shown[reason] == "Degraded", reason
    for reason in ("DriftFound", "Repairing", "NotChecked", "RebuildSlotBusy", "Starting"):
        assert shown[reason] == "Progressing", reason


def test_reasons_that_the_script_names_are_those_of_the_operator() -> None:
    text = (SCRIPTS / "health.lua").read_text()
    tables = [line.split(" = ")[0].strip() for line in text.splitlines() if line.endswith(" = true,")]
    assert len(tables) > 10
    assert set(tables) <= set(TOLD)


@pytest.mark.parametrize("health", sorted(HEALTH))
def test_the_test_data_show_each_health(health: str) -> None:
    assert [name for name, (due, _) in SCENES.items() if due == health]


def test_the_test_data_are_what_the_operator_renders_and_are_judged_as_is_due() -> None:
    tests = yaml.safe_load((SCRIPTS / "health_test.yaml").read_text())["tests"]
    data = gitops.render_data()
    assert {test["inputPath"] for test in tests} == {f"testdata/{name}.yaml" for name in data}
    for test in tests:
        name = test["inputPath"].removeprefix("testdata/").removesuffix(".yaml")
        resource = yaml.safe_load((SCRIPTS / test["inputPath"]).read_text())
        assert resource == data[name], f"{name}: python -m tests.support.gitops"
        assert load("health")(resource) == test["healthStatus"], name
        assert test["healthStatus"]["status"].lower() == name.partition("_")[0]


def test_a_resource_that_goes_is_progressing() -> None:
    resource = gitops.render_data()["healthy"]
    resource["metadata"]["deletionTimestamp"] = "2026-11-25T09:00:00Z"
    assert judge(resource) == "Progressing"


def test_actions_are_offered_where_they_can_be_taken() -> None:
    tests = yaml.safe_load((SCRIPTS / "actions" / "action_test.yaml").read_text())
    (test,) = tests["discoveryTests"]
    found = load("actions/discovery")(yaml.safe_load((SCRIPTS / "actions" / test["inputPath"]).read_text()))
    assert {each["name"]: {"disabled": False} | found[each["name"]] | {"name": each["name"]} for each in test["result"]} == {
        each["name"]: each for each in test["result"]
    }
    offered = load("actions/discovery")(make_manifest(suspend=True))
    assert {name for name, each in offered.items() if not each.get("disabled")} == {"validate", "resume"}
    assert set(offered) == {path.parent.name for path in SCRIPTS.glob("actions/*/action.lua")} == set(gitops.ACTIONS)


def test_actions_change_what_they_say_and_nothing_else() -> None:
    for test in yaml.safe_load((SCRIPTS / "actions" / "action_test.yaml").read_text())["actionTests"]:
        before, after = (yaml.safe_load((SCRIPTS / "actions" / test[path]).read_text()) for path in ("inputPath", "expectedOutputPath"))
        assert before in gitops.render_actions().values()
        assert gitops.at_a_fixed_time(load(f"actions/{test['action']}/action")(before)) == after


@pytest.mark.parametrize("action", ["validate", "rebuild"])
def test_a_wish_holds_the_time_of_now_in_the_form_that_the_operator_reads(action: str) -> None:
    resource = make_manifest() | {"metadata": {"name": "docs", "annotations": {"kept": "yes"}}}
    annotations = load(f"actions/{action}/action")(resource)["metadata"]["annotations"]
    at = api.parse_time(annotations.pop(f"vectorindex.dev/{action}-requested-at"))
    assert at is not None
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=5)
    assert annotations == {"kept": "yes"}


def test_the_config_map_holds_the_scripts() -> None:
    assert gitops.CONFIG_MAP.read_text() == gitops.render_config_map(), "python -m tests.support.gitops"
    data = yaml.safe_load(gitops.CONFIG_MAP.read_text())["data"]
    actions = yaml.safe_load(data["resource.customizations.actions.vectorindex.dev_VectorIndex"])
    assert [each["name"] for each in actions["definitions"]] == list(gitops.ACTIONS)
    assert json.dumps(actions)


def test_the_page_shows_the_expressions_of_flux_as_they_are() -> None:
    page = (gitops.ROOT / "docs" / "gitops.md").read_text()
    (shown,) = [block for block in page.split("```yaml\n") if "healthCheckExprs" in block]
    expressions = yaml.safe_load(gitops.FLUX.read_text())["spec"]["healthCheckExprs"]
    assert yaml.safe_load(shown.partition("```")[0])["healthCheckExprs"] == expressions
