"""The real operator as its own process, with the rights of its chart and no more, and stand-ins for pods where no node runs any."""

import contextlib
import hashlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from examples.wordnet.steps.report import PATIENCE
from tests.support.cluster import RunningCluster
from tests.support.helm import by_kind, render_chart
from tests.support.vector_index import GOLDEN, merge
from vectorindex_operator.api import Json

T = TypeVar("T")
IMAGE = "registry.example/indexer:1"
SYSTEM = "vectorindex-system"
WITH_WEBHOOK = ("webhook.enabled=true", "webhook.auth.existingSecret=hook")
"""Settings of the chart."""


def wait_for(what: str, ask: Callable[[], T], seconds: float = 30) -> T:
    """Ask until the answer is true and return it; fail with what was waited for and the last answer."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}; last answer: {answer!r}")
        time.sleep(0.1)


def make_account(cluster: RunningCluster, folder: Path, *settings: str) -> Path:
    """Give the operator the chart's ServiceAccount and roles, and return a kubeconfig with which it is that account.

    The rights reach as far as those of an `OperatorProcess` by default, over all namespaces, unless chart settings say otherwise.
    """
    manifests = render_chart("crds.enabled=false", *(settings or ["clusterWide=true"]))
    kinds = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    if cluster.try_kubectl("get", "namespace", SYSTEM).returncode:
        cluster.kubectl("create", "namespace", SYSTEM)
    wanted = [manifest for kind in kinds for manifest in by_kind(manifests, kind)]
    cluster.kubectl("apply", "-f", "-", text="\n---\n".join(json.dumps(manifest) for manifest in wanted))
    (account,) = by_kind(manifests, "ServiceAccount")
    token = cluster.kubectl("create", "token", account["metadata"]["name"], "--namespace", SYSTEM).strip()
    config = json.loads(cluster.kubeconfig.read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    path = folder / "operator.kubeconfig"
    path.write_text(json.dumps(config))
    return path


def webhook_environment(port: int, token_file: Path) -> dict[str, str]:
    """Return what the chart tells the operator of its webhook, but for where port and token are here."""
    (deployment,) = by_kind(render_chart(*WITH_WEBHOOK), "Deployment")
    entries = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    told = {entry["name"]: entry["value"] for entry in entries if entry["name"].startswith("VECTORINDEX_WEBHOOK_")}
    return told | {"VECTORINDEX_WEBHOOK_PORT": str(port), "VECTORINDEX_WEBHOOK_TOKEN_FILE": str(token_file)}


class OperatorProcess:
    """One run of `python -m vectorindex_operator`, or of code that changes something and then runs the same."""

    def __init__(self, kubeconfig: Path, log: Path, *, code: str = "", **environment: str) -> None:
        self.port = free_port()
        self.log = log
        self._command = [sys.executable, *(("-c", code) if code else ("-m", "vectorindex_operator"))]
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("VECTORINDEX_", "KUBE"))},
            "KUBECONFIG": str(kubeconfig),
            "VECTORINDEX_INDEXER_IMAGE": IMAGE,
            "VECTORINDEX_WATCH_NAMESPACES": "*",
            "VECTORINDEX_OPS_HOST": "127.0.0.1",
            "VECTORINDEX_OPS_PORT": str(self.port),
            "POD_NAMESPACE": SYSTEM,
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        """Start it, with these settings for this once, and wait until it watches."""
        self.launch(**environment)
        wait_for("the operator is ready", lambda: self.answers("/readyz"))

    def launch(self, **environment: str) -> None:
        """Start it and wait for nothing."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(self._command, env=self._environment | environment, stdout=output, stderr=subprocess.STDOUT)

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int:
        """End it as a cluster does and return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    def kill(self) -> None:
        """End it without a chance to clean up."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)

    def end(self) -> None:
        """End it if it still runs, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def wait(self, seconds: float) -> int:
        """Wait until it has ended by itself and return its exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def runs(self) -> bool:
        """Tell whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """Let it stand still in the midst of whatever it does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on where it stood."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def leads(self) -> bool:
        """Tell whether it is the one that acts."""
        return self.metric("vectorindex_operator_leading") == 1

    def answers(self, path: str) -> bool:
        """Tell whether a probe succeeds."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the operator ended with {self._process.returncode}: {self.log.read_text()[-4000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def metric(self, metric: str, /, **labels: str) -> float | None:
        """Return the sum of all samples of this name with these labels, or None when there is none."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        samples = [sample for family in families for sample in family.samples if sample.name == metric]
        values = [sample.value for sample in samples if labels.items() <= sample.labels.items()]
        return sum(values) if values else None

    def writes(self) -> float:
        """Return how many requests that change something it has sent."""
        methods = ("POST", "PATCH", "PUT", "DELETE")
        return sum(self.metric("vectorindex_operator_api_requests_total", method=method) or 0 for method in methods)


