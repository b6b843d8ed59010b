"""Search and ops over HTTP, without sockets: every bad request is told which field is wrong, and no answer holds a bare NaN."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.served import DIMENSION, HNSW, ServedIndex
from tests.support.views import build_view, make_ids
from vectorindex_indexer import app as app_module
from vectorindex_indexer import report
from vectorindex_indexer.app import Doors, SearchApp, build_ops_app
from vectorindex_indexer.config import IndexSpec, IndexType, Ivf, Metric
from vectorindex_indexer.keys import IdKind
from vectorindex_indexer.openapi import MAX_BODY_BYTES, MAX_K, MAX_QUERIES

PATH = "/v1/indexes/docs/search"
JSON = {"content-type": "application/json"}


def ask(
    served: ServedIndex, method: str = "POST", path: str = PATH, body: bytes = b"", headers: dict[str, str] | None = None
) -> httpx.Response:
    return ask_many(served, [(method, path, body, headers if headers is not None else JSON)])[0]


def ask_many(served: ServedIndex, requests: list[tuple[str, str, bytes, dict[str, str]]]) -> list[httpx.Response]:
    """Send requests at the same time to the search port's application."""

    async def run() -> list[httpx.Response]:
        application = SearchApp(served, Doors(served), "0.1.0")
        transport = httpx.ASGITransport(application)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://search") as client:
                calls = [client.request(method, path, content=body, headers=headers) for method, path, body, headers in requests]
                return list(await asyncio.gather(*calls))
        finally:
            application.close()

    return asyncio.run(run())


def ask_ops(served: ServedIndex, path: str, doors: Doors | None = None) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(build_ops_app(served, doors or Doors(served)))
        async with httpx.AsyncClient(transport=transport, base_url="http://ops") as client:
            return await client.get(path)

    return asyncio.run(run())


def search(served: ServedIndex, **body: Any) -> httpx.Response:
    return ask(served, body=json.dumps(body).encode())


def nearest(served: ServedIndex, query: list[float], k: int) -> list[int]:
    """Return what NumPy finds."""
    vectors = served.vectors.astype(np.float64)
    scores = vectors @ np.array(query) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    return [int(key) for key in served.ids[np.argsort(-scores, kind="stable")[:k]]]


@pytest.fixture(scope="module")
def served() -> ServedIndex:
    return ServedIndex()


def test_one_vector_gives_a_flat_list_best_first(served: ServedIndex) -> None:
    answer = search(served, vector=[1.0, 2.0, 3.0, 4.0], k=5)

    assert answer.status_code == 200
    document = answer.json()
    assert [hit["id"] for hit in document["results"]] == nearest(served, [1.0, 2.0, 3.0, 4.0], 5)
    assert (document["generation"], document["asOf"], document["proven"]) == (3, "2026-11-25T09:00:01.250Z", True)
    assert answer.headers["vectorindex-proven"] == "true"
    scores = [hit["score"] for hit in document["results"]]
    assert scores == sorted(scores, reverse=True)


def test_many_vectors_give_a_list_each_and_ten_hits_where_nothing_is_said(served: ServedIndex) -> None:
    queries = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]

    results = search(served, vectors=queries).json()["results"]

    assert [[hit["id"] for hit in hits] for hits in results] == [nearest(served, query, 10) for query in queries]


def test_requests_that_come_together_get_each_its_own_answer(served: ServedIndex) -> None:
    rng = np.random.default_rng(3)
    queries = rng.normal(size=(60, DIMENSION)).round(3).tolist()
    widths = [1 + number % 3 for number in range(60)]
    requests = [("POST", PATH, json.dumps({"vector": query, "k": k}).encode(), JSON) for query, k in zip(queries, widths, strict=True)]

    answers = ask_many(served, requests)

    found = [[hit["id"] for hit in answer.json()["results"]] for answer in answers]
    assert found == [nearest(served, query, k) for query, k in zip(queries, widths, strict=True)]


