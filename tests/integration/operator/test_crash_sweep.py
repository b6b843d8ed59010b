"""The operator is killed after each of its writes in turn; what it leaves in the end is what it leaves undisturbed."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from tests.integration.operator.conftest import Proxied
from tests.support.api_proxy import Call
from tests.support.cluster import RunningCluster
from tests.support.operator_process import fleet, wait_for
from tests.support.runs import SCENARIOS, Run, Scenario
from vectorindex_operator.api import Json

log = logging.getLogger(__name__)


class Sweep:
    """Makes runs of a scenario, and kills the operator in each after another write."""

    def __init__(self, operator: Proxied, cluster: RunningCluster, scenario: Scenario, name: str) -> None:
        self._operator, self._cluster, self._scenario = operator, cluster, scenario
        self._name = name.replace(" ", "-")
        self._stack = ExitStack()
        self._made = 0

    def prepare(self) -> Run:
        """Return a new index that has not been acted on."""
        self._made += 1
        namespace = f"{self._name}-{self._made}"
        self._cluster.kubectl("create", "namespace", namespace)
        run = Run(self._cluster, namespace, self._stack.enter_context(fleet(self._cluster, namespace)))
        if self._scenario.prepare:
            run.apply()
        return run

    def begin(self, run: Run) -> None:
        """Let it settle before it is acted on."""
        self._scenario.begin(run)

    def act(self, run: Run, kill_after: int) -> bool:
        """Act on the index, and kill the operator after so many writes; return False when it has settled before."""
        killed = threading.Event()
        left = [kill_after]

        def count(call: Call) -> None:
            if not call.is_write or call.namespace != run.namespace or call.code >= 300:
                return
            left[0] -= 1
            if left[0] == 0:
                self._operator.process.kill()
                killed.set()

        with self._operator.proxy.fault(done=count):
            self._scenario.act(run)
            wait_for("it has settled or was killed", lambda: killed.is_set() or self._scenario.is_done(run), 120)
        if killed.is_set():
            self._operator.process.start()
        return killed.is_set()

    def finish(self, run: Run) -> Json:
        """Return the end state, once the index has settled."""
        wait_for(f"the index in {run.namespace} has settled", lambda: self._scenario.is_done(run), 120)
        return run.state()

    def close(self) -> None:
        """Remove the indexes."""
        for number in range(1, self._made + 1):
            self._cluster.kubectl("delete", "vidx", "--all", "-n", f"{self._name}-{number}")
        self._stack.close()


@pytest.fixture
def make_sweep(proxied: Proxied, cluster: RunningCluster) -> Iterator[Callable[[str], Sweep]]:
    with ExitStack() as made:

        def make(name: str) -> Sweep:
            sweep = Sweep(proxied, cluster, SCENARIOS[name], name)
            made.callback(sweep.close)
            return sweep

        yield make


NEVER: Final = 10_000


def find_difference(expected: Any, found: Any, place: str = "") -> str:
    """Return the first place in which two documents differ, with what stands there; nothing when they are equal."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        return next(filter(None, (find_difference(expected[key], found[key], f"{place}.{key}") for key in expected)), "")
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return next(
            filter(None, (find_difference(*pair, f"{place}[{at}]") for at, pair in enumerate(zip(expected, found, strict=True)))), ""
        )
    return "" if expected == found else f"{place}: {json.dumps(found)} instead of {json.dumps(expected)}"


@pytest.mark.parametrize(("name", "step"), [("create", 3), *(pytest.param(name, 1, marks=pytest.mark.slow) for name in SCENARIOS)])
def test_killed_after_any_write_it_ends_with_the_same(make_sweep: Callable[[str], Sweep], proxied: Proxied, name: str, step: int) -> None:
    sweep = make_sweep(name)
    undisturbed = sweep.prepare()
    sweep.begin(undisturbed)
    before = len(proxied.proxy.writes(undisturbed.namespace))
    assert not sweep.act(undisturbed, NEVER)
    writes = [call for call in proxied.proxy.writes(undisturbed.namespace)[before:] if call.code < 300]
    expected = sweep.finish(undisturbed)

    runs = {number: sweep.prepare() for number in range(1, len(writes) + 1, step)}
    for run in runs.values():
        sweep.begin(run)
    killed = [sweep.act(run, number) for number, run in runs.items()]
    # what is told on the way hangs on how fast things went: a run may end before as many writes as the first
    assert sum(killed) >= 0.75 * len(runs) > 0, [str(call) for call in writes]
    for number, run in runs.items():
        difference = find_difference(expected, sweep.finish(run))
        assert not difference, f"killed after write {number} of {[str(call) for call in writes]}: {difference}"
    log.info("%s: killed after %d of %d writes, the same %d objects in the end", name, sum(killed), len(writes), len(expected["objects"]))
