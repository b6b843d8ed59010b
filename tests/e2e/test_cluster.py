"""The local node does what a real Kubernetes does, several run side by side, and the host is afterwards as it was before."""

import contextlib
import json
import os
import re
import signal
import socket
import string
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.lifecycle import Cluster
from cluster.process import wait_for
from cluster.slots import Slot
from tests.support.cluster import ROOT, RunningCluster, node_cluster, run_cluster_command

HERE = Path(__file__).parent
NAME = f"check-{os.getpid()}"  # so that test runs side by side don't end each other's
SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
FOLDERS = ("/opt/cni", "/opt/containerd", "/etc/cni", "/var/lib/cni", "/run/containerd", "/run/netns", "/usr/libexec/kubernetes")


@pytest.fixture(scope="module")
def app_image() -> str:
    return run_cluster_command("build-image", "check", str(HERE / "app"))


@pytest.fixture(scope="module")
def node(app_image: str) -> Iterator[RunningCluster]:
    with node_cluster(NAME) as cluster:
        cluster.load_image(app_image)
        objects = string.Template((HERE / "cluster-objects.yaml").read_text())
        cluster.kubectl("create", "-f", "-", text=objects.substitute(IMAGE=app_image, HOST_IP=slot_of(cluster).host_ip))
        check(cluster, "rollout", "status", "deployment/web", "--timeout=60s")
        check(cluster, "rollout", "status", "statefulset/store", "--timeout=60s")
        yield cluster


def slot_of(cluster: RunningCluster) -> Slot:
    plan = Cluster(cluster.name).plan
    assert plan is not None
    assert plan.slot is not None
    return Slot(plan.slot)


def check(cluster: RunningCluster, *arguments: str | Path, text: str | None = None) -> str:
    return cluster.kubectl("--namespace=check", *arguments, text=text)


def get(cluster: RunningCluster, *arguments: str) -> dict[str, Any]:
    return cluster.get("--namespace=check", *arguments)


def in_pod(cluster: RunningCluster, pod: str, code: str) -> str:
    return check(cluster, "exec", pod, "--", "python3", "-c", code).strip()


def fetch_in_pod(cluster: RunningCluster, pod: str, url: str, timeout: float = 5) -> str:
    return in_pod(cluster, pod, f"import urllib.request as r; print(r.urlopen('{url}', timeout={timeout}).read().decode())")


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  (our own service)
        text: str = answer.read().decode()
        return text.strip()


def web_pods(cluster: RunningCluster) -> list[str]:
    pods = get(cluster, "pods", "--selector=app=web")["items"]
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def ready_endpoints(cluster: RunningCluster) -> int:
    slices = get(cluster, "endpointslices", "--selector=kubernetes.io/service-name=web")["items"]
    return sum(endpoint["conditions"]["ready"] for part in slices for endpoint in part["endpoints"] or [])


def service_ip(cluster: RunningCluster, name: str) -> str:
    address: str = get(cluster, "service", name)["spec"]["clusterIP"]
    return address


def test_service_is_reached_from_pods_and_from_the_host(node: RunningCluster) -> None:
    wait_for("both endpoints", lambda: ready_endpoints(node) == 2, 15)
    address = service_ip(node, "web")
    wait_for("answers of both pods", lambda: {fetch(f"http://{address}") for _ in range(8)} == set(web_pods(node)), 15)
    assert fetch_in_pod(node, "store-0", "http://web.check.svc.cluster.local") in web_pods(node)
    assert fetch_in_pod(node, web_pods(node)[0], "http://web") in web_pods(node)


def test_names_of_pods_resolve_and_names_outside_fail_at_once(node: RunningCluster) -> None:
    pod_ip = get(node, "pod", "store-1")["status"]["podIP"]
    assert in_pod(node, "store-0", "import socket; print(socket.gethostbyname('store-1.store'))") == pod_ip
    started = time.monotonic()
    code = "import socket\ntry: socket.gethostbyname('www.example.org')\nexcept OSError as e: print(e)"
    assert "not known" in in_pod(node, "store-0", code)
    assert time.monotonic() - started < 5


