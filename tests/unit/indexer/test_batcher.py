"""What queues up while one search runs is searched together, and nobody suffers for another's query."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from vectorindex_indexer import batcher as module
from vectorindex_indexer.batcher import Answer, Batcher, BusyError, NothingToSearchError, Query, SearchView
from vectorindex_indexer.errors import SearchError
from vectorindex_indexer.keys import IdKind

WAIT_SECONDS = 10.0


class GatedView:
    """Answers each query with its own first number as id, once the gate is open; refuses negative ones."""

    generation = 1
    id_kind = IdKind.INTEGER

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.calls: list[tuple[int, int, int | None, int | None]] = []

    def search(
        self, queries: NDArray[np.float32], k: int, ef_search: int | None = None, nprobe: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        self.calls.append((len(queries), k, ef_search, nprobe))
        self.entered.set()
        assert self.gate.wait(WAIT_SECONDS)
        if (queries < 0).any():
            raise SearchError("vector", "negative")
        ids = np.repeat(queries[:, :1].astype(np.int64), k, axis=1)
        return ids, ids.astype(np.float32)


class Publisher:
    """Publishes one view, or none."""

    def __init__(self, view: SearchView | None) -> None:
        self.proven = True
        self.as_of_text = "2026-11-25T09:00:00Z"
        self._view = view

    @property
    def view(self) -> SearchView:
        assert self._view is not None
        return self._view

    @property
    def published(self) -> "Publisher | None":
        return self if self._view is not None else None


def make_query(*firsts: int, k: int = 1, ef_search: int | None = None, nprobe: int | None = None) -> Query:
    return Query(np.array([[first] for first in firsts], np.float32), k, ef_search, nprobe)


async def search_behind(batcher: Batcher, view: GatedView, queries: list[Query]) -> list[Answer | BaseException]:
    """Send a first query, and the others while it is being searched; return the others' outcomes."""
    first = asyncio.create_task(batcher.search(make_query(0)))
    assert await asyncio.to_thread(view.entered.wait, WAIT_SECONDS)
    rest = [asyncio.create_task(batcher.search(query)) for query in queries]
    await asyncio.sleep(0)  # all of them are queued now
    view.gate.set()
    await first
    return await asyncio.gather(*rest, return_exceptions=True)


def run(queries: list[Query]) -> tuple[GatedView, list[Answer | BaseException], list[int]]:
    view, sizes = GatedView(), list[int]()
    batcher = Batcher(Publisher(view), lambda _, answer: replace(answer, body=b"x"), sizes.append)
    outcomes = asyncio.run(search_behind(batcher, view, queries))
    batcher.close()
    return view, outcomes, sizes


def found(outcome: Answer | BaseException) -> list[int]:
    assert isinstance(outcome, Answer), outcome
    return [int(key) for key in outcome.ids[:, 0]]


def test_what_waits_is_searched_in_one_call() -> None:
    view, outcomes, sizes = run([make_query(1), make_query(2, 3), make_query(4)])
    assert view.calls == [(1, 1, None, None), (4, 1, None, None)]
    assert [found(outcome) for outcome in outcomes] == [[1], [2, 3], [4]]
    assert sizes == [1, 4]


def test_only_equal_parameters_share_a_call() -> None:
    others = [make_query(4, ef_search=9), make_query(5, k=5), make_query(6, nprobe=4)]
    view, outcomes, _ = run([make_query(1), make_query(2, k=5), make_query(3), *others])
    assert view.calls[1:] == [(2, 1, None, None), (2, 5, None, None), (1, 1, 9, None), (1, 1, None, 4)]
    assert [found(outcome) for outcome in outcomes] == [[1], [2], [3], [4], [5], [6]]


def test_one_refused_query_does_not_spoil_the_batch() -> None:
    _, outcomes, _ = run([make_query(1), make_query(-2), make_query(3)])
    assert (found(outcomes[0]), found(outcomes[2])) == ([1], [3])
    assert isinstance(outcomes[1], SearchError)


def test_a_defect_reaches_all_who_asked_and_the_next_is_answered() -> None:
    view = GatedView()
    view.gate.set()
    failing = iter([True, False])

    def render(_: Query, answer: Answer) -> Answer:
        if next(failing):
            raise RuntimeError("defect")
        return answer

    async def ask() -> Answer:
        batcher = Batcher(Publisher(view), render, lambda _: None)
        with pytest.raises(RuntimeError, match="defect"):
            await batcher.search(make_query(1))
        return await batcher.search(make_query(2))

    assert found(asyncio.run(ask())) == [2]


def test_who_gives_up_is_not_searched_for() -> None:
    view = GatedView()
    batcher = Batcher(Publisher(view), lambda _, answer: answer, lambda _: None)

    async def ask() -> None:
        first = asyncio.create_task(batcher.search(make_query(0)))
        assert await asyncio.to_thread(view.entered.wait, WAIT_SECONDS)
        impatient = asyncio.create_task(batcher.search(make_query(1)))
        patient = asyncio.create_task(batcher.search(make_query(2)))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.sleep(0)
        view.gate.set()
        await asyncio.gather(first, patient)

    asyncio.run(ask())
    assert view.calls == [(1, 1, None, None), (1, 1, None, None)]


def test_too_many_waiting_queries_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_QUERIES", 3)
    _, outcomes, _ = run([make_query(1, 2), make_query(3, 4), make_query(5)])
    assert [type(outcome) for outcome in outcomes] == [Answer, BusyError, Answer]


def test_without_a_view_there_is_no_answer() -> None:
    async def ask() -> None:
        await Batcher(Publisher(None), lambda _, answer: answer, lambda _: None).search(make_query(1))

    with pytest.raises(NothingToSearchError):
        asyncio.run(ask())
