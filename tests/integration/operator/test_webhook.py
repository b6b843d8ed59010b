"""Alertmanager's posts become wishes, once each, by whichever replica hears them, with the rights of the chart and a real API server."""

import functools
import http.client
import itertools
import json
import logging
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.api_proxy import ApiProxy, Call, Reply, api_proxy, refuse
from tests.support.cluster import RunningCluster
from tests.support.notifications import TOKEN, Answer, ago, make_alert, make_grafana_payload, make_payload, post
from tests.support.operator_process import SYSTEM, WITH_WEBHOOK, OperatorProcess, free_port, make_account, wait_for, webhook_environment
from tests.support.tls import Authority
from tests.support.vector_index import make_manifest
from vectorindex_operator import webhook
from vectorindex_operator.api import Json

log = logging.getLogger(__name__)
Read = Callable[[], Json]
Apply = Callable[..., None]

WISH = "vectorindex.dev/validate-requested-at"
COOLDOWN = 5  # seconds; the API server tells when a wish was set in whole ones, and two posts have to fit between


@dataclass(frozen=True)
class Receiver:
    """One replica of the operator and where it hears of alerts."""

    process: OperatorProcess
    port: int

    def count(self, outcome: str) -> float:
        return self.process.metric("vectorindex_operator_heal_requests_total", outcome=outcome) or 0


@dataclass(frozen=True)
class Pair:
    """Two replicas that reach the API server through a proxy; one of them leads."""

    replicas: tuple[Receiver, Receiver]
    proxy: ApiProxy
    token_file: Path
    account: Path  # a kubeconfig that leads round the proxy
    make: Callable[..., Receiver]  # another one, which does not lead while they do

    @property
    def follower(self) -> Receiver:
        return next(one for one in self.replicas if not one.process.leads())

    @property
    def leader(self) -> Receiver:
        return next(one for one in self.replicas if one.process.leads())


