"""A served index without Postgres: real views over FAISS behind the port that HTTP asks, its state set by the test."""

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from tests.support.views import build_view
from vectorindex_indexer import report
from vectorindex_indexer.batcher import Published
from vectorindex_indexer.config import Hnsw, Identity, IndexSpec, IndexType, Metric, PostgresAddress, SourceSpec, SslMode, TableName
from vectorindex_indexer.index import View
from vectorindex_indexer.metrics import Metrics
from vectorindex_indexer.names import ProofReason, Result, SourceReason, State

DIMENSION = 4
HNSW = Hnsw(m=8, ef_construction=40, ef_search=32)


def make_identity(name: str = "docs", index: IndexSpec | None = None) -> Identity:
    source = SourceSpec(
        postgres=PostgresAddress("127.0.0.1", 5432, "app", SslMode.DISABLE),
        table=TableName("public", "embeddings"),
        id_column="id",
        vector_column="vector",
        model_column=None,
        model=None,
        tombstone=None,
    )
    index = index or IndexSpec(DIMENSION, Metric.COSINE, IndexType.HNSW, HNSW)
    return Identity(name, "search", "5e0a4c5e-1111-4c1e-9a51-000000000001", source, index, "0f1e2d3c4b5a6978")


def make_rows(rows: int, dimension: int = DIMENSION, seed: int = 7) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return ids 1.. and random vectors."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return np.arange(1, rows + 1, dtype=np.int64), vectors


class PublishedView:
    """A view with its as-of point."""

    def __init__(self, view: View, as_of_text: str) -> None:
        self.view = view
        self.as_of_text = as_of_text


class ServedIndex:
    """One index of rows given by the test."""

    def __init__(self, rows: int = 200, index: IndexSpec | None = None, generation: int = 3) -> None:
        self.identity = make_identity(index=index)
        self.metrics = Metrics(self.identity.name)
        self.ids, self.vectors = make_rows(rows, self.identity.index.dimension)
        spec = self.identity.index
        self.published: Published | None = None
        self.publish(build_view(spec, self.ids, self.vectors, generation))
        self.proven = True
        self.ready = True
        self.alive = True
        self.stopped = False
        self.accepting = True

    def publish(self, view: View) -> None:
        self.published = PublishedView(view, "2026-11-25T09:00:01.250Z")

    def is_ready(self) -> bool:
        return self.ready and self.accepting and self.published is not None

    def is_alive(self) -> bool:
        return self.alive

    def stop_accepting(self) -> None:
        self.accepting = False

    def start(self) -> None:
        self.alive = True

    def stop(self) -> None:
        self.stopped = True

    def status(self) -> report.Status:
        now = datetime(2026, 11, 25, 9, tzinfo=UTC).isoformat()
        identity = report.Identity(
            self.identity.name,
            self.identity.namespace,
            self.identity.uid,
            "docs-index-0",
            "pod-uid",
            self.identity.hash,
            "live",
            "",
            "",
            [],
        )
        proof = report.Proof(
            Result.OK if self.proven else Result.UNKNOWN,
            ProofReason.PROVEN if self.proven else ProofReason.NOT_CHECKED,
            "all equal" if self.proven else "no check has finished yet",
            *("", now, "", "", "", "", now, now, now),
            len(self.ids),
            len(self.ids),
            0.1,
            report.Layers(Result.OK, Result.OK, Result.OK),
            now,
            0.5,
            1.0,
        )
        return report.Status(
            version=1,
            identity=identity,
            state=State.SERVING if self.is_ready() else State.PROVING,
            ready=self.is_ready(),
            proven=self.proven,
            suspended=False,
            view=None,
            source=report.Source(True, SourceReason.REACHABLE, "", "127.0.0.1:5432/app public.embeddings"),
            proof=proof,
            drift=report.Drift(),
            drift_samples=report.DriftSamples(),
            pending=0,
            held_plan=None,
            repairs=[],
            progress=report.Progress(0, 0, 0),
            quarantine={},
        )