def test_an_unproven_replica_says_so_in_every_answer() -> None:
    served = ServedIndex()
    served.proven = False

    answer = search(served, vector=[1, 2, 3, 4])

    assert answer.json()["proven"] is False
    assert answer.headers["vectorindex-proven"] == "false"


def test_fewer_rows_than_asked_for_give_as_many_as_there_are() -> None:
    assert len(search(ServedIndex(rows=3), vector=[1, 2, 3, 4], k=50).json()["results"]) == 3


BAD = [
    (b"", "body"),
    (b"{", "body"),
    (b"[]", "body"),
    (b'{"k": 3}', "vector"),
    (b'{"vector": [1,2,3,4], "vectors": [[1,2,3,4]]}', "vector"),
    (b'{"vector": null}', "vector"),
    (b'{"vector": "1,2,3,4"}', "vector"),
    (b'{"vector": [1,2,3]}', "vector"),
    (b'{"vector": [1,2,3,4,5]}', "vector"),
    (b'{"vector": [1,2,3,null]}', "vector[3]"),
    (b'{"vector": [1,true,3,4]}', "vector[1]"),
    (b'{"vector": [1,"2",3,4]}', "vector[1]"),
    (b'{"vector": [1,[2],3,4]}', "vector[1]"),
    (b'{"vector": [1,2,NaN,4]}', "vector[2]"),
    (b'{"vector": [1,2,-Infinity,4]}', "vector[2]"),
    (b'{"vector": [1,1e999,3,4]}', "vector[1]"),
    (b'{"vector": [1,1e300,3,4]}', "vector[1]"),
    (b'{"vector": [0,0,0,0]}', "vector"),
    (b'{"vectors": []}', "vectors"),
    (b'{"vectors": [[1,2,3,4],[1,2]]}', "vectors[1]"),
    (b'{"vectors": [[1,2,3,4],[0,0,0,0]]}', "vectors[1]"),
    (b'{"vector": [1,2,3,4], "k": 0}', "k"),
    (b'{"vector": [1,2,3,4], "k": -1}', "k"),
    (b'{"vector": [1,2,3,4], "k": 1099511627776}', "k"),
    (b'{"vector": [1,2,3,4], "k": 2.5}', "k"),
    (b'{"vector": [1,2,3,4], "k": "3"}', "k"),
    (b'{"vector": [1,2,3,4], "k": true}', "k"),
    (f'{{"vector": [1,2,3,4], "k": {MAX_K + 1}}}'.encode(), "k"),
    (b'{"vector": [1,2,3,4], "efSearch": 0}', "efSearch"),
    (b'{"vector": [1,2,3,4], "efSearch": 2147483647}', "efSearch"),
    (b'{"vector": [1,2,3,4], "nprobe": 3}', "nprobe"),
]


