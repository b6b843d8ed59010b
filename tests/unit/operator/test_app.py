"""What the operator takes for a hang: only what does not go on by itself."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from vectorindex_operator.app import LOOP_STUCK, STUCK, App
from vectorindex_operator.names import Key
from vectorindex_operator.settings import Settings


class Watching:
    def __init__(self, *, alive: bool = True, watching: bool = True) -> None:
        self._alive, self._watching = alive, watching

    def is_alive(self) -> bool:
        return self._alive

    def is_watching(self) -> bool:
        return self._watching


def make_app(**fields: object) -> App:
    app = App(Settings(indexer_image="x", resync=timedelta(seconds=60)))
    now = time.monotonic()
    fields = {"_supervisor": Watching(), "_leading": True, "_resynced_at": now, "_taken_at": now, **fields}
    for name, value in fields.items():
        setattr(app, name, value)
    app._heart.note_beat()
    return app


def long_ago(seconds: float) -> float:
    return time.monotonic() - seconds


def a_stuck_loop(app: App) -> None:
    app._heart._beat_at = long_ago(LOOP_STUCK.total_seconds() + 1)


def a_stuck_kopf(app: App) -> None:
    app._supervisor = Watching(alive=False)  # type: ignore[assignment]


def a_hanging_worker(app: App) -> None:
    app._busy[2] = long_ago(STUCK.total_seconds() + 1)


def a_standing_queue(app: App) -> None:
    app._queue.add(Key("search", "docs"))
    app._taken_at = long_ago(STUCK.total_seconds() + 1)


def a_missing_resync(app: App) -> None:
    app._resynced_at = long_ago(STUCK.total_seconds() + 2 * 60 + 1)


@pytest.mark.parametrize(
    ("befall", "told"),
    [
        (a_stuck_loop, "event loop is stuck"),
        (a_stuck_kopf, "loop of the watches"),
        (a_hanging_worker, "worker hangs"),
        (a_standing_queue, "queue stands"),
        (a_missing_resync, "resync"),
    ],
)
def test_each_hang_is_told(befall: Callable[[App], None], told: str) -> None:
    app = make_app()
    assert app.find_hang() == ""
    befall(app)
    assert told in app.find_hang()


def test_waiting_is_no_hang() -> None:
    standby = make_app(_leading=False)
    a_standing_queue(standby)  # left from nothing: who waits works on nothing
    assert standby.find_hang() == ""
    idle = make_app(_taken_at=long_ago(1e6))
    assert idle.find_hang() == ""
    before_the_api_server_answers = make_app(_supervisor=None, _resynced_at=long_ago(1e6))
    assert before_the_api_server_answers.find_hang() == ""


def test_ready_is_who_watches_all_whether_it_leads_or_waits() -> None:
    assert make_app().find_unready() == ""
    assert make_app(_leading=False).find_unready() == ""
    assert make_app(_supervisor=Watching(watching=False)).find_unready()
    assert make_app(_supervisor=None).find_unready()
