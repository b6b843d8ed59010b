"""Two real operators on a real API server: one acts, the other takes over, and who no longer leads changes nothing."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.support.api_proxy import ApiProxy, Call, api_proxy
from tests.support.cluster import RunningCluster
from tests.support.gate import Gate, gate
from tests.support.operator_process import SYSTEM, OperatorProcess, make_account, wait_for
from vectorindex_operator.__main__ import LOST
from vectorindex_operator.api import Json
from vectorindex_operator.lease import DURATION, RENEW_DEADLINE

Apply = Callable[..., None]

LEASE = "vectorindex"


@dataclass(frozen=True)
class Pair:
    """Two operators, each with a way of its own to the API server."""

    cluster: RunningCluster
    processes: tuple[OperatorProcess, OperatorProcess]
    gates: tuple[Gate, Gate]
    proxies: tuple[ApiProxy, ApiProxy]

    def roles(self) -> tuple[OperatorProcess, OperatorProcess]:
        """Return who leads and who waits."""
        first, second = self.processes
        leads = wait_for("one of them leads", lambda: [p for p in (first, second) if p.runs() and p.leads()], 20)
        assert len(leads) == 1
        return (first, second) if leads[0] is first else (second, first)

    def gate_of(self, process: OperatorProcess) -> Gate:
        return self.gates[self.processes.index(process)]

    def proxy_of(self, process: OperatorProcess) -> ApiProxy:
        return self.proxies[self.processes.index(process)]

    def lease(self) -> Json:
        spec: Json = self.cluster.get("lease", LEASE, "-n", SYSTEM)["spec"]
        return spec


@pytest.fixture(scope="module")
def two(cluster: RunningCluster, operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Provide two operators that elect one; that of the other tests rests meanwhile."""
    folder = tmp_path_factory.mktemp("pair")
    account = make_account(cluster, folder)
    assert operator.stop() == 0
    processes, gates, proxies = [], [], []
    with ExitStack() as stack:
        for name in ("one", "two"):
            own = folder / name
            own.mkdir()
            proxies.append(stack.enter_context(api_proxy(account, own)))
            path = proxies[-1].wrap(account)
            config = json.loads(path.read_text())
            gates.append(stack.enter_context(gate("127.0.0.1", proxies[-1].port)))
            config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{gates[-1].port}"
            path.write_text(json.dumps(config))
            processes.append(OperatorProcess(path, own / "operator.log", VECTORINDEX_LEASE_NAME=LEASE, POD_NAME=name))
        try:
            yield Pair(cluster, (processes[0], processes[1]), (gates[0], gates[1]), (proxies[0], proxies[1]))
        finally:
            for process in processes:
                process.end()
            operator.start()


@pytest.fixture
def pair(two: Pair) -> Pair:
    """Let both operators run, one of them leading."""
    for process in two.processes:
        if not process.runs():
            process.start()
    two.roles()
    return two


def has_pods(cluster: RunningCluster, namespace: str, name: str) -> bool:
    return cluster.try_kubectl("get", "statefulset", f"{name}-index", "-n", namespace).returncode == 0


def wait_pods(pair: Pair, namespace: str, name: str, seconds: float) -> None:
    """Wait until somebody has acted on the index."""
    wait_for(f"{name} has its pods", lambda: has_pods(pair.cluster, namespace, name), seconds)


def test_only_the_holder_of_the_lease_acts_and_both_are_ready(pair: Pair, namespace: str, apply: Apply) -> None:
    leader, standby = pair.roles()
    apply()
    wait_pods(pair, namespace, "docs", 10)
    assert leader.writes() > 0
    assert standby.writes() == 0
    assert leader.answers("/readyz")
    assert standby.answers("/readyz")
    lease = pair.lease()
    assert lease["holderIdentity"].startswith(("one_", "two_"))
    assert lease["leaseDurationSeconds"] == 10
    assert leader.metric("vectorindex_operator_lease_requests_total", method="PUT") is not None


def test_another_acts_within_15_s_of_the_death_of_the_leader(pair: Pair, namespace: str, apply: Apply) -> None:
    leader, standby = pair.roles()
    transitions = pair.lease()["leaseTransitions"]
    leader.kill()
    apply()
    wait_pods(pair, namespace, "docs", 15)
    assert standby.leads()
    assert pair.lease()["leaseTransitions"] == transitions + 1


def test_a_leader_told_to_end_lets_the_other_lead_at_once(pair: Pair, namespace: str, apply: Apply) -> None:
    leader, standby = pair.roles()
    assert leader.stop() == 0
    assert pair.lease()["holderIdentity"] == "" or standby.leads()
    apply()
    wait_pods(pair, namespace, "docs", 5)


def test_a_leader_that_slept_writes_nothing_and_ends(pair: Pair, namespace: str, apply: Apply) -> None:
    """It falls asleep in the midst of a look, with the answer to its first write on the way and the next one to be sent at once."""
    leader, standby = pair.roles()
    sent: list[str] = []
    asleep = threading.Event()

    def note(call: Call) -> None:
        if call.is_write and call.namespace == namespace:
            sent.append(f"{call.verb} {call.resource}")

    def fall_asleep(call: Call) -> None:
        if call.is_write and call.namespace == namespace and not asleep.is_set():
            leader.pause()
            asleep.set()

    with pair.proxy_of(leader).fault(answer=note, done=fall_asleep):
        apply()
        assert asleep.wait(10)
        slept = time.monotonic()
        wait_pods(pair, namespace, "docs", 15)
        time.sleep(max(0.0, slept + 2 * DURATION.total_seconds() - time.monotonic()))  # two leases in all
        before = written(pair.cluster, namespace)
        assert len(sent) == 1
        leader.resume()
        assert leader.wait(10) == LOST
    assert sent[1:] == []
    assert written(pair.cluster, namespace) == before
    leader.start()  # as Kubernetes does
    assert standby.leads()
    assert not leader.leads()


def written(cluster: RunningCluster, namespace: str) -> dict[str, str]:
    """Return the version of everything that an operator writes, as the API server knows it."""
    kinds = "statefulset,service,configmap,poddisruptionbudget,networkpolicy,vidx,events"
    items = cluster.get(kinds, "-n", namespace)["items"]
    return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in items}


@pytest.mark.slow
def test_a_leader_cut_off_from_the_api_server_ends_in_time_and_comes_back(pair: Pair, namespace: str, apply: Apply) -> None:
    leader, standby = pair.roles()
    pair.gate_of(leader).silence()
    pair.gate_of(leader).shut()
    started = time.monotonic()
    assert leader.wait(15) == LOST
    assert time.monotonic() - started < RENEW_DEADLINE.total_seconds() + 6
    wait_for("the other leads", standby.leads, 15)
    apply()
    wait_pods(pair, namespace, "docs", 10)
    pair.gate_of(leader).open()
    leader.start()
    assert not leader.leads()
    assert standby.stop() == 0
    wait_for("it leads again", leader.leads, 5)