def test_logs_and_port_forward_work(node: RunningCluster) -> None:
    assert "listening" in check(node, "logs", "deployment/web")
    command = [str(node.program("kubectl")), f"--kubeconfig={node.kubeconfig}", "--namespace=check", "port-forward", "service/web", ":80"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        assert forward.stdout is not None
        port = forward.stdout.readline().split(" -> ")[0].rpartition(":")[2]
        assert fetch(f"http://127.0.0.1:{port}") in web_pods(node)
        forward.kill()


def test_a_changed_secret_reaches_the_mounted_file(node: RunningCluster) -> None:
    pod = web_pods(node)[0]
    assert check(node, "exec", pod, "--", "cat", "/etc/check/password", "/etc/check/setting") == "first42"
    check(node, "patch", "secret", "check", "--patch", '{"stringData": {"password": "second"}}')
    check(node, "annotate", f"pod/{pod}", "check/touched=1", "--overwrite")  # a change of the pod makes the kubelet sync it now
    wait_for("the changed secret", lambda: check(node, "exec", pod, "--", "cat", "/etc/check/password") == "second", 30, 0.5)


def test_a_claimed_volume_outlives_its_pod_and_is_writable_for_its_group(node: RunningCluster) -> None:
    check(node, "exec", "store-0", "--", "sh", "-c", "id -u > /data/owner")
    before = get(node, "pod", "store-0")["metadata"]["uid"]
    check(node, "delete", "pod", "store-0")

    def is_new() -> bool:
        result = node.try_kubectl("--namespace=check", "get", "pod", "store-0", "--output=jsonpath={.metadata.uid}")
        return result.returncode == 0 and result.stdout != before

    wait_for("store-0 again", is_new, 30)
    check(node, "wait", "--for=condition=Ready", "pod/store-0", "--timeout=30s")
    assert check(node, "exec", "store-0", "--", "cat", "/data/owner") == "65532\n"


def test_pod_security_refuses_a_privileged_pod(node: RunningCluster, app_image: str) -> None:
    refused = node.try_kubectl("--namespace=check", "run", "bad", f"--image={app_image}", "--privileged")
    assert refused.returncode != 0
    assert "violates PodSecurity" in refused.stderr


def test_an_unready_pod_gets_no_traffic(node: RunningCluster) -> None:
    wait_for("both endpoints", lambda: ready_endpoints(node) == 2, 15)
    pod, other = web_pods(node)
    address = service_ip(node, "web")
    check(node, "exec", pod, "--", "touch", "/tmp/unready")
    wait_for("one endpoint less", lambda: ready_endpoints(node) == 1, 15)
    wait_for("traffic to the other pod only", lambda: {fetch(f"http://{address}") for _ in range(8)} == {other}, 10)
    check(node, "exec", pod, "--", "rm", "/tmp/unready")
    wait_for("the endpoint again", lambda: ready_endpoints(node) == 2, 15)


def test_owned_objects_are_collected(node: RunningCluster) -> None:
    check(node, "create", "configmap", "parent")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": get(node, "configmap", "parent")["metadata"]["uid"]}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": [owner]}}
    check(node, "create", "--filename=-", text=json.dumps(child))
    check(node, "delete", "configmap", "parent")
    check(node, "wait", "--for=delete", "configmap/child", "--timeout=30s")


def test_custom_resources_have_rules_status_and_scale(node: RunningCluster) -> None:
    def create(dimension: int) -> subprocess.CompletedProcess[str]:
        thing = {"apiVersion": "check.example/v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": {"dimension": dimension}}
        return node.try_kubectl("--namespace=check", "create", "--filename=-", text=json.dumps(thing))

    assert "must be a multiple of 8" in create(7).stderr
    assert create(8).returncode == 0
    changed = node.try_kubectl("--namespace=check", "patch", "thing", "one", "--type=merge", "--patch", '{"spec": {"dimension": 16}}')
    assert "dimension is immutable" in changed.stderr
    both = '{"status": {"replicas": 1}, "spec": {"dimension": 16}}'
    check(node, "patch", "thing", "one", "--type=merge", "--subresource=status", "--patch", both)
    check(node, "scale", "thing", "one", "--replicas=3")
    result = get(node, "thing", "one")
    assert (result["spec"], result["status"]) == ({"dimension": 8, "replicas": 3}, {"replicas": 1})


