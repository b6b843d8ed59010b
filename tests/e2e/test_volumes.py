"""A volume lives as long as its replica: one that was scaled away or deleted leaves none behind, and a new one finds none."""

from collections.abc import Iterator

import pytest

from examples.wordnet.steps import members, story, world
from examples.wordnet.steps.report import expect, wait_until
from examples.wordnet.steps.world import SEARCH, World
from tests.support import scenes

STORED = "stored"
CLAIMS = tuple(f"data-{STORED}-index-{number}" for number in (0, 1))


@pytest.fixture(scope="module")
def stored(scene: World) -> Iterator[World]:
    """Two replicas with volumes, of which the fixture's user is free to leave nothing."""
    scenes.make_table(scene, STORED)
    scenes.serve(scene, manifest())
    yield scene
    world.delete_index(scene, STORED)


def manifest() -> dict[str, object]:
    return scenes.small_index(STORED, storage={"size": "1Gi"})


def claims(scene: World) -> dict[str, str]:
    """Return the UIDs of the index's claims by name."""
    found = scene.kubernetes.items("persistentvolumeclaims", f"--namespace={SEARCH}")
    return {claim["metadata"]["name"]: claim["metadata"]["uid"] for claim in found if claim["metadata"]["name"] in CLAIMS}


def test_volume_of_a_replica_that_is_scaled_away_is_deleted(stored: World) -> None:
    former = claims(stored)
    assert set(former) == set(CLAIMS)
    stored.kubernetes.kubectl("scale", "vidx", STORED, "--replicas=1", f"--namespace={SEARCH}")
    wait_until("the second claim to be gone", lambda: claims(stored) == {CLAIMS[0]: former[CLAIMS[0]]}, 60)
    story.wait_for_all(stored, STORED, replicas=1)


def test_index_made_again_at_once_finds_nothing_of_its_former_life(stored: World) -> None:
    pod = f"{STORED}-index-0"
    wait_until("the index to be saved", lambda: story.is_saved(stored, pod), 45)
    former, former_pod, index = claims(stored), scenes.uid_of(stored, f"pod/{pod}"), scenes.uid_of(stored, f"vidx/{STORED}")
    assert former
    stored.kubernetes.kubectl("delete", "vidx", STORED, f"--namespace={SEARCH}", "--wait=false")
    scenes.serve(stored, manifest())
    assert scenes.uid_of(stored, f"vidx/{STORED}") != index
    assert scenes.uid_of(stored, f"pod/{pod}") != former_pod
    assert set(claims(stored)) == set(CLAIMS)
    assert not set(claims(stored).values()) & set(former.values())
    for name in members.names(stored, STORED):
        loads = members.metrics(stored, name).counts("vectorindex_saved_index_loads_total", "result")
        assert not loads.get("loaded"), f"{name} loaded what an earlier index of that name had saved"


def test_deleted_index_leaves_no_volume(stored: World) -> None:
    assert set(claims(stored)) == set(CLAIMS)
    world.delete_index(stored, STORED)

    def gone() -> bool:
        volumes = stored.kubernetes.items("persistentvolumes")
        bound = [volume["spec"]["claimRef"]["name"] for volume in volumes if volume["status"]["phase"] == "Bound"]
        expect(not claims(stored) and not set(bound) & set(CLAIMS), f"left: {claims(stored)}; bound: {bound}")
        return True

    wait_until("claims to be gone and their volumes to be free", gone, 60)