@pytest.fixture(scope="module")
def pair(cluster: RunningCluster, operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Run two replicas with the chart's rights; the operator of the other tests rests meanwhile."""
    folder = tmp_path_factory.mktemp("webhook")
    token_file = folder / "token"
    token_file.write_text(f"{TOKEN}\n")  # as files often end
    assert operator.stop() == 0
    account = make_account(cluster, folder, "clusterWide=true", *WITH_WEBHOOK)
    cluster.try_kubectl("delete", "lease", "vectorindex", "-n", SYSTEM)
    with api_proxy(account, folder) as proxy:
        config = proxy.wrap(account)
        shared = {
            "VECTORINDEX_WEBHOOK_COOLDOWN_SECONDS": str(COOLDOWN),
            "VECTORINDEX_WEBHOOK_BUDGET_WISHES": "1000",
            "VECTORINDEX_LEASE_NAME": "vectorindex",
        }

        def make(name: str, **more: str) -> Receiver:
            port = free_port()
            environment = webhook_environment(port, token_file) | shared | {"POD_NAME": name} | more
            return Receiver(OperatorProcess(config, folder / f"{name}.log", **environment), port)

        receivers = [make(f"heal-{number}") for number in range(2)]
        try:
            for receiver in receivers:
                receiver.process.start()
            wait_for("one leads", lambda: sum(receiver.process.leads() for receiver in receivers) == 1)
            yield Pair((receivers[0], receivers[1]), proxy, token_file, account, make)
            assert [receiver.process.stop() for receiver in receivers] == [0, 0]
            for receiver in receivers:
                told = receiver.process.log.read_text()
                assert TOKEN not in told
                assert "Traceback" not in told, told[-4000:]
        finally:
            for receiver in receivers:
                receiver.process.end()
            make_account(cluster, folder)
            operator.start()


@pytest.fixture
def docs(pair: Pair, apply: Apply, read: Read) -> Read:
    """An index that settled, as far as it does without pods; returns it."""
    del pair
    apply(replicas=1)
    wait_for("the index has a status", lambda: read().get("status", {}).get("conditions"))
    wait_for("nobody writes it any more", lambda: read()["metadata"]["resourceVersion"] == pause_and(read)["metadata"]["resourceVersion"])
    return read


def pause_and(read: Read) -> Json:
    time.sleep(0.5)  # that nothing happens can only be waited for
    return read()


def wish_of(index: Json) -> str:
    return str(index["metadata"].get("annotations", {}).get(WISH, ""))


def outcomes(answer: Answer) -> Json:
    assert answer.status == 200, answer
    return answer.outcomes


@pytest.fixture
def tell(pair: Pair, namespace: str) -> Callable[..., Answer]:
    """Post one firing alert about `docs`, to the replica that does not lead unless told otherwise."""

    def tell_one(since: str, receiver: Receiver | None = None, **labels: str) -> Answer:
        payload = make_payload(make_alert(since, namespace=namespace, **labels))
        return post((receiver or pair.follower).port, payload)

    return tell_one


Tell = Callable[..., Answer]


# --- what becomes of an alert


def test_an_alert_becomes_a_wish_once_however_often_and_to_whomever_it_is_told(
    pair: Pair, cluster: RunningCluster, namespace: str, docs: Read, tell: Tell
) -> None:
    since = ago(60)
    assert outcomes(tell(since)) == {"accepted": 1}
    wished = cluster.get("vidx", "docs", "-n", namespace, "--show-managed-fields")
    assert wish_of(wished) == since
    (manager,) = [entry for entry in wished["metadata"]["managedFields"] if entry["manager"] == "vectorindex-operator-webhook"]
    assert manager["fieldsV1"] == {"f:metadata": {"f:annotations": {f"f:{WISH}": {}}}}  # and nothing else

    for receiver in pair.replicas * 2:
        assert outcomes(tell(since, receiver)) == {"repeated": 1}
        assert outcomes(tell(ago(120), receiver, pod="docs-index-1")) == {"repeated": 1}
    wait_for("a moment has passed", lambda: pause_and(docs))
    assert docs()["metadata"]["resourceVersion"] == wished["metadata"]["resourceVersion"]


def test_a_later_alert_is_another_wish_after_a_pause(pair: Pair, docs: Read, tell: Tell) -> None:
    assert outcomes(tell(ago(60))) == {"accepted": 1}
    later = ago(30)
    assert outcomes(tell(later)) == {"cooling": 1}
    wait_for("the same alert, told again, is accepted", lambda: outcomes(tell(later, pair.leader)) == {"accepted": 1}, COOLDOWN + 20)
    assert wish_of(docs()) == later


def test_a_wish_is_told_as_an_event_and_passed_on_by_whoever_leads(cluster: RunningCluster, namespace: str, docs: Read, tell: Tell) -> None:
    since = ago(60)
    assert outcomes(tell(since)) == {"accepted": 1}

    def told() -> list[str]:
        found = cluster.get("events", "-n", namespace, "--field-selector=reason=ValidateRequested")["items"]
        return [event["message"] for event in found if event["involvedObject"]["uid"] == docs()["metadata"]["uid"]]

    (message,) = wait_for("the event is posted", told)
    assert "VectorIndexDriftNotRepaired" in message
    assert since in message
    live = ("configmap", "docs-index", "-n", namespace)
    wait_for("the replicas are told", lambda: since in cluster.get(*live)["data"]["live.json"])


def test_a_suspended_index_is_checked_too_as_suspending_stops_changes_only(docs: Read, apply: Apply, tell: Tell) -> None:
    apply(replicas=1, suspend=True)
    since = ago(60)
    assert outcomes(tell(since)) == {"accepted": 1}
    assert wish_of(docs()) == since


def test_each_alert_of_a_payload_is_judged_by_itself(pair: Pair, namespace: str, docs: Read) -> None:
    before = {outcome: pair.follower.count(outcome) for outcome in ("accepted", "ignored", "unmatched", "resolved")}
    named = functools.partial(make_alert, ago(60), namespace=namespace)
    alerts = (named(), named(index="absent"), named(heal=""), named(status="resolved"), named(namespace="none"))
    answer = post(pair.follower.port, make_payload(*alerts))
    expected = {"accepted": 1, "ignored": 1, "resolved": 1, "unmatched": 2}
    assert outcomes(answer) == expected
    assert {outcome: pair.follower.count(outcome) - count for outcome, count in before.items()} == expected
    assert wish_of(docs())


def test_alerts_that_grafana_evaluates_are_heard(pair: Pair, namespace: str, docs: Read) -> None:
    since = ago(60)
    alert = make_alert(since, namespace=namespace) | {"startsAt": since.replace("Z", "+00:00")}
    assert outcomes(post(pair.follower.port, make_grafana_payload(alert))) == {"accepted": 1}
    assert wish_of(docs()) == since


# --- two at once


def test_two_replicas_that_hear_the_same_at_once_write_once(pair: Pair, namespace: str, docs: Read, tell: Tell) -> None:
    """Both have read the index before either writes: the proxy holds their writes until there are two."""
    both = threading.Barrier(2)
    since = ago(60)

    def meet(call: Call) -> Reply | None:
        if call.right == ("vectorindex.dev", "vectorindexes", "patch") and call.namespace == namespace:
            both.wait(20)
        return None

    with pair.proxy.fault(answer=meet), ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda receiver: tell(since, receiver), pair.replicas))
    assert sorted(next(iter(outcomes(answer))) for answer in answers) == ["accepted", "repeated"]
    codes = sorted(call.code for call in pair.proxy.writes(namespace) if call.right == ("vectorindex.dev", "vectorindexes", "patch"))
    assert codes == [200, 409]
    assert wish_of(docs()) == since


