"""`kubectl vectorindex` as a plugin of the real kubectl, with the rights of people, against pods that run."""

import json
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.wordnet.steps.kubernetes import ROOT
from examples.wordnet.steps.world import INDEX, SEARCH, World, operators, wait_for_condition

pytestmark = pytest.mark.usefixtures("index")

Plugin = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def plugin(scene: World, tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    """Call `kubectl vectorindex` as the account of a role: what `pip install` makes is on the PATH."""
    folder = tmp_path_factory.mktemp("programs")
    for name, entry in tomllib.loads((ROOT / "cli" / "pyproject.toml").read_text())["project"]["scripts"].items():
        module, _, function = entry.partition(":")
        (folder / name).write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        (folder / name).chmod(0o755)

    def call(*arguments: str, kubeconfig: Path, through: tuple[str, ...] = ("vectorindex",)) -> subprocess.CompletedProcess[str]:
        environment = scene.kubernetes.environment
        environment |= {"PATH": f"{folder}:{environment['PATH']}", "KUBECONFIG": str(kubeconfig)}
        command = ["kubectl", *through, *arguments]
        return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False)

    return call


@pytest.fixture(scope="module")
def accounts(scene: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A kubeconfig for an account with each of the roles that Kubernetes has for people, and the chart's role of that kind."""
    folder = tmp_path_factory.mktemp("accounts")
    kubectl = scene.kubernetes.kubectl
    config = json.loads(kubectl("config", "view", "--raw", "--flatten", "--minify", "--output=json"))
    rules = {"view": "get,list,watch", "edit": "get,list,watch,create,update,patch,delete"}
    for role, verbs in rules.items():
        account = f"cli-{role}"
        kubectl("create", "serviceaccount", account, f"--namespace={SEARCH}")
        kubectl("create", "role", account, f"--namespace={SEARCH}", f"--verb={verbs}", "--resource=vectorindexes.vectorindex.dev")
        subject = f"--serviceaccount={SEARCH}:{account}"
        kubectl("create", "rolebinding", account, f"--namespace={SEARCH}", f"--role={account}", subject)
        kubectl("create", "rolebinding", f"{account}-cluster", f"--namespace={SEARCH}", f"--clusterrole={role}", subject)
        token = kubectl("create", "token", account, f"--namespace={SEARCH}").strip()
        (folder / role).write_text(json.dumps(config | {"users": [{"name": config["users"][0]["name"], "user": {"token": token}}]}))
    admin = folder / "admin"
    admin.write_text(json.dumps(config))
    yield {role: folder / role for role in (*rules, "admin")}
    for role in rules:
        names = (f"serviceaccount/cli-{role}", f"role/cli-{role}", f"rolebinding/cli-{role}", f"rolebinding/cli-{role}-cluster")
        kubectl("delete", *names, f"--namespace={SEARCH}")


def test_an_editor_searches_in_each_replica_and_a_viewer_is_told_what_that_takes(
    scene: World, plugin: Plugin, accounts: dict[str, Path], tmp_path: Path
) -> None:
    wait_for_condition(scene, INDEX, "Consistent", 60)
    live = scene.upstream.live()
    vector = tmp_path / "vector.json"
    vector.write_text(json.dumps(live.vectors[500].tolist()))
    for arguments in ([], ["--replica", f"{INDEX}-index-1"]):
        wanted = ("--vector", str(vector), "-k", "3", "-o", "json", *arguments)
        result = plugin("search", INDEX, "-n", SEARCH, *wanted, kubeconfig=accounts["edit"])
        assert (result.returncode, result.stderr) == (0, "")
        answer = json.loads(result.stdout)
        assert (answer["results"][0]["id"], answer["proven"], len(answer["results"])) == (int(live.ids[500]), True, 3)
        assert answer["pod"] in (arguments or [f"{INDEX}-index-{number}" for number in (0, 1)])
    assert answer["results"][0]["score"] == pytest.approx(1, abs=1e-5)
    refused = plugin("search", INDEX, "-n", SEARCH, "--vector", str(vector), kubeconfig=accounts["view"])
    assert (refused.returncode, "it takes the right to forward ports to pods" in refused.stderr) == (2, True)
    assert plugin("diff", INDEX, "-n", SEARCH, kubeconfig=accounts["view"]).returncode == 0


def test_a_bundle_holds_logs_and_what_replicas_say_and_no_password(
    scene: World, plugin: Plugin, accounts: dict[str, Path], tmp_path: Path
) -> None:
    def gather(role: str) -> dict[str, str]:
        path = tmp_path / f"{role}.tar.gz"
        result = plugin("report", INDEX, "-n", SEARCH, "--to", str(path), kubeconfig=accounts[role])
        assert (result.returncode, result.stderr) == (0, "")
        with tarfile.open(path) as archive:
            members = {name.partition("/")[2]: archive.extractfile(name) for name in archive.getnames()}
            return {name: file.read().decode() for name, file in members.items() if file is not None}

    whole, viewed = gather("admin"), gather("view")
    pod = f"pods/{INDEX}-index-0"
    assert whole.keys() >= {f"{pod}/indexer.log", f"{pod}/status.json", f"{pod}/metrics.txt"}
    assert json.loads(whole[f"{pod}/status.json"])["identity"]["podName"] == f"{INDEX}-index-0"
    assert len(whole[f"{pod}/indexer.log"]) > 100
    assert any(name.startswith(f"operator/{one}/") and name.endswith(".log") for name in whole for one in operators(scene))
    missing = whole["contents.txt"].partition("\nNot read\n")[2].splitlines()
    assert not [line for line in missing if "before its restart" not in line]  # which a kubelet may have thrown away
    assert f"{pod}/indexer.log" in viewed
    assert "ports to pods" in viewed["contents.txt"].partition("Not read")[2]
    held = [secret["data"] for secret in scene.kubernetes.items("secrets", f"--namespace={SEARCH}")]
    secrets = [value for data in held for value in data.values()] + [scene.reader_password]
    assert secrets
    assert not [name for name, text in (whole | viewed).items() for secret in secrets if secret in text]


def test_kubectls_own_completion_names_verbs_and_indexes(plugin: Plugin, accounts: dict[str, Path]) -> None:
    def complete(*typed: str) -> list[str]:
        result = plugin(*typed, kubeconfig=accounts["view"], through=("__complete", "vectorindex"))
        return [line.partition("\t")[0] for line in result.stdout.splitlines()]

    assert complete("-n", SEARCH, "re") == ["rebuild", "resume", "report", ":4"]
    assert INDEX in complete("status", "-n", SEARCH, "")
    assert complete("search", INDEX, "-n", SEARCH, "--replica", f"{INDEX}-index-") == [f"{INDEX}-index-0", f"{INDEX}-index-1", ":4"]
