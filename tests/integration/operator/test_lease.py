"""The election by itself, on a real API server and with clocks that the test moves: who may take the Lease, and when it is lost."""

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kubernetes.aio.config import kube_config

from tests.support.cluster import RunningCluster
from tests.support.vector_index import make_index
from vectorindex_operator import api, lease
from vectorindex_operator.api import Json
from vectorindex_operator.cluster import Cluster
from vectorindex_operator.errors import LeadershipLostError
from vectorindex_operator.fence import Fence
from vectorindex_operator.lease import DURATION, RENEW_DEADLINE, Election

NAMESPACE = "default"
LEASE = "elected"
LASTS = DURATION.total_seconds()
EVENT = api.Event("Normal", "Tested", "tested", "identity")


class Candidate:
    """One of several that want the Lease. Each has its own clock, and its own idea of what time of day it is."""

    def __init__(self, cluster: Cluster, name: str, fence: Fence, hour: datetime) -> None:
        self.now = 1000.0
        fence.clock = lambda: self.now
        self.fence = fence
        self.election = Election(cluster, fence, name=LEASE, namespace=NAMESPACE, identity=name, wall_clock=self.tell_time)
        self._hour, self._told = hour, 0

    def tell_time(self) -> datetime:
        self._told += 1
        return self._hour + timedelta(milliseconds=self._told)

    async def takes(self) -> bool:
        return await self.election.try_acquire()


Play = Callable[[Callable[..., Awaitable[Candidate]]], Awaitable[None]]


@pytest.fixture(autouse=True)
def kubeconfig(cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(cluster.kubeconfig))
    yield cluster.kubeconfig
    cluster.kubectl("delete", "lease", LEASE, "-n", NAMESPACE, "--ignore-not-found")


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Play], None]:
    """Run a scene with as many candidates as it asks for."""

    async def no_pause() -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(lease, "_pause", no_pause)

    async def run(scene: Play) -> None:
        clusters: list[Cluster] = []

        async def candidate(name: str, hour: datetime | None = None) -> Candidate:
            fence = Fence()
            clusters.append(await Cluster(fence).__aenter__())
            return Candidate(clusters[-1], name, fence, hour or datetime.now(UTC))

        try:
            await scene(candidate)
        finally:
            for one in clusters:
                await one.__aexit__(None, None, None)

    return lambda scene: asyncio.run(run(scene))


def spec(cluster: RunningCluster) -> Json:
    found: Json = cluster.get("lease", LEASE, "-n", NAMESPACE)["spec"]
    return found


def touch(cluster: RunningCluster, **changes: object) -> None:
    cluster.kubectl("patch", "lease", LEASE, "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": changes}))


def test_a_record_is_taken_only_when_it_stood_still_for_its_whole_time(play: Callable[[Play], None], cluster: RunningCluster) -> None:
    async def scene(candidate: Callable[..., Awaitable[Candidate]]) -> None:
        first, second = await candidate("first"), await candidate("second")
        assert await first.takes()
        assert not await second.takes()
        second.now += LASTS - 0.1
        assert not await second.takes()
        await first.election.renew()
        second.now += LASTS - 0.1
        assert not await second.takes()  # seen renewed just now
        second.now += LASTS - 0.1
        assert not await second.takes()
        second.now += 0.1
        assert await second.takes()
        assert spec(cluster)["holderIdentity"] == "second"
        assert spec(cluster)["leaseTransitions"] == 1

    play(scene)


@pytest.mark.parametrize(
    "hour", [datetime(1999, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), datetime(2106, 1, 1, tzinfo=UTC)], ids=str
)
def test_no_time_of_day_makes_anybody_take_it_early(play: Callable[[Play], None], cluster: RunningCluster, hour: datetime) -> None:
    async def scene(candidate: Callable[..., Awaitable[Candidate]]) -> None:
        first, second = await candidate("first", hour=hour), await candidate("second", hour=hour + timedelta(hours=1))
        assert await first.takes()
        assert spec(cluster)["renewTime"] == hour.strftime("%Y-%m-%dT%H:%M:%S.001000Z")
        assert not await second.takes()
        second.now += LASTS - 0.1
        assert not await second.takes()
        second.now += 0.1
        assert await second.takes()  # and nothing keeps it from taking it in time

    play(scene)


def test_a_released_lease_is_free_at_once(play: Callable[[Play], None], cluster: RunningCluster) -> None:
    async def scene(candidate: Callable[..., Awaitable[Candidate]]) -> None:
        first, second = await candidate("first"), await candidate("second")
        assert await first.takes()
        assert not await second.takes()
        await first.election.release()
        assert not first.fence.may_write()
        assert spec(cluster)["holderIdentity"] == ""
        assert await second.takes()

    play(scene)


def test_a_lease_is_released_though_the_answer_to_the_last_renewal_was_lost(play: Callable[[Play], None], cluster: RunningCluster) -> None:
    async def scene(candidate: Callable[..., Awaitable[Candidate]]) -> None:
        first, second = await candidate("first"), await candidate("second")
        assert await first.takes()
        known = first.election._held
        await first.election.renew()
        first.election._held = known
        await first.election.release()
        assert spec(cluster)["holderIdentity"] == ""
        assert await second.takes()
        await first.election.release()  # what belongs to another stays with it
        assert spec(cluster)["holderIdentity"] == "second"

    play(scene)