# --- who may


def test_without_the_token_nothing_is_heard(pair: Pair, docs: Read, namespace: str) -> None:
    before, refused = docs()["metadata"]["resourceVersion"], pair.follower.count("unauthorized")
    wrong = (None, "", "wrong", f"{TOKEN}x", TOKEN[:-1], TOKEN.upper(), "\u00e9")
    for given in wrong:
        answer = post(pair.follower.port, make_payload(make_alert(ago(60), namespace=namespace)), token=given)
        assert answer.status == 401, given
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert pair.follower.count("unauthorized") == refused + len(wrong)
    assert docs()["metadata"]["resourceVersion"] == before


def test_a_token_of_another_scheme_is_none(pair: Pair) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", pair.follower.port, timeout=10)
    connection.request("POST", "/webhooks/alertmanager", b"{}", {"Authorization": f"Basic {TOKEN}"})
    assert connection.getresponse().status == 401
    connection.close()


def test_a_changed_token_counts_at_once(pair: Pair) -> None:
    """The kubelet renames a folder of files; so no read sees half a token."""
    renewed = "another token, of this week"
    try:
        replace_file(pair.token_file, renewed)
        assert post(pair.follower.port, make_payload()).status == 401
        assert post(pair.follower.port, make_payload(), token=renewed).status == 200
        replace_file(pair.token_file, "short")
        assert post(pair.follower.port, make_payload(), token="short").status == 503  # worth repeating once it is put right
    finally:
        replace_file(pair.token_file, TOKEN)
    assert post(pair.follower.port, make_payload()).status == 200


def replace_file(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


# --- what is no alert


def test_bodies_that_are_no_payload_are_refused_and_the_port_goes_on(pair: Pair) -> None:
    receiver = pair.follower
    before = receiver.count("malformed")
    large = json.dumps(make_payload(padding="x" * webhook.MAX_BYTES)).encode()
    for body, status in ((b"", 400), (b"\x00\xff", 400), (b"[" * 50_000, 400), (b'{"version":"3","alerts":[]}', 400), (large, 413)):
        assert post(receiver.port, body).status == status
    assert receiver.count("malformed") == before + 5
    assert outcomes(post(receiver.port, make_payload())) == {}


def test_what_is_no_http_is_refused_and_fills_no_log(pair: Pair) -> None:
    receiver = pair.follower
    before = len(receiver.process.log.read_text())
    ports = (receiver.port, receiver.process.port)
    for port, noise in itertools.product(
        ports, (b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"b" * 20_000)
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as stranger:
            stranger.sendall(noise)
            assert b" 400 " in stranger.recv(1000)
    assert outcomes(post(receiver.port, make_payload())) == {}
    assert "Error handling request" not in receiver.process.log.read_text()[before:]


def test_a_body_that_never_ends_is_not_waited_for(pair: Pair) -> None:
    receiver = pair.follower
    head = f"POST /webhooks/alertmanager HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\n{{"
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=30) as half:
        half.sendall(head.encode())
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=30) as slow:
        slow.sendall(head.encode())
        started = time.monotonic()
        assert outcomes(post(receiver.port, make_payload())) == {}  # others are served meanwhile
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started < webhook.READING.total_seconds() + 10


# --- an API server that is away


@pytest.mark.parametrize("verb", ["get", "patch"])
def test_what_can_not_be_stored_is_answered_so_that_it_is_repeated(pair: Pair, docs: Read, tell: Tell, verb: str) -> None:
    since = ago(60)

    def away(call: Call) -> Reply | None:
        return refuse(503, "ServiceUnavailable") if call.right == ("vectorindex.dev", "vectorindexes", verb) else None

    with pair.proxy.fault(answer=away):
        answer = tell(since)
        assert (answer.status, answer.outcomes) == (503, {"failed": 1})
    assert outcomes(tell(since)) == {"accepted": 1}
    assert wish_of(docs()) == since