def free_port() -> int:
    """Return a port of loopback on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


QUIET: Json = {"repairs": [], "heldPlan": None, "identity": {"approvedPlans": []}}  # no news beside the proof


class StandIn:
    """Answers `GET /v1/status` in place of one pod, as nothing runs pods without a node. What it says is the golden document, changed."""

    def __init__(self, ip: str) -> None:
        self.ip = ip
        self.document: Json = {}
        self.status = 200
        self.asked = 0
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stand_in.asked += 1
                body = json.dumps(stand_in.document).encode()
                self.send_response(stand_in.status if self.path == "/v1/status" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((ip, 9090), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def say(self, **changes: Any) -> None:
        """Answer with these changes from now on."""
        self.document = merge(self.document, changes)

    def stop(self) -> None:
        """Let nothing answer any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Fleet:
    """The pods of one VectorIndex: each gets an address of loopback, a stand-in behind it, and the conditions a kubelet would set."""

    _addresses = (f"127.0.{third}.{last}" for third in range(77, 90) for last in range(2, 250))

    def __init__(self, cluster: RunningCluster, namespace: str, name: str = "docs") -> None:
        self.cluster, self.namespace, self.name = cluster, namespace, name
        self.members: dict[str, StandIn] = {}

    def pods(self) -> list[Json]:
        """Return the pods there are."""
        found = self.cluster.get("pods", "-n", self.namespace, "-l", f"vectorindex.dev/index={self.name}")["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def serve(self, count: int) -> None:
        """Wait for the pods and let all of them answer, proven and ready; new pods of known names too."""
        wait_for(f"{count} pods", lambda: len(self.pods()) == count)
        for pod in self.pods():
            self.bring_up(pod)

    def bring_up(self, pod: Json) -> None:
        """Let the pod answer, proven and ready."""
        name = pod["metadata"]["name"]
        member = self.members.get(name)
        if member is None:
            member = self.members[name] = self._stand_in()
        self.refresh(pod, member)
        self.set_ready(name, True, ip=member.ip)

    def _stand_in(self) -> StandIn:
        """Return one at an address that nobody has, not even another run of tests."""
        for address in Fleet._addresses:
            with contextlib.suppress(OSError):
                return StandIn(address)
        raise AssertionError("no address of loopback is left")

    def refresh(self, pod: Json, member: StandIn) -> None:
        """Let the stand-in speak for this pod, having read the files that are mounted into it."""
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        identity = volumes["identity"]["configMap"]["name"].rpartition("-")[2]
        base: Json = member.document or merge(json.loads(GOLDEN.read_text()), QUIET)
        proven = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        files = {"podUid": pod["metadata"]["uid"], "podName": pod["metadata"]["name"], "identityHash": identity}
        member.document = merge(base, {"identity": files, "proof": {"provenAt": proven, "asOf": proven}})
        self.read_live()

    def read_live(self) -> Json:
        """Let all members have read the live file as it is now; return its content."""
        content = self.cluster.get("configmap", f"{self.name}-index", "-n", self.namespace)["data"]["live.json"]
        for member in self.members.values():
            member.say(identity={"liveHash": hashlib.sha256(content.encode()).hexdigest()[:16]})
        live: Json = json.loads(content)
        return live

    def keep_reading(self, seconds: float, until: Callable[[], bool]) -> None:
        """Read the live file as kubelets would, until something holds."""
        wait_for("the members have settled", lambda: bool(self.read_live()) and until(), seconds)

    def say(self, **changes: Any) -> None:
        """Let all members answer with these changes."""
        for member in self.members.values():
            member.say(**changes)

    def set_ready(self, pod: str, ready: bool, ip: str | None = None) -> None:
        """Do what the kubelet does after a readiness probe."""
        status: Json = {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
        if ip:
            status |= {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}
        patch = json.dumps({"status": status})
        self.cluster.kubectl("patch", "pod", pod, "-n", self.namespace, "--subresource=status", "--type=strategic", "-p", patch)

    def stop(self) -> None:
        """End all stand-ins."""
        for member in self.members.values():
            member.stop()


@contextlib.contextmanager
def fleet(cluster: RunningCluster, namespace: str, name: str = "docs") -> Iterator[Fleet]:
    """Provide the pods of one index until the context ends."""
    pods = Fleet(cluster, namespace, name)
    try:
        yield pods
    finally:
        pods.stop()
