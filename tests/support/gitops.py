"""Argo CD's way of running Lua, and resources for it as the operator's own code renders them.

`python -m tests.support.gitops` writes the test data beside the scripts, and the ConfigMap made of them.
"""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from lupa import lua51

from tests.support.vector_index import NOW, make_index, make_manifest, make_observed, make_pod, make_report, make_stateful_set, plan_of
from vectorindex_operator import api, status
from vectorindex_operator.api import Json
from vectorindex_operator.plan import Observed

ROOT: Final = Path(__file__).resolve().parents[2]
SCRIPTS: Final = ROOT / "gitops" / "argocd" / "resource_customizations" / "vectorindex.dev" / "VectorIndex"
CONFIG_MAP: Final = ROOT / "gitops" / "argocd" / "argocd-cm.yaml"
FLUX: Final = ROOT / "gitops" / "flux" / "kustomization.yaml"
ACTIONS: Final = ("validate", "rebuild", "suspend", "resume")
PLAN: Final = "1111111111111111"

# Argo CD opens these parts of Lua's library and no other, and of `os` what can do no harm.
_AS_ARGO_CD: Final = """
local date, time = os.date, os.time
local safe = { date = date, time = time }
debug.setmetatable("", nil)
string, io, math, debug, coroutine, os, dofile, loadfile = nil
package.loaded.os = safe
os = safe
"""


