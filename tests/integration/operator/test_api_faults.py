"""The API server answers, but badly: each fault is borne without an exit, without a loss and without a hot loop."""

import itertools
import time
from collections.abc import Callable

import pytest

from tests.integration.operator.conftest import Proxied
from tests.support.api_proxy import Call, Reply, refuse
from tests.support.cluster import RunningCluster
from tests.support.operator_process import wait_for
from vectorindex_operator.api import Json

Apply = Callable[..., None]
Read = Callable[[], Json]

CHILDREN = "statefulset,service,configmap,poddisruptionbudget,networkpolicy"
RETRY_AFTER = 3


def replicas(cluster: RunningCluster, namespace: str, name: str = "docs") -> int:
    """Return how many replicas the StatefulSet of an index has; 0 when there is none."""
    found = cluster.get("statefulset", "-n", namespace, "-l", f"vectorindex.dev/index={name}")["items"]
    return int(found[0]["spec"]["replicas"]) if found else 0


def objects(cluster: RunningCluster, namespace: str) -> list[Json]:
    found: list[Json] = cluster.get(CHILDREN, "-n", namespace, "-l", "vectorindex.dev/index")["items"]
    return found


@pytest.fixture
def started(proxied: Proxied, cluster: RunningCluster, namespace: str, apply: Apply, read: Read) -> Proxied:
    """An index that has its objects and a status, and watches of all kinds."""
    apply()
    wait_for("the index has its objects", lambda: len(objects(cluster, namespace)) == 7 and read()["status"].get("conditions"))
    wait_for("all kinds are watched", lambda: len(proxied.proxy.watched()) >= 7)
    return proxied


def test_a_pause_that_the_api_server_asks_for_is_kept_by_all_requests(
    started: Proxied, cluster: RunningCluster, namespace: str, apply: Apply
) -> None:
    before = len(started.proxy.calls())

    def throttle(call: Call) -> Reply | None:
        return refuse(429, "TooManyRequests", Retry_After=str(RETRY_AFTER)) if call.verb != "watch" else None

    with started.proxy.fault(answer=throttle):
        apply(replicas=3)
        apply("more")
        time.sleep(3 * RETRY_AFTER)
    throttled = [call for call in started.proxy.calls()[before:] if call.code == 429]
    assert throttled
    moments = [call.at for call in throttled]
    gaps = [later - sooner for sooner, later in itertools.pairwise(moments)]
    # a worker may have sent its request before another one's was refused; from then on all wait together
    assert sum(gap > RETRY_AFTER * 0.9 for gap in gaps) >= 2, [str(call) for call in throttled]
    assert len(throttled) <= 4 * 4, [str(call) for call in throttled]
    wait_for("the change is made", lambda: replicas(cluster, namespace) == 3, 15)
    wait_for("the new index has its pods", lambda: replicas(cluster, namespace, "more") == 2, 15)
