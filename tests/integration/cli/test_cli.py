"""Each verb against a real API server and a real operator; only the pods are stand-ins."""

import argparse
import contextlib
import json
import os
import pty
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.integration.cli.conftest import Cli, Run, condition
from tests.support.cluster import RunningCluster
from tests.support.operator_process import Fleet, OperatorProcess, wait_for
from tests.support.vector_index import GOLDEN, make_manifest
from vectorindex_cli import access
from vectorindex_operator.api import Json

Read = Callable[[], Json]
PLAN = "fedcba9876543210"
DRIFT = {"result": "drift", "reason": "DriftFound", "message": "2 ghosts"}
REFUSED = {"reachable": False, "reason": "AuthenticationFailed", "message": "password authentication failed for user docs_reader"}


def wait_condition(serving: Fleet, read: Read, status: str, reason: str) -> None:
    """Wait for the condition; the operator is made to look now, as it asks members that are well only every ten seconds."""
    serving.cluster.kubectl("annotate", "vidx", "docs", "-n", serving.namespace, "--overwrite", f"example.com/look-at={reason}")
    wait_for(f"Consistent is {status}, {reason}", lambda: condition(read(), "Consistent") == (status, reason))


def hold(serving: Fleet) -> None:
    plan = json.loads(GOLDEN.read_text())["heldPlan"] | {"heldAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    said = {"result": "drift", "reason": "ChangeHeld", "message": "4012 of 9500 rows would go", "incarnation": "7/primary/2"}
    serving.say(state="Held", proven=False, heldPlan=plan, proof=said, identity={"approvedPlans": []})


def carry_out(serving: Fleet) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    done = {"result": "ok", "reason": "Proven", "incarnation": "7/primary/2", "provenAt": now, "asOf": now}
    serving.say(state="Serving", proven=True, heldPlan=None, identity={"approvedPlans": [PLAN]}, proof=done)


def answering(serving: Fleet, read: Read, wish: str, **changes: object) -> threading.Thread:
    """Let the members answer the next wish of this kind, as replicas would once they have done it."""
    before = serving.read_live()["wishes"][wish]

    def answer() -> None:
        def is_new() -> str:
            asked = str(serving.read_live()["wishes"][wish])
            return asked if asked != before else ""

        asked = wait_for("the wish is in the file", is_new)
        serving.say(**changes)
        time.sleep(1.5)  # so that there is something to be seen of the progress
        serving.say(identity={wish: asked})

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_status_tells_each_verdict_by_its_exit_code(serving: Fleet, read: Read, cli: Cli, namespace: str) -> None:
    healthy = cli("status", "docs")
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert healthy.stdout.startswith(f"VectorIndex {namespace}/docs\n  Verdict    consistent, Proven: ")
    assert "docs-index-1  Serving  3" in healthy.stdout
    assert "\x1b" not in healthy.stdout  # no terminal
    assert "\x1b[32mconsistent\x1b[0m" in cli("status", "docs", "--color", "always").stdout

    serving.say(drift={"ghost": 2}, proven=False, proof=DRIFT)
    wait_condition(serving, read, "False", "DriftFound")
    drifting = cli("status", "docs")
    assert drifting.returncode == 1
    assert "not consistent, DriftFound" in drifting.stdout
    assert "2 ghost" in drifting.stdout

    serving.say(drift={"ghost": 0}, source=REFUSED, proof={"result": "unknown", "reason": "AuthenticationFailed"})
    wait_condition(serving, read, "Unknown", "AuthenticationFailed")
    unknown = cli("status", "docs")
    assert unknown.returncode == 2
    assert "unknown, AuthenticationFailed: " in unknown.stdout


def test_status_for_programs_holds_what_the_api_server_has(serving: Fleet, read: Read, cli: Cli) -> None:
    as_json, as_yaml = cli("status", "docs", "-o", "json"), cli("status", "docs", "-o", "yaml")
    document = json.loads(as_json.stdout)
    assert (as_json.returncode, as_yaml.returncode, document["verdict"]) == (0, 0, "Consistent")
    # the operator may write between two looks
    wait_for("both say the same", lambda: json.loads(cli("status", "docs", "-o", "json").stdout)["status"] == read()["status"])
    assert yaml.safe_load(as_yaml.stdout).keys() == document.keys()


def test_a_spec_that_the_operator_has_not_seen_is_unknown(serving: Fleet, operator: OperatorProcess, read: Read, cli: Cli) -> None:
    operator.pause()
    try:
        assert cli("suspend", "docs").returncode == 0
        result = cli("status", "docs")
        assert condition(read(), "Consistent") == ("True", "Proven")
        assert (result.returncode, "is the operator running?" in result.stdout) == (2, True)
    finally:
        operator.resume()


def test_suspend_and_resume_set_the_field_and_say_so(serving: Fleet, read: Read, cli: Cli, namespace: str) -> None:
    assert f"{namespace}/docs suspended" in cli("suspend", "docs").stdout
    assert read()["spec"]["suspend"] is True
    assert "suspended already" in cli("suspend", "docs").stdout
    refused = cli("rebuild", "docs")
    assert (refused.returncode, "resume docs" in refused.stderr) == (2, True)
    assert "vectorindex.dev/rebuild-requested-at" not in read()["metadata"].get("annotations", {})
    assert f"{namespace}/docs resumed" in cli("resume", "docs").stdout
    assert read()["spec"]["suspend"] is False


def test_validate_waits_for_every_replica_and_ends_with_the_verdict(serving: Fleet, read: Read, cli: Cli) -> None:
    answers = answering(serving, read, "validateRequestedAt", drift={"ghost": 2}, proven=False, proof=DRIFT)
    result = cli("validate", "docs", "--wait", "--timeout", "30")
    answers.join()
    assert (result.returncode, result.stderr) == (1, "")
    progress, verdict = result.stdout.splitlines()[0], result.stdout.splitlines()[-1]
    assert progress.startswith("checking (docs-index-0: Serving")
    assert "not consistent, DriftFound" in verdict
    assert read()["status"]["validateRequestedAt"] == read()["metadata"]["annotations"]["vectorindex.dev/validate-requested-at"]


def test_a_wait_that_is_in_vain_ends_with_an_error(serving: Fleet, cli: Cli) -> None:
    result = cli("validate", "docs", "--wait", "--timeout", "1")
    assert result.returncode == 2
    assert "not within 1 s: every replica has checked; `kubectl vectorindex status docs" in result.stderr


def test_rebuild_shows_a_line_for_each_step_and_ends_with_the_verdict(serving: Fleet, read: Read, cli: Cli) -> None:
    answers = answering(serving, read, "rebuildRequestedAt", view={"generation": 4})
    result = cli("rebuild", "docs", "--wait", "--timeout", "30")
    answers.join()
    lines = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (0, "")
    assert (
        lines[0]
        == "0 of 2 replicas rebuilt (docs-index-0: Serving, generation 3, 9500 rows; docs-index-1: Serving, generation 3, 9500 rows)"
    )
    assert lines[-2] == "2 of 2 replicas rebuilt"
    assert lines[-1].startswith(f"{read()['metadata']['namespace']}/docs: consistent, Proven")


def test_a_rebuild_shows_the_rows_that_come(serving: Fleet, read: Read, cli: Cli) -> None:
    progress = {"generation": 4, "done": 2000, "expected": 9500}
    answers = answering(serving, read, "rebuildRequestedAt", progress=progress, view={"generation": 3})
    result = cli("rebuild", "docs", "--wait", "--timeout", "30", "-o", "json")
    answers.join()
    assert (result.returncode, json.loads(result.stdout)["verdict"]) == (0, "Consistent")
    wait_for("the status tells it", lambda: read()["status"]["members"][0].get("progress"))
    assert read()["status"]["members"][0]["progress"] == {"generation": 4, "rowsDone": 2000, "rowsExpected": 9500}
    assert result.stderr.startswith("0 of 2 replicas rebuilt (docs-index-0: ")


def test_on_a_terminal_a_bar_grows_and_is_gone_at_the_end(serving: Fleet, cluster: RunningCluster, read: Read, namespace: str) -> None:
    progress = {"generation": 4, "done": 4750, "expected": 9500}
    serving.say(progress=progress)
    serving.cluster.kubectl("annotate", "vidx", "docs", "-n", namespace, "example.com/look-at=now")
    wait_for("the status tells it", lambda: read()["status"]["members"][0].get("progress"))
    answers = answering(serving, read, "rebuildRequestedAt", view={"generation": 3})
    near, far = pty.openpty()
    command = [sys.executable, "-m", "vectorindex_cli", "rebuild", "docs", "--wait", "-n", namespace]
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "COLUMNS": "60", "TERM": "xterm"}
    with subprocess.Popen(command, env=environment, stdout=far, stderr=far) as process:
        os.close(far)
        answers.join()
        assert process.wait(60) == 0
    shown = read_terminal(near)
    assert "[##########..........]  50%  0 of 2 replicas rebuilt (docs-\r\x1b[K" in shown
    verdict = shown.rpartition("\r\x1b[K")[2]
    assert verdict.startswith(f"{namespace}/docs: \x1b[32mconsistent\x1b[0m, Proven")


