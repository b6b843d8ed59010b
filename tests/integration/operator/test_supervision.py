"""The operator watches over itself: kopf's thread, the event loops, the kind that is served, and its own end."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.cluster import RunningCluster
from tests.support.gate import gate
from tests.support.operator_process import OperatorProcess, make_account, wait_for
from vectorindex_operator import handlers, metrics, supervisor
from vectorindex_operator.__main__ import STUCK
from vectorindex_operator.supervisor import Supervisor

Apply = Callable[..., None]
ROOT = Path(__file__).resolve().parents[3]


class Watched:
    """What kopf told, and how often it was begun."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.asked = 0
        self.supervisor = Supervisor(
            handlers.Memo(lambda kind, event: self.told.append(event["object"]["metadata"]["name"])), (), self.served
        )

    async def served(self) -> bool:
        self.asked += 1
        return True


async def until(what: str, holds: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


def supervise(cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch, scene: Callable[[Watched], object]) -> Watched:
    """Run kopf under its supervisor and the scene beside it, in a thread of its own."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setattr(supervisor, "PATIENCE", supervisor.PATIENCE / 10)

    async def run() -> Watched:
        watched = Watched()
        stop = asyncio.Event()
        running = asyncio.create_task(watched.supervisor.run(stop))
        await until("all is watched", watched.supervisor.is_watching)
        await asyncio.to_thread(scene, watched)
        stop.set()
        await asyncio.wait_for(running, 10)
        return watched

    return asyncio.run(run())


def current(watched: Watched) -> supervisor.Run:
    run = watched.supervisor._current
    assert run is not None
    return run


def test_streams_that_ended_without_a_word_begin_anew(
    cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch, namespace: str, apply: Apply
) -> None:
    """kopf does not begin a stream again whose task ended without an error, and runs on, blind."""

    def scene(watched: Watched) -> None:
        first = current(watched)
        own = first._own

        def end_one() -> None:
            next(task for task in asyncio.all_tasks(own) if task.get_name().startswith("watcher for vectorindexes")).cancel()

        own.call_soon_threadsafe(end_one)
        wait_for("not ready", lambda: not watched.supervisor.is_watching())
        wait_for("all is watched again", lambda: watched.supervisor.is_watching() and current(watched) is not first, 15)
        apply("later")
        wait_for("the new one is told", lambda: "later" in watched.told)

    restarts = metrics.RESTARTS._value.get()
    watched = supervise(cluster, monkeypatch, scene)
    assert metrics.RESTARTS._value.get() == restarts + 1
    assert watched.asked == 1  # whether the kind is still served


def test_a_stuck_loop_of_the_watches_is_told(cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HUNG", supervisor.HUNG / 60)

    def scene(watched: Watched) -> None:
        assert watched.supervisor.is_alive()
        current(watched)._own.call_soon_threadsafe(time.sleep, 2.5)
        wait_for("it is seen", lambda: not watched.supervisor.is_alive(), 2.4)
        assert not watched.supervisor.is_watching()
        assert watched.supervisor.lag() > 1
        wait_for("it goes on", watched.supervisor.is_alive, 5)

    supervise(cluster, monkeypatch, scene)


@pytest.fixture
def alone(cluster: RunningCluster, operator: OperatorProcess, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Make operators of this test; that of the other tests rests meanwhile."""
    assert operator.stop() == 0
    made: list[OperatorProcess] = []

    def make(path: Path | None = None, code: str = "") -> OperatorProcess:
        made.append(OperatorProcess(path or make_account(cluster, tmp_path), tmp_path / f"{len(made)}.log", code=code))
        return made[-1]

    yield make
    for process in made:
        process.end()
    operator.start()


@pytest.mark.parametrize("begun", ["before", pytest.param("meanwhile", marks=pytest.mark.slow)])
def test_without_its_definition_it_is_not_ready_and_works_when_that_is_back(
    cluster: RunningCluster, alone: Callable[..., OperatorProcess], namespace: str, apply: Apply, begun: str
) -> None:
    process = alone()
    process.start()
    cluster.kubectl("delete", "crd", "vectorindexes.vectorindex.dev")
    try:
        wait_for("it is not ready", lambda: not process.answers("/readyz"), 15)
        if begun == "meanwhile":
            assert process.stop() == 0
            process.launch()
        wait_for("it is alive", lambda: process.answers("/livez"))
        assert not process.answers("/readyz")
    finally:
        cluster.kubectl("apply", "--server-side", "-f", ROOT / "crds" / "vectorindexes.yaml")
    wait_for("the kind is served", lambda: cluster.try_kubectl("get", "vidx", "-n", namespace).returncode == 0)
    wait_for("it is ready again", lambda: process.answers("/readyz"), 45)
    wait_for("one can be made", lambda: try_apply(apply))
    served = ("get", "statefulset", "docs-index", "-n", namespace)
    wait_for("it works", lambda: cluster.try_kubectl(*served).returncode == 0)
    assert process.stop() == 0


def try_apply(apply: Apply) -> bool:
    try:
        apply()
    except AssertionError:
        return False
    return True


BLOCKED = """
import sys, time
from datetime import timedelta
from vectorindex_operator import __main__, app, reconcile

async def reconcile_for_ever(self, key):
    time.sleep(3600)

reconcile.Reconciler.reconcile = reconcile_for_ever
app.LOOP_STUCK /= 10
__main__.END_LIMIT = timedelta(seconds=2)  # not to wait for
sys.exit(__main__.main())
"""


def test_a_blocked_event_loop_is_told_and_hinders_no_end(alone: Callable[..., OperatorProcess], namespace: str, apply: Apply) -> None:
    process = alone(code=BLOCKED)
    process.start()
    assert (process.metric("vectorindex_operator_event_loop_lag_seconds", loop="main") or 0) < 1
    apply()
    wait_for("it is not alive", lambda: not process.answers("/livez"), 10)
    assert (process.metric("vectorindex_operator_event_loop_lag_seconds", loop="main") or 0) > 0.25
    started = time.monotonic()
    assert process.stop() == STUCK
    assert time.monotonic() - started < 10


def test_with_the_api_server_silent_it_ends_within_10_s(
    cluster: RunningCluster, alone: Callable[..., OperatorProcess], tmp_path: Path, namespace: str, apply: Apply
) -> None:
    path = make_account(cluster, tmp_path)
    config = json.loads(path.read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    with gate(server.hostname or "", server.port or 443) as opening:
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{opening.port}"
        path.write_text(json.dumps(config))
        process = alone(path)
        process.start()
        assert opening.silence() >= 7
        apply()
        started = time.monotonic()
        assert process.stop() in (0, STUCK)
        assert time.monotonic() - started < 10
