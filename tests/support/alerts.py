"""Alerts of the chart in front of promtool: worlds of series that go bad and good again, and what a rule asks for."""

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.tools import fetch_promtool
from tests.support.helm import Manifest, by_kind, render_chart

ENABLED = "monitoring.prometheusRule.enabled=true"
GOOD_MINUTES = 70  # longer than the widest window of a rule
LAST_MINUTES = 100
Rule = dict[str, Any]


@dataclass(frozen=True)
class Rate:
    """What a counter gains in a minute."""

    a_minute: float


@dataclass(frozen=True)
class Clock:
    """A gauge that shows the time, in seconds, unless it has stopped."""

    runs: bool = True


Level = float | Rate | Clock | None  # None: there is no such series


@dataclass(frozen=True)
class Case:
    """How one alert comes to fire: series before and after, for how many minutes it is quiet, when it fires, and what it says."""

    alert: str
    series: Mapping[str, tuple[Level, Level]]  # name and labels: while all is well, and while it is not
    quiet: int
    fires: int
    labels: Mapping[str, str]
    description: str


def render_rules(*settings: str) -> list[Manifest]:
    """Return the groups of rules that the chart makes."""
    (rule,) = by_kind(render_chart("crds.enabled=false", ENABLED, *settings), "PrometheusRule")
    groups: list[Manifest] = rule["spec"]["groups"]
    return groups


def rules_by_name(groups: Iterable[Manifest]) -> dict[str, Rule]:
    """Return each rule by the name of its alert."""
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool and return what came of it, whether good or bad."""
    command = [str(part) for part in (fetch_promtool(), *arguments)]
    return subprocess.run(command, text=True, capture_output=True, input=text, check=False)


@dataclass(frozen=True)
class World:
    """Series, by minute, and which of the alerts `about` fire at which minute."""

    series: Mapping[str, list[str]]
    expected: Mapping[int, list[Rule]]
    about: Iterable[str]

    def as_test(self) -> dict[str, Any]:
        """Return it in promtool's words."""
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": " ".join(values)} for name, values in self.series.items()],
            "alert_rule_test": [
                {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": [one["expected"] for one in fired if one["alert"] == alert]}
                for minute, fired in self.expected.items()
                for alert in self.about
            ],
        }


def run_worlds(folder: Path, groups: list[Manifest], *worlds: World) -> None:
    """Let promtool play the worlds and compare what fires."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    tests = [world.as_test() for world in worlds]
    (folder / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}))
    result = promtool("test", "rules", folder / "test.yaml")
    assert result.returncode == 0, result.stdout + result.stderr


def play(case: Case, *, afterwards: str = "good") -> dict[str, list[str]]:
    """Return the values of each series: well, then not, and afterwards well again, or gone."""
    bad_until = GOOD_MINUTES + case.fires + 3
    played = {}
    for name, (good, bad) in case.series.items():
        values: list[str] = []
        value = 0.0
        for minute in range(bad_until + LAST_MINUTES):
            level = bad if GOOD_MINUTES <= minute < bad_until else good
            if minute >= bad_until and afterwards == "gone":
                level = None
            if isinstance(level, Rate):
                value += level.a_minute
            elif isinstance(level, Clock):
                value = 60.0 * minute if level.runs else value
            elif level is not None:
                value = level
            values.append(("stale" if values and values[-1] not in ("stale", "_") else "_") if level is None else f"{value:g}")
        played[name] = values
    return played


def elsewhere(series: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the same series in namespaces that are not ours."""
    return {re.sub(r'namespace="[^"]*"', 'namespace="elsewhere"', name): values for name, values in series.items()}


def find_selectors(expression: str) -> list[tuple[str, dict[str, tuple[str, str]]]]:
    """Return each selector's metric and its matchers: label to operator and value."""
    found = []
    for name, matchers in re.findall(r"([a-zA-Z_:]\w*)\{([^}]*)\}", expression):
        found.append((name, {label: (how, value) for label, how, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers)}))
    return found


def find_metrics(text: str) -> set[str]:
    """Return everything that is named like a metric of ours."""
    return set(re.findall(r"\bvectorindex_\w+", text))


def find_grouped(expression: str) -> set[str]:
    """Return the labels by which series are grouped or matched."""
    return {label for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression) for label in re.findall(r"\w+", group)}