def read_terminal(near: int) -> str:
    """Return what was written to the other end, which is closed."""
    shown = bytearray()
    with contextlib.suppress(OSError):  # how Linux tells of the end
        while part := os.read(near, 4096):
            shown += part
    os.close(near)
    return shown.decode()


def test_a_diff_names_the_rows_and_ends_with_the_verdict(serving: Fleet, read: Read, cli: Cli) -> None:
    none = cli("diff", "docs")
    assert (none.returncode, "No row differs" in none.stdout) == (0, True)
    serving.say(drift={"ghost": 2}, driftSamples={"ghost": ["100001740", "100001930"]}, proven=False, proof=DRIFT)
    wait_condition(serving, read, "False", "DriftFound")
    some = cli("diff", "docs")
    assert some.returncode == 1
    assert "docs-index-1  ghost  2     100001740, 100001930" in some.stdout
    assert "ghost  2     100001740, ..." in cli("diff", "docs", "--limit", "1").stdout
    document = json.loads(cli("diff", "docs", "-o", "json").stdout)
    assert document["replicas"][0]["drift"] == {"ghost": {"rows": 2, "sampleIds": ["100001740", "100001930"]}}
    unknown = {"result": "unknown", "reason": "AuthenticationFailed"}
    serving.say(drift={"ghost": 0}, driftSamples={"ghost": []}, source=REFUSED, proof=unknown)
    wait_condition(serving, read, "Unknown", "AuthenticationFailed")
    assert cli("diff", "docs").returncode == 2