def test_a_service_account_has_only_the_rights_it_was_given(node: RunningCluster) -> None:
    code = (
        "import ssl, urllib.request as r; d='/var/run/secrets/kubernetes.io/serviceaccount/'; "
        "q=r.Request('https://kubernetes.default.svc/api/v1/namespaces/check/pods', "
        "headers={'Authorization': 'Bearer '+open(d+'token').read()})\n"
        "try: print(r.urlopen(q, context=ssl.create_default_context(cafile=d+'ca.crt'), timeout=5).status)\n"
        "except r.HTTPError as e: print(e.code)"
    )
    assert in_pod(node, "store-1", code) == "403"
    check(node, "create", "rolebinding", "view", "--clusterrole=view", "--serviceaccount=check:default")
    wait_for("the right to be seen", lambda: in_pod(node, "store-1", code) == "200", 10)


def test_a_server_on_the_host_is_reached_by_address_and_by_name(node: RunningCluster) -> None:
    host_ip = slot_of(node).host_ip
    with socket.create_server((host_ip, 15432)) as server:

        def answer() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"hello from host")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        for host, port in ((host_ip, 15432), ("on-host.check.svc", 5432)):
            code = f"import socket; print(socket.create_connection(('{host}', {port}), 5).recv(99).decode())"
            assert in_pod(node, "store-0", code) == "hello from host"
        thread.join(5)


def test_network_policies_are_enforced_in_both_directions(node: RunningCluster) -> None:
    pod, other = web_pods(node)
    address = get(node, "pod", other)["status"]["podIP"]
    assert fetch_in_pod(node, pod, f"http://{address}:8080") == other

    def is_blocked(source: str, url: str) -> bool:
        try:
            fetch_in_pod(node, source, url, 1)
        except AssertionError as error:
            return "timed out" in str(error)
        return False

    check(node, "create", "--filename", HERE / "cluster-policies.yaml")
    wait_for("no way between the pods of web", lambda: is_blocked(pod, f"http://{address}:8080"), 15)
    assert fetch_in_pod(node, "store-0", f"http://{address}:8080") == other  # a friend may call
    assert is_blocked(pod, f"http://{slot_of(node).kubernetes_ip}:443")
    assert in_pod(node, pod, "import socket; print(socket.gethostbyname('web'))") == service_ip(node, "web")
    assert ready_endpoints(node) == 2  # the kubelet's probes are not subject to policies
    check(node, "delete", "networkpolicy", "web")
    wait_for("the way to be open again", lambda: not is_blocked(pod, f"http://{address}:8080"), 15)


def test_a_second_cluster_runs_beside_the_first_and_leaves_no_trace(node: RunningCluster, app_image: str) -> None:
    before = host_state()
    with node_cluster(f"{NAME}-beside") as second:
        slot = slot_of(second)
        assert slot != slot_of(node)
        second.load_image(app_image)
        objects = string.Template((HERE / "cluster-objects.yaml").read_text())
        second.kubectl("create", "-f", "-", text=objects.substitute(IMAGE=app_image, HOST_IP=slot.host_ip))
        check(second, "rollout", "status", "deployment/web", "--timeout=60s")
        pods = {address: set(web_pods(cluster)) for cluster in (node, second) for address in [service_ip(cluster, "web")]}
        assert len(pods) == 2
        for address, names in pods.items():
            wait_for("an answer", lambda address=address, names=names: fetch(f"http://{address}") in names, 15)  # type: ignore[misc]
        state = Cluster(second.name).state
    assert traces(slot, state) == []
    wait_for("the host to be as it was", lambda: host_state() == before, 5)
    assert fetch(f"http://{service_ip(node, 'web')}") in web_pods(node)


def test_a_cluster_ends_when_its_starter_is_killed() -> None:
    program = (
        "import os, signal\n"
        "from tests.support.cluster import node_cluster\n"
        f"with node_cluster('{NAME}-killed') as cluster:\n"
        "    print('up', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    cluster = Cluster(f"{NAME}-killed")
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, stdout=subprocess.PIPE, check=False)
    assert (result.returncode, result.stdout) == (-signal.SIGKILL, "up\n")
    wait_for("the state folder to be gone", lambda: not cluster.state.exists(), 15)
    assert processes_of(cluster.state) == []


