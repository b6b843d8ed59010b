"""How late an event loop is, as another thread sees it."""

import asyncio
import time

from vectorindex_operator.heart import INTERVAL, WINDOW, Heart


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def test_a_blocking_call_is_seen_as_lag() -> None:
    async def run() -> tuple[float, float]:
        heart = Heart()
        beating = asyncio.create_task(heart.beat())
        await asyncio.sleep(3 * INTERVAL)
        before = heart.lag()
        time.sleep(0.4)  # noqa: ASYNC251 - the fault
        during = heart.lag()
        await asyncio.sleep(2 * INTERVAL)
        beating.cancel()
        assert heart.lag() >= 0.25  # still told after it is over
        return before, during

    before, during = asyncio.run(run())
    assert before < during
    assert 0.25 < during < 2


def test_what_still_lasts_counts_and_what_is_long_over_is_forgotten() -> None:
    clock = Clock()
    heart = Heart(clock)
    clock.now += 20
    assert heart.is_stuck(15)
    assert not heart.is_stuck(25)
    assert heart.lag() > 19
    heart.note_beat()
    assert not heart.is_stuck(1)
    assert heart.lag() > 19
    for _ in range(int(2 * WINDOW / INTERVAL) + 10):
        clock.now += INTERVAL
        heart.note_beat()
    assert heart.lag() < 0.01