def test_each_verb_has_a_document_for_programs(serving: Fleet, read: Read, cli: Cli, namespace: str) -> None:
    def told(*arguments: str) -> Json:
        result = cli(*arguments, "-o", "yaml")
        assert (result.returncode, result.stderr) == (0, "")
        document: Json = yaml.safe_load(result.stdout)
        assert (document.pop("name"), document.pop("namespace")) == ("docs", namespace)
        return document

    assert told("suspend", "docs") == {"suspend": True}
    assert told("resume", "docs") == {"suspend": False}
    assert told("plan", "docs") == {"heldPlans": []}
    asked = told("validate", "docs")["validateRequestedAt"]
    assert read()["metadata"]["annotations"]["vectorindex.dev/validate-requested-at"] == asked
    assert told("rebuild", "docs").keys() == {"rebuildRequestedAt"}
    hold(serving)
    wait_condition(serving, read, "False", "ChangeHeld")
    assert told("approve", "docs", PLAN) == {"approvedPlans": [PLAN]}


def test_a_held_plan_is_shown_and_approved_once_and_again_when_it_is_held_again(serving: Fleet, read: Read, cli: Cli) -> None:
    nothing = cli("plan", "docs")
    assert (nothing.returncode, "no replica holds a plan" in nothing.stdout) == (0, True)
    hold(serving)
    wait_condition(serving, read, "False", "ChangeHeld")
    shown = cli("plan", "docs")
    assert shown.returncode == 1
    assert "remove 4000, replace 12 and add 3 rows (patch)" in shown.stdout
    assert "rows     100001740" in shown.stdout

    refused = cli("approve", "docs", PLAN, "0000000000000000")
    assert (refused.returncode, "Nothing was approved" in refused.stderr) == (2, True)
    assert "vectorindex.dev/approve-plan" not in read()["metadata"].get("annotations", {})
    (command,) = [line for line in shown.stdout.splitlines() if line.startswith("To approve: kubectl vectorindex ")]
    assert cli(*command.split()[4:]).returncode == 0  # as it is printed
    wait_for("it is handed down", lambda: serving.read_live()["wishes"]["approvePlan"] == PLAN)
    wait_for("the status says so", lambda: read()["status"]["heldPlans"][0].get("approved"))
    assert "was approved already" in cli("approve", "docs", PLAN).stdout
    assert cli("plan", "docs").returncode == 0

    carry_out(serving)
    serving.keep_reading(20, lambda: read()["status"].get("approvedPlans") == [PLAN])
    hold(serving)
    wait_condition(serving, read, "False", "ChangeHeld")
    again = cli("approve", "docs", PLAN)
    assert (again.returncode, again.stderr) == (0, "")
    wait_for("it is handed down anew", lambda: serving.read_live()["wishes"]["approvePlan"] == PLAN)