@pytest.mark.parametrize(("body", "field"), BAD, ids=[body.decode()[:50] or "empty" for body, _ in BAD])
def test_a_bad_request_is_refused_and_its_field_named(served: ServedIndex, body: bytes, field: str) -> None:
    answer = ask(served, body=body)

    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"].startswith(field), answer.text
    assert answer.json()["detail"]


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"vector": [' + b"9" * 5000 + b",2,3,4]}", b'{"vector":' + b"[" * 50_000])
def test_deep_and_huge_json_is_refused(served: ServedIndex, body: bytes) -> None:
    assert ask(served, body=body).status_code == 400


def test_too_many_vectors_are_refused(served: ServedIndex) -> None:
    answer = search(served, vectors=[[1, 2, 3, 4]] * (MAX_QUERIES + 1))

    assert (answer.status_code, answer.json()["field"]) == (400, "vectors")


def test_a_flat_index_has_no_ef_search() -> None:
    served = ServedIndex(index=IndexSpec(DIMENSION, Metric.COSINE, IndexType.FLAT, HNSW))

    answer = search(served, vector=[1, 2, 3, 4], efSearch=10)

    assert (answer.status_code, answer.json()["field"]) == (400, "efSearch")


IVF = IndexSpec(DIMENSION, Metric.COSINE, IndexType.IVFFLAT, ivf=Ivf(nlist=4, nprobe=1))


@pytest.mark.parametrize(
    ("index", "reach", "detail"),
    [
        (IndexSpec(DIMENSION, Metric.COSINE, IndexType.FLAT), {"nprobe": 1}, "only IVFFlat has nprobe, and this index is Flat"),
        (IndexSpec(DIMENSION, Metric.COSINE, IndexType.HNSW, HNSW), {"nprobe": 1}, "only IVFFlat has nprobe, and this index is HNSW"),
        (IVF, {"efSearch": 10}, "only HNSW has efSearch, and this index is IVFFlat"),
        (IVF, {"nprobe": 5}, "this index has 4 lists"),
        (IVF, {"nprobe": 0}, "expected int >= 1"),
    ],
)
def test_a_reach_that_the_index_does_not_have_is_refused(index: IndexSpec, reach: dict[str, int], detail: str) -> None:
    answer = search(ServedIndex(index=index), vector=[1, 2, 3, 4], **reach)

    assert (answer.status_code, answer.json()["field"], answer.json()["detail"]) == (400, next(iter(reach)), detail)


def test_nprobe_reaches_the_index() -> None:
    served = ServedIndex(rows=400, index=IVF)
    queries = np.random.default_rng(5).normal(size=(50, DIMENSION)).round(3).tolist()

    def count_hits(**reach: int) -> int:
        results = search(served, vectors=queries, k=20, **reach).json()["results"]
        pairs = zip(results, queries, strict=True)
        return sum(len({hit["id"] for hit in hits} & set(nearest(served, query, 20))) for hits, query in pairs)

    assert count_hits() < 900
    assert count_hits(nprobe=4) == 1000


@pytest.mark.parametrize(
    ("kind", "ids", "expected"),
    [
        (IdKind.UUID, np.array([bytes(15) + b"\1", b"\1" + bytes(15)], "S16"), [f"{1:032x}", f"01{0:030x}"]),
        (IdKind.TEXT, np.array(["zwölf".encode(), b"a"]), ["zwölf", "a"]),
    ],
)
def test_ids_that_are_no_numbers_are_answered_as_texts(kind: IdKind, ids: Any, expected: list[str]) -> None:
    served = ServedIndex(rows=2)
    served.publish(build_view(served.identity.index, ids, served.vectors, kind=kind))

    hits = search(served, vector=served.vectors[0].tolist(), k=5).json()["results"]

    assert [hit["id"].replace("-", "") for hit in hits] == expected
    assert hits[0]["score"] > hits[1]["score"]


# --- the binary form

BINARY = {"content-type": "application/octet-stream"}


def search_binary(served: ServedIndex, body: bytes, query: str = "") -> httpx.Response:
    return ask(served, "POST", f"{PATH}?{query}" if query else PATH, body, BINARY)


@pytest.mark.parametrize("metric", list(Metric))
def test_the_binary_form_answers_what_json_does(metric: Metric) -> None:
    served = ServedIndex(index=IndexSpec(DIMENSION, metric, IndexType.HNSW, HNSW))
    queries = np.random.default_rng(3).normal(size=(7, DIMENSION)).astype("<f4")

    answer = search_binary(served, queries.tobytes(), "k=3&efSearch=50")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    assert answer.headers["vectorindex-generation"] == "3"
    ids = np.frombuffer(answer.content[: 7 * 3 * 8], "<i8").reshape(7, 3)
    scores = np.frombuffer(answer.content[7 * 3 * 8 :], "<f4").reshape(7, 3)
    results = search(served, vectors=queries.tolist(), k=3, efSearch=50).json()["results"]
    assert [[hit["id"] for hit in hits] for hits in results] == ids.tolist()
    np.testing.assert_allclose([[hit["score"] for hit in hits] for hits in results], scores, rtol=1e-6)


def test_the_binary_form_pads_short_answers() -> None:
    answer = search_binary(ServedIndex(rows=2), np.ones(DIMENSION, "<f4").tobytes())
    assert sorted(np.frombuffer(answer.content[:80], "<i8").tolist()) == [-1] * 8 + [1, 2]
    assert np.isnan(np.frombuffer(answer.content[80:], "<f4")).tolist() == [False] * 2 + [True] * 8


@pytest.mark.parametrize(
    ("body", "query", "field"),
    [
        (b"", "", "body"),
        (b"\0" * 15, "", "body"),
        (b"\0" * 16, "", "vectors[0]"),
        (np.array([1, 2, np.nan, 4], "<f4").tobytes(), "", "vectors[0][2]"),
        (np.array([1, 2, 3, np.inf], "<f4").tobytes(), "", "vectors[0][3]"),
        (np.ones(DIMENSION * (MAX_QUERIES + 1), "<f4").tobytes(), "k=1", "body"),
        (np.ones(DIMENSION * 101, "<f4").tobytes(), "k=1000", "body"),
        (np.ones(DIMENSION, "<f4").tobytes(), "k=0", "k"),
        (np.ones(DIMENSION, "<f4").tobytes(), "k=", "k"),
        (np.ones(DIMENSION, "<f4").tobytes(), "k=1.5", "k"),
        (np.ones(DIMENSION, "<f4").tobytes(), "k=1&k=2", "query"),
        (np.ones(DIMENSION, "<f4").tobytes(), "nprobe=1", "nprobe"),
        (np.ones(DIMENSION, "<f4").tobytes(), "vector=1", "vector"),
        (np.ones(DIMENSION, "<f4").tobytes(), "&&&", "query"),
    ],
)
def test_a_bad_request_in_binary_form_is_refused_and_its_field_named(served: ServedIndex, body: bytes, query: str, field: str) -> None:
    answer = search_binary(served, body, query)

    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field, answer.text


@pytest.mark.parametrize("kind", [IdKind.UUID, IdKind.TEXT])
def test_the_binary_form_is_refused_for_ids_that_are_no_numbers(kind: IdKind) -> None:
    served = ServedIndex(rows=2)
    served.publish(build_view(served.identity.index, make_ids(kind, 2), served.vectors, kind=kind))

    answer = search_binary(served, np.ones(DIMENSION, "<f4").tobytes())

    assert (answer.status_code, answer.json()["field"]) == (400, "Content-Type")
    assert f"of type {kind}" in answer.json()["detail"]


def test_the_description_tells_what_can_be_asked() -> None:
    def properties(index: IndexSpec) -> set[str]:
        document = ask(ServedIndex(rows=10, index=index), "GET", "/openapi.json").json()
        return set(document["components"]["schemas"]["Search"]["properties"])

    assert properties(IVF) == {"vector", "vectors", "k", "nprobe"}
    assert properties(IndexSpec(DIMENSION, Metric.COSINE, IndexType.HNSW, HNSW)) == {"vector", "vectors", "k", "efSearch"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", PATH, JSON, 405),
        ("POST", "/v1/indexes/other/search", JSON, 404),
        ("POST", "/", JSON, 404),
        ("POST", PATH, {"content-type": "text/plain"}, 415),
        ("POST", PATH, {}, 415),
        ("POST", PATH, JSON | {"content-encoding": "gzip"}, 415),
        ("POST", PATH, JSON | {"content-length": str(MAX_BODY_BYTES + 1)}, 413),
    ],
)
def test_other_requests_are_refused_as_http_says(served: ServedIndex, method: str, path: str, headers: dict[str, str], status: int) -> None:
    answer = ask(served, method, path, b'{"vector": [1,2,3,4]}', headers)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_that_grows_too_large_on_the_way_is_refused(served: ServedIndex) -> None:
    assert ask(served, body=b" " * (MAX_BODY_BYTES + 1)).status_code == 413


def test_a_replica_that_may_not_serve_answers_so_itself() -> None:
    served = ServedIndex()
    served.ready = False

    answer = search(served, vector=[1, 2, 3, 4])

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "Proving" in answer.json()["detail"]


def test_a_defect_is_an_error_of_ours_without_its_text(served: ServedIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("canary-71ab")

    monkeypatch.setattr(app_module.SearchApp, "_parse", fail)
    answer = search(served, vector=[1, 2, 3, 4])

    assert answer.status_code == 500
    assert "canary" not in answer.text


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["vector", "vectors", "k", "efSearch", "nprobe", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=JSON_VALUES, noise=st.binary(max_size=6))
def test_no_body_ends_in_an_error_of_ours_or_in_a_bare_nan(served: ServedIndex, document: Any, noise: bytes) -> None:
    for body in (json.dumps(document).encode(), json.dumps(document).encode() + noise, noise):
        answer = ask(served, body=body)
        assert answer.status_code in (200, 400)
        json.loads(answer.text, parse_constant=refuse_constant)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"a bare {name} went out")


def test_the_description_is_served_and_names_the_path(served: ServedIndex) -> None:
    document = ask(served, "GET", "/openapi.json").json()

    assert document["openapi"].startswith("3.1")
    assert PATH in document["paths"]


# --- ops


def test_livez_depends_on_the_process_and_readyz_on_the_data() -> None:
    served = ServedIndex()
    assert (ask_ops(served, "/livez").status_code, ask_ops(served, "/readyz").status_code) == (200, 200)

    served.ready = False
    assert (ask_ops(served, "/livez").status_code, ask_ops(served, "/readyz").status_code) == (200, 503)
    assert ask_ops(served, "/readyz").json()["state"] == "Proving"

    served.alive = False
    assert ask_ops(served, "/livez").status_code == 503


def test_while_draining_readyz_says_no_and_searches_are_still_answered() -> None:
    served = ServedIndex()
    doors = Doors(served)
    doors.start_draining()

    assert ask_ops(served, "/readyz", doors).status_code == 503
    assert doors.is_open()

    late = ServedIndex()
    late.ready = False
    never = Doors(late)
    never.start_draining()
    assert not never.is_open(), "who did not serve before does not begin to while it ends"


def test_metrics_count_searches_by_code() -> None:
    served = ServedIndex()
    search(served, vector=[1, 2, 3, 4])
    search(served, vector=[1])

    text = ask_ops(served, "/metrics").text

    assert 'vectorindex_search_requests_total{code="200",index="docs"} 1.0' in text
    assert 'vectorindex_search_requests_total{code="400",index="docs"} 1.0' in text
    assert "_created" not in text


def test_the_status_is_the_report(served: ServedIndex) -> None:
    answer = ask_ops(served, "/v1/status")

    assert msgspec.json.decode(answer.content, type=report.Status) == served.status()
    assert ask_ops(served, "/other").headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("metric", list(Metric))
def test_scores_mean_what_the_metric_says(metric: Metric) -> None:
    served = ServedIndex(index=IndexSpec(DIMENSION, metric, IndexType.FLAT, HNSW))
    query = np.array([0.5, -1.0, 2.0, 0.25])
    measure: dict[Metric, Callable[[np.ndarray], np.ndarray]] = {
        Metric.COSINE: lambda vectors: vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query),
        Metric.INNER_PRODUCT: lambda vectors: vectors @ query,
        Metric.L2: lambda vectors: ((vectors - query) ** 2).sum(axis=1),
    }
    expected = measure[metric](served.vectors.astype(np.float64))
    best = np.argsort(expected if metric is Metric.L2 else -expected)[:5]

    hits = search(served, vector=query.tolist(), k=5).json()["results"]

    assert [hit["id"] for hit in hits] == served.ids[best].tolist()
    np.testing.assert_allclose([hit["score"] for hit in hits], expected[best], rtol=1e-4, atol=1e-5)
