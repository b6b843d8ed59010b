"""What is wrong about a source is told by a reason of its own, and never by a password."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from examples.wordnet.load import READER
from examples.wordnet.steps import members, world
from examples.wordnet.steps.kubernetes import Manifest
from examples.wordnet.steps.report import wait_until
from examples.wordnet.steps.searching import watching
from examples.wordnet.steps.story import make_queries
from examples.wordnet.steps.world import INDEX, SEARCH, World

WRONG_PASSWORD = secrets.token_hex(12)
Change = Callable[[dict[str, Any]], None]


def wrong_password(spec: dict[str, Any]) -> None:
    spec["source"]["postgres"]["credentialsSecretRef"]["name"] = "wrong-password"


def missing_table(spec: dict[str, Any]) -> None:
    spec["source"]["table"]["name"] = "no_such_table"


def missing_column(spec: dict[str, Any]) -> None:
    spec["source"]["columns"]["vector"] = "no_such_column"


def wrong_dimension(spec: dict[str, Any]) -> None:
    spec["index"]["dimension"] = 385


def unreachable_host(spec: dict[str, Any]) -> None:
    spec["source"]["postgres"]["host"] = "nobody.search.svc"


def missing_database(spec: dict[str, Any]) -> None:
    spec["source"]["postgres"]["database"] = "no_such_database"


CASES: dict[str, tuple[Change, str]] = {
    "wrong-password": (wrong_password, "AuthenticationFailed"),
    "missing-table": (missing_table, "TableMissing"),
    "missing-column": (missing_column, "ColumnMissing"),
    "wrong-dimension": (wrong_dimension, "DimensionMismatch"),
    "unreachable-host": (unreachable_host, "HostUnreachable"),
    "missing-database": (missing_database, "DatabaseMissing"),
}


def bad_manifest(name: str, change: Change) -> Manifest:
    manifest = world.index_manifest()
    manifest["metadata"]["name"] = name
    manifest["spec"]["replicas"] = 1
    change(manifest["spec"])
    return manifest


@pytest.fixture(scope="module")
def bad(scene: World) -> Iterator[World]:
    """All the bad ones at once, as each needs a moment to find out."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong-password"}}
    scene.kubernetes.apply({**secret, "stringData": {"username": READER, "password": WRONG_PASSWORD}}, namespace=SEARCH)
    scene.kubernetes.apply(*(bad_manifest(name, change) for name, (change, _) in CASES.items()), namespace=SEARCH)
    yield scene
    for name in CASES:
        world.delete_index(scene, name)


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (_, reason) in CASES.items()], ids=CASES.keys())
def test_each_wrong_source_has_a_reason_of_its_own(bad: World, name: str, reason: str) -> None:
    def told() -> Manifest | None:
        condition = world.conditions(bad, name).get("SourceAvailable")
        return condition if condition and condition["reason"] == reason else None

    condition = wait_until(f"SourceAvailable of {name} to have reason {reason}", told, 60)
    conditions = world.conditions(bad, name)
    assert condition["status"] == "False"
    assert condition["message"]
    assert conditions["Ready"]["status"] != "True"
    assert conditions["Consistent"]["status"] == "Unknown"


def test_no_password_is_in_a_log_a_status_an_event_or_a_metric(bad: World) -> None:
    kubernetes = bad.kubernetes
    reader = bad.reader_password
    wait_until("the wrong password to be tried", lambda: "SourceAvailable" in world.conditions(bad, "wrong-password"), 60)
    texts = [
        kubernetes.kubectl("get", "vidx", f"--namespace={SEARCH}", "--output=yaml"),
        kubernetes.kubectl("get", "events", "--all-namespaces", "--output=yaml"),
        kubernetes.kubectl("get", "statefulsets,configmaps,pods", f"--namespace={SEARCH}", "--output=yaml"),
        world.operator_logs(bad),
    ]
    for pod in kubernetes.items("pods", f"--namespace={SEARCH}", "--selector=vectorindex.dev/index"):
        name = pod["metadata"]["name"]
        texts.append(kubernetes.kubectl("logs", f"--namespace={SEARCH}", name, "--tail=-1"))
        texts += [members.fetch(bad, SEARCH, name, path) for path in ("/metrics", "/v1/status")]
    assert any("AuthenticationFailed" in text for text in texts)
    for text in texts:
        assert WRONG_PASSWORD not in text
        assert reader not in text


@pytest.mark.usefixtures("index")
def test_serving_goes_on_while_the_password_is_refused_and_recovers_with_it(scene: World) -> None:
    queries, dead = make_queries(scene)
    with watching(scene, queries, dead) as watch:
        scene.upstream.set_reader_password(secrets.token_hex(12))
        try:
            wait_until("SourceAvailable to be False", lambda: source_reason(scene) == "AuthenticationFailed", 60)
            assert world.conditions(scene, INDEX)["Ready"]["status"] == "True"
        finally:
            scene.upstream.set_reader_password(scene.reader_password)
        wait_until("SourceAvailable to be True again", lambda: source_reason(scene) == "Reachable", 60)
        world.wait_for_condition(scene, INDEX, "Consistent", 60)
    assert watch.failed == watch.forbidden == 0, watch
    assert watch.answered > 0


def source_reason(scene: World) -> str:
    reason: str = world.conditions(scene, INDEX)["SourceAvailable"]["reason"]
    return reason