def test_two_approvals_at_once_both_count(serving: Fleet, read: Read, as_process: Cli) -> None:
    hold(serving)
    other = "0" * 15 + "1"
    serving.members["docs-index-1"].say(heldPlan={"id": other})
    wait_condition(serving, read, "False", "ChangeHeld")
    wait_for("both are held", lambda: len(read()["status"].get("heldPlans", [])) == 2)
    results: list[Run] = []
    threads = [threading.Thread(target=lambda plan=plan: results.append(as_process("approve", "docs", plan))) for plan in (PLAN, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.returncode for run in results] == [0, 0]
    assert set(read()["metadata"]["annotations"]["vectorindex.dev/approve-plan"].split(",")) == {PLAN, other}


def test_what_is_not_there_or_not_allowed_is_named(cluster: RunningCluster, cli: Cli, namespace: str, tmp_path: Path) -> None:
    missing = cli("status", "docs")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert f"there is no VectorIndex {namespace}/docs" in missing.stderr

    cluster.kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    token = cluster.kubectl("create", "token", "nobody", "-n", namespace).strip()
    config = json.loads(cluster.kubeconfig.read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    kubeconfig = tmp_path / "nobody.kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    forbidden = cli("status", "docs", kubeconfig=kubeconfig)
    assert (forbidden.returncode, "ask for the role `view`" in forbidden.stderr) == (2, True)
    assert token not in forbidden.stderr

    config["users"][0]["user"]["token"] = "wrong-" + token
    kubeconfig.write_text(json.dumps(config))
    assert "does not know who you are" in cli("status", "docs", kubeconfig=kubeconfig).stderr

    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    kubeconfig.write_text(json.dumps(config))
    unreachable = cli("status", "docs", kubeconfig=kubeconfig)
    assert (unreachable.returncode, "127.0.0.1:1 does not answer" in unreachable.stderr) == (2, True)
    assert "Traceback" not in unreachable.stderr

    no_context = cli("status", "docs", "--context", "elsewhere")
    assert (no_context.returncode, "no context elsewhere; it has: " in no_context.stderr) == (2, True)
    no_file = cli("status", "docs", kubeconfig=tmp_path / "absent")
    assert (no_file.returncode, "Name one with --kubeconfig or KUBECONFIG" in no_file.stderr) == (2, True)


def test_an_index_that_no_operator_has_seen_is_unknown(
    cluster: RunningCluster, cli: Cli, operator: OperatorProcess, namespace: str
) -> None:
    operator.pause()
    try:
        cluster.kubectl("apply", "-f", "-", text=json.dumps(make_manifest("docs", namespace)))
        result = cli("status", "docs")
        assert (result.returncode, "no operator has looked at it yet" in result.stdout) == (2, True)
    finally:
        operator.resume()


# --- support bundles, and what else is asked of a cluster

CANARIES = tuple(f"canary{number}Zx9Q7{number}" for number in range(8))


def plant(cluster: RunningCluster, namespace: str) -> None:
    """Put passwords where people and other tools leave them, in objects that a bundle holds."""
    secret, applied, note, variable, argument, event, address, label = CANARIES
    meta = {"namespace": namespace}
    labels = {"vectorindex.dev/index": "docs"}
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"x": applied}), "example.com/note": note}
    container = {"name": "sidecar", "image": "x", "env": [{"name": "EXTRA", "value": variable}], "args": ["--db-password", argument]}
    subject = {"kind": "VectorIndex", "name": "docs", "namespace": namespace, "apiVersion": "vectorindex.dev/v1alpha1"}
    planted = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "docs-reader", "labels": labels, **meta},
            "stringData": {"password": secret},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "other", "labels": labels, "annotations": annotations, **meta},
            "spec": {"containers": [container]},
        },
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "docs.1", **meta},
            "involvedObject": subject,
            "reason": "Test",
            "message": f"postgres://reader:{event}@pg/app refused",
            "type": "Warning",
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "docs-index-x", "labels": labels, **meta},
            "data": {"dsn": f"host=pg password='{address}'", "token": label},
        },
    ]
    cluster.kubectl("create", "-f", "-", text="\n---\n".join(json.dumps(one) for one in planted))
    cluster.kubectl("annotate", "vidx", "docs", "-n", namespace, f"example.com/password={note}")


