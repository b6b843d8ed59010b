"""Searches in one worker thread; what queues up while one search runs is searched as one batch. HTTP is left to `app`."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.errors import SearchError, VectorIndexError
from vectorindex_indexer.keys import IdKind, Ids

BATCH_QUERIES: Final = 1024  # a batch is closed once it has so many; bounds what one search can hold up
WAITING_QUERIES: Final = 8192  # beyond that we are too slow for what comes in, and say so at once


class SearchView(Protocol):
    """What of a view is needed to search it."""

    @property
    def generation(self) -> int:
        """Which build of the index it is."""

    @property
    def id_kind(self) -> IdKind:
        """What its ids are."""

    def search(
        self, queries: NDArray[np.float32], k: int, ef_search: int | None = None, nprobe: int | None = None
    ) -> tuple[Ids, NDArray[np.float32]]:
        """Return ids and scores, (q, k) each, padded with scores of NaN where fewer than k rows are live."""


class Published(Protocol):
    """A view with what is said of it; replaced as a whole."""

    @property
    def view(self) -> SearchView:
        """What is searched."""

    @property
    def as_of_text(self) -> str:
        """Its as-of point, RFC 3339 in UTC."""


class Publisher(Protocol):
    """What a replica offers to searches. Both may change at any moment, from another thread."""

    @property
    def published(self) -> Published | None:
        """What is searched now; None while nothing may be."""

    @property
    def proven(self) -> bool:
        """Whether that equals Postgres as of its as-of point, shown by the last check."""


@dataclass(frozen=True)
class Query:
    """What is asked. `vectors`: (q, d) float32, C-contiguous; `single` asks for one flat list of hits."""

    vectors: NDArray[np.float32]
    k: int
    ef_search: int | None = None
    nprobe: int | None = None
    single: bool = False
    binary: bool = False  # the answer is to be numbers behind each other, not JSON


@dataclass(frozen=True)
class Answer:
    """What was found. `ids` (q, k) and `scores` (q, k) float32, row i answers query i; a score of NaN is padding."""

    generation: int
    as_of: str
    proven: bool
    id_kind: IdKind
    ids: Ids
    scores: NDArray[np.float32]
    body: bytes = b""  # the answer as sent


class BusyError(VectorIndexError):
    """Too many queries wait already."""


class NothingToSearchError(VectorIndexError):
    """The replica has no view."""


Render = Callable[[Query, Answer], Answer]
_Outcome = Answer | Exception


class Batcher:
    """Takes queries one by one, and answers all that wait together.

    Nothing waits for a batch to fill: a query that finds the thread idle is searched alone, at once.
    All methods belong to one event loop.
    """

    def __init__(self, publisher: Publisher, render: Render, on_batch: Callable[[int], None]) -> None:
        self._publisher = publisher
        self._render = render
        self._on_batch = on_batch
        self._waiting: deque[tuple[Query, asyncio.Future[Answer]]] = deque()
        self._waiting_queries = 0
        self._runner: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="search")

    async def search(self, query: Query) -> Answer:
        """Return the answer; raise SearchError for what the index refuses, BusyError, NothingToSearchError."""
        queries = len(query.vectors)
        if self._waiting_queries + queries > WAITING_QUERIES:
            raise BusyError(f"{self._waiting_queries} queries are waiting already")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((query, future))
        self._waiting_queries += queries
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await future

    def close(self) -> None:
        """End the thread after the search it is at."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = self._take()
                outcomes: list[_Outcome]
                try:
                    outcomes = await loop.run_in_executor(self._thread, self._search_batch, [query for query, _ in batch])
                except RuntimeError as error:  # the thread was closed; nobody may be left waiting
                    outcomes = [error] * len(batch)
                for (_, future), outcome in zip(batch, outcomes, strict=True):
                    if future.done():  # whoever asked has given up
                        continue
                    if isinstance(outcome, Exception):
                        future.set_exception(outcome)
                    else:
                        future.set_result(outcome)
        finally:
            self._runner = None

    def _take(self) -> list[tuple[Query, asyncio.Future[Answer]]]:
        """Take what waits, in order, up to the size of a batch; at least one."""
        batch: list[tuple[Query, asyncio.Future[Answer]]] = []
        queries = 0
        while self._waiting and queries < BATCH_QUERIES:
            query, future = self._waiting.popleft()
            self._waiting_queries -= len(query.vectors)
            if future.done():
                continue
            batch.append((query, future))
            queries += len(query.vectors)
        return batch

    def _search_batch(self, queries: Sequence[Query]) -> list[_Outcome]:
        """Answer all of them from one view; in the worker thread. Never raises: each query has its own outcome."""
        proven, published = self._publisher.proven, self._publisher.published
        if published is None:
            return [NothingToSearchError("nothing to search yet") for _ in queries]
        outcomes: list[_Outcome] = [NothingToSearchError("not searched")] * len(queries)
        for positions in _group(queries):
            members = [queries[position] for position in positions]
            for position, outcome in zip(positions, self._search_group(published, proven, members), strict=True):
                outcomes[position] = outcome
        return outcomes

    def _search_group(self, published: Published, proven: bool, queries: Sequence[Query]) -> list[_Outcome]:
        """Answer queries that agree in all but their vectors by one call."""
        view = published.view
        vectors = queries[0].vectors if len(queries) == 1 else np.concatenate([query.vectors for query in queries])
        try:
            self._on_batch(len(vectors))
            ids, scores = view.search(vectors, queries[0].k, queries[0].ef_search, queries[0].nprobe)
            outcomes: list[_Outcome] = []
            start = 0
            for query in queries:
                end = start + len(query.vectors)
                answer = Answer(view.generation, published.as_of_text, proven, view.id_kind, ids[start:end], scores[start:end])
                outcomes.append(self._render(query, answer))
                start = end
        except SearchError as error:
            if len(queries) == 1:
                return [error]
            # One of them is at fault: the others must not suffer, and only alone does the field named fit.
            return [outcome for query in queries for outcome in self._search_group(published, proven, [query])]
        except Exception as error:  # a defect; whoever asked is told, and the thread lives on
            return [error] * len(queries)
        return outcomes


def _group(queries: Sequence[Query]) -> list[list[int]]:
    """Return the positions of the queries in groups that can be searched in one call."""
    groups: dict[tuple[int, int | None, int | None], list[int]] = {}
    for position, query in enumerate(queries):
        groups.setdefault((query.k, query.ef_search, query.nprobe), []).append(position)
    return list(groups.values())