class Script:
    """A script, to be run on one resource after another."""

    def __init__(self, path: Path) -> None:
        self._lua: Any = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
        self._lua.execute(_AS_ARGO_CD)
        self._run = self._lua.eval("function(text) return assert(loadstring(text)) end")(path.read_text())

    def __call__(self, resource: Json) -> Any:
        """Return what the script makes of a resource."""
        self._lua.globals().obj = self._table(resource)
        return _plain(self._run())

    def _table(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._lua.table_from({key: self._table(item) for key, item in value.items() if item is not None})
        if isinstance(value, list):
            return self._lua.table_from([self._table(item) for item in value])
        return float(value) if type(value) is int else value  # there is no other number in Argo CD's Lua


def _plain(value: Any) -> Any:
    """Return tables as dictionaries, or as lists where they count from 1."""
    if lua51.lua_type(value) != "table":
        return int(value) if isinstance(value, float) and value.is_integer() else value
    items = {key: _plain(item) for key, item in value.items()}
    return list(items.values()) if items and list(items) == list(range(1, len(items) + 1)) else items


@cache
def load(name: str) -> Script:
    """Return the script of this name, such as `health` or `actions/validate/action`."""
    return Script(SCRIPTS / f"{name}.lua")


def judge(resource: Json) -> str:
    """Return the health that Argo CD shows, which must come with a text."""
    told = load("health")(resource)
    assert set(told) == {"status", "message"}
    assert isinstance(told["message"], str)
    return str(told["status"])


# --- what the operator says of it ---


def render_resource(observed: Observed, refusal: str = "") -> Json:
    """Return the whole resource as the API server would hold it once the operator has looked at it."""
    spec = observed.index.spec
    manifest = make_manifest(replicas=spec.replicas if spec else 2, suspend=bool(spec and spec.suspend))
    manifest["metadata"] |= {"generation": observed.index.generation}
    rendered = status.render_status(observed, plan_of(observed), refusal, NOW)
    return manifest | {"status": json.loads(json.dumps(api.render(rendered)))}


def with_first(**said: Any) -> Callable[[], Observed]:
    """Return an observation whose first replica says this."""

    def observe() -> Observed:
        observed = make_observed(make_index(suspend=said.get("suspended", False)))
        return replace(observed, reports={**observed.reports, "docs-index-0": make_report(observed.index, "pod-0", **said)})

    return observe


def _checked(reason: str, result: str, message: str) -> Json:
    ghosts = int(result == "drift")
    return {"proven": False, "proof": {"result": result, "reason": reason, "message": message}, "drift": {"ghost": ghosts, "changed": 0}}


def _held() -> Json:
    counts = {"removes": 4012, "replaces": 0, "adds": 0}
    held = {"id": PLAN, "reason": "ChangeHeld", "action": "patch", "sampleIds": [], "heldAt": "2026-11-25T09:00:00Z", **counts}
    return {**_checked("ChangeHeld", "drift", "4012 of 9500 rows would go"), "state": "Held", "heldPlan": held}


def _starting() -> Observed:
    observed = make_observed()
    idle = tuple(make_pod(number, ready=False) for number in range(2))
    said = {"state": "Loading", **_checked("NotChecked", "unknown", "")}
    reports = {pod.name: make_report(observed.index, pod.uid, **said) for pod in idle}
    return replace(observed, pods=idle, reports=reports)


def _rolling_out() -> Observed:
    observed = make_observed()
    rolling = make_stateful_set(observed.index, 2, updatedReplicas=1)
    return replace(observed, children={**observed.children, ("StatefulSet", "docs-index"): rolling})


def _in_conflict() -> Observed:
    observed = make_observed()
    foreign: Json = {"metadata": {"name": "docs-index", "uid": "x", "resourceVersion": "1"}}
    return replace(observed, children={**observed.children, ("Service", "docs-index"): foreign})


WAITS: Final = "changes wait"
SCENES: Final[dict[str, tuple[str, Callable[[], Observed]]]] = {
    "healthy": ("Healthy", make_observed),
    "progressing_starting": ("Progressing", _starting),
    "progressing_rolling_out": ("Progressing", _rolling_out),
    "progressing_repairing": ("Progressing", with_first(state="Repairing", **_checked("DriftFound", "drift", "1 ghost"))),
    "progressing_unknown_that_passes": ("Progressing", with_first(**_checked("StatementCancelled", "unknown", "canceling statement"))),
    "degraded_name_conflict": ("Degraded", _in_conflict),
    "degraded_change_held": ("Degraded", with_first(**_held())),
    "degraded_repair_failed": ("Degraded", with_first(**_checked("RepairFailed", "drift", "1 ghost after the repair"))),
    "degraded_unknown": ("Degraded", with_first(**_checked("ModelKeyNotFound", "unknown", "no row has the model key m; the table has n"))),
    "suspended": ("Suspended", lambda: make_observed(make_index(suspend=True))),
    "suspended_changes_wait": ("Suspended", with_first(suspended=True, pending=4, **_checked("PendingSuspended", "drift", WAITS))),
}
"""What the test data show: the health that is due, and what the operator observes."""


def render_data() -> dict[str, Json]:
    """Return the resources of the test data by the names of their files."""
    data = {name: render_resource(observe()) for name, (_, observe) in SCENES.items()}
    fresh = make_manifest()
    fresh["metadata"]["generation"] = 1
    data["progressing_no_visit_yet"] = fresh | {"status": {"observedGeneration": -1}}
    late = copy.deepcopy(data["healthy"])
    late["metadata"]["generation"] = 2
    data["progressing_generation_not_seen"] = late
    return data


def render_health_tests() -> Json:
    """Return the list of tests in Argo CD's form."""
    data = sorted(render_data().items())
    return {"tests": [{"healthStatus": load("health")(resource), "inputPath": f"testdata/{name}.yaml"} for name, resource in data]}


def render_actions() -> dict[str, Json]:
    """Return the resources of the tests of actions, by the names of their files: those before, and those after each."""
    running, suspended = make_manifest(suspend=False), make_manifest(suspend=True)
    data = {"running": running, "suspended": suspended}
    for name in ("validate", "rebuild"):
        after = copy.deepcopy(running)
        after["metadata"]["annotations"] = {f"vectorindex.dev/{name}-requested-at": "2026-11-25T09:00:00Z"}
        data[f"{name}_requested"] = after
    return data


def render_config_map() -> str:
    """Return the scripts as Argo CD's ConfigMap takes them."""
    actions = {"discovery.lua": (SCRIPTS / "actions" / "discovery.lua").read_text()}
    definitions = [{"name": name, "action.lua": (SCRIPTS / "actions" / name / "action.lua").read_text()} for name in ACTIONS]
    data = {
        "resource.customizations.health.vectorindex.dev_VectorIndex": (SCRIPTS / "health.lua").read_text(),
        "resource.customizations.actions.vectorindex.dev_VectorIndex": dump({**actions, "definitions": definitions}),
    }
    metadata = {"name": "argocd-cm", "namespace": "argocd", "labels": {"app.kubernetes.io/part-of": "argocd"}}
    return "# Made of the scripts beside it by `make docs`: a patch to Argo CD's own ConfigMap.\n" + dump(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    )


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _write_text)


def dump(value: Any) -> str:
    """Return YAML for people."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=140, allow_unicode=True)


def at_a_fixed_time(value: Any) -> Any:
    """Return the same with the times that an action wrote replaced by the one in the test data."""
    wish = re.compile(r'("vectorindex.dev/\w+-requested-at": )"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"')
    text = wish.sub(r'\1"2026-11-25T09:00:00Z"', json.dumps(value))
    return json.loads(text)


def write() -> None:
    """Write all files that are made."""
    for folder, data in ((SCRIPTS / "testdata", render_data()), (SCRIPTS / "actions" / "testdata", render_actions())):
        folder.mkdir(parents=True, exist_ok=True)
        for name, resource in data.items():
            (folder / f"{name}.yaml").write_text(dump(resource), encoding="utf-8")
    (SCRIPTS / "health_test.yaml").write_text(dump(render_health_tests()), encoding="utf-8")
    CONFIG_MAP.write_text(render_config_map(), encoding="utf-8")


if __name__ == "__main__":
    write()
