"""The queue: a key waits once, is worked on once at a time, and no news about it gets lost."""

import asyncio
from datetime import timedelta

from vectorindex_operator.workqueue import WorkQueue


def test_a_key_added_often_comes_once() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key in ("a", "b", "a", "a"):
            queue.add(key)
        assert [await queue.take(), await queue.take()] == ["a", "b"]
        assert len(queue) == 0

    asyncio.run(scenario())


def test_news_during_the_work_bring_the_key_again_after_it() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        await queue.take()
        queue.add("a")
        queue.add("a")
        assert len(queue) == 0
        queue.done("a")
        assert await queue.take() == "a"
        queue.done("a")
        assert len(queue) == 0

    asyncio.run(scenario())


def test_the_earliest_time_set_counts_and_news_come_before_it() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_within("a", timedelta(hours=1))
        queue.add_within("a", timedelta(0))
        queue.add_within("a", timedelta(hours=1))
        assert await asyncio.wait_for(queue.take(), 5) == "a"
        queue.add_within("a", timedelta(0))  # during the work: not put off by the next look, which is due later
        queue.done("a")
        queue.add_within("a", timedelta(hours=1))
        assert await asyncio.wait_for(queue.take(), 5) == "a"
        queue.done("a")
        queue.add_within("a", timedelta(hours=1))
        queue.add("a")
        assert await asyncio.wait_for(queue.take(), 5) == "a"
        queue.done("a")
        assert len(queue) == 0

    asyncio.run(scenario())


def test_a_key_that_waits_already_is_not_put_off() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.add_within("a", timedelta(hours=1))
        assert await asyncio.wait_for(queue.take(), 5) == "a"

    asyncio.run(scenario())
