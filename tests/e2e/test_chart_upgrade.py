"""The chart's whole life on a node: from the first chart there was to today's, another indexer image, away, and back."""

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

from cluster import images
from cluster.lifecycle import Cluster
from examples.wordnet.steps import story, world
from examples.wordnet.steps.kubernetes import Kubernetes, Manifest
from examples.wordnet.steps.report import detail, wait_until
from examples.wordnet.steps.searching import search, watching
from examples.wordnet.steps.world import INDEX, RELEASE, SEARCH, SYSTEM, Images, World
from tests.support import scenes
from tests.support.cluster import node_cluster
from tests.support.helm import EARLIER_CHART, ROOT

CLUSTER = f"test-chart-{os.getpid()}"
SECOND = "second"
SERVED = f"watchNamespaces={{{SEARCH}}}"
NEXT_IMAGE = "localhost/vectorindex-indexer:next"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def once() -> Iterator[World]:
    """A node with the earlier chart, today's images, and two indexes that serve."""
    built = world.build_images()
    with node_cluster(CLUSTER) as running:
        world.load_images(CLUSTER, built)
        scene = World(CLUSTER, Kubernetes(running.program("kubectl").parent, running.kubeconfig), built)
        try:
            world.set_up_namespaces(scene)
            world.set_up_postgres(scene)
            world.install_operator(scene, SERVED, chart=EARLIER_CHART)
            # The images are today's, as those of that time can't be built any more: they write a status that only today's definition knows.
            # tests/integration/operator/test_chart_lifecycle.py has the upgrade of the definition itself.
            scene.kubernetes.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={ROOT / 'crds' / 'vectorindexes.yaml'}")
            world.start_client(scene)
            scenes.make_table(scene, SECOND)
            for manifest in (world.index_manifest(), scenes.small_index(SECOND)):
                scenes.serve(scene, manifest)
            yield scene
        finally:
            scene.close()


def lives(scene: World, index: str) -> dict[str, tuple[str, int]]:
    """Return UID and restarts of each pod by name."""
    return {
        pod["metadata"]["name"]: (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        for pod in world.pods_of(scene, index)
    }


def stateful_sets(scene: World) -> dict[str, Manifest]:
    ours = "--selector=app.kubernetes.io/managed-by=vectorindex-operator"
    return {one["metadata"]["name"]: one for one in scene.kubernetes.items("statefulsets", f"--namespace={SEARCH}", ours)}


def image_of(stateful_set: Manifest) -> str:
    return str(stateful_set["spec"]["template"]["spec"]["containers"][0]["image"])


def is_done(stateful_set: Manifest) -> bool:
    status, wanted = stateful_set["status"], stateful_set["spec"]["replicas"]
    seen = status.get("observedGeneration") == stateful_set["metadata"]["generation"]
    return bool(seen and status.get("updatedReplicas") == status.get("readyReplicas") == wanted)


def test_an_upgrade_from_the_earlier_chart_restarts_no_index_pod(once: World) -> None:
    before = {index: lives(once, index) for index in (INDEX, SECOND)}
    queries, dead = story.make_queries(once)
    with watching(once, queries, dead) as watch:
        world.install_operator(once, SERVED)
        wait_until("an operator to lead", lambda: world.leading_operator(once), 30)
        scenes.see_a_look(once)
        story.wait_for_all(once, INDEX, replicas=2)
    story.check_watch(watch)
    assert len(world.operators(once)) == 2
    changed = {index for index, former in before.items() if lives(once, index) != former}
    detail(f"{watch.answered} searches while the chart was upgraded, {watch.failed} failed; indexes with new pods: {sorted(changed)}")
    assert changed == set()


def test_another_indexer_image_reaches_one_index_at_a_time(once: World) -> None:
    pid = Cluster(CLUSTER).pid
    assert pid is not None
    images.tag_image(once.images.indexer, NEXT_IMAGE, pid, once.kubernetes.programs)
    once.images = Images(once.images.operator, NEXT_IMAGE, once.images.postgres)
    started = time.monotonic()
    world.install_operator(once, SERVED)
    orders: list[tuple[str, ...]] = []

    def updated() -> bool:
        found = stateful_sets(once)
        assert len(found) == 2
        have = tuple(name for name, one in found.items() if image_of(one) == NEXT_IMAGE)
        unfinished = [name for name in have if not is_done(found[name])]
        assert len(unfinished) <= 1, f"{unfinished} are replaced at the same time"
        assert all(one["status"].get("readyReplicas", 0) >= 1 for one in found.values())
        if have not in orders:
            orders.append(have)
        return len(have) == 2 and not unfinished

    wait_until("both indexes to have it", updated, 240)
    detail(f"another image reached {' then '.join(map(str, orders))} within {time.monotonic() - started:.0f} s")
    assert [len(have) for have in orders if have] == [1, 2], "one had it before the other"
    for index in (INDEX, SECOND):
        story.wait_for_all(once, index, replicas=2)


def test_uninstall_keeps_definition_and_indexes_and_says_so_and_an_install_finds_them_again(once: World) -> None:
    before = {index: lives(once, index) for index in (INDEX, SECOND)}
    said = once.kubernetes.helm("uninstall", RELEASE, f"--namespace={SYSTEM}", "--wait", "--timeout=60s")
    assert "kept due to the resource policy" in said
    assert "vectorindexes.vectorindex.dev" in said
    wait_until("the operators to be gone", lambda: not world.operators(once), 60)
    live = once.upstream.live()
    hits = search(once, live.vectors[:20], k=1)
    assert hits.proven
    assert np.array_equal(hits.ids[:, 0], live.ids[:20])
    world.install_operator(once, SERVED)
    scenes.see_a_look(once)
    story.wait_for_all(once, INDEX, replicas=2)
    assert {index: lives(once, index) for index in (INDEX, SECOND)} == before