def test_what_was_not_stored_takes_nothing_from_the_budget(pair: Pair, docs: Read, tell: Tell) -> None:
    """Else an API server that refuses for a while would leave all alerts that come after it throttled, which is not repeated soon."""
    del docs
    receiver = pair.make("heal-poor", VECTORINDEX_WEBHOOK_BUDGET_WISHES="1", VECTORINDEX_WEBHOOK_BUDGET_SECONDS="86400")
    receiver.process.start()
    since = ago(60)

    def away(call: Call) -> Reply | None:
        return refuse(503, "ServiceUnavailable") if call.right == ("vectorindex.dev", "vectorindexes", "patch") else None

    try:
        with pair.proxy.fault(answer=away):
            assert [tell(since, receiver).outcomes for _ in range(3)] == [{"failed": 1}] * 3
        assert outcomes(tell(since, receiver)) == {"accepted": 1}
    finally:
        receiver.process.end()


def test_an_api_server_that_does_not_answer_is_not_waited_for(pair: Pair, docs: Read, tell: Tell) -> None:
    since, over = ago(60), threading.Event()

    def hang(call: Call) -> Reply | None:
        if call.right == ("vectorindex.dev", "vectorindexes", "get"):
            over.wait(30)
        return None

    with pair.proxy.fault(answer=hang):
        answer = tell(since)
        assert (answer.status, answer.outcomes) == (503, {"failed": 1})
        assert answer.seconds < webhook.STORING.total_seconds() + 10
        over.set()
    assert outcomes(tell(since)) == {"accepted": 1}
    assert wish_of(docs()) == since


# --- how long it takes


def test_alertmanager_is_answered_at_once_until_the_budget_is_used_up(
    pair: Pair, cluster: RunningCluster, namespace: str, tell: Tell
) -> None:
    """Without the proxy. Posts set a wish of an index each, and then repeat it. Figures in the log; the bound is generous."""
    indexes = [f"fast-{number}" for number in range(15)]
    budget = {"VECTORINDEX_WEBHOOK_BUDGET_WISHES": str(len(indexes)), "VECTORINDEX_WEBHOOK_BUDGET_SECONDS": "86400"}
    manifests = [make_manifest(name, namespace, replicas=1) for name in (*indexes, "fast-one-more")]
    cluster.kubectl("apply", "-f", "-", text="\n---\n".join(json.dumps(manifest) for manifest in manifests))
    statuses = ("vidx", "-n", namespace, "-o", "jsonpath={.items[*].status.conditions[0].type}")
    wait_for("all have a status", lambda: len(cluster.kubectl("get", *statuses).split()) == len(manifests), 60)
    receiver = pair.make("heal-direct", KUBECONFIG=str(pair.account), **budget)
    receiver.process.start()
    try:
        since = ago(60)
        for outcome in ("accepted", "repeated"):
            answers = [tell(since, receiver, index=name) for name in indexes]
            assert [outcomes(answer) for answer in answers] == [{outcome: 1}] * len(indexes)
            seconds = [answer.seconds for answer in answers]
            cuts = statistics.quantiles(seconds, n=100, method="inclusive")
            log.info("%s: p50 %.1f ms, p99 %.1f ms", outcome, 1000 * cuts[49], 1000 * cuts[98])
            assert cuts[49] < 0.5
        assert outcomes(tell(since, receiver, index="fast-one-more")) == {"throttled": 1}
    finally:
        receiver.process.end()


# --- TLS


def test_tls_is_spoken_with_the_certificate_that_the_secret_holds_now(pair: Pair, tmp_path: Path) -> None:
    authority, folder = Authority(tmp_path / "authority"), tmp_path / "tls"
    folder.mkdir()

    def put(name: str) -> None:
        issued = authority.issue(name, alternative="IP:127.0.0.1")
        replace_file(folder / "tls.key", issued.key.read_text())
        replace_file(folder / "tls.crt", issued.certificate.read_text())

    put("first")
    receiver = pair.make("heal-tls", VECTORINDEX_WEBHOOK_TLS_FOLDER=str(folder))

    def shown() -> str:
        context = ssl.create_default_context(cafile=str(authority.root.certificate))
        plain = socket.create_connection(("127.0.0.1", receiver.port), timeout=10)
        with plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
            subject = (tls.getpeercert() or {}).get("subject", ())
        return str(subject)

    receiver.process.start()
    try:
        assert "first" in shown()
        put("second")
        wait_for("the renewed certificate is taken up", lambda: "second" in shown(), 40)
        replace_file(folder / "tls.crt", authority.issue("third", alternative="IP:127.0.0.1").certificate.read_text())
        wait_for("one without its key is looked at", lambda: "is not taken up" in receiver.process.log.read_text(), 40)
        assert "second" in shown()
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as plain:
            plain.sendall(b"POST /webhooks/alertmanager HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not plain.recv(1000).startswith(b"HTTP")
    finally:
        receiver.process.end()