def test_a_bundle_holds_what_is_there_and_no_password(
    serving: Fleet, cluster: RunningCluster, cli: Cli, namespace: str, tmp_path: Path
) -> None:
    plant(cluster, namespace)
    result = cli("report", "docs", "--to", str(tmp_path / "bundle"), "-o", "json")
    assert (result.returncode, result.stderr) == (0, f"{namespace}/docs: reading objects, logs and what replicas say\n")
    files = {str(path.relative_to(tmp_path / "bundle")): path.read_text() for path in (tmp_path / "bundle").rglob("*") if path.is_file()}
    assert {one["path"] for one in json.loads(result.stdout)["files"]} == files.keys()
    kinds = {name.split("/")[1].split("-")[0] for name in files if name.startswith("objects/")}
    assert kinds == {"statefulset", "pod", "configmap", "service", "endpointslice", "poddisruptionbudget", "networkpolicy"}
    assert files.keys() >= {"vectorindex.yaml", "status.txt", "events.txt", "versions.yaml", "contents.txt", "objects/pod-other.yaml"}
    assert "refused" in files["events.txt"]
    assert yaml.safe_load(files["vectorindex.yaml"])["spec"]["index"]["dimension"] == 8
    assert "VectorIndex" in files["status.txt"]
    assert not [name for name in files if "secret" in name.lower()]
    found = [(canary, name) for canary in CANARIES for name, text in files.items() if canary in text]
    assert found == []
    missing = json.loads(result.stdout)["notRead"]
    assert any(one["what"] == "/v1/status of " + f"{namespace}/docs-index-0" for one in missing)  # nothing runs pods here
    assert all(f"{one['what']}: {one['why']}" in files["contents.txt"] for one in missing)
    assert "is there already" in cli("report", "docs", "--to", str(tmp_path / "bundle")).stderr


def test_what_may_not_be_read_is_named_in_the_bundle_and_stops_nothing(
    serving: Fleet, cluster: RunningCluster, cli: Cli, namespace: str, tmp_path: Path
) -> None:
    kubeconfig = make_viewer(cluster, namespace, tmp_path)
    result = cli("report", "docs", "--to", str(tmp_path / "docs.tar.gz"), kubeconfig=kubeconfig)
    assert result.returncode == 0
    with tarfile.open(tmp_path / "docs.tar.gz") as archive:
        names = {name.removeprefix("docs/") for name in archive.getnames()}
        page = archive.extractfile("docs/contents.txt")
        assert page is not None
        contents = page.read().decode()
    assert names == {"vectorindex.yaml", "status.txt", "versions.yaml", "contents.txt"}
    for what in ("Pod objects", "ConfigMap objects", "events in", "the definition"):
        assert what in contents.partition("Not read")[2]
        assert what in result.stdout
    assert "forbidden" in contents


def make_viewer(cluster: RunningCluster, namespace: str, folder: Path) -> Path:
    """Make an account that may read VectorIndexes and nothing else, and return its kubeconfig."""
    cluster.kubectl("create", "serviceaccount", "viewer", "-n", namespace)
    cluster.kubectl("create", "role", "viewer", "-n", namespace, "--verb=get,list", "--resource=vectorindexes.vectorindex.dev")
    cluster.kubectl("create", "rolebinding", "viewer", "-n", namespace, "--role=viewer", f"--serviceaccount={namespace}:viewer")
    config = json.loads(cluster.kubeconfig.read_text())
    token = cluster.kubectl("create", "token", "viewer", "-n", namespace).strip()
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    path = folder / "viewer.kubeconfig"
    path.write_text(json.dumps(config))
    return path


def test_a_viewer_may_look_at_differences_and_is_told_what_a_search_needs(
    serving: Fleet, cluster: RunningCluster, cli: Cli, namespace: str, tmp_path: Path
) -> None:
    kubeconfig = make_viewer(cluster, namespace, tmp_path)
    assert cli("diff", "docs", kubeconfig=kubeconfig).returncode == 0
    vector = tmp_path / "vector.json"
    vector.write_text(json.dumps([1.0] * 8))
    refused = cli("search", "docs", "--vector", str(vector), kubeconfig=kubeconfig)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"you may not reach pod {namespace}/docs-index-0: it takes the right to forward ports" in refused.stderr
    unknown = cli("search", "docs", "--vector", str(tmp_path / "absent"))
    assert (unknown.returncode, "No such file" in unknown.stderr) == (2, True)


def test_names_are_completed_from_the_cluster(
    serving: Fleet, cluster: RunningCluster, read: Read, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_QUICK_SECONDS", 30)  # nobody sits and waits here
    typed = argparse.Namespace(kubeconfig=str(cluster.kubeconfig), namespace=namespace, name="docs")
    assert access.look_up("name", typed) == ["docs"]
    assert access.look_up("replica", typed) == ["docs-index-0", "docs-index-1"]
    assert {namespace, "default"} <= set(access.look_up("namespace", typed))
    assert len(access.look_up("context", typed)) == 1
    assert access.look_up("plans", typed) == []
    hold(serving)
    wait_condition(serving, read, "False", "ChangeHeld")
    assert access.look_up("plans", typed) == [PLAN]