def test_of_two_that_find_it_free_one_gets_it(play: Callable[[Play], None]) -> None:
    async def scene(candidate: Callable[..., Awaitable[Candidate]]) -> None:
        several = [await candidate(f"number-{number}") for number in range(5)]
        assert sum(await asyncio.gather(*(one.takes() for one in several))) == 1
        assert sum(one.fence.may_write() for one in several) == 1

    play(scene)


def test_the_fence_shuts_before_another_may_lead_counted_from_before_the_request(play: Callable[[Play], None]) -> None:
    async def scene(candidate: Callable[..., Awaitable[Candidate]]) -> None:
        first = await candidate("first")
        write = first.election._cluster.write_lease

        async def slow(manifest: Json) -> Json:
            first.now += 2.0
            return await write(manifest)

        first.election._cluster.write_lease = slow  # type: ignore[method-assign]
        assert await first.takes()
        assert first.fence.remaining() == pytest.approx(RENEW_DEADLINE.total_seconds() - 2)
        assert RENEW_DEADLINE < DURATION
        first.now += first.fence.remaining()
        assert not first.fence.may_write()
        with pytest.raises(LeadershipLostError):
            await first.election.renew()

    play(scene)


def test_a_renewal_whose_answer_was_lost_loses_nothing(play: Callable[[Play], None], cluster: RunningCluster) -> None:
    async def scene(candidate: Callable[..., Awaitable[Candidate]]) -> None:
        first = await candidate("first")
        assert await first.takes()
        touch(cluster, renewTime="2020-01-01T00:00:00.000000Z")  # the holder stands in it, with a version it never heard of
        first.now += 5
        await first.election.renew()
        assert first.fence.remaining() == pytest.approx(RENEW_DEADLINE.total_seconds())

    play(scene)


def test_who_finds_another_name_in_the_lease_has_lost_it_at_once(play: Callable[[Play], None], cluster: RunningCluster) -> None:
    async def scene(candidate: Callable[..., Awaitable[Candidate]]) -> None:
        first = await candidate("first")
        assert await first.takes()
        touch(cluster, holderIdentity="somebody")
        with pytest.raises(LeadershipLostError, match="somebody"):
            await first.election.renew()
        assert not first.fence.may_write()

    play(scene)


def test_a_deleted_lease_is_nobodys_invitation(play: Callable[[Play], None], cluster: RunningCluster) -> None:
    async def scene(candidate: Callable[..., Awaitable[Candidate]]) -> None:
        first, second = await candidate("first"), await candidate("second")
        assert await first.takes()
        assert not await second.takes()
        cluster.kubectl("delete", "lease", LEASE, "-n", NAMESPACE)
        assert not await second.takes()  # first still acts
        await first.election.renew()
        assert spec(cluster)["holderIdentity"] == "first"

    play(scene)


def test_a_holder_with_a_longer_lease_is_waited_for(play: Callable[[Play], None], cluster: RunningCluster) -> None:
    async def scene(candidate: Callable[..., Awaitable[Candidate]]) -> None:
        first, second = await candidate("first"), await candidate("second")
        assert await first.takes()
        touch(cluster, leaseDurationSeconds=25)
        assert not await second.takes()
        second.now += 24
        assert not await second.takes()
        second.now += 1
        assert await second.takes()

    play(scene)


def test_identities_of_one_pod_differ() -> None:
    names = {lease.make_identity("operator-0") for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith("operator-0_") for name in names)


class FenceThatShuts(Fence):
    """Shut by the time the connection stands."""

    def __init__(self) -> None:
        super().__init__()
        self.open_for_ever()
        self.connected = threading.Event()
        self.asked = 0

    def may_write(self) -> bool:
        self.asked += 1
        if self.asked == 2:
            assert self.connected.wait(5)
            self.shut()
        return super().may_write()


def test_the_fence_is_asked_again_once_the_connection_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting may take long: what may be sent when it begins need not be allowed any more when it ends."""
    fence, heard = FenceThatShuts(), []

    def accept(listener: socket.socket) -> None:
        with closing(listener.accept()[0]) as connection:
            fence.connected.set()
            heard.append(connection.recv(65536))

    async def write(port: int) -> None:
        config = {"clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{port}"}}], "users": [{"name": "a", "user": {}}]}
        config |= {"contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}], "current-context": "a"}  # type: ignore[dict-item]
        path = tmp_path / "config"
        path.write_text(json.dumps(config))
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        async with Cluster(fence) as cluster:
            with pytest.raises(LeadershipLostError):
                await cluster.post_event(make_index(), EVENT, datetime.now(UTC))

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = threading.Thread(target=accept, args=(listener,))
        server.start()
        asyncio.run(write(listener.getsockname()[1]))
        server.join(5)
    assert heard == [b""]
    assert fence.asked == 2
