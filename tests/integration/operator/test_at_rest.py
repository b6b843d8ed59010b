"""Many indexes that nobody touches: nothing is written while nothing changes, and little while only proofs move on."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.cluster import RunningCluster
from tests.support.many import Api, Background, ManyMembers, addresses_of_loopback, background, create_indexes
from tests.support.operator_process import OperatorProcess, wait_for
from vectorindex_operator import names


@dataclass(frozen=True)
class Many:
    """Indexes with two proven replicas each."""

    loop: Background
    bare: Api
    namespace: str
    count: int
    staleness: int
    members: ManyMembers

    def versions(self) -> dict[str, str]:
        """Return the version of every object: the API server's own word on whether something was written."""

        async def read() -> dict[str, str]:
            found = {}
            for kind in names.WATCHED_KINDS:
                for one in await self.bare.read_list(kind, self.namespace):
                    found[f"{kind}/{one['metadata']['name']}"] = one["metadata"]["resourceVersion"]
            return found

        return self.loop.run(read())


@pytest.fixture
def many(cluster: RunningCluster, operator: OperatorProcess, namespace: str, request: pytest.FixtureRequest) -> Iterator[Many]:
    del operator
    count, staleness = request.param
    with background() as loop:
        bare = loop.run(Api(cluster.kubeconfig).__aenter__())
        members = ManyMembers(bare, namespace)
        try:
            loop.run(create_indexes(bare, namespace, count, consistency={"maxStalenessSeconds": staleness}))
            wait_for("all pods", lambda: len(loop.run(bare.read_list("Pod", namespace))) == 2 * count, 120)
            loop.run(members.serve(addresses_of_loopback()))
            scene = Many(loop, bare, namespace, count, staleness, members)

            def are_settled() -> bool:
                loop.run(members.read_live())
                indexes = loop.run(bare.read_list(names.KIND, namespace))
                return all(is_proven(index) for index in indexes)

            wait_for("all are proven and have read their live files", are_settled, 120)
            settle(scene)
            yield scene
        finally:
            loop.run(members.stop())
            loop.run(bare.__aexit__(None, None, None))


def is_proven(index: dict[str, object]) -> bool:
    status = index.get("status", {})
    assert isinstance(status, dict)
    conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
    return conditions == {"Ready": "True", "Consistent": "True", "SourceAvailable": "True"} and "lastProven" in status


def settle(scene: Many) -> None:
    """Wait until members have read the last live files and nothing was written for 12 s: longer than any index is left alone."""
    before: dict[str, str] = {}
    since = time.monotonic()

    def rests() -> bool:
        nonlocal before, since
        scene.loop.run(scene.members.read_live())
        now = scene.versions()
        if now != before:
            before, since = now, time.monotonic()
        return time.monotonic() - since > 12

    wait_for("nothing is written", rests, 120)


LONG = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(("many", "rest", "motion"), [((8, 90), 15, 30), pytest.param((50, 600), 300, 300, marks=LONG)], indirect=["many"])
def test_nothing_is_written_at_rest_and_little_while_only_proofs_move_on(
    many: Many, operator: OperatorProcess, rest: int, motion: int
) -> None:
    before, writes, asked = many.versions(), operator.writes(), many.members.asked
    time.sleep(rest)  # this long nothing may be written
    assert many.members.asked >= asked + 2 * many.count
    assert operator.writes() == writes
    assert many.versions() == before

    ends, rows = time.monotonic() + motion, 9500
    while time.monotonic() < ends:
        rows += 1
        digest = f"{rows}:0123456789abcdef-fedcba9876543210"
        many.members.prove(sourceRows=rows, rootDigest=digest, snapshot=f"{rows}:{rows}:")
        time.sleep(2)  # the period of the checks that are played
    assert many.count <= operator.writes() - writes <= many.count * (motion // (many.staleness // 2) + 1)
    changed = {name.partition("/")[0] for name, version in many.versions().items() if before[name] != version}
    assert changed == {names.KIND}
