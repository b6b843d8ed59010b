"""The database as its owner sees it: loading, changing, and what must be in the index, by SQL that the product does not share."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from examples.wordnet import load

from .kubernetes import Kubernetes
from .report import StepError


@dataclass(frozen=True)
class Rows:
    """Live rows. `vectors`: (n, 384) float32, row i belongs to `ids[i]`; `ids` ascend."""

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]

    def nearest(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Return the ids (q, k) of the rows of greatest cosine, by exact search."""
        unit = self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)
        scores = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ unit.T
        best = np.argpartition(-scores, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        found: NDArray[np.int64] = self.ids[np.take_along_axis(best, order, axis=1)]
        return found


class Upstream:
    """A superuser's connection to the database, in autocommit."""

    def __init__(self, connection: psycopg.Connection[Any], data: load.Slice) -> None:
        self.connection = connection
        self.data = data

    @classmethod
    @contextmanager
    def reach(cls, kubernetes: Kubernetes, namespace: str, password: str) -> Iterator["Upstream"]:
        """Forward a local port to Postgres and connect through it."""
        forwarding = kubernetes.start("port-forward", f"--namespace={namespace}", "service/postgres", ":5432")
        try:
            line = forwarding.stdout.readline() if forwarding.stdout else ""
            match = re.search(r"127\.0\.0\.1:(\d+)", line)
            if match is None:
                said = forwarding.stderr.read() if forwarding.stderr and forwarding.poll() is not None else line
                raise StepError(f"kubectl port-forward to Postgres failed: {said.strip()}")
            with psycopg.connect(
                host="127.0.0.1", port=int(match[1]), user="postgres", password=password, dbname="app", sslmode="disable", autocommit=True
            ) as connection:
                yield cls(connection, load.read_slice())
        finally:
            forwarding.kill()
            forwarding.communicate()

    def load(self, reader_password: str) -> load.Counts:
        """Put the rows of the example into the database, in place of what was there."""
        return load.load_rows(self.connection, replace=True, reader_password=reader_password, data=self.data)

    def set_reader_password(self, password: str) -> None:
        """Change the password with which replicas connect."""
        load.set_reader_password(self.connection, password)

    def live(self) -> Rows:
        """Return the rows an index must hold."""
        return Rows(*load.live_rows(self.connection))

    def dead_ids(self) -> NDArray[np.int64]:
        """Return the ids of rows of our model that no index may hold, ascending."""
        found = self.connection.execute("SELECT entity_id FROM public.embeddings WHERE model_name = %s", [load.MODEL]).fetchall()
        dead: NDArray[np.int64] = np.setdiff1d(np.array([row[0] for row in found], np.int64), self.live().ids)
        return dead

    def vector_of(self, entity: int) -> NDArray[np.float32]:
        """Return the vector of an entity of the data."""
        vector: NDArray[np.float32] = self.data.vectors[int(np.searchsorted(self.data.ids, entity))]
        return vector

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement, in a transaction of its own, and return its rows if it has any."""
        cursor = self.connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []
