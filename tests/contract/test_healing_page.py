"""What docs/healing.md shows is taken by those it is for, and what it lists is what there is."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.tools import ALERTMANAGER, fetch_programs
from tests.support.helm import ROOT, by_kind, helm, render_chart
from vectorindex_operator import names
from vectorindex_operator.names import HealOutcome

TEXT = (ROOT / "docs" / "healing.md").read_text()
ENABLED = ("webhook.enabled=true", "webhook.auth.existingSecret=vectorindex-webhook")


@pytest.fixture(scope="module")
def examples() -> list[dict[str, Any]]:
    """Return the configuration of Alertmanager, the AlertmanagerConfig, and Grafana's contact point."""
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def test_alertmanager_takes_the_configuration(examples: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(examples[0]))
    command = [str(fetch_programs(ALERTMANAGER) / "amtool"), "check-config", str(tmp_path / "alertmanager.yml")]
    result = subprocess.run(command, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_all_three_lead_to_the_same_place_in_the_same_way(examples: list[dict[str, Any]]) -> None:
    """The place is that of the chart's Service, as installed by the command above."""
    services = {one["metadata"]["name"]: one for one in by_kind(render_chart(*ENABLED), "Service")}
    (port,) = services["vectorindex-webhook"]["spec"]["ports"]
    url = f"http://vectorindex-webhook.vectorindex-system.svc:{port['port']}{names.WEBHOOK_PATH}"
    plain, resource, grafana = examples
    (route,) = plain["route"]["routes"]
    spec = resource["spec"]
    assert {key: route[key] for key in ("group_by", "group_wait", "group_interval", "repeat_interval", "continue", "receiver")} == {
        re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", key): value for key, value in spec["route"].items() if key != "matchers"
    }
    (webhook,) = plain["receivers"][1]["webhook_configs"]
    assert webhook["url"] == spec["receivers"][0]["webhookConfigs"][0]["url"] == url
    assert grafana["contactPoints"][0]["receivers"][0]["settings"]["url"] == url


def test_values_that_the_page_names_are_values() -> None:
    for setting in re.findall(r"--set (webhook\S+)", TEXT):
        assert helm("template", "x", str(ROOT / "charts" / "vectorindex"), "--set", setting, "--set", ENABLED[1]).returncode == 0
    values = yaml.safe_load((ROOT / "charts" / "vectorindex" / "values.yaml").read_text())
    for path in re.findall(r"`(webhook\.[\w.]+)`", TEXT):
        found = values
        for part in path.split("."):
            found = found[part]


def test_every_outcome_is_explained() -> None:
    assert re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE) == list(HealOutcome)
