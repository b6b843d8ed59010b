"""What the pods of `helm test` do, against servers that answer well and badly; the end-to-end tests run them on a node."""

import http.server
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

from tests.support.helm import CHART, by_kind, render_chart

OPENAPI = {"components": {"schemas": {"Vector": {"minItems": 4}}}}
LEADING = (
    "vectorindex_operator_leading 1.0\n"
    'vectorindex_operator_condition{name="docs",namespace="search",status="True",type="Ready"} 1.0\n'
    'vectorindex_operator_condition{name="docs",namespace="search",status="False",type="Ready"} 0.0\n'
    'vectorindex_operator_condition{name="docs",namespace="search",status="Unknown",type="Consistent"} 1.0\n'
)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, which does not try for half a minute."""
    specification = importlib.util.spec_from_file_location("helm_test", CHART / "files" / "helm_test.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    return module


@contextmanager
def answering(answer: Callable[[str, bytes], tuple[int, str]]) -> Iterator[int]:
    """Run a server whose answers depend on path and body, and return its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answer(self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815 - the base class looks for this name

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def index_answers(*, proven: bool) -> Callable[[str, bytes], tuple[int, str]]:
    def answer(path: str, body: bytes) -> tuple[int, str]:
        if path == "/openapi.json":
            return 200, json.dumps(OPENAPI)
        assert path == "/v1/indexes/docs/search"
        assert len(json.loads(body)["vector"]) == 4
        return 200, json.dumps({"proven": proven, "asOf": "2026-11-25T09:00:00Z", "results": [{"id": 7, "score": 1.0}]})

    return answer


def operator_answers(metrics: str, *, ready: int = 200) -> Callable[[str, bytes], tuple[int, str]]:
    return lambda path, _: (ready, "") if path == "/readyz" else (200, metrics)


def test_a_search_has_the_dimension_of_the_index_and_tells_what_it_found(script: ModuleType) -> None:
    with answering(index_answers(proven=True)) as port:
        said = script.search("127.0.0.1", port, "docs")
    assert said == "docs answered for 4 dimensions, proven as of 2026-11-25T09:00:00Z; nearest rows: 7"


def test_an_answer_without_a_proof_is_no_good(script: ModuleType) -> None:
    with answering(index_answers(proven=False)) as port, pytest.raises(script.NotYetError, match="without a proof"):
        script.search("127.0.0.1", port, "docs")


def test_operators_that_are_ready_tell_of_the_indexes(script: ModuleType) -> None:
    with answering(operator_answers(LEADING)) as port:
        said = script.look_at_operators("127.0.0.1", port)
    assert said.splitlines() == ["1 operators are ready, one acts; VectorIndexes: 1", "search/docs: Ready is True"]


@pytest.mark.parametrize(
    ("metrics", "ready", "said"),
    [("vectorindex_operator_leading 0.0\n", 200, "0 of 1 operators act"), (LEADING, 503, "/readyz answered 503")],
    ids=["nobody acts", "not ready"],
)
def test_operators_that_are_not_well_are_named(script: ModuleType, metrics: str, ready: int, said: str) -> None:
    with answering(operator_answers(metrics, ready=ready)) as port, pytest.raises(script.NotYetError, match=said):
        script.look_at_operators("127.0.0.1", port)


def test_pods_of_the_test_have_no_token_and_run_under_restricted_pod_security() -> None:
    pods = by_kind(render_chart("watchNamespaces={search}", "test.index=docs", tests=True), "Pod")
    assert {(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in pods} == {
        ("vectorindex-system", "vectorindex-test-operator"),
        ("search", "vectorindex-test-search"),
    }
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert "serviceAccountName" not in pod["spec"]
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        compile(container["args"][0], "helm_test.py", "exec")
        assert "$(" not in container["args"][0]  # Kubernetes would take it for a variable


def test_the_operators_policy_lets_its_test_in_and_nobody_else() -> None:
    manifests = render_chart("test.index=docs", tests=True)
    (policy,) = by_kind(manifests, "NetworkPolicy")
    (rule,) = policy["spec"]["ingress"]
    (own,) = [peer["podSelector"]["matchLabels"] for peer in rule["from"] if "podSelector" in peer]
    for pod in by_kind(manifests, "Pod"):
        assert own.items() <= pod["metadata"]["labels"].items()
    (deployment,) = by_kind(manifests, "Deployment")
    assert not own.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
