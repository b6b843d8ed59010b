"""Vectors as people have them, and what becomes of an answer."""

import io
import json

import numpy as np
import pytest
from kubernetes.client import ApiClient, Configuration

from tests.unit.cli.documents import load, read_at
from vectorindex_cli import pods, searching
from vectorindex_cli.errors import CliError, UsageError
from vectorindex_cli.render import Painter

HITS = [{"id": 7, "score": 0.83}, {"id": "a", "score": 0.5}]
ANSWER = {"generation": 3, "asOf": "2026-11-25T09:00:01.250Z", "proven": True, "results": HITS}


def saved(array: "np.typing.NDArray[np.generic]", version: tuple[int, int] = (1, 0)) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"[0.5, 1, -2]",
        b'{"vector": [0.5, 1, -2], "k": 3}',
        saved(np.array([0.5, 1, -2], "<f4")),
        saved(np.array([0.5, 1, -2], ">f8")),
        saved(np.array([[0.5, 1, -2]], "<f4"), (2, 0)),
    ],
)
def test_a_vector_is_read_from_json_and_numpy(content: bytes) -> None:
    assert searching.parse_vector(content, "v") == [0.5, 1, -2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"0.5 1 -2", "v is neither JSON nor a NumPy file"),
        (b"[]", "v holds no number"),
        (b'[1, "2"]', "v: expected a list of numbers"),
        (b"[true]", "v: expected a list of numbers"),
        (b"[1, NaN]", "v holds NaN or Infinity"),
        (b"7", "v: expected a list of numbers"),
        (saved(np.array([1, 2], "<i8")), "v: expected a NumPy file of float32 or float64"),
        (saved(np.ones((2, 3), "<f4")), r"v: expected one vector, got an array of shape \(2, 3\)"),
        (saved(np.ones(3, "<f4"))[:-2], "v: expected a NumPy file of float32"),
        (b"[" * 100_000, "v is neither JSON nor a NumPy file"),
        (b"[1" + b"0" * 400 + b"]", "v holds a number that is too large"),
        (b"\x93NUMPY\x01\x00\x1e\x00" + b"{'descr':'<f4','shape':4      }" + bytes(16), "v: expected a NumPy file of float32"),
        (b"\x93NUMPY\x01", "v: expected a NumPy file of float32"),
        (b"\x93NUMPY\x01\x00\x04\x00oops", "v: expected a NumPy file of float32"),
    ],
)
def test_what_is_no_vector_is_refused_with_its_name(content: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        searching.parse_vector(content, "v")


def test_a_vector_of_another_length_is_refused_before_anybody_is_asked() -> None:
    index = load("healthy")
    dimension = index.spec.index.dimension
    assert searching.build_request(index, [1.0] * dimension, 3)["k"] == 3
    with pytest.raises(UsageError, match=f"expected a vector of {dimension} numbers, got 3"):
        searching.build_request(index, [1.0] * 3, 3)


def test_the_first_replica_that_serves_is_asked_or_the_one_that_is_named() -> None:
    index = load("healthy")
    assert searching.choose_member(index, None).pod == "docs-index-0"
    assert searching.choose_member(index, "docs-index-1").pod == "docs-index-1"
    with pytest.raises(UsageError, match="has no replica docs-index-7; it has: docs-index-0, docs-index-1"):
        searching.choose_member(index, "docs-index-7")
    index.status.members.clear()
    with pytest.raises(CliError, match="no replica serves"):
        searching.choose_member(index, None)


def test_an_answer_says_what_it_is_worth() -> None:
    now = read_at("healthy")
    proven = searching.parse_answer(200, json.dumps(ANSWER).encode(), "docs-index-0")
    shown = searching.render_answer(proven, "docs-index-0", "Cosine", now, Painter(False))
    assert [line.split() for line in shown.splitlines()[:3]] == [["ID", "SCORE"], ["7", "0.830000"], ["a", "0.500000"]]
    assert "Answer of docs-index-0: proven, as of 2026-11-25T09:00:01.250Z (" in shown
    doubtful = searching.parse_answer(200, json.dumps(ANSWER | {"proven": False, "results": []}).encode(), "docs-index-0")
    shown = searching.render_answer(doubtful, "docs-index-0", "L2", now, Painter(False))
    assert ("not proven" in shown, "no row is live" in shown) == (True, True)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (400, b'{"title": "Bad", "detail": "k: expected 1 to 1000"}', "docs-index-0 answers with 400: k: expected 1 to 1000"),
        (503, b'{"title": "Nothing proven to search yet"}', "answers with 503: Nothing proven"),
        (502, b"<html>", "answers with 502: no reason given"),
        (200, b"{}", "does not understand"),
    ],
)
def test_what_is_no_answer_is_an_error_with_the_replicas_reason(status: int, body: bytes, says: str) -> None:
    with pytest.raises(CliError, match=says):
        searching.parse_answer(status, body, "docs-index-0")


def test_who_interrupts_while_a_port_is_forwarded_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client makes an error of its own of it, and a bundle would go on without that pod."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kubernetes.stream.ws_client.create_websocket", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pods.ask_pod(ApiClient(Configuration(host="http://127.0.0.1:1")), pods.Place("search", "docs-index-0", 9090), "/metrics")
