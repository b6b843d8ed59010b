"""What the pods may do and whom they reach, where Kubernetes enforces it: Pod Security, NetworkPolicies, rights, what is mounted."""

import json
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from examples.wordnet.steps import world
from examples.wordnet.steps.report import StepError, wait_until
from examples.wordnet.steps.world import CLIENT, INDEX, SEARCH, SYSTEM, World

OUTSIDE = "outside"
MONITORING = "monitoring"
POSTGRES = "postgres-0"
MEMBER = f"{INDEX}-index-0"
OTHER_MEMBER = f"{INDEX}-index-1"

# Tries all addresses side by side; a policy drops packets, so a barred way shows by silence.
PROBE = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def reached(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except (TimeoutError, ConnectionRefusedError, socket.gaierror) as error:
        return type(error).__name__
    return "reached"

with ThreadPoolExecutor(16) as pool:
    print(json.dumps(dict(zip(sys.argv[1:], pool.map(reached, sys.argv[1:])))))
"""

LIMITS = """
import json, os, pathlib
def writable(path):
    try:
        pathlib.Path(path, "probe").touch()
    except OSError:
        return False
    return True
print(json.dumps({
    "uid": os.getuid(),
    "core": next(line for line in open("/proc/1/limits") if line.startswith("Max core file size")).split()[4:6],
    "capabilities": next(line for line in open("/proc/1/status") if line.startswith("CapEff")).split()[1],
    "seccomp": next(line for line in open("/proc/1/status") if line.startswith("Seccomp:")).split()[1],
    "writable": [path for path in ("/", "/opt/venv", "/etc") if writable(path)],
    "account": sorted(path.name for path in pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount").glob("[a-z]*")),
}))
"""

pytestmark = pytest.mark.usefixtures("index")


@pytest.fixture(scope="module")
def outsiders(scene: World) -> Iterator[None]:
    """A client where scrapes come from, one beside the operator, and a stranger, beside a server on a port of the API server."""
    for namespace in (OUTSIDE, MONITORING, SYSTEM):
        world.make_namespace(scene, namespace)
        world.start_client(scene, namespace)
    server = world.build_client(scene.images.indexer)
    server["metadata"]["name"] = "server"
    server["spec"]["containers"][0]["command"] = ["python3", "-m", "http.server", "6443", "--directory=/scripts"]
    scene.kubernetes.apply(server, namespace=OUTSIDE)
    scene.kubernetes.kubectl("wait", "pod/server", f"--namespace={OUTSIDE}", "--for=condition=Ready", "--timeout=60s", timeout_seconds=70)
    wait_until("the server outside to answer", lambda: reach(scene, OUTSIDE, CLIENT, f"{ip(scene, OUTSIDE, 'server')}:6443"), 20)
    yield
    scene.kubernetes.kubectl("delete", "pod", CLIENT, f"--namespace={SYSTEM}", "--wait=false")
    for namespace in (OUTSIDE, MONITORING):
        scene.kubernetes.kubectl("delete", "namespace", namespace, "--wait=false")


def ip(scene: World, namespace: str, pod: str) -> str:
    address: str = scene.kubernetes.get("pod", pod, f"--namespace={namespace}")["status"]["podIP"]
    return address


def reach(scene: World, namespace: str, pod: str, *targets: str) -> set[str]:
    """Return which of these addresses the pod can connect to."""
    answers = json.loads(scene.kubernetes.execute(namespace, pod, "python3", "-c", PROBE, *targets))
    return {target for target, answer in answers.items() if answer == "reached"}


def run(scene: World, namespace: str, pod: str, code: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(scene.kubernetes.execute(namespace, pod, "python3", "-c", code))
    return found


def api_server(scene: World) -> str:
    address: str = scene.kubernetes.get("service", "kubernetes", "--namespace=default")["spec"]["clusterIP"]
    return f"{address}:443"


def dns(scene: World) -> str:
    lines = scene.kubernetes.execute(SEARCH, CLIENT, "cat", "/etc/resolv.conf").splitlines()
    return next(line.split()[1] for line in lines if line.startswith("nameserver")) + ":53"


def test_an_index_pod_reaches_postgres_and_dns_and_nothing_else(scene: World, outsiders: None) -> None:
    postgres = f"postgres.{SEARCH}.svc.cluster.local:5432"  # by its name: DNS is reached, too
    barred = {
        api_server(scene),
        f"{ip(scene, OUTSIDE, 'server')}:6443",
        f"{ip(scene, SEARCH, OTHER_MEMBER)}:8080",
    }
    assert reach(scene, SEARCH, CLIENT, postgres, *barred) == {postgres, *barred}  # all of them listen
    assert reach(scene, SEARCH, MEMBER, postgres, *barred) == {postgres}


def test_only_clients_search_and_only_operator_and_monitoring_read_status(scene: World, outsiders: None) -> None:
    search, ops = (f"{ip(scene, SEARCH, MEMBER)}:{port}" for port in (8080, 9090))
    assert reach(scene, SEARCH, CLIENT, search, ops) == {search}
    assert reach(scene, MONITORING, CLIENT, search, ops) == {ops}
    assert reach(scene, SYSTEM, world.operators(scene)[0], search, ops) == {ops}
    assert reach(scene, OUTSIDE, CLIENT, search, ops) == set()
    assert reach(scene, SYSTEM, CLIENT, search, ops) == set()  # nobody else in the operator's namespace


def test_the_operator_reaches_the_api_server_and_members_and_nothing_else(scene: World, outsiders: None) -> None:
    allowed = {api_server(scene), *(f"{ip(scene, SEARCH, pod)}:9090" for pod in (MEMBER, OTHER_MEMBER))}
    barred = {
        f"{ip(scene, OUTSIDE, 'server')}:6443",  # a port of the API server, elsewhere
        f"{ip(scene, SEARCH, POSTGRES)}:5432",
        f"{ip(scene, SEARCH, MEMBER)}:8080",
        dns(scene),
    }
    for operator in world.operators(scene):
        assert reach(scene, SYSTEM, operator, *allowed, *barred) == allowed


def test_only_monitoring_reaches_the_operator(scene: World, outsiders: None) -> None:
    address = f"{ip(scene, SYSTEM, world.operators(scene)[0])}:9090"
    assert reach(scene, MONITORING, CLIENT, address) == {address}
    assert reach(scene, SEARCH, CLIENT, address) == set()
    assert reach(scene, OUTSIDE, CLIENT, address) == set()


def test_pods_can_do_little(scene: World) -> None:
    expected = {"uid": 65532, "core": ["0", "0"], "capabilities": "0" * 16, "seccomp": "2", "writable": []}
    assert run(scene, SEARCH, MEMBER, LIMITS) == expected | {"account": []}  # an index pod has no token at all
    assert run(scene, SYSTEM, world.operators(scene)[0], LIMITS) == expected | {"account": ["ca.crt", "namespace", "token"]}


def test_the_operators_token_lives_an_hour_and_is_for_nobody_else(scene: World) -> None:
    code = (
        "import base64, json; part = open('/var/run/secrets/kubernetes.io/serviceaccount/token').read().split('.')[1];"
        "claims = json.loads(base64.urlsafe_b64decode(part + '=' * (-len(part) % 4)));"
        "print(json.dumps([claims['exp'] - claims['iat'], claims['kubernetes.io']['pod']['name'], claims['sub']]))"
    )
    operator = world.operators(scene)[0]
    token = json.loads(scene.kubernetes.execute(SYSTEM, operator, "python3", "-c", code))
    assert token == [3600, operator, f"system:serviceaccount:{SYSTEM}:vectorindex"]


def test_the_operators_account_may_do_nothing_beyond_its_role(scene: World) -> None:
    """What the API server itself makes of the roles, as anything else in the cluster might have added to them."""
    account = f"--as=system:serviceaccount:{SYSTEM}:vectorindex"
    stranger = f"--as=system:serviceaccount:{SYSTEM}:stranger"

    def rights(namespace: str, who: str) -> set[str]:
        lines = scene.kubernetes.kubectl("auth", "can-i", "--list", "--no-headers", f"--namespace={namespace}", who).splitlines()
        return {" ".join(line.split()) for line in lines}

    assert {right.split()[0] for right in rights(SYSTEM, account) - rights(SYSTEM, stranger)} == {"leases.coordination.k8s.io"}
    own = {right.split()[0] for right in rights(SEARCH, account) - rights(SEARCH, stranger)}
    assert "statefulsets.apps" in own
    assert not own & {"secrets", "pods/exec", "*", "*.*", "serviceaccounts/token"}


def test_pod_security_had_nothing_to_refuse_or_to_warn_of(scene: World) -> None:
    """The API server counts what it found wrong in any of the three modes, also in what the operator and controllers wrote."""
    if scene.cluster is None:
        pytest.skip("somebody else's cluster counts what others did, too")
    assert find_violations(scene) == set()
    # It would have counted one: a pod and a workload that ask for too much, which are not stored.
    pod = {"containers": [{"name": "loose", "image": "loose", "securityContext": {"privileged": True}}]}
    labels = {"matchLabels": {"a": "b"}}
    workload = {"selector": labels, "template": {"metadata": {"labels": labels["matchLabels"]}, "spec": pod}}
    for namespace in (SYSTEM, SEARCH):
        loose = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "loose"}, "spec": workload}
        scene.kubernetes.kubectl("create", "--dry-run=server", "--filename=-", f"--namespace={namespace}", text=json.dumps(loose))
        with pytest.raises(StepError, match="violates PodSecurity"):
            loose = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose"}, "spec": pod}
            scene.kubernetes.kubectl("create", "--dry-run=server", "--filename=-", f"--namespace={namespace}", text=json.dumps(loose))
    assert find_violations(scene) >= {("enforce", "pod"), ("warn", "controller"), ("audit", "controller")}


def find_violations(scene: World) -> set[tuple[str, str]]:
    families = text_string_to_metric_families(scene.kubernetes.kubectl("get", "--raw", "/metrics"))
    samples = [sample for family in families for sample in family.samples if sample.name == "pod_security_evaluations_total"]
    assert any(sample.labels["policy_level"] == "restricted" and sample.value for sample in samples)
    return {
        (sample.labels["mode"], sample.labels["resource"]) for sample in samples if sample.labels["decision"] == "deny" and sample.value
    }
