"""The parts of the demo that measure: if these were wrong, the demo would show nothing."""

import base64
import io
import time
import urllib.error
from array import array
from collections.abc import Iterator
from email.message import Message
from typing import Any

import numpy as np
import pytest

from examples.wordnet import client
from examples.wordnet.steps.kubernetes import cluster_command
from examples.wordnet.steps.members import parse_metrics
from examples.wordnet.steps.report import StepError, table, wait_until
from examples.wordnet.steps.searching import pack, recall
from examples.wordnet.steps.upstream import Rows
from examples.wordnet.steps.world import external_images, image_values

EXPOSITION = """\
# TYPE vectorindex_repaired_rows_total counter
vectorindex_repaired_rows_total{index="docs",kind="missing"} 3.0
vectorindex_repaired_rows_total{index="docs",kind="ghost"} 2.0
# TYPE vectorindex_vectors gauge
vectorindex_vectors{index="docs"} 9500.0
"""


def watch_with(monkeypatch: pytest.MonkeyPatch, outcomes: list[dict[str, Any] | Exception]) -> dict[str, Any]:
    """Run the watching client until all outcomes were had, each once."""

    def lines() -> Iterator[str]:
        while outcomes:
            time.sleep(0.001)
        yield f"{client.STOP}\n"

    def post(_url: str, _document: dict[str, Any]) -> dict[str, Any]:
        outcome = outcomes.pop(0) if outcomes else {"proven": True, "results": []}
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(client, "post", post)
    vectors = base64.b64encode(array("f", [0.5, 0.25]).tobytes()).decode()
    task = {"url": "http://x", "vectors": vectors, "dimension": 2, "k": 1, "forbidden": [7], "pause_seconds": 0, "kept": 0}
    return client.watch(task, lines())


def test_watching_client_counts_what_failed_what_was_unproven_and_what_must_not_appear(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = urllib.error.HTTPError("http://x", 503, "no", Message(), io.BytesIO(b'{"title":"not ready"}'))
    told = watch_with(
        monkeypatch,
        [
            {"proven": True, "results": [{"id": 1}]},
            {"proven": False, "results": [{"id": 1}]},
            {"proven": True, "results": [{"id": 7}]},
            ConnectionRefusedError("refused"),
            refused,
        ],
    )
    assert (told["failed"], told["unproven"], told["forbidden"]) == (2, 1, 1)
    assert told["answered"] >= 3
    assert "not ready" in told["messages"][-1]


def test_vectors_reach_the_client_as_they_are() -> None:
    vectors = np.array([[0.5, -1.25], [3.0, 1e-7]], np.float32)
    assert client.unpack(pack(vectors), 2) == vectors.tolist()


def test_recall_is_the_share_of_exact_ids_in_any_order() -> None:
    assert recall(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [3, 5]])) == 0.75


def test_exact_search_orders_by_cosine() -> None:
    rows = Rows(np.array([10, 20, 30]), np.array([[1, 0], [0, 5], [2, 2]], np.float32))
    assert rows.nearest(np.array([[3, 1]], np.float32), 2).tolist() == [[10, 30]]


def test_metrics_are_summed_over_labels_that_are_not_named() -> None:
    metrics = parse_metrics(EXPOSITION)
    assert metrics.value("vectorindex_repaired_rows_total") == 5
    assert metrics.value("vectorindex_repaired_rows_total", kind="ghost") == 2
    assert metrics.counts("vectorindex_repaired_rows_total", "kind") == {"missing": 3, "ghost": 2}


def test_absent_metric_is_an_error_and_not_zero() -> None:
    with pytest.raises(StepError, match="vectorindex_vectors"):
        parse_metrics(EXPOSITION).value("vectorindex_vectors", index="other")


def test_table_aligns_numbers_to_the_right() -> None:
    assert table(("pod", "rows"), [("docs-index-0", 5)]).splitlines() == ["pod           rows", "docs-index-0     5"]


@pytest.mark.parametrize(
    ("image", "values"),
    [
        ("localhost/op:1f", ["image.repository=localhost/op", "image.tag=1f"]),
        ("example.org:5000/a/op:v1", ["image.repository=example.org:5000/a/op", "image.tag=v1"]),
        ("example.org/op@sha256:ab", ["image.repository=example.org/op", "image.digest=sha256:ab"]),
    ],
)
def test_image_becomes_values_of_the_chart(image: str, values: list[str]) -> None:
    assert image_values("image", image) == values


@pytest.mark.parametrize("image", ["op", "example.org:5000/op"])
def test_image_without_tag_and_digest_is_refused(image: str) -> None:
    with pytest.raises(StepError, match="tag or a digest"):
        image_values("image", image)


def test_external_cluster_needs_all_three_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPERATOR_IMAGE", "example.org/op:1")
    monkeypatch.delenv("INDEXER_IMAGE", raising=False)
    monkeypatch.setenv("POSTGRES_IMAGE", "")
    with pytest.raises(StepError, match="set INDEXER_IMAGE, POSTGRES_IMAGE"):
        external_images()


def test_waiting_in_vain_tells_what_for_and_the_last_reason() -> None:
    def probe() -> bool:
        raise StepError("pod is Pending")

    with pytest.raises(StepError, match="for a pod in vain; last: pod is Pending"):
        wait_until("a pod", probe, 0.01, 0.001)


def test_failed_cluster_command_is_told_by_its_arguments() -> None:
    with pytest.raises(StepError, match="kubeconfig --name no-such-cluster"):
        cluster_command("kubeconfig", "--name", "no-such-cluster")