def test_postgres_image_sets_up_a_database_with_pgvector_under_restricted_pod_security(node: RunningCluster) -> None:
    image = run_cluster_command("build-image", "vectorindex-postgres", str(ROOT), "-f", str(ROOT / "examples" / "postgres" / "Dockerfile"))
    node.load_image(image)
    check(node, "create", "-f", "-", text=string.Template((HERE / "cluster-postgres.yaml").read_text()).substitute(IMAGE=image))
    check(node, "wait", "--for=condition=Ready", "pod/postgres", "--timeout=60s")

    def query(password: str, sql: str) -> subprocess.CompletedProcess[str]:
        address = f"postgresql://boss:{password}@postgres.check.svc/app"
        return node.try_kubectl("--namespace=check", "exec", "postgres", "--", "psql", "--no-psqlrc", "-At", address, "-c", sql)

    assert query("wrong", "SELECT 1").stderr.count("password authentication failed")
    created = query("first%20secret", "CREATE EXTENSION vector; SELECT '[1,2]'::vector <-> '[1,3]'::vector; SELECT count(*) FROM made")
    assert created.stdout.splitlines() == ["CREATE EXTENSION", "1", "3"], created.stderr
    # Process 1 is the server itself, and the data outlast the container.
    assert check(node, "exec", "postgres", "--", "cat", "/proc/1/comm").strip() == "postgres"
    node.try_kubectl("--namespace=check", "exec", "postgres", "--", "sh", "-c", "kill -INT 1")
    wait_for(
        "the container to be restarted", lambda: get(node, "pod", "postgres")["status"]["containerStatuses"][0]["restartCount"] == 1, 30
    )
    wait_for("the rows again", lambda: query("first%20secret", "SELECT count(*) FROM made").stdout == "3\n", 30)


def test_up_ends_only_the_previous_cluster_of_its_own_name(node: RunningCluster) -> None:
    run_cluster_command("control-plane", "--name", f"{NAME}-again")
    try:
        first = Cluster(f"{NAME}-again").pid
        run_cluster_command("control-plane", "--name", f"{NAME}-again")
        assert Cluster(f"{NAME}-again").pid not in (None, first)
        assert Cluster(node.name).pid is not None
    finally:
        run_cluster_command("down", "--name", f"{NAME}-again")
    assert not Cluster(f"{NAME}-again").state.exists()


def test_the_control_plane_alone_needs_no_privilege_and_listens_on_loopback() -> None:
    name = f"{NAME}-plain"
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "cluster", "control-plane", "--name", name]
    try:
        result = subprocess.run(powerless, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True)
        server = json.loads(Path(result.stdout.strip()).read_text())["clusters"][0]["cluster"]["server"]
        assert re.fullmatch(r"https://127\.0\.0\.1:\d+", server)
        assert RunningCluster(name, Path(result.stdout.strip())).get("namespaces")["items"]
    finally:
        run_cluster_command("down", "--name", name)


def host_state() -> dict[str, object]:
    """Return what a cluster could change on the host for good."""
    found: dict[str, object] = {
        "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "sysctls": [Path(f"/proc/sys/{name}").read_text() for name in SYSCTLS],
        "folders": [path for path in FOLDERS if Path(path).exists()],
    }
    for name, command in (("nftables", ["nft", "list", "ruleset"]), ("network namespaces", ["ip", "netns"])):
        found[name] = subprocess.run(command, text=True, capture_output=True, check=False).stdout
    return found


def traces(slot: Slot, state: Path) -> list[str]:
    """Return what is left of a node: link, routes, control groups, processes, state folder."""
    found = [f"process {pid}" for pid in processes_of(state)]
    if Path(f"/sys/class/net/{slot.host_link}").exists():
        found.append(slot.host_link)
    routes = subprocess.run(["ip", "route"], text=True, capture_output=True, check=True).stdout.splitlines()
    found.extend(route for route in routes if slot.node_ip in route or slot.host_ip in route)
    found.extend(str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{slot.cgroup}"))
    return [*found, str(state)] if state.exists() else found


def processes_of(state: Path) -> list[int]:
    """Return the processes whose command line names a cluster's state folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{state}/".encode() in path.read_bytes() + b"/":
                found.append(int(path.parent.name))
    return found
