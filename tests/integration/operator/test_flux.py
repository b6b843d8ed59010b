"""The health expressions of gitops/flux, evaluated by the API server's own CEL: an admission policy refuses, and says what it found."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support import gitops
from tests.support.api_client import ApiClient
from tests.support.cluster import RunningCluster
from tests.support.operator_process import wait_for
from tests.support.vector_index import make_manifest
from tests.unit.operator.test_reasons import TOLD
from vectorindex_operator.api import Json

(EXPRESSIONS,) = yaml.safe_load(gitops.FLUX.read_text())["spec"]["healthCheckExprs"]
RULES = ("inProgress", "failed", "current")  # in the order in which Flux asks them
FOUND = re.compile(r"found ((?:\w+=(?:yes|no) ?)+)")


def write_policy(namespace: str) -> list[Json]:
    """Return a policy that refuses each status in this namespace, and tells what the expressions make of it."""
    variables = [{"name": rule, "expression": re.sub(r"(?<![\w.'])(status|spec)\b", r"object.\1", EXPRESSIONS[rule])} for rule in RULES]
    told = " + ' ' + ".join(f"'{rule}=' + (variables.{rule} ? 'yes' : 'no')" for rule in RULES)
    rules = [{"apiGroups": ["vectorindex.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["vectorindexes/status"]}]
    kind = {"apiVersion": "admissionregistration.k8s.io/v1"}
    chosen = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    policy = {
        "matchConstraints": {"resourceRules": rules, **chosen},
        "variables": variables,
        "validations": [{"expression": "false", "messageExpression": f"'found ' + {told}"}],
    }
    binding = {"policyName": namespace, "validationActions": ["Deny"]}
    return [
        {**kind, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": namespace}, "spec": policy},
        {**kind, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": namespace}, "spec": binding},
    ]


class Judge:
    """What Flux makes of a status, of the resource there that is suspended or of the one that is not."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._api, self._namespace = api, namespace

    def ask(self, resource: Json) -> dict[str, bool] | None:
        """Return what each expression says; None as long as the policy isn't in force."""
        name = "suspended" if resource["spec"]["suspend"] else "running"
        found = FOUND.search(self._api.refuse_status("VectorIndex", self._namespace, name, resource["status"]))
        return {rule: said == "yes" for rule, said in re.findall(r"(\w+)=(yes|no)", found[1])} if found else None

    def judge(self, resource: Json) -> str:
        """Return the result, by the order in which Flux asks."""
        told = self.ask(resource)
        assert told is not None
        return next((rule for rule in RULES if told[rule]), "inProgress")


@pytest.fixture
def judge(cluster: RunningCluster, namespace: str) -> Iterator[Judge]:
    for name in ("running", "suspended"):
        cluster.kubectl("apply", "-f", "-", text=json.dumps(make_manifest(name, namespace, suspend=name == "suspended")))
    policy: Any = {"apiVersion": "v1", "kind": "List", "items": write_policy(namespace)}
    cluster.kubectl("apply", "-f", "-", text=json.dumps(policy))
    with ApiClient(cluster.kubeconfig) as api:
        judge = Judge(api, namespace)
        healthy = gitops.render_data()["healthy"]
        wait_for("the policy is in force", lambda: judge.ask(healthy) is not None)
        yield judge
    cluster.kubectl("delete", "-f", "-", text=json.dumps(policy))


def test_flux_goes_on_where_argo_cd_shows_a_proven_index_and_nowhere_else(judge: Judge) -> None:
    states = [gitops.render_resource(told.observe(), told.refusal) for told in TOLD.values()] + list(gitops.render_data().values())
    states = [state for state in states if state["status"]["observedGeneration"] == state["metadata"]["generation"]]
    results = set()
    for state in states:
        shown, result = gitops.judge(state), judge.judge(state)
        results.add(result)
        conditions = [(each["type"], each["status"], each["reason"]) for each in state["status"]["conditions"]]
        assert (result == "current") == (shown in ("Healthy", "Suspended")), conditions
        if result == "failed":  # what could not be looked at is waited for, as it may pass within the time-out
            assert shown == "Degraded", conditions
        if shown == "Progressing":
            assert result == "inProgress", conditions
    assert results == set(RULES)
