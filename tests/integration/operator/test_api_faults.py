"""The API server answers, but badly: each fault is borne without an exit, without a loss and without a hot loop."""

import itertools
import json
import threading
import time
from collections.abc import Callable

import pytest

from tests.integration.operator.conftest import Proxied
from tests.support.api_proxy import ApiProxy, Call, Reply, error_line, refuse
from tests.support.cluster import RunningCluster
from tests.support.operator_process import wait_for
from vectorindex_operator.api import Json

Apply = Callable[..., None]
Read = Callable[[], Json]

CHILDREN = "statefulset,service,configmap,poddisruptionbudget,networkpolicy"
RETRY_AFTER = 2
CAUGHT_UP = 30  # seconds in which all is made good once a fault is over
MOST_A_SECOND = 25  # requests: what the watches of all kinds need to begin anew once a second, and some more


def stateful_set(cluster: RunningCluster, namespace: str, name: str = "docs") -> Json | None:
    found = cluster.get("statefulset", "-n", namespace, "-l", f"vectorindex.dev/index={name}")["items"]
    return found[0] if found else None


def replicas(cluster: RunningCluster, namespace: str, name: str = "docs") -> int:
    """Return how many replicas the StatefulSet of an index has; 0 when there is none."""
    found = stateful_set(cluster, namespace, name)
    return int(found["spec"]["replicas"]) if found else 0


def objects(cluster: RunningCluster, namespace: str) -> dict[str, str]:
    """Return the version of each object of all indexes, by kind, name and UID."""
    found = cluster.get(CHILDREN, "-n", namespace, "-l", "vectorindex.dev/index")["items"]
    metas = [(item["kind"], item["metadata"]) for item in found]
    return {f"{kind}/{meta['name']}/{meta['uid']}": str(meta["resourceVersion"]) for kind, meta in metas}


@pytest.fixture
def started(proxied: Proxied, cluster: RunningCluster, namespace: str, apply: Apply, read: Read) -> Proxied:
    """An index that has its objects and a status, and watches of all kinds."""
    apply()
    wait_for("the index has its objects", lambda: len(objects(cluster, namespace)) == 7 and read()["status"].get("conditions"))
    wait_for("all kinds are watched", lambda: len(proxied.proxy.watched()) >= 7)
    return proxied


def change_all(cluster: RunningCluster, namespace: str, apply: Apply) -> None:
    """Make one change of each sort: a spec, a new index, a lost object, a damaged one."""
    apply(replicas=3)
    apply("more")
    cluster.kubectl("delete", "service", "docs-index", "-n", namespace)
    cluster.kubectl("patch", "networkpolicy", "docs-index", "-n", namespace, "--type=merge", "-p", json.dumps({"spec": {"ingress": [{}]}}))


def wait_until_all_is_made_good(operator: Proxied, cluster: RunningCluster, namespace: str) -> None:
    def is_good() -> bool:
        items = cluster.get(CHILDREN, "-n", namespace, "-l", "vectorindex.dev/index")["items"]
        found = {f"{item['kind']}/{item['metadata']['name']}": item["spec"] for item in items if item["kind"] != "ConfigMap"}
        return (
            len(items) == 14
            and found.get("StatefulSet/docs-index", {}).get("replicas") == 3
            and found.get("StatefulSet/more-index", {}).get("replicas") == 2
            and "Service/docs-index" in found
            and len(found["NetworkPolicy/docs-index"]["ingress"]) == 2
        )

    wait_for("all is made good", is_good, CAUGHT_UP)
    assert operator.process.answers("/livez")
    wait_for("all kinds are watched again", lambda: len(operator.proxy.watched()) >= 7, CAUGHT_UP)
    wait_for("it is ready", lambda: operator.process.answers("/readyz"), CAUGHT_UP)


def hold(operator: Proxied, seconds: float, since: int) -> None:
    """Let a fault last; the operator must live through it, and ask no more than a little."""
    time.sleep(seconds)
    assert operator.process.answers("/livez")
    made = operator.proxy.calls()[since:]
    assert len(made) < MOST_A_SECOND * seconds, f"{len(made)} requests in {seconds} s, the last: {[str(call) for call in made[-20:]]}"


def test_a_pause_that_the_api_server_asks_for_is_kept_by_all_requests(
    started: Proxied, cluster: RunningCluster, namespace: str, apply: Apply
) -> None:
    before = len(started.proxy.calls())

    def throttle(call: Call) -> Reply | None:
        return refuse(429, "TooManyRequests", Retry_After=str(RETRY_AFTER)) if call.verb != "watch" else None

    with started.proxy.fault(answer=throttle):
        change_all(cluster, namespace, apply)
        hold(started, 3 * RETRY_AFTER, before)
    throttled = [call for call in started.proxy.calls()[before:] if call.code == 429]
    assert throttled
    moments = [call.at for call in throttled]
    gaps = [later - sooner for sooner, later in itertools.pairwise(moments)]
    # a worker may have sent its request before another one's was refused; from then on all wait together
    assert sum(gap > RETRY_AFTER * 0.9 for gap in gaps) >= 2, [str(call) for call in throttled]
    assert len(throttled) <= 4 * 4, [str(call) for call in throttled]
    wait_until_all_is_made_good(started, cluster, namespace)


# kopf gives up after 54 s unless told otherwise.
REFUSALS = [
    (503, 5),
    pytest.param((401, 12), marks=pytest.mark.slow),
    *(pytest.param((code, 75), marks=pytest.mark.slow) for code in (500, 503, 403, 401, 429)),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_an_api_server_that_refuses_everything_is_caught_up_with(
    started: Proxied, cluster: RunningCluster, namespace: str, apply: Apply, refusal: tuple[int, int]
) -> None:
    code, seconds = refusal
    before = len(started.proxy.calls())
    with started.proxy.fault(answer=lambda _: refuse(code, "Refused")):
        started.proxy.cut()
        change_all(cluster, namespace, apply)
        hold(started, seconds, before)
    wait_until_all_is_made_good(started, cluster, namespace)


def test_a_conflict_at_every_second_write_stops_nothing(started: Proxied, cluster: RunningCluster, namespace: str, apply: Apply) -> None:
    count = itertools.count()
    with started.proxy.fault(answer=lambda call: refuse(409, "Conflict") if call.is_write and next(count) % 2 else None):
        change_all(cluster, namespace, apply)
        wait_until_all_is_made_good(started, cluster, namespace)
    assert next(count) > 10


def test_a_page_of_somebody_else_in_place_of_answers_is_borne(
    started: Proxied, cluster: RunningCluster, namespace: str, apply: Apply
) -> None:
    page = Reply(200, b"<html>be patient</html>", {"Content-Type": "text/html"})
    before = len(started.proxy.calls())
    with started.proxy.fault(answer=lambda _: page):
        started.proxy.cut()
        change_all(cluster, namespace, apply)
        hold(started, 5, before)
    wait_until_all_is_made_good(started, cluster, namespace)


@pytest.mark.slow
def test_a_conflict_at_every_write_makes_no_hot_loop(started: Proxied, cluster: RunningCluster, namespace: str, apply: Apply) -> None:
    before = len(started.proxy.calls())
    with started.proxy.fault(answer=lambda call: refuse(409, "Conflict") if call.is_write else None):
        change_all(cluster, namespace, apply)
        hold(started, 6, before)
    wait_until_all_is_made_good(started, cluster, namespace)


def _end_in_half_a_line(proxy: ApiProxy) -> None:
    proxy.tell(b'{"type":"MODIFIED","object":{"metad')
    proxy.cut()


IN_STREAM: dict[str, Callable[[ApiProxy], object]] = {
    "gone": lambda proxy: proxy.tell(error_line(410, "Expired")),
    "error": lambda proxy: proxy.tell(error_line(500, "InternalError")),
    "half": _end_in_half_a_line,
    "malformed": lambda proxy: proxy.tell(b"{nonsense}\n"),
    "no object": lambda proxy: proxy.tell(b'{"type":"MODIFIED"}\n'),
    "empty object": lambda proxy: proxy.tell(b'{"type":"MODIFIED","object":{}}\n'),
    "unknown type": lambda proxy: proxy.tell(b'{"type":"NEWS","object":{}}\n'),
    "one of them": lambda proxy: proxy.tell(error_line(500, "InternalError"), "services"),
}
SHORT = ("gone", "half")


@pytest.mark.parametrize("what", [pytest.param(name, marks=() if name in SHORT else pytest.mark.slow) for name in IN_STREAM])
def test_what_a_stream_ends_in_costs_nothing(started: Proxied, cluster: RunningCluster, namespace: str, apply: Apply, what: str) -> None:
    before = len(started.proxy.calls())
    IN_STREAM[what](started.proxy)
    change_all(cluster, namespace, apply)
    wait_until_all_is_made_good(started, cluster, namespace)
    assert len(started.proxy.calls()) - before < 150


LASTING = {
    "gone at once": refuse(410, "Expired"),
    "gone in the stream": Reply(200, error_line(410, "Expired")),
    "error in the stream": Reply(200, error_line(500, "InternalError")),
    "half a line": Reply(200, b'{"type":"MODIFIED","object":{"metad'),
}


@pytest.mark.parametrize("what", [pytest.param(name, marks=() if name == "gone in the stream" else pytest.mark.slow) for name in LASTING])
def test_watches_that_go_on_failing_make_no_hot_loop(
    started: Proxied, cluster: RunningCluster, namespace: str, apply: Apply, what: str
) -> None:
    before = len(started.proxy.calls())
    with started.proxy.fault(answer=lambda call: LASTING[what] if call.verb == "watch" else None):
        started.proxy.cut()
        change_all(cluster, namespace, apply)
        hold(started, 5, before)
    wait_until_all_is_made_good(started, cluster, namespace)


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_stray_401_is_borne(started: Proxied, cluster: RunningCluster, namespace: str, apply: Apply, times: int) -> None:
    left = {"watch": times, "list": times, "patch": times, "create": times}
    lock = threading.Lock()

    def refuse_some(call: Call) -> Reply | None:
        with lock:
            if left.get(call.verb, 0) <= 0:
                return None
            left[call.verb] -= 1
        return refuse(401, "Unauthorized")

    with started.proxy.fault(answer=refuse_some):
        started.proxy.tell(error_line(410, "Expired"))  # so that it lists and watches anew
        change_all(cluster, namespace, apply)
        wait_until_all_is_made_good(started, cluster, namespace)
    assert set(left.values()) == {0}


LAGGING = {"the resource alone": ("vectorindexes",), "everything": ()}


@pytest.mark.parametrize("what", ["the resource alone", pytest.param("everything", marks=pytest.mark.slow)])
def test_lists_of_the_past_change_nothing(started: Proxied, cluster: RunningCluster, namespace: str, apply: Apply, what: str) -> None:
    """What the operator once listed is what a lagging API server may list again: an index of one replica, and one that is gone."""
    apply(replicas=1)
    apply("gone")
    wait_for("no budget for one", lambda: len(objects(cluster, namespace)) == 6 + 7)
    wait_for("it was looked at", lambda: cluster.get("vidx", "gone", "-n", namespace)["status"].get("conditions"))
    restart(started)
    past = started.proxy.answers(*LAGGING[what])
    model = {"columns": {"model": "model_name"}, "model": "m1"}
    apply(replicas=3, source=model)
    cluster.kubectl("delete", "vidx", "gone", "-n", namespace)
    wait_for("it has changed", lambda: replicas(cluster, namespace) == 3 and "gone-index" not in str(objects(cluster, namespace)), 60)
    time.sleep(1)  # the status
    before, writes = objects(cluster, namespace), len(started.proxy.writes(namespace))
    generation = (stateful_set(cluster, namespace) or {})["metadata"]["generation"]

    with started.proxy.stale(past):
        started.proxy.tell(error_line(410, "Expired"))
        time.sleep(3)  # running, it lists again
        restart(started)
        time.sleep(3)  # it knows nothing but those lists
        assert [str(call) for call in started.proxy.writes(namespace)[writes:] if call.code < 300] == []
        assert objects(cluster, namespace).keys() == before.keys()
        assert (stateful_set(cluster, namespace) or {})["metadata"]["generation"] == generation
    apply(replicas=2, source=model)
    wait_for("the present is seen", lambda: replicas(cluster, namespace) == 2, CAUGHT_UP)
    assert objects(cluster, namespace).keys() == before.keys()


@pytest.mark.slow
def test_watches_that_tell_nothing_but_bookmarks_are_found_blind(
    started: Proxied, cluster: RunningCluster, namespace: str, apply: Apply
) -> None:
    """They are never inactive, so that it takes a comparison with lists to notice."""
    restart(started, VECTORINDEX_RESYNC_SECONDS="5")
    wait_for("all kinds are watched", lambda: len(started.proxy.watched()) >= 7)
    time.sleep(3)  # the lists that follow a start
    with started.proxy.fault(event=lambda _, line: b'"BOOKMARK"' in line[:30]):
        change_all(cluster, namespace, apply)
        wait_until_all_is_made_good(started, cluster, namespace)
        wait_for("the watches begin anew", lambda: started.process.metric("vectorindex_operator_blind_watches_total"), 60)
    wait_until_all_is_made_good(started, cluster, namespace)
    restart(started)


def test_what_goes_between_our_lists_and_those_of_the_watches_is_noticed(started: Proxied, cluster: RunningCluster, namespace: str) -> None:
    lists, deleted = itertools.count(1), threading.Event()

    def hold_back(call: Call) -> Reply | None:
        if call.is_kopfs and call.verb == "list":
            assert deleted.wait(20)
        return None

    def delete(call: Call) -> None:
        if not call.is_kopfs and (call.verb, call.resource) == ("list", "pods") and next(lists) == 2:  # pods are listed last
            cluster.kubectl("delete", "service", "docs-index", "-n", namespace)
            deleted.set()

    started.process.kill()
    with started.proxy.fault(answer=hold_back, done=delete):
        started.process.start()
    wait_for("the lost object is back", lambda: deleted.is_set() and len(objects(cluster, namespace)) == 7, CAUGHT_UP)


def restart(operator: Proxied, **environment: str) -> None:
    operator.process.kill()
    operator.process.start(**environment)
